"""A journal on SQLite: what it says is kept outlives a kill, and a loss of power where the disk is honest.

One file, in write-ahead mode with ``synchronous=FULL``; beside it ``-wal`` and ``-shm``, which belong to it, and
``.lock``, which keeps a second server out. One worker writes, and whatever waits for it is one transaction. How a
failing disk is dealt with is told in ``database.py``, how data ages in ``ages.py``.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from ocm.errors import JournalFailed
from ocm.protocol.entry import Entry, Kept, Step
from ocm.protocol.limits import Limits
from ocm.store.ages import AgeClock
from ocm.store.base import Done
from ocm.store.database import Connect, Database
from ocm.store.ephemeral import EphemeralLogs, Sorted
from ocm.store.groups import Groups, Written
from ocm.store.schema import FAULTS, row_as
from ocm.store.sqlite_fold import Fold, Misfit
from ocm.store.sqlite_read import read_entries, read_kept
from ocm.store.sqlite_retention import Retention
from ocm.store.sqlite_schema import JOURNAL_SCHEMA
from ocm.store.worker import ThreadWorker, Worker


class SqliteJournal:
    """A server's journal in one file.

    Rooms whose policy is not durable are kept in memory, as ``MemoryJournal`` does.

    Args:
        path: the file; it and its folder are made where they are missing, for their owner only.
        limits: ``room_kept_messages_max``, ``room_kept_s``, ``closed_room_kept_s`` and ``rooms_max`` say how much is
            kept.
        clock: the time of day, in seconds since 1970.
        monotonic: a clock that never jumps, in seconds: where time is virtual, ``loop.time``.
        worker: who writes: a thread by default; ``InlineWorker()`` where there may be none.
        connect: opens the file, with ``isolation_level=None`` and for any thread. For tests.

    Raises:
        JournalFailed: another server has the file, it is damaged, or it is not one that this version can read.
    """

    durability: str = "disk"

    def __init__(
        self,
        path: Path,
        limits: Limits,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
        worker: Worker | None = None,
        connect: Connect | None = None,
    ) -> None:
        """Open the file, and lock it."""
        try:
            self._database = Database(path, JOURNAL_SCHEMA, connect=connect)
        except FAULTS as error:
            raise JournalFailed(JOURNAL_SCHEMA.explain(path, error)) from None
        self._path = path
        try:
            with self._reading() as connection:
                (aged_s,) = row_as(tuple[float], connection.execute("SELECT aged_s FROM ledger").fetchone())
        except JournalFailed:
            self._database.close()
            raise
        ages = AgeClock(clock, monotonic, aged_s=aged_s)
        self._fold = Fold(ages, messages_max=limits.room_kept_messages_max)
        self._retention = Retention(limits, ages, monotonic)
        self._ephemeral = EphemeralLogs(limits)
        self._under_way: list[Sorted] = []
        worker = ThreadWorker("ocm journal") if worker is None else worker
        worker.start(self._tidy)
        self._groups: Groups[Sequence[Step], JournalFailed] = Groups(
            worker, start=self._start, landed=self._landed, failed=JournalFailed, what="the journal"
        )

    def submit(self, records: Sequence[Step], done: Done) -> None:
        """Write with whatever else waits, and say so from the event loop."""
        self._groups.submit(records, done)

    def read(self, room: str, incarnation: int, *, from_seq: int, count: int) -> Sequence[Entry]:
        """Read, on the caller's thread, what was committed. Raises ``JournalFailed``."""
        if self._ephemeral.holds(room, incarnation):
            return self._ephemeral.read(room, incarnation, from_seq=from_seq, count=count)
        with self._reading() as connection:
            return read_entries(connection, room, incarnation, from_seq=from_seq, count=count)

    def load(self) -> Kept:
        """Return what was committed, of rooms that are durable. Raises ``JournalFailed``."""
        with self._reading() as connection:
            return read_kept(connection)

    def close(self) -> None:
        """Write what waits, tell of it, and let another server have the file. Idempotent."""
        self._groups.close()
        with contextlib.suppress(*FAULTS):  # it only makes everything a little younger
            self._database.write(self._fold.note_age)
        self._database.close()

    # --- on the event loop ----------------------------------------------------------------------------

    def _start(self, batches: Sequence[Sequence[Step]]) -> tuple[int, Callable[[], Written[JournalFailed]]]:
        """Choose the next group, and make the job that writes it."""
        self._under_way = self._ephemeral.sort(batches)
        if not self._under_way:
            return 1, lambda: Written(0, JournalFailed("the batch does not continue its rooms' logs"))
        return len(self._under_way), partial(self._write, [batch.durable for batch in self._under_way])

    def _landed(self, count: int) -> None:
        for batch in self._under_way[:count]:
            if batch.passing:
                self._ephemeral.keep(batch.passing)

    @contextmanager
    def _reading(self) -> Generator[sqlite3.Connection]:
        try:
            with self._database.reading() as connection:
                yield connection
        except FAULTS as error:
            raise JournalFailed(JOURNAL_SCHEMA.explain(self._path, error)) from None

    # --- on the worker --------------------------------------------------------------------------------

    def _write(self, batches: Sequence[Sequence[Step]]) -> Written[JournalFailed]:
        try:
            count, misfit = self._database.write(partial(self._fold.take, batches=batches))
        except Misfit as none_fits:
            return Written(0, JournalFailed(str(none_fits)))
        except FAULTS as error:
            return Written(0, JournalFailed(JOURNAL_SCHEMA.explain(self._path, error)))
        return Written(count, None if misfit is None else JournalFailed(str(misfit)))

    def _tidy(self) -> None:
        if self._retention.is_due():
            with contextlib.suppress(*FAULTS):  # the next batch meets the same, and is told
                self._database.write(self._retention.step)
