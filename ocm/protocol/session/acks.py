"""What a receiver owes its peer: which packets came, and when to say so (RFC 9000 section 13.2 in shape)."""

from __future__ import annotations

from typing import Final

from ocm.protocol.wire.frames import ACK_BITMAP_MAX, Ack, ack_of

ELICITING_MAX: Final = 2
"""Packets that want an acknowledgement, before one is sent at once."""
CALM_AFTER: Final = 16
"""Packets that came in order, one after the other, after which the path is calm."""
CALM_ELICITING_MAX: Final = 8
"""The same as ``ELICITING_MAX`` while the path is calm: an ACK costs its reader as much as a packet of messages."""
HOLD_S: Final = 0.015
"""How long an acknowledgement is held back otherwise: the sender counts on 25 ms, but timers are late."""
_DELAY_UNIT_S: Final = 0.0001
_DELAY_MAX: Final = 2**16 - 1
_NAMED: Final = 8 * ACK_BITMAP_MAX + 1
"""Packet numbers that an ACK has room for: the largest, and those right below it."""
_MASK: Final = (1 << _NAMED) - 1


class Acknowledger:
    """Gathers the packets that came. An ACK names the newest 129, so what one lost ACK said the next says again."""

    def __init__(self) -> None:
        """Start with nothing received."""
        self._largest = -1
        self._received = 0  # bit i: largest - i
        self._largest_s = 0.0
        self._owed = 0
        self._in_order = 0
        self._due_s: float | None = None

    def receive(self, number: int, *, eliciting: bool, now_s: float) -> None:
        """Note a packet that was opened and taken whole; ``eliciting``: it holds more than ACK, PADDING and CLOSE."""
        self._in_order = self._in_order + 1 if number == self._largest + 1 else 0
        place = self._largest - number
        if place < 0:
            # shifted by more than fits nothing is left: do not make a number of that many bits
            self._received = (self._received << -place | 1) & _MASK if -place < _NAMED else 1
            self._largest, self._largest_s = number, now_s
        elif place < _NAMED:
            self._received |= 1 << place
        if not eliciting:
            return
        self._owed += 1
        owed_max = CALM_ELICITING_MAX if self._in_order >= CALM_AFTER else ELICITING_MAX
        if self._owed >= owed_max or not self._in_order:
            self._due_s = now_s
        elif self._due_s is None:
            self._due_s = now_s + HOLD_S

    def next_timeout_s(self) -> float | None:
        """When an ACK is due by itself; None: none is owed."""
        return self._due_s

    def ack(self, *, now_s: float) -> Ack | None:
        """Return the ACK to send along with whatever is sent now, if one is owed; it is settled with that."""
        if not self._owed:
            return None
        self._owed, self._due_s = 0, None
        delay = min(int((now_s - self._largest_s) / _DELAY_UNIT_S), _DELAY_MAX)
        return ack_of(self._largest, self._received >> 1, delay=delay)


def delay_s(ack: Ack) -> float:
    """Return how long the peer held an acknowledgement back, in seconds."""
    return ack.delay * _DELAY_UNIT_S
