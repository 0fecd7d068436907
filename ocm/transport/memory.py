"""A network without sockets: streams and datagrams between objects of one process.

Nothing here knows a thread, a clock or a file: everything moves in the next turn of the event loop that
runs, whichever loop that is. Nothing is lost but what the real thing would lose to full buffers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from copy import copy
from typing import Final, Literal, TypeAlias

from ocm.errors import AddressInUse, ConnectFailed, LocalProtocolError, TransportClosed
from ocm.protocol.address import V4_SIZE, V6_SIZE, Address, address_text, ip_of, make_address, port_of
from ocm.transport.base import Accept, Batch, DatagramPort, Stream, StreamHandler, StreamListener
from ocm.transport.line import BATCH_MAX, OneByOnePort
from ocm.transport.sockaddr import plain

Kind: TypeAlias = Literal["TCP", "UDP"]

INBOX_MAX: Final = 16_384
"""Datagrams that wait for one port's next turn; above it they are lost, as in a full socket."""
_PAYLOAD_MAX: Final = 65_507
_FREE_PORTS: Final = range(49_152, 65_536)
_WILDCARDS: Final = frozenset({"0.0.0.0", "::"})
_WILDCARD_IPS: Final = frozenset(ip_of(make_address(host, 0)) for host in _WILDCARDS)


class MemoryNetwork:
    """One host of an in-memory network (see ``Network``), at first the only one, 127.0.0.1.

    All hosts reach each other by their addresses, and every host knows 127.0.0.1 as ``localhost``: it is
    one host here, not each one's own.
    """

    def __init__(self, *, datagrams_per_turn: int | None = None) -> None:
        """Make a network.

        Args:
            datagrams_per_turn: datagrams that one port gets rid of in one turn of the loop, as if its
                socket had little room; None is no limit.
        """
        self._world = _World(datagrams_per_turn)
        self._here = make_address("127.0.0.1", 0)

    def host(self, address: str) -> MemoryNetwork:
        """Return the same network as seen from the host with this numeric address."""
        view = copy(self)
        view._here = plain(make_address(address, 0))
        return view

    async def listen(self, host: str | None, port: int, accept: Accept, *, write_buffer_max: int) -> StreamListener:
        """Accept streams (see ``Network.listen``)."""
        local = await self._claim("TCP", host, port)
        return _MemoryListener(self._world, local, accept, write_buffer_max)

    async def connect(
        self, host: str, port: int, accept: Accept, *, write_buffer_max: int, local: Address | None = None
    ) -> Stream:
        """Open a stream (see ``Network.connect``)."""
        remote = plain((await self.resolve(host, port))[0])
        listener = self._world.listeners.get(remote)
        if listener is None:
            raise ConnectFailed(f"nobody answers at {address_text(remote)} (connection refused)")
        if local is not None and ip_of(local) not in _WILDCARD_IPS and plain(local)[2:] != self._here[2:]:
            raise ConnectFailed(f"cannot connect from {address_text(local)}: not of this host")
        source = self._world.claim("TCP", self._here, port_of(local or self._here))
        ours = MemoryStream(source, remote, write_buffer_max, lambda: self._world.release("TCP", source))
        theirs = MemoryStream(remote, source, listener.write_buffer_max, lambda: None)
        ours.join(theirs)
        theirs.join(ours)
        loop = asyncio.get_running_loop()
        begun = loop.create_future()
        loop.call_soon(listener.begin, theirs)
        loop.call_soon(_begin, ours, accept, begun)
        await begun
        return ours

    async def open_port(
        self,
        host: str | None,
        port: int,
        on_batch: Callable[[Batch], None],
        *,
        size_max: int,
        unsent_max: int,
        multihomed: bool = False,
    ) -> DatagramPort:
        """Open a datagram port (see ``Network.open_port``). A host has one address here: all leaves from there."""
        local = await self._claim("UDP", host, port)
        return MemoryPort(self._world, local, on_batch, size_max=size_max, unsent_max=unsent_max)

    async def resolve(self, host: str, port: int) -> Sequence[Address]:
        """Return the address of a numeric host or of ``localhost`` (see ``Network.resolve``)."""
        try:
            return [make_address("127.0.0.1" if host == "localhost" else host, port)]
        except LocalProtocolError as error:
            raise ConnectFailed(f"no such host name: {host}") from error

    def source(self, destination: Address) -> Address | None:
        """Return this host's address (see ``Network.source``)."""
        return self._here

    async def _claim(self, kind: Kind, host: str | None, port: int) -> Address:
        if host is not None and host not in _WILDCARDS:
            (found,) = await self.resolve(host, 0)
            if plain(found) != self._here:
                raise TransportClosed(f"cannot listen on {kind}: not an address of this host")
        return self._world.claim(kind, self._here, port)


