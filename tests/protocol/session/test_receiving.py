"""The two ends of a room's log: each entry once and in order, over any link and to any reader."""

from __future__ import annotations

import heapq
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocm.errors import RemoteProtocolError
from ocm.protocol.session.receiving import BYTES_MAX, ENTRIES_MAX, READY_MAX, SEQ_MAX, Cursor, Receiver
from ocm.protocol.wire.frames import Gap, Message, Received, write_frame

ROOM = 7


def entry(seq: int, body: bytes = b"text") -> Message:
    return Message(ROOM, seq, 1, seq, 0, 0, 0, body)


def read_all(receiver: Receiver) -> list[int | tuple[int, int]]:
    seen: list[int | tuple[int, int]] = []
    while (delivered := receiver.read(now_s=0.0)) is not None:
        seen.append((delivered.first, delivered.last) if isinstance(delivered, Gap) else delivered.seq)
    return seen


def read_some(receiver: Receiver, count: int, *, now_s: float = 0.0) -> list[int | Gap]:
    delivered = [receiver.read(now_s=now_s) for _ in range(count)]
    return [one if isinstance(one, Gap) else one.seq for one in delivered if one is not None]


# --- the client's end -----------------------------------------------------------------------------------------


def test_entries_are_given_once_and_in_order() -> None:
    receiver = Receiver(ROOM, last=10)
    for seq in (12, 10, 13, 12, 1):
        receiver.receive(entry(seq), now_s=0.0)
    assert read_all(receiver) == []
    receiver.receive(entry(11), now_s=0.0)
    receiver.receive(entry(11), now_s=0.0)
    assert read_all(receiver) == [11, 12, 13]
    assert receiver.up_to == 13


def test_what_comes_sooner_than_it_was_wanted_is_dropped() -> None:
    receiver = Receiver(ROOM)
    receiver.receive(entry(ENTRIES_MAX + 1), now_s=0.0)
    for seq in range(1, ENTRIES_MAX + 1):
        receiver.receive(entry(seq), now_s=0.0)
    assert len(read_all(receiver)) == ENTRIES_MAX
    receiver.receive(entry(ENTRIES_MAX + 1), now_s=0.0)
    assert read_all(receiver) == [ENTRIES_MAX + 1]


def test_a_gap_is_given_in_its_place() -> None:
    receiver = Receiver(ROOM)
    receiver.miss(Gap(ROOM, 3, 6, 1), now_s=0.0)
    receiver.receive(entry(1), now_s=0.0)
    assert read_all(receiver) == [1]
    receiver.receive(entry(7), now_s=0.0)
    receiver.receive(entry(2), now_s=0.0)
    assert read_all(receiver) == [2, (3, 6), 7]
    receiver.miss(Gap(ROOM, 3, 6, 1), now_s=0.0)
    assert read_all(receiver) == []


def test_what_did_come_is_given_though_a_gap_names_it() -> None:
    receiver = Receiver(ROOM)
    receiver.receive(entry(3), now_s=0.0)
    receiver.receive(entry(4), now_s=0.0)
    receiver.miss(Gap(ROOM, 1, 6, 1), now_s=0.0)
    assert read_all(receiver) == [(1, 2), 3, 4, (5, 6)]


def test_a_gap_may_begin_before_what_was_given() -> None:
    receiver = Receiver(ROOM, last=5)
    receiver.miss(Gap(ROOM, 1, 8, 1), now_s=0.0)
    receiver.miss(Gap(ROOM, 1, 8, 1), now_s=0.0)
    assert read_all(receiver) == [(6, 8)]


def test_what_was_given_long_ago_is_in_nobodys_way() -> None:
    receiver = Receiver(ROOM)
    for _ in range(2):
        receiver.receive(entry(1), now_s=0.0)
    receiver.receive(entry(2), now_s=0.0)
    receiver.receive(entry(1), now_s=0.0)
    receiver.miss(Gap(ROOM, 3, 9, 1), now_s=0.0)
    assert read_all(receiver) == [1, 2, (3, 9)]


def test_gaps_are_bounded() -> None:
    receiver = Receiver(ROOM)
    for number in range(ENTRIES_MAX):
        receiver.miss(Gap(ROOM, 2 * number + 10, 2 * number + 10, 1), now_s=0.0)
    receiver.miss(Gap(ROOM, 10, 10, 1), now_s=0.0)
    with pytest.raises(RemoteProtocolError, match="too many gaps"):
        receiver.miss(Gap(ROOM, 9999, 9999, 1), now_s=0.0)


