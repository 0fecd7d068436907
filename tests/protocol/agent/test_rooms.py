"""What the user of one room sees, whatever its server says and forgets."""

from __future__ import annotations

from typing import Any

import pytest

from ocm.errors import LocalProtocolError, SendRefused, StateFailed
from ocm.protocol.agent import Answered, Settled
from ocm.protocol.agent import room as room_module
from ocm.protocol.agent.agent import STORED_WELL_S
from ocm.protocol.agent.room import MISSED_S
from ocm.protocol.agent.roster import NAME_SIZE_MAX, NAMES_MAX, Roster
from ocm.protocol.agent.session import SessionState
from ocm.protocol.entry import Access, Kind, Lifetime, Policy, Reason
from ocm.protocol.events import (
    Announcement,
    Connection,
    ConnectionChanged,
    Delivery,
    Event,
    Gap,
    LogChanged,
    MemberJoined,
    MemberLeft,
    Message,
    Person,
    PolicyChanged,
    Receipt,
    Removed,
    RoomClosed,
    StateChanged,
)
from ocm.protocol.limits import Limits
from ocm.protocol.memory import Memory, Posted, Read, Renumbered, RoomMemory
from ocm.protocol.session.publishing import Status
from ocm.protocol.session.receiving import ENTRIES_MAX, SEQ_MAX
from ocm.protocol.wire import frames
from ocm.protocol.wire.classic import Stage
from ocm.protocol.wire.frames import BODY_SIZE_MAX, Ping, Pong, Publish, Published, Received
from ocm.protocol.wire.records import Closing, Denied, History, MemberRow, Op, Pages, Stored
from tests.protocol.agent.scripted import (
    LOG,
    ME,
    OTHER_LOG,
    ROOM,
    Client,
    Line,
    change,
    head,
    text,
    yes,
)


def receipts(client: Client) -> list[tuple[int, str, int | None]]:
    return [(one.receipt.message_id, one.receipt.delivery.value, one.receipt.seq) for one in client.happened(Settled)]


def said(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Message)]


def resume(client: Client, line: Line, **changes: Any) -> Line:
    line.lose()
    line = client.connect(resumed=True)
    line.seat(**({"resumed": True} | changes))
    client.store()
    return line


# --- saying ---------------------------------------------------------------------------------------------------


def test_a_message_leaves_when_it_is_stored() -> None:
    client = Client()
    line = client.sit()
    message_id = client.post()
    assert line.hear_frames(Publish) == []
    client.hand_out()
    assert line.hear_frames(Publish) == []
    client.store(1)
    assert line.hear_frames(Publish) == [], "that it may have left is not stored"
    client.store()
    assert line.hear_frames(Publish) == [Publish(1, message_id, 0, b"hi")]


def test_while_nothing_can_be_stored_nothing_is_sent_and_everything_else_goes_on() -> None:
    client = Client()
    line = client.sit()
    assert client.post(b"waits") == 1
    client.fail_to_store()
    client.fail_to_store()
    with pytest.raises(StateFailed, match="full"):
        client.post(b"not taken")
    line.say_frames(text(11))
    assert client.read() == [StateChanged("full"), Message(Person("bob"), "hello", 11, 5000)]
    client.pass_s(0.2)
    assert line.hear_frames(Received) == [Received(1, 11, ENTRIES_MAX)]
    assert line.hear_frames(Publish) == []
    client.store()
    assert line.hear_frames(Publish) == [Publish(1, 1, 0, b"waits")]
    assert client.post(b"goes on") == 2
    client.store()
    assert line.hear_frames(Publish) == [Publish(1, 2, 0, b"goes on")]
    client.fail_to_store()
    client.store()
    assert client.read() == [], "it has not been well for long"
    timeout_s = client.agent.next_timeout_s()
    assert timeout_s is not None
    assert timeout_s <= client.now_s + STORED_WELL_S
    client.pass_s(STORED_WELL_S)
    assert client.read() == [StateChanged(None)]
    client.fail_to_store()
    assert client.read() == [StateChanged("full")]


