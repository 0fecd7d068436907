"""The control records of TCRP/2: what travels inside TLS, in the 32-byte header of the classic profile.

A record is ``header | payload``, with a room size of 0. The payload of FRAMES is frames (``wire.frames``), that of
every other operation one JSON object with a schema from here. Binary values are lowercase hex; unknown keys are
ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Annotated, Any, Final, TypeAlias

import msgspec

from ocm.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from ocm.protocol.wire.classic import HEADER_SIZE, Header, Stage
from ocm.protocol.wire.frames import BODY_SIZE_MAX
from ocm.protocol.wire.payload import read_object
from ocm.protocol.wire.size import Spelling

VERSION: Final = 2
"""Of the protocol, as HELLO names it."""
SUITE: Final = 1
"""AES-256-GCM with SHA-256."""
ALPN: Final = "tcrp/2"
"""What TLS calls the protocol (RFC 7301)."""
PAYLOAD_SIZE_MAX: Final = 64 * 1024
"""Bytes of a payload once the client is known."""
EARLY_PAYLOAD_SIZE_MAX: Final = 4 * 1024
"""Bytes of a payload before that."""
FRAMES_RECORD_SIZE_MAX: Final = 16 * 1024
"""Bytes of frames in one record, unless they are one frame."""


class Op(IntEnum):
    """The header's operation byte."""

    CREATE = 0x01
    JOIN = 0x02
    HELLO = 0x10
    AUTH = 0x11
    FRAMES = 0x12
    CLOSE = 0x13
    AUTH_STORED = 0x14
    HISTORY = 0x15
    LEAVE = 0x20
    MEMBERS = 0x21
    KICK = 0x22
    END = 0x23
    RAISE = 0x24


class CloseCode(IntEnum):
    """Why a session ends: in CLOSE records and frames."""

    BYE = 0
    GOING_AWAY = 1
    """Dial again."""
    REPLACED = 2
    """The same client has another session: do not dial again."""
    KICKED = 3
    PROTOCOL = 4
    FLOOD = 5
    IDLE = 6
    """Dial again."""

    @classmethod
    def of(cls, code: int) -> CloseCode:
        """Return the code of this number; one that we do not know is a BYE."""
        return cls(code) if code in cls._value2member_map_ else cls.BYE


Hex8: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]
"""8 bytes."""
Hex16: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
"""16 bytes."""
Hex32: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
"""32 bytes."""
UInt32: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
UInt53: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
MessageId: TypeAlias = Annotated[int, msgspec.Meta(ge=1, lt=2**53)]
ShortText: TypeAlias = Annotated[str, msgspec.Meta(max_length=1024)]
Ids: TypeAlias = Annotated[list[int], msgspec.Meta(max_length=16)]


class Payload(msgspec.Struct, frozen=True, kw_only=True):
    """May hold a secret, so it shows nothing of itself."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"


class Hello(Payload, frozen=True, kw_only=True):
    """HELLO.0, of the client: what it speaks, and its half of the keys."""

    versions: Ids
    """Versions of the protocol that the client speaks."""
    suites: Ids
    """Cipher suites that it knows."""
    secret: Hex32
    """32 random bytes: the client's half of the keys."""
    connection: Hex8
    """The connection id that the client wants to find in datagrams to it."""


class Greeting(Payload, frozen=True, kw_only=True):
    """HELLO.1, of the server: what it chose, its half of the keys, and what it grants."""

    version: int
    """The one that is spoken, of those offered."""
    suite: int
    """The one that is used, of those offered."""
    secret: Hex32
    """32 random bytes: the server's half of the keys."""
    durability: ShortText
    """What a message in a durable room survives: ``memory`` nothing, ``disk`` a kill or a loss of power."""
    burst: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    """Messages that a member may publish at once."""
    rate: Annotated[float, msgspec.Meta(gt=0, le=1_000_000)]
    """Messages per second that it may publish for long."""
    body_max: Annotated[int, msgspec.Meta(ge=1, le=BODY_SIZE_MAX)]
    """Bytes of the largest body."""


