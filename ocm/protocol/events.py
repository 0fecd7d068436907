"""What a member of a room sees happen: the events of ``async for event in room``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from ocm.protocol.entry import Access, Reason


class Connection(StrEnum):
    """How a room is reached just now."""

    CONNECTED = "connected"
    RECONNECTING = "reconnecting"


class Delivery(StrEnum):
    """How far a message of ours has come, as far as the profile can tell."""

    PENDING = "pending"
    """It waits to be sent."""
    SENT = "sent"
    """It left this machine. Classic TCRP says no more: a datagram may be lost without anybody knowing."""
    IN_ROOM = "in_room"
    """The server is known to have it: it came back, or stands in the log."""
    REFUSED = "refused"
    """The server will never take it; ``Receipt.code`` says why."""
    UNKNOWN = "unknown"
    """It was sent, and the server that could say what became of it has forgotten us. It is not sent again."""


class PathKind(StrEnum):
    """Which way messages travel."""

    UDP = "udp"
    """In datagrams."""
    TLS = "tls"
    """Over the TLS connection: datagrams do not get through, or not yet."""
    NONE = "none"
    """Not at all just now."""


@dataclass(frozen=True, slots=True)
class PathState:
    """Which way messages travel, and how well."""

    kind: PathKind
    """The way."""
    round_trip_s: float | None = None
    """Smoothed round trip of datagrams, in seconds; None: not measured."""
    loss: float = 0.0
    """Share of our datagrams lost, 0 to 1, smoothed."""


@dataclass(frozen=True, slots=True)
class Person:
    """Who did something. The name is a peer's text: escape it (``ocm.safe_text``) before showing it."""

    name: str | None
    """None where the profile does not say, as in the reference form."""


@dataclass(frozen=True, slots=True)
class Message:
    """Somebody said something. The text is as it came: escape it (``ocm.safe_text``) before showing it."""

    sender: Person
    """Who said it."""
    text: str
    """What was said, as it came."""
    seq: int | None = None
    """Place in the room's order, where the profile tells."""
    time_ms: int | None = None
    """The server's clock when it took the message, in milliseconds since 1970; for display only."""
    history: bool = False
    """Whether it was said before we came, and is read back."""
    plaintext: bool = False
    """Whether its sender speaks the classic profile, so that anybody on the way could read and change it."""
    is_ours: bool = False
    """Whether we said it ourselves: in what is read back, for a receipt tells us of what we say now."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """One of our own messages has come as far as it will."""

    message_id: int
    """What ``post`` returned."""
    text: str
    """What was said."""
    delivery: Delivery
    """How far it has come."""
    seq: int | None = None
    """Its place in the room's order, where the profile tells."""
    code: str | None = None
    """Why it was refused: ``"too_large"``, ``"invalid"``, ``"forbidden"``, ``"closed"`` or ``"id_reused"``."""


@dataclass(frozen=True, slots=True)
class MemberJoined:
    """Somebody came in."""

    member: Person
    """Who."""


@dataclass(frozen=True, slots=True)
class MemberLeft:
    """Somebody is gone, and why."""

    member: Person
    """Who."""
    reason: Reason
    """Why, as far as the profile tells."""


@dataclass(frozen=True, slots=True)
class RoomClosed:
    """The room is over, and why; iteration then ends."""

    reason: Reason
    """Why."""


@dataclass(frozen=True, slots=True)
class Removed:
    """We are no longer a member, though the room goes on; iteration then ends."""

    reason: Reason
    """Why."""


@dataclass(frozen=True, slots=True)
class Gap:
    """So many events were dropped because they were not read in time."""

    missed: int
    """How many."""


@dataclass(frozen=True, slots=True)
class Slowed:
    """We sent faster than the server allows; so many messages of ours were dropped."""

    dropped: int
    """How many messages, since the last time this was said."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """The server says something in its own name. It is a peer's text: escape it before showing it."""

    text: str
    """What it says, as it came."""


@dataclass(frozen=True, slots=True)
class PathChanged:
    """Messages travel another way from now on. Nothing is lost by it."""

    path: PathState
    """The way."""


@dataclass(frozen=True, slots=True)
class PolicyChanged:
    """Another kind of program may enter the room from now on."""

    access: Access
    """Who may."""


@dataclass(frozen=True, slots=True)
class LogChanged:
    """The room's log is not the one that we read: the room was made anew, or its server lost some of it.

    What we read before is not repeated. Messages whose fate the other log knew are told as ``UNKNOWN``.
    """

    rewound: bool
    """Whether it is the same log, with its newest entries gone; else another one."""


@dataclass(frozen=True, slots=True)
class ConnectionChanged:
    """The way to the server was lost or found again."""

    connection: Connection
    """How the room is reached from now on."""
    attempt: int = 0
    """How often it was tried since it was lost."""


@dataclass(frozen=True, slots=True)
class StateChanged:
    """What the client remembers (``ocm.connect(state=...)``) cannot be written any more, or can again.

    Meanwhile ``post`` and ``send`` raise ``StateFailed``, what was posted before waits, and everything else goes on.
    """

    failure: str | None
    """Why not, in English; None: it can again."""


Event: TypeAlias = (
    Message
    | Receipt
    | MemberJoined
    | MemberLeft
    | RoomClosed
    | Removed
    | Gap
    | Slowed
    | Announcement
    | ConnectionChanged
    | PathChanged
    | PolicyChanged
    | LogChanged
    | StateChanged
)