def test_receipts_come_once_and_in_the_order_of_posting() -> None:
    client = Client()
    line = client.sit()
    first, second, third = client.post(b"a"), client.post(b"b"), client.say(b"c")
    assert len(line.hear_frames(Publish)) == 3
    line.say_frames(yes(third, 13), yes(second, 12))
    assert receipts(client) == []
    line.say_frames(text(11, b"a", sender=ME, message_id=first), yes(first, 11), yes(second, 12), yes(99))
    assert receipts(client) == [(first, "in_room", 11), (second, "in_room", 12), (third, "in_room", 13)]
    assert client.room.is_settled
    assert [event.message_id for event in client.read() if isinstance(event, Receipt)] == [first, second, third]
    line.say_frames(yes(third, 13))
    assert receipts(client) == []
    assert client.agent.is_settled(ROOM)
    client.store()
    assert client.memory.rooms[ROOM].posted == {}


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (Status.TOO_LARGE, "too_large"),
        (Status.FORBIDDEN, "forbidden"),
        (Status.CLOSED, "closed"),
        (Status.ID_REUSED, "id_reused"),
        (21, "invalid"),
        (255, "invalid"),
    ],
)
def test_a_message_that_is_refused_for_good_is_told_why(status: int, code: str) -> None:
    client = Client()
    line = client.sit()
    message_id = client.say(b"x")
    line.say_frames(Published(1, message_id, status, 2**64 - 1, 0))
    assert client.read() == [Receipt(message_id, "x", Delivery.REFUSED, None, code)]


def test_a_temporary_refusal_makes_it_wait() -> None:
    client = Client()
    line = client.sit()
    message_id = client.say()
    line.hear_frames(Publish)
    line.say_frames(Published(1, message_id, Status.RATE_LIMITED, 0, 1500))
    assert line.hear_frames(Publish) == []
    client.pass_s(1.5)
    assert line.hear_frames(Publish) == [Publish(1, message_id, 0, b"hi")]
    assert receipts(client) == []


def test_what_was_under_way_goes_again_on_the_next_session() -> None:
    client = Client()
    line = client.sit()
    message_id = client.say()
    line.hear_frames(Publish)
    line = resume(client, line, handle=9)
    assert line.hear_frames(Publish) == [Publish(9, message_id, 0, b"hi")]


def test_messages_are_paced_to_what_the_server_grants() -> None:
    client = Client()
    client.enter()
    line = client.open()
    line.greet(burst=2, rate=1.0)
    line.recognize()
    line.seat()
    for _ in range(4):
        client.post()
    client.store()
    sent = len(line.hear_frames(Publish))
    assert sent == 1, "0.8 of it is used"
    due_s = line.session.next_timeout_s()
    assert due_s is not None
    assert client.now_s < due_s <= client.now_s + 2.0
    client.pass_s(due_s - client.now_s)
    assert len(line.hear_frames(Publish)) == 1


@pytest.mark.parametrize("rate", [5e-324, 1e-300, 1e6])
@pytest.mark.parametrize("burst", [1, 1_000_000])
def test_no_allowance_is_too_strange(rate: float, burst: int) -> None:
    client = Client()
    client.enter()
    line = client.open()
    line.greet(burst=burst, rate=rate)
    line.recognize()
    line.seat()
    client.say()
    client.say()
    assert line.hear_frames(Publish)
    timeout_s = client.agent.next_timeout_s()
    assert timeout_s is not None
    assert timeout_s < 1e10


def test_what_cannot_be_said_is_refused_at_once() -> None:
    client = Client()
    client.sit()
    for body, code in ((b"", "empty"), (bytes(BODY_SIZE_MAX + 1), "too large")):
        with pytest.raises(SendRefused, match=code):
            client.post(body)
    with pytest.raises(LocalProtocolError, match="one byte"):
        client.agent.post(ROOM, b"x", kind=256, now_s=0.0)


