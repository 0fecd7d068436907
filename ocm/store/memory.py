"""A journal in memory: the newest entries of each open room, and nothing after the process."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Final

from ocm.errors import JournalFailed
from ocm.protocol.entry import Entry, Kept, Kind, Record, Step
from ocm.protocol.limits import Limits
from ocm.store.base import Done

_ENTRY_OVERHEAD: Final = 64
"""Bytes an entry counts beside its body."""


class _Log:
    """The newest entries of one room."""

    __slots__ = ("entries", "incarnation", "last_seq", "size")

    def __init__(self, incarnation: int) -> None:
        self.incarnation = incarnation
        self.entries: deque[Entry] = deque()
        self.last_seq = 0
        self.size = 0

    def holds(self, entry: Entry) -> bool:
        """Tell whether this very entry was written; one that retention has dropped is taken at its word."""
        place = entry.seq - self.last_seq - 1
        return place < 0 and (place < -len(self.entries) or self.entries[place] == entry)


class MemoryJournal:
    """Keeps what ``Limits`` allows of each room's log; a closed room's log goes when its name is used again.

    Logs of closed rooms are bounded by ``rooms_max`` and dropped oldest first.
    """

    durability: str = "memory"

    def __init__(self, limits: Limits) -> None:
        """Start empty."""
        self._limits = limits
        self._logs: dict[str, _Log] = {}
        self._closed: dict[str, None] = {}
        self._is_open = True

    def submit(self, records: Sequence[Step], done: Done) -> None:
        """Append at once, and say so at once."""
        if not self._is_open:
            done(JournalFailed("the journal is closed"))
            return
        if not self.fits(records):
            done(JournalFailed("the batch does not continue its rooms' logs"))
            return
        for step in records:
            if isinstance(step, Record):  # of all else there is no process to tell it to
                self._append(step)
        done(None)

    def load(self) -> Kept:
        """Return nothing: it began with this process."""
        return Kept()

    def read(self, room: str, incarnation: int, *, from_seq: int, count: int) -> Sequence[Entry]:
        """Read what is still kept."""
        log = self._logs.get(room)
        if log is None or log.incarnation != incarnation or not log.entries:
            return []
        start = max(0, from_seq - log.entries[0].seq)
        return list(islice(log.entries, start, start + count))

    def close(self) -> None:
        """Take nothing more."""
        self._is_open = False

    def fits(self, steps: Sequence[Step]) -> bool:
        """Tell whether every record comes right after its room's last one, or is in its log already."""
        last: dict[tuple[str, int], int] = {}
        for step in steps:
            if not isinstance(step, Record):
                continue
            room, incarnation, entry, _ = step
            log = self._logs.get(room)
            if log is not None and log.incarnation != incarnation:
                if log.incarnation > incarnation:
                    return False
                log = None
            at = last.get((room, incarnation), 0 if log is None else log.last_seq)
            if entry.seq == at + 1:
                last[room, incarnation] = entry.seq
            elif log is None or not log.holds(entry):
                return False
        return True

    def _append(self, record: Record) -> None:
        room, incarnation, entry, _ = record
        log = self._logs.get(room)
        if log is None or log.incarnation != incarnation:
            log = self._logs[room] = _Log(incarnation)
            self._closed.pop(room, None)
        if entry.seq <= log.last_seq:
            return
        log.last_seq = entry.seq
        log.entries.append(entry)
        log.size += len(entry.body) + _ENTRY_OVERHEAD
        limits = self._limits
        while len(log.entries) > limits.room_log_messages_max or log.size > limits.room_log_size_max:
            log.size -= len(log.entries.popleft().body) + _ENTRY_OVERHEAD
        if entry.kind is Kind.CLOSED:
            self._closed[room] = None
            if len(self._closed) > limits.rooms_max:
                oldest = next(iter(self._closed))
                del self._closed[oldest], self._logs[oldest]
