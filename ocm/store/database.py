"""One SQLite file that belongs to this process, and what happens to it when the disk fails.

A transaction that fails is told as failed only when it is certain that nothing of it is in the file. Where SQLite
cannot say so (COMMIT itself failed, so that all of it may be in the write-ahead log or nothing), the file is closed,
opened again and checked. Each transaction counts up ``ledger.commits``, so the file then says whether it is there:
if it is, it has succeeded. Until the file could be opened again nothing is written. Should a transaction that was
told as failed because of that turn out to be there afterwards, nothing is written ever again: whoever was told of the
failure has gone on from another state than that of the file, and only a new start reads what is true.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from ocm.store.filelock import FileLock, make_private
from ocm.store.schema import FAULTS, Schema, number_of

T = TypeVar("T")

Connect: TypeAlias = Callable[[Path], sqlite3.Connection]

WAL_PAGES: Final = 256
"""Pages written ahead before they go into the file: 1 MiB. SQLite's own 4 MiB can fill a small disk that the file, of
90 KiB, would not, and then there is no room left to empty it."""
_PRAGMAS: Final = (
    f"PRAGMA wal_autocheckpoint = {WAL_PAGES}",
    "PRAGMA synchronous = FULL",
    "PRAGMA fullfsync = ON",  # macOS: else it says "written" while it is in the disk's own memory
    "PRAGMA checkpoint_fullfsync = ON",
    "PRAGMA secure_delete = ON",  # what is deleted cannot be read from the file either
)
_SOUND: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY})
"""Errors that leave no doubt about what is in the file, so that it need not be read as a whole."""


class Database:
    """A file, the one connection that writes into it and the one that reads.

    Everything but ``reading`` is for one thread at a time. Methods raise what is in ``FAULTS``; ``Schema.explain``
    makes a sentence of it.
    """

    def __init__(self, path: Path, schema: Schema, *, connect: Connect | None = None) -> None:
        """Take the file, which is made where it is missing. Raises ``BlockingIOError`` when somebody else has it."""
        self._path = path
        self._schema = schema
        self._connect = connect or _connect
        self._readers = threading.Lock()
        self._reader: sqlite3.Connection | None = None
        self._writer: sqlite3.Connection | None = None
        self._parted: sqlite3.Error | None = None
        self._is_open = True
        make_private(path.with_name(path.name + ".lock"))
        self._lock = FileLock(path.with_name(path.name + ".lock"))
        try:
            make_private(path)
            self._writer = self._open()
            self._commits = number_of(self._writer, "SELECT commits FROM ledger")
        except BaseException:
            self.close()
            raise

    def write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """Call ``change`` in a transaction and commit that; return its result.

        What ``change`` raises undoes the transaction and goes on its way. Whatever is raised, nothing of the
        transaction is in the file, unless that cannot be told; see the module.
        """
        connection = self._mended()
        try:
            connection.execute("BEGIN IMMEDIATE")
            before = connection.total_changes
            result = change(connection)
            if connection.total_changes == before:
                connection.execute("ROLLBACK")  # all of it was there
                return result
            connection.execute("UPDATE ledger SET commits = commits + 1")
        except FAULTS as error:
            if self._mend(error) != self._commits:
                raise self._part() from error
            raise
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self._commit(connection)
        return result

    @contextmanager
    def reading(self) -> Generator[sqlite3.Connection]:
        """Lend a connection that sees what was committed up to now, and may not write. For any thread."""
        with self._readers:
            if not self._is_open:
                raise sqlite3.ProgrammingError("it is closed")
            reader = self._reader or self._connect(self._path)
            self._reader = None
            try:
                reader.execute("PRAGMA query_only = ON")
                reader.execute("BEGIN")
                yield reader
                reader.execute("COMMIT")
            except BaseException:
                reader.close()
                raise
            self._reader = reader

    def close(self) -> None:
        """Close the file and let others have it. Idempotent."""
        with self._readers:
            self._is_open = False
            self._shut()
        self._lock.release()

    # --- when it fails --------------------------------------------------------------------------------

    def _commit(self, connection: sqlite3.Connection) -> None:
        try:
            connection.execute("COMMIT")
        except FAULTS as error:
            commits = self._mend(error)
            if commits == self._commits:
                raise
            if commits != self._commits + 1:
                raise self._part() from error
        except BaseException:
            self._part()  # interrupted: nobody was told anything
            raise
        self._commits += 1

    def _mended(self) -> sqlite3.Connection:
        """Return the writing connection; open the file again where it was closed because of a failure."""
        if self._parted is not None:
            raise self._parted
        if self._writer is None and self._mend(None) != self._commits:
            raise self._part()
        assert self._writer is not None, "mended"
        return self._writer

    def _mend(self, error: BaseException | None) -> int:
        """Close the file, open it again, check it, and return how many transactions it holds.

        Where it cannot be opened ``error`` is raised, the failure that began this.
        """
        with self._readers:
            self._shut()
            try:
                if not self._is_open:
                    raise sqlite3.ProgrammingError("it is closed")
                self._writer = self._open()
                _check(self._writer, thorough=getattr(error, "sqlite_errorcode", 0) & 0xFF not in _SOUND)
                return number_of(self._writer, "SELECT commits FROM ledger")
            except FAULTS:
                self._shut()
                if error is None:
                    raise
                raise error from None

    def _part(self) -> sqlite3.DatabaseError:
        """Write nothing more: the file is not in the state that we have told of. Return the error that says so."""
        with self._readers:
            self._shut()
        self._parted = sqlite3.DatabaseError("after a failure it holds what was said to be lost; start again")
        return self._parted

    def _open(self) -> sqlite3.Connection:
        connection = self._connect(self._path)
        try:
            self._schema.upgrade(connection)
            for pragma in _PRAGMAS:
                connection.execute(pragma)
        except BaseException:
            connection.close()
            raise
        return connection

    def _shut(self) -> None:
        for connection in (self._reader, self._writer):
            if connection is not None:
                connection.close()
        self._reader = self._writer = None


def _connect(path: Path) -> sqlite3.Connection:
    # Used by one thread at a time, but not always the same: the last one closes.
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


def _check(connection: sqlite3.Connection, *, thorough: bool) -> None:
    """See that the file can be written to the end, and, if ``thorough``, that it is whole."""
    [[busy, _, _]] = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    if busy:
        raise sqlite3.DatabaseError("another program is reading it; end that program")
    if thorough and (found := connection.execute("PRAGMA quick_check(1)").fetchall()) != [("ok",)]:
        raise sqlite3.DatabaseError(f"the file is damaged ({found[0][0]}); put a backup in its place")
