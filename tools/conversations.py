"""Talk to a real server, in memory, and write down every byte: the examples of docs/protocol.md.

The server is ocm's own, with tokens that are always the same. The members are bare bytes: whatever another
TCRP program would have to send stands here literally, and nothing of it is made by ocm's own client.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Final

from ocm.protocol.address import make_address, port_of, split_address
from ocm.protocol.limits import Limits
from ocm.server.server import Server
from ocm.store.memory import MemoryJournal
from ocm.transport.base import Batch, DatagramPort, Stream
from ocm.transport.memory import MemoryNetwork

NAMES: Final = ("ocm", "plain", "reference", "refused", "refused-reference", "members", "leave", "notices", "walk")
"""The conversations; each is drawn where a page says ``drawn: bytes-NAME``."""
HEADER_SIZE: Final = 32
_PATIENCE_S: Final = 5.0
_OPERATIONS: Final = {1: "CREATE", 2: "JOIN", 0x20: "LEAVE", 0x21: "MEMBERS"}


class Member:
    """A peer with one control connection and one datagram port; what it sends and hears goes into a log."""

    def __init__(self, name: str, log: list[str], *, dump: bool = False) -> None:
        """Write to ``log`` as ``name``; ``dump`` in the way of ``hexdump -C``, else packets taken apart."""
        self.token = b""
        self.stream: Stream
        self._name = name
        self._log = log
        self._dump = dump
        self._port: DatagramPort
        self._server = b""
        self._stream_bytes = bytearray()
        self._datagrams: list[bytes] = []
        self._news = asyncio.Event()
        self._ended = False

    async def connect(self, network: MemoryNetwork, server: Server) -> Member:
        """Open both pipes."""
        self.stream = await network.connect("127.0.0.1", server.tcp_port, self._begin, write_buffer_max=65_536)
        here = port_of(self.stream.local)
        self._port = await network.open_port("127.0.0.1", here, self._on_batch, size_max=4608, unsent_max=8)
        self._server = make_address(split_address(self.stream.remote)[0], server.udp_port)
        return self

    async def ask(self, operation: int, room: str, payload: bytes, *, stage: int = 0, replies: int = 2) -> list[bytes]:
        """Send one request, return so many replies."""
        name = room.encode()
        self._send_stream(bytes([len(name), operation, stage]) + len(payload).to_bytes(29, "big") + name + payload)
        return [await self._next_packet() for _ in range(replies)]

    async def enter(self, operation: int, room: str, payload: bytes, *, stage: int = 0) -> None:
        """Create or join, and keep the token."""
        _, complete = await self.ask(operation, room, payload, stage=stage)
        said = complete[HEADER_SIZE + complete[0] :]
        self.token = said.split(b'"user_token": "')[1].rstrip(b'"}') if said.startswith(b"{") else said

    def say(self, room: str, text: str) -> None:
        """Send one message."""
        name = room.encode()
        datagram = bytes([len(name), len(self.token)]) + name + self.token + text.encode()
        self._write(f"{self._name} > server   UDP", datagram, _datagram_parts(datagram, "token"))
        slot = self._port.slots(1)[0]
        slot.view[: len(datagram)] = datagram
        slot.size, slot.to = len(datagram), self._server
        self._port.flush()

    async def hear(self, *, bare: bool = False) -> None:
        """Wait for one datagram; ``bare`` ones are text from the first byte."""
        await self._until(lambda: bool(self._datagrams))
        datagram = self._datagrams.pop(0)
        parts = [("text", datagram)]
        if not bare:
            is_token = bool(self.token) and self.token in datagram
            parts = _datagram_parts(datagram, "token" if is_token else "name")
        self._write(f"server > {self._name}   UDP", datagram, parts)

    async def skip(self) -> None:
        """Wait for one datagram and do not write it down."""
        await self._until(lambda: bool(self._datagrams))
        self._datagrams.pop(0)

    async def hear_end(self) -> None:
        """Wait until the server has ended the connection."""
        await self._until(lambda: self._ended)
        self._log += [f"server > {self._name}   TCP, end of stream", ""]

    def close(self) -> None:
        """Let go of both pipes."""
        self.stream.close()
        self._port.close()

    # --- a StreamHandler ------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Keep what came."""
        self._stream_bytes += data
        self._news.set()

    def eof_received(self) -> None:
        """Note the end."""
        self._ended = True
        self._news.set()

    def connection_lost(self, error: Exception | None) -> None:
        """Note the end."""
        self.eof_received()

    def pause_writing(self) -> None:
        """Go on."""

    def resume_writing(self) -> None:
        """Go on."""

    # --- helpers --------------------------------------------------------------------------------------

    def _begin(self, stream: Stream) -> Member:
        return self

    def _on_batch(self, batch: Batch) -> None:
        self._datagrams += [datagram for datagram, _ in batch]
        self._news.set()

    async def _until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(_PATIENCE_S):
            while not is_so():
                self._news.clear()
                await self._news.wait()

    def _send_stream(self, packet: bytes) -> None:
        self._write(f"{self._name} > server   TCP", packet, _packet_parts(packet))
        self.stream.write(packet)

    async def _next_packet(self) -> bytes:
        await self._until(lambda: len(self._stream_bytes) >= HEADER_SIZE)
        end = HEADER_SIZE + self._stream_bytes[0] + int.from_bytes(self._stream_bytes[3:HEADER_SIZE], "big")
        await self._until(lambda: len(self._stream_bytes) >= end)
        packet = bytes(self._stream_bytes[:end])
        del self._stream_bytes[:end]
        self._write(f"server > {self._name}   TCP", packet, _packet_parts(packet))
        return packet

    def _write(self, title: str, data: bytes, parts: Sequence[tuple[str, bytes]]) -> None:
        self._log.append(f"{title}, {len(data)} bytes")
        self._log += _hexdump(data) if self._dump else [_part(what, raw) for what, raw in parts]
        self._log.append("")


