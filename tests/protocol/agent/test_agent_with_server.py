"""The client's machine with the real server's, on perfect links: requests, rooms, ends."""

from __future__ import annotations

from typing import TypeVar

import pytest

from ocm.errors import LocalProtocolError, SendRefused
from ocm.protocol.agent import Agent, Answered, Ended, EntryRefused, Seating
from ocm.protocol.answers import MEMBERS_PAGE
from ocm.protocol.entry import Access, Lifetime, Policy, Reason, Refusal
from ocm.protocol.events import (
    Connection,
    ConnectionChanged,
    Delivery,
    MemberJoined,
    MemberLeft,
    Message,
    PathKind,
    PolicyChanged,
    Receipt,
    Removed,
    RoomClosed,
)
from ocm.protocol.limits import Limits
from ocm.protocol.wire.frames import BODY_SIZE_MAX
from ocm.protocol.wire.records import CloseCode
from tests.campaign.world import ROOM, Person, World

E = TypeVar("E")


class Stage:
    """People in one room, the first of whom made it."""

    def __init__(self, *names: str, policy: Policy | None = None, limits: Limits | None = None) -> None:
        self.world = World(5, limits=limits)
        self.people = [self.world.add(name, creates=number == 0) for number, name in enumerate(names)]
        self.people[0].policy = policy or Policy()
        for person in self.people:
            person.start()
            self.pass_s(0.5)

    def pass_s(self, seconds: float) -> None:
        self.world.run(until_s=self.world.now_s + seconds)

    def answer(self, person: Person, number: int | None) -> Answered:
        assert number is not None
        person.settle()
        self.pass_s(0.5)
        (answered,) = [one for one in person.happenings if isinstance(one, Answered) and one.number == number]
        return answered


def agent_of(person: Person) -> Agent:
    assert person.agent is not None
    return person.agent


def seen(person: Person, kind: type[E]) -> list[E]:
    return [event for _, event in person.events if isinstance(event, kind)]


def test_who_comes_late_reads_back_and_no_cursor_moves() -> None:
    stage = Stage("aiko", "bob")
    aiko, bob = stage.people
    for number in range(5):
        aiko.post(f"line {number}")
    bob.post("bob's own")
    stage.pass_s(1.0)
    carl = stage.world.add("carl")
    carl.start()
    stage.pass_s(1.0)
    answered = stage.answer(carl, agent_of(carl).history(ROOM, first=1, count=200))
    texts = [message.text for message in answered.messages]
    assert texts == [*(f"line {number}" for number in range(5)), "bob's own"]
    assert {(one.history, one.is_ours, one.sender.name) for one in answered.messages} == {
        (True, False, "aiko"),
        (True, False, "bob"),
    }
    assert seen(carl, Message) == []
    aiko.post("news")
    stage.pass_s(0.5)
    assert [message.text for message in seen(carl, Message)] == ["news"]
    ours = stage.answer(bob, agent_of(bob).history(ROOM, first=1, count=200))
    assert [one.text for one in ours.messages if one.is_ours] == ["bob's own"]


def test_a_page_of_history_is_bounded_in_bytes() -> None:
    stage = Stage("aiko", "bob")
    aiko, bob = stage.people
    for letter in "abcdefgh":
        aiko.post(letter * BODY_SIZE_MAX)
    stage.pass_s(20.0)
    answered = stage.answer(bob, agent_of(bob).history(ROOM, first=1, count=200))
    assert [one.text[0] for one in answered.messages] == ["a", "b", "c", "d"]


