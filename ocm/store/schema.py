"""What is in an SQLite file of ours: its tables, their versions, and words for what can be wrong with it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, TypeAlias, TypeVar

import msgspec

_T = TypeVar("_T")

Natural: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
"""A number of a row that counts something."""
FAULTS: Final = (sqlite3.Error, OSError, MemoryError, UnicodeDecodeError)
"""What goes wrong because of the file, the disk or the machine, and not because of what was to be written.

``UnicodeDecodeError`` comes in the place of an error whose words quote a damaged file.
"""

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
        elif isinstance(error, UnicodeDecodeError) or (code is None and isinstance(error, sqlite3.OperationalError)):
            # where text in a column is no text: sqlite3's own words quote it, and it may be a secret
            why = _ADVICE[sqlite3.SQLITE_CORRUPT]
        elif code is None:
            why = str(error)
        else:
            why = f"{_ADVICE.get(code & 0xFF, str(error))} ({getattr(error, 'sqlite_errorname', code)})"
        return f"{self.what} {path}: {why}"

    def upgrade(self, connection: sqlite3.Connection) -> None:
        """Bring the tables to the newest version, one transaction for each step. Raises ``sqlite3.DatabaseError``."""
        version = number_of(connection, "PRAGMA user_version")
        is_empty = version == 0 and number_of(connection, "SELECT count(*) FROM sqlite_master") == 0
        if not is_empty and number_of(connection, "PRAGMA application_id") != self.application_id:
            raise sqlite3.DatabaseError("it was made by another program; name another file")
        if version > (newest := len(self.migrations)):
            raise sqlite3.DatabaseError(
                f"it was written by a newer ocm (version {version} of the file, this one knows {newest}); upgrade ocm"
            )
        [[mode]] = connection.execute("PRAGMA journal_mode = WAL").fetchall()
        if mode != "wal":
            raise sqlite3.DatabaseError("its file system cannot keep it safe; put it on a disk of this machine")
        for migration in self.migrations[version:]:
            connection.execute("BEGIN IMMEDIATE")
            try:
                for statement in migration:
                    connection.execute(statement)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise


def number_of(connection: sqlite3.Connection, query: str) -> int:
    """Return the one number that a query asks for. Raises ``sqlite3.DatabaseError`` where there is none."""
    (number,) = row_as(tuple[int], connection.execute(query).fetchone())
    return number


def row_as(shape: type[_T], row: object) -> _T:
    """Return a row, or the lack of one, as what it should be: a tuple, a named one perhaps, with types.

    Raises ``sqlite3.DatabaseError`` where it is something else: SQLite takes any value in any column, so bits that
    fell over on the disk can make a text of a number, and a number of what was none of the numbers that mean something.
    """
    try:
        return msgspec.convert(row, shape, builtin_types=(bytes,))
    except msgspec.ValidationError:
        raise damaged("a value that cannot be") from None  # its own error might quote what somebody said


def damaged(what: str) -> sqlite3.DatabaseError:
    """Return the error for a file that SQLite has nothing to say against, and that holds what we never wrote."""
    return sqlite3.DatabaseError(f"{_ADVICE[sqlite3.SQLITE_CORRUPT]} ({what})")
