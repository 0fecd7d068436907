"""Classic TCRP, as taught: the 32-byte control header over TCP and the chat datagram over UDP.

``HEADER``, ``CONTROL`` and ``DATAGRAM`` are the declarations; everything else here is a typed view of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from ocm.errors import LocalProtocolError, RemoteProtocolError
from ocm.protocol.limits import DATAGRAM_SIZE_MAX
from ocm.protocol.wire.derive import derive_reader, derive_writer
from ocm.protocol.wire.layout import Fixed, Layout, Rest, Sized, SizeOf, UInt
from ocm.protocol.wire.size import SIZE_FIELD, Spelling, read_size, write_size

HEADER: Final = Layout(
    "Header",
    UInt("room_size"),
    UInt("operation"),
    UInt("stage"),
    Fixed("payload_size", SIZE_FIELD),
)
DATAGRAM: Final = Layout(
    "Datagram",
    SizeOf("room_size", of="room"),
    SizeOf("token_size", of="token"),
    Sized("room", by="room_size"),
    Sized("token", by="token_size"),
    Rest("text"),
)

HEADER_SIZE: Final = 32
FIELD_SIZE_MAX: Final = 255
"""Bytes of the longest room name, token or user name: each has a size field of one byte."""

read_header: Final = derive_reader(HEADER)
write_header: Final = derive_writer(HEADER)
read_datagram: Final = derive_reader(DATAGRAM)
"""``room, token, text`` of a datagram, or None: the relay's reader. The caller checks ``DATAGRAM_SIZE_MAX``."""
write_datagram: Final = derive_writer(DATAGRAM)


class Operation(IntEnum):
    """What a control packet asks for. CREATE and JOIN are classic; the others are ocm's own, for its own form."""

    CREATE = 1
    JOIN = 2
    LEAVE = 0x20
    MEMBERS = 0x21


class Stage(IntEnum):
    """The header's state byte: how far an operation has come."""

    REQUEST = 0
    STATUS = 1
    COMPLETE = 2


@dataclass(frozen=True, slots=True)
class Header:
    """The 32 bytes in front of every control packet: ``room_size(1) | operation(1) | stage(1) | payload_size(29)``.

    Operation and stage are any byte: whether they mean something is the control machine's to say, so that a
    peer that asks for the unknown can be told so.
    """

    room_size: int
    operation: int
    stage: int
    payload_size: int
    spelling: Spelling = Spelling.BIG_ENDIAN

    @classmethod
    def decode(cls, data: bytes) -> Header:
        """Read 32 bytes. Raises ``RemoteProtocolError`` and nothing else."""
        values = read_header(data)
        if values is None:
            raise RemoteProtocolError("a header has 32 bytes")
        room_size, operation, stage, raw_size = values
        size, spelling = read_size(raw_size)
        return cls(room_size, operation, stage, size, spelling)

    def encode(self) -> bytes:
        """Return the 32 bytes. Raises ``LocalProtocolError`` when a field does not fit."""
        raw_size = write_size(self.payload_size, self.spelling)
        return write_header(self.room_size, self.operation, self.stage, raw_size)


@dataclass(frozen=True, slots=True)
class ControlPacket:
    """One control packet: header, room name, payload. The bytes are not yet known to be text."""

    operation: int
    stage: int
    room: bytes = b""
    payload: bytes = field(default=b"", repr=False)  # may hold a token
    spelling: Spelling = Spelling.BIG_ENDIAN

    def encode(self) -> bytes:
        """Return the packet, to be written in one piece. Raises ``LocalProtocolError`` when it does not fit."""
        header = Header(len(self.room), self.operation, self.stage, len(self.payload), self.spelling)
        return header.encode() + self.room + self.payload


@dataclass(frozen=True, slots=True)
class Datagram:
    """One chat message: ``room_size(1) | token_size(1) | room | token | text``, 4096 bytes at most.

    Downlink, the second field holds the sender's name or the receiver's token (``docs/protocol.md``).
    """

    room: str
    token: bytes = field(repr=False)
    text: bytes = field(repr=False)

    @classmethod
    def decode(cls, data: bytes) -> Datagram:
        """Read one datagram. Raises ``RemoteProtocolError`` and nothing else."""
        if len(data) > DATAGRAM_SIZE_MAX:
            raise RemoteProtocolError(f"datagram of {len(data)} bytes")
        values = read_datagram(data)
        if values is None:
            raise RemoteProtocolError("malformed datagram")
        room, token, text = values
        try:
            return cls(room.decode(), token, text)
        except UnicodeDecodeError:
            raise RemoteProtocolError("room name is not UTF-8") from None

    def encode(self) -> bytes:
        """Return the datagram. Raises ``LocalProtocolError`` when a field does not fit."""
        try:
            room = self.room.encode()
        except UnicodeEncodeError:
            raise LocalProtocolError("room name is not Unicode text") from None
        data = write_datagram(room, self.token, self.text)
        if len(data) > DATAGRAM_SIZE_MAX:
            raise LocalProtocolError(f"datagram of {len(data)} bytes; at most {DATAGRAM_SIZE_MAX} fit")
        return data
