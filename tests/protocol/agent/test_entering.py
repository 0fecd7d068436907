"""Entering rooms and leaving them, in whatever order the server's answers come."""

from __future__ import annotations

import pytest

from ocm.errors import LocalProtocolError, SendRefused
from ocm.protocol.agent import Answered, Ended, EntryRefused, Seating, Settled
from ocm.protocol.agent.wish import Verdict, Wish
from ocm.protocol.entry import Kind, Policy, Reason, Refusal
from ocm.protocol.events import Delivery, LogChanged, Receipt, Removed, RoomClosed
from ocm.protocol.limits import ANSWER_WAIT_MAX_S
from ocm.protocol.memory import Entered, Left, Memory, Named, Posted, RoomMemory
from ocm.protocol.wire.classic import Stage
from ocm.protocol.wire.frames import Publish
from ocm.protocol.wire.records import (
    CloseCode,
    Create,
    Denied,
    Done,
    Join,
    MemberPage,
    MemberRow,
    Members,
    Op,
    RoomRequest,
    Stored,
)
from tests.protocol.agent.scripted import (
    CLIENT_ID,
    LOG,
    OTHER_LOG,
    ROOM,
    SECRETS,
    Client,
    Line,
    change,
    seated,
    text,
    yes,
)


def again(client: Client, line: Line, *, resumed: bool = True) -> Line:
    """Lose the connection, and be known on another."""
    line.lose()
    return client.connect(resumed=resumed)


def test_who_makes_a_room_asks_by_create_and_then_by_join() -> None:
    client = Client()
    client.agent.enter(ROOM, create=True, policy=Policy(durable=False), password="pass", now_s=0.0)
    line = client.connect()
    asked = line.seat()
    assert isinstance(asked, Create)
    assert (asked.room, asked.user, asked.access, asked.durable, asked.password) == (
        ROOM,
        "aiko",
        "modern",
        False,
        "pass",
    )
    assert client.happened(Seating) == [Seating(ROOM, again=False)]
    line = again(client, line)
    back = line.seat(handle=1, resumed=True)
    assert isinstance(back, Join)
    assert (back.log, back.last, back.lowest) == (LOG.hex(), 10, 1)
    assert client.happened(Seating) == [Seating(ROOM, again=True)]


def test_a_second_room_is_asked_for_on_the_session_that_is_there() -> None:
    client = Client()
    line = client.sit()
    line.hear(Stored)
    client.enter("another")
    assert line.hear(Join).room == "another"


def test_what_no_record_can_hold_is_refused_where_it_is_asked() -> None:
    client = Client()
    for room, password in (("\ud800", None), (ROOM, "\ud800"), (ROOM, "x" * 70_000)):
        with pytest.raises(LocalProtocolError):
            client.agent.enter(room, create=False, password=password, now_s=0.0)
    assert client.agent.next_dial_s() is None
    assert not client.agent.is_in(ROOM)


def test_a_seat_in_a_room_that_was_left_meanwhile_is_given_back() -> None:
    client = Client()
    client.enter()
    line = client.connect()
    asked = line.hear(Join)
    client.agent.leave(ROOM, now_s=client.now_s)
    line.say(Op.JOIN, Stage.COMPLETE, seated(asked.id, handle=7))
    assert client.happened(Ended) == []
    given_back = line.hear(RoomRequest)
    assert given_back.handle == 7
    line.say(Op.LEAVE, Stage.COMPLETE, Done(id=given_back.id))
    assert not client.agent.is_in(ROOM)
    assert client.happened(Seating) == []


def test_a_refusal_of_what_was_left_meanwhile_is_nobodys() -> None:
    client = Client()
    client.enter()
    line = client.connect()
    asked = line.hear(Join)
    client.agent.leave(ROOM, now_s=client.now_s)
    line.say(Op.JOIN, Stage.STATUS, Denied(id=asked.id, code=404))
    assert client.happened(EntryRefused) == []
    line.hear_nothing()


def test_who_enters_again_before_the_first_answer_keeps_the_seat() -> None:
    client = Client()
    client.enter()
    line = client.connect()
    first = line.hear(Join)
    client.agent.leave(ROOM, now_s=client.now_s)
    client.enter()
    line.say(Op.JOIN, Stage.COMPLETE, seated(first.id))
    assert not client.room.is_seated
    line.seat(handle=2, resumed=True)
    assert client.room.is_seated
    line.hear_nothing()


