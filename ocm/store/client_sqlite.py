"""What a client remembers on SQLite: it outlives a kill, and a loss of power where the disk is honest.

One file for its owner only, in write-ahead mode with ``synchronous=FULL``; a lock beside it keeps other processes
out, and goes with the process. How a failing disk is dealt with is told in ``database.py``.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Generator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import msgspec

from ocm.errors import StateFailed, StateLocked
from ocm.protocol.memory import Entered, Left, Memo, Memory, Named, Posted, Read, Renumbered, RoomMemory, Sent, Settled
from ocm.protocol.wire.records import UInt53
from ocm.store.base import Stored
from ocm.store.database import Connect, Database
from ocm.store.groups import Groups, Written
from ocm.store.schema import FAULTS, Schema, damaged, row_as
from ocm.store.worker import ThreadWorker, Worker

STATE_SCHEMA: Final = Schema(
    what="the client's state",
    application_id=0x6F636D53,  # "ocmS"
    migrations=(
        (
            "CREATE TABLE ledger (one INTEGER PRIMARY KEY CHECK (one = 1), commits INTEGER NOT NULL)",
            "INSERT INTO ledger (one, commits) VALUES (1, 0)",
            """
            CREATE TABLE named (
                one INTEGER PRIMARY KEY CHECK (one = 1),
                client BLOB NOT NULL,
                secret BLOB NOT NULL,
                server BLOB NOT NULL
            )
            """,
            """
            CREATE TABLE room (
                id INTEGER PRIMARY KEY,
                name TEXT NOT NULL UNIQUE,
                log_id BLOB NOT NULL DEFAULT x'',
                last INTEGER NOT NULL DEFAULT 0,
                mark INTEGER NOT NULL DEFAULT 0,
                sent_up_to INTEGER NOT NULL DEFAULT 0
            )
            """,
            """
            CREATE TABLE posted (
                room TEXT NOT NULL,
                message_id INTEGER NOT NULL,
                kind INTEGER NOT NULL,
                body BLOB NOT NULL,
                PRIMARY KEY (room, message_id)
            ) WITHOUT ROWID
            """,
            "PRAGMA application_id = 0x6F636D53",
            "PRAGMA user_version = 1",
        ),
    ),
)
"""What ``SqliteState`` keeps."""


class SqliteState:
    """A client's state in one file.

    Args:
        path: the file; it and its folder are made where they are missing, for their owner only.
        worker: who writes: a thread by default; ``InlineWorker()`` where there may be none.
        connect: opens the file, with ``isolation_level=None`` and for any thread. For tests.

    Raises:
        StateLocked: another process has the file.
        StateFailed: it is damaged, or it is not one that this version can read.
    """

    def __init__(self, path: Path, *, worker: Worker | None = None, connect: Connect | None = None) -> None:
        """Open the file, and lock it."""
        self._path = path
        try:
            self._database = Database(path, STATE_SCHEMA, connect=connect)
        except BlockingIOError as error:
            raise StateLocked(STATE_SCHEMA.explain(path, error)) from None
        except FAULTS as error:
            raise self._failed(error) from None
        worker = ThreadWorker("ocm state") if worker is None else worker
        worker.start(lambda: None)
        self._groups: Groups[Sequence[Memo], StateFailed] = Groups(
            worker,
            start=lambda batches: (len(batches), partial(self._write, list(batches))),
            landed=lambda _: None,
            failed=StateFailed,
            what="the client's state",
        )

    def load(self) -> Memory:
        """Read, on the caller's thread, what was committed. Raises ``StateFailed``."""
        with self._reading() as connection:
            return _read(connection)

    def submit(self, memos: Sequence[Memo], stored: Stored) -> None:
        """Write with whatever else waits, and say so from the event loop."""
        self._groups.submit(memos, stored)

    def close(self) -> None:
        """Write what waits, tell of it, and let another process have the file. Idempotent."""
        self._groups.close()
        self._database.close()

    @contextlib.contextmanager
    def _reading(self) -> Generator[sqlite3.Connection]:
        try:
            with self._database.reading() as connection:
                yield connection
        except FAULTS as error:
            raise self._failed(error) from None

    def _write(self, batches: Sequence[Sequence[Memo]]) -> Written[StateFailed]:
        try:
            self._database.write(lambda connection: _apply(connection, batches))
        except (OverflowError, UnicodeEncodeError):
            return Written(0, StateFailed("a number or a text cannot be written"))
        except FAULTS as error:
            return Written(0, self._failed(error))
        return Written(len(batches))

    def _failed(self, error: BaseException) -> StateFailed:
        return StateFailed(STATE_SCHEMA.explain(self._path, error))


