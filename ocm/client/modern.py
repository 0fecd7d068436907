"""The client's driver of TCRP/2: one machine, its TLS connections, its ports, its store."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from ocm import forks
from ocm.client.modern_dial import Dialler
from ocm.client.modern_room import ModernRoom
from ocm.client.room import Spawn
from ocm.errors import ConnectFailed, LocalProtocolError, OcmError, RemoteProtocolError, StateFailed, TransportClosed
from ocm.protocol.address import V4_SIZE, Address, make_address, split_address
from ocm.protocol.agent import Agent, AgentRoom, Answered, Ended, EntryRefused, Replaced, Seating, Session, Settled
from ocm.protocol.entry import Policy
from ocm.protocol.events import Connection as Reach
from ocm.protocol.events import Event
from ocm.protocol.limits import Limits
from ocm.protocol.session.keys import Randomness
from ocm.protocol.url import ServerUrl
from ocm.protocol.wire.records import CloseCode
from ocm.protocol.wire.sealed import SEALED_ACCEPTED_MAX
from ocm.store.base import ClientState
from ocm.transport.base import Batch, ClientSecurity, DatagramPort, Network, SecureStream, StreamHandler
from ocm.transport.batch import send_all

CLOSE_TIMEOUT_S: Final = 2.0
"""How long a server may take to hang up behind our last word."""
GIVE_BACK_TIMEOUT_S: Final = 2.0
"""How long a server may take to hear that we do not want seats that we asked for."""
REMEMBER_AFTER_S: Final = 1.0
"""How long after something was read that is stored, at the latest."""
SLEPT_S: Final = 5.0
"""Wall clock ahead of the loop's by so much: the machine slept (TCRP/2 section 5)."""
STORE_AGAIN_S: Final = (0.25, 0.5, 1.0, 2.0, 5.0)
"""How long a state that could not be written is left alone; the last one repeats."""
_LOOK_S: Final = 1.0
"""How often the two clocks are compared, and our address with what it was."""
_WRITE_SIZE: Final = 32_768
"""Bytes of frames written at a time."""


