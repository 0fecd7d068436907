"""What only TCP has: options of sockets, and a system that runs out of files."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from typing import Any

import pytest

from ocm.errors import ConnectFailed, TransportClosed
from ocm.protocol.address import make_address, port_of
from ocm.transport import tcp
from ocm.transport.base import Stream, StreamHandler
from ocm.transport.sockets import SocketNetwork, bind_first


class Silent:
    """A handler that keeps its stream and the last word about it."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None: ...

    def eof_received(self) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set_result(error)


class FailingSocket(socket.socket):
    """A listening socket whose ``accept`` fails as often as told."""

    failures: list[int]
    accepts = 0
    dead = 0

    def accept(self) -> tuple[socket.socket, Any]:
        self.accepts += 1
        if self.failures:
            number = self.failures.pop(0)
            raise OSError(number, "as told")
        accepted, remote = super().accept()
        if self.dead:
            self.dead -= 1
            accepted.close()
        return accepted, remote


def failing(*failures: int) -> FailingSocket:
    sock = FailingSocket(fileno=bind_first("TCP", [make_address("127.0.0.1", 0)]).detach())
    sock.failures = list(failures)
    return sock


async def first_stream(listening: tcp.TcpListener, accepted: asyncio.Queue[Silent]) -> None:
    ours = await tcp.connect("127.0.0.1", port_of(listening.local), Silent, write_buffer_max=100)
    async with asyncio.timeout(10):
        theirs = await accepted.get()
    ours.abort()
    assert isinstance(await theirs.lost, TransportClosed)


def accept_into(accepted: asyncio.Queue[Silent]) -> Any:
    def accept(stream: Stream) -> StreamHandler:
        handler = Silent(stream)
        accepted.put_nowait(handler)
        return handler

    return accept


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM], ids=errno.errorcode.get)
async def test_a_system_that_is_out_of_files_shuts_the_door_for_a_while_and_says_so_once(
    error: int, caplog: pytest.LogCaptureFixture
) -> None:
    accepted: asyncio.Queue[Silent] = asyncio.Queue()
    sock = failing(error)
    listening = tcp.TcpListener(sock, accept_into(accepted), write_buffer_max=100, accept_retry_s=0.01)
    with caplog.at_level(logging.DEBUG, "ocm"):
        await first_stream(listening, accepted)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert all(record.exc_info is None for record in caplog.records)
    assert sock.accepts <= 4
    listening.close()


async def test_a_door_that_is_shut_for_a_while_can_be_closed_for_good() -> None:
    accepted: asyncio.Queue[Silent] = asyncio.Queue()
    listening = tcp.TcpListener(sock := failing(errno.EMFILE), accept_into(accepted), write_buffer_max=100)
    with socket.create_connection(("127.0.0.1", port_of(listening.local))):
        while not sock.accepts:  # noqa: ASYNC110 - a count tells nobody that it changed
            await asyncio.sleep(0)
        listening.close()
        assert sock.fileno() < 0


@pytest.mark.parametrize("error", [errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.EINTR], ids=errno.errorcode.get)
async def test_a_connection_that_cannot_be_accepted_costs_itself_only(
    error: int, caplog: pytest.LogCaptureFixture
) -> None:
    accepted: asyncio.Queue[Silent] = asyncio.Queue()
    listening = tcp.TcpListener(failing(error), accept_into(accepted), write_buffer_max=100)
    await first_stream(listening, accepted)
    assert not caplog.records
    listening.close()


async def test_a_connection_that_is_reset_before_it_is_accepted_is_no_trouble(
    caplog: pytest.LogCaptureFixture,
) -> None:
    accepted: asyncio.Queue[Silent] = asyncio.Queue()
    listening = tcp.TcpListener(failing(), accept_into(accepted), write_buffer_max=100)
    with socket.create_connection(("127.0.0.1", port_of(listening.local))) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    async with asyncio.timeout(10):
        early = await accepted.get()
        assert isinstance(await early.lost, TransportClosed)
    await first_stream(listening, accepted)
    assert not caplog.records
    listening.close()


async def test_a_connection_that_is_dead_on_arrival_costs_itself_only(caplog: pytest.LogCaptureFixture) -> None:
    accepted: asyncio.Queue[Silent] = asyncio.Queue()
    listening = tcp.TcpListener(sock := failing(), accept_into(accepted), write_buffer_max=100)
    sock.dead = 1
    with socket.create_connection(("127.0.0.1", port_of(listening.local))):
        await first_stream(listening, accepted)
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []
    listening.close()


async def test_small_writes_leave_at_once() -> None:
    network = SocketNetwork()
    accepted: asyncio.Queue[Silent] = asyncio.Queue()
    listening = await network.listen("127.0.0.1", 0, accept_into(accepted), write_buffer_max=100)
    ours = await network.connect("127.0.0.1", port_of(listening.local), Silent, write_buffer_max=100)
    theirs = (await accepted.get()).stream
    for stream in (ours, theirs):
        assert isinstance(stream, tcp.TcpStream)
        sock = stream._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        stream.abort()
    await asyncio.sleep(0)
    listening.close()


async def test_a_port_can_be_listened_on_again_at_once_after_its_streams_ended() -> None:
    accepted: asyncio.Queue[Silent] = asyncio.Queue()
    network = SocketNetwork()
    listening = await network.listen("127.0.0.1", 0, accept_into(accepted), write_buffer_max=100)
    port = port_of(listening.local)
    ours = await network.connect("127.0.0.1", port, Silent, write_buffer_max=100)
    theirs = await accepted.get()
    theirs.stream.close()
    await theirs.lost
    ours.close()
    await asyncio.sleep(0)
    listening.close()
    (await network.listen("127.0.0.1", port, Silent, write_buffer_max=100)).close()


async def test_an_ipv6_client_is_served_by_the_same_door(need_ipv6: Any) -> None:
    need_ipv6()
    accepted: asyncio.Queue[Silent] = asyncio.Queue()
    network = SocketNetwork()
    listening = await network.listen(None, 0, accept_into(accepted), write_buffer_max=100)
    source = make_address("::1", 0)
    ours = await network.connect("::1", port_of(listening.local), Silent, write_buffer_max=100, local=source)
    assert ours.remote == make_address("::1", port_of(listening.local))
    ours.close()
    (await accepted.get()).stream.close()
    listening.close()
    with pytest.raises(ConnectFailed, match=r"^nobody answers at \[::1\]:\d+ \(connection refused\)$"):
        await network.connect("::1", port_of(listening.local), Silent, write_buffer_max=100)


async def test_a_name_is_connected_to_by_whichever_of_its_addresses_answers() -> None:
    accepted: asyncio.Queue[Silent] = asyncio.Queue()
    network = SocketNetwork(ipv6=False)
    listening = await network.listen(None, 0, accept_into(accepted), write_buffer_max=100)
    ours = await network.connect("localhost", port_of(listening.local), Silent, write_buffer_max=100)
    assert ours.remote == make_address("127.0.0.1", port_of(listening.local))
    ours.close()
    (await accepted.get()).stream.close()
    await asyncio.sleep(0)
    listening.close()


def test_an_error_without_a_number_of_the_system_gives_no_reason() -> None:
    assert str(tcp.connect_failed("host", 7, OSError("several reasons"))) == "nobody answers at host:7"