class Authenticate(Payload, frozen=True, kw_only=True):
    """AUTH.0: who is there. Without a client id somebody new."""

    client: Hex16 | None = None
    """The client id that the server once gave."""
    secret: Hex32 | None = None
    """The resume secret that came with the id."""


class Authenticated(Payload, frozen=True, kw_only=True):
    """AUTH.2: you are known."""

    client: Hex16
    """Who the client is from now on."""
    resumed: bool
    """Whether this is the client id that was asked for."""
    secret: Hex32
    """The next resume secret. Say AUTH_STORED when it is stored; until then the one before is good, too."""
    connection: Hex8
    """The connection id that the server wants to find in datagrams to it."""
    udp_port: Annotated[int, msgspec.Meta(ge=0, lt=65536)]
    """Where datagrams go. 0: nowhere; everything travels over TLS."""


class Stored(Payload, frozen=True, kw_only=True):
    """AUTH_STORED.0: the resume secret is where it outlives us."""


class Create(Payload, frozen=True, kw_only=True):
    """CREATE.0. Asking again for what one has made is answered as the first time."""

    id: UInt32
    """Told again in the answer; every request has one, and several may wait for answers."""
    room: str
    """Its name."""
    user: str
    """The name to be known by in the room."""
    access: str = "modern"
    """Who may enter."""
    lifetime: str = "close"
    """What becomes of the room without its host."""
    durable: bool = True
    """Whether its log is to outlive the server's process, where the server can do that."""
    lowest: MessageId = 1
    """The lowest message id still to come: those below never will."""
    password: str | None = None
    """For the program that runs the server."""


class Join(Payload, frozen=True, kw_only=True):
    """JOIN.0. Who is a member still takes its place again."""

    id: UInt32
    """Told again in the answer."""
    room: str
    """Its name."""
    user: str
    """The name to be known by in the room."""
    log: Hex16 | None = None
    """The log that was read before, if one was."""
    last: UInt53 = 0
    """The entry of that log up to which all was read."""
    lowest: MessageId = 1
    """The lowest message id still to come: those below never will."""
    password: str | None = None
    """For the program that runs the server."""


class Denied(Payload, frozen=True, kw_only=True):
    """Stage 1 of every request: no."""

    id: UInt32 = 0
    """That of the request."""
    code: int
    """Why: a status code."""
    message: ShortText = ""
    """The same in English, for people."""
    wait_ms: UInt53 = 0
    """Above 0: when to ask again."""


class MemberRow(msgspec.Struct, frozen=True, array_like=True):
    """One member of a room: a list of these three."""

    id: UInt32
    """Member id."""
    name: str
    """The member's name."""
    flags: int = 0
    """Bit 0: speaks the classic profile, unencrypted; bit 1: has no connection just now."""


PLAINTEXT_FLAG: Final = 1
DETACHED_FLAG: Final = 2


class Seated(Payload, frozen=True, kw_only=True):
    """CREATE.2 and JOIN.2: you are a member."""

    id: UInt32
    """That of the request."""
    member: UInt32
    """Our member id."""
    handle: UInt32
    """What frames of this session call the room."""
    log: Hex16
    """The incarnation: names this log of the room. Another room of that name has another one."""
    head: UInt53
    """The last entry of the log."""
    oldest: UInt53
    """The oldest entry that can still be had."""
    start: UInt53
    """The entry behind which the server goes on."""
    mark: UInt53
    """The highest message id of ours that was taken, or refused for good."""
    resumed: bool
    """Whether we were a member all the time, so that what we sent is remembered."""
    access: str
    """Who may enter."""
    lifetime: str
    """What becomes of the room without its host."""
    durable: bool
    """Whether its log was asked to outlive the server's process."""
    host: UInt32
    """Member id of the host; 0: nobody."""
    members: list[MemberRow]
    """In the order of joining: a first page. Ask MEMBERS for the rest."""
    more: bool = False
    """Whether there are others."""