_ROOM: Final = "INSERT INTO room (name) VALUES (?) ON CONFLICT (name) DO NOTHING"
_ENTERED: Final = "UPDATE room SET log_id = ?, last = ?, mark = max(mark, ?) WHERE name = ?"
_POSTED: Final = """
    INSERT OR REPLACE INTO posted (room, message_id, kind, body) SELECT name, ?, ?, ? FROM room
    WHERE name = ? AND (mark < ? OR EXISTS (SELECT 1 FROM posted WHERE room = room.name AND message_id = ?))
"""
_OUT_OF_THE_WAY: Final = """
    UPDATE posted SET message_id = -(message_id + ?) WHERE room = ? AND message_id BETWEEN ? AND ?
"""  # below zero meanwhile: a new id may be that of one that has not moved yet


def _apply(connection: sqlite3.Connection, batches: Sequence[Sequence[Memo]]) -> None:
    """Do to the tables what ``Memory.apply`` does to a memory."""
    for memo in (memo for memos in batches for memo in memos):
        _apply_one(connection.execute, memo)


def _apply_one(run: Callable[..., sqlite3.Cursor], memo: Memo) -> None:
    if isinstance(memo, Named):
        run("INSERT OR REPLACE INTO named (one, client, secret, server) VALUES (1, ?, ?, ?)", memo)
        return
    room = memo.room
    if isinstance(memo, Left):
        run("DELETE FROM posted WHERE room = ?", (room,))
        run("DELETE FROM room WHERE name = ?", (room,))
        return
    run(_ROOM, (room,))
    match memo:
        case Entered(_, log_id, last, mark):
            run(_ENTERED, (log_id, last, mark, room))
        case Posted(_, message_id, kind, body):
            run(_POSTED, (message_id, kind, body, room, message_id, message_id))
            run("UPDATE room SET mark = max(mark, ?) WHERE name = ?", (message_id, room))
        case Renumbered(_, first, last, by):
            run(_OUT_OF_THE_WAY, (by, room, first, last))
            run("UPDATE OR REPLACE posted SET message_id = -message_id WHERE room = ? AND message_id < 0", (room,))
            run("UPDATE room SET mark = max(mark, ?) WHERE name = ?", (last + by, room))
        case Sent(_, message_id):
            run("UPDATE room SET sent_up_to = max(sent_up_to, ?) WHERE name = ?", (message_id, room))
        case Settled(_, message_id):
            run("DELETE FROM posted WHERE room = ? AND message_id = ?", (room, message_id))
        case Read(_, seq):
            run("UPDATE room SET last = max(last, ?) WHERE name = ?", (seq, room))


class _RoomRow(NamedTuple):
    name: str
    log_id: bytes
    last: UInt53
    mark: UInt53
    sent_up_to: UInt53


class _PostedRow(NamedTuple):
    room: str
    message_id: UInt53
    kind: Annotated[int, msgspec.Meta(ge=0, lt=256)]
    body: bytes


def _read(connection: sqlite3.Connection) -> Memory:
    memory = Memory()
    for row in connection.execute("SELECT client, secret, server FROM named"):
        memory.named = row_as(Named, row)
    for row in connection.execute("SELECT name, log_id, last, mark, sent_up_to FROM room ORDER BY id"):
        room = row_as(_RoomRow, row)
        memory.rooms[room.name] = RoomMemory(*room[1:])
    for row in connection.execute("SELECT room, message_id, kind, body FROM posted ORDER BY room, message_id"):
        posted = Posted(*row_as(_PostedRow, row))
        if posted.room not in memory.rooms:
            raise damaged("a message to no room")
        memory.rooms[posted.room].posted[posted.message_id] = posted
    return memory