class _World:
    """What all hosts of one memory network share: who has which address."""

    def __init__(self, datagrams_per_turn: int | None) -> None:
        self.datagrams_per_turn = datagrams_per_turn
        self.listeners: dict[Address, _MemoryListener] = {}
        self.ports: dict[Address, MemoryPort] = {}
        self._taken: set[tuple[Kind, Address]] = set()
        self._next_free = 0

    def claim(self, kind: Kind, host: Address, port: int) -> Address:
        """Take a port of a host, 0 for a free one. Raises ``AddressInUse``."""
        for _ in range(1 if port else len(_FREE_PORTS)):
            candidate = port or _FREE_PORTS[self._next_free]
            address = candidate.to_bytes(2, "big") + host[2:]
            self._next_free = (self._next_free + 1) % len(_FREE_PORTS)
            if (kind, address) not in self._taken:
                self._taken.add((kind, address))
                return address
        raise AddressInUse(kind, port)

    def release(self, kind: Kind, address: Address) -> None:
        """Give a port back."""
        self._taken.discard((kind, address))


class MemoryPort(OneByOnePort[Address]):
    """A datagram port of a memory network."""

    def __init__(
        self,
        world: _World,
        local: Address,
        on_batch: Callable[[Batch], None],
        *,
        size_max: int,
        unsent_max: int,
    ) -> None:
        """Open at ``local``, which was claimed."""
        super().__init__(local, unsent_max=unsent_max)
        self._loop = asyncio.get_running_loop()
        self._world = world
        self._on_batch = on_batch
        self._size_max = size_max
        self._inbox: deque[tuple[bytes, Address]] = deque()
        self._offered = 0
        world.ports[local] = self

    def fit(self, address: Address) -> Address | None:
        """Return the address as the network knows it, or None when nothing can be there."""
        if len(address) not in {V4_SIZE, V6_SIZE} or not port_of(address):
            return None
        return plain(address)

    def arrive(self, payload: bytes, sender: Address) -> None:
        """Take a datagram; ``on_batch`` hears of it in the loop's next turn."""
        if len(self._inbox) >= INBOX_MAX:
            return
        if not self._inbox:
            self._loop.call_soon(self._deliver)
        self._inbox.append((payload, sender))

    def _deliver(self) -> None:
        if self.closed:
            return
        arrived = [self._inbox.popleft() for _ in range(min(len(self._inbox), BATCH_MAX))]
        if self._inbox:
            self._loop.call_soon(self._deliver)
        batch = [datagram for datagram in arrived if len(datagram[0]) <= self._size_max]
        self.counters.oversized += len(arrived) - len(batch)
        self.counters.received += len(batch)
        if batch:
            self._on_batch(batch)

    def _offer(self, payload: bytes, destination: Address) -> bool:
        if (room := self._world.datagrams_per_turn) is not None:
            if self._offered >= room:
                return False
            if not self._offered:
                self._loop.call_soon(self._turn)
            self._offered += 1
        if len(payload) > _PAYLOAD_MAX:
            self.counters.dropped += 1
            return True
        self.counters.sent += 1
        if (port := self._world.ports.get(destination)) is not None:
            port.arrive(payload, self.local)
        return True

    def _turn(self) -> None:
        self._offered = 0
        if self._line:
            self._drain()

    def _watch_writable(self, wanted: bool) -> None:
        """Nothing to do: what waits, waits for a turn that is scheduled already."""

    def _close_pipe(self) -> None:
        self._inbox.clear()
        del self._world.ports[self.local]
        self._world.release("UDP", self.local)


class _MemoryListener:
    """An open door of a memory network."""

    def __init__(self, world: _World, local: Address, accept: Accept, write_buffer_max: int) -> None:
        self.local = local
        self.write_buffer_max = write_buffer_max
        self._world = world
        self._accept = accept
        world.listeners[local] = self

    def close(self) -> None:
        """Accept no more."""
        if self._world.listeners.get(self.local) is self:
            del self._world.listeners[self.local]
            self._world.release("TCP", self.local)

    def begin(self, stream: MemoryStream) -> None:
        """Hand over a new stream, if the door is still open."""
        if self._world.listeners.get(self.local) is self:
            stream.begin(self._accept)
        else:
            stream.abort()