def _packet_parts(packet: bytes) -> list[tuple[str, bytes]]:
    body = HEADER_SIZE + packet[0]
    return [
        ("room_size", packet[:1]),
        ("operation", packet[1:2]),
        ("stage", packet[2:3]),
        ("payload_size", packet[3:HEADER_SIZE]),
        ("room", packet[HEADER_SIZE:body]),
        ("payload", packet[body:]),
    ]


def _datagram_parts(datagram: bytes, second: str) -> list[tuple[str, bytes]]:
    room_end = 2 + datagram[0]
    token_end = room_end + datagram[1]
    return [
        ("room_size", datagram[:1]),
        (f"{second}_size", datagram[1:2]),
        ("room", datagram[2:room_end]),
        (second, datagram[room_end:token_end]),
        ("text", datagram[token_end:]),
    ]


def _part(what: str, raw: bytes) -> str:
    if what == "payload_size":
        shown = f"28 x 00, {raw[-1]:02x}" if not any(raw[:28]) else raw.hex(" ")
    elif what == "operation":
        shown = f"{raw.hex()}   {_OPERATIONS[raw[0]]}"
    elif what in {"room", "token", "name", "payload", "text"} and raw:
        shown = f'"{raw.decode()}"' if raw.isascii() else raw.hex(" ")
    else:
        shown = raw.hex(" ") or "(nothing)"
    return f"    {what:<14}{shown}"


def _hexdump(data: bytes) -> list[str]:
    lines: list[str] = []
    for start in range(0, len(data), 16):
        row = data[start : start + 16]
        halves = f"{row[:8].hex(' '):<23}  {row[8:].hex(' '):<23}"
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"    {start:04x}  {halves}  {text}")
    return lines


class _Stage:
    """One fresh server, and who talks to it."""

    def __init__(self, *, dump: bool = False) -> None:
        self.log: list[str] = []
        self._dump = dump
        self._network = MemoryNetwork()
        numbers = count(1)
        limits = Limits()
        self.server = Server(
            self._network,
            MemoryJournal(limits),
            limits=limits,
            randomness=lambda size: hashlib.sha256(b"%d" % next(numbers)).digest()[:size],
        )
        self._members: list[Member] = []

    async def start(self) -> _Stage:
        await self.server.start(None, tcp_port=12345, udp_port=9001)
        return self

    async def member(self, name: str, *, hidden: bool = False) -> Member:
        """Let somebody connect; what a hidden member sends and hears is not written down."""
        log = [] if hidden else self.log
        member = await Member(name, log, dump=self._dump).connect(self._network, self.server)
        self._members.append(member)
        return member

    async def end(self) -> str:
        for member in self._members:
            member.close()
        await self.server.stop()
        return "\n".join(self.log).rstrip() + "\n"


