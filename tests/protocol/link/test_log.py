"""A room's log as modern members read it: the newest in memory, the rest from the journal, each encoded once."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocm.protocol.entry import Entry, Kind, Reason
from ocm.protocol.limits import Limits
from ocm.protocol.link.log import CUTS_MAX, HISTORY_FLAG, PAGE, PLAINTEXT_FLAG, RoomLog, body_of, encode_tail
from ocm.protocol.wire.frames import Message, read_frames

SMALL = Limits(room_log_messages_max=4, room_log_size_max=1000)


class Shelf:
    """A journal with what retention has left, and how often it was asked."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.asked: list[tuple[int, int]] = []

    def fetch(self, first: int, count: int) -> Sequence[Entry]:
        self.asked.append((first, count))
        return [entry for entry in self.entries if entry.seq >= first][:count]


def text(seq: int, body: bytes = b"hello", *, plaintext: bool = False) -> Entry:
    return Entry(seq, 3, "alice", Kind.TEXT, body, 1000 + seq, plaintext, message_id=seq)


def filled(count: int, limits: Limits = SMALL) -> tuple[RoomLog, Shelf]:
    """A log of so many entries, of which the newest are in memory."""
    shelf = Shelf()
    log = RoomLog(limits, shelf.fetch)
    for seq in range(1, count + 1):
        shelf.entries.append(text(seq))
        log.append(shelf.entries[-1])
    return log, shelf


def read(tail: bytes | None, room: int = 9) -> Message:
    """Read what follows the handle, behind some handle."""
    assert tail is not None
    [message] = read_frames(b"\x05" + room.to_bytes(4, "big") + tail)
    assert isinstance(message, Message)
    return message


# --- what an entry says ---------------------------------------------------------------------------------


def test_a_message_says_all_of_its_entry_and_only_the_handle_differs_between_members() -> None:
    entry = text(7, "はい".encode())
    assert read(encode_tail(entry)) == Message(9, 7, 3, 7, 1007, 0, 0, "はい".encode())
    assert read(encode_tail(entry), room=2**32 - 1).room == 2**32 - 1


def test_flags_say_what_crossed_the_network_unsealed_and_what_is_history() -> None:
    assert read(encode_tail(text(1, plaintext=True))).flags == PLAINTEXT_FLAG
    assert read(encode_tail(text(1, plaintext=True), flags=HISTORY_FLAG)).flags == PLAINTEXT_FLAG | HISTORY_FLAG
    join = Entry(1, 3, "alice", Kind.JOIN, b"", 0, plaintext=True)
    assert read(encode_tail(join)).flags == 0, "only words are said in plaintext"


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (Entry(1, 3, "aliçe", Kind.JOIN, b"", 0, plaintext=True), {"member": 3, "name": "aliçe", "flags": 1}),
        (Entry(1, 3, "a", Kind.JOIN, b"", 0, plaintext=False), {"member": 3, "name": "a", "flags": 0}),
        (
            Entry(1, 3, "alice", Kind.LEAVE, Reason.KICKED.value.encode(), 0),
            {"member": 3, "name": "alice", "reason": "removed by the server"},
        ),
        (Entry(1, 0, "", Kind.CLOSED, Reason.HOST_LEFT.value.encode(), 0), {"reason": "the host has gone"}),
        (Entry(1, 0, "", Kind.POLICY, b"modern", 0), {"access": "modern"}),
    ],
    ids=lambda value: value.kind.name if isinstance(value, Entry) else "",
)
def test_what_is_no_text_is_one_json_object(entry: Entry, said: dict[str, object]) -> None:
    message = read(encode_tail(entry))
    assert json.loads(message.body) == said
    assert message.kind == entry.kind
    assert message.body == body_of(entry)


def test_a_text_is_told_as_it_came() -> None:
    assert body_of(text(1, b"\x00 as it came")) == b"\x00 as it came"


# --- memory and journal -----------------------------------------------------------------------------------


def test_the_newest_are_in_memory_and_the_journal_is_not_asked_for_them() -> None:
    log, shelf = filled(10)
    assert [read(log.tail(seq)).seq for seq in (7, 8, 9, 10)] == [7, 8, 9, 10]
    assert shelf.asked == []
    assert read(log.tail(6)).seq == 6
    assert shelf.asked == [(6, 1)]


def test_an_entry_is_encoded_once() -> None:
    log, _ = filled(3)
    assert log.tail(2) is log.tail(2)


