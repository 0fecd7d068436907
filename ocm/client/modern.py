"""The client's driver of TCRP/2: one machine, its TLS connections, its port, its store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

from ocm.client.modern_room import ModernRoom
from ocm.client.room import Spawn
from ocm.errors import (
    ConnectFailed,
    HandshakeFailed,
    OcmError,
    StateFailed,
    TransportClosed,
)
from ocm.protocol.address import V4_SIZE, Address, host_key, make_address, split_address
from ocm.protocol.agent import Agent, Answered, Ended, EntryRefused, Replaced, Seating, Session, Settled
from ocm.protocol.entry import Policy
from ocm.protocol.limits import Limits
from ocm.protocol.session.keys import Randomness
from ocm.protocol.url import ServerUrl
from ocm.protocol.wire.sealed import SEALED_ACCEPTED_MAX
from ocm.store.base import ClientState
from ocm.transport.base import (
    Authorities,
    Batch,
    ClientSecurity,
    DatagramPort,
    Network,
    Pinned,
    SecureStream,
    Stream,
    StreamHandler,
    Trust,
)

CONNECT_TIMEOUT_S: Final = 10.0
"""How long a connection and its handshake may take."""
CLOSE_TIMEOUT_S: Final = 2.0
"""How long a server may take to hang up behind our last word."""
SLEPT_S: Final = 5.0
"""Wall clock ahead of the loop's by so much: the machine slept (TCRP/2 section 5)."""
_LOOK_S: Final = 5.0
"""How often the two clocks are compared."""
_WRITE_SIZE: Final = 32_768
"""Bytes of frames written at a time."""


class _Connection:
    """One TLS connection and its session (a ``StreamHandler`` of what TLS opened)."""

    def __init__(self, agency: Agency, stream: SecureStream, session: Session) -> None:
        self.stream = stream
        self.session = session
        self.is_up = True
        self._agency = agency
        self._full = False
        self._ending = False

    @property
    def space(self) -> int:
        """Bytes of frames that may be written now."""
        return 0 if self._full else _WRITE_SIZE

    def data_received(self, data: bytes) -> None:
        """Take bytes; behind our last word they are of no interest."""
        if not self._ending:
            self.session.receive_data(data, now_s=self._agency.now_s())
            self._agency.settle()

    def eof_received(self) -> None:
        """Close, too."""
        self.stream.close()

    def pause_writing(self) -> None:
        """Write no frames until the server has read. We go on reading: it may wait for that."""
        self._full = True

    def resume_writing(self) -> None:
        """Go on."""
        self._full = False
        self._agency.settle()

    def connection_lost(self, error: Exception | None) -> None:
        """Tell the session."""
        self.is_up = False
        self.session.lost(now_s=self._agency.now_s())
        self._agency.settle()

    def end(self) -> None:
        """Say nothing more, and give the server time to read what was said."""
        if not self._ending and self.is_up:
            self._ending = True
            self.stream.write_eof()
            asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, self.stream.abort)


