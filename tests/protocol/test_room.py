"""A room is the fold of its log; beside it only reservations, which a failed journal takes back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ocm.errors import LocalProtocolError
from ocm.protocol.entry import Access, Entry, Kind, Lifetime, Policy, Reason, Refusal
from ocm.protocol.limits import Limits
from ocm.protocol.names import skeleton
from ocm.protocol.room import SERVER_ID, Member, Room

LIMITS = Limits(members_per_room_max=5)
NAMES = ["alice", "aIice", "bob", "carol", "dave", "eve"]
DECIDED = st.tuples(st.sampled_from(["join", "say", "leave", "close", "commit", "commit", "fail"]), st.integers(0, 50))


def make_room() -> Room:
    return Room("lobby", 1, LIMITS)


def admit(room: Room, name: str, *, now_s: float = 0.0) -> Member:
    member = room.admit(name, plaintext=True, now_s=now_s)
    assert isinstance(member, Member)
    return member


def seat(room: Room, name: str) -> Member:
    member = admit(room, name)
    room.apply(room.say(member, Kind.JOIN, b"", time_ms=0))
    return member


class Story:
    """A room, what was decided in it and what of that is in its log."""

    def __init__(self) -> None:
        self.room = make_room()
        self.pending: list[Entry] = []
        self.log: list[Entry] = []

    def go_on(self, steps: Sequence[tuple[str, int]]) -> None:
        for verb, number in steps:
            getattr(self, verb)(number)

    def join(self, number: int) -> None:
        member = self.room.admit(NAMES[number % len(NAMES)], plaintext=True, now_s=0.0)
        if isinstance(member, Member):
            self.pending.append(self.room.say(member, Kind.JOIN, b"", time_ms=number))

    def say(self, number: int) -> None:
        if member := self.pick(number):
            self.pending.append(self.room.say(member, Kind.TEXT, b"%d" % number, time_ms=number))

    def leave(self, number: int) -> None:
        if member := self.pick(number):
            self.pending.append(self.room.dismiss(member, Reason.BYE, time_ms=number))

    def close(self, number: int) -> None:
        if self.room.is_open and number % 5 == 0:
            self.pending.append(self.room.close(Reason.SERVER_STOPPED, time_ms=number))

    def commit(self, number: int) -> None:
        for entry in self.pending[: number % 4]:
            self.room.apply(self.pending.pop(0))
            self.log.append(entry)

    def fail(self, _: int) -> None:
        self.room.forget_pending()
        self.pending.clear()

    def pick(self, number: int) -> Member | None:
        able = [member for member in self.room.members.values() if not member.leaving and self.room.is_open]
        return able[number % len(able)] if able else None


def replay(log: Sequence[Entry]) -> Room:
    """Build a room from its log alone; ids of those who were turned away are used up as they were then."""
    room = make_room()
    for entry in log:
        if entry.kind is Kind.JOIN:
            while admit(room, entry.name).id != entry.sender:
                room.forget_pending()
        room.apply(entry)
    room.forget_pending()
    return room


def facts(room: Room) -> tuple[object, ...]:
    """All that a room is, but for its clock and the ids it has used up."""
    members = {number: (member.name, member.seated, member.leaving) for number, member in room.members.items()}
    names = {shape: member.name for shape, member in room._names.items()}
    arriving = [member.name for member in room._arriving.values()]
    return members, list(members), room.host_id, room.closed, room.is_open, names, arriving, room._next_seq


@given(st.lists(DECIDED))
def test_a_room_is_the_fold_of_its_log(steps: list[tuple[str, int]]) -> None:
    story = Story()
    story.go_on(steps)
    story.room.forget_pending()
    assert facts(replay(story.log)) == facts(story.room)


@given(st.lists(DECIDED))
def test_the_order_has_no_hole_and_time_does_not_fall(steps: list[tuple[str, int]]) -> None:
    story = Story()
    story.go_on(steps)
    log = story.log + story.pending
    assert [entry.seq for entry in log] == list(range(1, len(log) + 1))
    assert [entry.time_ms for entry in log] == sorted(entry.time_ms for entry in log)


@given(st.lists(DECIDED), st.lists(DECIDED))
def test_what_is_taken_back_leaves_no_trace(before: list[tuple[str, int]], after: list[tuple[str, int]]) -> None:
    story = Story()
    story.go_on(before)
    story.fail(0)
    was = facts(story.room)
    story.go_on([step for step in after if step[0] != "commit"])
    on_the_way = {entry.sender for entry in story.pending if entry.kind is Kind.JOIN}
    if "fail" not in (verb for verb, _ in after):
        assert {member.id for member in story.room.forget_pending()} == on_the_way
    else:
        story.fail(0)
    assert facts(story.room) == was


@given(st.lists(DECIDED))
def test_ids_are_never_used_again_and_names_are_unique(steps: list[tuple[str, int]]) -> None:
    story = Story()
    seen: dict[int, Member] = {}
    for step in steps:
        story.go_on([step])
        for member in (*story.room.members.values(), *story.room._arriving.values()):
            assert seen.setdefault(member.id, member) is member
            assert member.id != SERVER_ID
        shapes = [skeleton(member.name) for member in story.room.members.values()]
        assert len(set(shapes)) == len(shapes)
        assert len(story.room._names) <= LIMITS.members_per_room_max


def test_the_first_member_is_the_host() -> None:
    room = make_room()
    assert room.host_id == SERVER_ID
    alice = seat(room, "alice")
    seat(room, "bob")
    assert room.host_id == alice.id


def test_a_place_is_reserved_before_it_is_taken() -> None:
    room = make_room()
    assert room.is_empty
    alice = admit(room, "alice")
    assert not room.is_empty
    assert not alice.seated
    assert room.members == {}
    assert room.named("ALICE") is alice
    assert room.admit("aIice", plaintext=True, now_s=0.0) is Refusal.NAME_TAKEN
    assert room.apply(room.say(alice, Kind.JOIN, b"", time_ms=0)) is alice
    assert alice.seated
    assert list(room.members.values()) == [alice]


def test_a_full_room_counts_those_on_the_way_in() -> None:
    room = make_room()
    for name in ["alice", "bob", "carol"]:
        seat(room, name)
    admit(room, "dave")
    eve = admit(room, "eve")
    assert room.admit("frank", plaintext=True, now_s=0.0) is Refusal.ROOM_FULL
    room.forget_pending()
    assert room.named("eve") is None
    assert admit(room, "eve").id > eve.id


def test_a_name_is_free_when_its_owner_is_gone_and_not_before() -> None:
    room = make_room()
    seat(room, "alice")
    bob = seat(room, "bob")
    entry = room.dismiss(bob, Reason.BYE, time_ms=0)
    assert room.admit("bob", plaintext=True, now_s=0.0) is Refusal.NAME_TAKEN
    assert room.apply(entry) is bob
    assert not bob.seated
    assert admit(room, "bob").id > bob.id


def test_a_closing_room_looks_missing_until_its_end_was_taken_back() -> None:
    room = make_room()
    alice = seat(room, "alice")
    entry = room.close(Reason.SERVER_STOPPED, time_ms=0)
    assert not room.is_open
    assert not room.closed
    assert room.admit("bob", plaintext=True, now_s=0.0) is Refusal.NOT_FOUND
    with pytest.raises(LocalProtocolError):
        room.close(Reason.SERVER_STOPPED, time_ms=0)
    room.forget_pending()
    assert room.is_open
    assert alice.seated
    again = room.close(Reason.SERVER_STOPPED, time_ms=0)
    assert again == entry
    assert room.apply(again) is None
    assert room.closed
    assert not room.is_open
    assert not alice.seated
    assert room.members == {}
    assert room.forget_pending() == []
    assert not room.is_open


def test_only_those_who_are_here_and_stay_can_be_let_go() -> None:
    room = make_room()
    alice = admit(room, "alice")
    with pytest.raises(LocalProtocolError):
        room.dismiss(alice, Reason.BYE, time_ms=0)
    room.apply(room.say(alice, Kind.JOIN, b"", time_ms=0))
    room.dismiss(alice, Reason.BYE, time_ms=0)
    with pytest.raises(LocalProtocolError):
        room.dismiss(alice, Reason.BYE, time_ms=0)
    room.forget_pending()
    room.apply(room.dismiss(alice, Reason.BYE, time_ms=0))
    with pytest.raises(LocalProtocolError):
        room.dismiss(alice, Reason.BYE, time_ms=0)


def test_a_room_is_raised_once_and_lets_go_whom_it_shuts_out() -> None:
    room = make_room()
    modern = room.admit("alice", plaintext=False, now_s=0.0)
    assert isinstance(modern, Member)
    room.apply(room.say(modern, Kind.JOIN, b"", time_ms=0))
    bob, carol = seat(room, "bob"), admit(room, "carol")
    room.say(carol, Kind.JOIN, b"", time_ms=0)
    entries = room.raise_access(time_ms=1)
    assert [(entry.kind, entry.name) for entry in entries] == [
        (Kind.POLICY, ""),
        (Kind.LEAVE, "bob"),
        (Kind.LEAVE, "carol"),
    ]
    assert room.is_modern
    assert room.policy.access is Access.MIXED
    with pytest.raises(LocalProtocolError):
        room.raise_access(time_ms=1)
    room.forget_pending()
    assert not room.is_modern
    assert not bob.leaving
    for entry in room.raise_access(time_ms=1):
        room.apply(entry)
    assert room.policy.access is Access.MODERN
    assert list(room.members.values()) == [modern]
    room.forget_pending()
    assert room.is_modern


@pytest.mark.parametrize("lifetime", Lifetime)
def test_what_becomes_of_a_room_without_its_host_is_as_was_agreed(lifetime: Lifetime) -> None:
    room = Room("lobby", 1, LIMITS, policy=Policy(lifetime=lifetime))
    alice, bob = seat(room, "alice"), seat(room, "bob")
    if lifetime is Lifetime.CLOSE:
        room.dismiss(bob, Reason.BYE, time_ms=0)
        assert not room.is_ending
        room.dismiss(alice, Reason.BYE, time_ms=0)
        assert room.is_ending
        return
    room.apply(room.dismiss(alice, Reason.BYE, time_ms=0))
    assert room.host_id == bob.id
    assert not room.is_ending
    room.dismiss(bob, Reason.BYE, time_ms=0)
    assert room.is_ending is (lifetime is Lifetime.HAND_OVER)
    admit(room, "carol")
    assert not room.is_ending, "somebody is on the way in"


def test_a_room_that_nobody_sits_in_yet_ends_with_who_makes_it() -> None:
    room = make_room()
    assert not room.is_ending
    alice = admit(room, "alice")
    room.say(alice, Kind.JOIN, b"", time_ms=0)
    assert not room.is_ending
    room.raise_access(time_ms=0)
    assert room.is_ending


def test_an_entry_says_who_spoke_and_how() -> None:
    room = make_room()
    member = room.admit("alice", plaintext=False, now_s=0.0)
    assert isinstance(member, Member)
    assert room.say(member, Kind.TEXT, b"hi", time_ms=7) == Entry(1, member.id, "alice", Kind.TEXT, b"hi", 7, False)
    assert room.close(Reason.HOST_LEFT, time_ms=3) == Entry(
        2, SERVER_ID, "", Kind.CLOSED, b"the host has gone", 7, plaintext=False
    )


# --- silence ------------------------------------------------------------------------------------------


def test_a_lost_member_has_less_time_until_it_is_heard_of() -> None:
    limits = Limits(idle_timeout_s=600.0, lost_timeout_s=60.0)
    alice = admit(make_room(), "alice", now_s=100.0)
    assert alice.deadline_s(limits) == 700.0
    alice.lost_s = 200.0
    assert alice.deadline_s(limits) == 260.0
    alice.lost_s = 690.0
    assert alice.deadline_s(limits) == 700.0
    alice.hear(695.0)
    assert alice.deadline_s(limits) == 1295.0


# --- allowance ----------------------------------------------------------------------------------------

rates = st.builds(
    Limits,
    burst_max=st.integers(1, 50),
    rate_per_s=st.floats(0.1, 1000.0),
)
starts = st.floats(0.0, 1e7)
gaps = st.lists(st.one_of(st.just(0.0), st.floats(0.0, 0.1), st.floats(0.0, 20.0)), min_size=1, max_size=150)


@given(rates, starts, gaps)
def test_no_schedule_gets_more_than_its_burst_and_its_rate(limits: Limits, now_s: float, waits: list[float]) -> None:
    alice = admit(make_room(), "alice")
    taken_s: list[float] = []
    for gap in waits:
        now_s += gap
        if alice.spend(limits, 0, now_s=now_s) == 0.0:
            taken_s.append(now_s)
            for first, start_s in enumerate(taken_s):
                allowed = limits.burst_max + limits.rate_per_s * (now_s - start_s + 1e-5)
                assert len(taken_s) - first <= allowed + 1e-6


@given(rates, starts, gaps)
@example(Limits(burst_max=2, rate_per_s=50.0), 888599.0, [0.0, 0.0])  # rounding once told to wait for 2e-11 s
def test_waiting_as_long_as_told_is_enough(limits: Limits, now_s: float, waits: list[float]) -> None:
    alice = admit(make_room(), "alice")
    for gap in waits:
        now_s += gap
        wait_s = alice.spend(limits, 0, now_s=now_s)
        assert 0.0 <= wait_s <= 1 / limits.rate_per_s + 1e-6
        if wait_s:
            now_s += wait_s
            assert alice.spend(limits, 0, now_s=now_s) == 0.0


@given(rates, starts)
@example(Limits(burst_max=2, rate_per_s=50.0), 888599.0)
def test_a_burst_passes_whole_and_the_next_one_waits(limits: Limits, now_s: float) -> None:
    alice = admit(make_room(), "alice")
    assert [alice.spend(limits, 0, now_s=now_s) for _ in range(limits.burst_max)] == [0.0] * limits.burst_max
    wait_s = alice.spend(limits, 0, now_s=now_s)
    assert wait_s == pytest.approx(1 / limits.rate_per_s, abs=1e-5)


def test_a_refused_message_costs_nothing() -> None:
    limits = Limits(burst_max=1, rate_per_s=1.0)
    alice = admit(make_room(), "alice")
    spend: Callable[[float], float] = lambda now_s: alice.spend(limits, 0, now_s=now_s)  # noqa: E731
    assert [spend(0.0), spend(0.0), spend(0.5), spend(1.0)] == [0.0, 1.0, 0.5, 0.0]
