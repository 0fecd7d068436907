"""The contract of streams, over every implementation: TCP on loopback, memory, a simulation on perfect links.

And TLS, or what stands for it in a simulation, over each of them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import pytest

from ocm.errors import AddressInUse, ConnectFailed, LocalProtocolError, TransportClosed
from ocm.protocol.address import Address, ip_of, is_loopback, make_address, port_of
from ocm.transport.base import Accept, Network, Stream, StreamHandler, StreamListener
from ocm.transport.link_model import PERFECT, LinkModel
from ocm.transport.memory import MemoryNetwork
from ocm.transport.sim import SimNetwork
from ocm.transport.sim_tls import SimClientSecurity, SimServerSecurity
from ocm.transport.sockets import SocketNetwork
from ocm.transport.tls import TlsClient, TlsServer
from tests.security import SecureNetwork, a_certificate

LOOPBACK = "127.0.0.1"
BUFFER = 65_536
FLOOD = bytes(1 << 20) * 16
"""More than any system keeps of a stream on its own."""


class Waiter(Protocol):
    def tell(self) -> None: ...

    async def until(self, holds: Callable[[], bool]) -> None: ...


class Ear:
    """A handler that remembers what it heard, in order."""

    def __init__(self, stream: Stream, changes: Waiter) -> None:
        self.stream = stream
        self.heard: list[str] = []
        self.data = bytearray()
        self.error: Exception | None = None
        self.on_data: Callable[[bytes], None] = lambda _: None
        self._changes = changes

    def data_received(self, data: bytes) -> None:
        assert data
        self.data += data
        self._hear("data")
        self.on_data(data)

    def eof_received(self) -> None:
        self._hear("eof")

    def pause_writing(self) -> None:
        self._hear("pause")

    def resume_writing(self) -> None:
        self._hear("resume")

    def connection_lost(self, error: Exception | None) -> None:
        self.error = error
        self._hear("lost")

    async def until(self, what: str) -> None:
        await self._changes.until(lambda: what in self.heard)

    async def until_data(self, data: bytes) -> None:
        await self._changes.until(lambda: len(self.data) >= len(data))
        assert self.data == data

    def _hear(self, what: str) -> None:
        self.heard.append(what)
        self._changes.tell()


def make_network(kind: str) -> Network:
    match kind.split(" over "):
        case ["tls", below]:
            return SecureNetwork(make_network(below), TlsServer(a_certificate()), TlsClient())
        case ["sim tls", below]:
            return SecureNetwork(make_network(below), SimServerSecurity(bytes(32)), SimClientSecurity())
        case [one]:
            return make_plain_network(one)
        case _:
            raise AssertionError(kind)


def make_plain_network(kind: str) -> Network:
    match kind:
        case "memory":
            return MemoryNetwork()
        case "sim":
            return SimNetwork(LinkModel(seed=0, path=PERFECT))
        case _:
            return SocketNetwork()


class Bench:
    """One implementation under test."""

    def __init__(self, kind: str, changes: Waiter) -> None:
        self.kind = kind
        self.host = None if "dual-stack" in kind else LOOPBACK
        self.address = "10.0.0.1" if kind.endswith("sim") else LOOPBACK
        self.network: Network = make_network(kind)
        self.changes = changes
        self._ears: list[Ear] = []
        self._listeners: list[StreamListener] = []

    def ear(self, stream: Stream) -> StreamHandler:
        ear = Ear(stream, self.changes)
        self._ears.append(ear)
        self.changes.tell()
        return ear

    async def listen(self, accept: Accept, *, port: int = 0, write_buffer_max: int = BUFFER) -> StreamListener:
        listener = await self.network.listen(self.host, port, accept, write_buffer_max=write_buffer_max)
        self._listeners.append(listener)
        return listener

    async def connect(
        self, listener: StreamListener, *, write_buffer_max: int = BUFFER, local: Address | None = None
    ) -> Ear:
        port = port_of(listener.local)
        stream = await self.network.connect(LOOPBACK, port, self.ear, write_buffer_max=write_buffer_max, local=local)
        return next(ear for ear in self._ears if ear.stream is stream)

    async def pair(self, *, write_buffer_max: int = BUFFER) -> tuple[Ear, Ear]:
        """Return who connected and who was connected to."""
        listener = await self.listen(self.ear, write_buffer_max=write_buffer_max)
        before = len(self._ears)
        ours = await self.connect(listener, write_buffer_max=write_buffer_max)
        await self.changes.until(lambda: len(self._ears) == before + 2)
        return ours, next(ear for ear in self._ears[before:] if ear is not ours)

    async def close(self) -> None:
        """End everything; whatever was opened hears of it, once and last."""
        for listener in self._listeners:
            listener.close()
        for ear in self._ears:
            ear.stream.abort()
        for ear in self._ears:
            await ear.until("lost")
        await turns()
        for ear in self._ears:
            assert ear.heard.count("lost") == 1
            assert ear.heard[-1] == "lost"
            assert ear.heard.count("eof") <= 1


@pytest.fixture(
    params=[
        *("tcp v4", "tcp dual-stack", "memory", "sim"),
        *("tls over memory", "tls over tcp v4", "tls over sim", "sim tls over memory", "sim tls over sim"),
    ]
)
async def bench(request: pytest.FixtureRequest, need_ipv6: Callable[[], None], changes: Waiter) -> AsyncIterator[Bench]:
    if "dual-stack" in request.param:
        need_ipv6()
    made = Bench(request.param, changes)
    yield made
    await made.close()


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_bytes_arrive_in_order_both_ways(bench: Bench) -> None:
    ours, theirs = await bench.pair()
    sent = [b"%d " % number for number in range(500)]
    for number, data in enumerate(sent):
        ours.stream.write(data)
        theirs.stream.write(data)
        if number % 100 == 0:
            await turns(1)
    await theirs.until_data(b"".join(sent))
    await ours.until_data(b"".join(sent))


async def test_both_ends_know_both_addresses(bench: Bench) -> None:
    ours, theirs = await bench.pair()
    assert port_of(ours.stream.local) == port_of(theirs.stream.remote)
    assert port_of(ours.stream.remote) == port_of(theirs.stream.local)
    for address in (ours.stream.local, ours.stream.remote, theirs.stream.local, theirs.stream.remote):
        assert ip_of(address) == ip_of(make_address(bench.address, 0))


async def test_accept_is_asked_before_any_byte_and_may_write_at_once(bench: Bench) -> None:
    def greet(stream: Stream) -> StreamHandler:
        stream.write(b"welcome")
        return bench.ear(stream)

    ours = await bench.connect(await bench.listen(greet))
    await ours.until_data(b"welcome")


async def test_reading_may_be_paused_from_the_start(bench: Bench) -> None:
    def accept(stream: Stream) -> StreamHandler:
        stream.pause_reading()
        theirs.append(stream)
        return bench.ear(stream)

    theirs: list[Stream] = []
    ours = await bench.connect(await bench.listen(accept))
    ours.stream.write(b"early")
    await bench.changes.until(lambda: len(theirs) == 1)
    await turns()
    ear = next(ear for ear in bench._ears if ear.stream is theirs[0])
    assert not ear.heard
    theirs[0].resume_reading()
    await ear.until_data(b"early")


async def test_reading_paused_from_the_start_may_be_resumed_at_once(bench: Bench) -> None:
    def accept(stream: Stream) -> StreamHandler:
        stream.pause_reading()
        asyncio.get_running_loop().call_soon(stream.resume_reading)
        stream.pause_reading()
        stream.resume_reading()
        stream.pause_reading()
        return bench.ear(stream)

    ours = await bench.connect(await bench.listen(accept))
    ours.stream.write(b"early")
    await bench.changes.until(lambda: len(bench._ears) == 2)
    ear = next(ear for ear in bench._ears if ear is not ours)
    await ear.until_data(b"early")


async def test_nothing_is_heard_inside_the_call_that_caused_it(bench: Bench) -> None:
    ours, theirs = await bench.pair(write_buffer_max=10)
    theirs.stream.pause_reading()
    ours.stream.write(FLOOD)
    assert not ours.heard
    await ours.until("pause")
    ours.stream.abort()
    assert ours.heard == ["pause"]
    await ours.until("lost")


async def test_nothing_to_write_is_nothing_to_hear(bench: Bench) -> None:
    ours, theirs = await bench.pair()
    ours.stream.write(b"")
    ours.stream.write(b"x")
    await theirs.until_data(b"x")
    assert theirs.heard == ["data"]


async def test_after_a_half_close_the_other_direction_still_works(bench: Bench) -> None:
    ours, theirs = await bench.pair()
    ours.stream.write(b"question")
    ours.stream.write_eof()
    ours.stream.write_eof()
    await theirs.until("eof")
    assert theirs.data == b"question"
    await turns()
    theirs.stream.write(b"answer")
    await ours.until_data(b"answer")
    assert "lost" not in ours.heard + theirs.heard
    theirs.stream.close()
    await ours.until("eof")
    ours.stream.close()
    await ours.until("lost")
    assert ours.error is None
    assert theirs.error is None


async def test_a_stream_whose_both_halves_ended_stays_until_it_is_closed(bench: Bench) -> None:
    ours, theirs = await bench.pair()
    ours.stream.write_eof()
    theirs.stream.write_eof()
    await ours.until("eof")
    await theirs.until("eof")
    await turns()
    assert ours.heard == theirs.heard == ["eof"]


async def test_the_end_is_heard_once_however_reading_is_paused_and_resumed(bench: Bench) -> None:
    ours, theirs = await bench.pair()
    theirs.stream.write_eof()
    await ours.until("eof")
    for _ in range(3):
        ours.stream.pause_reading()
        ours.stream.resume_reading()
        await turns()
    assert ours.heard == ["eof"]


async def test_the_end_waits_behind_bytes_that_wait_for_reading(bench: Bench) -> None:
    ours, theirs = await bench.pair()
    theirs.stream.pause_reading()
    ours.stream.write(b"last words")
    ours.stream.write_eof()
    await turns()
    assert not theirs.heard
    theirs.stream.resume_reading()
    await theirs.until("eof")
    assert theirs.heard == ["data", "eof"]


async def test_writing_after_the_own_end_is_a_mistake_of_the_caller(bench: Bench) -> None:
    ours, _ = await bench.pair()
    ours.stream.write_eof()
    with pytest.raises(LocalProtocolError):
        ours.stream.write(b"more")


async def test_while_reading_is_paused_nothing_is_heard(bench: Bench) -> None:
    ours, theirs = await bench.pair()
    theirs.stream.pause_reading()
    theirs.stream.pause_reading()
    ours.stream.write(b"hello")
    await turns()
    assert not theirs.heard
    theirs.stream.resume_reading()
    theirs.stream.resume_reading()
    await theirs.until_data(b"hello")


async def test_reading_paused_inside_data_received_stops_before_the_next_call(bench: Bench) -> None:
    ours, theirs = await bench.pair()
    theirs.on_data = lambda _: theirs.stream.pause_reading()
    for _ in range(10):
        ours.stream.write(b"x" * 1000)
        await turns(1)
    await theirs.until("data")
    await turns()
    assert theirs.heard == ["data"]
    while len(theirs.data) < 10_000:
        theirs.stream.resume_reading()
        await asyncio.sleep(0)
    await theirs.until_data(b"x" * 10_000)


async def test_a_writer_hears_that_much_waits_and_that_it_has_drained(bench: Bench) -> None:
    ours, theirs = await bench.pair()
    theirs.stream.pause_reading()
    ours.stream.write(FLOOD)
    ours.stream.write(b"end")
    await ours.until("pause")
    await turns()
    assert ours.heard == ["pause"]
    theirs.stream.resume_reading()
    await ours.until("resume")
    assert ours.heard == ["pause", "resume"]
    await theirs.until_data(FLOOD + b"end")


async def test_up_to_write_buffer_max_may_wait_unheard(bench: Bench) -> None:
    ours, theirs = await bench.pair(write_buffer_max=1000)
    theirs.stream.pause_reading()
    ours.stream.write(bytes(1000))
    await turns()
    assert not ours.heard
    theirs.stream.resume_reading()
    await theirs.until_data(bytes(1000))
    assert not ours.heard


async def test_close_sends_what_is_queued_first(bench: Bench) -> None:
    ours, theirs = await bench.pair()
    theirs.stream.pause_reading()
    ours.stream.write(FLOOD)
    ours.stream.close()
    ours.stream.close()
    await turns()
    theirs.stream.resume_reading()
    await theirs.until("eof")
    assert theirs.data == FLOOD
    await ours.until("lost")
    assert ours.error is None


async def test_after_close_writing_does_nothing(bench: Bench) -> None:
    ours, theirs = await bench.pair()
    ours.stream.write(b"last")
    ours.stream.close()
    ours.stream.write(b"too late")
    ours.stream.write_eof()
    await ours.until("lost")
    ours.stream.write(b"later still")
    ours.stream.write_eof()
    ours.stream.close()
    ours.stream.pause_reading()
    ours.stream.resume_reading()
    await theirs.until("eof")
    assert theirs.data == b"last"


async def test_abort_forgets_what_is_queued(bench: Bench) -> None:
    ours, theirs = await bench.pair()
    theirs.stream.pause_reading()
    ours.stream.write(FLOOD)
    await turns()
    ours.stream.abort()
    ours.stream.abort()
    ours.stream.write(b"too late")
    ours.stream.write_eof()
    await ours.until("lost")
    assert ours.error is None
    theirs.stream.resume_reading()
    await theirs.until("lost")
    assert len(theirs.data) < len(FLOOD)


async def test_a_peer_that_aborts_is_heard_as_an_error(bench: Bench) -> None:
    ours, theirs = await bench.pair()
    theirs.stream.abort()
    await ours.until("lost")
    assert isinstance(ours.error, TransportClosed)
    assert ours.heard == ["lost"]


async def test_after_connection_lost_every_call_does_nothing(bench: Bench) -> None:
    ours, theirs = await bench.pair()
    theirs.stream.abort()
    await ours.until("lost")
    for _ in range(10):
        ours.stream.write(b"x")
    ours.stream.write_eof()
    ours.stream.close()
    ours.stream.abort()


async def test_writing_to_a_peer_that_closed_ends_in_an_error(bench: Bench) -> None:
    ours, theirs = await bench.pair()
    theirs.stream.close()
    await ours.until("eof")
    await theirs.until("lost")
    while "lost" not in ours.heard:
        ours.stream.write(b"are you there?")
        await asyncio.sleep(0)
    assert isinstance(ours.error, TransportClosed)
    assert theirs.error is None


async def test_both_ends_may_close_at_once(bench: Bench) -> None:
    ours, theirs = await bench.pair()
    ours.stream.write(b"bye")
    theirs.stream.write(b"bye")
    ours.stream.close()
    theirs.stream.close()
    await ours.until("lost")
    await theirs.until("lost")
    assert ours.error is None
    assert theirs.error is None


async def test_closing_from_inside_data_received_is_heard_last(bench: Bench) -> None:
    ours, theirs = await bench.pair()
    theirs.on_data = lambda _: theirs.stream.close()
    for _ in range(5):
        ours.stream.write(b"x")
    await theirs.until("lost")
    assert theirs.heard == ["data", "lost"]


async def test_a_handler_that_raises_loses_its_stream_and_no_other(bench: Bench) -> None:
    ours, theirs = await bench.pair()
    others = await bench.pair()
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))

    def fail(data: bytes) -> None:
        raise RuntimeError

    theirs.on_data = fail
    ours.stream.write(b"x")
    await theirs.until("lost")
    assert [type(error) for error in told] == [RuntimeError]
    others[0].stream.write(b"fine")
    await others[1].until_data(b"fine")


@pytest.mark.parametrize("side", ["connecting", "accepting"])
async def test_an_accept_that_raises_loses_its_stream(bench: Bench, side: str) -> None:
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))

    def refuse(stream: Stream) -> StreamHandler:
        raise RuntimeError

    accepting, connecting = (bench.ear, refuse) if side == "connecting" else (refuse, bench.ear)
    listener = await bench.listen(accepting)
    with contextlib.suppress(ConnectFailed):  # where the other side was quicker
        stream = await bench.network.connect(LOOPBACK, port_of(listener.local), connecting, write_buffer_max=BUFFER)
        stream.write(b"nobody hears this")
    await turns()
    for ear in bench._ears:
        await ear.until("lost")
    assert [type(error) for error in told] == [RuntimeError]


async def test_port_0_takes_a_free_one_and_local_tells_which(bench: Bench) -> None:
    first, second = await bench.listen(bench.ear), await bench.listen(bench.ear)
    assert 0 != port_of(first.local) != port_of(second.local) != 0
    assert is_loopback(first.local) == bench.kind.endswith(("tcp v4", "memory"))


async def test_a_port_that_is_taken_is_in_use_and_free_again_after_close(bench: Bench) -> None:
    listener = await bench.listen(bench.ear)
    port = port_of(listener.local)
    with pytest.raises(AddressInUse) as caught:
        await bench.listen(bench.ear, port=port)
    assert (caught.value.kind, caught.value.port) == ("TCP", port)
    listener.close()
    assert port_of((await bench.listen(bench.ear, port=port)).local) == port


@pytest.mark.parametrize("host", ["192.0.2.1", "no such name.invalid"])
async def test_an_address_that_is_not_ours_cannot_be_listened_on(bench: Bench, host: str) -> None:
    with pytest.raises(TransportClosed) as caught:
        await bench.network.listen(host, 0, bench.ear, write_buffer_max=BUFFER)
    assert not isinstance(caught.value, AddressInUse)


async def test_streams_live_on_when_their_listener_closes_and_no_new_ones_come(bench: Bench) -> None:
    ours, theirs = await bench.pair()
    listener = bench._listeners[0]
    listener.close()
    listener.close()
    ours.stream.write(b"still here")
    await theirs.until_data(b"still here")
    with pytest.raises(ConnectFailed):
        await bench.connect(listener)


async def test_many_streams_are_accepted(bench: Bench) -> None:
    listener = await bench.listen(bench.ear)
    ours = await asyncio.gather(*(bench.connect(listener) for _ in range(150)))
    await bench.changes.until(lambda: len(bench._ears) == 300)
    assert len({ear.stream.local for ear in ours}) == 150


async def test_a_stream_may_come_from_a_source_address_and_port_asked_for(bench: Bench) -> None:
    free = await bench.listen(bench.ear)
    source = make_address(bench.address, port_of(free.local))
    free.close()
    listener = await bench.listen(bench.ear)
    ours = await bench.connect(listener, local=source)
    assert ours.stream.local == source
    await bench.changes.until(lambda: len(bench._ears) == 2)
    assert port_of(bench._ears[-1].stream.remote + bench._ears[0].stream.remote) > 0


async def test_a_source_port_may_be_asked_for_alone(bench: Bench) -> None:
    listener, free = await bench.listen(bench.ear), await bench.listen(bench.ear)
    free.close()
    ours = await bench.connect(listener, local=make_address("0.0.0.0", port_of(free.local)))
    assert port_of(ours.stream.local) == port_of(free.local)


async def test_a_source_port_that_is_taken_is_in_use(bench: Bench) -> None:
    listener, other = await bench.listen(bench.ear), await bench.listen(bench.ear)
    taken = make_address(LOOPBACK, port_of(other.local))
    with pytest.raises(AddressInUse) as caught:
        await bench.connect(listener, local=taken)
    assert (caught.value.kind, caught.value.port) == ("TCP", port_of(taken))


async def test_a_source_address_that_is_not_ours_fails(bench: Bench) -> None:
    listener = await bench.listen(bench.ear)
    with pytest.raises(ConnectFailed):
        await bench.connect(listener, local=make_address("192.0.2.1", 0))


async def test_where_nobody_listens_nobody_answers_and_the_error_says_where(bench: Bench) -> None:
    listener = await bench.listen(bench.ear)
    port = port_of(listener.local)
    listener.close()
    with pytest.raises(ConnectFailed, match=rf"^nobody answers at 127\.0\.0\.1:{port} \(connection refused\)$"):
        await bench.connect(listener)


@pytest.mark.parametrize("host", ["no such name.invalid", "a" * 70 + ".invalid"])
async def test_a_name_without_addresses_is_no_such_host_name(bench: Bench, host: str) -> None:
    with pytest.raises(ConnectFailed, match="no such host name"):
        await bench.network.connect(host, 1, bench.ear, write_buffer_max=BUFFER)


async def test_a_connect_that_is_cancelled_leaves_no_stream(bench: Bench) -> None:
    listener = await bench.listen(bench.ear)
    connecting = asyncio.ensure_future(bench.connect(listener))
    await asyncio.sleep(0)
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    for ear in bench._ears:
        await ear.until("lost")
