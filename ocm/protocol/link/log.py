"""The newest entries of one room, as modern members read them; older ones come from the journal.

An entry is encoded once, when the first member wants it: only the room's handle differs between members. Members who
keep up want the same entries, and mostly call the room by the same handle: what went to one goes to the next as it is.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias, assert_never

from ocm.protocol.entry import Entry, Kind
from ocm.protocol.limits import Limits
from ocm.protocol.wire.frames import Message, write_frame

HISTORY_FLAG: Final = 1
PLAINTEXT_FLAG: Final = 2
PAGE: Final = 16
"""Entries fetched from the journal at a time."""
CUTS_MAX: Final = 16
"""Runs of entries that are kept as they went out."""
_HANDLE_END: Final = 5
"""Bytes of a MESSAGE up to the end of the room's handle."""
_ENTRY_OVERHEAD: Final = 64
"""Bytes an entry counts beside its body."""

Fetch: TypeAlias = Callable[[int, int], Sequence[Entry]]
"""Returns up to so many (second) entries of the room from an entry (first) on, as far as the journal has them."""


class RoomLog:
    """What members read. Entries are numbered without holes; the oldest may be gone."""

    def __init__(self, limits: Limits, fetch: Fetch, *, head: int = 0, oldest: int = 1) -> None:
        """Start with entries ``oldest`` to ``head`` in the journal, none in memory."""
        self._limits = limits
        self._fetch = fetch
        self.head = head
        """The newest entry."""
        self.oldest = oldest
        """The oldest entry that may still be had."""
        self._entries: deque[Entry] = deque()
        self._tails: deque[bytes | None] = deque()
        self.size = 0
        """Bytes of what is in memory."""
        self._page: dict[int, bytes] = {}
        self._cuts: dict[tuple[bytes, range, int], tuple[bytes, int]] = {}

    def append(self, entry: Entry) -> None:
        """Add the next entry, which the journal has."""
        self.head = entry.seq
        self._entries.append(entry)
        self._tails.append(None)
        self._cuts.clear()
        self.size += len(entry.body) + _ENTRY_OVERHEAD
        limits = self._limits
        while len(self._entries) > limits.room_log_messages_max or self.size > limits.room_log_size_max:
            self._drop()

    def begin_at(self, head: int) -> None:
        """Hear that somebody begins to read; up to entry ``head``, which is the newest, all is in the journal alone."""
        self.shed(0)
        self.head = head

    def shed(self, size_max: int) -> int:
        """Keep no more than ``size_max`` bytes in memory: the newest entries. Return how many bytes went."""
        before = self.size
        while self.size > size_max:
            self._drop()
        self._page = {}
        self._cuts.clear()
        return before - self.size

    def tail(self, seq: int) -> bytes | None:
        """Return what follows the room's handle in the MESSAGE of an entry.

        None: it is gone, and ``oldest`` says what is left.
        """
        place = seq - self.head - 1 + len(self._entries)
        if place < 0:
            return self._older(seq)
        tail = self._tails[place]
        if tail is None:
            tail = self._tails[place] = encode_tail(self._entries[place])
        return tail

    def cut(self, head: bytes, seqs: range, space: int) -> tuple[bytes, int] | None:
        """Return MESSAGE frames of the first of ``seqs``, and how many: what ``space`` has room for, and one at least.

        ``head`` is what each begins with, up to the room's handle. None: the first is gone, and ``oldest`` says what
        is left.
        """
        wanted = (head, seqs, space)
        made = self._cuts.get(wanted)
        if made is not None:
            return made
        tails: list[bytes] = []
        for seq in seqs:
            tail = self.tail(seq)
            if tail is None:
                break
            space -= len(head) + len(tail)
            if space < 0 and tails:
                break
            tails.append(tail)
        if not tails:
            return None
        if len(self._cuts) == CUTS_MAX:
            self._cuts.clear()
        made = self._cuts[wanted] = head + head.join(tails), len(tails)
        return made

    def entries(self, first: int, count: int) -> list[Entry]:
        """Return up to ``count`` entries from ``first`` on, oldest first; those that are gone are left out."""
        in_memory = self.head - len(self._entries) + 1
        found: list[Entry] = []
        if first < in_memory:  # a journal without the first ones goes on into what is in memory
            fetched = self._fetch(first, min(count, in_memory - first))
            found += [entry for entry in fetched if entry.seq < in_memory]
        at = max(first, in_memory)
        while at <= self.head and len(found) < count:
            found.append(self._entries[at - in_memory])
            at += 1
        return found

    def _drop(self) -> None:
        self.size -= len(self._entries.popleft().body) + _ENTRY_OVERHEAD
        self._tails.popleft()

    def _older(self, seq: int) -> bytes | None:
        tail = self._page.get(seq)
        if tail is not None:
            return tail
        in_memory = self.head - len(self._entries) + 1
        entries = self._fetch(seq, min(PAGE, in_memory - seq))
        self._page = {entry.seq: encode_tail(entry) for entry in entries}
        if seq not in self._page:
            self.oldest = max(self.oldest, min(self._page, default=in_memory))
        return self._page.get(seq)


def encode_tail(entry: Entry, *, flags: int = 0) -> bytes:
    """Return what follows the room's handle in the MESSAGE of an entry."""
    flags |= PLAINTEXT_FLAG if entry.plaintext and entry.kind is Kind.TEXT else 0
    message = Message(0, entry.seq, entry.sender, entry.message_id, entry.time_ms, entry.kind, flags, body_of(entry))
    return write_frame(message)[_HANDLE_END:]


def body_of(entry: Entry) -> bytes:
    """Return the body that modern members get: text as it came, else a JSON object that names what happened."""
    text = entry.body.decode() if entry.kind is not Kind.TEXT else ""
    match entry.kind:
        case Kind.TEXT:
            return entry.body
        case Kind.JOIN:
            said: dict[str, object] = {"member": entry.sender, "name": entry.name, "flags": int(entry.plaintext)}
        case Kind.LEAVE:
            said = {"member": entry.sender, "name": entry.name, "reason": text}
        case Kind.CLOSED:
            said = {"reason": text}
        case Kind.POLICY:
            said = {"access": text}
        case _:
            assert_never(entry.kind)
    return json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode()
