"""The server's side of TCRP/2: deadlines, bounds, back-pressure, the end; with clients of its own and crude ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import pytest

import ocm
from ocm.errors import HandshakeFailed
from ocm.protocol.session.receiving import ENTRIES_MAX
from ocm.protocol.wire.classic import Stage
from ocm.protocol.wire.frames import Message, Ping, read_frames, write_frame
from ocm.protocol.wire.records import (
    PAYLOAD_SIZE_MAX,
    SUITE,
    VERSION,
    Authenticate,
    CloseCode,
    Closing,
    ControlRecord,
    Create,
    Denied,
    Hello,
    History,
    Join,
    Op,
    Pages,
    Payload,
    RecordReader,
    RoomRequest,
    Seated,
    write_frames_record,
    write_record,
)
from ocm.testing import Network
from ocm.transport.base import Pinned, SecureStream, Stream, StreamHandler
from ocm.transport.memory import MemoryNetwork
from ocm.transport.tls import TlsClient
from tests.client.stage import Machine
from tests.modern import URL, Listener, now_s, simulated, sitting, until
from tests.peers import SERVER, Peer
from tests.security import a_certificate
from tests.virtual import quiet, virtual

ANYWHERE = f"tcrps://{SERVER}:0"
HELLO = Hello(versions=[VERSION], suites=[SUITE], secret="ab" * 32, connection="cd" * 8)
CLIENT_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"
"""The beginning of one."""


@dataclass
class Crude:
    """A client by hand: TLS, and records as it pleases."""

    peer: Peer
    stream: SecureStream
    reader: RecordReader = field(default_factory=RecordReader)
    taken: int = 0

    def ask(self, op: Op, payload: Payload) -> None:
        self.stream.write(write_record(op, Stage.REQUEST, payload))

    async def answers(self) -> list[Payload | None]:
        """Wait a little; return what was answered since this was last asked."""
        await asyncio.sleep(0.1)
        return [record.read() for record in self.records() if record.operation != Op.FRAMES]

    def records(self) -> list[ControlRecord]:
        """Return the records that have come since this was last asked."""
        new = self.peer.received[self.taken :]
        self.taken += len(new)
        self.reader.feed(new)
        found: list[ControlRecord] = []
        while (record := self.reader.next()) is not None:
            found.append(record)
        return found

    async def enter(self, room: str = "r", *, op: Op = Op.CREATE) -> None:
        """Get as far as having a seat in a room."""
        self.ask(Op.HELLO, HELLO)
        await self.answers()
        self.ask(Op.AUTH, Authenticate())
        await self.answers()
        self.reader.payload_size_max = PAYLOAD_SIZE_MAX
        entering = Create if op is Op.CREATE else Join
        self.ask(op, entering(id=1, room=room, user="crude"))
        assert isinstance((await self.answers())[-1], Seated)


@asynccontextmanager
async def serving(limits: ocm.Limits | None = None) -> AsyncGenerator[tuple[ocm.EmbeddedServer, MemoryNetwork]]:
    network = MemoryNetwork()
    async with ocm.serve(
        ANYWHERE, network=network.host(SERVER), certificate=a_certificate(), limits=limits, classic="on"
    ) as server:
        yield server, network


async def dial(server: ocm.EmbeddedServer, network: MemoryNetwork, host: str = "10.0.0.7") -> Peer:
    peer = Peer()
    await network.host(host).connect(SERVER, server.tcp_port, peer.begin, write_buffer_max=65_536)
    return peer


async def dial_secure(
    server: ocm.EmbeddedServer, network: MemoryNetwork, host: str = "10.0.0.7", *, hangs_up: bool = True
) -> Crude:
    ready: asyncio.Future[Crude] = asyncio.get_running_loop().create_future()

    def accept(stream: SecureStream) -> StreamHandler:
        peer = Peer(hangs_up=hangs_up)
        peer.begin(stream)
        ready.set_result(Crude(peer, stream))
        return peer

    def failed(error: HandshakeFailed) -> None:
        if not ready.done():
            ready.set_exception(error)

    assert server.fingerprint is not None
    trust = Pinned(server.fingerprint)

    def begin(stream: Stream) -> StreamHandler:
        return TlsClient().begin(stream, trust, accept, failed)

    await network.host(host).connect(SERVER, server.tcp_port, begin, write_buffer_max=65_536)
    return await ready


# --- deadlines ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [b"\x16\x03\x01\x02\x00\x01", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"])
@virtual
async def test_a_handshake_that_is_not_finished_in_ten_seconds_is_cut_off(said: bytes) -> None:
    async with serving() as (server, network):
        peer = await dial(server, network)
        peer.send(said)
        await asyncio.sleep(9.9)
        assert not peer.ended
        await asyncio.sleep(0.2)
        assert peer.ended
        await quiet()
        assert server.status().connections == 0


@virtual
async def test_the_first_bytes_of_a_handshake_have_five_seconds() -> None:
    async with serving() as (server, network):
        peer = await dial(server, network)
        peer.send(b"\x16\x03")
        await asyncio.sleep(4.9)
        assert not peer.ended
        await asyncio.sleep(0.2)
        assert peer.ended


@virtual
async def test_who_says_nothing_inside_tls_is_cut_off_after_ten_seconds() -> None:
    async with serving() as (server, network):
        silent = await dial_secure(server, network)
        slow = await dial_secure(server, network)
        slow.ask(Op.HELLO, HELLO)
        assert len(await slow.answers()) == 1
        await asyncio.sleep(9.7)
        assert not silent.peer.ended
        await asyncio.sleep(0.3)
        assert silent.peer.ended
        assert slow.peer.ended  # HELLO and AUTH share the ten seconds


@virtual
async def test_who_is_known_may_stay_and_who_is_not_heard_of_any_more_may_not() -> None:
    async with serving() as (server, network):
        crude = await dial_secure(server, network)
        await crude.enter()
        await asyncio.sleep(55)
        assert not crude.peer.ended
        await asyncio.sleep(6)
        [last] = [answer for answer in await crude.answers() if isinstance(answer, Closing)]
        assert last.code == CloseCode.IDLE
        assert crude.peer.ended
        assert server.status().hub.members == 1  # it may come back


@virtual
async def test_a_peer_that_does_not_hang_up_is_cut_off_two_seconds_after_the_last_word() -> None:
    async with serving() as (server, network):
        crude = await dial_secure(server, network, hangs_up=False)
        crude.stream.write(b"\0" * 64)
        await asyncio.sleep(1.9)
        assert server.status().connections == 1
        await asyncio.sleep(0.2)
        assert server.status().connections == 0
        assert isinstance((await crude.answers())[-1], Closing)


# --- bounds -------------------------------------------------------------------------------------------------


@virtual
async def test_the_oldest_of_too_many_handshakes_goes() -> None:
    async with serving(ocm.Limits(handshakes_max=3)) as (server, network):
        peers: list[Peer] = []
        for number in range(5):
            peer = await dial(server, network, f"10.0.1.{number}")
            peer.send(CLIENT_HELLO)
            peers.append(peer)
        await quiet()
        assert [peer.ended for peer in peers] == [True, True, False, False, False]


@virtual
async def test_connections_of_one_host_without_a_client_that_is_known_are_bounded() -> None:
    async with serving(ocm.Limits(unseated_per_host_max=3)) as (server, network):
        known = [await dial_secure(server, network) for _ in range(3)]
        for number, crude in enumerate(known):
            await crude.enter(f"r{number}")
        unknown = [await dial_secure(server, network) for _ in range(5)]
        await quiet()
        assert [crude.peer.ended for crude in unknown] == [True, True, False, False, False]
        assert not any(crude.peer.ended for crude in known)  # who is known counts in no bound


@virtual
async def test_a_host_that_abandons_too_many_handshakes_waits() -> None:
    async with serving(ocm.Limits(abandoned_per_host_max=3)) as (server, network):
        for _ in range(3):
            peer = await dial(server, network)
            peer.send(CLIENT_HELLO)
            await quiet()
            peer.stream.abort()
            await quiet()
        with pytest.raises(HandshakeFailed):
            await dial_secure(server, network)
        await (await dial_secure(server, network, "10.0.0.8")).enter()
        await asyncio.sleep(600)
        await (await dial_secure(server, network)).enter("other")


@virtual
async def test_small_questions_do_not_get_more_large_answers_than_fit() -> None:
    limits = ocm.Limits(burst_max=1000, rate_per_s=1000, bytes_per_s=2**26)
    async with serving(limits) as (server, network):
        host = await server.create("talk", "host", policy=ocm.Policy())
        for _ in range(200):
            await host.send("x" * 1000)
        crude = await dial_secure(server, network)
        await crude.enter()
        crude.ask(Op.JOIN, Join(id=2, room="talk", user="crude", last=0, lowest=1))
        [seated] = [answer for answer in await crude.answers() if isinstance(answer, Seated)]
        for number in range(10, 60):
            crude.ask(Op.HISTORY, History(id=number, handle=seated.handle, first=1, count=256))
        answers = await crude.answers()
        pages = [answer for answer in answers if isinstance(answer, Pages)]
        refused = [answer for answer in answers if isinstance(answer, Denied)]
        assert len(pages) == 50, "each is made when there is room for it"
        assert refused == []


def entries_of(crude: Crude) -> list[int]:
    """Return the places of the entries that have come since this was last asked."""
    return [
        frame.seq
        for record in crude.records()
        if record.operation == Op.FRAMES
        for frame in read_frames(record.payload, frames_max=4096)
        if isinstance(frame, Message)
    ]


# --- back-pressure ------------------------------------------------------------------------------------------


@virtual
async def test_who_does_not_read_is_not_read_from_and_is_cut_off_after_thirty_seconds() -> None:
    limits = ocm.Limits(burst_max=5000, rate_per_s=5000, bytes_per_s=2**26, session_timeout_s=1000)
    async with serving(limits) as (server, network):
        host = await server.create("talk", "host", policy=ocm.Policy())
        crude = await dial_secure(server, network)
        await crude.enter("talk", op=Op.JOIN)
        crude.peer.stream.pause_reading()
        for _ in range(200):
            await host.send("x" * 1000)
        await asyncio.sleep(1)
        crude.ask(Op.END, RoomRequest(id=9, handle=1))
        asked = asyncio.get_running_loop().time()
        await asyncio.sleep(28)
        assert server.status().connections == 1
        await asyncio.sleep(2)
        assert server.status().connections == 0
        assert asyncio.get_running_loop().time() - asked < 31


@pytest.mark.parametrize("pings", [True, False])
@virtual
async def test_who_reads_nothing_and_fills_nothing_holds_no_more_than_a_window_and_stays_while_it_is_heard(
    pings: bool,
) -> None:
    limits = ocm.Limits(burst_max=5000, rate_per_s=5000)
    async with serving(limits) as (server, network):
        host = await server.create("talk", "host", policy=ocm.Policy())
        crude = await dial_secure(server, network)
        await crude.enter("talk", op=Op.JOIN)
        crude.peer.stream.pause_reading()
        for _ in range(1000):
            await host.send("x" * 100)
            await quiet()
        for _ in range(20):
            if pings:
                crude.stream.write(write_frames_record(write_frame(Ping())))
            await asyncio.sleep(15)
        assert server.status().connections == pings
        assert len(host.members()) == 2, "it may come back for a day"
        crude.peer.stream.resume_reading()
        await quiet()
        if pings:
            assert entries_of(crude) == list(range(3, 3 + ENTRIES_MAX))


@virtual
async def test_who_reads_late_gets_everything_in_order() -> None:
    limits = ocm.Limits(burst_max=5000, rate_per_s=5000, bytes_per_s=2**26)
    async with serving(limits) as (server, network):
        host = await server.create("talk", "host", policy=ocm.Policy())
        crude = await dial_secure(server, network)
        await crude.enter("talk", op=Op.JOIN)
        crude.peer.stream.pause_reading()
        for _ in range(200):
            await host.send("x" * 1000)
        for _ in range(5):
            await asyncio.sleep(5)
        crude.peer.stream.resume_reading()
        await quiet()
        assert entries_of(crude) == list(range(3, 203))


# --- the end ------------------------------------------------------------------------------------------------


@simulated
async def test_a_server_that_stops_tells_members_first_and_is_gone_soon(network: Network) -> None:
    async with AsyncExitStack() as stack:
        async with ocm.serve(URL) as server:
            listeners = [
                Listener(await stack.enter_async_context(sitting(server.url, f"m{number}", create=not number)))
                for number in range(5)
            ]
            network.cut("m4")
            start_s = now_s()
        assert now_s() - start_s < 2.2  # somebody does not hear it, and delays the end to its bound
        for listener in listeners[:4]:
            assert (await listener.end())[-1] == ocm.RoomClosed(ocm.Reason.SERVER_STOPPED)
        network.heal("m4")


@virtual
async def test_nobody_is_let_in_while_the_server_stops() -> None:
    late: list[ocm.Knock] = []
    release = asyncio.Event()

    async def authorize(knock: ocm.Knock) -> bool:
        late.append(knock)
        await release.wait()
        return True

    network = MemoryNetwork()
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(AsyncExitStack())
        server = await running.enter_async_context(
            ocm.serve(ANYWHERE, network=network.host(SERVER), certificate=a_certificate(), authorize=authorize)
        )
        here = Machine(network)

        async def enter() -> None:
            async with ocm.connect(server.url, user="aiko", network=here) as client, client.create("r"):
                pass

        entering = asyncio.create_task(enter())
        await until(lambda: bool(late))
        await running.aclose()
        with pytest.raises(ocm.TransportClosed):
            await asyncio.wait_for(entering, 40)
        assert here.ports_open() == 0


@virtual
async def test_a_server_that_is_cancelled_while_it_stops_leaves_nothing_open() -> None:
    for turns in range(12):
        network = MemoryNetwork()
        entered = asyncio.Event()

        async def run(network: MemoryNetwork, entered: asyncio.Event) -> None:
            async with ocm.serve(ANYWHERE, network=network.host(SERVER), certificate=a_certificate()) as server:
                crude = await dial_secure(server, network)
                await crude.enter()
                entered.set()

        task = asyncio.create_task(run(network, entered))
        await entered.wait()
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        async with ocm.serve(f"tcrp://{SERVER}:4000", network=network.host(SERVER)):
            pass  # the address is free