def test_who_enters_again_while_leaving_waits_until_that_is_done() -> None:
    """Else the second JOIN is answered with the seat that LEAVE then takes away."""
    client = Client()
    line = client.sit()
    line.hear(Stored)
    client.agent.leave(ROOM, now_s=client.now_s)
    client.enter()
    asked = line.hear(RoomRequest)
    line.hear_nothing()
    line.say(Op.LEAVE, Stage.COMPLETE, Done(id=asked.id))
    assert client.agent.is_in(ROOM)
    line.seat(handle=2, member=3)
    assert client.room.is_seated
    assert client.happened(Ended) == []
    client.store()
    assert client.memory.rooms[ROOM].log_id == LOG


def test_who_leaves_and_enters_while_away_says_nothing_under_a_number_that_was_used() -> None:
    """The server has not heard of the leaving: what it took under that number it would take for the new ones."""
    client = Client()
    line = client.sit()
    client.post(b"old")
    client.store()
    line.say_frames(yes(1))
    line.lose()
    client.agent.leave(ROOM, now_s=client.now_s)
    client.enter()
    assert client.post(b"new") == 2
    client.store()
    line = client.connect(resumed=True)
    assert line.seat(handle=1, resumed=True, mark=1).lowest == 2
    client.store()
    assert line.hear_frames(Publish) == [Publish(1, 2, 0, b"new")]


def test_a_room_that_is_over_while_it_is_left_ends_once() -> None:
    client = Client()
    line = client.sit()
    line.hear(Stored)
    client.agent.leave(ROOM, now_s=client.now_s)
    with pytest.raises(SendRefused, match="closed"):
        client.post()
    line.say_frames(change(11, Kind.CLOSED, b'{"reason":"closed by the host"}'))
    assert client.read() == [RoomClosed(Reason.ENDED)]
    asked = line.hear(RoomRequest)
    client.enter()
    line.say(Op.LEAVE, Stage.STATUS, Denied(id=asked.id, code=404))
    assert client.happened(Ended) == [Ended(ROOM, RoomClosed(Reason.ENDED))]
    assert isinstance(line.hear(Join), Join)


def test_who_leaves_between_two_joins_gives_the_second_seat_back() -> None:
    client = Client(Memory(rooms={ROOM: RoomMemory(LOG, 5, 1, 65, {1: Posted(ROOM, 1, 0, b"x")})}))
    client.enter()
    line = client.connect()
    line.seat(log=OTHER_LOG.hex())
    asked = line.hear(Join)
    assert asked.lowest == 2, "message 1 is given up: the server is not to wait for it"
    client.agent.leave(ROOM, now_s=client.now_s)
    line.say(Op.JOIN, Stage.COMPLETE, seated(asked.id, handle=2))
    assert line.hear(RoomRequest).handle == 2


def test_a_room_that_was_over_before_its_seat_came_is_not_taken_up_again() -> None:
    client = Client()
    line = client.sit()
    line.say_frames(change(11, Kind.CLOSED, b'{"reason":"the host has gone"}'))
    line = again(client, line)
    asked = line.hear(Join)
    assert client.read()[-1] == RoomClosed(Reason.HOST_LEFT)
    line.say(Op.JOIN, Stage.COMPLETE, seated(asked.id, log=OTHER_LOG.hex()))
    assert line.hear(RoomRequest).handle == 1
    assert client.happened(Seating) == [Seating(ROOM, again=False)]
    assert not client.room.is_seated
    client.agent.flush_reads()
    client.store()
    assert client.memory.rooms == {}


def test_what_a_program_remembers_of_a_room_is_taken_up_once() -> None:
    """Who leaves and comes back is somebody new: what was to be said before is not said again."""
    memory = Memory(rooms={ROOM: RoomMemory(LOG, 5, 1, 65, {1: Posted(ROOM, 1, 0, b"old")})})
    client = Client(memory)
    client.enter()
    assert client.memory is memory
    line = client.connect()
    line.seat(mark=0, resumed=True, head=5, start=5)
    assert line.hear_frames(Publish) == [Publish(1, 1, 0, b"old")]
    client.agent.leave(ROOM, now_s=client.now_s)
    line.let_leave()
    client.store()
    assert client.memory.rooms == {}
    client.enter()
    line.hear(Stored)
    line.seat(handle=2, member=5)
    assert line.hear_frames(Publish) == []
    assert client.post(b"new") == 1


