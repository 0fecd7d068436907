"""What happens to a client as a whole, and to its rooms beside their logs: what ``Agent.events`` returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from ocm.protocol.events import Message, Receipt, Removed, RoomClosed
from ocm.protocol.wire.records import Denied, MemberRow


@dataclass(frozen=True, slots=True)
class Seating:
    """We are in a room, for the first time or again."""

    room: str
    again: bool


@dataclass(frozen=True, slots=True)
class EntryRefused:
    """The server does not let us into a room that we were not in."""

    room: str
    code: int
    message: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A room is none of ours any more; what is left of its events can be read."""

    room: str
    why: RoomClosed | Removed | None
    """None: we have left."""
    refusal: Denied | None = None
    """What the server said to our coming back, where that is why."""


@dataclass(frozen=True, slots=True)
class Settled:
    """The fate of a message is known. The room's events tell it, too, in their turn."""

    room: str
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Answered:
    """A request has its answer: what was read back, the members, nothing; or why not."""

    number: int
    messages: tuple[Message, ...] = ()
    members: tuple[MemberRow, ...] = ()
    """Those in the room, as the server has them now; the log may not be read so far."""
    refusal: Denied | None = None
    lost: bool = False
    """Whether the session ended first."""


@dataclass(frozen=True, slots=True)
class Replaced:
    """Another program goes on in our place: this one is over."""


AgentEvent: TypeAlias = Seating | EntryRefused | Ended | Settled | Answered | Replaced