class History(Payload, frozen=True, kw_only=True):
    """HISTORY.0: entries of the log to read back, as MESSAGE frames with the history flag. Moves no cursor."""

    id: UInt32
    """Told again in the answer."""
    handle: UInt32
    """The room."""
    first: UInt53
    """The first entry."""
    count: Annotated[int, msgspec.Meta(ge=1, le=256)]
    """How many entries."""


class Pages(Payload, frozen=True, kw_only=True):
    """HISTORY.2: these went out before this."""

    id: UInt32
    """That of the request."""
    handle: UInt32
    """The room."""
    count: int
    """How many entries went out."""
    oldest: UInt53
    """The oldest entry that can still be had."""
    head: UInt53
    """The last entry of the log."""


class RoomRequest(Payload, frozen=True, kw_only=True):
    """LEAVE.0 and END.0 (close the room; the host's right)."""

    id: UInt32
    """Told again in the answer."""
    handle: UInt32
    """The room."""


class Members(Payload, frozen=True, kw_only=True):
    """MEMBERS.0: who is in the room, behind the member ``after``."""

    id: UInt32
    """Told again in the answer."""
    handle: UInt32
    """The room."""
    after: UInt32 = 0
    """A member id; 0: from the first."""


class MemberPage(Payload, frozen=True, kw_only=True):
    """MEMBERS.2."""

    id: UInt32
    """That of the request."""
    members: list[MemberRow]
    """In the order of joining."""
    more: bool = False
    """Whether there are others behind these."""


class Kick(Payload, frozen=True, kw_only=True):
    """KICK.0: remove a member; the host's right."""

    id: UInt32
    """Told again in the answer."""
    handle: UInt32
    """The room."""
    member: UInt32
    """Member id of who is to go."""


class Raise(Payload, frozen=True, kw_only=True):
    """RAISE.0: make the room ``modern``; the host's right. There is no way back."""

    id: UInt32
    """Told again in the answer."""
    handle: UInt32
    """The room."""
    access: str
    """``modern``."""


class Done(Payload, frozen=True, kw_only=True):
    """Stage 2 of LEAVE, END, KICK and RAISE: so it is, and everybody was told."""

    id: UInt32
    """That of the request."""


class Closing(Payload, frozen=True, kw_only=True):
    """CLOSE.0, of either side: the session ends."""

    code: int
    """Why: a close code."""
    reason: ShortText = ""
    """The same in English, for people."""


SCHEMAS: Final[dict[tuple[Op, Stage], type[Payload]]] = {
    (Op.HELLO, Stage.REQUEST): Hello,
    (Op.HELLO, Stage.STATUS): Greeting,
    (Op.AUTH, Stage.REQUEST): Authenticate,
    (Op.AUTH, Stage.STATUS): Denied,
    (Op.AUTH, Stage.COMPLETE): Authenticated,
    (Op.AUTH_STORED, Stage.REQUEST): Stored,
    (Op.CREATE, Stage.REQUEST): Create,
    (Op.CREATE, Stage.STATUS): Denied,
    (Op.CREATE, Stage.COMPLETE): Seated,
    (Op.JOIN, Stage.REQUEST): Join,
    (Op.JOIN, Stage.STATUS): Denied,
    (Op.JOIN, Stage.COMPLETE): Seated,
    (Op.HISTORY, Stage.REQUEST): History,
    (Op.HISTORY, Stage.STATUS): Denied,
    (Op.HISTORY, Stage.COMPLETE): Pages,
    (Op.LEAVE, Stage.REQUEST): RoomRequest,
    (Op.LEAVE, Stage.STATUS): Denied,
    (Op.LEAVE, Stage.COMPLETE): Done,
    (Op.MEMBERS, Stage.REQUEST): Members,
    (Op.MEMBERS, Stage.STATUS): Denied,
    (Op.MEMBERS, Stage.COMPLETE): MemberPage,
    (Op.KICK, Stage.REQUEST): Kick,
    (Op.KICK, Stage.STATUS): Denied,
    (Op.KICK, Stage.COMPLETE): Done,
    (Op.END, Stage.REQUEST): RoomRequest,
    (Op.END, Stage.STATUS): Denied,
    (Op.END, Stage.COMPLETE): Done,
    (Op.RAISE, Stage.REQUEST): Raise,
    (Op.RAISE, Stage.STATUS): Denied,
    (Op.RAISE, Stage.COMPLETE): Done,
    (Op.CLOSE, Stage.REQUEST): Closing,
}
"""What each operation says at each stage; FRAMES alone is not here."""