def test_memos_of_a_room_that_was_left_release_nothing_in_the_next() -> None:
    client = Client()
    line = client.sit()
    for _ in range(3):
        client.post(b"old")
    client.hand_out()
    client.agent.leave(ROOM, now_s=client.now_s)
    line.hear(Stored)
    line.let_leave()
    client.enter()
    line.seat(handle=2)
    client.store()
    assert client.post(b"new") == 1
    client.hand_out()
    assert line.hear_frames(Publish) == [], "it is not stored"
    client.store()
    assert line.hear_frames(Publish) == [Publish(2, 1, 0, b"new")]


@pytest.mark.parametrize(("code", "wait_ms"), [(Refusal.UNAVAILABLE, 2500), (Refusal.RATE_LIMITED, 1), (418, 700)])
def test_who_is_to_wait_asks_again(code: int, wait_ms: int) -> None:
    client = Client()
    client.enter()
    line = client.connect()
    line.deny(code, wait_ms=wait_ms)
    due_s = client.now_s + max(1.0, wait_ms / 1000)
    assert client.agent.next_timeout_s() == due_s
    client.pass_s(0.5)
    line.hear_nothing()
    client.pass_s(due_s - client.now_s)
    line.seat()
    assert client.happened(Seating) == [Seating(ROOM, again=False)]


def test_no_server_keeps_us_waiting_for_more_than_a_minute_by_one_answer() -> None:
    client = Client()
    client.enter()
    wish = Wish(client.room, user="aiko", create=False, policy=None, password=None)
    assert wish.denied(Denied(id=1, code=Refusal.UNAVAILABLE, wait_ms=2**53 - 1), now_s=10.0) is Verdict.WAIT
    assert wish.ask_s == 10.0 + ANSWER_WAIT_MAX_S


def test_who_was_never_in_is_refused_for_good() -> None:
    client = Client()
    client.enter()
    line = client.connect()
    line.deny(Refusal.UNAVAILABLE)
    assert client.happened(EntryRefused) == [EntryRefused(ROOM, 480, "no")]
    assert not client.agent.is_in(ROOM)
    client.enter()
    line.seat()


def test_a_member_whose_room_is_missing_waits_and_is_told() -> None:
    client = Client()
    line = again(client, client.sit())
    client.happened(Ended)
    for _ in range(15):
        line.deny(Refusal.NOT_FOUND)
        assert client.happened(Ended) == []
        client.pass_s(1.0)
    line.deny(Refusal.NOT_FOUND)
    (ended,) = client.happened(Ended)
    assert ended.why == RoomClosed(Reason.GONE)
    assert ended.refusal is not None
    assert ended.refusal.code == Refusal.NOT_FOUND
    client.store()
    assert client.memory.rooms == {}
    assert isinstance(client.read()[-1], RoomClosed)


def test_a_member_who_may_not_come_back_is_told_so() -> None:
    client = Client()
    line = again(client, client.sit())
    for _ in range(16):
        line.deny(Refusal.NAME_TAKEN)
        client.pass_s(1.0)
    (ended,) = client.happened(Ended)
    assert ended.why == Removed(Reason.GONE)
    assert ended.refusal is not None
    assert ended.refusal.code == Refusal.NAME_TAKEN


def test_patience_with_a_missing_room_begins_anew_with_each_session() -> None:
    client = Client()
    line = again(client, client.sit())
    line.deny(Refusal.NOT_FOUND)
    line.lose()
    client.pass_s(3600.0)
    line = client.connect(resumed=True)
    line.deny(Refusal.NOT_FOUND)
    assert client.happened(Ended) == []
    client.pass_s(1.0)
    line.seat()