def test_older_ones_come_a_page_at_a_time() -> None:
    log, shelf = filled(5 * PAGE)
    for seq in range(1, 2 * PAGE + 1):
        assert read(log.tail(seq)).seq == seq
    assert shelf.asked == [(1, PAGE), (PAGE + 1, PAGE)]


HEAD = b"\x05" + (9).to_bytes(4, "big")
FRAME_SIZE = len(HEAD) + len(encode_tail(text(1)))


@pytest.mark.parametrize(
    ("space", "count"),
    [(0, 1), (FRAME_SIZE, 1), (2 * FRAME_SIZE - 1, 1), (2 * FRAME_SIZE, 2), (4 * FRAME_SIZE, 4), (10**6, 4)],
)
def test_as_many_go_together_as_there_is_room_for_and_one_at_least(space: int, count: int) -> None:
    log, _ = filled(4)
    cut = log.cut(HEAD, range(1, 5), space)
    assert cut is not None
    assert cut[1] == count
    assert [read(frame).seq for frame in cut[0].split(HEAD)[1:]] == list(range(1, count + 1))
    assert len(cut[0]) == count * FRAME_SIZE


def test_what_went_to_one_goes_to_the_next_as_it_is_while_nothing_is_said() -> None:
    log, shelf = filled(2)
    cut = log.cut(HEAD, range(1, 3), 1000)
    assert log.cut(HEAD, range(1, 3), 1000) is cut
    assert log.cut(HEAD[:-1] + b"\x0a", range(1, 3), 1000) != cut
    shelf.entries.append(text(3))
    log.append(shelf.entries[-1])
    assert log.cut(HEAD, range(1, 3), 1000) == cut
    for space in range(1000, 1000 + 3 * CUTS_MAX):
        log.cut(HEAD, range(1, 3), space)
        assert len(log._cuts) <= CUTS_MAX


def test_nothing_goes_of_what_is_kept_no_longer() -> None:
    log, shelf = filled(10)
    assert log.cut(HEAD, range(1, 3), 1000) is not None
    del shelf.entries[:5]
    assert log.shed(0)
    assert log.cut(HEAD, range(1, 3), 1000) is None
    assert log.oldest == 6


def test_memory_is_bounded_by_messages_and_by_bytes() -> None:
    log, _ = filled(100)
    assert len(log._entries) == 4
    log, shelf = filled(0)
    for seq in range(1, 6):
        shelf.entries.append(text(seq, bytes(400)))
        log.append(shelf.entries[-1])
    assert len(log._entries) == 2
    assert log.size == 2 * (400 + 64)
    log.append(text(6, bytes(5000)))
    assert (log.size, log.head) == (0, 6), "one that is larger than all is read from the journal"


def test_what_was_said_while_nobody_read_is_in_the_journal_alone() -> None:
    log, shelf = filled(3)
    shelf.entries += [text(4), text(5)]
    log.begin_at(5)
    assert (log.head, log.size) == (5, 0)
    log.append(text(6))
    assert [read(log.tail(seq)).seq for seq in (6, 5, 3)] == [6, 5, 3]


def test_memory_can_be_given_back() -> None:
    log, _ = filled(4)
    assert log.size == 4 * (5 + 64)
    assert log.shed(2 * (5 + 64)) == 2 * (5 + 64)
    assert log.shed(2 * (5 + 64)) == 0
    assert [read(log.tail(seq)).seq for seq in (1, 2, 3, 4)] == [1, 2, 3, 4]


def test_what_is_kept_no_longer_is_gone_and_the_log_says_where_it_begins() -> None:
    log, shelf = filled(10)
    del shelf.entries[:5]
    assert log.tail(2) is None
    assert log.oldest == 6
    assert read(log.tail(6)).seq == 6
    log, shelf = filled(10)
    shelf.entries.clear()
    assert log.tail(2) is None
    assert log.oldest == 7, "what is in memory is there still"


def test_a_log_from_before_a_restart_is_all_in_the_journal() -> None:
    _, shelf = filled(10)
    log = RoomLog(SMALL, shelf.fetch, head=10, oldest=4)
    assert [read(log.tail(seq)).seq for seq in (4, 10)] == [4, 10]
    log.append(text(11))
    assert [entry.seq for entry in log.entries(9, 100)] == [9, 10, 11]


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 14), st.integers(1, 14))
def test_reading_back_gives_each_entry_once_and_in_order(kept: int, gone: int, first: int, count: int) -> None:
    log, shelf = filled(kept)
    del shelf.entries[:gone]
    there = {entry.seq for entry in (*shelf.entries, *log._entries)}
    expected = sorted(seq for seq in there if seq >= first)[:count]
    assert [entry.seq for entry in log.entries(first, count)] == expected
