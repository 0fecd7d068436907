"""A stage for clients: a machine that knows what it has opened, and servers that do as their script says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import ocm
from ocm.errors import AddressInUse, TransportClosed
from ocm.protocol.address import Address, port_of
from ocm.transport.base import Accept, Batch, DatagramPort, Stream, StreamListener
from ocm.transport.memory import MemoryNetwork
from tests.peers import JOIN, LEAVE, MEMBERS, SERVER, TCP_PORT, UDP_PORT, Ear, Peer, datagram, open_ear, packet

CLIENT: Final = "10.0.0.1"
URL: Final = f"tcrp://{SERVER}:{TCP_PORT}/r?udp={UDP_PORT}"
ROOM: Final = b"r"
TOKEN: Final = b"0123456789abcdef"
YES: Final = b'{"status_code": 200}'


class Machine:
    """A host of a memory network, as a client sees it (see ``Network``); it may be told to be unlucky."""

    def __init__(self, network: MemoryNetwork, address: str = CLIENT) -> None:
        self.network = network
        self._host = network.host(address)
        self.streams: list[Stream] = []
        self.ports: list[DatagramPort] = []
        self.addresses: list[Address] | None = None
        """What every name resolves to, in place of itself."""
        self.busy = 0
        """How many more connections find their local port taken."""
        self.dead = False
        """Whether connecting takes for ever."""
        self.portless = False
        """Whether no datagram port can be had."""
        self.broken: Exception | None = None
        """What connecting raises."""

    async def listen(self, host: str | None, port: int, accept: Accept, *, write_buffer_max: int) -> StreamListener:
        return await self._host.listen(host, port, accept, write_buffer_max=write_buffer_max)

    async def connect(
        self, host: str, port: int, accept: Accept, *, write_buffer_max: int, local: Address | None = None
    ) -> Stream:
        if self.broken is not None:
            raise self.broken
        if self.dead:
            await asyncio.Event().wait()
        if self.busy:
            self.busy -= 1
            raise AddressInUse("TCP", port_of(local) if local else port)

        def keep(stream: Stream) -> object:
            self.streams.append(stream)
            return accept(stream)

        return await self._host.connect(host, port, keep, write_buffer_max=write_buffer_max, local=local)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

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
        if self.portless:
            raise TransportClosed("this machine has no port left")
        opened = await self._host.open_port(
            host, port, on_batch, size_max=size_max, unsent_max=unsent_max, multihomed=multihomed
        )
        self.ports.append(opened)
        return opened

    async def resolve(self, host: str, port: int) -> Sequence[Address]:
        return await self._host.resolve(host, port) if self.addresses is None else self.addresses

    def source(self, destination: Address) -> Address | None:
        return self._host.source(destination)

    def cut(self) -> None:
        """Break every connection, as a network does that goes away."""
        for stream in self.streams:
            stream.abort()

    def ports_open(self) -> int:
        count = 0
        for port in self.ports:
            try:
                port.flush()
            except TransportClosed:
                continue
            count += 1
        return count


class Actor(Peer):
    """The server's end of one connection: does what its script says whenever something is asked."""

    def __init__(self, script: Script) -> None:
        super().__init__()
        self._script = script

    @property
    def asked(self) -> list[int]:
        """The operations that were asked for, in order."""
        return [data[1] for _, data in self.chunks]

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._script(self, data)


Script: TypeAlias = Callable[[Actor, bytes], None]


def silent(_actor: Actor, _request: bytes) -> None:
    """Never answer."""


def hang_up(actor: Actor, _request: bytes) -> None:
    """Close without an answer."""
    actor.stream.close()


def seats(operation: int, token: bytes = TOKEN) -> bytes:
    """Word the two packets that give a seat in our own form."""
    body = json.dumps({"status_code": 200, "user_token": token.decode()}).encode()
    return packet(operation, 1, ROOM, YES) + packet(operation, 2, ROOM, body)