def test_the_host_removes_closes_and_raises_and_nobody_else_does() -> None:
    stage = Stage("aiko", "bob", "carl", policy=Policy(Access.MIXED))
    aiko, bob, carl = stage.people
    members = agent_of(aiko).room(ROOM).members
    number_of = {row.name: row.id for row in members.values()}
    for refused in (
        agent_of(bob).kick(ROOM, number_of["carl"]),
        agent_of(bob).end(ROOM),
        agent_of(bob).raise_access(ROOM),
    ):
        answered = stage.answer(bob, refused)
        assert answered.refusal is not None
        assert answered.refusal.code == Refusal.FORBIDDEN
    assert stage.answer(aiko, agent_of(aiko).kick(ROOM, 99)).refusal is not None
    assert stage.answer(aiko, agent_of(aiko).raise_access(ROOM)).refusal is None
    assert stage.answer(aiko, agent_of(aiko).raise_access(ROOM)).refusal is None  # it is so already
    assert seen(bob, PolicyChanged) == [PolicyChanged(Access.MODERN)]
    policy = agent_of(bob).room(ROOM).policy
    assert policy is not None
    assert policy.access is Access.MODERN
    assert stage.answer(aiko, agent_of(aiko).kick(ROOM, number_of["carl"])).refusal is None
    assert seen(carl, Removed) == [Removed(Reason.KICKED)]
    assert [event.member.name for event in seen(bob, MemberLeft)] == ["carl"]
    assert stage.answer(aiko, agent_of(aiko).end(ROOM)).refusal is None
    assert seen(bob, RoomClosed) == [RoomClosed(Reason.ENDED)]
    assert isinstance(agent_of(bob).room(ROOM).over, RoomClosed)
    with pytest.raises(SendRefused, match="closed"):
        agent_of(bob).post(ROOM, b"too late", now_s=stage.world.now_s)
    assert not carl.memory.rooms, "a room that is over is forgotten"


def test_a_host_who_leaves_takes_the_room_along_or_hands_it_over() -> None:
    for lifetime, closed in ((Lifetime.CLOSE, True), (Lifetime.HAND_OVER, False), (Lifetime.PERSIST, False)):
        stage = Stage("aiko", "bob", policy=Policy(lifetime=lifetime))
        aiko, bob = stage.people
        agent_of(aiko).leave(ROOM, now_s=stage.world.now_s)
        agent_of(aiko).leave(ROOM, now_s=stage.world.now_s)  # twice is once
        aiko.settle()
        stage.pass_s(1.0)
        assert [event for event in aiko.happenings if isinstance(event, Ended)] == [Ended(ROOM, None)]
        assert bool(seen(bob, RoomClosed)) is closed
        assert aiko.memory.rooms == {}
        if not closed:
            assert agent_of(bob).room(ROOM).host_id == agent_of(bob).room(ROOM).member_id
            assert stage.answer(bob, agent_of(bob).end(ROOM)).refusal is None


def test_more_members_than_a_record_tells() -> None:
    count = MEMBERS_PAGE + 30
    stage = Stage("host", limits=Limits(members_per_room_max=1000))
    hub, now_s = stage.world.server.hub, stage.world.now_s
    from ocm.protocol.link.modern import ModernLink

    for number in range(count):
        turn = hub.join(
            ModernLink(number.to_bytes(16, "big"), ROOM, f"zz{number}q"), room=ROOM, user=f"zz{number}q", now_s=now_s
        )
        assert not isinstance(turn, Refusal)
        stage.world.server._submit(turn)
    stage.pass_s(3.0)
    late = stage.world.add("late")
    late.start()
    stage.pass_s(2.0)
    assert len(agent_of(late).room(ROOM).members) == count + 2
    assert stage.answer(late, agent_of(late).fetch_members(ROOM)).refusal is None


@pytest.mark.parametrize(
    ("name", "room", "code"),
    [
        ("bob", "nowhere", Refusal.NOT_FOUND),
        ("aiko", ROOM, Refusal.NAME_TAKEN),
        ("server", ROOM, Refusal.NAME_NOT_ALLOWED),
    ],
)
def test_who_is_not_let_in_is_told_why_and_remembers_nothing(name: str, room: str, code: Refusal) -> None:
    stage = Stage("aiko")
    bob = stage.world.add("other")
    bob.user = name
    bob.start()
    agent_of(bob).enter(room, create=False, now_s=stage.world.now_s) if room != ROOM else None
    bob.settle()
    stage.pass_s(1.0)
    refusals = [event for event in bob.happenings if isinstance(event, EntryRefused)]
    assert refusals[-1].code == code
    assert room not in bob.memory.rooms


