"""A new connection is heard by who speaks what its first bytes say: no byte is lost, and none waited for too long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from ocm.protocol.address import port_of
from ocm.server.arrival import Arrival, Shut
from ocm.transport.base import Stream, StreamHandler
from ocm.transport.memory import MemoryNetwork
from tests.vectors.classic import OCM_CREATE
from tests.virtual import now_s, quiet, virtual

DECIDE_S = 5.0
HOST = "10.0.0.1"
HELLO = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01x"
"""A TLS record with the beginning of a ClientHello."""


class Ear:
    """A handler that remembers what it heard, in order."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.data = bytearray()
        self.heard: list[str] = []
        self.lost_s: float | None = None
        self.error: Exception | None = None

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.heard.append("data")

    def eof_received(self) -> None:
        self.heard.append("eof")

    def pause_writing(self) -> None:
        self.heard.append("pause")

    def resume_writing(self) -> None:
        self.heard.append("resume")

    def connection_lost(self, error: Exception | None) -> None:
        self.heard.append("lost")
        self.error = error
        self.lost_s = now_s()


@dataclass
class Door:
    """What became of one arrival."""

    classic: list[Ear] = field(default_factory=list[Ear])
    tls: list[Ear] = field(default_factory=list[Ear])
    peers: list[Ear] = field(default_factory=list[Ear])

    @property
    def visitor(self) -> Ear:
        return self.peers[0]


@asynccontextmanager
async def visited(*, admits: bool = True) -> AsyncGenerator[Door]:
    """Let somebody connect to a door; ``admits``: to one that takes classic connections too."""
    network, door = MemoryNetwork(), Door()

    def accept(stream: Stream) -> StreamHandler:
        classic = Ear(stream)
        door.classic.append(classic)

        def begin_tls() -> StreamHandler:
            door.tls.append(Ear(stream))
            return door.tls[0]

        return Arrival(stream, classic if admits else Shut(stream, classic), begin_tls, decide_s=DECIDE_S)

    def begin(stream: Stream) -> StreamHandler:
        door.peers.append(Ear(stream))
        return door.visitor

    listener = await network.host(HOST).listen(HOST, 0, accept, write_buffer_max=65_536)
    stream = await network.host("10.0.0.2").connect(HOST, port_of(listener.local), begin, write_buffer_max=65_536)
    await quiet()
    yield door
    stream.abort()
    await quiet()
    listener.close()


@pytest.mark.parametrize("pieces", [1, 3, 6, 1000])
@virtual
async def test_tls_is_heard_by_who_speaks_it_and_by_nobody_else(pieces: int) -> None:
    async with visited() as door:
        for start in range(0, len(HELLO), pieces):
            door.visitor.stream.write(HELLO[start : start + pieces])
            await quiet()
        door.visitor.stream.write(b"more")
        await quiet()
        assert bytes(door.tls[0].data) == HELLO + b"more"
        assert len(door.tls) == 1
        assert door.classic[0].heard == []
        door.visitor.stream.write_eof()
        await quiet()
    assert door.tls[0].heard[-2:] == ["eof", "lost"]
    assert door.classic[0].heard == []


@pytest.mark.parametrize("pieces", [1, 5, 1000])
@virtual
async def test_all_else_is_heard_by_the_classic_side(pieces: int) -> None:
    async with visited() as door:
        for start in range(0, len(OCM_CREATE), pieces):
            door.visitor.stream.write(OCM_CREATE[start : start + pieces])
            await quiet()
        assert bytes(door.classic[0].data) == OCM_CREATE
        assert door.tls == []


@virtual
async def test_who_begins_like_tls_and_stops_is_cut_off_in_time() -> None:
    async with visited() as door:
        began_s = now_s()
        door.visitor.stream.write(HELLO[:2])
        await asyncio.sleep(DECIDE_S / 2)
        door.visitor.stream.write(HELLO[2:3])
        await asyncio.sleep(DECIDE_S)
        assert door.visitor.lost_s == pytest.approx(began_s + DECIDE_S, abs=0.01)
        assert door.visitor.error is not None, "it is cut off, not closed"
        assert door.classic[0].heard == ["lost"]


@virtual
async def test_who_decides_in_time_stays() -> None:
    async with visited() as door:
        door.visitor.stream.write(HELLO[:1])
        await asyncio.sleep(DECIDE_S - 0.1)
        door.visitor.stream.write(HELLO[1:])
        await asyncio.sleep(10 * DECIDE_S)
        assert door.visitor.lost_s is None
        assert bytes(door.tls[0].data) == HELLO


@virtual
async def test_who_says_nothing_is_the_classic_sides_to_mind() -> None:
    async with visited() as door:
        await asyncio.sleep(10 * DECIDE_S)
        assert door.visitor.lost_s is None
        door.visitor.stream.write_eof()
        await quiet()
        assert door.classic[0].heard == ["eof"]


@virtual
async def test_what_came_before_an_early_end_is_all_there_is() -> None:
    async with visited() as door:
        door.visitor.stream.write(HELLO[:4])
        door.visitor.stream.write_eof()
        await quiet()
        assert bytes(door.classic[0].data) == HELLO[:4]
        assert door.classic[0].heard == ["data", "eof"]
        assert door.tls == []
        await asyncio.sleep(2 * DECIDE_S)
        assert door.visitor.lost_s is None, "it was decided"


@virtual
async def test_an_arrival_that_breaks_off_is_told_and_leaves_no_timer() -> None:
    async with visited() as door:
        door.visitor.stream.write(HELLO[:4])
        await quiet()
        door.visitor.stream.abort()
        await quiet()
        assert door.classic[0].heard == ["lost"]
        await asyncio.sleep(2 * DECIDE_S)
        assert door.classic[0].heard == ["lost"]


@virtual
async def test_who_hears_minds_a_full_buffer_too() -> None:
    async with visited() as door:
        door.visitor.stream.write(HELLO)
        await quiet()
        door.visitor.stream.pause_reading()
        door.tls[0].stream.write(bytes(200_000))
        await quiet()
        assert door.tls[0].heard[-1] == "pause"
        door.visitor.stream.resume_reading()
        await quiet()
        assert door.tls[0].heard[-1] == "resume"


@pytest.mark.parametrize("data", [OCM_CREATE, b"GET / HTTP/1.1\r\n"])
@virtual
async def test_where_only_tls_may_be_spoken_all_else_ends_at_its_first_bytes(data: bytes) -> None:
    async with visited(admits=False) as door:
        door.visitor.stream.write(data)
        await quiet()
        assert door.visitor.lost_s is not None
        assert door.classic[0].heard == ["lost"]


@virtual
async def test_where_only_tls_may_be_spoken_tls_is() -> None:
    async with visited(admits=False) as door:
        door.visitor.stream.write(HELLO)
        await quiet()
        assert bytes(door.tls[0].data) == HELLO


@virtual
async def test_where_only_tls_may_be_spoken_an_early_end_is_the_end() -> None:
    async with visited(admits=False) as door:
        door.visitor.stream.write_eof()
        await quiet()
        assert door.visitor.lost_s is not None
        assert door.classic[0].heard == ["lost"]


@virtual
async def test_a_full_buffer_of_somebody_shut_out_is_nobodys() -> None:
    async with visited(admits=False) as door:
        door.visitor.stream.pause_reading()
        door.classic[0].stream.write(bytes(200_000))
        await quiet()
        door.visitor.stream.resume_reading()
        await quiet()
        assert door.classic[0].heard == []