def listed(*names: str) -> bytes:
    """Word the answer to MEMBERS."""
    body = json.dumps({"status_code": 200, "members": names, "count": len(names)}).encode()
    return packet(MEMBERS, 1, ROOM, YES) + packet(MEMBERS, 2, ROOM, body)


def refuses(operation: int, code: int) -> bytes:
    return packet(operation, 1, ROOM, json.dumps({"status_code": code, "message": "no"}).encode())


def serve_well(actor: Actor, request: bytes) -> None:
    """Do what our own server does, for one member."""
    answers = {MEMBERS: listed("host", "aiko"), LEAVE: packet(LEAVE, 1, ROOM, YES) + packet(LEAVE, 2, ROOM, YES)}
    actor.send(answers.get(request[1]) or seats(request[1]))


def seat_only(actor: Actor, request: bytes) -> None:
    """Give a seat, and answer nothing else."""
    if request[1] <= JOIN:
        actor.send(seats(request[1]))


def says(*chunks: bytes, closes: bool = False) -> Script:
    """Answer the first request with these bytes."""

    def script(actor: Actor, _request: bytes) -> None:
        if len(actor.chunks) == 1:
            for chunk in chunks:
                actor.send(chunk)
            if closes:
                actor.stream.close()

    return script


def refuse_with(code: int) -> Script:
    """Refuse every request."""

    def script(actor: Actor, request: bytes) -> None:
        actor.send(refuses(request[1], code))

    return script


@dataclass
class Stage:
    """A scripted server, and the machine its client runs on."""

    network: MemoryNetwork
    machine: Machine
    ear: Ear
    scripts: list[Script]
    """What each connection does, in order; the last one for all that follow."""
    actors: list[Actor] = field(default_factory=list[Actor])
    listener: StreamListener | None = None

    def accept(self, stream: Stream) -> Actor:
        actor = Actor(self.scripts[min(len(self.actors), len(self.scripts) - 1)]).begin(stream)
        assert isinstance(actor, Actor)
        self.actors.append(actor)
        return actor

    async def open(self) -> None:
        host = self.network.host(SERVER)
        self.listener = await host.listen(None, TCP_PORT, self.accept, write_buffer_max=65_536)

    def close(self) -> None:
        """Stop answering the door."""
        if self.listener is not None:
            self.listener.close()

    def crash(self) -> None:
        """Go away without a word."""
        self.close()
        for actor in self.actors:
            actor.stream.abort()

    def tell(self, data: bytes) -> None:
        """Send the client a datagram from where the server's come from."""
        self.ear.send(data, host=CLIENT, port=port_of(self.machine.ports[-1].local))

    def notice(self, text: str) -> None:
        self.tell(datagram(ROOM, b"", text.encode()))

    def all_let_go(self) -> None:
        """Show that the client has neither connection nor port left."""
        assert all(actor.lost for actor in self.actors)
        assert self.machine.ports_open() == 0


@asynccontextmanager
async def acting(*scripts: Script) -> AsyncGenerator[Stage]:
    network = MemoryNetwork()
    ear = await open_ear(network.host(SERVER), UDP_PORT)
    stage = Stage(network, Machine(network), ear, list(scripts))
    await stage.open()
    yield stage
    stage.close()


@asynccontextmanager
async def member(
    machine: Machine, *, url: str = URL, user: str = "aiko", create: bool = False, limits: ocm.Limits | None = None
) -> AsyncGenerator[ocm.Room]:
    """Be in the URL's room."""
    async with (
        ocm.connect(url, user=user, network=machine, limits=limits) as client,
        client.create() if create else client.join() as room,
    ):
        yield room


async def soon(count: int, room: ocm.Room) -> list[ocm.Event]:
    """Return the next events."""
    reader = aiter(room)
    events = [await anext(reader) for _ in range(count)]
    reader.close()
    return events


async def rest(room: ocm.Room) -> list[ocm.Event]:
    return [event async for event in room]