def test_a_room_is_entered_once_and_one_that_was_not_is_none() -> None:
    stage = Stage("aiko")
    (aiko,) = stage.people
    with pytest.raises(LocalProtocolError, match="once"):
        agent_of(aiko).enter(ROOM, create=False, now_s=stage.world.now_s)
    with pytest.raises(LocalProtocolError, match="not entered"):
        agent_of(aiko).post("elsewhere", b"x", now_s=stage.world.now_s)
    agent_of(aiko).leave("elsewhere", now_s=stage.world.now_s)
    assert agent_of(aiko).is_in(ROOM)
    assert not agent_of(aiko).is_in("elsewhere")


def test_what_cannot_be_said_is_refused_at_once() -> None:
    stage = Stage("aiko")
    (aiko,) = stage.people
    for body, code in ((b"", "empty"), (bytes(BODY_SIZE_MAX + 1), "too large")):
        with pytest.raises(SendRefused, match=code):
            agent_of(aiko).post(ROOM, body, now_s=stage.world.now_s)
    aiko.post("x")
    assert not agent_of(aiko).is_settled(ROOM)
    stage.pass_s(1.0)
    assert agent_of(aiko).is_settled(ROOM)


def test_a_kind_that_no_client_may_say_is_refused_for_good() -> None:
    stage = Stage("aiko")
    (aiko,) = stage.people
    agent_of(aiko).post(ROOM, b"I am the log", kind=5, now_s=stage.world.now_s)
    aiko.said["I am the log"] = aiko.said_now("I am the log")
    aiko.settle()
    stage.pass_s(1.0)
    (receipt,) = seen(aiko, Receipt)
    assert isinstance(receipt, Receipt)
    assert (receipt.delivery, receipt.code, receipt.seq) == (Delivery.REFUSED, "invalid", None)


def test_who_says_goodbye_may_come_back() -> None:
    """``close`` leaves no room: the member is detached, and its memory takes its place again."""
    stage = Stage("aiko", "bob", policy=Policy(lifetime=Lifetime.PERSIST))
    aiko, bob = stage.people
    agent_of(bob).close(now_s=stage.world.now_s)
    bob.settle()
    stage.pass_s(1.0)
    assert agent_of(bob).next_dial_s() is None
    bob.crash()
    aiko.post("while you were away")
    stage.pass_s(100.0)
    assert seen(aiko, MemberLeft) == []
    bob.start()
    stage.pass_s(1.0)
    assert [event.text for event in seen(bob, Message)] == ["while you were away"]
    assert bob.happenings[-1] == Seating(ROOM, again=True)


def test_a_server_that_stops_is_dialled_again() -> None:
    stage = Stage("aiko")
    (aiko,) = stage.people
    for session in list(stage.world.server.reception.sessions.values()):
        stage.world.server.reception.close(session, CloseCode.GOING_AWAY, "", now_s=stage.world.now_s)
    stage.world.server.flush()
    stage.pass_s(5.0)
    changes = seen(aiko, ConnectionChanged)
    assert changes == [
        ConnectionChanged(Connection.RECONNECTING, 0),
        ConnectionChanged(Connection.CONNECTED, 0),
    ]
    assert agent_of(aiko).connection is Connection.CONNECTED
    assert agent_of(aiko).path().kind is PathKind.UDP


def test_who_is_told_that_the_room_is_reached_again_can_ask_it() -> None:
    stage = Stage("aiko")
    (aiko,) = stage.people
    stage.world.crash_server(25.0)
    while Connection.CONNECTED not in [event.connection for event in seen(aiko, ConnectionChanged)]:
        stage.pass_s(0.001)
        assert stage.world.now_s < 60.0
    assert agent_of(aiko).history(ROOM, first=1, count=1) is not None


