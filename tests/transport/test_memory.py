"""What only the memory network has: hosts of its own, and no need of any real loop."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from ocm.errors import AddressInUse, ConnectFailed, TransportClosed
from ocm.protocol.address import Address, make_address, split_address
from ocm.transport.base import Batch, Stream, StreamHandler
from ocm.transport.line import BATCH_MAX
from ocm.transport.memory import INBOX_MAX, MemoryNetwork


class Ear:
    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.heard: list[object] = []

    def data_received(self, data: bytes) -> None:
        self.heard.append(data)

    def eof_received(self) -> None:
        self.heard.append("eof")

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def connection_lost(self, error: Exception | None) -> None:
        self.heard.append(error)


def ignore(batch: Batch) -> None:
    """Hear nothing."""


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_hosts_reach_each_other_by_their_addresses() -> None:
    network = MemoryNetwork()
    near, far = network.host("10.0.0.7"), network.host("2001:db8::1")
    streams: list[Stream] = []

    def accept(stream: Stream) -> StreamHandler:
        streams.append(stream)
        return Ear(stream)

    for server in (network, near, far):
        listener = await server.listen(None, 5000, accept, write_buffer_max=10)
        host, port = split_address(listener.local)
        ours = await near.connect(host, port, Ear, write_buffer_max=10)
        assert split_address(ours.local)[0] == "10.0.0.7"
        assert streams[-1].remote == ours.local
        assert ours.remote == streams[-1].local == listener.local


async def test_datagrams_come_from_the_address_of_their_host() -> None:
    network = MemoryNetwork()
    heard: list[tuple[bytes, Address]] = []
    receiver = await network.open_port(None, 9001, heard.extend, size_max=100, unsent_max=1)
    sender = await network.host("10.0.0.7").open_port("10.0.0.7", 9001, ignore, size_max=100, unsent_max=1)
    sender.group([make_address("::ffff:127.0.0.1", 9001)]).send(b"hello")
    await turns()
    assert heard == [(b"hello", make_address("10.0.0.7", 9001))]
    assert receiver.local == make_address("127.0.0.1", 9001)


async def test_localhost_is_the_first_host_for_all() -> None:
    network = MemoryNetwork()
    await network.listen("localhost", 5000, Ear, write_buffer_max=10)
    ours = await network.host("10.0.0.7").connect("localhost", 5000, Ear, write_buffer_max=10)
    assert ours.remote == make_address("127.0.0.1", 5000)
    with pytest.raises(TransportClosed):
        await network.host("10.0.0.7").listen("localhost", 5000, Ear, write_buffer_max=10)


async def test_networks_do_not_know_each_other() -> None:
    await MemoryNetwork().listen(None, 5000, Ear, write_buffer_max=10)
    with pytest.raises(ConnectFailed):
        await MemoryNetwork().connect("127.0.0.1", 5000, Ear, write_buffer_max=10)


async def test_a_free_port_is_never_one_that_is_taken() -> None:
    network = MemoryNetwork()
    taken = [await network.open_port(None, port, ignore, size_max=1, unsent_max=1) for port in (49_152, 49_153)]
    free = await network.open_port(None, 0, ignore, size_max=1, unsent_max=1)
    assert free.local not in [port.local for port in taken]


async def test_when_no_port_is_free_the_address_is_in_use() -> None:
    network = MemoryNetwork()
    for _ in range(65_536 - 49_152):
        await network.open_port(None, 0, ignore, size_max=1, unsent_max=1)
    with pytest.raises(AddressInUse):
        await network.open_port(None, 0, ignore, size_max=1, unsent_max=1)


async def test_a_source_port_is_free_again_after_its_stream() -> None:
    network = MemoryNetwork()
    await network.listen(None, 5000, Ear, write_buffer_max=10)
    source = make_address("127.0.0.1", 6000)
    for _ in range(2):
        stream = await network.connect("127.0.0.1", 5000, Ear, write_buffer_max=10, local=source)
        with pytest.raises(AddressInUse):
            await network.connect("127.0.0.1", 5000, Ear, write_buffer_max=10, local=source)
        stream.abort()


async def test_what_a_port_cannot_hold_is_lost() -> None:
    network = MemoryNetwork()
    heard: list[tuple[bytes, Address]] = []
    receiver = await network.open_port(None, 0, heard.extend, size_max=100, unsent_max=1)
    sender = await network.open_port(None, 0, ignore, size_max=100, unsent_max=1)
    sender.group([receiver.local] * (INBOX_MAX + 5)).send(b"x")
    await turns(INBOX_MAX // BATCH_MAX + 5)
    assert len(heard) == INBOX_MAX


async def test_a_listener_that_closes_while_somebody_connects_resets_the_stream() -> None:
    network = MemoryNetwork()
    listener = await network.listen(None, 5000, Ear, write_buffer_max=10)
    connecting = asyncio.ensure_future(network.connect("127.0.0.1", 5000, Ear, write_buffer_max=10))
    await asyncio.sleep(0)
    listener.close()
    stream = await connecting
    await turns()
    stream.write(b"nobody hears this")


async def test_what_arrives_after_close_resets_the_sender_of_it() -> None:
    network = MemoryNetwork()
    accepted: list[Ear] = []

    def accept(stream: Stream) -> StreamHandler:
        accepted.append(Ear(stream))
        return accepted[-1]

    ours: list[Ear] = []

    def connected(stream: Stream) -> StreamHandler:
        ours.append(Ear(stream))
        return ours[-1]

    await network.listen(None, 5000, accept, write_buffer_max=10)
    stream = await network.connect("127.0.0.1", 5000, connected, write_buffer_max=10)
    accepted[0].stream.close()
    await turns()
    stream.write(b"too late")
    stream.write(b"far too late")
    await turns()
    assert accepted[0].heard == [None]
    assert ours[0].heard[0] == "eof"
    assert isinstance(ours[0].heard[1], TransportClosed)
    assert len(ours[0].heard) == 2


class TurnsOnly(asyncio.BaseEventLoop):
    """A loop without sockets, threads and a clock that moves: it only runs what is ready."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = self

    def select(self, timeout: float | None) -> list[object]:
        assert timeout == 0, "nothing is ready, and nothing ever will be"
        return []

    def time(self) -> float:
        return 0.0

    def _process_events(self, event_list: list[object]) -> None:
        assert not event_list


def test_it_runs_on_a_loop_that_has_neither_sockets_nor_time() -> None:
    async def talk() -> list[object]:
        network = MemoryNetwork()
        ears: list[Ear] = []

        def accept(stream: Stream) -> StreamHandler:
            ears.append(Ear(stream))
            return ears[-1]

        heard: list[tuple[bytes, Address]] = []
        port = await network.open_port(None, 0, heard.extend, size_max=100, unsent_max=1)
        port.group([port.local]).send(b"datagram")
        await network.listen(None, 5000, accept, write_buffer_max=10)
        stream = await network.connect("localhost", 5000, Ear, write_buffer_max=10)
        stream.write(b"stream")
        stream.close()
        await turns()
        return [heard[0][0], *ears[0].heard]

    with contextlib.closing(TurnsOnly()) as loop:
        assert loop.run_until_complete(talk()) == [b"datagram", b"stream", "eof"]
