"""Raw programs on a memory network, and a server for them: bytes as they come, and when they came."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from ocm.errors import JournalFailed
from ocm.protocol.address import make_address, port_of, split_address
from ocm.protocol.entry import Entry, Kept, Step
from ocm.protocol.limits import Limits
from ocm.server.gatekeeper import Authorize
from ocm.server.server import Server
from ocm.store.base import Done, Journal
from ocm.store.memory import MemoryJournal
from ocm.transport.base import Batch, DatagramPort, Network, ServerSecurity, Stream
from ocm.transport.memory import MemoryNetwork
from tests.virtual import now_s, quiet

SERVER: Final = "10.0.9.9"
TCP_PORT: Final = 12345
UDP_PORT: Final = 9001
CREATE: Final = 1
JOIN: Final = 2
LEAVE: Final = 0x20
MEMBERS: Final = 0x21
MISSING: Final = "no such room, or not yours to enter"


def packet(operation: int, stage: int, room: bytes, payload: bytes) -> bytes:
    """Spell a control packet by hand."""
    return bytes((len(room), operation, stage)) + len(payload).to_bytes(29, "big") + room + payload


def datagram(room: bytes, token: bytes, text: bytes) -> bytes:
    """Spell a datagram by hand."""
    return bytes((len(room), len(token))) + room + token + text


def request(form: str, operation: int, room: str, user: str, **more: str) -> bytes:
    """Word a request as a program of this form does."""
    bare = user.encode()
    payload = json.dumps({"user": user, **more}).encode() if form == "ocm" else bare
    return packet(operation, 1 if form == "reference" else 0, room.encode(), payload)


def refused(operation: int, room: str, code: int, message: str) -> bytes:
    """Word a refusal of our own form."""
    return packet(operation, 1, room.encode(), json.dumps({"status_code": code, "message": message}).encode())


def counted_randomness() -> Callable[[int], bytes]:
    """Return a source of different bytes each time, the same in each run."""
    count = 0

    def draw(size: int) -> bytes:
        nonlocal count
        count += 1
        return count.to_bytes(size, "big")

    return draw


class Peer:
    """One end of a raw stream."""

    def __init__(self, *, hangs_up: bool = True) -> None:
        self.stream: Stream
        self.chunks: list[tuple[float, bytes]] = []
        self.ended_s: float | None = None
        """When the other side said that no more comes, or the stream broke."""
        self.lost = False
        self.error: Exception | None = None
        self._hangs_up = hangs_up

    def begin(self, stream: Stream) -> Peer:
        self.stream = stream
        return self

    @property
    def received(self) -> bytes:
        return b"".join(data for _, data in self.chunks)

    @property
    def ended(self) -> bool:
        return self.ended_s is not None

    def send(self, data: bytes) -> None:
        self.stream.write(data)

    async def ask(self, data: bytes, *, wait_s: float = 0.1) -> list[bytes]:
        """Send in one write; return the writes that answer within ``wait_s``."""
        before = len(self.chunks)
        self.stream.write(data)
        await asyncio.sleep(wait_s)
        return [chunk for _, chunk in self.chunks[before:]]

    def data_received(self, data: bytes) -> None:
        self.chunks.append((now_s(), data))

    def eof_received(self) -> None:
        self.ended_s = now_s()
        if self._hangs_up:
            self.stream.close()

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def connection_lost(self, error: Exception | None) -> None:
        if self.ended_s is None:
            self.ended_s = now_s()
        self.lost = True
        self.error = error


class Ear:
    """A raw datagram port."""

    def __init__(self) -> None:
        self.port: DatagramPort
        self.heard: list[bytes] = []
        self.times_s: list[float] = []

    def on_batch(self, batch: Batch) -> None:
        self.heard += [data for data, _ in batch]
        self.times_s += [now_s()] * len(batch)

    def send(self, data: bytes, *, host: str = SERVER, port: int = UDP_PORT) -> None:
        self.port.group([make_address(host, port)]).send(data)

    def take(self) -> list[bytes]:
        """Return what was heard since the last time."""
        heard, self.heard = self.heard, []
        return heard


async def open_ear(network: Network, port: int = 0) -> Ear:
    ear = Ear()
    ear.port = await network.open_port(None, port, ear.on_batch, size_max=65_507, unsent_max=100_000)
    return ear


@dataclass
class Seat:
    """A raw program that sits in a room."""

    peer: Peer
    ear: Ear
    token: bytes
    room: str
    user: str
    form: str
    replies: list[bytes]

    def say(self, text: str | bytes) -> None:
        body = text if isinstance(text, bytes) else text.encode()
        self.ear.send(datagram(self.room.encode(), self.token, body))

    def heard(self) -> list[bytes]:
        return self.ear.take()

    def notices(self) -> list[str]:
        """Return what the server said in its own name, in our own form, since the last time."""
        front = bytes((len(self.room.encode()), 0)) + self.room.encode()
        return [data.removeprefix(front).decode() for data in self.ear.take() if data.startswith(front)]

    def request(self, operation: int) -> bytes:
        return request("ocm", operation, self.room, self.user, user_token=self.token.decode())


@dataclass
class World:
    """A server on a memory network, and hosts around it."""

    network: MemoryNetwork
    server: Server
    journal: Journal

    async def dial(self, host: str = "10.0.0.1", *, hangs_up: bool = True) -> Peer:
        peer = Peer(hangs_up=hangs_up)
        await self.network.host(host).connect(SERVER, TCP_PORT, peer.begin, write_buffer_max=65_536)
        return peer

    async def ear(self, host: str = "10.0.0.1", port: int = 0) -> Ear:
        return await open_ear(self.network.host(host), port)

    async def sit(
        self, form: str, operation: int, room: str, user: str, *, host: str = "10.0.0.1", **more: str
    ) -> Seat:
        """Enter a room as a raw program; its datagram port has its TCP port's number."""
        peer = await self.dial(host)
        return await self.ask_seat(peer, form, operation, room, user, **more)

    async def ask_seat(self, peer: Peer, form: str, operation: int, room: str, user: str, **more: str) -> Seat:
        replies = await peer.ask(request(form, operation, room, user, **more))
        host, port = split_address(peer.stream.local)
        ear = await self.ear(host, port)
        token = token_in(form, room, replies[-1])
        return Seat(peer, ear, token, room, user, form, replies)

    async def works(self) -> None:
        """Show that the server still serves: a room is made on it, and somebody is heard."""
        seat = await self.sit("ocm", CREATE, "still here", "zoe", host="10.7.7.7")
        other = await self.sit("ocm", JOIN, "still here", "yan", host="10.7.7.8")
        other.say("yes")
        await quiet()
        assert datagram(b"still here", b"yan", b"yes") in seat.heard()
        assert await seat.peer.ask(seat.request(LEAVE))
        assert not self.server.failure.done()


