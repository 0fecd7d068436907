"""Sealing and opening datagrams: packet numbers, epochs and the replay window of one direction of a session."""

from __future__ import annotations

from collections import deque
from typing import Final

from cryptography.exceptions import InvalidTag

from ocm.errors import LocalProtocolError
from ocm.protocol.session.keys import EPOCH_BITS, EpochKey, Randomness, epoch_of, next_secret
from ocm.protocol.session.window import ReplayWindow
from ocm.protocol.wire.sealed import (
    FRAMES_SIZE_MAX,
    PACKET_NUMBER_MAX,
    PACKET_NUMBER_SIZE,
    SealedDatagram,
    write_header,
)

SKIP_MIN: Final = 64
"""Packets sent before a number may be skipped."""
SKIP_MAX: Final = 256
"""Packets after which one was skipped: a peer that acknowledges it has not seen what it acknowledges."""
_SKIPPED_KEPT: Final = 1024
_EPOCH_SIZE: Final = 1 << EPOCH_BITS
_SKIP_DRAW_SIZE: Final = 2


class Sealer:
    """Seals what one side sends: one owner, each packet number once.

    A packet number is spent when it is sealed, whether or not the bytes are sent: where the system does not take
    them the same bytes go again, or never.
    """

    def __init__(self, secret: bytes, connection_id: bytes, *, randomness: Randomness) -> None:
        """Start at packet 0.

        Args:
            secret: the direction's first secret.
            connection_id: what the receiver chose to be called by, 8 bytes.
            randomness: decides which numbers are skipped.
        """
        self._secret = secret
        self._key = EpochKey(secret)
        self._header_start = write_header(connection_id, 0)[:-PACKET_NUMBER_SIZE]
        self._randomness = randomness
        self._epoch = 0
        self._skipped: deque[int] = deque(maxlen=_SKIPPED_KEPT)
        self._disowned = False
        self.next_number = 0
        """The number of the next packet."""
        self.end = _EPOCH_SIZE
        """The first number that cannot be sealed yet."""
        self._skip_at: int = self._draw_skip()

    @property
    def is_blocked(self) -> bool:
        """Whether nothing can be sealed just now: the next epoch begins when a packet of this one was acknowledged."""
        return self.next_number >= self.end

    def seal(self, frames: bytes) -> tuple[int, bytes]:
        """Return a packet number and the datagram that carries ``frames`` under it.

        Raises ``LocalProtocolError`` when there are no frames or too many bytes of them, or while ``is_blocked``.
        """
        if not 0 < len(frames) <= FRAMES_SIZE_MAX:
            raise LocalProtocolError(f"a datagram has 1 to {FRAMES_SIZE_MAX} bytes of frames")
        if self.is_blocked:
            raise LocalProtocolError("nothing can be sealed just now")
        number = self.next_number
        while self._epoch < epoch_of(number):
            self._epoch += 1
            self._secret = next_secret(self._secret)
            self._key = EpochKey(self._secret)
        self.next_number = number + 1
        if self.next_number == self._skip_at:
            self._skipped.append(self.next_number)
            self.next_number += 1
            self._skip_at = self._draw_skip()
        header = self._header_start + number.to_bytes(PACKET_NUMBER_SIZE, "big")
        return number, header + self._key.seal(number, frames, header)

    def acknowledge(self, number: int) -> bool:
        """Note that the peer has a packet; return whether that can be true: it was sent, and not skipped."""
        if not 0 <= number < self.next_number or self.skipped(number, number):
            return False
        if not self._disowned:
            self.end = min(max(self.end, (epoch_of(number) + 2) * _EPOCH_SIZE), PACKET_NUMBER_MAX + 1)
        return True

    def skipped(self, first: int, last: int) -> list[int]:
        """Return the numbers from ``first`` to ``last`` that were skipped, newest first."""
        found: list[int] = []
        for number in reversed(self._skipped):
            if number < first:
                break
            if number <= last:
                found.append(number)
        return found

    def disown(self) -> None:
        """Seal nothing any more: another process has the same keys (``os.register_at_fork``)."""
        self._disowned = True
        self.end = 0

    def _draw_skip(self) -> int:
        draw = int.from_bytes(self._randomness(_SKIP_DRAW_SIZE), "big")
        return self.next_number + SKIP_MIN + draw % (SKIP_MAX - SKIP_MIN + 1)


class Opener:
    """Opens what the other side seals: each packet once, whatever is thrown at it."""

    def __init__(self, secret: bytes) -> None:
        """Start at epoch 0 with the direction's first secret."""
        self._epoch = 0
        self._before: EpochKey | None = None
        self._key = EpochKey(secret)
        self._next_secret = next_secret(secret)
        self._next = EpochKey(self._next_secret)
        self.window = ReplayWindow()
        """What was opened. Its ``largest`` says which address is the newest."""

    def open(self, datagram: SealedDatagram) -> bytes | None:
        """Return the frames; None for a packet that was opened before, is too old, or is not of our peer.

        Only a packet that opens moves the window or the epoch.
        """
        number = datagram.packet_number
        if not self.window.admits(number):
            return None
        ahead = epoch_of(number) - self._epoch
        key = self._key if ahead == 0 else {-1: self._before, 1: self._next}.get(ahead)
        if key is None:
            return None
        try:
            frames = key.open(number, datagram.sealed, datagram.header)
        except InvalidTag:
            return None
        self.window.mark(number)
        if ahead == 1:
            self._epoch += 1
            self._before, self._key = self._key, self._next
            self._next_secret = next_secret(self._next_secret)
            self._next = EpochKey(self._next_secret)
        return frames
