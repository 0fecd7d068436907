"""Steps into tables: what a server's journal makes of each batch."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Sequence
from typing import Final

from ocm.protocol.entry import CLASSIC_POLICY, Access, Entry, Identity, Kind, Moved, Opened, Record, Refused, Step
from ocm.protocol.session.publishing import ANSWERS_KEPT
from ocm.store.ages import AgeClock
from ocm.store.sqlite_read import ENTRY_AT, entry_of

_TRIM_MIN: Final = 64
"""Entries that one batch may delete at the front of a room's log, beside two for each that it adds."""

_HEAD: Final = "SELECT id, last_seq, oldest_seq, next_member, time_ms FROM room WHERE name = ? AND incarnation = ?"


class Misfit(Exception):
    """A batch does not continue its rooms' logs, or holds what has no place in a table."""


class _Head:
    """Where a room's log is, within one batch."""

    __slots__ = ("id", "is_past", "last_seq", "next_member", "oldest_seq", "stood_at", "time_ms")

    def __init__(self, number: int, last_seq: int, oldest_seq: int, next_member: int, time_ms: int) -> None:
        self.id = number
        self.stood_at = self.last_seq = last_seq
        self.oldest_seq = oldest_seq
        self.next_member = next_member
        self.time_ms = time_ms
        self.is_past = False
        """Whether the room's name has been used again since."""


class Fold:
    """Takes batches into the tables, within a transaction that somebody else began.

    Steps that were taken before change nothing.
    """

    def __init__(self, ages: AgeClock, *, messages_max: int) -> None:
        """Keep at most ``messages_max`` entries of each room."""
        self._ages = ages
        self._messages_max = messages_max

    def take(self, connection: sqlite3.Connection, batches: Sequence[Sequence[Step]]) -> tuple[int, Misfit | None]:
        """Take batches until one does not fit; return how many were taken, and what is wrong with the next.

        Raises ``Misfit`` when not even the first fits.
        """
        before = connection.total_changes
        taken, misfit = self._take(connection, batches, self._ages.now_s())
        if misfit is not None and taken == 0:
            raise misfit
        if connection.total_changes > before:
            self.note_age(connection)
        return taken, misfit

    def note_age(self, connection: sqlite3.Connection) -> None:
        """Keep the age of the journal."""
        connection.execute("UPDATE ledger SET aged_s = ?", (self._ages.now_s(),))

    def _take(
        self, connection: sqlite3.Connection, batches: Sequence[Sequence[Step]], aged_s: float
    ) -> tuple[int, Misfit | None]:
        for count, steps in enumerate(batches):
            connection.execute("SAVEPOINT batch")
            try:
                _Batch(connection, aged_s, self._ages).take(steps, messages_max=self._messages_max)
            except (OverflowError, UnicodeEncodeError):
                connection.execute("ROLLBACK TO batch")
                return count, Misfit("the batch holds a number or a text that cannot be written")
            except Misfit as misfit:
                connection.execute("ROLLBACK TO batch")
                return count, misfit
            connection.execute("RELEASE batch")
        return len(batches), None


def forget_member(run: Callable[[str, tuple[int, int]], object], room: int, member: int) -> None:
    """Delete what is kept of a member."""
    run("DELETE FROM answer WHERE room = ? AND member = ?", (room, member))
    run("DELETE FROM member WHERE room = ? AND id = ?", (room, member))


