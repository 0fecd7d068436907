"""Rooms, hub, doors and a slow journal, driven at random against a model that fits on two pages."""

from __future__ import annotations

import inspect
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Final, TypeAlias

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, RuleBasedStateMachine, initialize, invariant, multiple, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from ocm.errors import JournalFailed
from ocm.protocol.address import Address, make_address
from ocm.protocol.control.packets import Form
from ocm.protocol.entry import (
    Access,
    Identity,
    KeptMember,
    KeptRoom,
    Kind,
    Lifetime,
    Moved,
    Opened,
    Policy,
    Reason,
    Record,
    Refusal,
    Refused,
)
from ocm.protocol.entry import Step as Written
from ocm.protocol.hub import Delivery, Farewell, Hub, Release, Reseating, Seating, Turn
from ocm.protocol.limits import Limits
from ocm.protocol.link.base import Addressing, Link
from ocm.protocol.link.classic import ClassicDoor, ClassicLink, restore_link
from ocm.protocol.link.log import RoomLog
from ocm.protocol.link.modern import ModernLink, client_of
from ocm.protocol.room import Intent
from ocm.protocol.wire.classic import read_datagram, write_datagram
from ocm.protocol.wire.frames import Publish
from ocm.store.memory import MemoryJournal
from tests.store.histories import fold

LIMITS = Limits(
    members_per_room_max=4,
    rooms_max=2,
    pending_max=10,
    idle_timeout_s=30,
    lost_timeout_s=5,
    host_grace_s=7,
    detached_timeout_s=40,
    burst_max=9999,
)
LOOKS = {"alice": "alice", "aIice": "alice", "bob": "bob", "carol": "carol", "dave": "dave"}
OPENED, REFUSED, MOVED = "opened", "refused", "moved"
RAISED: Final = "the room takes encrypted connections only from now on"
POLICIES = [Policy(access, lifetime) for lifetime in Lifetime for access in Access]


@dataclass(eq=False)
class Person:
    """Somebody with a program: what the model and the harness know about one seat that was asked for."""

    name: str
    room: str
    form: Form | None
    """None: it speaks TCRP/2."""
    token: bytes
    link: ClassicLink | ModernLink
    address: Address
    heard_s: float
    bound: bool = False
    lost_s: float | None = None
    mark: int = 0
    first_form: Form | None = None
    home: Address = b""
    """Where it was when it got its door; with ``first_form`` all that the journal knows of that."""
    asked: list[tuple[Form, Address]] = field(default_factory=list[tuple[Form, Address]])
    """Doors that it asked for and does not have yet: the form, and where it was then."""
    shown: bytes = b""
    """Its token, unless the server was started anew since it last said it."""


Step: TypeAlias = tuple[str, Kind | str, Person | None, str | Policy]
"""Room, kind, whom it is about (None: the server), text, reason or policy."""