def test_a_flood_of_gaps_takes_no_room() -> None:
    receiver = Receiver(ROOM)
    for seq in range(1, 10_000):
        receiver.miss(Gap(ROOM, seq, seq, 1), now_s=0.0)
    assert read_all(receiver) == [(1, 9_999)]
    for seq in range(10_000, 10_000 + READY_MAX):
        receiver.miss(Gap(ROOM, seq, seq, seq % 2), now_s=0.0)
    with pytest.raises(RemoteProtocolError, match="too many gaps"):
        receiver.miss(Gap(ROOM, 20_000, 20_000, 1), now_s=0.0)
    assert len(read_all(receiver)) == READY_MAX


def test_nothing_lies_behind_the_end_of_every_log() -> None:
    receiver = Receiver(ROOM)
    with pytest.raises(RemoteProtocolError, match="every log"):
        receiver.miss(Gap(ROOM, 1, 2**63, 1), now_s=0.0)
    receiver.miss(Gap(ROOM, 1, SEQ_MAX, 1), now_s=0.0)
    with pytest.raises(RemoteProtocolError, match="every log"):
        receiver.receive(entry(SEQ_MAX + 1), now_s=0.0)
    assert read_all(receiver) == [(1, SEQ_MAX)]
    assert receiver.received() == Received(ROOM, SEQ_MAX, ENTRIES_MAX)


def test_in_another_session_the_server_is_told_at_once_where_we_are() -> None:
    receiver = Receiver(ROOM)
    receiver.receive(entry(1), now_s=0.0)
    receiver.attach(8, start=1, now_s=3.0)
    assert receiver.next_timeout_s() == 3.0
    assert receiver.received() == Received(8, 1, ENTRIES_MAX - 1)
    receiver.receive(entry(2), now_s=3.0)
    assert read_all(receiver) == [1, 2]


def test_the_server_is_told_within_100_ms_or_after_64_entries() -> None:
    receiver = Receiver(ROOM)
    assert receiver.next_timeout_s() is None
    assert receiver.received() is None
    receiver.receive(entry(1), now_s=5.0)
    assert receiver.next_timeout_s() == pytest.approx(5.1)
    receiver.receive(entry(2), now_s=5.05)
    assert receiver.next_timeout_s() == pytest.approx(5.1)
    for seq in range(3, 65):
        receiver.receive(entry(seq), now_s=5.06)
    assert receiver.next_timeout_s() == 5.06
    assert receiver.received() == Received(ROOM, 64, ENTRIES_MAX - 64)
    assert receiver.next_timeout_s() is None


def test_what_the_server_was_told_goes_again_when_it_was_lost_and_is_the_latest() -> None:
    receiver = Receiver(ROOM)
    receiver.receive(entry(1), now_s=1.0)
    first = receiver.received()
    assert first is not None
    receiver.receive(entry(2), now_s=2.0)
    second = receiver.received()
    assert second is not None
    receiver.lose(first, now_s=3.0)
    assert receiver.next_timeout_s() is None
    receiver.lose(second, now_s=3.0)
    assert receiver.next_timeout_s() == 3.0
    assert receiver.received() == second


def test_a_slow_reader_stops_its_credit_and_the_edge_never_falls() -> None:
    receiver = Receiver(ROOM)
    edges: list[int] = []
    for seq in range(1, ENTRIES_MAX + 1):
        receiver.receive(entry(seq), now_s=float(seq))
        told = receiver.received()
        assert told is not None
        edges.append(told.up_to + told.credit)
    assert edges == [ENTRIES_MAX] * ENTRIES_MAX
    for _ in range(ENTRIES_MAX):
        receiver.read(now_s=999.0)
    assert receiver.received() == Received(ROOM, ENTRIES_MAX, ENTRIES_MAX)


def test_what_waits_to_be_read_comes_again_in_another_session_and_is_not_claimed_before() -> None:
    receiver = Receiver(ROOM)
    for seq in range(1, 201):
        receiver.receive(entry(seq), now_s=0.0)
    for _ in range(50):
        receiver.read(now_s=0.0)
    assert (receiver.up_to, receiver.read_up_to) == (200, 50)
    receiver.attach(8, start=50, now_s=1.0)
    assert receiver.next_timeout_s() == 1.0
    assert receiver.received() == Received(8, 50, ENTRIES_MAX)
    assert receiver.receive(entry(120), now_s=2.0)
    assert receiver.received() == Received(8, 120, ENTRIES_MAX - 70)
    receiver.miss(Gap(8, 51, 150, 1), now_s=3.0)
    assert receiver.received() == Received(8, 150, ENTRIES_MAX - 100)
    assert receiver.receive(entry(201), now_s=4.0)
    assert receiver.received() == Received(8, 201, 50 + ENTRIES_MAX - 201)
    assert read_all(receiver) == list(range(51, 202)), "what we have is given, though it is kept no longer"


