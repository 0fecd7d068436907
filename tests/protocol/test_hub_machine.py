"""Rooms, hub, door and a slow journal, driven at random against a model that fits on a page."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, RuleBasedStateMachine, initialize, invariant, multiple, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from ocm.errors import JournalFailed
from ocm.protocol.address import Address, make_address
from ocm.protocol.control.packets import Form
from ocm.protocol.entry import Kind, Reason, Record, Refusal
from ocm.protocol.hub import Delivery, Farewell, Hub, Release, Turn
from ocm.protocol.limits import Limits
from ocm.protocol.link.base import Addressing
from ocm.protocol.link.classic import ClassicDoor, ClassicLink
from ocm.protocol.room import Intent
from ocm.protocol.wire.classic import write_datagram
from ocm.store.memory import MemoryJournal

LIMITS = Limits(members_per_room_max=4, rooms_max=2, pending_max=8, idle_timeout_s=30, lost_timeout_s=5, burst_max=9999)
LOOKS = {"alice": "alice", "aIice": "alice", "bob": "bob", "carol": "carol", "dave": "dave"}


@dataclass(eq=False)
class Person:
    """Somebody with a program: what the model and the harness know about one seat that was asked for."""

    name: str
    room: str
    form: Form
    token: bytes
    link: ClassicLink
    address: Address
    heard_s: float
    bound: bool = False
    lost_s: float | None = None


Step: TypeAlias = tuple[str, Kind, Person | None, str]
"""Room, kind, whom it is about (None: the server), text or reason."""


@dataclass
class Model:
    """What a server of rooms does, were journals instant and sockets free: lists of people, no protocol."""

    rooms: dict[str, list[Person]] = field(default_factory=dict[str, list[Person]])
    waiting: list[Step] = field(default_factory=list[Step])
    seqs: dict[str, int] = field(default_factory=dict[str, int])
    sent: dict[Address, list[bytes]] = field(default_factory=lambda: defaultdict(list))

    def about(self, room: str, kind: Kind) -> list[Person | None]:
        return [who for at, what, who, _ in self.waiting if at == room and what is kind]

    def refusal(self, room: str, name: str, *, create: bool) -> Refusal | None:
        if len(self.waiting) >= LIMITS.pending_max:
            return Refusal.UNAVAILABLE
        names = {*self.rooms, *(at for at, *_ in self.waiting)}
        inside = [*self.rooms.get(room, ()), *filter(None, self.about(room, Kind.JOIN))]
        if room in names if create else room not in names:
            return Refusal.ROOM_EXISTS if create else Refusal.NOT_FOUND
        if create and len(names) == LIMITS.rooms_max:
            return Refusal.SERVER_FULL
        if self.about(room, Kind.CLOSED):
            return Refusal.NOT_FOUND
        if LOOKS[name] in (LOOKS[person.name] for person in inside):
            return Refusal.NAME_TAKEN
        return Refusal.ROOM_FULL if len(inside) == LIMITS.members_per_room_max else None

    def is_member(self, who: Person) -> bool:
        going = self.about(who.room, Kind.CLOSED) or who in self.about(who.room, Kind.LEAVE)
        return who in self.rooms.get(who.room, ()) and not going

    def leave(self, who: Person, reason: Reason) -> list[Step]:
        last = [(who.room, Kind.CLOSED, None, Reason.HOST_LEFT)] if who is self.rooms[who.room][0] else []
        return [(who.room, Kind.LEAVE, who, reason), *last]

    def happen(self) -> None:
        room, kind, who, text = self.waiting.pop(0)
        self.seqs[room] = self.seqs.get(room, 0) + 1
        people = self.rooms.setdefault(room, [])
        about, why = who.name if who else "", "" if text == Reason.BYE else f": {text}"
        if kind is Kind.LEAVE and who:
            people.remove(who)
            self.tell([who] if why else [], "", f"you were removed{why}", list(Form))
        said = {Kind.TEXT: text, Kind.JOIN: f"{about} joined", Kind.LEAVE: f"{about} left{why}"}
        forms = list(Form) if kind in (Kind.TEXT, Kind.CLOSED) else [Form.OCM]
        hearers = [person for person in people if person is not who or person.form is Form.REFERENCE]
        self.tell(hearers, about if kind is Kind.TEXT else "", said.get(kind, f"room closed: {text}"), forms)
        if kind is Kind.JOIN and who:
            people.append(who)
        if kind is Kind.CLOSED:
            del self.rooms[room], self.seqs[room]

    def tell(self, hearers: Sequence[Person], name: str, text: str, forms: Sequence[Form]) -> None:
        star, plain = ("", f"{name}: {text}") if name else ("* ", "* " + text.replace(": ", ", "))
        for to in (person for person in hearers if person.form in forms):
            second = {Form.OCM: name.encode(), Form.REFERENCE: to.token}.get(to.form, b"")
            words = bytes((len(to.room), len(second))) + to.room.encode() + second
            said = text if to.form is Form.OCM else star + text
            self.sent[to.address].append(plain.encode() if to.form is Form.PLAIN else words + said.encode())


@dataclass
class Batch:
    """What waits in the journal."""

    up_to: int
    records: Sequence[Record]
    doomed: bool = False


class HubMachine(RuleBasedStateMachine):
    """The harness: a driver without sockets, and a journal that takes its time."""

    hub_class: type[Hub] = Hub
    link_class: type[ClassicLink] = ClassicLink
    door_class: type[ClassicDoor] = ClassicDoor
    people = Bundle[Person]("people")

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0
        self.hub = self.hub_class(LIMITS)
        self.door = self.door_class()
        self.model = Model()
        self.journal = MemoryJournal(LIMITS)
        self.batches: list[Batch] = []
        self.patience = 0
        self.sent: dict[Address, list[bytes]] = defaultdict(list)
        self.numbers = 0

    @initialize(
        target=people, forms=st.lists(st.sampled_from(Form), min_size=2, max_size=4), patience=st.integers(0, 5)
    )
    def some_are_here_already(self, forms: list[Form], patience: int) -> MultipleResults[Person]:
        here: list[Person] = []
        for user, form in zip(("alice", "bob", "carol", "dave"), forms, strict=False):
            person = self.ask("a", user, form, create=not here)
            assert isinstance(person, Person)
            here.append(person)
        self.patience = patience
        return multiple(*here)

    # --- what people do -------------------------------------------------------------------------------

    @rule(
        target=people,
        room=st.sampled_from("aaabc"),
        user=st.sampled_from(sorted(LOOKS)),
        form=st.sampled_from(Form),
        contrary=st.sampled_from([False, False, False, True]),
    )
    def enter(self, room: str, user: str, form: Form, contrary: bool) -> Person | MultipleResults[Person]:
        """Create a room that is not there, join one that is; now and then the other way about."""
        return self.ask(room, user, form, create=(room in self.hub.rooms()) is contrary)

    @rule(senders=st.lists(people, min_size=1, max_size=4), text=st.sampled_from(["hello", "はい", "x: y", ""]))
    def send(self, senders: list[Person], text: str) -> None:
        known = [person for person in senders if person.link.member is not None]
        self.knows(known)
        intents = self.knock(
            [self.said(person, text, person.token) for person in senders], drops=len(senders) - len(known)
        )
        steps: list[Step] = []
        waits: list[float] = []
        for person in known if text else ():
            if not self.model.is_member(person):
                waits.append(0.0)
            elif len(self.model.waiting) + len(steps) >= LIMITS.pending_max:
                waits.append(1.0)
            else:
                steps.append((person.room, Kind.TEXT, person, text))
        turn = self.hub.take(intents, now_s=self.now_s)
        assert [refused.wait_s for refused in turn.refusals] == waits
        self.submit(turn, steps)

    @rule(person=people, text=st.sampled_from([b"\xff", b"x" * 5000]))
    def send_what_is_no_message(self, person: Person, text: bytes) -> None:
        known = [person] if person.link.member is not None else []
        self.knows(known)
        datagram = write_datagram(person.room.encode(), person.token, text)
        assert not self.knock([(datagram, self.own_address(person))], drops=1)

    @rule(person=people, other=people, wrong=st.sampled_from(["token", "room", "host", "port", "other's token"]))
    def send_as_somebody_else(self, person: Person, other: Person, wrong: str) -> None:
        token, room, address = person.token, person.room, self.own_address(person)
        match wrong:
            case "token":
                token = token[:-1] + b"!"
            case "room":
                room += "x"
            case "host":
                address = make_address("10.9.9.9", 9)
            case "port" if person.bound:
                address = make_address(f"10.0.0.{self.number(person)}", 9)
            case _ if other is not person:
                token = other.token
            case _:
                return
        assert not self.knock([(write_datagram(room.encode(), token, b"I am not me"), address)], drops=1)

    @rule(person=people, reason=st.sampled_from([Reason.BYE, Reason.KICKED]))
    def leave(self, person: Person, reason: Reason) -> None:
        member = person.link.member
        if member is not None:
            steps = self.model.leave(person, reason) if self.model.is_member(person) else []
            self.submit(self.hub.leave(member, reason, now_s=self.now_s), steps)

    @rule(person=people, form=st.sampled_from(Form))
    def come_back_by_another_door(self, person: Person, form: Form) -> None:
        member = person.link.member
        if member is None:
            return
        link = self.link_class(form, room=person.room, user=person.name, token=person.token, address=person.address)
        can_move = person in self.model.rooms.get(person.room, ()) and person not in self.model.about(
            person.room, Kind.LEAVE
        )
        before = self.hub.move(member, link)
        assert before is (person.link if can_move else None)
        if before is not None:
            assert before.member is None
            person.link, person.form, person.bound = link, form, False
            self.door.links[person.token] = link

    @rule(person=people)
    def lose_the_connection(self, person: Person) -> None:
        if (member := person.link.member) is not None:
            self.hub.lose(member, now_s=self.now_s)
            person.lost_s = self.now_s if person.lost_s is None else person.lost_s

    # --- what the server does -------------------------------------------------------------------------

    @rule(room=st.sampled_from("ab"))
    def close(self, room: str) -> None:
        # A room that nobody is in yet can be closed too; its JOIN is in front of the CLOSED.
        names = {*self.model.rooms, *(at for at, *_ in self.model.waiting)}
        is_open = room in names and not self.model.about(room, Kind.CLOSED)
        steps: list[Step] = [(room, Kind.CLOSED, None, Reason.SERVER_STOPPED)] if is_open else []
        self.submit(self.hub.close(room, Reason.SERVER_STOPPED, now_s=self.now_s), steps)

    @rule(seconds=st.sampled_from([1, 2, 4, 8, 16]))
    def time_passes(self, seconds: int) -> None:
        self.now_s += seconds
        seated = [person for people in self.model.rooms.values() for person in people]
        late = [person for person in seated if self.is_late(person) and self.model.is_member(person)]
        turn = self.hub.handle_timeout(now_s=self.now_s)
        steps: list[Step] = []  # those who expire together go in any order, which the turn says
        for room, _, entry, _ in turn.records:
            if entry.kind is Kind.LEAVE:
                who = next(person for person in late if (person.room, person.name) == (room, entry.name))
                steps += self.model.leave(who, Reason.IDLE if who.lost_s is None else Reason.LOST)
        gone = [who for _, _, who, _ in steps]
        closing = [room for room, kind, _, _ in steps if kind is Kind.CLOSED]
        assert all(person in gone or person.room in closing for person in late)
        due_s = self.hub.next_timeout_s()
        assert due_s is None or due_s > self.now_s
        self.submit(turn, steps)

    # --- what the journal does ------------------------------------------------------------------------

    @rule(count=st.integers(1, 4))
    def commit(self, count: int) -> None:
        for _ in self.batches[:count]:
            batch = self.batches.pop(0)
            if batch.doomed:
                assert self.hub.failed(batch.up_to) == []
                continue
            outcome: list[JournalFailed | None] = []
            self.journal.submit(batch.records, outcome.append)
            assert outcome == [None], "the log has a hole"
            for _ in batch.records:
                self.model.happen()
            self.hub.committed(batch.up_to, self.release)

    @rule(told_later=st.booleans())
    def fail(self, told_later: bool) -> None:
        """The oldest batch fails, and with it all that stand behind it, told now or later."""
        healthy = [batch for batch in self.batches if not batch.doomed]
        if not healthy:
            return
        while self.batches[0].doomed:
            self.commit(1)
        arriving = [who for room in "abc" for who in self.model.about(room, Kind.JOIN) if who is not None]
        turned_away = self.hub.failed(healthy[0].up_to)
        assert set(turned_away) == {person.link for person in arriving}
        assert all(link.member is None for link in turned_away)
        self.model.waiting.clear()
        self.batches = healthy[1:]
        for batch in self.batches:
            batch.doomed = True
        if not told_later:
            self.commit(len(self.batches))

    # --- what must be true ----------------------------------------------------------------------------

    @invariant()
    def everybody_was_sent_what_the_model_says(self) -> None:
        assert self.sent == self.model.sent

    @invariant()
    def the_rooms_are_those_of_the_model(self) -> None:
        model = {room: [person.name for person in people] for room, people in self.model.rooms.items()}
        rooms = {room: [member.name for member in self.hub.members(room)] for room in self.hub.rooms()}
        assert {room: names for room, names in rooms.items() if names} == model
        assert set(rooms) == {*model, *(room for room, *_ in self.model.waiting)}
        counts = self.hub.counts()
        assert (counts.rooms, counts.members) == (len(rooms), sum(map(len, model.values())))
        assert counts.pending == len(self.model.waiting)

    @invariant()
    def nobody_is_forgotten_by_the_clock(self) -> None:
        stays = [person for people in self.model.rooms.values() for person in people if self.model.is_member(person)]
        assert self.hub.next_timeout_s() is not None or not stays

    # --- helpers --------------------------------------------------------------------------------------

    def ask(self, room: str, user: str, form: Form, *, create: bool) -> Person | MultipleResults[Person]:
        self.numbers += 1
        token = b"%036d" % self.numbers
        address = make_address(f"10.0.0.{self.numbers}", 1)
        link = self.link_class(form, room=room, user=user, token=token, address=address)
        expected = self.model.refusal(room, user, create=create)
        ask = self.hub.create if create else self.hub.join
        turn = ask(link, room=room, user=user, now_s=self.now_s)
        if isinstance(turn, Refusal):
            assert turn is expected
            assert link.member is None
            return multiple()
        assert expected is None
        self.door.links[token] = link
        person = Person(user, room, form, token, link, address, heard_s=self.now_s)
        self.submit(turn, [(room, Kind.JOIN, person, "")])
        return person

    def number(self, person: Person) -> int:
        return int(person.token)

    def own_address(self, person: Person) -> Address:
        """Where the person's datagrams come from: another port than the connection, until it is frozen."""
        return person.address if person.bound else make_address(f"10.0.0.{self.number(person)}", 2)

    def said(self, person: Person, text: str, token: bytes) -> tuple[bytes, Address]:
        return write_datagram(person.room.encode(), token, text.encode()), self.own_address(person)

    def knows(self, people: Sequence[Person]) -> None:
        """The next datagram of these people shows their address and that they live."""
        for person in people:
            person.address, person.bound = self.own_address(person), True
            person.heard_s, person.lost_s = self.now_s, None

    def knock(self, datagrams: list[tuple[bytes, Address]], *, drops: int) -> list[Intent]:
        before = self.dropped()
        intents = self.door.receive_batch(datagrams, now_s=self.now_s)
        assert self.dropped() - before == drops
        return intents

    def dropped(self) -> int:
        counters = self.door.counters
        return sum(getattr(counters, name) for name in counters.__slots__)

    def is_late(self, person: Person) -> bool:
        idle = self.now_s - person.heard_s >= LIMITS.idle_timeout_s
        return idle or (person.lost_s is not None and self.now_s - person.lost_s >= LIMITS.lost_timeout_s)

    def submit(self, turn: Turn, steps: list[Step]) -> None:
        """Compare the records with what the model expects, and leave them with the journal."""
        seqs = {room: self.model.seqs.get(room, 0) for room in "abc"}
        for room, *_ in self.model.waiting:
            seqs[room] += 1
        expected: list[tuple[str, int, Kind, str, bytes]] = []
        for room, kind, who, text in steps:
            seqs[room] += 1
            expected.append((room, seqs[room], kind, who.name if who else "", text.encode()))
        assert [(at, e.seq, e.kind, e.name, e.body) for at, _, e in turn.records] == expected
        self.model.waiting += steps
        if turn.records:
            self.batches.append(Batch(turn.up_to, turn.records))
        if len(self.batches) > self.patience:
            self.commit(1)

    def release(self, release: Release) -> None:
        """Do what a driver does with what a commit lets out."""
        match release:
            case Delivery(audience, payload, _, skip):
                each = audience.form.addressing is Addressing.EACH
                for link in audience.links:
                    if link is not skip:
                        self.sent[link.address].append(link.finish(payload) if each else payload)
            case Farewell(link, payload):
                assert isinstance(link, ClassicLink)
                if payload is not None:
                    each = link.form.addressing is Addressing.EACH
                    self.sent[link.address].append(link.finish(payload) if each else payload)
                del self.door.links[link.token]
            case _:
                pass


def test_the_hub_does_what_the_model_does() -> None:
    run_machine(HubMachine, settings=settings(max_examples=200, stateful_step_count=40))


@pytest.mark.campaign
@pytest.mark.timeout(1800)
def test_the_hub_does_what_the_model_does_for_long() -> None:
    run_machine(
        HubMachine, settings=settings(settings.get_profile("campaign"), max_examples=500, stateful_step_count=50)
    )


def test_the_model_fits_on_a_page() -> None:
    assert len(inspect.getsource(Model).splitlines()) <= 60
