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
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from ocm.store.filelock import FileLock, make_private

T = TypeVar("T")

Connect: TypeAlias = Callable[[Path], sqlite3.Connection]

FAULTS: Final = (sqlite3.Error, OSError, MemoryError)
"""What goes wrong because of the file, the disk or the machine, and not because of what was to be written."""

_ADVICE: Final = {
    sqlite3.SQLITE_FULL: "the disk is full; make room on it",
    sqlite3.SQLITE_IOERR: "the disk does not work; look into the system's log",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; put a backup in its place, or move it away to begin anew",
    sqlite3.SQLITE_NOTADB: "the file is no database; put a backup in its place, or move it away to begin anew",
    sqlite3.SQLITE_PERM: "it may not be used; look at the permissions of the file and its folder",
    sqlite3.SQLITE_READONLY: "it may not be written; look at the permissions of the file and its folder",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; look at the permissions of the file and its folder",
    sqlite3.SQLITE_BUSY: "another program is using it; end that program",
    sqlite3.SQLITE_LOCKED: "another program is using it; end that program",
}
_PRAGMAS: Final = (
    "PRAGMA synchronous = FULL",
    "PRAGMA fullfsync = ON",  # macOS: else it says "written" while it is in the disk's own memory
    "PRAGMA checkpoint_fullfsync = ON",
    "PRAGMA secure_delete = ON",  # what is deleted cannot be read from the file either
)
_SOUND: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY})
"""Errors that leave no doubt about what is in the file, so that it need not be read as a whole."""


@dataclass(frozen=True, slots=True)
class Schema:
    """What is in a file.

    The tables of every schema hold ``ledger``, a table of one row with a column ``commits``.
    """

    what: str
    """What the file is, for people."""
    application_id: int
    """Tells files of this kind from others: a number below 2**31 that the first migration writes."""
    migrations: Sequence[Sequence[str]]
    """Statements that lead from version n to n + 1, each ending with the ``PRAGMA user_version`` that says so."""

    def explain(self, path: Path, error: BaseException) -> str:
        """Return what is wrong with the file ``path``, and what to do about it."""
        code = getattr(error, "sqlite_errorcode", None)
        if isinstance(error, BlockingIOError):
            why = "another process is using it; end that process, or name another file"
        elif isinstance(error, OSError):
            why = f"{error.strerror or error}"
        elif isinstance(error, MemoryError):
            why = "there is not enough memory"
        elif code is None:
            why = str(error)
        else:
            why = f"{_ADVICE.get(code & 0xFF, str(error))} ({getattr(error, 'sqlite_errorname', code)})"
        return f"{self.what} {path}: {why}"


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
            self._commits = _number(self._writer, "SELECT commits FROM ledger")
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
            if self._reader is None:
                self._reader = self._connect(self._path)
                self._reader.execute("PRAGMA query_only = ON")
            try:
                self._reader.execute("BEGIN")
                yield self._reader
                self._reader.execute("COMMIT")
            except BaseException:
                self._reader.close()
                self._reader = None
                raise

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
                return _number(self._writer, "SELECT commits FROM ledger")
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
            _upgrade(connection, self._schema)
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


def _upgrade(connection: sqlite3.Connection, schema: Schema) -> None:
    """Bring the tables to the newest version, one transaction for each step. Raises ``sqlite3.DatabaseError``."""
    version = _number(connection, "PRAGMA user_version")
    is_empty = version == 0 and _number(connection, "SELECT count(*) FROM sqlite_master") == 0
    if not is_empty and _number(connection, "PRAGMA application_id") != schema.application_id:
        raise sqlite3.DatabaseError("it was made by another program; name another file")
    if version > (newest := len(schema.migrations)):
        raise sqlite3.DatabaseError(
            f"it was written by a newer ocm (version {version} of the file, this one knows {newest}); upgrade ocm"
        )
    [[mode]] = connection.execute("PRAGMA journal_mode = WAL").fetchall()
    if mode != "wal":
        raise sqlite3.DatabaseError("its file system cannot keep it safe; put it on a disk of this machine")
    for migration in schema.migrations[version:]:
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in migration:
                connection.execute(statement)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _check(connection: sqlite3.Connection, *, thorough: bool) -> None:
    """See that the file can be written to the end, and, if ``thorough``, that it is whole."""
    [[busy, _, _]] = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    if busy:
        raise sqlite3.DatabaseError("another program is reading it; end that program")
    if thorough and (found := connection.execute("PRAGMA quick_check(1)").fetchall()) != [("ok",)]:
        raise sqlite3.DatabaseError(f"the file is damaged ({found[0][0]}); put a backup in its place")


def _number(connection: sqlite3.Connection, query: str) -> int:
    [[number]] = connection.execute(query).fetchall()
    assert isinstance(number, int), "asked for a number"
    return number
