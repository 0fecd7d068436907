"""A room of TCRP/2 as its user sees it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from ocm.client.room import Room
from ocm.errors import (
    LocalProtocolError,
    OcmError,
    RoomRefused,
    SendRefused,
    ServerUntrusted,
    TransportClosed,
)
from ocm.inbox import InboxReader
from ocm.protocol.agent import AgentRoom, Answered, Ended, EntryRefused, Seating, Settled
from ocm.protocol.entry import Policy
from ocm.protocol.events import Connection, Delivery, Event, Message, PathState, Receipt

if TYPE_CHECKING:
    from ocm.client.modern import Agency

T = TypeVar("T")

ENTER_TIMEOUT_S: Final = 30.0
"""How long the first entry may take, with all its tries to connect."""
LEAVE_TIMEOUT_S: Final = 2.0
"""How long a server may take to confirm that we leave."""
ANSWER_TIMEOUT_S: Final = 15.0
"""How long a server may take to answer a request."""
HISTORY_MAX: Final = 256


class ModernRoom(Room):
    """A seat in a room of TCRP/2. It outlives connections, and with a kept state the program."""

    def __init__(self, agency: Agency, name: str, *, create: bool, policy: Policy | None) -> None:
        """Prepare; ``enter`` takes the seat."""
        self._agency = agency
        self._name = name
        self._create = create
        self._policy = policy
        self._entering: asyncio.Future[None] | None = None
        self._leaving: asyncio.Future[None] | None = None
        self._receipts: dict[int, asyncio.Future[Receipt]] = {}
        self._answers: dict[int, asyncio.Future[Answered]] = {}
        self._news = asyncio.Event()
        self._settled = asyncio.Event()
        self._error: OcmError | None = None
        self._entered = False
        self._over = False
        self._is_read = False

    # --- what users call --------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The room's name."""
        return self._name

    @property
    def user(self) -> str:
        """Our own name in it."""
        return self._agency.user

    @property
    def encrypted(self) -> bool:
        """Always."""
        return True

    @property
    def connection(self) -> Connection:  # type: ignore[override]
        """Whether the room is reached just now."""
        return Connection.CONNECTED if self._machine.is_seated else Connection.RECONNECTING

    @property
    def policy(self) -> Policy | None:
        """What kind of room it is."""
        return self._machine.policy

    @property
    def plaintext_members(self) -> int | None:
        """How many members speak the classic profile, unencrypted."""
        return self._machine.plaintext_members

    @property
    def path(self) -> PathState:
        """Which way messages travel just now, and how well."""
        return self._agency.agent.path()

    def post(self, text: str) -> int:
        """Say ``text``; never waits."""
        if self._over or not self._entered:
            raise SendRefused("closed")
        try:
            body = text.encode()
        except UnicodeEncodeError:
            raise SendRefused("not_text") from None
        message_id = self._agency.agent.post(self._name, body, now_s=self._agency.now_s())
        self._settled.clear()
        self._agency.settle()
        return message_id

    async def send(self, text: str) -> Receipt:
        """Say ``text``; return when it is in the room's log."""
        message_id = self.post(text)
        arrival: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self._receipts[message_id] = arrival
        try:
            receipt = await arrival
        finally:
            self._receipts.pop(message_id, None)
        if receipt.delivery is Delivery.REFUSED:
            raise SendRefused(receipt.code or "invalid")
        return receipt

    async def drain(self) -> None:
        """Wait until the fate of all that was said is known, or the room has ended."""
        while not self._over and self._error is None and not self._agency.agent.is_settled(self._name):
            self._settled.clear()
            await self._settled.wait()

    def members(self) -> Sequence[str]:
        """Return the names of those in the room, as far as the log was read."""
        return tuple(row.name for row in self._machine.members.values())

    async def fetch_members(self) -> Sequence[str]:
        """Ask the server who is in the room; where it cannot be asked, return what is known."""
        with contextlib.suppress(OcmError):  # what is known must do
            await self._ask(self._agency.agent.fetch_members(self._name))
        return self.members()

    async def leave(self, *, drain: bool = True) -> None:
        """Say what is left to say, then leave."""
        if self._entering is not None and not self._entered:
            self._end(None)
            return
        if drain and self._error is None and self.connection is Connection.CONNECTED:
            await self.drain()
        if not self._over:
            self._leaving = asyncio.get_running_loop().create_future()
            self._agency.agent.leave(self._name, now_s=self._agency.now_s())
            self._agency.settle()
            await asyncio.wait([self._leaving], timeout=LEAVE_TIMEOUT_S)
        self._end(None)

    def __aiter__(self) -> InboxReader:
        """Iterate over the room's events. Each that is read gives the server credit for another."""
        if self._is_read:
            raise LocalProtocolError("a room has one iterator; this one is taken")
        self._is_read = True
        return InboxReader(self)

    async def history(self, count: int = 50, *, before: int | None = None) -> Sequence[Message]:
        """Return messages that were said before."""
        if not 1 <= count <= HISTORY_MAX:
            raise LocalProtocolError(f"history comes in pages of 1 to {HISTORY_MAX}")
        last = self._machine.head if before is None else before - 1
        first = max(1, last - count + 1)
        if last < first:
            return ()
        number = self._agency.agent.history(self._name, first=first, count=last - first + 1)
        return (await self._ask(number)).messages

    async def kick(self, user: str) -> None:
        """Remove a member."""
        for row in self._machine.members.values():
            if row.name == user:
                await self._ask(self._agency.agent.kick(self._name, row.id))
                return
        raise RoomRefused(404, "nobody has this name")

    async def close(self) -> None:
        """Close the room for everybody."""
        await self._ask(self._agency.agent.end(self._name))

    async def require_encryption(self) -> None:
        """Close the room to the classic profile for good."""
        await self._ask(self._agency.agent.raise_access(self._name))

    async def enter(self) -> None:
        """Take the seat, or take it up again where it is remembered.

        Raises:
            RoomRefused: the server said no.
            ServerUntrusted: the server's key is not the one it should be.
            HandshakeFailed: what answers does not speak TCRP/2.
            ConnectFailed: nobody answers.
        """
        self._entering = asyncio.get_running_loop().create_future()
        try:
            self._agency.enter(self, create=self._create, policy=self._policy)
            async with asyncio.timeout(ENTER_TIMEOUT_S):
                await self._entering
        except TimeoutError:
            self._give_up()
            raise self._agency.failure or TransportClosed("the server does not answer") from None
        except BaseException:
            self._give_up()
            raise

    # --- what the agency says -----------------------------------------------------------------------------

    def hear(self, event: Seating | EntryRefused | Ended | Settled) -> None:
        """Take what happened to this room."""
        match event:
            case Seating():
                self._entered = True
                _resolve(self._entering, None)
            case EntryRefused(code=code, message=message):
                _fail(self._entering, RoomRefused(code, message))
            case Ended():
                _resolve(self._leaving, None)
            case Settled(receipt=receipt):
                arrival = self._receipts.pop(receipt.message_id, None)
                if arrival is not None and not arrival.done():
                    arrival.set_result(receipt)
                self._settled.set()

    def answer(self, answered: Answered) -> None:
        """Take the answer to a request, if it is one of this room's."""
        _resolve(self._answers.pop(answered.number, None), answered)

    def dial_failed(self, error: OcmError) -> None:
        """Hear that no connection could be made: who has never been in does not wait for a server that is not there."""
        if not self._entered:
            _fail(self._entering, error)
        elif isinstance(error, ServerUntrusted):
            self.fail(error)  # it will not become another

    def wake(self) -> None:
        """Hear that there may be something to read."""
        self._news.set()

    def fail(self, error: OcmError) -> None:
        """Hear that nothing can go on."""
        self._error = error
        _fail(self._entering, error)
        _resolve(self._leaving, None)
        self._refuse_all()
        self._news.set()

    # --- what an iterator reads from ------------------------------------------------------------------------

    async def take(self) -> Event:
        """Return the next event."""
        while True:
            event = None if self._over else self._agency.agent.read(self._name, now_s=self._agency.now_s())
            self._agency.settle()
            if event is not None:
                return event
            if self._over or self._machine.over is not None:
                self._end(None)
                raise StopAsyncIteration
            if self._error is not None:
                error, self._error = self._error, None
                self._over = True
                raise error
            self._news.clear()
            await self._news.wait()

    def release(self) -> None:
        """Let another iterator start."""
        self._is_read = False

    # --- helpers ----------------------------------------------------------------------------------------

    @property
    def _machine(self) -> AgentRoom:
        return self._agency.agent.room(self._name)

    async def _ask(self, number: int | None) -> Answered:
        if number is None:
            raise TransportClosed("the room is not reached just now")
        arrival: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        self._answers[number] = arrival
        self._agency.settle()
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                answered = await arrival
        except TimeoutError:
            raise TransportClosed("the server does not answer") from None
        finally:
            self._answers.pop(number, None)
        if answered.lost:
            raise TransportClosed("the connection was lost")
        if answered.refusal is not None:
            raise RoomRefused(answered.refusal.code, answered.refusal.message)
        return answered

    def _give_up(self) -> None:
        self._over = True
        self._agency.agent.leave(self._name, now_s=self._agency.now_s())
        self._agency.settle()
        self._agency.forget(self)

    def _end(self, error: OcmError | None) -> None:
        self._over = True
        self._refuse_all()
        self._news.set()
        self._agency.forget(self)

    def _refuse_all(self) -> None:
        for arrival in self._receipts.values():
            if not arrival.done():
                arrival.set_exception(SendRefused("closed"))
        self._receipts.clear()
        self._settled.set()


def _resolve(future: asyncio.Future[T] | None, result: T) -> None:
    if future is not None and not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[None] | None, error: OcmError) -> None:
    if future is not None and not future.done():
        future.set_exception(error)