def test_a_server_that_is_away_is_dialled_more_and_more_slowly() -> None:
    stage = Stage("aiko")
    (aiko,) = stage.people
    stage.world.crash_server(40.0)
    stage.pass_s(30.0)
    attempts = [event.attempt for event in seen(aiko, ConnectionChanged)]
    assert attempts[0] == 0
    assert attempts[1:] == list(range(attempts[1], attempts[1] + len(attempts) - 1)), "each is told"
    assert 9 <= attempts[-1] <= 15
    assert agent_of(aiko).connection is Connection.RECONNECTING
    assert agent_of(aiko).path().kind is PathKind.NONE
    assert agent_of(aiko).history(ROOM, first=1, count=1) is None, "nobody can be asked"
    agent_of(aiko).woke(now_s=stage.world.now_s)
    assert agent_of(aiko).next_dial_s() == stage.world.now_s, "who has just woken does not wait"
    stage.pass_s(20.0)
    assert agent_of(aiko).connection is Connection.CONNECTED


def test_a_request_whose_session_ends_is_lost_and_said_to_be() -> None:
    stage = Stage("aiko")
    (aiko,) = stage.people
    number = agent_of(aiko).fetch_members(ROOM)
    stage.world.crash_server(1.0)
    stage.pass_s(5.0)
    assert Answered(number or 0, lost=True) in aiko.happenings


def test_who_leaves_while_nobody_can_be_asked_leaves_when_somebody_can() -> None:
    stage = Stage("aiko", "bob", policy=Policy(lifetime=Lifetime.PERSIST))
    aiko, bob = stage.people
    stage.world.links.cut("bob")
    agent_of(bob).leave(ROOM, now_s=stage.world.now_s)
    bob.settle()
    stage.pass_s(60.0)
    assert seen(aiko, MemberLeft) == []
    stage.world.links.heal("bob")
    stage.pass_s(20.0)
    assert Ended(ROOM, None) in bob.happenings
    assert bob.memory.rooms == {}
    assert [event.member.name for event in seen(aiko, MemberLeft)] == ["bob"]


def test_a_guest_of_a_room_that_is_gone_waits_a_little_and_is_told() -> None:
    stage = Stage("aiko", "bob")
    aiko, bob = stage.people
    aiko.crash()
    stage.world.crash_server(1.0)
    stage.world.ledger.logs.clear()  # a server without a disk
    stage.pass_s(10.0)
    assert seen(bob, RoomClosed) == []
    stage.pass_s(20.0)
    assert seen(bob, RoomClosed) == [RoomClosed(Reason.GONE)]


def test_the_host_makes_a_room_that_is_gone_again_and_its_guests_find_it() -> None:
    stage = Stage("aiko", "bob")
    aiko, bob = stage.people
    stage.world.crash_server(1.0)
    stage.world.ledger.logs.clear()
    stage.world.ledger.identities.clear()
    stage.pass_s(15.0)
    aiko.post("again")
    stage.pass_s(2.0)
    assert [event.text for event in seen(bob, Message)] == ["again"]
    assert seen(bob, RoomClosed) == []


def test_who_comes_and_goes_is_told() -> None:
    stage = Stage("aiko", "bob")
    aiko, bob = stage.people
    assert [event.member.name for event in seen(aiko, MemberJoined)] == ["bob"]
    assert [row.name for row in agent_of(bob).room(ROOM).members.values()] == ["aiko", "bob"]
    assert agent_of(bob).room(ROOM).plaintext_members == 0
    agent_of(bob).leave(ROOM, now_s=stage.world.now_s)
    bob.settle()
    stage.pass_s(1.0)
    assert [event.reason for event in seen(aiko, MemberLeft)] == [Reason.BYE]
    assert [row.name for row in agent_of(aiko).room(ROOM).members.values()] == ["aiko"]
