"""Streams over bad links are late, never wrong; they end as TCP's do. Datagrams find hosts that move, or nobody."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocm.errors import AddressInUse, ConnectFailed, LocalProtocolError, TransportClosed
from ocm.protocol.address import Address, address_text, make_address, port_of, split_address
from ocm.testing import LinkModel, Network, SimNetwork, StreamTimes
from ocm.transport.base import Batch, Stream
from ocm.transport.sim_stream import SEGMENT_SIZE_MAX, WINDOW

Program = Callable[[Network], Coroutine[Any, Any, None]]


class Ear:
    """Hears a stream."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.data = b""
        self.times_s: list[float] = []
        self.ended = False
        self.lost_s: float | None = None
        self.error: Exception | None = None

    def data_received(self, data: bytes) -> None:
        assert len(data) <= SEGMENT_SIZE_MAX
        self.data += data
        self.times_s.append(now_s())

    def eof_received(self) -> None:
        self.ended = True

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def connection_lost(self, error: Exception | None) -> None:
        self.error = error
        self.lost_s = now_s()


def now_s() -> float:
    return asyncio.get_running_loop().time() - 1000.0


def simulated(program: Program) -> Callable[[], None]:
    """Run a test on a network with the hosts ``server`` and ``aiko``, 10 ms apart."""

    @functools.wraps(program)
    def run() -> None:
        network = Network(1, delay_s=0.01)
        network.run(program(network))

    del run.__wrapped__  # or pytest would ask for a fixture
    return run


async def pair(network: Network, *, port: int = 0) -> tuple[Ear, Ear]:
    """Return who connected, on ``aiko``, and who was connected to, on ``server``."""
    ears: list[Ear] = []

    def accept(stream: Stream) -> Ear:
        ears.append(Ear(stream))
        return ears[-1]

    listener = await network.host("server").listen(None, port, accept, write_buffer_max=10_000)
    await network.host("aiko").connect("server", port_of(listener.local), accept, write_buffer_max=10_000)
    server = next(ear for ear in ears if split_address(ear.stream.local)[0] == "10.0.0.1")
    return next(ear for ear in ears if ear is not server), server


@given(
    st.integers(0, 2**32),
    st.floats(0, 0.6),
    st.floats(0, 1),
    st.lists(st.tuples(st.floats(0, 0.3), st.binary(max_size=4000)), max_size=20),
)
def test_what_is_written_arrives_whole_and_in_order(
    seed: int, loss: float, reorder: float, writes: list[tuple[float, bytes]]
) -> None:
    async def program() -> None:
        ours, theirs = await pair(network)
        network.link("aiko", loss=loss, reorder=reorder, duplicate=0.3, delay_s=0.05, jitter_s=0.1)
        for wait_s, data in writes:
            await asyncio.sleep(wait_s)
            ours.stream.write(data)
            theirs.stream.write(data[::-1])
        ours.stream.write_eof()
        await asyncio.sleep(2000)
        assert theirs.data == b"".join(data for _, data in writes)
        assert ours.data == b"".join(data[::-1] for _, data in writes)
        assert theirs.ended
        assert theirs.error is None

    network = Network(seed, times=StreamTimes(give_up_after_s=10_000))
    network.run(program())


@simulated
async def test_a_lost_segment_costs_time_and_holds_up_what_is_behind_it(network: Network) -> None:
    ours, theirs = await pair(network)
    began_s = now_s()
    network.cut("aiko", direction="up")
    ours.stream.write(b"first")
    await asyncio.sleep(0.05)
    network.heal()
    ours.stream.write(b"second")
    await asyncio.sleep(10)
    assert theirs.data == b"firstsecond"
    assert theirs.times_s[0] == theirs.times_s[1] == pytest.approx(began_s + 0.2 + 0.01)


@simulated
async def test_a_stream_stalls_in_a_cut_and_goes_on_after_it(network: Network) -> None:
    ours, theirs = await pair(network)
    network.cut("aiko")
    ours.stream.write(b"late")
    await asyncio.sleep(20)
    assert theirs.times_s == []
    network.heal("aiko")
    await asyncio.sleep(10)
    assert theirs.data == b"late"
    assert ours.lost_s is None


@simulated
async def test_in_a_long_cut_the_sender_loses_the_stream_and_the_other_side_hears_nothing(network: Network) -> None:
    ours, theirs = await pair(network)
    began_s = now_s()
    network.cut("aiko")
    ours.stream.write(b"never")
    await asyncio.sleep(100)
    assert ours.lost_s is not None
    assert 30 <= ours.lost_s - began_s <= 40
    assert isinstance(ours.error, TransportClosed)
    assert theirs.lost_s is None
    network.heal()
    theirs.stream.write(b"are you there?")
    await asyncio.sleep(1)
    assert theirs.lost_s is not None
    assert isinstance(theirs.error, TransportClosed)