def test_who_made_a_room_makes_it_again_and_finds_it_made_by_another() -> None:
    client = Client()
    client.enter(create=True)
    line = client.connect()
    line.seat()
    line = again(client, line)
    assert isinstance(line.deny(Refusal.NOT_FOUND), Join)
    assert isinstance(line.deny(Refusal.ROOM_EXISTS), Create)
    client.pass_s(1.0)
    assert isinstance(line.seat(log=OTHER_LOG.hex()), Join)
    assert LogChanged(rewound=False) in client.read()


def test_answers_with_the_number_of_nothing_are_nobodys() -> None:
    """Number 0 is what a room has that asked for nothing."""
    client = Client()
    line = client.sit()
    client.happened(Seating)
    for number in (0, 99):
        line.say(Op.JOIN, Stage.STATUS, Denied(id=number, code=404))
        line.say(Op.JOIN, Stage.COMPLETE, seated(number, handle=number + 2))
        line.say(Op.LEAVE, Stage.COMPLETE, Done(id=number))
        line.say(Op.MEMBERS, Stage.COMPLETE, MemberPage(id=number, members=[]))
    assert client.agent.events() == []
    assert client.room.handle == 1
    assert not line.session.is_over


def test_members_come_in_pages() -> None:
    client = Client()
    client.enter()
    line = client.connect()
    line.seat(more=True)
    asked = line.hear(Members)
    assert asked.after == 2
    line.say(
        Op.MEMBERS,
        Stage.COMPLETE,
        MemberPage(id=asked.id, members=[MemberRow(3, "carl", 1), MemberRow(4, "dora")], more=True),
    )
    following = line.hear(Members)
    assert (following.id, following.after) == (asked.id, 4)
    line.say(Op.MEMBERS, Stage.COMPLETE, MemberPage(id=asked.id, members=[MemberRow(5, "emma")]))
    assert [row.name for row in client.room.members.values()] == ["bob", "aiko", "carl", "dora", "emma"]
    assert client.room.plaintext_members == 1
    (answered,) = client.happened(Answered)
    assert [row.name for row in answered.members] == ["carl", "dora", "emma"]
    line.hear_nothing()


@pytest.mark.parametrize("rows", [[], [MemberRow(2, "aiko")]], ids=["empty", "the same"])
def test_pages_that_lead_nowhere_are_not_turned(rows: list[MemberRow]) -> None:
    client = Client()
    client.enter()
    line = client.connect()
    line.seat(more=True)
    asked = line.hear(Members)
    line.say(Op.MEMBERS, Stage.COMPLETE, MemberPage(id=asked.id, members=rows, more=True))
    line.hear_nothing()


def test_what_is_unsettled_when_a_room_is_left_is_told_before_it_is_forgotten() -> None:
    client = Client()
    line = client.sit()
    sent, waiting = client.say(b"sent"), client.post(b"waiting")
    line.hear_frames(Publish)
    line.hear(Stored)
    client.agent.leave(ROOM, now_s=client.now_s)
    line.let_leave()
    assert [(one.receipt.message_id, one.receipt.delivery) for one in client.happened(Settled)] == [
        (sent, Delivery.UNKNOWN),
        (waiting, Delivery.REFUSED),
    ]
    client.store()
    assert isinstance(client.memos[-1], Left)
    assert client.memory.rooms == {}


def test_what_a_closed_room_did_not_take_it_never_will() -> None:
    client = Client()
    line = client.sit()
    message_id = client.say(b"sent")
    line.hear_frames(Publish)
    line.say_frames(change(11, Kind.CLOSED, b"{}"))
    assert client.read() == [
        Receipt(message_id, "sent", Delivery.REFUSED, None, "closed"),
        RoomClosed(Reason.GONE),
    ]


def test_nobody_new_is_known_by_what_the_old_one_said() -> None:
    """AUTH.2 with ``resumed`` false: what may have reached the server is UNKNOWN; what never left goes out."""
    client = Client()
    line = client.sit()
    sent = client.say(b"sent")
    line.hear_frames(Publish)
    unsent = client.post(b"not stored, and so not sent")
    line = again(client, line, resumed=False)
    assert [(one.receipt.message_id, one.receipt.delivery) for one in client.happened(Settled)] == [
        (sent, Delivery.UNKNOWN)
    ]
    asked = line.seat()
    assert asked.lowest == unsent
    client.store()
    assert line.hear_frames(Publish) == [Publish(1, unsent, 0, b"not stored, and so not sent")]
    line.say_frames(yes(sent), yes(unsent))
    assert [one.receipt.delivery for one in client.happened(Settled)] == [Delivery.IN_ROOM]