def test_more_than_so_many_messages_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room_module, "WAITING_MAX", 2)
    client = Client()
    client.sit()
    client.post()
    client.post()
    with pytest.raises(SendRefused, match="rate"):
        client.post()


def test_receipts_that_nobody_reads_are_bounded() -> None:
    client = Client(limits=Limits(events_max=3))
    line = client.sit()
    for _ in range(5):
        client.post()
    client.store()
    line.say_frames(*[yes(message_id) for message_id in range(1, 6)])
    events = client.read()
    assert [event.message_id for event in events[:-1] if isinstance(event, Receipt)] == [1, 2, 3]
    assert events[-1] == Gap(2)


def test_new_messages_are_numbered_above_what_the_server_took() -> None:
    client = Client()
    client.sit(mark=40)
    assert client.post() == 41


def test_what_was_posted_before_we_were_let_in_is_numbered_above_what_the_server_took() -> None:
    """The client's disk is from a backup: the server has other messages under the next ids."""
    client = Client(Memory(rooms={ROOM: RoomMemory(LOG, 10, 1, 1)}))
    client.enter()
    assert [client.say(b"%d" % number) for number in range(3)] == [2, 3, 4]
    line = client.connect()
    assert line.seat(mark=2, resumed=True).lowest == 2
    assert client.post(b"3") == 6
    assert line.hear_frames(Publish) == [], "the new ids are not stored"
    client.hand_out()
    client.store()
    assert {one.message_id: one.body for one in client.memory.rooms[ROOM].posted.values()} == {
        number: b"%d" % (number - 3) for number in range(3, 7)
    }
    assert line.hear_frames(Publish) == [Publish(1, number, 0, b"%d" % (number - 3)) for number in range(3, 7)]
    line.say_frames(text(11, b"2", sender=ME, message_id=2), *[yes(number, 9 + number) for number in range(3, 7)])
    assert receipts(client) == [(2, "in_room", 12), (3, "in_room", 13), (4, "in_room", 14), (6, "in_room", 15)]
    client.store()
    assert client.memory.rooms[ROOM].posted == {}


def test_what_gets_other_ids_before_the_first_ones_are_stored_waits_for_both() -> None:
    client = Client(Memory(rooms={ROOM: RoomMemory(LOG, 10, 1, 1)}))
    client.enter()
    client.post(b"a")
    client.post(b"b")
    line = client.connect()
    line.seat(mark=2, resumed=True)
    client.hand_out()
    line.lose()
    line = client.connect(resumed=True)
    line.seat(mark=3, resumed=True)
    renumbered = [at for at, memo in enumerate([*client.memos, *client.hand_out()]) if isinstance(memo, Renumbered)]
    assert len(renumbered) == 2
    for _ in range(renumbered[1]):
        client.store(1)
        assert line.hear_frames(Publish) == []
    client.store()
    assert line.hear_frames(Publish) == [Publish(1, 4, 0, b"a"), Publish(1, 5, 0, b"b")]


def test_what_may_have_left_keeps_its_id_over_a_crash_and_what_was_said_without_a_connection_does_not() -> None:
    client = Client()
    line = client.sit()
    client.say(b"may have left")
    line.lose()
    client.say(b"never left")
    client = Client(client.memory)
    client.enter()
    line = client.connect(resumed=True)
    line.seat(mark=7, resumed=True)
    client.store()
    assert line.hear_frames(Publish) == [Publish(1, 1, 0, b"may have left"), Publish(1, 8, 0, b"never left")]