@simulated
async def test_an_idle_stream_notices_no_cut(network: Network) -> None:
    ours, theirs = await pair(network)
    network.cut("aiko")
    await asyncio.sleep(10_000)
    network.heal()
    ours.stream.write(b"as if nothing had been")
    await asyncio.sleep(1)
    assert theirs.data == b"as if nothing had been"


@simulated
async def test_where_the_way_back_is_cut_data_arrive_once_and_the_sender_gives_up(network: Network) -> None:
    ours, theirs = await pair(network)
    network.cut("aiko", direction="down")
    ours.stream.write(b"once")
    await asyncio.sleep(100)
    assert theirs.data == b"once"
    assert isinstance(ours.error, TransportClosed)


@simulated
async def test_a_reset_may_be_lost_and_is_found_out_by_writing(network: Network) -> None:
    ours, theirs = await pair(network)
    network.cut("aiko")
    ours.stream.abort()
    await asyncio.sleep(1)
    network.heal()
    assert theirs.lost_s is None
    theirs.stream.write(b"hello?")
    await asyncio.sleep(1)
    assert isinstance(theirs.error, TransportClosed)
    assert ours.error is None


@simulated
async def test_a_host_that_moves_loses_its_streams_at_once_and_the_others_wait(network: Network) -> None:
    ours, theirs = await pair(network)
    network.move("aiko")
    await asyncio.sleep(1)
    assert isinstance(ours.error, TransportClosed)
    theirs.stream.write(b"to the old address")
    await asyncio.sleep(20)
    assert theirs.lost_s is None
    await asyncio.sleep(20)
    assert isinstance(theirs.error, TransportClosed)


@simulated
async def test_what_a_closed_stream_still_had_to_say_is_lost_with_the_address(network: Network) -> None:
    ours, theirs = await pair(network)
    network.cut("aiko")
    ours.stream.write(b"last words")
    ours.stream.close()
    await asyncio.sleep(0.1)
    assert ours.lost_s is not None
    network.move("aiko")
    network.heal()
    await asyncio.sleep(100)
    assert (ours.error, theirs.data, theirs.lost_s) == (None, b"", None)


@simulated
async def test_listeners_and_ports_move_along(network: Network) -> None:
    server = network.host("server")
    heard: list[tuple[bytes, Address]] = []
    port = await server.open_port(None, 7, heard.extend, size_max=100, unsent_max=1)
    listener = await server.listen(None, 7, Ear, write_buffer_max=10)
    old = port.local
    asking = await network.host("aiko").open_port(None, 8, lambda _: None, size_max=100, unsent_max=1)
    network.move("server")
    network.move("aiko")
    assert address_text(port.local) == address_text(listener.local) == "10.1.0.1:7"
    stream = await network.host("aiko").connect("server", 7, Ear, write_buffer_max=10)
    assert address_text(stream.remote) == "10.1.0.1:7"
    for to in (old, port.local):
        asking.group([to]).send(b"%d" % to[3])
    await asyncio.sleep(1)
    assert heard == [(b"1", make_address("10.1.0.2", 8))]
    assert [happening.destination for happening in network.timeline if happening.outcome == "nobody there"] == [
        "server@1:7"
    ]


@simulated
async def test_no_more_than_a_window_is_under_way(network: Network) -> None:
    ours, theirs = await pair(network)
    theirs.stream.pause_reading()
    ours.stream.write(bytes(WINDOW * 3))
    await asyncio.sleep(10)
    sent = sum(happening.size for happening in network.timeline if happening.kind == "tcp data")
    assert sent == WINDOW
    theirs.stream.resume_reading()
    await asyncio.sleep(10)
    assert len(theirs.data) == WINDOW * 3


@simulated
async def test_a_host_that_is_cut_off_does_not_answer_and_nobody_listening_is_said(network: Network) -> None:
    aiko = network.host("aiko")
    began_s = now_s()
    with pytest.raises(ConnectFailed, match=r"nobody answers at 10\.0\.0\.1:5 \(connection refused\)"):
        await aiko.connect("server", 5, Ear, write_buffer_max=10)
    assert now_s() - began_s == pytest.approx(0.02)
    network.cut("server")
    for host in ("server", "192.0.2.1"):
        began_s = now_s()
        with pytest.raises(ConnectFailed, match="no answer"):
            await aiko.connect(host, 5, Ear, write_buffer_max=10)
        assert now_s() - began_s == pytest.approx(127)
    with pytest.raises(ConnectFailed, match="no such host name"):
        await aiko.connect("nowhere", 5, Ear, write_buffer_max=10)