def token_in(form: str, room: str, reply: bytes) -> bytes:
    body = reply[32 + len(room.encode()) :]
    return body if form == "plain" else json.loads(body)["user_token"].encode()


@asynccontextmanager
async def serving(
    *,
    limits: Limits | None = None,
    journal: Journal | None = None,
    authorize: Authorize | None = None,
    security: ServerSecurity | None = None,
    names_in_reference: bool = False,
    randomness: Callable[[int], bytes] | None = None,
    network: MemoryNetwork | None = None,
) -> AsyncGenerator[World]:
    limits = limits or Limits()
    network = network or MemoryNetwork()
    journal = journal or MemoryJournal(limits)
    server = Server(
        network.host(SERVER),
        journal,
        limits=limits,
        randomness=randomness or counted_randomness(),
        authorize=authorize,
        security=security,
        names_in_reference=names_in_reference,
    )
    await server.start(None, tcp_port=TCP_PORT, udp_port=UDP_PORT)
    try:
        yield World(network, server, journal)
    finally:
        await server.stop()
        if server.failure.done() and not server.failure.cancelled():
            server.failure.exception()


class SlowJournal:
    """A journal that answers when the test says so, or fails; it keeps the contract of ``Journal``."""

    durability = "memory"

    def __init__(self) -> None:
        self._kept = MemoryJournal(Limits())
        self._waiting: list[tuple[Sequence[Step], Done]] = []
        self._open = True
        self.prompt = True
        """Whether batches are done at once."""
        self.broken = False
        """Whether batches fail at once."""
        self.finishes_at_once = True
        """Whether ``close`` finishes before it returns."""

    def __iter__(self) -> Iterator[Sequence[Step]]:
        return iter([records for records, _ in self._waiting])

    def submit(self, records: Sequence[Step], done: Done) -> None:
        if self.broken:
            done(JournalFailed("the disk is full"))
        elif self.prompt:
            self._kept.submit(records, done)
        else:
            self._waiting.append((records, done))

    def commit(self, count: int | None = None) -> None:
        """Write the oldest batches that wait."""
        count = len(self._waiting) if count is None else count
        for _ in range(count):
            records, done = self._waiting.pop(0)
            self._kept.submit(records, done)

    def fail(self) -> None:
        """Fail all that wait, oldest first."""
        waiting, self._waiting = self._waiting, []
        for _, done in waiting:
            done(JournalFailed("the disk is full"))

    def load(self) -> Kept:
        return Kept()

    def read(self, room: str, incarnation: int, *, from_seq: int, count: int) -> Sequence[Entry]:
        return self._kept.read(room, incarnation, from_seq=from_seq, count=count)

    def close(self) -> None:
        if self._open:
            self._open = False
            if self.finishes_at_once:
                self.commit()
                self._kept.close()


def local_port(peer: Peer) -> int:
    return port_of(peer.stream.local)
