"""A hub that begins as a journal remembers it goes on as the one that was there before."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hypothesis import given
from hypothesis import strategies as st

from ocm.protocol.address import make_address
from ocm.protocol.control.packets import Form
from ocm.protocol.entry import (
    CLASSIC_POLICY,
    Access,
    Entry,
    Identity,
    Kept,
    KeptMember,
    KeptRoom,
    Kind,
    Lifetime,
    Opened,
    Policy,
    Reason,
    Record,
    Refusal,
    Step,
)
from ocm.protocol.hub import Hub, HubCounts, Recognized, Release, Turn
from ocm.protocol.limits import Limits
from ocm.protocol.link.base import Departed, Link, SilentForm
from ocm.protocol.link.classic import ClassicLink, restore_link
from ocm.protocol.link.log import RoomLog
from ocm.protocol.link.modern import ModernLink, client_of
from ocm.protocol.room import Intent
from ocm.protocol.wire.frames import Publish
from tests.store.histories import fold

LIMITS = Limits(burst_max=9999, members_per_room_max=4, rooms_max=3)
NAMES = ["alice", "bob", "carol", "dave", "eve"]
POLICIES = [Policy(access, lifetime) for lifetime in Lifetime for access in Access]
Act = tuple[str, str, int]
ACTS = st.lists(
    st.tuples(
        st.sampled_from(["classic", "modern", "modern", "say", "say", "say", "leave", "raise", "close", "wait"]),
        st.sampled_from("ab"),
        st.integers(0, 19),
    ),
    max_size=30,
)


class Town:
    """A hub whose journal answers at once, and everything that was written."""

    def __init__(self, hub: Hub, now_s: float) -> None:
        self.hub = hub
        self.now_s = now_s
        self.log: list[Sequence[Step]] = []
        self.links: dict[tuple[str, str], ClassicLink | ModernLink] = {}

    def act(self, verb: str, room: str, number: int) -> object:
        """Do something; return what it came to, in a form that two towns can be compared by."""
        self.now_s += 1.0
        name = NAMES[number % len(NAMES)]
        match verb:
            case "classic" | "modern":
                return self.enter(room, name, number, is_modern=verb == "modern")
            case "say":
                return self.say(room, name, "" if number % 4 == 0 else f"{number}")
            case "leave":
                member = self.hub.named(room, name)
                return None if member is None else self.write(self.hub.leave(member, Reason.BYE, now_s=self.now_s))
            case "raise":
                return self.write(self.hub.raise_access(room, now_s=self.now_s))
            case "close":
                return number % 7 == 0 and self.write(self.hub.close(room, Reason.SERVER_STOPPED, now_s=self.now_s))
            case _:
                self.now_s += 10.0 * number
                return self.write(self.hub.handle_timeout(now_s=self.now_s))

    def enter(self, room: str, name: str, number: int, *, is_modern: bool) -> object:
        link: ClassicLink | ModernLink
        token = f"{room} {name}".ljust(16).encode()
        if is_modern:
            link = ModernLink(token, room, name)
        else:
            link = ClassicLink(Form.OCM, room=room, user=name, token=token, address=make_address("10.0.0.1", number))
        if room in self.hub.rooms():
            turn = self.hub.join(link, room=room, user=name, now_s=self.now_s)
        else:
            policy = POLICIES[number % len(POLICIES)] if is_modern else CLASSIC_POLICY
            turn = self.hub.create(link, room=room, user=name, now_s=self.now_s, policy=policy, log_id=token)
        if isinstance(turn, Refusal):
            return turn
        self.links[room, name] = link
        return self.write(turn)

    def say(self, room: str, name: str, text: str) -> object:
        link = self.links.get((room, name))
        if link is None or link.member is None:
            return None
        if isinstance(link, ModernLink):
            assert link.publish(Publish(1, link.mark + 1, Kind.TEXT, text.encode()))
            return self.write(self.hub.take(link.intents(), now_s=self.now_s)), link.mark
        return self.write(self.hub.take([Intent(link.member, text.encode())], now_s=self.now_s))

    def write(self, turn: Turn) -> object:
        if turn.records:
            self.log.append(turn.records)
        self.hub.committed(turn.up_to, lambda _: None)
        return list(turn.records), [(member.name, wait_s) for member, wait_s in turn.refusals]

    def facts(self) -> object:
        """All that can be seen of the rooms."""
        facts: list[object] = [self.hub.rooms(), self.hub.counts()]
        for name in self.hub.rooms():
            room, log = self.hub.room(name), self.hub.log(name)
            assert room is not None
            assert log is not None
            facts += [room.policy, room.host_id, room.incarnation, room.log_id, room.last_seq, log.oldest]
            for member in self.hub.members(name):
                link = self.hub.link_of(member)
                assert link is not None
                facts.append((member.id, member.name, member.plaintext, member.is_kept, link.memo()))
                if isinstance(link, ModernLink):
                    facts.append(link.mark)
        return facts


def begin_again(town: Town) -> Town:
    """Return a town that begins as the journal of another remembers it."""
    again = Town(Hub(LIMITS), town.now_s)

    def restore(room: KeptRoom, member: KeptMember, _log: RoomLog) -> Link:
        client = client_of(member.door)
        link: ClassicLink | ModernLink
        if client is not None:
            link = ModernLink(client, room.name, member.name, mark=member.mark, answers=member.answers)
        else:
            restored = restore_link(member.door, room=room.name, user=member.name, names=False)
            assert restored is not None
            link = restored[1]
            link.token = f"{room.name} {member.name}".ljust(16).encode()  # as it will be when it was shown
        again.links[room.name, member.name] = link
        return link

    turn = again.hub.restore(fold(town.log), restore, now_s=town.now_s)
    assert turn.records == []
    return again


def lose_everybody(town: Town) -> None:
    """Do to a town what a restart does: all connections are lost, all clocks start anew."""
    for room in town.hub.rooms():
        for member in town.hub.members(room):
            member.hear(town.now_s)
            town.hub.lose(member, now_s=town.now_s)


@given(ACTS, ACTS)
def test_whatever_happened_it_goes_on_as_it_would_have(before: list[Act], after: list[Act]) -> None:
    town = Town(Hub(LIMITS), 1000.0)
    for act in before:
        town.act(*act)
    again = begin_again(town)
    assert again.facts() == town.facts()
    lose_everybody(town)
    for act in after:
        assert again.act(*act) == town.act(*act)
        assert again.facts() == town.facts()


# --- doors that cannot be made again --------------------------------------------------------------------------


def kept(*members: KeptMember, lifetime: Lifetime = Lifetime.CLOSE, name: str = "lobby", closed: bool = False) -> Kept:
    room = KeptRoom(
        name=name,
        incarnation=7,
        log_id=bytes(16),
        policy=Policy(Access.MIXED, lifetime),
        last_seq=40,
        oldest_seq=11,
        next_member=9,
        time_ms=5_000,
        closed=closed,
        members=members,
    )
    return Kept(rooms=(room,), last_incarnation=12)


def restored(kept: Kept, restore: Callable[[KeptRoom, KeptMember, RoomLog], Link | None]) -> tuple[Hub, Turn]:
    hub = Hub(LIMITS)
    return hub, hub.restore(kept, restore, now_s=100.0)


def only_modern(room: KeptRoom, member: KeptMember, _log: RoomLog) -> Link | None:
    return ModernLink(member.door, room.name, member.name) if member.door else None


LOCAL = KeptMember(1, "bot", plaintext=False, door=b"")
GUEST = KeptMember(3, "guest", plaintext=False, door=b"2" + bytes(16))


def test_members_whose_door_cannot_be_made_again_leave() -> None:
    hub, turn = restored(kept(GUEST, LOCAL), only_modern)
    [step] = turn.records
    assert isinstance(step, Record)
    assert (step.entry.seq, step.entry.name, step.entry.kind, step.entry.time_ms) == (41, "bot", Kind.LEAVE, 100_000)
    assert step.entry.body.decode() == Reason.LOST
    released: list[Release] = []
    hub.committed(turn.up_to, released.append)
    assert [member.name for member in hub.members("lobby")] == ["guest"]
    assert hub.counts() == HubCounts(rooms=1, members=1, pending=0)


def test_a_room_whose_host_cannot_come_back_closes_with_it() -> None:
    hub, turn = restored(kept(LOCAL, GUEST), only_modern)
    assert [step.entry.kind for step in turn.records if isinstance(step, Record)] == [Kind.LEAVE, Kind.CLOSED]
    hub.committed(turn.up_to, lambda _: None)
    assert hub.rooms() == []


def test_a_room_that_persists_may_be_empty() -> None:
    hub, turn = restored(kept(lifetime=Lifetime.PERSIST), only_modern)
    assert turn.records == []
    assert hub.rooms() == ["lobby"]
    link = ModernLink(bytes(16), "lobby", "alice")
    joined = hub.join(link, room="lobby", user="alice", now_s=100.0)
    assert isinstance(joined, Turn)
    [step] = joined.records
    assert isinstance(step, Record)
    assert (step.entry.sender, step.entry.seq, step.incarnation) == (9, 41, 7)
    hub.failed(joined.up_to)
    assert hub.rooms() == ["lobby"]


def test_rooms_that_are_closed_are_not_there() -> None:
    hub, turn = restored(kept(GUEST, closed=True), only_modern)
    assert (hub.rooms(), turn.records) == ([], [])
    assert hub.next_timeout_s() is None


def test_incarnations_go_on_where_they_were() -> None:
    hub, _ = restored(kept(GUEST), only_modern)
    turn = hub.create(ModernLink(bytes(16), "b", "alice"), room="b", user="alice", now_s=100.0)
    assert isinstance(turn, Turn)
    [opened, _] = turn.records
    assert isinstance(opened, Opened)
    assert opened.incarnation == 13


def test_a_departed_door_leads_nowhere() -> None:
    door = Departed()
    assert (door.memo(), door.finish(b"x"), door.form) == (b"", b"x", SilentForm())
    assert not door.plaintext
    assert not door.is_kept
    entry = Entry(1, 1, "alice", Kind.TEXT, b"hello", 0)
    door.take(entry)
    assert door.form.encode(entry) is None
    assert door.form.encode_farewell(entry) is None


# --- identities ---------------------------------------------------------------------------------------------------


def test_an_identity_is_let_out_when_it_is_written_and_in_its_place() -> None:
    hub = Hub(LIMITS)
    identity = Identity(bytes(16), (bytes(32),), 0)
    released: list[Release] = []
    turn = hub.remember(identity)
    assert turn.records == [identity]
    assert hub.counts().pending == 1
    hub.committed(turn.up_to - 1, released.append)
    assert released == []
    hub.committed(turn.up_to, released.append)
    assert released == [Recognized(identity)]


def test_an_identity_that_was_not_written_is_not_known() -> None:
    hub = Hub(LIMITS)
    turn = hub.remember(Identity(bytes(16), (bytes(32),), 0))
    assert hub.failed(turn.up_to) == []
    released: list[Release] = []
    hub.committed(turn.up_to, released.append)
    assert released == []