def test_what_the_server_has_forgotten_is_unknown_and_never_sent_again() -> None:
    """JOIN.2 with a mark so far above that the answers to the first are gone."""
    client = Client()
    line = client.sit()
    ids = [client.post(b"%d" % number) for number in range(3)]
    client.store()
    line.hear_frames(Publish)
    line = resume(client, line, mark=2 + 64)
    assert receipts(client) == [(ids[0], "unknown", None), (ids[1], "unknown", None)]
    assert [one.message_id for one in line.hear_frames(Publish) if isinstance(one, Publish)] == [ids[2]]
    client.pass_s(60.0)
    line.say_frames(yes(ids[0]))
    assert receipts(client) == []


def test_what_is_known_behind_what_is_not_is_told() -> None:
    client = Client()
    line = client.sit()
    ids = [client.post(b"%d" % number) for number in range(3)]
    client.store()
    line.hear_frames(Publish)
    line.say_frames(yes(ids[1], 12))
    resume(client, line, mark=ids[0] + 64)
    assert receipts(client) == [(ids[0], "unknown", None), (ids[1], "in_room", 12)]


def test_a_mark_that_would_use_up_all_ids_is_a_lie() -> None:
    client = Client()
    client.enter()
    line = client.connect()
    line.seat(mark=2**53 - 1)
    assert line.session.is_over
    assert line.session.state is SessionState.OVER
    client.connect(resumed=True).seat(mark=2**52)
    assert client.post() == 2**52 + 1


def test_another_log_makes_what_was_sent_unknown_and_says_join_again() -> None:
    client = Client()
    line = client.sit()
    sent = client.say(b"sent")
    line.hear_frames(Publish)
    unsent = client.post(b"unsent")
    line.lose()
    line = client.connect(resumed=True)
    line.seat(log=OTHER_LOG.hex(), head=3, start=3)
    assert receipts(client) == [(sent, "unknown", None)]
    again = line.seat(log=OTHER_LOG.hex(), handle=2, head=3, start=3, resumed=True)
    assert again.lowest == unsent
    client.store()
    assert line.hear_frames(Publish) == [Publish(2, unsent, 0, b"unsent")]
    assert LogChanged(rewound=False) in client.read()


def test_a_seat_that_is_new_makes_what_was_sent_unknown() -> None:
    memory = Memory(rooms={ROOM: RoomMemory(LOG, 4, 2, 1, {n: Posted(ROOM, n, 0, b"%d" % n) for n in (1, 2)})})
    client = Client(memory)
    client.enter()
    line = client.connect()
    assert line.seat(head=10, start=10).lowest == 1
    assert receipts(client) == [(1, "unknown", None)]
    assert line.seat(head=10, start=10, handle=2, resumed=True).lowest == 2
    assert client.read()[-2:] == [Receipt(1, "1", Delivery.UNKNOWN), Gap(6)]
    client.say()
    assert [one.message_id for one in line.hear_frames(Publish) if isinstance(one, Publish)] == [2, 3]


def test_our_own_words_of_a_life_that_we_forgot_settle_nothing() -> None:
    """The client's disk was restored from a backup: it numbers anew what the log has already."""
    client = Client()
    line = client.sit()
    message_id = client.say(b"new words")
    line.say_frames(text(11, b"old words", sender=ME, message_id=message_id))
    assert receipts(client) == []
    line.say_frames(Published(1, message_id, Status.ID_REUSED, 0, 0))
    assert receipts(client) == [(message_id, "refused", None)]


# --- hearing --------------------------------------------------------------------------------------------------


def test_what_is_said_is_read_in_order_and_our_own_words_are_not() -> None:
    client = Client()
    line = client.sit()
    line.say_frames(text(13, b"c"), text(12, b"ours", sender=ME), text(11, b"a"), text(11, b"a"))
    assert said(client.read()) == ["a", "c"]
    assert client.read() == []
    line.say_frames(text(14, b"\xff", sender=99)._replace(flags=2))
    (message,) = client.read()
    assert message == Message(Person("member 99"), "\ufffd", 14, 5000, plaintext=True)


