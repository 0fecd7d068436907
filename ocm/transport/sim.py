"""A network without sockets whose packets take time, get lost and come late, as a ``LinkModel`` says.

It runs on any event loop, and takes that loop's time: on a loop in virtual time (``ocm.testing``) a minute passes
in milliseconds. Packets that arrive at one moment are handed over in the order of their senders' names, so that
what happens does not rest on the order in which the loop ran the senders.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
from typing import Final, Literal, TypeAlias

from ocm.errors import AddressInUse, ConnectFailed, LocalProtocolError, TransportClosed
from ocm.protocol.address import V4_SIZE, V6_SIZE, Address, address_text, is_loopback, make_address, port_of
from ocm.transport.base import Accept, Batch, DatagramPort, Stream, StreamListener
from ocm.transport.line import BATCH_MAX, OneByOnePort
from ocm.transport.link_model import NS_PER_S, Fate, LinkModel, Outcome
from ocm.transport.sim_stream import Dial, SimStream, StreamTimes
from ocm.transport.sockaddr import plain
from ocm.transport.timeline import Happening, Timeline, payload_digest

Protocol: TypeAlias = Literal["TCP", "UDP"]
Rank: TypeAlias = tuple[str, str, str, int]
"""Sender, receiver, kind and number: who goes first of those that are due at one moment."""

_PAYLOAD_MAX: Final = 65_507
_FREE_PORTS: Final = range(49_152, 65_536)
_PORTS_APART: Final = 251
"""Free ports of different hosts begin apart, so that a port number tells whose it is."""
_WILDCARDS: Final = frozenset({"0.0.0.0", "::"})


class Host:
    """A machine on the network: a name, an address that may change, and what is open on it."""

    def __init__(self, name: str, number: int) -> None:
        """Make host ``number``; the first is 10.0.0.1."""
        self.name = name
        self.moves = 0
        self.number = number
        self.ports: dict[int, SimPort] = {}
        self.listeners: dict[int, SimListener] = {}
        self.streams: dict[SimStream, None] = {}
        self.taken: set[tuple[Protocol, int]] = set()
        self.next_free = number * _PORTS_APART
        self.ip = self._address()

    def move(self) -> None:
        """Take a new address: 10.0.0.1 becomes 10.1.0.1."""
        self.moves += 1
        self.ip = self._address()

    def forget(self) -> None:
        """Forget the programs of a loop that is no more."""
        self.ports.clear()
        self.listeners.clear()
        self.streams.clear()
        self.taken.clear()

    def label(self, port: int) -> str:
        """Return how the timeline calls a program: ``aiko:49152``; ``aiko@2:49152`` at the second address."""
        return f"{self.name}@{self.moves + 1}:{port}" if self.moves else f"{self.name}:{port}"

    def address(self, port: int) -> Address:
        """Return where one of its programs is reached."""
        return port.to_bytes(2, "big") + self.ip

    def _address(self) -> bytes:
        if self.moves > 255:
            raise LocalProtocolError("a simulated host moves 255 times at most")
        return bytes((10, self.moves, *self.number.to_bytes(2, "big")))


class World:
    """What all hosts of one simulated network share: links, addresses, time, and packets under way."""

    def __init__(self, model: LinkModel, timeline: Timeline, times: StreamTimes) -> None:
        """Make a network without hosts."""
        self.model = model
        self.timeline = timeline
        self.times = times
        self.hosts: dict[str, Host] = {}
        self._by_ip: dict[bytes, Host] = {}
        self._names: dict[bytes, str] = {}
        self._due: list[tuple[int, Rank, int, Callable[[], None]]] = []
        self._sequence = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._origin_s = 0.0
        self._elapsed_ns = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ns = 0
        self._running = False
        self._batches: dict[SimPort, list[tuple[bytes, Address]]] = {}

    # --- time -----------------------------------------------------------------------------------------

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that runs, or else the one that ``attach`` named."""
        loop = asyncio._get_running_loop()
        if loop is not None and loop is not self._loop:
            self.attach(loop)
        assert self._loop is not None, "a simulated network works on a loop"
        return self._loop

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Go on with another loop at the time where the last one stopped; what was open or under way is gone."""
        self._elapsed_ns = self.now_ns()
        self._loop = loop
        self._origin_s = loop.time() - self._elapsed_ns / NS_PER_S
        self._due.clear()
        self._timer = None
        for host in self.hosts.values():
            host.forget()

    def now_ns(self) -> int:
        """Return nanoseconds since the network began."""
        if self._loop is not None:
            self._elapsed_ns = max(self._elapsed_ns, round((self._loop.time() - self._origin_s) * NS_PER_S))
        return self._elapsed_ns

    def schedule(self, at_ns: int, rank: Rank, action: Callable[[], None]) -> None:
        """Have ``action`` called at a moment, never inside this call."""
        loop = self.loop
        self._sequence += 1
        heapq.heappush(self._due, (at_ns, rank, self._sequence, action))
        if not self._running and (self._timer is None or at_ns < self._timer_ns):
            self._arm(loop)

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_ns = self._due[0][0]
        self._timer = loop.call_at(self._origin_s + self._timer_ns / NS_PER_S, self._run_due)

    def _run_due(self) -> None:
        """Let everything arrive that is due; datagrams for one port together."""
        loop, now_ns, due = self.loop, self.now_ns(), self._due
        self._timer = None
        self._running = True
        try:
            while due and due[0][0] <= now_ns:
                self._guard(heapq.heappop(due)[3])
            batches, self._batches = self._batches, {}
            for port, batch in batches.items():
                for start in range(0, len(batch), BATCH_MAX):
                    self._guard(partial(port.deliver, batch[start : start + BATCH_MAX]))
        finally:
            self._running = False
            if due:
                self._arm(loop)

    def _guard(self, action: Callable[[], None]) -> None:
        """Run what may raise: a handler's mistake costs nobody else's packet."""
        try:
            action()
        except Exception as error:
            self.loop.call_exception_handler({"message": "exception in a handler", "exception": error})

    # --- hosts ----------------------------------------------------------------------------------------

    def host(self, name: str) -> Host:
        """Return the host of a name; it is made when it is first named."""
        host = self.hosts.get(name)
        if host is None:
            if not name or ":" in name or "@" in name:
                raise LocalProtocolError("a host name is a word without ':' and '@'")
            if len(self.hosts) >= 65_534:
                raise LocalProtocolError("a simulated network has 65534 hosts at most")
            host = self.hosts[name] = Host(name, len(self.hosts) + 1)
            self._by_ip[host.ip] = host
            self._names[host.ip] = name
        return host

    def host_at(self, address: Address) -> Host | None:
        """Return the host that has this address now."""
        return self._by_ip.get(address[2:])

    def label(self, address: Address) -> str:
        """Return how the timeline calls whoever is, or was, at an address."""
        host = self._by_ip.get(address[2:])
        if host is not None:
            return host.label(port_of(address))
        name = self._names.get(address[2:])
        return address_text(address) if name is None else f"{name}@{address[3] + 1}:{port_of(address)}"

    def move(self, host: Host) -> None:
        """Give a host a new address; its streams are lost, its ports and listeners go with it."""
        del self._by_ip[host.ip]
        host.move()
        self._by_ip[host.ip] = host
        self._names[host.ip] = host.name
        for number, port in host.ports.items():
            port.local = host.address(number)
        for number, listener in host.listeners.items():
            listener.local = host.address(number)
        for stream in list(host.streams):
            stream.fail("the address changed")

    def listening_host(self, here: Host, protocol: Protocol, port: int) -> Host:
        """Return whom a loopback address means: this host if somebody listens there, else who does."""
        for host in (here, *self.hosts.values()):
            if port in (host.listeners if protocol == "TCP" else host.ports):
                return host
        return here

    def claim(self, host: Host, protocol: Protocol, port: int) -> int:
        """Take a port of a host, 0 for one that is free on every host. Raises ``AddressInUse``."""
        if port:
            if (protocol, port) in host.taken:
                raise AddressInUse(protocol, port)
            host.taken.add((protocol, port))
            return port
        for _ in range(len(_FREE_PORTS)):
            free = _FREE_PORTS[host.next_free % len(_FREE_PORTS)]
            host.next_free += 1
            if not any((kind, free) in other.taken for other in self.hosts.values() for kind in ("TCP", "UDP")):
                host.taken.add((protocol, free))
                return free
        raise AddressInUse(protocol, port)

    # --- packets --------------------------------------------------------------------------------------

    def note(self, kind: str, what: str, details: str = "") -> None:
        """Put a change of the network on the timeline."""
        self.timeline.add(Happening(self.now_ns(), what, "", kind, details))

    def launch(
        self, source: Host, from_port: int, destination: Address, kind: str, payload: bytes
    ) -> tuple[Fate, Happening, Host | None]:
        """Send one packet, and write it down; whoever asked schedules what happens on arrival."""
        target = self._by_ip.get(destination[2:])
        now_ns = self.now_ns()
        happening = Happening(
            now_ns,
            source.label(from_port),
            self.label(destination),
            kind,
            "nobody there",
            len(payload),
            payload_digest(payload) if payload else "",
        )
        self.timeline.add(happening)
        name = "" if target is None else target.name
        fate = self.model.send(source.name, name, len(payload), now_ns=now_ns, kind=kind[:3])
        if fate.outcome is Outcome.TWICE and kind != "udp":  # a second copy means nothing to a stream
            fate = Fate(Outcome.ARRIVES, fate.arrivals_ns[:1])
        if target is not None or not fate.arrivals_ns:
            happening.outcome = fate.outcome.value
            happening.arrivals_ns = fate.arrivals_ns
        return fate, happening, target

    def send_datagram(self, source: Host, port: int, destination: Address, payload: bytes) -> None:
        """Send a datagram."""
        if is_loopback(destination):
            target = self.listening_host(source, "UDP", port_of(destination))
            destination = target.address(port_of(destination))
        fate, happening, host = self.launch(source, port, destination, "udp", payload)
        if host is None:
            return
        sender = source.address(port)
        for at_ns in fate.arrivals_ns:
            rank = (happening.source, happening.destination, "udp", happening.rank)
            self.schedule(at_ns, rank, lambda: self._arrive(happening, destination, payload, sender))

    def _arrive(self, happening: Happening, destination: Address, payload: bytes, sender: Address) -> None:
        host = self.host_at(destination)
        port = None if host is None else host.ports.get(port_of(destination))
        if port is None:
            happening.outcome, happening.arrivals_ns = "nobody there", ()
        else:
            self._batches.setdefault(port, []).append((payload, sender))


class SimPort(OneByOnePort[Address]):
    """A datagram port of a simulated host."""

    def __init__(
        self,
        world: World,
        host: Host,
        number: int,
        on_batch: Callable[[Batch], None],
        *,
        size_max: int,
        unsent_max: int,
    ) -> None:
        """Open at ``number``, which was claimed."""
        super().__init__(host.address(number), unsent_max=unsent_max)
        self._world = world
        self._host = host
        self._number = number
        self._on_batch = on_batch
        self._size_max = size_max
        host.ports[number] = self

    def fit(self, address: Address) -> Address | None:
        """Return the address as the network knows it, or None when nothing can be there."""
        if len(address) not in {V4_SIZE, V6_SIZE} or not port_of(address):
            return None
        return plain(address)

    def deliver(self, batch: list[tuple[bytes, Address]]) -> None:
        """Hand over what arrived at one moment."""
        if self.closed:
            return
        good = [datagram for datagram in batch if len(datagram[0]) <= self._size_max]
        self.counters.oversized += len(batch) - len(good)
        self.counters.received += len(good)
        if good:
            self._on_batch(good)

    def _offer(self, payload: bytes, destination: Address) -> bool:
        if len(payload) > _PAYLOAD_MAX:
            self.counters.dropped += 1
        else:
            self.counters.sent += 1
            self._world.send_datagram(self._host, self._number, destination, payload)
        return True

    def _watch_writable(self, wanted: bool) -> None:
        """Nothing ever waits in a port: it waits on the link."""

    def _close_pipe(self) -> None:
        del self._host.ports[self._number]
        self._host.taken.discard(("UDP", self._number))


class SimListener:
    """An open door of a simulated host."""

    def __init__(self, host: Host, number: int, accept: Accept, write_buffer_max: int) -> None:
        """Open at ``number``, which was claimed."""
        self.local = host.address(number)
        self.accept = accept
        self.write_buffer_max = write_buffer_max
        self._host = host
        self._number = number
        host.listeners[number] = self

    def close(self) -> None:
        """Accept no more."""
        if self._host.listeners.get(self._number) is self:
            del self._host.listeners[self._number]
            self._host.taken.discard(("TCP", self._number))


class SimNetwork:
    """One host of a simulated network (see ``Network``).

    Hosts have names and IPv4 addresses, and each resolves every other's name. A loopback address means whoever
    listens there: a program on this host if there is one, else the host on which there is one, so that
    a program written for one machine runs on several.
    """

    def __init__(self, model: LinkModel, *, timeline: Timeline | None = None, times: StreamTimes | None = None) -> None:
        """Make a network whose packets fare as ``model`` says, as seen from its first host, ``server``."""
        self._world = World(model, Timeline() if timeline is None else timeline, times or StreamTimes())
        self._here = self._world.host("server")

    @property
    def world(self) -> World:
        """What all hosts share."""
        return self._world

    def host(self, name: str) -> SimNetwork:
        """Return the same network as seen from another host; it is made when it is first named."""
        view = copy(self)
        view._here = self._world.host(name)
        return view

    async def listen(self, host: str | None, port: int, accept: Accept, *, write_buffer_max: int) -> StreamListener:
        """Accept streams (see ``Network.listen``)."""
        number = await self._claim("TCP", host, port)
        return SimListener(self._here, number, accept, write_buffer_max)

    async def connect(
        self, host: str, port: int, accept: Accept, *, write_buffer_max: int, local: Address | None = None
    ) -> Stream:
        """Open a stream (see ``Network.connect``)."""
        remote = plain((await self.resolve(host, port))[0])
        if local is not None and not self._is_ours(plain(local)):
            raise ConnectFailed(f"cannot connect from {address_text(local)}: not of this host")
        asked = address_text(remote)
        if is_loopback(remote):
            remote = self._world.listening_host(self._here, "TCP", port).address(port)
        number = self._world.claim(self._here, "TCP", 0 if local is None else port_of(local))
        dial = Dial(
            self._world, self._here, number, remote, asked=asked, accept=accept, write_buffer_max=write_buffer_max
        )
        return await dial.connect()

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
        number = await self._claim("UDP", host, port)
        return SimPort(self._world, self._here, number, on_batch, size_max=size_max, unsent_max=unsent_max)

    async def resolve(self, host: str, port: int) -> Sequence[Address]:
        """Return the address of a numeric host, of ``localhost`` or of a host of this network.

        Raises:
            ConnectFailed: no host has this name.
        """
        known = self._world.hosts.get(host)
        if known is not None:
            return [known.address(port)]
        try:
            return [make_address("127.0.0.1" if host == "localhost" else host, port)]
        except LocalProtocolError as error:
            raise ConnectFailed(f"no such host name: {host}") from error

    def source(self, destination: Address) -> Address | None:
        """Return this host's address (see ``Network.source``)."""
        return self._here.address(0)

    async def _claim(self, protocol: Protocol, host: str | None, port: int) -> int:
        assert self._world.loop.is_running(), "after it is asked for, no port of an older loop is taken"
        if host is not None and not self._is_ours(plain((await self.resolve(host, 0))[0])):
            raise TransportClosed(f"cannot listen on {protocol}: not an address of this host")
        return self._world.claim(self._here, protocol, port)

    def _is_ours(self, address: Address) -> bool:
        wildcard = not any(address[2:])
        return wildcard or is_loopback(address) or address[2:] == self._here.ip
