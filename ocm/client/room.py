"""A room as its member sees it, whatever profile carries it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol

from ocm.errors import LocalProtocolError
from ocm.inbox import InboxReader
from ocm.protocol.control.packets import Form
from ocm.protocol.entry import Policy
from ocm.protocol.events import Connection, Message, PathKind, PathState, Receipt


class Room(ABC):
    """A seat in a room: ``async with client.join("lobby") as room``.

    Events come from ``async for event in room``; one iterator at a time. A lost connection is an event, and
    the room is joined again by itself; iteration raises only when that was given up.
    """

    @property
    @abstractmethod
    def connection(self) -> Connection:
        """Whether the room is reached just now."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The room's name."""

    @property
    @abstractmethod
    def user(self) -> str:
        """Our own name in it."""

    @property
    @abstractmethod
    def encrypted(self) -> bool:
        """Whether what we say and hear is sealed between us and the server; of others ``plaintext_members`` tells."""

    @property
    def form(self) -> Form | None:
        """The form of the classic profile that the server speaks; None before it has answered, and in TCRP/2."""
        return None

    @property
    def returned(self) -> bool:
        """Whether this is the seat of before the program ended: its ``state`` remembers the room (TCRP/2)."""
        return False

    @property
    def policy(self) -> Policy | None:
        """What kind of room it is; None where the profile does not say."""
        return None

    @property
    def plaintext_members(self) -> int | None:
        """How many members speak the classic profile, unencrypted, as far as the room's events were read.

        None where the profile does not say.
        """
        return None

    @property
    def path(self) -> PathState:
        """Which way messages travel just now, and how well."""
        return PathState(PathKind.UDP if self.connection is Connection.CONNECTED else PathKind.NONE)

    @abstractmethod
    async def enter(self) -> None:
        """Take the seat: what ``async with`` does, once. Raises ``OcmError``."""

    @abstractmethod
    def post(self, text: str) -> int:
        """Say ``text``; never waits. Return the message id that its ``Receipt`` event will carry.

        Raises ``SendRefused``: ``empty``, ``too_large``, ``not_text``, ``closed``, or ``rate`` with ``retry_after_s``;
        ``StateFailed`` while the client's state cannot be written (see ``StateChanged``).
        """

    @abstractmethod
    async def send(self, text: str) -> Receipt:
        """Say ``text``; return when it has come as far as the profile can tell. Cancelling stops the waiting only.

        Raises ``SendRefused`` as ``post`` does, and with the code of a refusal, or ``closed`` when the room ends first.
        """

    @abstractmethod
    async def drain(self) -> None:
        """Wait until all that was said has come as far as it will, or the room has ended."""

    @abstractmethod
    def members(self) -> Sequence[str]:
        """Return the names of those in the room, as far as known: first who was here before us, then who came."""

    @abstractmethod
    async def fetch_members(self) -> Sequence[str]:
        """Ask the server who is in the room; where it cannot be asked, return what is known."""

    @abstractmethod
    async def leave(self, *, drain: bool = True) -> None:
        """Say what is left to say (unless ``drain`` is False), then leave; a host takes the room along. Idempotent."""

    @abstractmethod
    def __aiter__(self) -> InboxReader:
        """Iterate over the room's events; a second iterator at the same time raises ``LocalProtocolError``."""

    async def history(self, count: int = 50, *, before: int | None = None) -> Sequence[Message]:
        """Return messages that were said before: the last ``count`` (1 to 256), or the last before entry ``before``.

        Raises:
            LocalProtocolError: the classic profile keeps no history.
            TransportClosed: the room is not reached just now.
            RoomRefused: the server said no.
        """
        raise LocalProtocolError("the classic profile keeps no history")

    async def kick(self, user: str) -> None:
        """Remove a member; the host's right.

        Raises as ``history`` does (in the classic profile ``LocalProtocolError``), and ``RoomRefused`` where we may
        not, or nobody has this name.
        """
        raise LocalProtocolError("in the classic profile only the server removes members")

    async def close(self) -> None:
        """Close the room for everybody; the host's right.

        Raises as ``kick`` does; in the classic profile ``LocalProtocolError``.
        """
        raise LocalProtocolError("in the classic profile a room closes when its host leaves")

    async def require_encryption(self) -> None:
        """Close the room to the classic profile for good; the host's right.

        Raises as ``kick`` does; in the classic profile ``LocalProtocolError``.
        """
        raise LocalProtocolError("the classic profile is not encrypted")


class Spawn(Protocol):
    """Starts a background task whose failure somebody hears of."""

    def __call__(self, work: Coroutine[Any, Any, None], /) -> asyncio.Task[None]:
        """Start ``work``."""
        ...