def test_what_was_read_is_remembered_from_time_to_time() -> None:
    client = Client()
    line = client.sit()
    line.say_frames(*[text(seq) for seq in range(11, 11 + 70)])
    client.read()
    client.store()
    assert [memo.seq for memo in client.memos if isinstance(memo, Read)] == [74]
    client.agent.flush_reads()
    client.agent.flush_reads()
    client.store()
    assert [memo.seq for memo in client.memos if isinstance(memo, Read)] == [74, 80]
    line = resume(client, line, head=80, start=80)
    assert line.session.state is SessionState.OPEN


def test_a_reader_who_pauses_stops_the_credit() -> None:
    client = Client()
    line = client.sit()
    line.say_frames(*[text(seq) for seq in range(11, 11 + ENTRIES_MAX + 5)])
    client.pass_s(1.0)
    last = line.hear_frames(Received)[-1]
    assert last == Received(1, 10 + ENTRIES_MAX, 0)
    assert len(said(client.read())) == ENTRIES_MAX
    client.pass_s(1.0)
    assert line.hear_frames(Received)[-1] == Received(1, 10 + ENTRIES_MAX, ENTRIES_MAX)


def test_a_gap_is_read_where_it_is() -> None:
    client = Client()
    line = client.sit()
    line.say_frames(text(11), frames.Gap(1, 12, 20, 1), text(21))
    assert [type(event) for event in client.read()] == [Message, Gap, Message]


def test_a_rewound_log_is_read_on_from_its_end_and_stays_so() -> None:
    """Else what is said next has numbers that were read, and would be skipped, now or after a crash."""
    client = Client()
    line = client.sit()
    line.say_frames(text(11), text(12, b"unread"))
    assert said([event for event in [client.agent.read(ROOM, now_s=0.0)] if event is not None]) == ["hello"]
    client.agent.flush_reads()
    client.store()
    line = resume(client, line, head=5, start=5)
    line.say_frames(text(6, b"new"))
    events = client.read()
    assert said(events) == ["unread", "new"]
    assert events.index(LogChanged(rewound=True)) > 1
    assert client.memory.rooms[ROOM].last == 5
    client.agent.flush_reads()
    client.store()
    assert client.memory.rooms[ROOM].last == 6


def test_what_came_of_a_log_that_is_no_more_is_read_before_the_next() -> None:
    client = Client()
    line = client.sit()
    line.say_frames(
        text(11, b"unread"),
        text(12, b"ours", sender=ME),
        change(13, Kind.JOIN, b'{"member":3,"name":"carl"}'),
        frames.Gap(1, 14, 15, 1),
    )
    line = resume(client, line, log=OTHER_LOG.hex(), head=0, start=0, resumed=False)
    line.say_frames(text(1, b"new"))
    events = client.read()
    kinds = [event for event in events if not isinstance(event, ConnectionChanged)]
    assert [type(event) for event in kinds] == [Message, Gap, LogChanged, Message]
    assert said(events) == ["unread", "new"]


def test_history_is_what_was_asked_for_and_no_more() -> None:
    client = Client()
    line = client.sit()
    line.hear(Stored)
    line.say_frames(text(5)._replace(flags=1))
    number = client.agent.history(ROOM, first=4, count=3)
    assert number is not None
    other = client.agent.history(ROOM, first=1, count=1)
    assert other is not None
    asked = line.hear(History)
    assert (asked.first, asked.count) == (4, 3)
    client.enter("another")
    assert line.hear(History).id == other
    line.seat(handle=2)
    line.say_frames(text(5, handle=2)._replace(flags=1))
    kept = [text(4), change(5, Kind.JOIN, b"{}"), text(6, b"ours", sender=ME)]
    strays = [text(3), text(7), text(4), text(5), text(6), text(6, handle=8)]
    line.say_frames(*[one._replace(flags=1) for one in kept + strays])
    line.say(Op.HISTORY, Stage.COMPLETE, Pages(id=number, handle=1, count=3, oldest=1, head=9))
    line.say(Op.HISTORY, Stage.STATUS, Denied(id=other, code=404))
    first, second = client.happened(Answered)
    assert [(one.text, one.seq, one.history, one.is_ours) for one in first.messages] == [
        ("hello", 4, True, False),
        ("ours", 6, True, True),
    ]
    assert second.refusal is not None
    assert client.read() == []
    line.say(Op.MEMBERS, Stage.STATUS, Denied(id=number, code=404))
    assert client.happened(Answered) == []


