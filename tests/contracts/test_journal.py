"""What every journal promises, sentence by sentence of ``ocm/store/base.py``.

What is said to be kept on a disk is also opened again by another journal on the same file.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocm.errors import JournalFailed
from ocm.protocol.entry import CLASSIC_POLICY, Entry, Kept, KeptRoom, Kind, Opened, Policy, Reason, Record, Step
from ocm.protocol.limits import Limits
from ocm.protocol.session.publishing import ANSWERS_KEPT
from ocm.store.base import Journal
from ocm.store.memory import MemoryJournal
from ocm.store.sqlite import SqliteJournal
from ocm.store.worker import InlineWorker, ThreadWorker
from tests.store.histories import Batch, Scribe, durable_histories, fold, histories, long_history
from tests.store.scratch import new_path, opened

MakeJournal = Callable[[], Journal]
Reopen = Callable[[Path], Journal]

EPOCH_S = 1_700_000_000.0


def inline(path: Path) -> Journal:
    return opened(SqliteJournal(path, Limits(), clock=lambda: EPOCH_S, worker=InlineWorker()))


def threaded(path: Path) -> Journal:
    return opened(SqliteJournal(path, Limits(), clock=lambda: EPOCH_S, worker=ThreadWorker("journal of a test")))


JOURNALS: dict[str, MakeJournal] = {
    "memory": lambda: MemoryJournal(Limits()),
    "sqlite": lambda: inline(new_path("journal.db")),
    "sqlite in a thread": lambda: threaded(new_path("journal.db")),
}
ON_DISK: dict[str, Reopen] = {"sqlite": inline, "sqlite in a thread": threaded}
every_journal = pytest.mark.parametrize("make", JOURNALS.values(), ids=JOURNALS.keys())
every_disk = pytest.mark.parametrize("reopen", ON_DISK.values(), ids=ON_DISK.keys())


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

    def submit(self, records: Sequence[Step]) -> None:
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

    async def write(self, records: Sequence[Step]) -> bool:
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


@every_journal
async def test_closing_finishes_what_was_submitted_and_tells_of_it(make: MakeJournal) -> None:
    writer = Writer(make)
    for seq in (1, 2, 3, 7, 8):
        writer.submit(run(seq, seq))
    writer.journal.close()
    assert [error is None for _, error in writer.told] == [True, True, True, False, False]


@every_journal
async def test_done_may_submit_and_close(make: MakeJournal) -> None:
    writer = Writer(make)
    told: list[str] = []

    def close(error: JournalFailed | None) -> None:
        told.append("first" if error is None else "")
        writer.journal.submit(run(2, 2), lambda error: told.append("second" if error is None else ""))
        writer.journal.submit(run(3, 3), lambda error: told.append("third" if error is None else ""))
        writer.journal.close()
        writer.journal.submit(run(4, 4), lambda error: told.append("" if error is None else "fourth"))

    writer.journal.submit(run(1, 1), close)
    writer.submit(run(2, 2))
    await writer.outcomes()
    assert told == ["first", "second", "third", "fourth"]


@every_journal
async def test_what_was_submitted_while_a_failure_was_untold_fails_with_it(make: MakeJournal) -> None:
    writer = Writer(make)
    told: list[tuple[str, bool]] = []

    def then(name: str, *batches: tuple[str, Record]) -> Callable[[JournalFailed | None], None]:
        def done(error: JournalFailed | None) -> None:
            told.append((name, error is None))
            for room, one in batches:
                writer.journal.submit([one], then(room))

        return done

    writer.journal.submit(run(1, 1), then("first", ("x", record(1, room="x"))))
    writer.journal.submit(run(9, 9), then("skips", ("y", record(1, room="y"))))
    writer.journal.submit(run(1, 1, room="b"), then("behind", ("z", record(1, room="z"))))
    await writer.write([])
    await writer.write([])
    outcomes = dict(told)
    assert outcomes["first"]
    assert not outcomes["skips"]
    assert outcomes["y"], "it was submitted after the failure was told"
    assert outcomes["z"]
    assert [bool(writer.seqs(room)) for room in "xybz"] == [outcomes[room] for room in ("x", "y", "behind", "z")]


@every_journal
async def test_a_batch_that_begins_a_room_can_be_submitted_again(make: MakeJournal) -> None:
    writer = Writer(make)
    begin: list[Step] = [Opened("a", 1, b"x" * 16, Policy()), *run(1, 2)]
    assert await writer.write(begin)
    assert await writer.write(begin)
    assert writer.seqs() == [1, 2]


@every_journal
async def test_a_room_that_is_not_durable_is_read_like_any_other(make: MakeJournal) -> None:
    writer = Writer(make)
    opening = Opened("b", 2, b"x" * 16, Policy(durable=False))
    assert await writer.write([*run(1, 1), opening, *run(1, 2, room="b", incarnation=2)])
    assert await writer.write([*run(3, 3, room="b", incarnation=2), *run(2, 2)])
    assert not await writer.write([*run(3, 3), *run(9, 9, room="b", incarnation=2)])
    assert not await writer.write([*run(9, 9), *run(4, 4, room="b", incarnation=2)])
    assert await writer.write([*run(2, 3, room="b", incarnation=2), *run(2, 2)])
    assert (writer.seqs(), writer.seqs("b", 2)) == ([1, 2], [1, 2, 3])


@every_journal
async def test_batches_of_rooms_that_are_not_durable_may_wait_behind_each_other(make: MakeJournal) -> None:
    writer = Writer(make)
    opening = Opened("b", 2, b"x" * 16, Policy(durable=False))
    first, second = run(1, 2, room="b", incarnation=2), run(3, 4, room="b", incarnation=2)
    begin: list[Step] = [opening, *first]
    for batch in (begin, second, second, first, [*run(5, 5, room="b", incarnation=2), *run(1, 1)]):
        writer.submit(batch)
    writer.submit(run(9, 9, room="b", incarnation=2))
    assert await writer.outcomes() == [True] * 5 + [False]
    assert (writer.seqs("b", 2), writer.seqs()) == ([1, 2, 3, 4, 5], [1])


@every_journal
async def test_one_record_twice_in_one_batch_has_two_places(make: MakeJournal) -> None:
    writer = Writer(make)
    assert not await writer.write([record(1), record(1)])
    assert writer.seqs() == []


@every_journal
async def test_a_new_journal_holds_nothing(make: MakeJournal) -> None:
    assert make().load() == Kept()


async def test_a_journal_in_memory_has_nothing_to_tell_a_server_that_starts() -> None:
    writer = Writer(JOURNALS["memory"])
    await writer.write([Opened("a", 1, b"x" * 16, Policy()), *run(1, 2)])
    assert writer.journal.load() == Kept()


# --- on a disk ----------------------------------------------------------------------------------------


@every_disk
async def test_what_was_told_as_written_is_there_when_it_is_opened_again(reopen: Reopen) -> None:
    path = new_path("journal.db")
    writer = Writer(lambda: reopen(path))
    await writer.write([Opened("a", 3, b"x" * 16, Policy()), *run(1, 5, incarnation=3)])
    writer.journal.close()
    again = reopen(path)
    assert [entry.seq for entry in again.read("a", 3, from_seq=1, count=9)] == [1, 2, 3, 4, 5]
    assert again.load() == Kept((KeptRoom("a", 3, b"x" * 16, Policy(), 5, 1, 2, 5, False, ()),), last_incarnation=3)


@every_disk
async def test_a_record_of_a_room_that_nobody_opened_begins_a_classic_room(reopen: Reopen) -> None:
    writer = Writer(lambda: reopen(new_path("journal.db")))
    await writer.write(run(1, 1))
    (room,) = writer.journal.load().rooms
    assert (room.name, room.log_id, room.policy, room.last_seq) == ("a", b"", CLASSIC_POLICY, 1)


@every_disk
async def test_a_second_journal_on_one_file_is_refused_and_says_why(reopen: Reopen) -> None:
    path = new_path("journal.db")
    first = reopen(path)
    with pytest.raises(JournalFailed, match=r"journal\.db: another process is using it; end that"):
        reopen(path)
    first.close()
    reopen(path)


def on_disk(reopen: Reopen, path: Path) -> Writer:
    return Writer(lambda: reopen(path))


@every_disk
@settings(max_examples=30)
@given(histories, st.integers(0, 9))
def test_what_is_loaded_is_the_fold_of_what_was_written(reopen: Reopen, history: list[Batch], pause: int) -> None:
    path = new_path("journal.db")

    async def story() -> None:
        writer = on_disk(reopen, path)
        for number, batch in enumerate(history):
            writer.submit(batch)
            if number % 10 == pause:  # so that groups and single batches are written
                await writer.outcomes()
        assert all(await writer.outcomes())
        assert writer.journal.load() == fold(history)
        writer.journal.close()

    async def again() -> None:
        writer = on_disk(reopen, path)
        assert writer.journal.load() == fold(history)
        writer.journal.close()

    asyncio.run(story())
    asyncio.run(again())


@every_disk
@settings(max_examples=20)
@given(durable_histories)
def test_a_history_that_is_submitted_again_succeeds_and_changes_nothing(reopen: Reopen, history: list[Batch]) -> None:
    async def story() -> None:
        writer = on_disk(reopen, new_path("journal.db"))
        for batch in (*history, *history):
            writer.submit(batch)
        assert all(await writer.outcomes())
        assert writer.journal.load() == fold(history)
        writer.journal.close()

    asyncio.run(story())


@every_disk
@pytest.mark.parametrize("seed", range(4))
async def test_a_long_history_is_loaded_as_its_fold(reopen: Reopen, seed: int) -> None:
    history, path = long_history(seed, deeds=1500, ephemeral=True), new_path("journal.db")
    writer = on_disk(reopen, path)
    for batch in history:
        writer.submit(batch)
    assert all(await writer.outcomes())
    writer.journal.close()
    kept = reopen(path).load()
    assert kept == fold(history)
    assert any(room.closed for room in kept.rooms)


@every_disk
async def test_the_last_answers_of_each_member_are_kept(reopen: Reopen) -> None:
    deeds = [(("say", "say", "refuse")[n % 3], n, n % 4 == 0) for n in range(3 * ANSWERS_KEPT)]
    history = Scribe(ephemeral=False).write([("open", 4, True), *deeds])
    writer = on_disk(reopen, new_path("journal.db"))
    for number, batch in enumerate(history, 1):
        assert await writer.write(batch)
        assert writer.journal.load() == fold(history[:number])
    ((member,),) = (room.members for room in writer.journal.load().rooms)
    assert len(member.answers) == ANSWERS_KEPT
    assert {answer.status == 0 for answer in member.answers} == {True, False}
    assert member.mark == member.answers[-1].message_id


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