@dataclass
class Model:
    """What a server of rooms does, were journals instant and sockets free: lists of people, no protocol."""

    rooms: dict[str, list[Person]] = field(default_factory=dict[str, list[Person]])
    policies: dict[str, Policy] = field(default_factory=dict[str, Policy])
    waiting: list[Step] = field(default_factory=list[Step])
    seqs: dict[str, int] = field(default_factory=dict[str, int])
    sent: dict[bytes, list[bytes]] = field(default_factory=lambda: defaultdict(list))

    def about(self, room: str, kind: Kind | str) -> list[Person | None]:
        return [who for at, what, who, _ in self.waiting if at == room and what is kind]

    def policy(self, room: str) -> Policy:
        opened = [what for at, kind, _, what in self.waiting if at == room and kind is OPENED]
        return opened[0] if opened and isinstance(opened[0], Policy) else self.policies[room]

    def is_modern(self, room: str) -> bool:
        return bool(self.about(room, Kind.POLICY)) or self.policy(room).access is Access.MODERN

    def inside(self, room: str) -> list[Person]:
        return [*self.rooms.get(room, ()), *filter(None, self.about(room, Kind.JOIN))]

    def staying(self, room: str) -> list[Person]:
        return [person for person in self.inside(room) if person not in self.about(room, Kind.LEAVE)]

    def refusal(self, room: str, name: str, form: Form | None, *, create: bool) -> Refusal | None:
        if len(self.waiting) >= LIMITS.pending_max:
            return Refusal.UNAVAILABLE
        names = {*self.rooms, *(at for at, *_ in self.waiting)}
        if room in names if create else room not in names:
            return Refusal.ROOM_EXISTS if create else Refusal.NOT_FOUND
        if create:
            return Refusal.SERVER_FULL if len(names) == LIMITS.rooms_max else None
        if self.about(room, Kind.CLOSED) or (form and self.is_modern(room)):
            return Refusal.NOT_FOUND
        if LOOKS[name] in (LOOKS[person.name] for person in self.inside(room)):
            return Refusal.NAME_TAKEN
        return Refusal.ROOM_FULL if len(self.inside(room)) == LIMITS.members_per_room_max else None

    def is_member(self, who: Person) -> bool:
        going = self.about(who.room, Kind.CLOSED) or who in self.about(who.room, Kind.LEAVE)
        return who in self.rooms.get(who.room, ()) and not going

    def part(self, room: str, leaving: Sequence[tuple[Person, Reason]], now_s: float) -> None:
        """These go; with the host goes a room that closes, with the last one a room that was to be handed over."""
        lifetime, before = self.policy(room).lifetime, self.staying(room)
        self.waiting += [(room, Kind.LEAVE, who, reason) for who, reason in leaving]
        after = self.staying(room)
        ends = {
            Lifetime.CLOSE: self.inside(room)[:1] != after[:1],
            Lifetime.HAND_OVER: not after,
            Lifetime.PERSIST: False,
        }
        if ends[lifetime]:
            self.waiting.append((room, Kind.CLOSED, None, Reason.HOST_LEFT))
        elif lifetime is Lifetime.HAND_OVER and before[0] is not after[0] and after[0].lost_s is not None:
            after[0].lost_s = now_s

    def happen(self) -> None:
        room, kind, who, text = self.waiting.pop(0)
        if who and (kind is REFUSED or (kind is Kind.TEXT and not who.form)):
            who.mark += 1
        if who and kind is MOVED:
            who.form, who.address = who.first_form, who.home = who.asked.pop(0)
            who.bound, who.shown = False, who.token
        if isinstance(text, Policy):
            self.policies[room], self.rooms[room], self.seqs[room] = text, [], 0
        if not isinstance(kind, Kind):
            return
        self.seqs[room] += 1
        people = self.rooms[room]
        about, why = who.name if who else "", "" if text == Reason.BYE else f": {text}"
        if kind is Kind.LEAVE and who:
            people.remove(who)
            self.tell([who] if why else [], "", f"you were removed{why}", list(Form))
        said = {Kind.TEXT: text, Kind.JOIN: f"{about} joined", Kind.LEAVE: f"{about} left{why}", Kind.POLICY: RAISED}
        forms = list(Form) if kind in (Kind.TEXT, Kind.CLOSED) else [Form.OCM]
        hearers = [person for person in people if person is not who or person.form is Form.REFERENCE]
        name = about if kind is Kind.TEXT else ""
        self.tell(hearers, name, str(said.get(kind, f"room closed: {text}")), forms, bare=bool(who and who.form))
        for person in people:
            self.sent[person.token] += [] if person.form else [b"%d" % self.seqs[room]]
        if kind is Kind.JOIN and who:
            people.append(who)
        if kind is Kind.POLICY:
            self.policies[room] = replace(self.policies[room], access=Access.MODERN)
        if kind is Kind.CLOSED:
            del self.rooms[room], self.seqs[room], self.policies[room]

    def tell(
        self, hearers: Sequence[Person], name: str, text: str, forms: Sequence[Form], *, bare: bool = False
    ) -> None:
        star, plain = ("", f"{name}: {text}") if name else ("* ", "* " + text.replace(": ", ", "))
        for to in (person for person in hearers if person.form in forms):
            second = {Form.OCM: name.encode(), Form.REFERENCE: to.shown}.get(to.form or Form.PLAIN, b"")
            words = bytes((len(to.room), len(second))) + to.room.encode() + second
            said = text if to.form is Form.OCM else star + text if bare or not name else plain
            self.sent[to.address].append(plain.encode() if to.form is Form.PLAIN else words + said.encode())


