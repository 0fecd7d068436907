"""The datagram of TCRP/2: a clear header of 16 bytes, sealed frames, a tag of 16.

The first two bytes make the whole parse as a classic datagram with an empty room and a token of 14 bytes, so that one
UDP port serves both profiles.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ocm.protocol.wire.derive import derive_reader, derive_writer
from ocm.protocol.wire.layout import Fixed, Layout, Rest, UInt

PACKET_NUMBER_SIZE: Final = 6
"""Bytes of a packet number, which is the last field of the header."""
SEALED: Final = Layout(
    "Sealed datagram",
    UInt("room_size"),
    UInt("token_size"),
    Fixed("connection_id", 8),
    UInt("packet_number", PACKET_NUMBER_SIZE),
    Rest("sealed"),
)
ESCAPE: Final = b"\x00\x0e"
"""Room size 0 and token size 14: what a sealed datagram begins with."""
CONNECTION_ID_SIZE: Final = 8
HEADER_SIZE: Final = 16
"""Bytes in front of the sealed frames: they are authenticated with them."""
TAG_SIZE: Final = 16
SEALED_SIZE_MAX: Final = 1200
"""Bytes of the largest sealed datagram that is sent."""
SEALED_ACCEPTED_MAX: Final = 1500
"""Bytes of the largest that is read."""
FRAMES_SIZE_MAX: Final = SEALED_SIZE_MAX - HEADER_SIZE - TAG_SIZE
PACKET_NUMBER_MAX: Final = 2**48 - 1

_read: Final = derive_reader(SEALED)
_write: Final = derive_writer(SEALED)


class SealedDatagram(NamedTuple):
    """A sealed datagram whose header is read; nothing in it is known to be true yet."""

    connection_id: bytes
    packet_number: int
    header: bytes
    """The 16 bytes as they came."""
    sealed: bytes
    """Frames and tag."""


def read_sealed(data: bytes) -> SealedDatagram | None:
    """Return the parts of a sealed datagram, or None for anything else. Never raises."""
    if len(data) > SEALED_ACCEPTED_MAX or not data.startswith(ESCAPE):
        return None
    values = _read(data)
    if values is None:
        return None
    _, _, connection_id, packet_number, sealed = values
    if len(sealed) <= TAG_SIZE:
        return None
    return SealedDatagram(connection_id, packet_number, data[:HEADER_SIZE], sealed)


def write_header(connection_id: bytes, packet_number: int) -> bytes:
    """Return the 16 bytes in front of sealed frames. Raises ``LocalProtocolError`` when a field does not fit."""
    return _write(ESCAPE[0], ESCAPE[1], connection_id, packet_number, b"")
