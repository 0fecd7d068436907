"""What a receiver owes its peer: which packets came, and when to say so (RFC 9000 section 13.2 in shape)."""

from __future__ import annotations

from typing import Final

from ocm.protocol.session.recovery import ACK_DELAY_MAX_S
from ocm.protocol.wire.frames import ACK_BITMAP_MAX, Ack, ack_of

ELICITING_MAX: Final = 2
"""Packets that want an acknowledgement, before one is sent at once."""
_DELAY_UNIT_S: Final = 0.0001
_DELAY_MAX: Final = 2**16 - 1
_KEPT: Final = 8 * ACK_BITMAP_MAX
"""Packet numbers below the largest that an ACK has room for."""


class Acknowledger:
    """Gathers the packets that came. An ACK names the newest 129, so what one lost ACK said the next says again."""

    def __init__(self) -> None:
        """Start with nothing received."""
        self._received: set[int] = set()
        self._largest = -1
        self._largest_s = 0.0
        self._owed = 0
        self._due_s: float | None = None

    def receive(self, number: int, *, eliciting: bool, now_s: float) -> None:
        """Note a packet that was opened and taken whole; ``eliciting``: it holds more than ACK, PADDING and CLOSE."""
        in_order = number == self._largest + 1
        self._received.add(number)
        if number > self._largest:
            self._largest, self._largest_s = number, now_s
            if len(self._received) > 2 * _KEPT:
                self._received = {one for one in self._received if one >= number - _KEPT}
        if not eliciting:
            return
        self._owed += 1
        if self._owed >= ELICITING_MAX or not in_order:
            self._due_s = now_s
        else:
            self._due_s = now_s + ACK_DELAY_MAX_S

    def next_timeout_s(self) -> float | None:
        """When an ACK is due by itself; None: none is owed."""
        return self._due_s

    def ack(self, *, now_s: float) -> Ack | None:
        """Return the ACK to send along with whatever is sent now, if one is owed; it is settled with that."""
        if not self._owed:
            return None
        self._owed, self._due_s = 0, None
        newest = sorted((number for number in self._received if number >= self._largest - _KEPT), reverse=True)
        return ack_of(newest, delay=min(int((now_s - self._largest_s) / _DELAY_UNIT_S), _DELAY_MAX))


def delay_s(ack: Ack) -> float:
    """Return how long the peer held an acknowledgement back, in seconds."""
    return ack.delay * _DELAY_UNIT_S
