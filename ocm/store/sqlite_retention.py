"""What a server's journal forgets, a little at a time, so that nobody waits for it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Final

from ocm.protocol.limits import Limits
from ocm.store.ages import AgeClock
from ocm.store.sqlite_fold import forget_member

_ROWS_PER_STEP: Final = 500
"""Rows that one step deletes at most, which takes milliseconds."""
_ROOMS_PER_STEP: Final = 64
"""Rooms that one step looks at."""
_STEP_PAUSE_S: Final = 0.1
"""Between two steps of one round."""
_ROUND_PAUSE_S: Final = 60.0
"""After a round through all rooms."""
_AGE_NOTED_S: Final = 600.0
"""How much of a journal's age is lost at most when it is killed while nobody says anything."""

_PURGE: Final = (
    """
    DELETE FROM entry WHERE (room, seq) IN
        (SELECT room, seq FROM entry WHERE room = ? ORDER BY seq LIMIT ?)
    """,
    """
    DELETE FROM answer WHERE (room, member, slot) IN
        (SELECT room, member, slot FROM answer WHERE room = ? LIMIT ?)
    """,
    """
    DELETE FROM member WHERE (room, id) IN
        (SELECT room, id FROM member WHERE room = ? LIMIT ?)
    """,
)
"""Statements that delete a number of rows of one room."""


class Retention:
    """Goes round all rooms, and deletes what limits do not allow to be kept."""

    def __init__(self, limits: Limits, ages: AgeClock, monotonic: Callable[[], float]) -> None:
        """Begin a round."""
        self._limits = limits
        self._ages = ages
        self._monotonic = monotonic
        self._next_s = monotonic()
        self._cursor = 0
        self._noted_s = ages.now_s()

    def is_due(self) -> bool:
        """Tell whether it is time for a step."""
        return self._monotonic() >= self._next_s

    def step(self, connection: sqlite3.Connection) -> None:
        """Delete a little, within a transaction that somebody else began."""
        aged_s = self._ages.now_s()
        if aged_s > self._noted_s + _AGE_NOTED_S:
            connection.execute("UPDATE ledger SET aged_s = ?", (aged_s,))
            self._noted_s = aged_s
        rows = _ROWS_PER_STEP - self._forget(connection, aged_s)
        is_last = self._forget_former(connection, aged_s)
        is_last = self._retire(connection, aged_s) and is_last
        rows = self._purge(connection, rows)
        is_last = rows > 0 and self._trim(connection, aged_s, rows) and is_last
        self._next_s = self._monotonic() + (_ROUND_PAUSE_S if is_last else _STEP_PAUSE_S)

    def _forget(self, connection: sqlite3.Connection, aged_s: float) -> int:
        """Forget clients that have not come back; return how many."""
        return connection.execute(
            "DELETE FROM identity WHERE client IN (SELECT client FROM identity WHERE forget_s <= ? LIMIT ?)",
            (aged_s, _ROWS_PER_STEP),
        ).rowcount

    def _forget_former(self, connection: sqlite3.Connection, aged_s: float) -> bool:
        """Forget members that were removed long ago, or have too many after them; tell if these are all."""
        gone = connection.execute(
            "SELECT room, id FROM member WHERE left_s <= ? UNION "
            "SELECT room, id FROM (SELECT room, id FROM member WHERE left_s IS NOT NULL"
            " ORDER BY left_s DESC, room DESC, id DESC LIMIT ? OFFSET ?) LIMIT ?",
            (aged_s - self._limits.closed_room_kept_s, _ROOMS_PER_STEP, self._limits.rooms_max, _ROOMS_PER_STEP),
        ).fetchall()
        for room, member in gone:
            forget_member(connection.execute, room, member)
        return len(gone) < _ROOMS_PER_STEP

    def _retire(self, connection: sqlite3.Connection, aged_s: float) -> bool:
        """Let rooms go that have been closed for long, or have too many closed ones after them; tell if these are all.

        They are gone at once, and their rows are deleted later.
        """
        gone = connection.execute(
            "SELECT id FROM room WHERE closed_s <= ? UNION "
            "SELECT id FROM (SELECT id FROM room WHERE closed_s IS NOT NULL"
            " ORDER BY closed_s DESC, id DESC LIMIT ? OFFSET ?) LIMIT ?",
            (aged_s - self._limits.closed_room_kept_s, _ROOMS_PER_STEP, self._limits.rooms_max, _ROOMS_PER_STEP),
        ).fetchall()
        connection.executemany("DELETE FROM room WHERE id = ?", gone)
        connection.executemany("INSERT INTO purged (room) VALUES (?)", gone)
        return len(gone) < _ROOMS_PER_STEP

    def _purge(self, connection: sqlite3.Connection, rows: int) -> int:
        """Delete up to ``rows`` rows of rooms that are gone; return how many more may be deleted."""
        for (room,) in connection.execute("SELECT room FROM purged LIMIT ?", (rows,)).fetchall():
            for statement in _PURGE:
                rows -= connection.execute(statement, (room, rows)).rowcount
                if rows <= 0:
                    return 0
            connection.execute("DELETE FROM purged WHERE room = ?", (room,))
        return rows

    def _trim(self, connection: sqlite3.Connection, aged_s: float, rows: int) -> bool:
        """Delete up to ``rows`` entries that are too old or too many; tell whether this was the last room."""
        old_s, messages_max = aged_s - self._limits.room_kept_s, self._limits.room_kept_messages_max
        rooms = connection.execute(
            "SELECT id, last_seq, oldest_seq FROM room WHERE id > ? ORDER BY id LIMIT ?",
            (self._cursor, _ROOMS_PER_STEP),
        ).fetchall()
        for room, last_seq, oldest_seq in rooms:
            cut_seq = min(last_seq + 1, oldest_seq + rows)
            young = connection.execute(
                "SELECT seq FROM entry WHERE room = ? AND seq >= ? AND seq < ? AND aged_s > ? ORDER BY seq LIMIT 1",
                (room, max(oldest_seq, last_seq - messages_max + 1), cut_seq, old_s),
            ).fetchone()
            if young is not None:
                cut_seq = young[0]
            if cut_seq > oldest_seq:
                connection.execute("DELETE FROM entry WHERE room = ? AND seq < ?", (room, cut_seq))
                connection.execute("UPDATE room SET oldest_seq = ? WHERE id = ?", (cut_seq, room))
                rows -= cut_seq - oldest_seq
                if rows <= 0:
                    return False
            self._cursor = room
        if len(rooms) == _ROOMS_PER_STEP:
            return False
        self._cursor = 0
        return True