def test_history_names_those_who_are_gone_and_makes_nobody_a_member() -> None:
    client = Client()
    line = client.sit()
    line.hear(Stored)
    number = client.agent.history(ROOM, first=1, count=8)
    assert number is not None
    before = dict(client.agent.room(ROOM).members)
    kept = [
        text(1, b"early", sender=7),
        change(2, Kind.LEAVE, b'{"member":7,"name":"dora","reason":"left"}'),
        change(3, Kind.JOIN, b'{"member":8,"name":"emil"}'),
        text(4, b"late", sender=8),
        change(5, Kind.JOIN, b'{"member":1,"name":"a liar"}'),
        text(6, b"known", sender=1),
        change(7, Kind.JOIN, b"[]"),
        text(8, b"nobody knows", sender=9),
    ]
    line.say_frames(*[one._replace(flags=1) for one in kept])
    line.say(Op.HISTORY, Stage.COMPLETE, Pages(id=number, handle=1, count=8, oldest=1, head=9))
    (answered,) = client.happened(Answered)
    names = [one.sender.name for one in answered.messages]
    assert names == ["dora", "emil", before[1].name, "member 9"]
    assert client.agent.room(ROOM).members == before


def test_an_answer_of_another_kind_is_nobodys() -> None:
    client = Client()
    line = client.sit()
    number = client.agent.kick(ROOM, 1)
    assert number is not None
    assert client.agent.raise_access(ROOM) == number + 1
    line.say(Op.END, Stage.STATUS, Denied(id=number, code=403))
    assert client.happened(Answered) == []
    line.say(Op.KICK, Stage.STATUS, Denied(id=number, code=403))
    assert len(client.happened(Answered)) == 1


def test_the_head_of_the_log_is_known() -> None:
    client = Client()
    line = client.sit()
    assert client.room.head == 10
    line.say_frames(head(40))
    assert client.room.head == 40
    line.say_frames(text(11), head(4))
    assert client.room.head == 40


@pytest.mark.parametrize(
    "frame",
    [
        head(SEQ_MAX + 1),
        text(2**64 - 1),
        frames.Gap(1, 11, 2**63, 1),
        Publish(1, 1, 0, b"x"),
        Received(1, 1, 1),
    ],
    ids=["head", "message", "gap", "publish", "received"],
)
def test_what_no_server_can_say_ends_the_session(frame: frames.Frame) -> None:
    client = Client()
    line = client.sit()
    line.hear(Stored)
    line.say_frames(frame)
    assert line.session.is_over
    line.hear(Closing)
    assert client.room.head == 10
    assert client.room.up_to == 10
    assert [event for event in client.read() if not isinstance(event, ConnectionChanged)] == []


def test_frames_of_rooms_that_were_left_are_dropped() -> None:
    client = Client()
    line = client.sit(handle=4)
    line.say_frames(text(11, handle=3), yes(1, handle=3), head(99, handle=3), text(11)._replace(room=3, flags=1))
    line.say_frames(frames.Signal(4, 1, 1, 1, b"wave"))
    assert client.read() == []
    assert not line.session.is_over


def test_a_handle_names_one_room() -> None:
    client = Client()
    line = client.sit(handle=4)
    client.enter("another")
    line.hear(Stored)
    line.seat(handle=4)
    assert line.session.is_over
    assert not client.agent.room("another").is_seated


# --- who is there ---------------------------------------------------------------------------------------------