class Agency:
    """One user at one server: drives an ``Agent`` and keeps its rooms."""

    def __init__(
        self,
        network: Network,
        security: ClientSecurity,
        url: ServerUrl,
        *,
        user: str,
        password: str | None,
        limits: Limits,
        state: ClientState,
        randomness: Randomness,
        jitter: Callable[[], float],
        clock: Callable[[], float],
        spawn: Spawn,
    ) -> None:
        """Prepare; the first room that is entered connects.

        Args:
            network: where streams and datagrams come from.
            security: makes streams secure.
            url: where the server is, and its pin.
            user: the user's name.
            password: shown to the server with every room that is entered.
            limits: how much to keep.
            state: what is remembered over our own end.
            randomness: for secrets, ids and challenges.
            jitter: draws from [0, 1).
            clock: the time of day, to notice that the machine slept.
            spawn: runs what goes on in the background.

        Raises:
            StateFailed: what is remembered cannot be read.
        """
        self.limits = limits
        self.user = user
        self.failure: OcmError | None = None
        """Why the last attempt to connect failed."""
        self.agent = Agent(state.load(), user=user, limits=limits, randomness=randomness, jitter=jitter)
        self._network = network
        self._security = security
        self._url = url
        self._trust: Trust = Authorities(url.host) if url.fingerprint is None else Pinned(url.fingerprint)
        self._password = password
        self._state = state
        self._clock = clock
        self._spawn = spawn
        self._loop = asyncio.get_running_loop()
        self._rooms: dict[str, ModernRoom] = {}
        self._connections: dict[Session, _Connection] = {}
        self._port: DatagramPort | None = None
        self._server: Address = b""
        self._handed_out = 0
        self._timer: asyncio.TimerHandle | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._ahead_s = 0.0
        self._dialling: asyncio.Task[None] | None = None
        self._settling = False
        self._closed = False

    def now_s(self) -> float:
        """Return the loop's time."""
        return self._loop.time()

    # --- rooms ------------------------------------------------------------------------------------------

    def room(self, name: str, create: bool, policy: Policy | None) -> ModernRoom:
        """Prepare a room to be entered."""
        return ModernRoom(self, name, create=create, policy=policy)

    def enter(self, room: ModernRoom, *, create: bool, policy: Policy | None) -> None:
        """Want to be in a room. Raises ``LocalProtocolError`` when that is so already."""
        self.agent.enter(room.name, create=create, policy=policy, password=self._password, now_s=self.now_s())
        self._rooms[room.name] = room
        if self._watch is None:
            self._ahead_s = self._clock() - self.now_s()
            self._look_at_clock()
        self.settle()

    def forget(self, room: ModernRoom) -> None:
        """Hear that a room is over, and read."""
        if self._rooms.get(room.name) is room:
            del self._rooms[room.name]

    # --- the one place that keeps machine, network, store and timer together ----------------------------------

    def settle(self) -> None:
        """Store, send, tell and dial what is due; re-arm the timer. To be called after every call of the machine."""
        if self._settling or self._closed:
            return
        self._settling = True
        try:
            again = True
            while again:
                again = self._store()
                self._send()  # first: what is too large for a datagram goes over TLS then
                self._write()
                again = self._tell() or again
            self._dial_if_due()
            self._arm()
        finally:
            self._settling = False

    def _store(self) -> bool:
        memos = self.agent.memos_to_store()
        if not memos:
            return False
        self._handed_out += len(memos)
        self._state.submit(memos, partial(self._on_stored, self._handed_out))
        return True

    def _on_stored(self, count: int, error: StateFailed | None) -> None:
        if error is not None:
            self._fail(error)
            return
        self.agent.stored(count, now_s=self.now_s())
        if not self._settling:  # else it was stored at once, and is settled by who called
            self.settle()

    def _write(self) -> None:
        for session, connection in list(self._connections.items()):
            if connection.is_up:
                data = session.data_to_send(space=connection.space, now_s=self.now_s())
                if data:
                    connection.stream.write(data)
                if len(data) >= _WRITE_SIZE:
                    self._loop.call_soon(self.settle)
            if session.gave_up and connection.is_up:
                connection.stream.abort()
            if session.is_over:
                connection.end()
                del self._connections[session]

    def _send(self) -> None:
        datagrams = self.agent.datagrams_to_send(now_s=self.now_s())
        port = self._port
        if port is None:
            return
        done = 0
        while done < len(datagrams):
            for slot in port.slots(len(datagrams) - done):
                slot.to, datagram = datagrams[done]
                slot.view[: len(datagram)] = datagram
                slot.size = len(datagram)
                done += 1
            port.flush()

    def _tell(self) -> bool:
        events = self.agent.events()
        for event in events:
            match event:
                case Seating(room=name) | EntryRefused(room=name) | Ended(room=name) | Settled(room=name):
                    room = self._rooms.get(name)
                    if room is not None:
                        room.hear(event)
                case Answered():
                    for room in self._rooms.values():
                        room.answer(event)
                case Replaced():
                    self._fail(TransportClosed("another program goes on in our place"))
        for room in list(self._rooms.values()):
            room.wake()
        return bool(events)

    def _dial_if_due(self) -> None:
        dial_s = self.agent.next_dial_s()
        if dial_s is not None and dial_s <= self.now_s() and self._rooms:
            self.agent.dialling(now_s=self.now_s())
            self._dialling = self._spawn(self._dial())

    def _arm(self) -> None:
        times = (self.agent.next_timeout_s(), self.agent.next_dial_s() if self._rooms else None)
        at_s = min((one for one in times if one is not None), default=None)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if at_s is None else self._loop.call_at(at_s, self._on_timer)

    def _on_timer(self) -> None:
        self.agent.handle_timeout(now_s=self.now_s())
        self.settle()

    def _look_at_clock(self) -> None:
        """See whether the machine slept: its wall clock went on, and the loop's did not."""
        ahead_s = self._clock() - self.now_s()
        if ahead_s - self._ahead_s > SLEPT_S:
            self.agent.woke(now_s=self.now_s())
            self.settle()
        self._ahead_s = ahead_s
        self._watch = self._loop.call_later(_LOOK_S, self._look_at_clock)

    # --- connecting -------------------------------------------------------------------------------------

    async def _dial(self) -> None:
        try:
            stream = await self._connect()
        except OcmError as error:
            self.failure = error
            self.agent.dial_failed(now_s=self.now_s())
            for room in list(self._rooms.values()):
                room.dial_failed(error)
        else:
            self.failure = None
            await self._begin(stream)
        self.settle()

    async def _connect(self) -> SecureStream:
        """Return a connection that is secure. Raises ``ConnectFailed``."""
        error: OcmError = ConnectFailed(f"no address for {self._url.host}")
        for address in await self._network.resolve(self._url.host, self._url.tcp_port):
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    return await self._secure(address)
            except TimeoutError:
                error = ConnectFailed(f"no answer from {self._url.host} port {self._url.tcp_port}")
            except HandshakeFailed:
                raise
            except TransportClosed as failed:
                error = failed
        raise error

    async def _secure(self, address: Address) -> SecureStream:
        done: asyncio.Future[SecureStream] = self._loop.create_future()

        def accept(stream: SecureStream) -> StreamHandler:
            handler = _Early(self, stream)
            if done.done():
                stream.abort()
            else:
                done.set_result(stream)
                self._early = handler
            return handler

        def failed(error: HandshakeFailed) -> None:
            if not done.done():
                done.set_exception(error)

        def begin(stream: Stream) -> StreamHandler:
            return self._security.begin(stream, self._trust, accept, failed)

        host, port = split_address(address)
        stream = await self._network.connect(host, port, begin, write_buffer_max=self.limits.send_buffer_max)
        try:
            return await done
        except BaseException:
            stream.abort()
            raise

    async def _begin(self, stream: SecureStream) -> None:
        host, _ = split_address(stream.remote)
        await self._open_port(stream.remote)
        session = self.agent.opened(
            server_key=stream.server_key, server_address=partial(make_address, host), now_s=self.now_s()
        )
        connection = self._connections[session] = _Connection(self, stream, session)
        self._early.hand_over(connection)

    async def _open_port(self, server: Address) -> None:
        """Open the port for datagrams, in the family of addresses that the server is reached by."""
        if self._port is not None and len(self._server) == len(server):
            return
        if self._port is not None:
            self._port.close()
        self._server = server
        wildcard = "0.0.0.0" if len(server) == V4_SIZE else "::"
        self._port = await self._network.open_port(
            wildcard, 0, self._on_batch, size_max=SEALED_ACCEPTED_MAX, unsent_max=self.limits.unsent_datagrams_max
        )

    def _on_batch(self, batch: Batch) -> None:
        now_s = self.now_s()
        for data, source in batch:
            self.agent.receive_datagram(data, source, now_s=now_s)
        self.settle()

    # --- the end ----------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Say goodbye without leaving any room; close everything."""
        if self._closed:
            return
        if self._dialling is not None:
            self._dialling.cancel()
        self.agent.close(now_s=self.now_s())
        self.settle()
        self._closed = True
        for timer in (self._timer, self._watch):
            if timer is not None:
                timer.cancel()
        if self._port is not None:
            self._port.close()
        for connection in list(self._connections.values()):
            connection.end()

    def _fail(self, error: OcmError) -> None:
        """Nothing can go on: every room ends with the error."""
        for room in list(self._rooms.values()):
            room.fail(error)