async def _form(alice_says: bytes, bob_says: bytes, *, stage: int, bare: bool = False, joins: bool = False) -> str:
    """Alice makes a room and they talk; bob is there in the same form. ``joins``: she is told that he came."""
    scene = await _Stage().start()
    alice, bob = await scene.member("alice"), await scene.member("bob", hidden=True)
    await alice.enter(1, "room1", alice_says, stage=stage)
    await bob.enter(2, "room1", bob_says, stage=stage)
    if joins:
        await alice.skip()
    alice.say("room1", "hello")
    if stage:
        await alice.hear()
    await bob.hear(bare=bare)
    bob.say("room1", "hi alice")
    await alice.hear(bare=bare)
    return await scene.end()


async def _refused() -> str:
    scene = await _Stage().start()
    alice, carol = await scene.member("alice"), await scene.member("carol")
    await alice.ask(2, "room1", b'{"user": "alice"}', replies=1)
    await carol.ask(2, "room1", b"carol", replies=1)
    return await scene.end()


async def _refused_reference() -> str:
    scene = await _Stage().start()
    alice = await scene.member("alice")
    await alice.ask(2, "room1", b"alice", stage=1)
    return await scene.end()


async def _more(operation: int) -> str:
    """MEMBERS or LEAVE of bob, in alice's room."""
    scene = await _Stage().start()
    alice, bob = await scene.member("alice", hidden=True), await scene.member("bob")
    await alice.enter(1, "room1", b'{"user": "alice"}')
    await bob.enter(2, "room1", b'{"user": "bob"}')
    scene.log.clear()
    await bob.ask(operation, "room1", b'{"user": "bob", "user_token": "%b"}' % bob.token)
    if operation == 0x20:
        await bob.hear_end()
    return await scene.end()


async def _notices() -> str:
    """What members of each form hear when somebody joins and when the host is removed."""
    scene = await _Stage().start()
    alice, bob = await scene.member("alice"), await scene.member("bob")
    carol, dave = await scene.member("carol"), await scene.member("dave")
    await alice.enter(1, "room1", b'{"user": "alice"}')
    await bob.enter(2, "room1", b'{"user": "bob"}')
    await carol.enter(2, "room1", b"carol")
    await dave.enter(2, "room1", b"dave", stage=1)
    scene.log.clear()
    await alice.hear()
    for _ in range(2):  # carol, dave
        await alice.skip()
        await bob.skip()
    assert scene.server.kick("room1", "alice")
    await alice.hear()
    await bob.hear()
    await bob.hear()
    await carol.hear(bare=True)
    await dave.hear()
    return await scene.end()


async def _walk() -> str:
    """What goes over the wire when alice makes a room, bob joins, they talk, and alice leaves."""
    scene = await _Stage(dump=True).start()
    alice, bob = await scene.member("alice"), await scene.member("bob")
    await alice.enter(1, "lobby", b'{"user": "alice"}')
    await bob.enter(2, "lobby", b'{"user": "bob"}')
    await alice.hear()
    bob.say("lobby", "hello")
    await alice.hear()
    await alice.ask(0x20, "lobby", b'{"user": "alice", "user_token": "%b"}' % alice.token)
    await alice.hear_end()
    await bob.hear()
    await bob.hear()
    await bob.hear_end()
    return await scene.end()


async def record() -> Mapping[str, str]:
    """Hold every conversation, at the same time, and return what was written down."""
    scripts = {
        "ocm": _form(b'{"user": "alice"}', b'{"user": "bob"}', stage=0, joins=True),
        "plain": _form(b"alice", b"bob", stage=0, bare=True),
        "reference": _form(b"alice", b"bob", stage=1),
        "refused": _refused(),
        "refused-reference": _refused_reference(),
        "members": _more(0x21),
        "leave": _more(0x20),
        "notices": _notices(),
        "walk": _walk(),
    }
    return dict(zip(scripts, await asyncio.gather(*scripts.values()), strict=True))
