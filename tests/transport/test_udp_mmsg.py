"""What only ``sendmmsg`` can do: stop half-way, and fail for one destination of many."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Any

import pytest

from ocm.protocol.address import make_address, port_of
from ocm.transport.base import Batch
from ocm.transport.sockets import bind_first

udp_mmsg = pytest.importorskip("ocm.transport.udp_mmsg", reason="recvmmsg needs cffi")
pytestmark = pytest.mark.skipif(udp_mmsg.system_calls() is None, reason="this system has no recvmmsg and sendmmsg")

REFUSALS = [
    errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EPERM, errno.EINVAL, errno.EMSGSIZE,
]  # fmt: skip
FULL = [errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM]


class Script:
    """A system whose ``sendmmsg`` does what a list says: how many to take, or a negative errno; then all."""

    def __init__(self, *steps: int) -> None:
        self.steps = list(steps)
        self.asked: list[int] = []
        self.taken: list[bytes] = []
        self.receive_errors: list[int] = []
        self._real = udp_mmsg.system_calls()

    def recvmmsg(self, fd: int, headers: Any, count: int, flags: int, timeout: Any, /) -> int:
        if self.receive_errors:
            udp_mmsg.ffi.errno = self.receive_errors.pop(0)
            return -1
        got: int = self._real.recvmmsg(fd, headers, count, flags, timeout)
        return got

    def sendmmsg(self, fd: int, headers: Any, count: int, flags: int, /) -> int:
        self.asked.append(count)
        step = self.steps.pop(0) if self.steps else count
        if step < 0:
            udp_mmsg.ffi.errno = -step
            return -1
        for header in headers[0 : min(step, count)]:
            vector = header.msg_hdr.msg_iov[0]
            name = bytes(udp_mmsg.ffi.buffer(header.msg_hdr.msg_name, 4))
            payload = bytes(udp_mmsg.ffi.buffer(vector.iov_base, vector.iov_len))
            self.taken.append(payload + b" to %d" % int.from_bytes(name[2:4], "big"))
        return min(step, count)


def open_port(calls: Any, on_batch: Callable[[Batch], None] = lambda _: None, *, unsent_max: int = 100) -> Any:
    sock = bind_first("UDP", [make_address("127.0.0.1", 0)])
    return udp_mmsg.MmsgPort(sock, on_batch, size_max=4096, unsent_max=unsent_max, calls=calls)


def to(*ports: int) -> list[bytes]:
    return [make_address("127.0.0.1", port) for port in ports]


def taken(payload: bytes, *ports: int) -> list[bytes]:
    return [payload + b" to %d" % port for port in ports]


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - counts tell nobody that they changed
            await asyncio.sleep(0)


async def test_a_group_goes_out_in_one_call() -> None:
    port = open_port(calls := Script())
    group = port.group(to(*range(1, 11)))
    group.send(b"x")
    group.send(b"y", 3)
    assert calls.asked == [10, 9]
    assert calls.taken == taken(b"x", *range(1, 11)) + taken(b"y", 1, 2, 3, 10, 5, 6, 7, 8, 9)
    port.close()


async def test_a_group_of_2_with_one_skipped_is_one_call_for_one() -> None:
    port = open_port(calls := Script())
    group = port.group(to(1, 2))
    group.send(b"x", 0)
    group.send(b"y", 1)
    assert calls.asked == [1, 1]
    assert calls.taken == taken(b"x", 2) + taken(b"y", 1)
    port.close()


async def test_filled_slots_go_out_in_one_call() -> None:
    port = open_port(calls := Script())
    for number, slot in enumerate(port.slots(5)):
        slot.view[:1], slot.size, slot.to = b"x", 1, *to(number + 1)
    assert port.flush() == 0
    assert calls.asked == [5]
    assert calls.taken == taken(b"x", 1, 2, 3, 4, 5)
    port.close()


async def test_what_a_call_leaves_over_is_offered_again() -> None:
    port = open_port(calls := Script(2, 1))
    port.group(to(1, 2, 3, 4, 5)).send(b"x")
    assert calls.asked == [5, 3, 2]
    assert calls.taken == taken(b"x", 1, 2, 3, 4, 5)
    assert (port.counters.sent, port.counters.dropped) == (5, 0)
    port.close()


async def test_an_interrupted_call_is_repeated() -> None:
    port = open_port(calls := Script(-errno.EINTR, 1, -errno.EINTR))
    port.group(to(1, 2)).send(b"x")
    assert calls.taken == taken(b"x", 1, 2)
    assert port.counters.dropped == 0
    port.close()


@pytest.mark.parametrize("error", REFUSALS, ids=errno.errorcode.get)
async def test_a_refused_destination_costs_its_datagram_and_no_other(error: int) -> None:
    port = open_port(calls := Script(2, -error, 1, -error))
    port.group(to(1, 2, 3, 4, 5, 6)).send(b"x")
    assert calls.taken == taken(b"x", 1, 2, 4, 6)
    assert (port.counters.sent, port.counters.dropped) == (4, 2)
    port.close()


@pytest.mark.parametrize("error", REFUSALS, ids=errno.errorcode.get)
async def test_a_refused_datagram_that_waited_does_not_hold_up_the_line(error: int) -> None:
    port = open_port(calls := Script(-errno.EAGAIN, -error, 1, -error))
    port.group(to(1, 2, 3, 4)).send(b"x")
    await until(lambda: port.flush() == 0)
    assert calls.taken == taken(b"x", 2, 4)
    assert (port.counters.sent, port.counters.dropped) == (2, 2)
    port.close()


@pytest.mark.parametrize("error", FULL, ids=errno.errorcode.get)
async def test_what_a_full_system_does_not_take_goes_out_later_in_order(error: int) -> None:
    port = open_port(calls := Script(1, -error, 2, -error))
    group = port.group(to(1, 2, 3, 4, 5))
    group.send(b"x", 1)
    group.send(b"y", 4)
    assert port.flush() == 7
    await until(lambda: port.flush() == 0)
    assert calls.taken == taken(b"x", 1, 5, 3, 4) + taken(b"y", 1, 2, 3, 4)
    assert (port.counters.sent, port.counters.dropped) == (8, 0)
    port.close()


async def test_slots_that_a_full_system_does_not_take_keep_their_bytes() -> None:
    port = open_port(calls := Script(1, -errno.EAGAIN))
    for text in (b"a", b"b"):
        for number, slot in enumerate(port.slots(3)):
            slot.view[:1], slot.size, slot.to = text, 1, *to(number + 1)
        port.flush()
    await until(lambda: port.flush() == 0)
    assert calls.taken == taken(b"a", 1, 2, 3) + taken(b"b", 1, 2, 3)
    port.close()


async def test_a_long_line_goes_out_over_several_turns_of_the_loop() -> None:
    port = open_port(calls := Script(-errno.EAGAIN), unsent_max=1000)
    port.group(to(*range(1, 601))).send(b"x")
    await until(lambda: port.flush() < 600)
    assert port.flush() > 0
    await until(lambda: port.flush() == 0)
    assert calls.taken == taken(b"x", *range(1, 601))
    port.close()


async def test_when_the_line_is_empty_sending_is_direct_again() -> None:
    port = open_port(calls := Script(-errno.EAGAIN))
    group = port.group(to(1))
    group.send(b"x")
    await until(lambda: port.flush() == 0)
    group.send(b"y")
    assert calls.taken == taken(b"x", 1) + taken(b"y", 1)
    port.close()


async def test_an_error_left_on_the_socket_does_not_end_receiving() -> None:
    heard: list[bytes] = []
    calls = Script()
    calls.receive_errors = [errno.ECONNREFUSED, errno.EINTR]
    port = open_port(calls, lambda batch: heard.extend(payload for payload, _ in batch))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.sendto(b"hello", ("127.0.0.1", port_of(port.local)))
        await until(lambda: heard == [b"hello"])
    port.close()


async def test_an_ipv4_socket_cannot_reach_ipv6_but_knows_ipv4_in_ipv6_clothes() -> None:
    port = open_port(calls := Script())
    mapped = make_address("::ffff:127.0.0.1", 7)
    port.group([make_address("::1", 5), mapped]).send(b"x")
    for slot, address in zip(port.slots(2), (make_address("::1", 5), mapped), strict=True):
        slot.view[:1], slot.size, slot.to = b"y", 1, address
    port.flush()
    assert calls.taken == taken(b"x", 7) + taken(b"y", 7)
    assert port.counters.dropped == 2
    port.close()


async def test_a_socket_that_really_has_no_room_loses_nothing() -> None:
    """The memory of a unix socket's peer is bounded, so the real call says EAGAIN; only the naming is faked."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    left.setblocking(False)
    right.setblocking(False)
    real = udp_mmsg.system_calls()

    class Unnamed:
        recvmmsg = staticmethod(real.recvmmsg)

        @staticmethod
        def sendmmsg(fd: int, headers: Any, count: int, flags: int, /) -> int:
            saved = [(header.msg_hdr.msg_name, header.msg_hdr.msg_namelen) for header in headers[0:count]]
            for header in headers[0:count]:
                header.msg_hdr.msg_name, header.msg_hdr.msg_namelen = udp_mmsg.ffi.NULL, 0
            done: int = real.sendmmsg(left.fileno(), headers, count, flags)
            error = udp_mmsg.ffi.errno
            for header, (name, size) in zip(headers[0:count], saved, strict=True):
                header.msg_hdr.msg_name, header.msg_hdr.msg_namelen = name, size
            udp_mmsg.ffi.errno = error
            return done

    port = open_port(Unnamed())
    sent = [b"%d" % number for number in range(90)]
    group = port.group(to(1))
    for payload in sent:
        group.send(payload)
    assert port.flush() > 0
    heard: list[bytes] = []

    def read() -> None:
        heard.append(right.recv(100))

    asyncio.get_running_loop().add_reader(right, read)
    await until(lambda: len(heard) == len(sent))
    assert heard == sent
    asyncio.get_running_loop().remove_reader(right)
    port.close()
    left.close()
    right.close()
