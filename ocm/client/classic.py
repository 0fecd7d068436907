"""A room of the classic profile: post, hear, reconnect."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, assert_never

from ocm.client.dial import Seat, take_seat
from ocm.client.room import Room, Spawn
from ocm.errors import LocalProtocolError, OcmError, RoomRefused, SendRefused, TransportClosed
from ocm.inbox import Inbox, InboxReader
from ocm.protocol.address import host_key, port_of
from ocm.protocol.control.packets import Form
from ocm.protocol.entry import Reason, Refusal
from ocm.protocol.events import (
    Announcement,
    Connection,
    ConnectionChanged,
    MemberJoined,
    MemberLeft,
    Message,
    Person,
    Receipt,
    Removed,
    RoomClosed,
    Slowed,
)
from ocm.protocol.limits import Limits
from ocm.protocol.link import notices
from ocm.protocol.link.voice import Heard, Said, Voice
from ocm.protocol.outbox import Outbox
from ocm.protocol.url import ServerUrl
from ocm.protocol.wire.classic import Operation
from ocm.transport.base import Batch, Network

REDIAL_DELAYS_S: Final = (0.1, 0.5, 1.0, 2.0, 4.0)
"""Waits between attempts to reconnect; the last one repeats, each with up to a quarter of jitter.

The first is for the datagram that says why the connection ended: it may come behind the end.
"""
GIVE_UP_AFTER_S: Final = 60.0
"""How long to try to reconnect."""
ROOM_GONE_AFTER_S: Final = 15.0
"""How long a room that its server no longer knows may take to come back: its host may make it again."""
ATTACH_AFTER_S: Final = 0.25
"""A server that keeps the connection open for this long behind the token means to."""
LEAVE_TIMEOUT_S: Final = 2.0
"""How long a server may take to confirm that we leave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrance:
    """How a room was entered, to enter it again."""

    url: ServerUrl
    room: str
    user: str
    create: bool
    password: str | None = field(default=None, repr=False)