def test_who_reads_on_while_it_asks_claims_nothing_of_that_either() -> None:
    receiver = Receiver(ROOM)
    for seq in range(1, 101):
        receiver.receive(entry(seq), now_s=0.0)
    asked = receiver.read_up_to
    read_all(receiver)
    receiver.attach(8, start=asked, now_s=1.0)
    assert receiver.received() == Received(8, 0, 100 + ENTRIES_MAX)


def test_what_was_told_over_a_connection_that_is_lost_is_told_again() -> None:
    receiver = Receiver(ROOM)
    for seq in range(1, 65):
        receiver.receive(entry(seq), now_s=0.0)
    told = receiver.received()
    assert receiver.next_timeout_s() is None
    receiver.tell_again(now_s=5.0)
    assert receiver.next_timeout_s() == 5.0
    assert receiver.received() == told


@given(last=st.integers(0, 2**52), read=st.integers(0, 2**17), start=st.integers(0, 2**53))
def test_wherever_a_server_says_that_it_begins_there_is_a_frame_to_answer(last: int, read: int, start: int) -> None:
    receiver = Receiver(ROOM, last=last)
    receiver.miss(Gap(ROOM, last + 1, last + 1 + read, 1), now_s=0.0)
    receiver.read(now_s=0.0)
    receiver.attach(ROOM, start=start, now_s=0.0)
    told = receiver.received()
    assert told is not None
    assert write_frame(told)
    assert told.up_to <= max(start, last)


# --- the server's end -----------------------------------------------------------------------------------------


def send_next(cursor: Cursor, size: int = 4, *, together: int = 1) -> list[int | Gap]:
    """Send what is next: so many entries of ``size`` bytes at most, or a gap."""
    what = cursor.next()
    if isinstance(what, Gap):
        cursor.sent(what, 0)
        return [what]
    entries = list(what or ())[:together]
    if entries:
        cursor.sent(range(entries[0], entries[-1] + 1), size * len(entries))
    return list(entries)


def send(cursor: Cursor, size: int = 4, *, together: int = 1) -> list[int | Gap]:
    out: list[int | Gap] = []
    while sent := send_next(cursor, size, together=together):
        out += sent
    return out


def test_entries_go_out_as_far_as_there_is_credit() -> None:
    cursor = Cursor(ROOM, last=0, head=300)
    assert send(cursor) == list(range(1, ENTRIES_MAX + 1))
    cursor.receive(Received(ROOM, 10, ENTRIES_MAX))
    assert send(cursor) == list(range(ENTRIES_MAX + 1, ENTRIES_MAX + 11))
    cursor.receive(Received(ROOM, 9, 0))
    assert send(cursor) == []
    cursor.receive(Received(ROOM, 100, ENTRIES_MAX))
    assert send(cursor) == list(range(ENTRIES_MAX + 11, 301))
    cursor.grow(301)
    assert send(cursor) == [301]