def test_who_comes_and_goes_is_told_and_listed() -> None:
    client = Client()
    line = client.sit()
    line.say_frames(
        change(11, Kind.JOIN, b'{"member":3,"name":"carl","flags":1}'),
        change(12, Kind.JOIN, b'{"member":2,"name":"aiko"}'),
        change(13, Kind.LEAVE, b'{"member":1,"name":"bob","reason":"connection lost"}'),
        change(14, Kind.LEAVE, b'{"member":8,"name":"nobody","reason":"of a later version"}'),
    )
    assert client.read() == [
        MemberJoined(Person("carl")),
        MemberLeft(Person("bob"), Reason.LOST),
        MemberLeft(Person("nobody"), Reason.KICKED),
    ]
    assert [row.name for row in client.room.members.values()] == ["aiko", "carl"]
    assert client.room.host_id == ME
    assert client.room.plaintext_members == 1


@pytest.mark.parametrize("reason", ["removed by the server", "of a later version"])
def test_who_is_removed_is_told_and_forgets(reason: str) -> None:
    client = Client()
    line = client.sit()
    line.say_frames(
        change(11, Kind.LEAVE, b'{"member":2,"name":"aiko","reason":"%s"}' % reason.encode()), text(12, b"too late")
    )
    assert client.read() == [Removed(Reason.KICKED)]
    assert client.read() == []
    client.store()
    assert client.memory.rooms == {}
    with pytest.raises(SendRefused, match="closed"):
        client.post()


@pytest.mark.parametrize("body", [b"", b"no JSON", b"{}", b'{"reason":"of a later version"}', b'{"member":-1}'])
def test_a_closed_room_is_closed_whatever_it_says(body: bytes) -> None:
    client = Client()
    line = client.sit()
    line.say_frames(change(11, Kind.CLOSED, body))
    assert client.read() == [RoomClosed(Reason.GONE)]


def test_what_cannot_be_understood_is_shown_as_such() -> None:
    client = Client()
    line = client.sit()
    line.say_frames(
        change(11, 3, b'{"name":"x"}'),
        change(12, 255, b""),
        change(13, Kind.JOIN, b"[]"),
        change(14, Kind.POLICY, b'{"access":"later"}'),
        change(15, Kind.LEAVE, b'{"member":4294967296}'),
    )
    assert client.read() == [Announcement(f"[kind {kind}]") for kind in (3, 255, 1, 6, 2)]
    assert len(client.room.members) == 2


def test_the_policy_is_known_and_may_change() -> None:
    client = Client()
    line = client.sit(access="mixed", lifetime="persist", durable=False)
    assert client.room.policy == Policy(Access.MIXED, Lifetime.PERSIST, durable=False)
    line.say_frames(change(11, Kind.POLICY, b'{"access":"modern"}'))
    assert client.read() == [PolicyChanged(Access.MODERN)]
    assert client.room.policy == Policy(Access.MODERN, Lifetime.PERSIST, durable=False)


def test_a_policy_of_a_later_version_is_none() -> None:
    client = Client()
    line = client.sit(access="by post")
    assert client.room.policy is None
    line.say_frames(change(11, Kind.POLICY, b'{"access":"modern"}'))
    assert client.read() == [PolicyChanged(Access.MODERN)]
    assert client.room.policy is None


def test_members_and_names_are_bounded() -> None:
    client = Client(limits=Limits(members_per_room_max=5))
    line = client.sit(members=[MemberRow(number, f"m{number}") for number in range(1, 20)])
    assert list(client.room.members) == [1, 2, 3, 4, 5]
    line.say_frames(change(11, Kind.JOIN, b'{"member":77,"name":"%s"}' % (b"n" * 5000)))
    assert client.read() == [MemberJoined(Person("n" * NAME_SIZE_MAX))]
    assert client.room.is_full
    roster = Roster(members_max=5)
    roster.add(MemberRow(number, "x" * 1000) for number in range(NAMES_MAX + 10))
    assert len(roster._names) == NAMES_MAX
    assert {len(name) for name in roster._names.values()} == {NAME_SIZE_MAX}
    assert {len(row.name) for row in roster.members.values()} == {NAME_SIZE_MAX}


