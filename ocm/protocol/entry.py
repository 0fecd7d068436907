"""What rooms say and hear: the vocabulary between links, rooms, hub and journal. No bytes of any wire."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import NamedTuple


class Kind(IntEnum):
    """What an entry of a room's log is. The numbers are those of TCRP/2 section 4."""

    TEXT = 0
    JOIN = 1
    LEAVE = 2
    CLOSED = 5


class Reason(StrEnum):
    """Why a member is gone or a room is closed."""

    BYE = "left"
    IDLE = "silent too long"
    LOST = "connection lost"
    KICKED = "removed by the server"
    HOST_LEFT = "the host has gone"
    SERVER_STOPPED = "the server is stopping"
    GONE = "the server no longer knows the room"


class Refusal(IntEnum):
    """Why a request was refused: the ``status_code`` on the wire, 4xx.

    Where HTTP has no word, the numbers are those of IRC (RFC 1459 section 6.1) and SIP (RFC 3261 section 21).
    """

    MALFORMED = 400
    """The request breaks the rules: wrong stage, unknown operation, bad name, not UTF-8."""
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
    """TEXT: UTF-8 text. LEAVE, CLOSED: a ``Reason``. JOIN: empty."""
    time_ms: int
    """Milliseconds on the server's clock, never falling within a room; for display only."""
    plaintext: bool = True
    """Whether the sender speaks a classic form, so that its words crossed the network unsealed."""


class Record(NamedTuple):
    """One step of a journal: an entry of one room's log, and which log it is."""

    room: str
    incarnation: int
    """Tells apart the rooms that have had this name, one after the other."""
    entry: Entry