@dataclass
class Batch:
    """What waits in the journal."""

    up_to: int
    records: Sequence[Written]
    doomed: bool = False


class HubMachine(RuleBasedStateMachine):
    """The harness: a driver without sockets, and a journal that takes its time."""

    hub_class: type[Hub] = Hub
    link_class: type[ClassicLink] = ClassicLink
    modern_class: type[ModernLink] = ModernLink
    door_class: type[ClassicDoor] = ClassicDoor
    people = Bundle[Person]("people")

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0
        self.hub = self.hub_class(LIMITS)
        self.door = self.door_class()
        self.model = Model()
        self.journal = MemoryJournal(LIMITS)
        self.log: list[Sequence[Written]] = []
        self.batches: list[Batch] = []
        self.patience = 0
        self.sent: dict[bytes, list[bytes]] = defaultdict(list)
        self.everybody: list[Person] = []
        self.moving: list[ClassicLink] = []
        """Doors that wait for the journal."""
        self.rooms_made = 0

    @initialize(
        target=people,
        forms=st.lists(st.sampled_from([*Form, None, None]), min_size=2, max_size=4),
        policy=st.sampled_from(POLICIES),
        patience=st.integers(0, 5),
    )
    def some_are_here_already(self, forms: list[Form | None], policy: Policy, patience: int) -> MultipleResults[Person]:
        here: list[Person] = []
        for user, form in zip(("alice", "bob", "carol", "dave"), forms, strict=False):
            person = self.ask("a", user, form, policy, create=not here)
            if isinstance(person, Person):
                here.append(person)
        self.patience = patience
        return multiple(*here)

    # --- what people do -------------------------------------------------------------------------------

    @rule(
        target=people,
        room=st.sampled_from("aaabc"),
        user=st.sampled_from(sorted(LOOKS)),
        form=st.sampled_from([*Form, None, None]),
        policy=st.sampled_from(POLICIES),
        contrary=st.sampled_from([False, False, False, True]),
    )
    def enter(
        self, room: str, user: str, form: Form | None, policy: Policy, contrary: bool
    ) -> Person | MultipleResults[Person]:
        """Create a room that is not there, join one that is; now and then the other way about."""
        return self.ask(room, user, form, policy, create=(room in self.hub.rooms()) is contrary)

    @rule(senders=st.lists(people, min_size=1, max_size=4), text=st.sampled_from(["hello", "はい", "x: y", "exit", ""]))
    def send(self, senders: list[Person], text: str) -> None:
        senders = [person for person in senders if person.form]
        known = [person for person in senders if person.link.member is not None]
        self.knows(known)
        intents = self.knock(
            [self.said(person, text, person.token) for person in senders], drops=len(senders) - len(known)
        )
        waits: list[float] = []
        at = len(self.model.waiting)
        for person in known if text else ():
            if not self.model.is_member(person):
                waits.append(0.0)
            elif len(self.model.waiting) >= LIMITS.pending_max:
                waits.append(1.0)
            else:
                self.model.waiting.append((person.room, Kind.TEXT, person, text))
        turn = self.hub.take(intents, now_s=self.now_s)
        assert [refused.wait_s for refused in turn.refusals] == waits
        self.submit(turn, at)

    @rule(person=people, texts=st.lists(st.sampled_from(["hello", "はい", "x: y", ""]), min_size=1, max_size=3))
    def publish(self, person: Person, texts: list[str]) -> None:
        """Say something over TCRP/2; what is empty is refused for good, and uses its id up."""
        link = person.link
        if not isinstance(link, ModernLink) or person not in self.model.rooms.get(person.room, ()):
            return
        at = len(self.model.waiting)
        under_way = sum(who is person and kind in (Kind.TEXT, REFUSED) for _, kind, who, _ in self.model.waiting)
        for number, text in enumerate(texts, person.mark + under_way + 1):
            assert link.publish(Publish(1, number, Kind.TEXT, text.encode()))
        waits: list[float] = []
        for text in texts:
            if not self.model.is_member(person) or len(self.model.waiting) >= LIMITS.pending_max:
                waits.append(1.0 if self.model.is_member(person) else 0.0)
                break  # and so are all behind it
            self.model.waiting.append((person.room, Kind.TEXT if text else REFUSED, person, text))
        turn = self.hub.take(link.intents(), now_s=self.now_s)
        assert [refused.wait_s for refused in turn.refusals] == waits
        self.submit(turn, at)

    @rule(person=people, text=st.sampled_from([b"\xff", b"x" * 5000]))
    def send_what_is_no_message(self, person: Person, text: bytes) -> None:
        if not person.form:
            return
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
            at = len(self.model.waiting)
            if self.model.is_member(person):
                self.model.part(person.room, [(person, reason)], self.now_s)
            self.submit(self.hub.leave(member, reason, now_s=self.now_s), at)

    @rule(person=people, form=st.sampled_from(Form))
    def come_back_by_another_door(self, person: Person, form: Form) -> None:
        member = person.link.member
        if member is None or not person.form:
            return
        link = self.link_class(form, room=person.room, user=person.name, token=person.token, address=person.address)
        at = len(self.model.waiting)
        turn = self.hub.move(member, link)
        if at >= LIMITS.pending_max:
            assert turn is Refusal.UNAVAILABLE
        elif not self.model.is_member(person):
            assert turn is None
        else:
            assert isinstance(turn, Turn)
            self.model.waiting.append((person.room, MOVED, person, ""))
            person.asked.append((form, person.address))
            self.moving.append(link)
            self.submit(turn, at)

    @rule(person=people)
    def lose_the_connection(self, person: Person) -> None:
        if (member := person.link.member) is not None:
            self.hub.lose(member, now_s=self.now_s)
            person.lost_s = self.now_s if person.lost_s is None else person.lost_s

    @rule(person=people)
    def have_a_session_again(self, person: Person) -> None:
        if not person.form and (member := person.link.member) is not None:
            member.hear(math.inf)
            person.heard_s, person.lost_s = math.inf, None

    # --- what the server does -------------------------------------------------------------------------

    @rule(room=st.sampled_from("ab"))
    def close(self, room: str) -> None:
        # A room that nobody is in yet can be closed too; its JOIN is in front of the CLOSED.
        at = len(self.model.waiting)
        if self.is_open(room):
            self.model.waiting.append((room, Kind.CLOSED, None, Reason.SERVER_STOPPED))
        self.submit(self.hub.close(room, Reason.SERVER_STOPPED, now_s=self.now_s), at)

    @rule(room=st.sampled_from("aab"))
    def raise_access(self, room: str) -> None:
        at = len(self.model.waiting)
        if self.is_open(room) and not self.model.is_modern(room):
            leaving = [(person, Reason.UNENCRYPTED) for person in self.model.staying(room) if person.form]
            self.model.waiting.append((room, Kind.POLICY, None, Access.MODERN))
            self.model.part(room, leaving, self.now_s)
        self.submit(self.hub.raise_access(room, now_s=self.now_s), at)

    @rule(seconds=st.sampled_from([1, 2, 4, 8, 16]))
    def time_passes(self, seconds: int) -> None:
        self.now_s += seconds
        at = len(self.model.waiting)
        turn = self.hub.handle_timeout(now_s=self.now_s)
        for step in turn.records:  # those who expire together go in any order, which the turn says
            assert isinstance(step, Record)
            if step.entry.kind is Kind.LEAVE:
                here = self.model.rooms[step.room]
                who = next(person for person in here if person.name == step.entry.name)
                assert self.is_late(who)
                assert self.model.is_member(who)
                reason = Reason.IDLE if who.lost_s is None else Reason.LOST
                self.model.part(step.room, [(who, reason)], self.now_s)
        seated = [person for people in self.model.rooms.values() for person in people]
        assert not [person.name for person in seated if self.is_late(person) and self.model.is_member(person)]
        due_s = self.hub.next_timeout_s()
        assert due_s is None or due_s > self.now_s
        self.submit(turn, at)

    @rule()
    def be_killed_and_start_again(self) -> None:
        """All that was not written is gone, and everybody's connection with it."""
        self.model.waiting.clear()
        self.batches.clear()
        self.forget_moves()
        self.hub, self.door = self.hub_class(LIMITS), self.door_class()
        for person in self.everybody:
            person.link.member = None
        turn = self.hub.restore(fold(self.log), self.restore, now_s=self.now_s)
        assert turn.records == []

    def restore(self, room: KeptRoom, known: KeptMember, _log: RoomLog) -> Link:
        person = next(one for one in self.model.rooms[room.name] if one.name == known.name)
        client = client_of(known.door)
        assert person.mark == known.mark
        person.heard_s = person.lost_s = self.now_s
        if client is not None:
            assert client == person.token
            link = self.modern_class(client, room.name, known.name, mark=known.mark, answers=known.answers)
            person.link = link
            return link
        restored = restore_link(known.door, room=room.name, user=known.name, names=False)
        assert restored is not None
        digest, door = restored
        self.door.restored[digest] = door
        person.link, person.form, person.bound, person.shown = door, person.first_form, False, b""
        person.address = person.home
        return door

    # --- what the journal does ------------------------------------------------------------------------

    @rule(batches=st.integers(1, 4))
    def commit(self, batches: int) -> None:
        for _ in self.batches[:batches]:
            batch = self.batches.pop(0)
            if batch.doomed:
                assert self.hub.failed(batch.up_to) == []
                continue
            outcome: list[JournalFailed | None] = []
            self.journal.submit(batch.records, outcome.append)
            assert outcome == [None], "the log has a hole"
            self.log.append(batch.records)
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
        assert set(turned_away) == {*(person.link for person in arriving), *self.moving}
        self.forget_moves()
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
        assert {to: said for to, said in self.sent.items() if said} == {
            to: said for to, said in self.model.sent.items() if said
        }

    @invariant()
    def the_rooms_are_those_of_the_model(self) -> None:
        model = {room: [person.name for person in people] for room, people in self.model.rooms.items()}
        rooms = {room: [member.name for member in self.hub.members(room)] for room in self.hub.rooms()}
        assert {room: names for room, names in rooms.items() if names} == {
            at: here for at, here in model.items() if here
        }
        assert set(rooms) == {*model, *(room for room, *_ in self.model.waiting)}
        counts = self.hub.counts()
        assert (counts.rooms, counts.members) == (len(rooms), sum(map(len, model.values())))
        assert counts.pending == len(self.model.waiting)
        for room, policy in self.model.policies.items():
            known = self.hub.room(room)
            assert known is not None
            assert known.policy == policy
            assert policy.access is Access.MIXED or not any(member.plaintext for member in known.members.values())

    @invariant()
    def every_author_is_told_how_far_it_is(self) -> None:
        for people in self.model.rooms.values():
            for person in people:
                assert isinstance(person.link, ClassicLink) or person.link.mark == person.mark

    @invariant()
    def nobody_is_forgotten_by_the_clock(self) -> None:
        stays = [person for people in self.model.rooms.values() for person in people if self.model.is_member(person)]
        assert self.hub.next_timeout_s() is not None or not stays

    # --- helpers --------------------------------------------------------------------------------------

    def ask(
        self, room: str, user: str, form: Form | None, policy: Policy, *, create: bool
    ) -> Person | MultipleResults[Person]:
        number = len(self.everybody) + 1
        token = b"%036d" % number if form else b"%016d" % number
        address = make_address(f"10.0.0.{number % 250}", 1)
        link: ClassicLink | ModernLink
        if form:
            link = self.link_class(form, room=room, user=user, token=token, address=address)
        else:
            link = self.modern_class(token, room, user)
        expected = self.model.refusal(room, user, form, create=create)
        if create:
            policy = replace(policy, access=Access.MIXED) if form else policy
            log_id = b"%016d" % number
            turn = self.hub.create(link, room=room, user=user, now_s=self.now_s, policy=policy, log_id=log_id)
        else:
            turn = self.hub.join(link, room=room, user=user, now_s=self.now_s)
        if isinstance(turn, Refusal):
            assert turn is expected
            assert link.member is None
            return multiple()
        assert expected is None
        if isinstance(link, ClassicLink):
            self.door.links[token] = link
        person = Person(user, room, form, token, link, address, self.now_s, first_form=form, home=address, shown=token)
        self.everybody.append(person)
        at = len(self.model.waiting)
        self.model.waiting += [(room, OPENED, None, policy)] if create else []
        self.model.waiting.append((room, Kind.JOIN, person, ""))
        self.submit(turn, at)
        return person

    def number(self, person: Person) -> int:
        return int(person.token) % 250

    def is_open(self, room: str) -> bool:
        names = {*self.model.rooms, *(at for at, *_ in self.model.waiting)}
        return room in names and not self.model.about(room, Kind.CLOSED)

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
        tokens = [token for _, token, _ in filter(None, (read_datagram(data) for data, _ in datagrams))]
        for person in self.everybody:
            if person.token in tokens and person.link.member is not None:
                person.shown = person.token
        return intents

    def forget_moves(self) -> None:
        self.moving.clear()
        for person in self.everybody:
            person.asked.clear()

    def dropped(self) -> int:
        counters = self.door.counters
        return sum(getattr(counters, name) for name in counters.__slots__)

    def is_late(self, person: Person) -> bool:
        lost_s = math.inf if person.lost_s is None else self.now_s - person.lost_s
        if person.form:
            is_idle = self.now_s - person.heard_s >= LIMITS.idle_timeout_s
            return is_idle or math.inf > lost_s >= LIMITS.lost_timeout_s
        grace = self.model.policies[person.room].lifetime is not Lifetime.PERSIST
        is_host = grace and person is self.model.rooms[person.room][0]
        return math.inf > lost_s >= (LIMITS.host_grace_s if is_host else LIMITS.detached_timeout_s)

    def submit(self, turn: Turn, at: int) -> None:
        """Compare the records with what the model has decided since ``at``, and leave them with the journal."""
        seqs = {room: count(self.model.seqs.get(room, 0) + 1) for room in "abc"}
        expected: list[tuple[object, ...]] = []
        for room, kind, who, what in self.model.waiting:
            name = who.name if who else ""
            if kind is OPENED:
                expected.append((room, OPENED, what))
            elif kind in (REFUSED, MOVED):
                expected.append((room, kind, name))
            else:
                expected.append((room, next(seqs[room]), kind, name, str(what).encode()))
        got: list[tuple[object, ...]] = []
        for step in turn.records:
            match step:
                case Opened(room, incarnation, _, policy):
                    self.rooms_made = max(self.rooms_made, incarnation)
                    got.append((room, OPENED, policy))
                case Refused(room, _, sender):
                    member = next(one for one in self.hub.members(room) if one.id == sender)
                    got.append((room, REFUSED, member.name))
                case Moved(room, _, sender):
                    member = next(one for one in self.hub.members(room) if one.id == sender)
                    got.append((room, MOVED, member.name))
                case Record(room, _, entry):
                    got.append((room, entry.seq, entry.kind, entry.name, entry.body))
                case Identity():
                    raise AssertionError("nobody asked to be remembered")
        assert got == expected[at:]
        if turn.records:
            self.batches.append(Batch(turn.up_to, turn.records))
        if len(self.batches) > self.patience:
            self.commit(1)

    def release(self, release: Release) -> None:
        """Do what a driver does with what a commit lets out."""
        match release:
            case Delivery(audience, payload, entry, skip):
                addressing = audience.form.addressing
                for link in audience.links:
                    if isinstance(link, ModernLink):
                        assert addressing is Addressing.PULL
                        self.sent[link.client].append(b"%d" % entry.seq)
                    elif link is not skip:
                        each = addressing is Addressing.EACH
                        self.sent[link.address].append(link.finish(payload) if each else payload)
            case Farewell(link, payload):
                if isinstance(link, ClassicLink):
                    if payload is not None:
                        each = link.form.addressing is Addressing.EACH
                        self.sent[link.address].append(link.finish(payload) if each else payload)
                    self.door.forget(link)
            case Reseating(link, before):
                person = next(person for person in self.everybody if person.link is before)
                assert link is self.moving.pop(0)
                assert isinstance(link, ClassicLink)
                assert isinstance(before, ClassicLink)
                assert before.member is None
                self.door.forget(before)
                person.link = self.door.links[person.token] = link
            case Seating(link):
                if isinstance(link, ModernLink) and link.member is not None:
                    link.member.hear(math.inf)
                    person = next(person for person in self.everybody if person.link is link)
                    person.heard_s, person.lost_s = math.inf, None
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


def test_the_model_fits_on_two_pages() -> None:
    assert len(inspect.getsource(Model).splitlines()) <= 110