def test_a_room_hears_of_the_connection_only_where_it_is_one() -> None:
    client = Client()
    client.enter("another")
    line = client.sit_beside()
    line.lose()
    assert client.read() == [ConnectionChanged(Connection.RECONNECTING, 0)]
    assert client.read("another") == []


def test_the_machine_of_a_room_that_has_no_seat_sends_nothing() -> None:
    client = Client()
    client.enter()
    client.say()
    room = client.room
    assert room.next_timeout_s() is None
    assert room.next_load(now_s=client.now_s) is None
    room.rewind(now_s=client.now_s)
    assert room.next_load(now_s=client.now_s) is None


def test_a_room_says_whether_there_is_anything_to_read() -> None:
    client = Client(limits=Limits(events_max=1))
    line = client.sit()
    client.read()
    assert not client.room.is_readable
    line.say_frames(text(11))
    assert client.room.is_readable
    client.read()
    assert not client.room.is_readable
    client.post()
    client.post()
    client.store()
    line.say_frames(yes(1, 12), yes(2, 13))  # the second is told as missed
    client.agent.read(ROOM, now_s=client.now_s)
    assert client.room.is_readable
    assert client.read() == [Gap(1)]
    assert not client.room.is_readable


def test_a_room_ends_once() -> None:
    client = Client()
    client.sit()
    client.room.end(RoomClosed(Reason.GONE))
    client.room.end(Removed(Reason.KICKED))
    assert client.room.over == RoomClosed(Reason.GONE)
    assert client.read() == [RoomClosed(Reason.GONE)]


# --- what does not come -------------------------------------------------------------------------------------


def asks(client: Client, line: Line) -> int:
    client.agent.handle_timeout(now_s=client.now_s)
    return len(line.hear_frames(Ping))


@pytest.mark.parametrize("shown_by", [text(12), head(11)], ids=["one behind it", "HEAD"])
def test_where_an_entry_does_not_come_for_a_second_tls_is_asked_after(shown_by: frames.Message | frames.Head) -> None:
    """It was too large for a datagram, and the connection only seems to be there."""
    client = Client()
    line = client.sit()
    line.listen()
    line.frames.clear()
    line.say_frames(shown_by)
    assert client.room.next_missed_s == client.now_s + MISSED_S
    assert client.agent.next_timeout_s() is not None
    client.now_s += MISSED_S - 0.1
    assert asks(client, line) == 0
    client.now_s += 0.1
    assert asks(client, line) == 1
    client.now_s += MISSED_S
    assert asks(client, line) == 0, "the answer is still awaited"
    line.say_frames(Pong())
    client.now_s += MISSED_S
    assert asks(client, line) == 1
    line.say_frames(text(11))
    assert client.room.next_missed_s is None
    client.now_s += MISSED_S
    assert asks(client, line) == 0


def test_an_entry_is_missed_since_the_one_before_it_came() -> None:
    client = Client()
    line = client.sit()
    line.say_frames(text(12), text(14))
    client.now_s += 0.7
    line.say_frames(frames.Gap(1, 11, 11, 1))
    assert client.room.next_missed_s == client.now_s + MISSED_S
    line.say_frames(text(15))
    line.lose()
    assert client.room.next_missed_s is None, "no session speaks for the room"
    assert not client.room.misses(now_s=client.now_s + 9.0)


def test_who_reads_nothing_misses_nothing() -> None:
    client = Client()
    line = client.sit()
    line.say_frames(head(10 + 2 * ENTRIES_MAX), *(text(11 + number) for number in range(ENTRIES_MAX)))
    assert client.room.next_missed_s is None, "it is not sent more than it has room for"