class _Early:
    """Holds what a stream says between its handshake and its session."""

    def __init__(self, agency: Agency, stream: SecureStream) -> None:
        self._agency = agency
        self._stream = stream
        self._heir: _Connection | None = None
        self._data = b""
        self._ended = False
        self._lost: list[Exception | None] = []

    def hand_over(self, heir: _Connection) -> None:
        """Let somebody else hear, what came so far too."""
        self._heir = heir
        if self._data:
            heir.data_received(self._data)
        if self._ended:
            heir.eof_received()
        for error in self._lost:
            heir.connection_lost(error)

    def data_received(self, data: bytes) -> None:
        """Pass on, or hold."""
        if self._heir is None:
            self._data += data
        else:
            self._heir.data_received(data)

    def eof_received(self) -> None:
        """Pass on, or hold."""
        if self._heir is None:
            self._ended = True
        else:
            self._heir.eof_received()

    def pause_writing(self) -> None:
        """Pass on."""
        if self._heir is not None:
            self._heir.pause_writing()

    def resume_writing(self) -> None:
        """Pass on."""
        if self._heir is not None:
            self._heir.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        """Pass on, or hold."""
        if self._heir is None:
            self._lost.append(error)
        else:
            self._heir.connection_lost(error)


def is_same_host(one: Address, other: Address) -> bool:
    """Tell whether two addresses are of one host."""
    return host_key(one) == host_key(other)