@dataclass(frozen=True, slots=True)
class ControlRecord:
    """One record of the stream; what the payload says is read by ``read``."""

    operation: int
    stage: int
    payload: bytes = field(repr=False)
    whole: bytes = field(repr=False)
    """Header and payload as they came: the key schedule covers HELLO's."""

    @property
    def is_of_later_version(self) -> bool:
        """Whether its operation is none of this version."""
        return self.operation not in Op._value2member_map_

    def read(self) -> Payload | None:
        """Return what it says; None for an operation or stage that is not known.

        Raises ``RemoteProtocolError`` when the payload is not what it should be.
        """
        try:
            schema = SCHEMAS.get((Op(self.operation), Stage(self.stage)))
        except ValueError:
            return None
        return None if schema is None else read_object(self.payload, schema)

    def request_id(self) -> int:
        """Return the id of a request that is not known, to refuse it by. Raises ``RemoteProtocolError``."""
        return read_object(self.payload, _AnyRequest).id


class _AnyRequest(msgspec.Struct, frozen=True):
    id: UInt32 = 0


class RecordReader:
    """Cuts a stream into records, however it arrives; refuses on the promise of a header.

    So at most one record and one read of the network are held.
    """

    def __init__(self) -> None:
        """Start with what somebody unknown may send."""
        self.payload_size_max = EARLY_PAYLOAD_SIZE_MAX
        """Bytes of the largest payload that is taken."""
        self._buffer = bytearray()
        self._header: Header | None = None
        """Of the record that is not whole yet."""

    def feed(self, data: bytes) -> None:
        """Take bytes from the stream."""
        self._buffer += data

    def next(self) -> ControlRecord | None:
        """Return the next whole record, or None.

        Raises ``RemoteProtocolError``; the stream cannot go on after it.
        """
        header = self._header = self._header or self._next_header()
        if header is None or len(self._buffer) < (end := HEADER_SIZE + header.payload_size):
            return None
        whole = bytes(self._buffer[:end])
        del self._buffer[:end]
        self._header = None
        return ControlRecord(header.operation, header.stage, whole[HEADER_SIZE:], whole)

    def _next_header(self) -> Header | None:
        if len(self._buffer) < HEADER_SIZE:
            return None
        header = Header.decode(bytes(self._buffer[:HEADER_SIZE]))
        if header.room_size or header.spelling is not Spelling.BIG_ENDIAN:
            raise RemoteProtocolError("a record of TCRP/2 has no room in its header, and its size in big-endian")
        if header.payload_size > self.payload_size_max:
            raise LimitExceeded("payload_size", asked=header.payload_size, limit=self.payload_size_max)
        return header


def write_record(operation: int, stage: Stage, payload: Payload) -> bytes:
    """Return a record.

    Raises ``LocalProtocolError`` for a payload over ``PAYLOAD_SIZE_MAX``, or with lone surrogates.
    """
    try:
        return _frame(operation, stage, _encode(payload))
    except UnicodeEncodeError:
        raise LocalProtocolError("a text with lone surrogates") from None  # its own error would quote the text


def write_frames_record(frames: bytes) -> bytes:
    """Return a FRAMES record. Raises as ``write_record``."""
    return _frame(Op.FRAMES, Stage.REQUEST, frames)


def _frame(operation: int, stage: Stage, payload: bytes) -> bytes:
    if len(payload) > PAYLOAD_SIZE_MAX:
        raise LocalProtocolError("a record has at most 64 KiB of payload")
    return Header(0, operation, stage, len(payload)).encode() + payload


_encode: Final[Callable[[Any], bytes]] = msgspec.json.Encoder().encode
