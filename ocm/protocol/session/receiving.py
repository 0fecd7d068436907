"""Getting a room's log to a member, each entry once and in order: both ends.

The server's ``Cursor`` says which entries go out; the client's ``Receiver`` puts what comes into order. Neither knows
packets: what a lost packet carried is told to the cursor, which sends it again while it is still wanted.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import Final, TypeAlias

from ocm.errors import RemoteProtocolError
from ocm.protocol.wire.frames import Gap, Message, Received

ENTRIES_MAX: Final = 256
"""Entries that may be under way to a member, and that a client keeps to put them into order or until they are read."""
BYTES_MAX: Final = 256 * 1024
"""Bytes of bodies that may be under way to a member."""
TELL_AFTER: Final = 64
"""Entries taken before the server is told at once."""
TELL_AFTER_S: Final = 0.1
"""How long it may otherwise not be told."""
SEQ_MAX: Final = 2**53 - 1
"""No log grows so long; places in it stay exact in JSON."""
READY_MAX: Final = 4 * ENTRIES_MAX
"""Entries and gaps that may wait to be read: no honest server gets there, for what is unread stops its credit."""
_CREDIT_MAX: Final = 2**16 - 1
"""What a RECEIVED has room for: more is wanted only where a server begins far before what was read."""
RETENTION: Final = 1
"""The reason of a gap: these entries are no longer kept."""

Delivered: TypeAlias = Message | Gap
"""What a member sees of the log: an entry, or that some are missing."""


class Receiver:
    """A client's end: takes entries in any order and any number of times, gives each once and in order.

    What comes twice or sooner than it was wanted is dropped.
    """

    def __init__(self, room: int, *, last: int = 0) -> None:
        """Start behind entry ``last`` of the room with this handle."""
        self._room = room
        self._early: dict[int, Message] = {}
        self._gaps: list[Gap] = []
        self._ready: deque[Delivered] = deque()
        self._up_to = last
        self._read_up_to = last
        self._brought_up_to = last
        self._told = Received(room, last, ENTRIES_MAX)
        self._due_s: float | None = None

    @property
    def up_to(self) -> int:
        """The entry up to which all came, or are known to be missing."""
        return self._up_to

    @property
    def is_readable(self) -> bool:
        """Whether ``read`` has something to return."""
        return bool(self._ready)

    @property
    def read_up_to(self) -> int:
        """The entry up to which all was read: a server that goes on behind it sends nothing that cannot be kept."""
        return self._read_up_to

    def attach(self, room: int, *, start: int, now_s: float) -> None:
        """Go on in another session, which knows the room by handle ``room``: it is told at once where we are.

        It goes on behind entry ``start``. What we have of that comes again, and is not said to have come before it
        does: the server takes nothing for come that it has not sent.
        """
        self._room = room
        self._brought_up_to = start
        self.tell_again(now_s=now_s)

    def tell_again(self, *, now_s: float) -> None:
        """Hear that what the server was told may be lost: it is told at once where we are."""
        self._told = self._now()
        self._due_s = now_s

    def receive(self, message: Message, *, now_s: float) -> bool:
        """Take an entry; return False when it could not be kept, since it is more than the server may send.

        Raises ``RemoteProtocolError`` for a place that no log has.
        """
        if message.seq > SEQ_MAX:
            raise RemoteProtocolError("an entry behind the end of every log")
        if message.seq > self._up_to:
            if message.seq > self._read_up_to + ENTRIES_MAX:
                return False
            self._early.setdefault(message.seq, message)
        self._brought_up_to = max(self._brought_up_to, message.seq)
        self._move_on(now_s)
        return True

    def miss(self, gap: Gap, *, now_s: float) -> None:
        """Hear that entries will not come. Those of them that did come are given all the same.

        Raises ``RemoteProtocolError`` for more gaps than any log has, or one behind the end of every log.
        """
        if gap.last > SEQ_MAX:
            raise RemoteProtocolError("a gap behind the end of every log")
        if gap.last > self._up_to and gap not in self._gaps:
            if len(self._gaps) >= ENTRIES_MAX or len(self._ready) >= READY_MAX:
                raise RemoteProtocolError("too many gaps")
            self._gaps.append(gap)
        self._brought_up_to = max(self._brought_up_to, gap.last)
        self._move_on(now_s)

    def read(self, *, now_s: float) -> Delivered | None:
        """Return the next entry for the user, or None while there is none."""
        if not self._ready:
            return None
        delivered = self._ready.popleft()
        self._read_up_to = delivered.last if isinstance(delivered, Gap) else delivered.seq
        self._schedule(now_s)
        return delivered

    def next_timeout_s(self) -> float | None:
        """When the server is to be told; None: it knows."""
        return self._due_s

    def received(self) -> Received | None:
        """Return what to tell the server now, if it does not know; it counts as told."""
        if self._due_s is None:
            return None
        self._due_s = None
        self._told = self._now()
        return self._told

    def lose(self, received: Received, *, now_s: float) -> None:
        """Hear that what the server was told was lost: the latest goes again, nothing older."""
        if received == self._told:
            self._due_s = now_s

    def _move_on(self, now_s: float) -> None:
        while True:
            following = self._up_to + 1
            if (message := self._early.pop(following, None)) is not None:
                self._ready.append(message)
                self._up_to = following
                continue
            gap = next((gap for gap in self._gaps if gap.first <= following <= gap.last), None)
            if gap is None:
                break
            self._up_to = min([gap.last, *(seq - 1 for seq in self._early)])
            self._append_gap(Gap(self._room, following, self._up_to, gap.reason))
        self._gaps = [gap for gap in self._gaps if gap.last > self._up_to]
        self._schedule(now_s)

    def _append_gap(self, gap: Gap) -> None:
        """Let a gap wait to be read, as one with that before it where they are alike: a flood of them takes no room."""
        before = self._ready[-1] if self._ready else None
        if isinstance(before, Gap) and before.reason == gap.reason:
            self._ready[-1] = before._replace(last=gap.last)
        else:
            self._ready.append(gap)

    def _schedule(self, now_s: float) -> None:
        now = self._now()
        if now == self._told:
            return
        moved = now.up_to + now.credit - self._told.up_to - self._told.credit
        if max(now.up_to - self._told.up_to, moved) >= TELL_AFTER:
            self._due_s = now_s
        elif self._due_s is None:
            self._due_s = now_s + TELL_AFTER_S

    def _now(self) -> Received:
        """The edge, ``up_to + credit``, never falls: it lies ``ENTRIES_MAX`` behind what was read."""
        up_to = min(self._up_to, self._brought_up_to)
        credit = self._read_up_to + ENTRIES_MAX - up_to
        return Received(self._room, up_to, min(max(0, credit), _CREDIT_MAX))


class Cursor:
    """The server's end for one member: which entries of the log go out next."""

    def __init__(self, room: int, *, last: int, head: int, oldest: int = 1) -> None:
        """Start behind entry ``last``, with a log of entries ``oldest`` to ``head``."""
        self._room = room
        self._next = last + 1
        self._sent_up_to = last
        self._up_to = last
        self._edge = last + ENTRIES_MAX
        self._head = head
        self._oldest = oldest
        self._lost: list[int] = []
        self._runs: deque[tuple[int, int]] = deque()  # the last entry of what went out together, and its bytes
        self._bytes = 0

    @property
    def is_behind(self) -> bool:
        """Whether something waits to be sent, now or when there is credit."""
        return self._next <= self._head or bool(self._lost)

    def grow(self, head: int) -> None:
        """Hear that the log ends with entry ``head`` now."""
        self._head = max(self._head, head)

    def forget(self, oldest: int) -> None:
        """Hear that the log begins with entry ``oldest`` now."""
        self._oldest = max(self._oldest, oldest)

    def next(self) -> range | Gap | None:
        """Return the entries that may be sent, or the gap to tell of; None: nothing goes just now.

        Call ``sent`` with what of it goes out.
        """
        while self._lost and self._lost[0] <= self._up_to:
            heapq.heappop(self._lost)
        first = self._lost[0] if self._lost else self._next
        if first < self._oldest and first <= self._head:
            return Gap(self._room, first, min(self._oldest - 1, self._head), RETENTION)
        if self._lost:
            return range(first, first + 1)
        # more credit than ENTRIES_MAX is not used
        last = min(self._head, self._edge, self._up_to + ENTRIES_MAX)
        if first > last or self._bytes >= BYTES_MAX:
            return None
        return range(first, last + 1)

    def sent(self, what: range | Gap, size: int) -> None:
        """Note that the first of what ``next`` returned went out, or the gap; ``size`` bytes."""
        last = what.last if isinstance(what, Gap) else what[-1]
        while self._lost and self._lost[0] <= last:
            heapq.heappop(self._lost)
        if isinstance(what, Gap):
            self._shed(last)
        elif last >= self._next:
            self._runs.append((last, size))
            self._bytes += size
        if last >= self._next:  # no max(): a call costs as much as all the rest, and this is once for each delivery
            self._next = last + 1
        self._sent_up_to = max(self._sent_up_to, last)

    def lose(self, seq: int) -> None:
        """Hear that the packet with an entry was lost: it goes again, unless it came, or goes anyway."""
        if self._up_to < seq < self._next and seq not in self._lost:
            heapq.heappush(self._lost, seq)

    def rewind(self) -> None:
        """Hear that whatever the member has not said it has may be lost: all of it goes again."""
        self._next = self._up_to + 1
        self._lost.clear()
        self._runs.clear()
        self._bytes = 0

    @property
    def up_to(self) -> int:
        """The entry up to which the member has all, or was told that they are missing."""
        return self._up_to

    def receive(self, received: Received) -> None:
        """Take what the member says it has.

        Raises ``RemoteProtocolError`` when it claims entries that were never sent.
        """
        if received.up_to > self._sent_up_to:
            raise RemoteProtocolError("entries are acknowledged that were never sent")
        self._up_to = max(self._up_to, received.up_to)
        self._next = max(self._next, self._up_to + 1)
        self._edge = max(self._edge, received.up_to + received.credit)
        self._shed(self._up_to)

    def _shed(self, last: int) -> None:
        """Count no bytes any more of what went out up to entry ``last``."""
        runs = self._runs
        while runs and runs[0][0] <= last:
            self._bytes -= runs.popleft()[1]
