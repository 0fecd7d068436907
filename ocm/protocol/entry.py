"""What rooms say and hear: the vocabulary between links, rooms, hub and journal. No bytes of any wire."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import NamedTuple, TypeAlias


class Kind(IntEnum):
    """What an entry of a room's log is. The numbers are those of TCRP/2 section 4."""

    TEXT = 0
    """A member said something."""
    JOIN = 1
    """A member came."""
    LEAVE = 2
    """A member is gone."""
    CLOSED = 5
    """The room is closed: the last entry of its log."""
    POLICY = 6
    """The room is another one now as to who may enter."""


class Reason(StrEnum):
    """Why a member is gone or a room is closed."""

    BYE = "left"
    """The member left by its own words."""
    IDLE = "silent too long"
    """Nothing was heard of a classic member."""
    LOST = "connection lost"
    """The member had no connection for too long."""
    KICKED = "removed by the server"
    """The host, or who runs the server, removed the member."""
    HOST_LEFT = "the host has gone"
    """The room ended with its host."""
    SERVER_STOPPED = "the server is stopping"
    """The room ended with the server."""
    GONE = "the server no longer knows the room"
    """A client's own conclusion; it stands in no log."""
    UNENCRYPTED = "the room takes encrypted connections only"
    """The room was raised, and the member speaks the classic profile."""
    ENDED = "closed by the host"
    """The host closed the room."""


class Refusal(IntEnum):
    """Why a request was refused: the ``status_code`` on the wire, 4xx.

    Where HTTP has no word, the numbers are those of IRC (RFC 1459 section 6.1) and SIP (RFC 3261 section 21).
    """

    MALFORMED = 400
    """The request breaks the rules: wrong stage, unknown operation, bad name, not UTF-8."""
    FORBIDDEN = 403
    """Only the room's host may do this."""
    NOT_FOUND = 404
    """No such room, or not yours to enter: one answer for both, so that neither can be told from the other."""
    ROOM_EXISTS = 409
    """CREATE of a name that is taken."""
    RATE_LIMITED = 429
    """Too many requests."""
    NAME_NOT_ALLOWED = 432
    """The user name cannot be used: empty, too long, reserved, or with characters that do not show."""
    NAME_TAKEN = 433
    """Somebody in the room has this name, or one that looks like it."""
    ROOM_FULL = 471
    """The room has as many members as it may have."""
    SERVER_FULL = 472
    """The server has as many rooms as it may have."""
    UNAVAILABLE = 480
    """The server cannot write its log just now; try again later."""


class Entry(NamedTuple):
    """One line of a room's log."""

    seq: int
    """Place in the room's order, from 1."""
    sender: int
    """Member id; 0 is the server."""
    name: str
    """The sender's name, from the server's member table and never from a message."""
    kind: Kind
    body: bytes
    """TEXT: UTF-8 text. LEAVE, CLOSED: a ``Reason``. JOIN: empty. POLICY: an ``Access``."""
    time_ms: int
    """Milliseconds on the server's clock, never falling within a room; for display only."""
    plaintext: bool = True
    """Whether the sender speaks a classic form, so that its words crossed the network unsealed."""
    message_id: int = 0
    """Chosen by the sender, above 0 and rising; 0 where the profile has none (classic)."""


class Access(StrEnum):
    """Who may enter a room, by the profile they speak. It can be raised, never lowered."""

    MIXED = "mixed"
    """Both profiles: what classic members say and hear crosses the network unsealed."""
    MODERN = "modern"
    """TCRP/2 only. To a classic program the room does not exist."""


class Lifetime(StrEnum):
    """What becomes of a room whose host leaves, or stays away for longer than ``Limits.host_grace_s``."""

    CLOSE = "close"
    """The room closes, and everybody is told."""
    HAND_OVER = "hand over"
    """The member who has been here longest is the host; without members the room closes."""
    PERSIST = "persist"
    """The room stays, even empty; who joins an empty room is its host."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What kind of room it is: chosen by who creates it, shown to all."""

    access: Access = Access.MODERN
    """Who may enter."""
    lifetime: Lifetime = Lifetime.CLOSE
    """What becomes of it without its host."""
    durable: bool = True
    """Whether its log outlives the server's process, where the server's journal does."""


