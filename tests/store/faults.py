"""Connections to real files that fail where a test wants them to."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


def disk_error(code: int = sqlite3.SQLITE_IOERR_FSYNC) -> sqlite3.OperationalError:
    """What SQLite raises when the disk fails."""
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = code
    error.sqlite_errorname = "SQLITE_IOERR_FSYNC" if code == sqlite3.SQLITE_IOERR_FSYNC else "SQLITE_FULL"
    return error


@dataclass
class Disk:
    """Opens connections, and fails as it is told."""

    fails: Callable[[str], bool] = lambda _: False
    """Asked for each statement: whether it fails."""
    does_it_all_the_same: bool = False
    """Whether a statement that fails is done first: COMMIT that was written, of which nobody heard."""
    is_gone: bool = False
    """Whether no connection can be opened."""
    error: Callable[[], BaseException] = disk_error
    opened: int = 0
    statements: list[str] = field(default_factory=list[str])

    def connect(self, path: Path) -> sqlite3.Connection:
        if self.is_gone:
            raise self.error()
        self.opened += 1
        connection = sqlite3.connect(
            path, timeout=0, isolation_level=None, check_same_thread=False, factory=_Connection
        )
        connection.disk = self
        return connection


class _Connection(sqlite3.Connection):
    disk: Disk

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        self.disk.statements.append(sql)
        if not self.disk.fails(sql):
            return super().execute(sql, parameters)
        if self.disk.does_it_all_the_same:
            super().execute(sql, parameters)
        raise self.disk.error()