def test_a_leave_under_way_when_the_session_ends_is_said_again() -> None:
    """Nobody knows whether the server heard of it; until it has, the name stays taken there."""
    client = Client()
    line = client.sit()
    client.agent.leave(ROOM, now_s=client.now_s)
    line.close(CloseCode.GOING_AWAY)
    assert client.agent.events() == [Seating(ROOM, again=False)]
    assert client.agent.is_leaving
    line = client.connect(resumed=True)
    line.seat(handle=1, resumed=True)
    asked = line.hear(RoomRequest)
    line.say(Op.LEAVE, Stage.COMPLETE, Done(id=asked.id))
    assert client.happened(Ended) == [Ended(ROOM, None)]
    assert not client.agent.is_leaving


def test_a_leave_that_the_server_had_heard_before_the_session_ended_is_done() -> None:
    client = Client()
    line = client.sit()
    client.agent.leave(ROOM, now_s=client.now_s)
    line.close(CloseCode.GOING_AWAY)
    client.connect(resumed=True).deny(Refusal.NOT_FOUND)
    assert client.happened(Ended) == [Ended(ROOM, None)]


def test_a_leave_under_way_when_another_session_begins_is_said_again() -> None:
    client = Client()
    line = client.sit()
    line.lose()  # it may live on datagrams, for all we know
    other = Client()
    other.enter()
    first = other.connect(udp_port=9001)
    first.seat()
    first.exchange()
    other.agent.leave(ROOM, now_s=other.now_s)
    first.lose()
    second = other.connect(resumed=True)
    assert other.happened(Ended) == []
    second.seat(handle=1, resumed=True)
    assert second.hear(RoomRequest).handle == 1


def test_a_named_client_and_its_rooms_are_remembered() -> None:
    client = Client()
    line = client.sit(mark=3)
    assert client.memory.named == Named(CLIENT_ID, SECRETS[0], line.session.server)
    assert client.memory.rooms[ROOM] == RoomMemory(LOG, 10, 3, 0)
    assert [memo for memo in client.memos if isinstance(memo, Entered)] == [Entered(ROOM, LOG, 10, 3)]
    line.say_frames(text(11), text(12))
    client.read()
    client.agent.flush_reads()
    client.store()
    assert client.memory.rooms[ROOM].last == 12


def test_what_is_known_when_a_room_ends_is_told() -> None:
    """Message 2 waits for the fate of 1 to be told in order; with the room both are."""
    client = Client()
    line = client.sit()
    first, second = client.post(b"a"), client.say(b"b")
    line.hear_frames(Publish)
    line.say_frames(yes(second, 12), change(11, Kind.CLOSED, b"{}"))
    assert [(one.message_id, one.delivery) for one in client.read() if isinstance(one, Receipt)] == [
        (first, Delivery.REFUSED),
        (second, Delivery.IN_ROOM),
    ]


def test_a_room_is_entered_once_and_one_that_was_not_is_none() -> None:
    client = Client()
    client.sit()
    with pytest.raises(LocalProtocolError, match="once"):
        client.enter()
    with pytest.raises(LocalProtocolError, match="not entered"):
        client.post(b"x", "elsewhere")
    client.agent.leave("elsewhere", now_s=client.now_s)
    assert client.happened(Ended) == []
    client.agent.close(now_s=client.now_s)
    client.enter("too late")
    assert client.agent.next_dial_s() is None


def test_who_leaves_before_it_asked_is_out_at_once() -> None:
    client = Client()
    client.enter()
    client.agent.leave(ROOM, now_s=client.now_s)
    assert client.happened(Ended) == [Ended(ROOM, None)]
    client.agent.leave(ROOM, now_s=client.now_s)
    assert client.happened(Ended) == []


def test_who_leaves_while_it_waits_for_an_answer_that_is_lost_with_the_connection_is_out() -> None:
    client = Client()
    client.enter()
    line = client.connect()
    client.agent.leave(ROOM, now_s=client.now_s)
    assert client.happened(Ended) == []
    line.lose()
    assert client.happened(Ended) == [Ended(ROOM, None)]