CLASSIC_POLICY: Policy = Policy(Access.MIXED)
"""What a room is that a classic program makes."""


class Opened(NamedTuple):
    """A step of a journal: a room begins. The first of its incarnation."""

    room: str
    incarnation: int
    """Tells apart the rooms that have had this name, one after the other; rises over all rooms of a server."""
    log_id: bytes
    """16 random bytes that name this log to its members (TCRP/2 section 6)."""
    policy: Policy


class Record(NamedTuple):
    """A step of a journal: an entry of one room's log, and which log it is."""

    room: str
    incarnation: int
    """Tells apart the rooms that have had this name, one after the other."""
    entry: Entry
    door: bytes = b""
    """JOIN: what the member's link needs to be made again after a restart (``Link.memo``). LEAVE: the same where the
    member is to hear of it still, whenever it comes back. Else empty."""


class Refused(NamedTuple):
    """A step of a journal: a message was refused for good, which uses its id up like one that was taken."""

    room: str
    incarnation: int
    sender: int
    """Member id."""
    message_id: int
    status: int
    """Why: a ``session.publishing.Status`` of 16 or more."""
    time_ms: int
    digest: bytes
    """SHA-256 of the kind byte and the body: tells the same message sent again from another one."""


class Moved(NamedTuple):
    """A step of a journal: a member has another door, since it asked for its seat again."""

    room: str
    incarnation: int
    member: int
    """Member id."""
    door: bytes
    """As in ``Record``."""


class Identity(NamedTuple):
    """A step of a journal: what a client is known by. Its newest counts; without secrets it is forgotten."""

    client: bytes
    """16 random bytes."""
    secrets: tuple[bytes, ...]
    """SHA-256 of each resume secret that is good: the newest first, at most two."""
    until_ms: int
    """When it may be forgotten, in milliseconds since 1970."""


Step: TypeAlias = Opened | Record | Refused | Moved | Identity
"""What a journal keeps. Steps of one batch are kept together or not at all."""


class Answer(NamedTuple):
    """What the author of a message was told."""

    message_id: int
    status: int
    seq: int
    time_ms: int
    digest: bytes
    """As in ``Refused``; of the entry itself where it was taken."""


@dataclass(frozen=True, slots=True)
class KeptMember:
    """A member of a room, as a journal gives it back."""

    id: int
    name: str
    plaintext: bool
    door: bytes = field(repr=False)
    mark: int = 0
    """The highest message id that was taken or refused for good."""
    answers: tuple[Answer, ...] = ()
    """The last ones, by rising message id."""
    joined_seq: int = 0
    """The entry that says that it came."""
    left_seq: int = 0
    """Above 0: the entry that says that it is gone."""


@dataclass(frozen=True, slots=True)
class KeptRoom:
    """A room, as a journal gives it back: the fold of its steps."""

    name: str
    incarnation: int
    log_id: bytes
    policy: Policy
    """With POLICY entries counted in."""
    last_seq: int
    oldest_seq: int
    """The oldest entry that can still be read; ``last_seq`` + 1 where there is none."""
    next_member: int
    """The lowest member id that was never used."""
    time_ms: int
    """Of the last entry."""
    closed: bool
    members: tuple[KeptMember, ...]
    """In the order of joining; of a closed room those who were in it at the end."""
    former: tuple[KeptMember, ...] = ()
    """Those who were removed and are to hear of it still, in the order of leaving. Kept as long as closed rooms are."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Everything a journal gives back to a server that starts."""

    rooms: tuple[KeptRoom, ...] = ()
    """By rising incarnation; closed ones only as long as their logs are kept."""
    identities: tuple[Identity, ...] = ()
    last_incarnation: int = 0
    """The highest that was ever used."""