class _Batch:
    """One batch on its way into the tables."""

    def __init__(self, connection: sqlite3.Connection, aged_s: float, ages: AgeClock) -> None:
        self._run = connection.execute
        self._aged_s = aged_s
        self._ages = ages
        self._heads: dict[tuple[str, int], _Head] = {}

    def take(self, steps: Sequence[Step], *, messages_max: int) -> None:
        for step in steps:
            match step:
                case Record():
                    self._append(step)
                case Opened():
                    self._open(step)
                case Refused():
                    self._refuse(step)
                case Moved():
                    self._move(step)
                case Identity():
                    self._identify(step)
        for head in self._heads.values():
            if head.last_seq > head.stood_at:
                self._keep(head, messages_max)

    # --- rooms ----------------------------------------------------------------------------------------

    def _open(self, opened: Opened) -> None:
        room, incarnation, log_id, policy = opened
        run = self._run
        run("UPDATE ledger SET last_incarnation = ? WHERE last_incarnation < ?", (incarnation, incarnation))
        if not policy.durable:
            return
        known = run("SELECT log_id FROM room WHERE name = ? AND incarnation = ?", (room, incarnation)).fetchone()
        if known is not None:
            if known[0] != log_id:
                raise Misfit("the batch opens a room in the place of another")
            return
        if self._is_past(room, incarnation):
            raise Misfit("the batch opens a room of the past")
        run(
            "INSERT INTO room (name, incarnation, log_id, access, lifetime) VALUES (?, ?, ?, ?, ?)",
            (room, incarnation, log_id, policy.access.value, policy.lifetime.value),
        )

    def _is_past(self, room: str, incarnation: int) -> bool:
        """Tell whether the name has been used again since."""
        query = "SELECT 1 FROM room WHERE name = ? AND incarnation > ?"
        return self._run(query, (room, incarnation)).fetchone() is not None

    def _head(self, room: str, incarnation: int) -> _Head:
        head = self._heads.get((room, incarnation))
        if head is None:
            row = self._run(_HEAD, (room, incarnation)).fetchone()
            if row is None:
                self._open(Opened(room, incarnation, b"", CLASSIC_POLICY))
                row = self._run(_HEAD, (room, incarnation)).fetchone()
            head = self._heads[room, incarnation] = _Head(*row)
            head.is_past = self._is_past(room, incarnation)
        return head

    def _append(self, record: Record) -> None:
        room, incarnation, entry, door = record
        head = self._head(room, incarnation)
        if entry.seq <= head.stood_at and self._holds(head, entry):
            return
        if entry.seq != head.last_seq + 1 or head.is_past:
            raise Misfit("the batch does not continue its rooms' logs")
        self._run(
            "INSERT INTO entry (room, seq, sender, name, kind, body, time_ms, plaintext, message_id, aged_s)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (head.id, *entry, self._aged_s),
        )
        head.last_seq = entry.seq
        head.time_ms = entry.time_ms
        if entry.sender >= head.next_member:
            head.next_member = entry.sender + 1
        self._change(head.id, entry, door)
        if entry.message_id:
            digest = hashlib.sha256(bytes([entry.kind]) + entry.body).digest()
            self._answer(head.id, entry.sender, (entry.message_id, 0, entry.seq, entry.time_ms, digest))

    def _holds(self, head: _Head, entry: Entry) -> bool:
        """Tell whether this very entry is in the log; one that retention has dropped is taken at its word."""
        if entry.seq < head.oldest_seq:
            return True
        return entry_of(self._run(ENTRY_AT, (head.id, entry.seq)).fetchone()) == entry

    def _change(self, room: int, entry: Entry, door: bytes) -> None:
        """Do what an entry says, unless it is mere words."""
        run = self._run
        match entry.kind:
            case Kind.TEXT:
                pass
            case Kind.JOIN:
                self._forget_former(room, door)
                run(
                    "INSERT OR REPLACE INTO member (room, id, joined_seq, name, plaintext, door)"
                    " VALUES (?, ?, ?, ?, ?, ?)",
                    (room, entry.sender, entry.seq, entry.name, entry.plaintext, door),
                )
            case Kind.LEAVE if door:
                run(
                    "UPDATE member SET left_seq = ?, left_s = ? WHERE room = ? AND id = ?",
                    (entry.seq, self._aged_s, room, entry.sender),
                )
            case Kind.LEAVE:
                forget_member(run, room, entry.sender)
            case Kind.CLOSED:
                run("UPDATE room SET closed_s = ? WHERE id = ?", (self._aged_s, room))
            case Kind.POLICY:
                try:
                    access = Access(entry.body.decode())
                except ValueError:
                    raise Misfit("the batch sets a policy that there is not") from None
                run("UPDATE room SET access = ? WHERE id = ?", (access.value, room))

    def _forget_former(self, room: int, door: bytes) -> None:
        """Whoever comes back as somebody new wants to hear no more of who it was."""
        former = "SELECT id FROM member WHERE room = ? AND left_seq AND door = ?"
        for (member,) in self._run(former, (room, door)).fetchall():
            forget_member(self._run, room, member)

    def _keep(self, head: _Head, messages_max: int) -> None:
        """Write where the log is now, and delete at its front what is too much."""
        last_seq = head.last_seq
        trimmed = _TRIM_MIN + 2 * (last_seq - head.stood_at)
        oldest_seq = max(head.oldest_seq, min(last_seq - messages_max + 1, head.oldest_seq + trimmed))
        if oldest_seq > head.oldest_seq:
            self._run("DELETE FROM entry WHERE room = ? AND seq < ?", (head.id, oldest_seq))
        self._run(
            "UPDATE room SET last_seq = ?, oldest_seq = ?, next_member = ?, time_ms = ? WHERE id = ?",
            (last_seq, oldest_seq, head.next_member, head.time_ms, head.id),
        )

    # --- members --------------------------------------------------------------------------------------

    def _answer(self, room: int, member: int, answer: tuple[int, int, int, int, bytes]) -> None:
        """Raise a member's mark and remember what it was told; nothing where it has gone, or was told before."""
        row = self._run("SELECT mark, settled FROM member WHERE room = ? AND id = ?", (room, member)).fetchone()
        if row is None or answer[0] <= row[0]:
            return
        self._run(
            "INSERT OR REPLACE INTO answer (room, member, slot, message_id, status, seq, time_ms, digest)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (room, member, row[1] % ANSWERS_KEPT, *answer),
        )
        self._run(
            "UPDATE member SET mark = ?, settled = settled + 1 WHERE room = ? AND id = ?",
            (answer[0], room, member),
        )

    def _refuse(self, refused: Refused) -> None:
        room, incarnation, sender, message_id, status, time_ms, digest = refused
        row = self._run(_HEAD, (room, incarnation)).fetchone()
        if row is not None:
            self._answer(row[0], sender, (message_id, status, 0, time_ms, digest))

    def _move(self, moved: Moved) -> None:
        room, incarnation, member, door = moved
        self._run(
            "UPDATE member SET door = ? WHERE id = ? AND door <> ?"
            " AND room = (SELECT id FROM room WHERE name = ? AND incarnation = ?)",
            (door, member, door, room, incarnation),
        )

    def _identify(self, identity: Identity) -> None:
        client, secrets, until_ms = identity
        if not secrets:
            self._run("DELETE FROM identity WHERE client = ?", (client,))
            return
        newest, *others = secrets
        former = others[0] if others else None
        same = "SELECT 1 FROM identity WHERE client = ? AND newest = ? AND former IS ? AND until_ms = ?"
        if self._run(same, (client, newest, former, until_ms)).fetchone() is None:
            self._run(
                "INSERT OR REPLACE INTO identity (client, newest, former, until_ms, forget_s) VALUES (?, ?, ?, ?, ?)",
                (client, newest, former, until_ms, self._ages.age_at_ms(until_ms)),
            )