class MemoryStream:
    """One end of a stream of a memory network; what it writes waits here until the other end takes it."""

    def __init__(self, local: Address, remote: Address, write_buffer_max: int, on_gone: Callable[[], None]) -> None:
        """Make an end; ``join`` gives it the other one."""
        self.local = local
        self.remote = remote
        self._loop = asyncio.get_running_loop()
        self._write_buffer_max = write_buffer_max
        self._on_gone = on_gone
        self._handler: StreamHandler | None = None
        self._queue: deque[bytes] = deque()
        self._waiting = 0
        self._due = False
        self._reading = True
        self._told_full = False
        self._closing = False
        self._lost = False
        self._error: TransportClosed | None = None
        self._eof_sent = False
        self._eof_delivered = False

    def join(self, peer: MemoryStream) -> None:
        """Name the other end."""
        self._peer = peer

    def begin(self, accept: Accept) -> None:
        """Ask ``accept`` who hears what follows."""
        try:
            self._handler = accept(self)
        except BaseException:
            self.abort()
            raise
        if self._lost:  # before anybody could be told
            self._tell_lost()

    def write(self, data: bytes) -> None:
        """Queue bytes."""
        if self._closing or self._lost:
            return
        if self._eof_sent:
            raise LocalProtocolError("cannot write after write_eof")
        if data:
            self._queue.append(bytes(data))
            self._waiting += len(data)
            self._schedule()

    def write_eof(self) -> None:
        """Half-close."""
        if not self._closing and not self._lost:
            self._eof_sent = True
            self._schedule()

    def pause_reading(self) -> None:
        """Ask for no more data."""
        self._reading = False

    def resume_reading(self) -> None:
        """Ask for data again."""
        self._reading = True
        self._peer._schedule()

    def close(self) -> None:
        """Send what is queued, then close."""
        if not self._closing and not self._lost:
            self._closing = self._eof_sent = True
            self._schedule()
            self._peer._schedule()

    def abort(self) -> None:
        """Close at once; the peer sees a reset."""
        self._closing = True
        if not self._lost:
            self._lose(None)
            self._peer._lose(_reset())

    def _schedule(self) -> None:
        if not self._due and not self._lost:
            self._due = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Move what is queued to the other end, as far as it takes it."""
        self._due = False
        if self._handler is None:
            return
        if self._waiting > self._write_buffer_max and not self._told_full and not self._closing:
            self._told_full = True
            self._handler.pause_writing()
        peer = self._peer
        for _ in range(len(self._queue)):
            if self._lost or not peer._takes():
                break
            data = self._queue.popleft()
            self._waiting -= len(data)
            peer._receive(data)
        if self._lost:
            return
        if self._told_full and self._waiting <= self._write_buffer_max // 4:
            self._told_full = False
            self._handler.resume_writing()
        if self._queue or not peer._takes():
            return
        if self._eof_sent and not self._eof_delivered:
            self._eof_delivered = True
            peer._receive_eof()
        if self._closing:
            self._lose(None)

    def _takes(self) -> bool:
        """Whether data for us need not wait: it is read, or nobody will ever read it."""
        return self._reading or self._closing or self._lost

    def _receive(self, data: bytes) -> None:
        if self._lost:  # as TCP answers what comes for a connection it does not have
            self._peer._lose(_reset())
        elif not self._closing and self._handler is not None:
            try:
                self._handler.data_received(data)
            except BaseException:
                self.abort()
                raise

    def _receive_eof(self) -> None:
        if not self._closing and not self._lost and self._handler is not None:
            self._handler.eof_received()

    def _lose(self, error: TransportClosed | None) -> None:
        """End, telling the handler in the loop's next turn."""
        if self._lost:
            return
        self._lost = True
        self._queue.clear()
        self._on_gone()
        self._error = None if self._closing else error
        self._tell_lost()
        self._peer._schedule()  # it may wait for us to read

    def _tell_lost(self) -> None:
        if self._handler is not None:
            self._loop.call_soon(self._handler.connection_lost, self._error)


def _begin(stream: MemoryStream, accept: Accept, begun: asyncio.Future[None]) -> None:
    if begun.cancelled():
        stream.abort()
        return
    begun.set_result(None)
    stream.begin(accept)


def _reset() -> TransportClosed:
    return TransportClosed("connection lost (connection reset by peer)")
