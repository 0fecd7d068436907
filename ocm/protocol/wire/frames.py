"""The frames of TCRP/2: what travels sealed in datagrams, and in FRAMES records over TLS.

Each frame is a type byte and a declared layout, big-endian and of fixed width where it can be. The layouts are the
truth; the readers and writers of the data path are derived from them, as the classic ones are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias

from ocm.errors import LocalProtocolError, RemoteProtocolError
from ocm.protocol.wire.derive import Scanner, derive_scanner, derive_writer
from ocm.protocol.wire.layout import Fixed, Layout, Sized, SizeOf, UInt

FRAMES_MAX: Final = 64
"""Frames of one datagram."""
BODY_SIZE_MAX: Final = 60 * 1024
"""Bytes of one message's body, on every path."""
MESSAGE_ID_MAX: Final = 2**53 - 1
"""Message ids stay exact in JSON."""
ACK_BITMAP_MAX: Final = 16
"""Bytes of an ACK's bitmap."""


class Padding(NamedTuple):
    """Zeros to the end of the datagram; ``size`` counts its type byte too."""

    size: int


class Ping(NamedTuple):
    """Asks for a sign of life: over UDP its acknowledgement, over TLS a PONG."""


class Ack(NamedTuple):
    """Packet numbers that came: ``largest``, and for each bit i of ``bitmap`` (least first) ``largest - 1 - i``."""

    largest: int
    delay: int
    """Between the arrival of ``largest`` and this, in 0.1 ms."""
    bitmap: bytes = b""


class Publish(NamedTuple):
    """A member says something."""

    room: int
    """The room's handle in this session."""
    message_id: int
    kind: int
    body: bytes


class Published(NamedTuple):
    """The answer to a PUBLISH."""

    room: int
    message_id: int
    status: int
    """0 accepted; below 16 to be tried again after ``time_ms``; from 16 on refused for good."""
    seq: int
    time_ms: int


class Message(NamedTuple):
    """An entry of a room's log."""

    room: int
    seq: int
    sender: int
    message_id: int
    time_ms: int
    kind: int
    flags: int
    """Bit 0: history; bit 1: came in plaintext."""
    body: bytes


class Received(NamedTuple):
    """Everything up to ``up_to`` was delivered; ``credit`` more are wanted."""

    room: int
    up_to: int
    credit: int


class Gap(NamedTuple):
    """Entries that will not come: 1 retention, 2 purged, 3 not yours to see."""

    room: int
    first: int
    last: int
    reason: int


class Head(NamedTuple):
    """Where a room's log ends and begins: shows a lost tail."""

    room: int
    head: int
    oldest: int


class Challenge(NamedTuple):
    """Proves an address (RFC 9000 section 8.2)."""

    data: bytes


class Response(NamedTuple):
    """The answer to a CHALLENGE, from the address it went to."""

    data: bytes


class Close(NamedTuple):
    """The session ends."""

    code: int
    reason: bytes


class Signal(NamedTuple):
    """The fast lane: never resent; of one sender and key the newest wins."""

    room: int
    sender: int
    key: int
    counter: int
    body: bytes


class Pong(NamedTuple):
    """The answer to a PING over TLS."""


Frame: TypeAlias = (
    Padding
    | Ping
    | Ack
    | Publish
    | Published
    | Message
    | Received
    | Gap
    | Head
    | Challenge
    | Response
    | Close
    | Signal
    | Pong
)


@dataclass(frozen=True, slots=True)
class FrameType:
    """One kind of frame: its type byte, the view of it, and the layout behind the type byte."""

    code: int
    view: type[Any]
    layout: Layout


PADDING: Final = 0x00
"""The type byte of padding, which has no layout: zeros follow to the end."""
FRAME_TYPES: Final = (
    FrameType(0x01, Ping, Layout("PING")),
    FrameType(
        0x02,
        Ack,
        Layout(
            "ACK",
            UInt("largest", 6),
            UInt("delay", 2),
            SizeOf("bitmap_size", of="bitmap"),
            Sized("bitmap", by="bitmap_size"),
        ),
    ),
    FrameType(
        0x03,
        Publish,
        Layout(
            "PUBLISH",
            UInt("room", 4),
            UInt("message_id", 8),
            UInt("kind"),
            SizeOf("body_size", of="body", size=2),
            Sized("body", by="body_size"),
        ),
    ),
    FrameType(
        0x04,
        Published,
        Layout(
            "PUBLISHED",
            UInt("room", 4),
            UInt("message_id", 8),
            UInt("status"),
            UInt("seq", 8),
            UInt("time_ms", 8),
        ),
    ),
    FrameType(
        0x05,
        Message,
        Layout(
            "MESSAGE",
            UInt("room", 4),
            UInt("seq", 8),
            UInt("sender", 4),
            UInt("message_id", 8),
            UInt("time_ms", 8),
            UInt("kind"),
            UInt("flags"),
            SizeOf("body_size", of="body", size=2),
            Sized("body", by="body_size"),
        ),
    ),
    FrameType(0x06, Received, Layout("RECEIVED", UInt("room", 4), UInt("up_to", 8), UInt("credit", 2))),
    FrameType(0x08, Gap, Layout("GAP", UInt("room", 4), UInt("first", 8), UInt("last", 8), UInt("reason"))),
    FrameType(0x09, Head, Layout("HEAD", UInt("room", 4), UInt("head", 8), UInt("oldest", 8))),
    FrameType(0x0A, Challenge, Layout("CHALLENGE", Fixed("data", 8))),
    FrameType(0x0B, Response, Layout("RESPONSE", Fixed("data", 8))),
    FrameType(
        0x0D,
        Close,
        Layout("CLOSE", UInt("code", 2), SizeOf("reason_size", of="reason"), Sized("reason", by="reason_size")),
    ),
    FrameType(
        0x0E,
        Signal,
        Layout(
            "SIGNAL",
            UInt("room", 4),
            UInt("sender", 4),
            UInt("key", 4),
            UInt("counter", 8),
            SizeOf("body_size", of="body", size=2),
            Sized("body", by="body_size"),
        ),
    ),
    FrameType(0x0F, Pong, Layout("PONG")),
)

