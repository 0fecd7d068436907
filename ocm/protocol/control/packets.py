"""What both sides of a control conversation share: the three forms, and packets out of a stream."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from ocm.errors import LimitExceeded, RemoteProtocolError
from ocm.protocol.wire.classic import HEADER_SIZE, ControlPacket, Header, Operation

ACCEPTED: Final = 200
"""The status that means yes; any other means no."""
CLASSIC_OPERATIONS: Final = frozenset({Operation.CREATE, Operation.JOIN})
"""What every classic program knows."""


class Form(Enum):
    """How a classic program words its requests and replies."""

    OCM = "ocm"
    PLAIN = "plain"
    REFERENCE = "reference"


class PacketReader:
    """Cuts a stream of control packets, however it arrives, and refuses on the promise of a header.

    A header that promises more than ``payload_size_max`` raises at once: waiting for the body is what the
    attacker wants. So at most one packet and one read of the network are ever held.
    """

    def __init__(self, payload_size_max: int) -> None:
        """Start empty."""
        self._payload_size_max = payload_size_max
        self._buffer = bytearray()

    @property
    def waiting(self) -> int:
        """Bytes that are not yet a packet."""
        return len(self._buffer)

    @property
    def has_header(self) -> bool:
        """Whether the header of the next packet is complete."""
        return len(self._buffer) >= HEADER_SIZE

    def feed(self, data: bytes) -> None:
        """Take bytes from the stream."""
        self._buffer += data

    def next_packet(self) -> ControlPacket | None:
        """Return the next whole packet, or None. Raises ``LimitExceeded``; the stream cannot go on after it."""
        if not self.has_header:
            return None
        header = Header.decode(bytes(self._buffer[:HEADER_SIZE]))
        if header.payload_size > self._payload_size_max:
            raise LimitExceeded("payload_size", asked=header.payload_size, limit=self._payload_size_max)
        body = HEADER_SIZE + header.room_size
        end = body + header.payload_size
        if len(self._buffer) < end:
            return None
        room, payload = bytes(self._buffer[HEADER_SIZE:body]), bytes(self._buffer[body:end])
        del self._buffer[:end]
        return ControlPacket(header.operation, header.stage, room, payload, header.spelling)


@dataclass(frozen=True, slots=True)
class Violation:
    """The conversation is over: the peer broke framing, stage or time. Close; nothing is answered."""

    error: RemoteProtocolError
