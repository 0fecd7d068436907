"""The replay window: which packet numbers may still be opened (RFC 4303 section 3.4.3 in shape)."""

from __future__ import annotations

from typing import Final

WINDOW: Final = 1024
"""Packet numbers up to the largest opened one that are remembered."""


class ReplayWindow:
    """Remembers the packet numbers that were opened, the last ``WINDOW`` one by one and all below as one.

    Look before opening, mark after: a forged number must not move the window.
    """

    def __init__(self) -> None:
        """Start with no number opened."""
        self.largest = -1
        """The largest number opened; -1 before the first."""
        self._opened = 0  # bit i: largest - i

    def admits(self, number: int) -> bool:
        """Whether a packet of this number is new, as far as is remembered."""
        place = self.largest - number
        return place < 0 or (place < WINDOW and not self._opened >> place & 1)

    def mark(self, number: int) -> None:
        """Note that a packet of this number was opened; ``admits`` has been asked."""
        place = self.largest - number
        if place < 0:
            # shifted by more than the window nothing is left: do not make a number of that many bits
            self._opened = (self._opened << -place | 1) & _MASK if -place < WINDOW else 1
            self.largest = number
        else:
            self._opened |= 1 << place


_MASK: Final = (1 << WINDOW) - 1