class ClassicRoom(Room):
    """A seat in a room of the classic profile, on a connection of its own."""

    def __init__(
        self, network: Network, entrance: Entrance, *, limits: Limits, jitter: Callable[[], float], spawn: Spawn
    ) -> None:
        """Prepare; ``enter`` connects. ``jitter`` draws from [0, 1); ``spawn`` runs what goes on in the background."""
        self._network = network
        self._spawn = spawn
        self._entrance = entrance
        self._limits = limits
        self._jitter = jitter
        self._inbox = Inbox(limits.events_max)
        self._outbox = Outbox(limits, text_size_max=1)
        self._names: dict[str, None] = {}
        self._receipts: dict[int, asyncio.Future[Receipt]] = {}
        self._settled = asyncio.Event()
        self._settled.set()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._attached = False
        self._seat: Seat | None = None
        self._voice: Voice | None = None
        self._connection = Connection.RECONNECTING

    # --- what users call --------------------------------------------------------------------------------

    @property
    def connection(self) -> Connection:
        """Whether the room is reached just now."""
        return self._connection

    @property
    def name(self) -> str:
        """The room's name."""
        return self._entrance.room

    @property
    def user(self) -> str:
        """Our own name in it."""
        return self._entrance.user

    @property
    def encrypted(self) -> bool:
        """Never."""
        return False

    @property
    def form(self) -> Form | None:
        """The form of the classic profile that the server speaks; None before it has answered."""
        return None if self._voice is None else self._voice.form

    def post(self, text: str) -> int:
        """Say ``text``; never waits. Return the message id that its ``Receipt`` event will carry.

        Raises ``SendRefused``: ``empty``, ``too_large``, ``not_text``, ``closed``, or ``rate`` with ``retry_after_s``.
        """
        message_id = self._outbox.post(text)
        self._settled.clear()
        self._flush()
        return message_id

    async def send(self, text: str) -> Receipt:
        """Say ``text``; return when it has come as far as the profile can tell. Cancelling stops the waiting only.

        Raises ``SendRefused`` as ``post`` does, and with ``closed`` when the room ends first.
        """
        if self._outbox.closed:
            raise SendRefused("closed")
        arrival: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        message_id = self._outbox.post(text)
        self._receipts[message_id] = arrival
        self._settled.clear()
        self._flush()
        try:
            return await arrival
        finally:
            self._receipts.pop(message_id, None)

    async def drain(self) -> None:
        """Wait until all that was said has come as far as it will, or the room has ended."""
        await self._settled.wait()

    def members(self) -> Sequence[str]:
        """Return the names of those in the room, as far as known: first who was here before us, then who came."""
        return tuple(self._names)

    async def fetch_members(self) -> Sequence[str]:
        """Ask the server who is in the room; where it cannot be asked, return what is known."""
        if self._task is not None and self.connection is Connection.CONNECTED:  # so soon that we have not tried yet
            await asyncio.wait([self._task], timeout=ATTACH_AFTER_S + LEAVE_TIMEOUT_S)
        seat = self._seat
        if seat is not None and self._attached:
            try:
                listed = await seat.call.members()
            except OcmError:
                return self.members()
            self._names = dict.fromkeys(listed.members)
        return self.members()

    async def leave(self, *, drain: bool = True) -> None:
        """Say what is left to say (unless ``drain`` is False), then leave; a host takes the room along. Idempotent."""
        try:
            if drain and self._outbox.connected:
                await self.drain()
            await self._stop_task()
            seat = self._seat
            if seat is not None and seat.form is Form.OCM and not seat.call.lost:
                # A server that knows no leaving notices our silence.
                with contextlib.suppress(OcmError, TimeoutError):
                    async with asyncio.timeout(LEAVE_TIMEOUT_S):
                        await seat.call.leave()
        finally:
            self._end()

    def __aiter__(self) -> InboxReader:
        """Iterate over the room's events; a second iterator at the same time raises ``LocalProtocolError``."""
        return self._inbox.read()

    # --- entering ---------------------------------------------------------------------------------------

    async def enter(self) -> None:
        """Take the seat. Raises what ``take_seat`` raises."""
        create = self._entrance.create
        try:
            await self._take_seat(Operation.CREATE if create else Operation.JOIN, token=None)
        except BaseException:
            self._end()
            raise

    async def _take_seat(self, operation: Operation, *, token: bytes | None) -> None:
        entrance = self._entrance
        early: list[tuple[bytes, bytes]] = []
        seat = await take_seat(
            self._network,
            entrance.url,
            operation,
            room=entrance.room,
            user=entrance.user,
            password=entrance.password,
            token=token,
            limits=self._limits,
            on_batch=lambda batch: (
                self._on_batch(batch)
                if self._seat is not None
                else early.extend(batch[: self._limits.events_max - len(early)])
            ),
            on_lost=self._on_lost,
        )
        self._seat = seat
        self._voice = Voice(seat.form, entrance.room, entrance.user, seat.token)
        self._outbox.text_size_max = self._voice.text_size_max
        self._outbox.echoes = self._voice.echoes
        self._outbox.connected = True
        self._connection = Connection.CONNECTED
        self._names = {entrance.user: None}
        self._attached = False
        if early:
            self._on_batch(early)
        if self._task is None or self._task.done():
            self._task = self._spawn(self._settle_in(seat))
        self._flush()

    async def _settle_in(self, seat: Seat) -> None:
        await self._attach(seat)
        if seat.call.lost:  # perhaps together with the answer
            self._on_lost()

    async def _attach(self, seat: Seat) -> None:
        """Find out whether the server keeps the connection for us, and who is there."""
        await asyncio.sleep(ATTACH_AFTER_S)
        if seat.form is not Form.OCM or seat.call.lost:
            return
        try:
            listed = await seat.call.members()
        except OcmError:
            return  # it keeps the connection, but knows no such question
        self._attached = True
        self._names = dict.fromkeys((*listed.members, *self._names))

    # --- losing and finding the way -----------------------------------------------------------------------

    def _on_lost(self) -> None:
        """The server ended the connection: if it was kept for us that means something."""
        if self._attached and not self._inbox.closed:
            self._lose()
            try:
                self._task = self._spawn(self._redial())
            except LocalProtocolError as error:  # what we belong to is coming to its end
                self._end(error=error)

    def _lose(self) -> None:
        self._attached = False
        self._outbox.connected = False
        self._connection = Connection.RECONNECTING

    async def _redial(self) -> None:
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + GIVE_UP_AFTER_S
        gone_s = loop.time() + ROOM_GONE_AFTER_S
        token: bytes | None = None
        attempt = 0
        self._inbox.put(ConnectionChanged(Connection.RECONNECTING, 0))
        while True:
            wait_s = REDIAL_DELAYS_S[min(attempt, len(REDIAL_DELAYS_S) - 1)]
            await asyncio.sleep(wait_s * (1 + self._jitter() / 4))
            attempt += 1
            if self._seat is not None:
                token = self._seat.token
                self._seat.close()
                self._seat = None
            try:
                await self._enter_again(token)
            except RoomRefused as refused:
                if refused.code == Refusal.NOT_FOUND and loop.time() > gone_s:
                    self._end(RoomClosed(Reason.GONE))
                    return
                last: OcmError = refused
            except OcmError as error:
                last = error
            else:
                self._inbox.put(ConnectionChanged(Connection.CONNECTED, attempt))
                seat = self._seat
                if seat is None:
                    return
                await self._attach(seat)
                if seat.form is not Form.OCM or not seat.call.lost:
                    return
                self._lose()  # the server keeps connections, so it is gone again
                last = TransportClosed("the server ended the connection")
            if loop.time() > give_up_s:
                self._end(error=last)
                return
            self._inbox.put(ConnectionChanged(Connection.RECONNECTING, attempt))

    async def _enter_again(self, token: bytes | None) -> None:
        """Join by our old token; make the room anew if it was ours and is gone."""
        try:
            await self._take_seat(Operation.JOIN, token=token)
        except RoomRefused as refused:
            if refused.code != Refusal.NOT_FOUND or not self._entrance.create:
                raise
            await self._take_seat(Operation.CREATE, token=token)

    # --- datagrams --------------------------------------------------------------------------------------

    def _on_batch(self, batch: Batch) -> None:
        seat, voice = self._seat, self._voice
        assert seat is not None, "a port that is closed hears nothing"
        assert voice is not None, "it came with the seat"
        server_host, server_port = host_key(seat.server), port_of(seat.server)
        for data, source in batch:
            if port_of(source) == server_port and host_key(source) == server_host:
                heard = voice.decode(data)
                if heard is not None:
                    self._hear(heard)

    def _hear(self, heard: Heard) -> None:
        match heard:
            case Said(None, text) if (receipt := self._outbox.hear(text)) is not None:
                self._receive(receipt)
            case Said(name, text):
                self._inbox.put(Message(Person(name), text))
            case notices.MemberJoined(name):
                if len(self._names) < self._limits.members_per_room_max:
                    self._names[name] = None
                self._inbox.put(MemberJoined(Person(name)))
            case notices.MemberLeft(name, reason):
                self._names.pop(name, None)
                self._inbox.put(MemberLeft(Person(name), reason))
            case notices.RoomClosed(reason):
                self._end(RoomClosed(reason))
            case notices.Removed(reason):
                self._end(Removed(reason))
            case notices.Slowed(dropped):
                self._inbox.put(Slowed(dropped))
            case notices.Announcement(text):
                self._inbox.put(Announcement(text))
            case _:
                assert_never(heard)

    def _flush(self) -> None:
        """Send what may be sent, tell what is known, re-arm the one timer."""
        seat, voice = self._seat, self._voice
        now_s = asyncio.get_running_loop().time()
        receipts = self._outbox.handle_timeout(now_s=now_s)
        if seat is not None and voice is not None and not self._inbox.closed:
            for body, receipt in self._outbox.bodies_to_send(now_s=now_s):
                datagram = voice.encode(body)
                slot = seat.port.slots(1)[0]
                slot.view[: len(datagram)] = datagram
                slot.size, slot.to = len(datagram), seat.server
                seat.port.flush()
                if receipt is not None:
                    receipts.append(receipt)
        for receipt in receipts:
            self._receive(receipt)
        if self._timer is not None:
            self._timer.cancel()
        at_s = self._outbox.next_timeout_s()
        self._timer = None if at_s is None else asyncio.get_running_loop().call_at(at_s, self._flush)

    def _receive(self, receipt: Receipt) -> None:
        arrival = self._receipts.pop(receipt.message_id, None)
        if arrival is not None and not arrival.done():
            arrival.set_result(receipt)
        self._inbox.put(receipt)
        if self._outbox.is_settled:
            self._settled.set()

    # --- the end ----------------------------------------------------------------------------------------

    def _end(self, last: RoomClosed | Removed | None = None, *, error: OcmError | None = None) -> None:
        """Let go of everything; what was never sent is refused."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        self._outbox.close()
        self._outbox.connected = False
        for arrival in self._receipts.values():
            if not arrival.done():
                arrival.set_exception(SendRefused("closed"))
        self._receipts.clear()
        self._settled.set()
        self._inbox.close(last, error=error)
        if self._seat is not None:
            self._seat.close()
            self._seat = None

    async def _stop_task(self) -> None:
        """Let a question under way be answered, so that the connection can be used; stop reconnecting."""
        task, self._task = self._task, None
        if task is None:
            return
        if self.connection is Connection.CONNECTED:
            await asyncio.wait([task], timeout=ATTACH_AFTER_S + LEAVE_TIMEOUT_S)
        task.cancel()
        await asyncio.wait([task])
