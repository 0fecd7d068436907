"""The journal in memory keeps what its limits allow and forgets the rest from the front."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from ocm.errors import JournalFailed
from ocm.protocol.entry import Entry, Kind, Record
from ocm.protocol.limits import Limits
from ocm.store.base import Journal
from ocm.store.memory import MemoryJournal


def text(seq: int, *, room: str = "a", incarnation: int = 1, size: int = 0) -> Record:
    return Record(room, incarnation, Entry(seq, 1, "alice", Kind.TEXT, b"x" * size, 0))


def closed(seq: int, *, room: str = "a", incarnation: int = 1) -> Record:
    return Record(room, incarnation, Entry(seq, 0, "", Kind.CLOSED, b"the host has gone", 0))


def write(journal: MemoryJournal, records: Sequence[Record]) -> bool:
    outcome: list[JournalFailed | None] = []
    journal.submit(records, outcome.append)
    [error] = outcome  # told at once
    return error is None


def seqs(journal: MemoryJournal, room: str = "a", incarnation: int = 1, *, from_seq: int = 1) -> list[int]:
    return [entry.seq for entry in journal.read(room, incarnation, from_seq=from_seq, count=9999)]


def test_it_is_a_journal_of_the_least_durability() -> None:
    journal: Journal = MemoryJournal(Limits())
    assert journal.durability == "memory"


def test_the_oldest_entries_go_when_there_are_too_many() -> None:
    journal = MemoryJournal(Limits(room_log_messages_max=3))
    assert write(journal, [text(seq) for seq in range(1, 6)])
    assert seqs(journal) == seqs(journal, from_seq=3) == [3, 4, 5]
    assert seqs(journal, from_seq=4) == [4, 5]


def test_the_oldest_entries_go_when_they_are_too_large() -> None:
    journal = MemoryJournal(Limits(room_log_size_max=300))
    assert write(journal, [text(1, size=36), text(2, size=36), text(3, size=36)])
    assert seqs(journal) == [1, 2, 3]
    assert write(journal, [text(4, size=37)])
    assert seqs(journal) == [3, 4]


def test_an_entry_larger_than_the_log_has_its_place_and_is_not_kept() -> None:
    journal = MemoryJournal(Limits(room_log_size_max=100))
    assert write(journal, [text(1, size=99)])
    assert seqs(journal) == []
    assert write(journal, [text(2)])
    assert seqs(journal) == [2]


@given(st.lists(st.integers(0, 400), max_size=40), st.integers(1, 9), st.integers(1, 1000))
def test_no_log_outgrows_its_limits(sizes: list[int], messages_max: int, size_max: int) -> None:
    journal = MemoryJournal(Limits(room_log_messages_max=messages_max, room_log_size_max=size_max))
    for seq, size in enumerate(sizes, 1):
        assert write(journal, [text(seq, size=size)])
        kept = journal.read("a", 1, from_seq=1, count=9999)
        assert len(kept) <= messages_max
        assert sum(len(entry.body) + 64 for entry in kept) <= size_max
        assert [entry.seq for entry in kept] == list(range(seq - len(kept) + 1, seq + 1))


def test_what_retention_has_dropped_may_be_submitted_again() -> None:
    journal = MemoryJournal(Limits(room_log_messages_max=1))
    batch = [text(1), text(2), text(3)]
    assert write(journal, batch)
    assert write(journal, batch)
    assert not write(journal, [text(1), text(2), text(3, size=1)])
    assert seqs(journal) == [3]


def test_a_closed_log_can_be_read_until_its_name_is_used_again() -> None:
    journal = MemoryJournal(Limits())
    write(journal, [text(1), closed(2)])
    assert seqs(journal) == [1, 2]
    write(journal, [text(1, incarnation=2)])
    assert seqs(journal) == []
    assert seqs(journal, incarnation=2) == [1]


def test_logs_of_closed_rooms_are_bounded_and_the_oldest_goes_first() -> None:
    journal = MemoryJournal(Limits(rooms_max=2))
    write(journal, [text(1, room="open")])
    for room in "abc":
        write(journal, [text(1, room=room), closed(2, room=room)])
    assert [seqs(journal, room) for room in ("open", "a", "b", "c")] == [[1], [], [1, 2], [1, 2]]
    assert len(journal._logs) == 3


def test_a_room_that_is_open_again_is_not_among_the_closed() -> None:
    journal = MemoryJournal(Limits(rooms_max=1))
    write(journal, [text(1), closed(2)])
    write(journal, [text(1, incarnation=2)])
    for room in "bc":
        write(journal, [text(1, room=room), closed(2, room=room)])
    assert [seqs(journal, "a", 2), seqs(journal, "b"), seqs(journal, "c")] == [[1], [], [1, 2]]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=60))
def test_many_rooms_leave_no_more_logs_than_there_may_be(steps: list[tuple[str, bool]]) -> None:
    journal = MemoryJournal(Limits(rooms_max=2))
    at: dict[str, tuple[int, int]] = {}
    for room, closes in steps:
        incarnation, seq = at.get(room, (1, 0))
        record = (closed if closes else text)(seq + 1, room=room, incarnation=incarnation)
        assert write(journal, [record])
        at[room] = (incarnation + 1, 0) if closes else (incarnation, seq + 1)
        assert len(journal._logs) <= 2 + sum(seq > 0 for _, seq in at.values())


def test_a_closed_journal_takes_nothing() -> None:
    journal = MemoryJournal(Limits())
    assert write(journal, [text(1)])
    journal.close()
    assert not write(journal, [text(2)])
    assert seqs(journal) == [1]