def test_bodies_under_way_are_bounded() -> None:
    cursor = Cursor(ROOM, last=0, head=100)
    assert len(send(cursor, BYTES_MAX // 4)) == 4
    cursor.receive(Received(ROOM, 2, ENTRIES_MAX))
    assert len(send(cursor, BYTES_MAX // 4)) == 2


def test_what_was_lost_goes_again_first_unless_it_came() -> None:
    cursor = Cursor(ROOM, last=0, head=9)
    send(cursor)
    for seq in (5, 3, 5, 1):
        cursor.lose(seq)
    cursor.receive(Received(ROOM, 2, ENTRIES_MAX))
    cursor.lose(2)
    cursor.grow(10)
    assert send(cursor) == [3, 5, 10]


def test_who_falls_behind_retention_is_told() -> None:
    cursor = Cursor(ROOM, last=3, head=20, oldest=10)
    assert send(cursor) == [Gap(ROOM, 4, 9, 1), *range(10, 21)]
    cursor.lose(12)
    cursor.lose(15)
    cursor.forget(14)
    assert send(cursor) == [Gap(ROOM, 12, 13, 1), 15]
    cursor.lose(20)
    cursor.forget(30)
    assert send(cursor) == [Gap(ROOM, 20, 20, 1)]


def test_of_two_reports_that_were_swapped_the_better_one_holds() -> None:
    cursor = Cursor(ROOM, last=0, head=999)
    send(cursor)
    cursor.receive(Received(ROOM, 20, ENTRIES_MAX))
    cursor.receive(Received(ROOM, 10, ENTRIES_MAX))
    cursor.lose(15)
    assert send(cursor) == list(range(ENTRIES_MAX + 1, ENTRIES_MAX + 21))


def test_what_is_not_known_to_have_come_goes_again_over_another_connection() -> None:
    cursor = Cursor(ROOM, last=0, head=4)
    send(cursor)
    cursor.lose(3)
    cursor.receive(Received(ROOM, 1, ENTRIES_MAX))
    cursor.rewind()
    assert cursor.up_to == 1
    assert send(cursor) == [2, 3, 4]


def test_what_goes_again_over_another_connection_leaves_nothing_out() -> None:
    cursor = Cursor(ROOM, last=0, head=4)
    send(cursor)
    cursor.rewind()
    cursor.lose(3)  # a packet of before
    assert send(cursor) == [1, 2, 3, 4]


def test_entries_that_went_out_together_count_until_all_of_them_came() -> None:
    cursor = Cursor(ROOM, last=0, head=100)
    assert send(cursor, BYTES_MAX // 4, together=2) == [1, 2, 3, 4]
    cursor.receive(Received(ROOM, 1, ENTRIES_MAX))
    assert send(cursor, BYTES_MAX // 4) == []
    cursor.receive(Received(ROOM, 2, ENTRIES_MAX))
    assert send(cursor, BYTES_MAX // 4) == [5, 6]


def test_nobody_has_what_was_never_sent() -> None:
    cursor = Cursor(ROOM, last=0, head=2)
    send(cursor)
    cursor.receive(Received(ROOM, 2, ENTRIES_MAX))
    with pytest.raises(RemoteProtocolError, match="never sent"):
        cursor.receive(Received(ROOM, 3, ENTRIES_MAX))


# --- both -----------------------------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 2**32),
    loss=st.sampled_from([0.0, 0.1, 0.3, 0.6]),
    count=st.integers(1, 600),
    forgets=st.booleans(),
    breaks=st.booleans(),
    reads=st.sampled_from([3, 60]),
)
def test_each_entry_is_read_once_and_in_order(
    *, seed: int, loss: float, count: int, forgets: bool, breaks: bool, reads: int
) -> None:
    """Frames vanish, come twice and overtake each other; the reader is slow; the log may forget its beginning.

    Sessions end, and the next one goes on. No entry comes that cannot be kept: over TLS it would not come again.
    """
    chance = Random(seed)
    receiver, cursor = Receiver(ROOM), Cursor(ROOM, last=0, head=0)
    head, oldest, order, now_s = 0, 1, 0, 0.0
    flying: list[tuple[float, int, bool, Message | Gap | Received]] = []
    read: list[int | Gap] = []

    def fly(frame: Message | Gap | Received) -> None:
        nonlocal order
        for _ in range(2 if chance.random() < 0.1 else 1):
            order += 1
            heapq.heappush(flying, (now_s + chance.random(), order, chance.random() < loss, frame))

    for _ in range(200_000):
        now_s += 0.05
        if head < count:
            head = min(count, head + chance.randrange(40))
            cursor.grow(head)
            if forgets and chance.random() < 0.05:
                oldest = max(oldest, chance.randrange(head + 1))
                cursor.forget(oldest)
        if breaks and chance.random() < 0.02:
            flying.clear()
            start = receiver.read_up_to
            cursor = Cursor(ROOM, last=start, head=head, oldest=oldest)
            read += read_some(receiver, chance.randrange(reads), now_s=now_s)  # while the answer is on its way
            receiver.attach(ROOM, start=start, now_s=now_s)
        while sent := send_next(cursor, together=1 + chance.randrange(9)):
            for one in sent:
                fly(one if isinstance(one, Gap) else entry(one))
        while flying and flying[0][0] <= now_s:
            _, _, is_lost, frame = heapq.heappop(flying)
            match frame:
                case Message():
                    if is_lost:
                        cursor.lose(frame.seq)
                    else:
                        assert receiver.receive(frame, now_s=now_s)
                case Gap():
                    fly(frame) if is_lost else receiver.miss(frame, now_s=now_s)
                case Received():
                    receiver.lose(frame, now_s=now_s) if is_lost else cursor.receive(frame)
        read += read_some(receiver, chance.randrange(reads), now_s=now_s)
        due_s = receiver.next_timeout_s()
        if due_s is not None and due_s <= now_s and (told := receiver.received()) is not None:
            fly(told)
        if head == count == cursor.up_to:
            break
    expected = 1
    read += read_some(receiver, count)
    for one in read:
        assert (one.first if isinstance(one, Gap) else one) == expected
        assert not isinstance(one, Gap) or one.last < oldest
        expected = (one.last if isinstance(one, Gap) else one) + 1
    assert expected == count + 1
