"""What every journal promises, sentence by sentence of ``ocm/store/base.py``."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocm.errors import JournalFailed
from ocm.protocol.entry import Entry, Kind, Reason, Record
from ocm.protocol.limits import Limits
from ocm.store.base import Journal
from ocm.store.memory import MemoryJournal

MakeJournal = Callable[[], Journal]

JOURNALS: dict[str, MakeJournal] = {"memory": lambda: MemoryJournal(Limits())}
every_journal = pytest.mark.parametrize("make", JOURNALS.values(), ids=JOURNALS.keys())


def record(seq: int, *, room: str = "a", incarnation: int = 1, body: bytes = b"hello") -> Record:
    return Record(room, incarnation, Entry(seq, 1, "alice", Kind.TEXT, body, seq))


def run(first: int, last: int, *, room: str = "a", incarnation: int = 1) -> list[Record]:
    return [record(seq, room=room, incarnation=incarnation) for seq in range(first, last + 1)]


def closing(seq: int, *, room: str = "a", incarnation: int = 1) -> Record:
    return Record(room, incarnation, Entry(seq, 0, "", Kind.CLOSED, Reason.HOST_LEFT.encode(), seq))


class Writer:
    """Submits to a journal and keeps what became of each batch, in the order of being told."""

    def __init__(self, make: MakeJournal) -> None:
        self.journal = make()
        self.told: list[tuple[int, JournalFailed | None]] = []
        self._submitted = 0
        self._change = asyncio.Event()

    def submit(self, records: Sequence[Record]) -> None:
        number, self._submitted = self._submitted, self._submitted + 1

        def done(error: JournalFailed | None) -> None:
            asyncio.get_running_loop()  # raises where there is none
            self.told.append((number, error))
            self._change.set()

        self.journal.submit(records, done)

    async def outcomes(self) -> list[bool]:
        """Wait for all that was submitted; say of each batch, in order of submission, whether it was written."""
        async with asyncio.timeout(10):
            while len(self.told) < self._submitted:
                self._change.clear()
                await self._change.wait()
        return [error is None for _, error in sorted(self.told, key=lambda one: one[0])]

    async def write(self, records: Sequence[Record]) -> bool:
        self.submit(records)
        return (await self.outcomes())[-1]

    def seqs(self, room: str = "a", incarnation: int = 1, *, from_seq: int = 1, count: int = 99) -> list[int]:
        return [entry.seq for entry in self.journal.read(room, incarnation, from_seq=from_seq, count=count)]


@every_journal
async def test_what_was_submitted_can_be_read(make: MakeJournal) -> None:
    writer = Writer(make)
    records = [record(1, body="はい".encode()), record(2), closing(3)]
    assert await writer.write(records)
    assert list(writer.journal.read("a", 1, from_seq=1, count=99)) == [one.entry for one in records]


@every_journal
async def test_it_says_what_its_word_survives(make: MakeJournal) -> None:
    assert make().durability in {"memory", "disk"}


@every_journal
async def test_a_batch_is_written_whole_or_not_at_all(make: MakeJournal) -> None:
    writer = Writer(make)
    assert await writer.write(run(1, 2) + run(1, 2, room="b"))
    assert not await writer.write([*run(3, 4), *run(4, 4, room="b"), *run(1, 1, room="c")])
    assert [writer.seqs(room) for room in "abc"] == [[1, 2], [1, 2], []]


@every_journal
async def test_a_writer_that_skips_a_place_fails(make: MakeJournal) -> None:
    writer = Writer(make)
    assert not await writer.write(run(2, 2))
    assert await writer.write(run(1, 1))
    assert not await writer.write(run(3, 3))
    assert not await writer.write([record(2), record(4)])
    assert writer.seqs() == [1]


@every_journal
async def test_a_writer_that_lost_its_place_does_not_write_over_another(make: MakeJournal) -> None:
    writer = Writer(make)
    await writer.write(run(1, 2))
    assert not await writer.write([record(2, body=b"mine")])
    assert not await writer.write([record(2, body=b"mine"), record(3)])
    assert not await writer.write([record(3), record(3, body=b"mine")])
    assert [entry.body for entry in writer.journal.read("a", 1, from_seq=1, count=9)] == [b"hello", b"hello"]


@every_journal
async def test_a_writer_to_a_room_of_the_past_does_not_write_over_the_present_one(make: MakeJournal) -> None:
    writer = Writer(make)
    await writer.write([*run(1, 1), closing(2)])
    assert await writer.write(run(1, 3, incarnation=2))
    assert not await writer.write([record(1, body=b"late")])
    assert not await writer.write(run(3, 3))
    assert writer.seqs(incarnation=2) == [1, 2, 3]


@every_journal
async def test_submitting_what_is_there_succeeds_and_changes_nothing(make: MakeJournal) -> None:
    writer = Writer(make)
    for batch in (run(1, 3), run(1, 3), run(2, 3), run(1, 1), run(3, 4), run(2, 5)):
        assert await writer.write(batch)
    assert writer.seqs() == [1, 2, 3, 4, 5]


@every_journal
async def test_a_batch_of_nothing_succeeds(make: MakeJournal) -> None:
    assert await Writer(make).write([])


@every_journal
async def test_done_is_called_once_on_the_loop_and_in_the_order_of_submission(make: MakeJournal) -> None:
    writer, thread = Writer(make), threading.get_ident()
    threads: list[int] = []
    writer.journal.submit(run(1, 1, room="b"), lambda _: threads.append(threading.get_ident()))
    for batch in (run(1, 2), run(3, 3), run(4, 4), run(9, 9)):
        writer.submit(batch)
    assert await writer.outcomes() == [True, True, True, False]
    writer.journal.close()
    assert [number for number, _ in writer.told] == [0, 1, 2, 3]
    assert threads == [thread]


@every_journal
async def test_a_failure_says_why(make: MakeJournal) -> None:
    writer = Writer(make)
    assert not await writer.write(run(5, 5))
    [(_, error)] = writer.told
    assert isinstance(error, JournalFailed)
    assert str(error)


@every_journal
async def test_after_a_failure_what_stands_on_it_fails_too(make: MakeJournal) -> None:
    writer = Writer(make)
    assert await writer.write(run(1, 1))
    for batch in (run(3, 3), run(4, 4), run(5, 6)):
        writer.submit(batch)
    assert await writer.outcomes() == [True, False, False, False]
    assert writer.seqs() == [1]
    assert await writer.write(run(2, 3))


@every_journal
async def test_what_was_submitted_before_a_failure_was_told_fails_with_it(make: MakeJournal) -> None:
    """The hub takes back all that waits, also in rooms that had no part in the failure."""
    writer = Writer(make)
    writer.submit(run(2, 2))
    told_at_once = bool(writer.told)
    writer.submit(run(1, 1, room="b"))
    assert await writer.outcomes() == [False, told_at_once]
    assert await writer.write(run(1, 1, room="b"))


@every_journal
async def test_reading_starts_at_a_place_and_ends_after_a_count(make: MakeJournal) -> None:
    writer = Writer(make)
    await writer.write(run(1, 5))
    assert writer.seqs(from_seq=3) == [3, 4, 5]
    assert writer.seqs(from_seq=2, count=2) == [2, 3]
    assert writer.seqs(from_seq=5, count=2) == [5]
    assert writer.seqs(from_seq=6) == writer.seqs(count=0) == writer.seqs("b") == writer.seqs(incarnation=2) == []


@every_journal
async def test_what_is_missing_is_missing_at_the_front_only(make: MakeJournal) -> None:
    writer = Writer(make)
    last = 0
    for size in (1, 100, 1000):
        await writer.write(run(last + 1, last + size))
        last += size
        seqs = writer.seqs(count=9999)
        assert seqs
        assert seqs == list(range(seqs[0], last + 1))


@every_journal
async def test_after_closing_batches_fail(make: MakeJournal) -> None:
    writer = Writer(make)
    writer.submit(run(1, 2))
    writer.journal.close()
    writer.journal.close()
    writer.submit(run(3, 3))
    assert await writer.outcomes() == [True, False]


# --- any batches --------------------------------------------------------------------------------------

batches = st.lists(
    st.lists(st.builds(record, st.integers(1, 6), room=st.sampled_from("ab"), body=st.sampled_from([b"x", b"y"]))),
    max_size=8,
)


@every_journal
@given(batches)
def test_any_batches_leave_logs_without_holes(make: MakeJournal, batches: list[list[Record]]) -> None:
    async def story() -> None:
        writer = Writer(make)
        model: dict[str, list[Entry]] = {"a": [], "b": []}
        for batch in batches:
            after = {room: list(log) for room, log in model.items()}
            fits = True
            for room, _, entry, _ in batch:
                log, at = after[room], entry.seq - 1
                fits = fits and (log[at] == entry if at < len(model[room]) else at == len(log))
                after[room] = log + [entry] * (at == len(log))
            assert await writer.write(batch) is fits
            model = after if fits else model
            assert {room: list(writer.journal.read(room, 1, from_seq=1, count=99)) for room in "ab"} == model
        writer.journal.close()

    asyncio.run(story())