class _Connection:
    """One TLS connection and its session (a ``StreamHandler`` of what TLS opened)."""

    def __init__(self, agency: Agency, stream: SecureStream, session: Session) -> None:
        self.stream = stream
        self.session = session
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the connection is gone."""
        self._agency = agency
        self._full = False
        self._ending = False

    @property
    def is_up(self) -> bool:
        """Whether the connection is there."""
        return not self.gone.done()

    @property
    def space(self) -> int:
        """Bytes of frames that may be written now."""
        return 0 if self._full else _WRITE_SIZE

    def data_received(self, data: bytes) -> None:
        """Take bytes; behind our last word they are of no interest."""
        if not self._ending:
            self._agency.hear(lambda: self.session.receive_data(data, now_s=self._agency.now_s()))

    def eof_received(self) -> None:
        """Close, too."""
        self.stream.close()

    def pause_writing(self) -> None:
        """Write no frames until the server has read. We go on reading: it may wait for that."""
        self._full = True

    def resume_writing(self) -> None:
        """Go on."""
        self._full = False
        self._agency.hear(lambda: None)

    def connection_lost(self, error: Exception | None) -> None:
        """Tell the session."""
        self.gone.set_result(None)
        self._agency.lost(self)

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
        forks.watch(self.agent)
        self._network = network
        self._dialler = Dialler(network, security, url, limits.send_buffer_max)
        self._password = password
        self._state = state
        self._clock = clock
        self._spawn = spawn
        self._loop = asyncio.get_running_loop()
        self._rooms: dict[str, ModernRoom] = {}
        self._sessions: dict[Session, _Connection] = {}
        self._connections: dict[_Connection, None] = {}
        """Those that are there, in the order they were made."""
        self._ports: dict[int, DatagramPort] = {}
        """By the size of an address: one for IPv4, one for IPv6."""
        self._stored = 0
        """Memos that were stored since we began."""
        self._storing = False
        self._store_failures = 0
        """In a row."""
        self._store_later: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._armed_s: float | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._remembering: asyncio.TimerHandle | None = None
        self._ahead_s = 0.0
        self._server: Address | None = None
        """Where the last connection goes."""
        self._source: Address | None = None
        """Our own address on the way there."""
        self._dialling: asyncio.Task[None] | None = None
        self._settling = False
        self._is_due = False
        self._settled = asyncio.Event()
        self._broken: OcmError | None = None
        self._unkept: StateFailed | None = None
        """Why the last that was to be remembered is not."""
        self._closed = False

    def now_s(self) -> float:
        """Return the loop's time."""
        return self._loop.time()

    # --- rooms ------------------------------------------------------------------------------------------

    def room(self, name: str, create: bool, policy: Policy | None) -> ModernRoom:
        """Prepare a room to be entered."""
        return ModernRoom(self, name, create=create, policy=policy)

    def enter(self, room: ModernRoom, *, create: bool, policy: Policy | None) -> AgentRoom:
        """Want to be in a room; return its machine.

        Raises:
            LocalProtocolError: we are in it already, or the client's block has ended.
            StateFailed: what is remembered cannot be written just now.
            OcmError: why nothing can go on.
        """
        if self._closed:
            raise LocalProtocolError("the client's ``async with`` has ended")
        if self._broken is not None:
            raise self._broken
        if self.agent.state_failure is not None:
            raise StateFailed(self.agent.state_failure)
        self.agent.enter(room.name, create=create, policy=policy, password=self._password, now_s=self.now_s())
        self._rooms[room.name] = room
        if self._watch is None:
            self._ahead_s = self._clock() - self.now_s()
            self._look_around()
        machine = self.agent.room(room.name)
        self.settle()
        return machine

    def read(self, room: ModernRoom, machine: AgentRoom) -> Event | None:
        """Return the next event of a room, or None: there is none now."""
        if self._rooms.get(room.name) is not room or not self.agent.is_in(room.name):
            return machine.read(now_s=self.now_s())  # what is left of one that we are not in any more
        due_s = machine.next_timeout_s()
        event = self.agent.read(room.name, now_s=self.now_s())
        if event is not None and self._remembering is None:
            self._remembering = self._loop.call_later(REMEMBER_AFTER_S, self._remember)
        if machine.next_timeout_s() != due_s or self.agent.has_news:
            self.settle()
        return event

    def _remember(self) -> None:
        """Have it stored up to where rooms were read: who is killed does not read much twice."""
        self._remembering = None
        self.agent.flush_reads()
        self.settle()

    def leave(self, room: ModernRoom) -> None:
        """Want to be out of a room; it hears when that is so."""
        self.agent.leave(room.name, now_s=self.now_s())
        self.settle()

    def forget(self, room: ModernRoom) -> None:
        """Tell a room nothing more."""
        if self._rooms.get(room.name) is room:
            del self._rooms[room.name]

    async def remembered(self) -> None:
        """Wait until what is being stored is, or cannot be."""
        while self._storing and self.agent.state_failure is None:
            self._settled.clear()
            await self._settled.wait()

    # --- the one place that keeps machine, network, store and timer together ----------------------------------

    def settle_soon(self) -> None:
        """The same at the end of this turn of the loop: what is said in one turn shares datagrams."""
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self.hear, lambda: None)

    def settle(self) -> None:
        """Store, send, tell and dial what is due; re-arm the timer. To be called after every call of the machine.

        Called from inside itself it does nothing: whoever is in it goes on until nothing is left.
        """
        self._is_due = False
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
        self._settled.set()

    def hear(self, act: Callable[[], object]) -> None:
        """Take something from outside, then settle. What goes wrong in that ends the client's block."""
        try:
            act()
            self.settle()
        except Exception as error:
            self._spawn(_raise(error))

    def lost(self, connection: _Connection) -> None:
        """Hear that a connection is gone."""
        self._connections.pop(connection, None)
        self.hear(lambda: connection.session.lost(now_s=self.now_s()))

    def _store(self) -> bool:
        """Store what is to be, one batch at a time; where that failed, not before it is time again."""
        if self._storing or self._store_later is not None:
            return False
        memos = self.agent.memos_to_store()
        if not memos:
            return False
        self._storing = True
        self._state.submit(memos, partial(self._on_stored, len(memos)))
        return True

    def _on_stored(self, count: int, error: StateFailed | None) -> None:
        self._storing = False
        if error is None:
            self._stored += count
            self._store_failures = 0
            self.hear(lambda: self.agent.stored(self._stored, now_s=self.now_s()))
        else:
            self._store_failed(error)

    def _store_failed(self, error: StateFailed) -> None:
        """Go on without, and try again: a disk that is full may have room again."""
        if self._closed:
            self._unkept = error
            return
        wait_s = STORE_AGAIN_S[min(self._store_failures, len(STORE_AGAIN_S) - 1)]
        self._store_failures += 1
        self._store_later = self._loop.call_later(wait_s, self._store_again)
        for room in list(self._rooms.values()):
            room.not_let_in(error)
        self.hear(lambda: self.agent.store_failed(str(error)))

    def _store_again(self) -> None:
        self._store_later = None
        self.hear(lambda: None)

    def _write(self) -> None:
        for session, connection in list(self._sessions.items()):
            if connection.is_up:
                data = session.data_to_send(space=connection.space, now_s=self.now_s())
                if data:
                    connection.stream.write(data)
                if len(data) >= _WRITE_SIZE:
                    self._loop.call_soon(self.hear, lambda: None)
            if session.gave_up and connection.is_up:
                connection.stream.abort()
            if session.is_over:
                connection.end()
                del self._sessions[session]
                if session.channel is None:
                    self._turned_away(session)

    def _send(self) -> None:
        self._send_all(self.agent.datagrams_to_send(now_s=self.now_s()))

    def _send_all(self, datagrams: Sequence[tuple[Address, bytes]]) -> None:
        by_port: dict[DatagramPort, list[tuple[Address, bytes]]] = {}
        for address, datagram in datagrams:
            port = self._ports.get(len(address)) or next(iter(self._ports.values()))  # which may reach both families
            by_port.setdefault(port, []).append((address, datagram))
        for port, mine in by_port.items():
            send_all(port, mine)

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
        for room in self._rooms.values():
            room.wake_if_readable()
        return bool(events)

    def _dial_if_due(self) -> None:
        dial_s = self.agent.next_dial_s()
        if dial_s is None or dial_s > self.now_s() or not self._rooms:
            return
        self.agent.dialling(now_s=self.now_s())
        try:
            self._dialling = self._spawn(self._dial())
        except LocalProtocolError as error:  # what we belong to is coming to its end
            self.agent.dial_failed(now_s=self.now_s())
            self._fail(error)

    def _arm(self) -> None:
        """Have the machine woken when it wants to be. A timer that is early is left: it is looked at then."""
        times = (self.agent.next_timeout_s(), self.agent.next_dial_s() if self._rooms else None)
        at_s = min((one for one in times if one is not None), default=None)
        if at_s is None or (self._armed_s is not None and self._armed_s <= at_s):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._armed_s = at_s
        self._timer = self._loop.call_at(at_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = self._armed_s = None
        self.hear(lambda: self.agent.handle_timeout(now_s=self.now_s()))

    def _look_around(self) -> None:
        """See whether the machine slept, so that its wall clock went on and the loop's did not, or has moved."""
        ahead_s = self._clock() - self.now_s()
        if ahead_s - self._ahead_s > SLEPT_S:
            self.hear(lambda: self.agent.woke(now_s=self.now_s()))
        self._ahead_s = ahead_s
        source = None if self._server is None else self._network.source(self._server)
        if source is not None and source != self._source:
            self._source = source
            self.hear(lambda: self.agent.moved(now_s=self.now_s()))
        self._watch = self._loop.call_later(_LOOK_S, self._look_around)

    # --- connecting -------------------------------------------------------------------------------------

    async def _dial(self) -> None:
        try:
            await self._dialler.dial(prepare=self._open_port, accept=self._opened, within_s=self.agent.patience_s)
        except TimeoutError as error:  # a packet may be lost: who waits to get in goes on waiting
            self.failure = ConnectFailed(str(error))
            self.agent.dial_failed(now_s=self.now_s())
        except OcmError as error:
            self.agent.dial_failed(now_s=self.now_s())
            self._dial_failed(error)
        self.settle()

    def _dial_failed(self, error: OcmError) -> None:
        self.failure = error
        for room in list(self._rooms.values()):
            room.dial_failed(error)

    def _turned_away(self, session: Session) -> None:
        """A session ended before the server knew us: for who waits to get in that is as if nobody had answered."""
        if session.closing is CloseCode.PROTOCOL:
            self._dial_failed(RemoteProtocolError("the server does not keep to TCRP/2"))
        else:
            self._dial_failed(TransportClosed("the server did not say that it knows us"))

    def _opened(self, stream: SecureStream) -> StreamHandler:
        """Begin a session. Datagrams go where the stream goes, to the port that the server names."""
        host, _ = split_address(stream.remote)
        self._server, self._source = stream.remote, self._network.source(stream.remote)
        session = self.agent.opened(
            server_key=stream.server_key, server_address=partial(make_address, host), now_s=self.now_s()
        )
        connection = self._sessions[session] = _Connection(self, stream, session)
        self._connections[connection] = None
        self.failure = None
        return connection

    async def _open_port(self, server: Address) -> None:
        """Open the port for datagrams, in the family of addresses that the server is reached by."""
        if len(server) not in self._ports:
            self._ports[len(server)] = await self._network.open_port(
                "0.0.0.0" if len(server) == V4_SIZE else "::",
                0,
                self._on_batch,
                size_max=SEALED_ACCEPTED_MAX,
                unsent_max=self.limits.unsent_datagrams_max,
            )

    def _on_batch(self, batch: Batch) -> None:
        def take() -> None:
            now_s = self.now_s()
            for data, source in batch:
                self.agent.receive_datagram(data, source, now_s=now_s)

        self.hear(take)

    # --- the end ----------------------------------------------------------------------------------------

    async def finish(self) -> None:
        """Close, the state too. Raises ``StateFailed`` where not everything is in it."""
        await self.close()
        self._state.close()
        if self._unkept is not None:
            raise self._unkept

    async def close(self) -> None:
        """Say goodbye without leaving any room, give the server time to hear it, close everything. Idempotent."""
        if self._closed:
            return
        try:
            await self._wait_for_leaves()
        finally:
            self._say_goodbye()
            await self._hang_up()

    async def _wait_for_leaves(self) -> None:
        """Wait until the server knows of the rooms that we were about to enter and do not want any more."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GIVE_BACK_TIMEOUT_S):
                while self.agent.is_leaving and self.agent.connection is Reach.CONNECTED:
                    self._settled.clear()
                    await self._settled.wait()

    def _say_goodbye(self) -> None:
        if self._dialling is not None:
            self._dialling.cancel()
        for room in list(self._rooms.values()):
            room.end()
        self.agent.close(now_s=self.now_s())
        self.settle()
        self._closed = True
        for timer in (self._timer, self._watch, self._remembering, self._store_later):
            if timer is not None:
                timer.cancel()
        self._storing, self._store_later = False, None
        self._store()  # behind what is being stored
        for port in self._ports.values():
            port.close()

    async def _hang_up(self) -> None:
        """Let the server end the connections, which are of no use to us any more; if it does not, do it."""
        gone = [connection.gone for connection in self._connections]
        if not gone:
            return
        try:
            await asyncio.wait(gone, timeout=CLOSE_TIMEOUT_S)
        finally:
            for connection in self._connections:
                connection.stream.abort()
        await asyncio.wait(gone)

    def _fail(self, error: OcmError) -> None:
        """Nothing can go on: every room ends with the error."""
        if self._broken is not None:
            return
        self._broken = error
        self.agent.close(now_s=self.now_s())
        for room in list(self._rooms.values()):
            room.fail(error)


async def _raise(error: Exception) -> None:
    raise error
