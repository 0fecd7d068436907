"""A room of TCRP/2 as its user sees it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
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
from ocm.protocol.agent import Agent, AgentRoom, Answered, Ended, EntryRefused, Seating, Settled
from ocm.protocol.entry import Policy, Refusal
from ocm.protocol.events import Connection, Delivery, Event, Message, PathKind, PathState, Receipt
from ocm.protocol.wire.records import MemberRow

if TYPE_CHECKING:
    from ocm.client.modern import Agency

T = TypeVar("T")

ENTER_TIMEOUT_S: Final = 30.0
"""How long the first entry may take, with all its tries to connect."""
LEAVE_TIMEOUT_S: Final = 2.0
"""How long a server may take to confirm that we leave, and the client's state to forget the room."""
STALLED_S: Final = 10.0
"""How long a room that is to be left may settle none of our messages before it is left all the same."""
ANSWER_TIMEOUT_S: Final = 15.0
"""How long a server may take to answer a request."""
HISTORY_MAX: Final = 256
"""Entries that are read back at once."""


class ModernRoom(Room):
    """A seat in a room of TCRP/2. It outlives connections, and with a kept state the program."""

    def __init__(self, agency: Agency, name: str, *, create: bool, policy: Policy | None) -> None:
        """Prepare; ``enter`` takes the seat."""
        self._agency = agency
        self._name = name
        self._create = create
        self._policy = policy
        self._entered_machine: AgentRoom | None = None
        self._entering: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._left: asyncio.Future[None] | None = None
        self._receipts: dict[int, asyncio.Future[Receipt]] = {}
        self._answers: dict[int, asyncio.Future[Answered]] = {}
        self._news = asyncio.Event()
        self._settled = asyncio.Event()
        self._error: OcmError | None = None
        self._is_over = False
        self._is_read = False
        self._returned: bool | None = None

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
    def connection(self) -> Connection:
        """Whether the room is reached just now."""
        return Connection.CONNECTED if self._machine.is_seated else Connection.RECONNECTING

    @property
    def returned(self) -> bool:
        """Whether this is the seat of before the program ended."""
        return bool(self._returned)

    @property
    def policy(self) -> Policy | None:
        """What kind of room it is, as far as the log was read."""
        return self._machine.policy

    @property
    def plaintext_members(self) -> int | None:
        """How many members speak the classic profile, unencrypted; as far as the log was read."""
        return self._machine.plaintext_members

    @property
    def path(self) -> PathState:
        """Which way messages travel just now, and how well."""
        return self._agency.agent.path() if self._machine.is_seated else PathState(PathKind.NONE)

    def post(self, text: str) -> int:
        """Say ``text``; never waits."""
        message_id = self._say(text)
        self._agency.settle_soon()
        return message_id

    async def send(self, text: str) -> Receipt:
        """Say ``text``; return when it is in the room's log."""
        message_id = self._say(text)
        arrival: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self._receipts[message_id] = arrival
        self._agency.settle_soon()
        try:
            receipt = await arrival
        finally:
            self._receipts.pop(message_id, None)
        if receipt.delivery is Delivery.REFUSED:
            raise SendRefused(receipt.code or "invalid")
        return receipt

    async def drain(self) -> None:
        """Wait until the fate of all that was said is known, or the room has ended."""
        while self._has_unsettled:
            self._settled.clear()
            await self._settled.wait()

    def members(self) -> Sequence[str]:
        """Return the names of those in the room, as far as the log was read."""
        return tuple(row.name for row in self._machine.members.values())

    async def fetch_members(self) -> Sequence[str]:
        """Ask the server who is in the room; where it cannot be asked, return what is known."""
        try:
            rows = await self._fetch_rows()
        except OcmError:
            return self.members()
        return tuple(row.name for row in rows)

    async def leave(self, *, drain: bool = True) -> None:
        """Say what is left to say, then leave: when it is done the client's state does not know the room any more."""
        try:
            if drain and self._left is None:
                await self._drain_while_it_moves()
            if not self._is_over and self._machine.over is None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LEAVE_TIMEOUT_S):
                        await asyncio.shield(self._depart())
                        await self._agency.remembered()
        finally:
            if not self._is_over:
                self._depart()
            self.end()

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
        answered = await self._ask(lambda agent: agent.history(self._name, first=first, count=last - first + 1))
        return answered.messages

    async def kick(self, user: str) -> None:
        """Remove a member."""
        member = next((row.id for row in await self._fetch_rows() if row.name == user), None)
        if member is None:
            raise RoomRefused(Refusal.NOT_FOUND, "nobody in the room has this name")
        await self._ask(lambda agent: agent.kick(self._name, member))

    async def close(self) -> None:
        """Close the room for everybody."""
        await self._ask(lambda agent: agent.end(self._name))

    async def require_encryption(self) -> None:
        """Close the room to the classic profile for good."""
        await self._ask(lambda agent: agent.raise_access(self._name))

    async def enter(self) -> None:
        """Take the seat, or take it up again where it is remembered.

        Raises:
            RoomRefused: the server said no.
            ServerUntrusted: the server's key is not the one it should be.
            HandshakeFailed: what answers does not speak TCRP/2.
            ConnectFailed: nobody answers.
            TransportClosed: the connection broke, or the server does not answer.
            RemoteProtocolError: the server does not keep to the protocol.
            StateFailed: what the client remembers cannot be written just now.
            LocalProtocolError: we are in the room already, or the client's block has ended.
        """
        self._entered_machine = self._agency.enter(self, create=self._create, policy=self._policy)
        try:
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
            case Seating(again=again):
                if self._returned is None:
                    self._returned = again
                _resolve(self._entering, None)
            case EntryRefused(code=code, message=message):
                _fail(self._entering, RoomRefused(code, message))
            case Ended(refusal=refusal):
                if refusal is not None:
                    _fail(self._entering, RoomRefused(refusal.code, refusal.message))
                _resolve(self._left, None)
            case Settled(receipt=receipt):
                _resolve(self._receipts.pop(receipt.message_id, None), receipt)
                self._settled.set()

    def answer(self, answered: Answered) -> None:
        """Take the answer to a request, if it is one of this room's."""
        _resolve(self._answers.pop(answered.number, None), answered)

    def dial_failed(self, error: OcmError) -> None:
        """Hear that no connection could be made: who has never been in does not wait for a server that is not there."""
        if isinstance(error, ServerUntrusted):
            self.fail(error)  # it will not become another
        else:
            self.not_let_in(error)

    def not_let_in(self, error: OcmError) -> None:
        """Hear that who has never been in will not be; nothing happens where we have."""
        _fail(self._entering, error)

    def wake_if_readable(self) -> None:
        """Have the reader look, if there is something to read."""
        machine = self._entered_machine
        if machine is not None and machine.is_readable:
            self._news.set()

    def fail(self, error: OcmError) -> None:
        """Hear that nothing can go on. Whoever reads is told."""
        self._error = error
        _fail(self._entering, error)
        self._let_go()

    def end(self) -> None:
        """Hear that nothing more comes. What came can still be read. Idempotent."""
        self._is_over = True
        _fail(self._entering, TransportClosed("the client has ended"))
        self._let_go()
        self._agency.forget(self)

    # --- what an iterator reads from ------------------------------------------------------------------------

    async def take(self) -> Event:
        """Return the next event."""
        while True:
            self._news.clear()
            event = self._agency.read(self, self._machine)
            if event is not None:
                return event
            if self._error is not None:
                error, self._error = self._error, None
                self.end()
                raise error
            if self._is_over or self._machine.over is not None:
                self.end()
                raise StopAsyncIteration
            await self._news.wait()

    def release(self) -> None:
        """Let another iterator start."""
        self._is_read = False

    # --- helpers ----------------------------------------------------------------------------------------

    @property
    def _machine(self) -> AgentRoom:
        assert self._entered_machine is not None, "users get a room that was entered"
        return self._entered_machine

    def _say(self, text: str) -> int:
        if self._is_over or self._left is not None or self._error is not None:
            raise SendRefused("closed")
        try:
            body = text.encode()
        except UnicodeEncodeError:
            raise SendRefused("not_text") from None
        self._settled.clear()
        return self._agency.agent.post(self._name, body, now_s=self._agency.now_s())

    @property
    def _has_unsettled(self) -> bool:
        return not (self._is_over or self._error is not None or self._machine.is_settled)

    async def _drain_while_it_moves(self) -> None:
        """Drain, but not for ever: not once nothing was settled for a while."""
        with contextlib.suppress(TimeoutError):
            while self._has_unsettled:
                self._settled.clear()
                async with asyncio.timeout(STALLED_S):
                    await self._settled.wait()

    async def _fetch_rows(self) -> Sequence[MemberRow]:
        return (await self._ask(lambda agent: agent.fetch_members(self._name))).members

    async def _ask(self, request: Callable[[Agent], int | None]) -> Answered:
        """Ask for something. Raises ``TransportClosed`` and ``RoomRefused``."""
        number = None if self._is_over or self._error is not None else request(self._agency.agent)
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

    def _depart(self) -> asyncio.Future[None]:
        """Want to be out, and say so; return what is done when it is so."""
        if self._left is None:
            self._left = asyncio.get_running_loop().create_future()
            self._agency.leave(self)
        return self._left

    def _give_up(self) -> None:
        self._agency.leave(self)
        self.end()

    def _let_go(self) -> None:
        """Let nobody wait any more."""
        for waiting in self._receipts.values():
            _fail(waiting, SendRefused("closed"))
        for asked in self._answers.values():
            _fail(asked, TransportClosed("the room has ended"))
        _resolve(self._left, None)
        self._settled.set()
        self._news.set()


def _resolve(future: asyncio.Future[T] | None, result: T) -> None:
    if future is not None and not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[T], error: OcmError) -> None:
    if not future.done():
        future.set_exception(error)