@simulated
async def test_a_request_to_connect_that_is_lost_is_made_again(network: Network) -> None:
    await network.host("server").listen(None, 5, Ear, write_buffer_max=10)
    network.cut("server")
    network.at(2.5, network.heal, "server")
    stream = await network.host("aiko").connect("server", 5, Ear, write_buffer_max=10)
    assert now_s() == pytest.approx(3.02)
    stream.close()


@simulated
async def test_a_connect_that_is_cancelled_while_it_is_answered_leaves_no_stream(network: Network) -> None:
    ears: list[Ear] = []

    def accept(stream: Stream) -> Ear:
        ears.append(Ear(stream))
        return ears[-1]

    await network.host("server").listen(None, 5, accept, write_buffer_max=10)
    for timeout_s in (0.005, 0.015):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await network.host("aiko").connect("server", 5, Ear, write_buffer_max=10)
    await asyncio.sleep(5)
    assert len(ears) == 2
    assert all(isinstance(ear.error, TransportClosed) for ear in ears)


@simulated
async def test_a_loopback_address_means_who_listens_here_and_else_who_listens(network: Network) -> None:
    aiko, ben = network.host("aiko"), network.host("ben")
    await aiko.listen("localhost", 5, Ear, write_buffer_max=10)
    heard: list[tuple[bytes, Address]] = []
    await aiko.open_port("::1", 6, heard.extend, size_max=10, unsent_max=1)
    far = await ben.connect("::1", 5, Ear, write_buffer_max=10)
    await ben.listen("127.0.0.1", 5, Ear, write_buffer_max=10)
    near = await ben.connect("localhost", 5, Ear, write_buffer_max=10)
    hosts = [split_address(address)[0] for address in (aiko.world.host("aiko").address(0), far.remote, near.remote)]
    assert hosts[0] == hosts[1] != hosts[2]
    port = await ben.open_port(None, 0, lambda _: None, size_max=10, unsent_max=1)
    port.group([make_address("127.0.0.1", 6)]).send(b"hello")
    await asyncio.sleep(1)
    assert [data for data, _ in heard] == [b"hello"]


@simulated
async def test_free_ports_run_out_and_taken_ones_are_in_use(network: Network) -> None:
    server = network.host("server")
    listener = await server.listen(None, 9, Ear, write_buffer_max=10)
    with pytest.raises(AddressInUse):
        await server.listen(None, 9, Ear, write_buffer_max=10)
    await network.host("aiko").listen(None, 9, Ear, write_buffer_max=10)
    listener.close()
    listener.close()
    await server.listen(None, 9, Ear, write_buffer_max=10)
    world = server.world
    world.host("server").taken.update(("UDP", port) for port in range(49_152, 65_536))
    with pytest.raises(AddressInUse):
        await server.open_port(None, 0, lambda _: None, size_max=10, unsent_max=1)


@simulated
async def test_what_arrives_at_one_moment_is_handed_over_by_the_senders_names(network: Network) -> None:
    heard: list[bytes] = []

    def on_batch(batch: Batch) -> None:
        heard.extend(data for data, _ in batch)

    port = await network.host("server").open_port(None, 7, on_batch, size_max=10, unsent_max=1)
    for name in ("cho", "aiko", "ben"):
        sender = await network.host(name).open_port(None, 0, lambda _: None, size_max=10, unsent_max=1)
        sender.group([port.local]).send(name.encode())
    await asyncio.sleep(1)
    assert heard == [b"aiko", b"ben", b"cho"]


@simulated
async def test_a_handler_that_raises_costs_nobody_else_anything(network: Network) -> None:
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    heard: list[tuple[bytes, Address]] = []

    def fail(batch: Batch) -> None:
        raise KeyError

    server = network.host("server")
    bad = await server.open_port(None, 0, fail, size_max=10, unsent_max=1)
    good = await server.open_port(None, 0, heard.extend, size_max=10, unsent_max=1)
    good.group([bad.local, good.local]).send(b"x")
    await asyncio.sleep(1)
    assert [type(error) for error in told] == [KeyError]
    assert len(heard) == 1


def test_a_host_moves_so_often_and_no_more() -> None:
    network = Network(1)
    for _ in range(255):
        network.move("aiko")
    with pytest.raises(LocalProtocolError, match="255"):
        network.move("aiko")


async def test_it_runs_on_a_real_loop_too_in_real_time() -> None:
    network = SimNetwork(LinkModel(1))
    heard = asyncio.get_running_loop().create_future()
    port = await network.open_port(None, 0, heard.set_result, size_max=10, unsent_max=1)
    sender = await network.host("aiko").open_port(None, 0, lambda _: None, size_max=10, unsent_max=1)
    sender.group([port.local]).send(b"real")
    ((data, _),) = await asyncio.wait_for(heard, 10)
    assert data == b"real"