_WRITERS: Final = {kind.view: (bytes([kind.code]), derive_writer(kind.layout)) for kind in FRAME_TYPES}


def read_frames(data: bytes, *, frames_max: int = FRAMES_MAX) -> list[Frame]:
    """Read the frames that ``data`` is made of, in order.

    Raises ``RemoteProtocolError`` and nothing else: an unknown type, a frame cut short, padding that is not zeros,
    more than ``frames_max`` frames, or a value out of its range. Any bytes are refused or have one spelling:
    ``write_frames(read_frames(data)) == data``.
    """
    frames: list[Frame] = []
    at, end = 0, len(data)
    while at < end:
        if len(frames) == frames_max:
            raise RemoteProtocolError(f"more than {frames_max} frames")
        code = data[at]
        if code == PADDING:
            if data.count(0, at) != end - at:
                raise RemoteProtocolError("padding that is not zeros")
            frames.append(Padding(end - at))
            break
        known = _READERS.get(code)
        if known is None:
            raise RemoteProtocolError(f"unknown frame 0x{code:02x}")
        make, scan, is_wrong = known
        values = scan(data, at + 1)
        if values is None:
            raise RemoteProtocolError(f"a frame 0x{code:02x} is cut short")
        frame: Frame = make(values[:-1])
        if is_wrong is not None and (wrong := is_wrong(frame)) is not None:
            raise RemoteProtocolError(wrong)
        frames.append(frame)
        at = values[-1]
    return frames


def write_frame(frame: Frame) -> bytes:
    """Return the bytes of one frame. Raises ``LocalProtocolError`` when a value does not fit."""
    if isinstance(frame, Padding):
        if frame.size < 1:
            raise LocalProtocolError("padding has a byte at least")
        return bytes(frame.size)
    is_wrong = _WRONGS.get(type(frame))
    if is_wrong is not None and (wrong := is_wrong(frame)) is not None:
        raise LocalProtocolError(wrong)
    code, write = _WRITERS[type(frame)]
    return code + write(*frame)


def write_frames(frames: Iterable[Frame]) -> bytes:
    """Return the bytes of several frames, in order; padding may only be the last."""
    pieces = [write_frame(frame) for frame in frames]
    if any(piece[0] == PADDING for piece in pieces[:-1]):
        raise LocalProtocolError("nothing can follow padding")
    return b"".join(pieces)


def ack_of(largest: int, earlier: int, *, delay: int) -> Ack:
    """Return the ACK of packet ``largest``, and for each bit i of ``earlier`` of ``largest - 1 - i``."""
    return Ack(largest, delay, earlier.to_bytes((earlier.bit_length() + 7) // 8, "little"))


def acked(ack: Ack, numbers: Iterable[int]) -> list[int]:
    """Return those of ``numbers`` that an ACK names, in their order; none of them is above its largest."""
    bits = int.from_bytes(ack.bitmap, "little") << 1 | 1
    return [number for number in numbers if bits >> (ack.largest - number) & 1]


# What is wrong with a frame that its layout lets through, or None.


def _wrong_ack(ack: Ack) -> str | None:
    if len(ack.bitmap) > ACK_BITMAP_MAX or ack.bitmap.endswith(b"\0"):
        return "an ACK's bitmap has no byte too many"
    if int.from_bytes(ack.bitmap, "little").bit_length() > ack.largest:
        return "an ACK of a number below 0"
    return None


def _wrong_message(frame: Publish | Message) -> str | None:
    if frame.message_id > MESSAGE_ID_MAX or len(frame.body) > BODY_SIZE_MAX:
        return "a message id or a body over its limit"
    return None


def _wrong_published(published: Published) -> str | None:
    return "a message id over its limit" if published.message_id > MESSAGE_ID_MAX else None


def _wrong_gap(gap: Gap) -> str | None:
    return "a gap that ends before it begins" if gap.first > gap.last else None


_WRONGS: Final[Mapping[type[Any], Callable[[Any], str | None]]] = {
    Ack: _wrong_ack,
    Publish: _wrong_message,
    Message: _wrong_message,
    Published: _wrong_published,
    Gap: _wrong_gap,
}


def _maker(view: type[Any]) -> Callable[[Iterable[Any]], Any]:
    """Return what ``view._make`` is, without its count of the values: a scanner returns as many as there are fields."""
    return partial(tuple.__new__, view)  # pyright: ignore[reportUnknownMemberType]


_READERS: Final[Mapping[int, tuple[Callable[[Iterable[Any]], Any], Scanner, Callable[[Any], str | None] | None]]] = {
    kind.code: (_maker(kind.view), derive_scanner(kind.layout), _WRONGS.get(kind.view)) for kind in FRAME_TYPES
}
