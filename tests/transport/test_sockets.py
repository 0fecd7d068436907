"""Which sockets the real network makes."""

from __future__ import annotations

import socket
import sys
from typing import Any

import pytest

from ocm.errors import AddressInUse, TransportClosed
from ocm.protocol.address import make_address, port_of
from ocm.transport import pktinfo
from ocm.transport.base import Batch
from ocm.transport.sockaddr import fit, from_sockaddr, plain, to_sockaddr
from ocm.transport.sockets import SocketNetwork, bind_first
from ocm.transport.udp_plain import PlainPort

ELSEWHERE = make_address("192.0.2.1", 0)
HERE = make_address("127.0.0.1", 0)


def ignore(batch: Batch) -> None:
    """Hear nothing."""


def test_where_the_first_address_cannot_be_served_the_next_one_is() -> None:
    with bind_first("TCP", [ELSEWHERE, HERE]) as sock:
        assert sock.getsockname()[0] == "127.0.0.1"


def test_where_no_address_can_be_served_the_first_reason_is_told() -> None:
    with pytest.raises(TransportClosed, match=r"^cannot listen on UDP: cannot assign requested address$"):
        bind_first("UDP", [ELSEWHERE, ELSEWHERE])


def test_a_port_in_use_is_not_taken_on_another_address_instead() -> None:
    with bind_first("UDP", [HERE]) as sock:
        taken = from_sockaddr(sock.getsockname())
        with pytest.raises(AddressInUse):
            bind_first("UDP", [taken, HERE])


async def test_without_ipv6_every_address_is_every_ipv4_address() -> None:
    port = await SocketNetwork(ipv6=False).open_port(None, 0, ignore, size_max=100, unsent_max=1)
    assert port.local[2:] == bytes(4)
    port.close()


async def test_a_dual_stack_port_conflicts_with_an_ipv4_one(need_ipv6: Any) -> None:
    need_ipv6()
    port = await SocketNetwork().open_port("0.0.0.0", 0, ignore, size_max=100, unsent_max=1)
    with pytest.raises(AddressInUse):
        await SocketNetwork().open_port(None, port_of(port.local), ignore, size_max=100, unsent_max=1)
    port.close()


def test_a_datagram_socket_asks_for_large_buffers() -> None:
    with bind_first("UDP", [HERE]) as large, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as usual:
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            asked = large.getsockopt(socket.SOL_SOCKET, option)
            assert asked >= usual.getsockopt(socket.SOL_SOCKET, option)


async def test_batches_are_used_where_the_system_has_them_unless_told_otherwise() -> None:
    batched = await SocketNetwork().open_port("127.0.0.1", 0, ignore, size_max=100, unsent_max=1)
    single = await SocketNetwork(batched=False).open_port("127.0.0.1", 0, ignore, size_max=100, unsent_max=1)
    assert isinstance(batched, PlainPort) == (sys.platform != "linux")
    assert isinstance(single, PlainPort)
    batched.close()
    single.close()


def test_where_there_is_no_way_nothing_leaves_from_any_address() -> None:
    assert SocketNetwork().source(make_address("255.255.255.255", 9)) is None, "to all needs leave to do so"


def test_addresses_survive_the_forms_of_the_system() -> None:
    for address in (HERE, make_address("::1", 7), make_address("fe80::1%3", 65535)):
        assert from_sockaddr(to_sockaddr(address)) == address
    assert from_sockaddr(("fe80::1%lo", 7, 0, 1)) == make_address("fe80::1%1", 7)


def test_an_address_fits_a_socket_of_the_other_family_only_as_ipv4() -> None:
    mapped = make_address("::ffff:127.0.0.1", 0)
    assert fit(HERE, socket.AF_INET6) == mapped
    assert fit(mapped, socket.AF_INET) == plain(mapped) == HERE
    assert fit(make_address("::1", 0), socket.AF_INET) is None
    assert fit(b"", socket.AF_INET) is None
    assert fit(b"", socket.AF_INET6) is None
    assert plain(make_address("::1", 0)) == make_address("::1", 0)


def test_a_path_fits_a_socket_of_its_family_and_goes_to_its_peer() -> None:
    for peer, family, ours in ((HERE, socket.AF_INET, 4), (make_address("fe80::1%3", 7), socket.AF_INET6, 16)):
        path = peer + bytes(ours)
        assert fit(path, family) == path
        assert to_sockaddr(path) == to_sockaddr(peer)
    assert fit(HERE + bytes(4), socket.AF_INET6) == fit(HERE, socket.AF_INET6)
    assert fit(make_address("::ffff:127.0.0.1", 0) + bytes(16), socket.AF_INET) == HERE


def test_a_socket_that_is_open_at_one_address_has_nothing_to_tell() -> None:
    with bind_first("UDP", [HERE]) as sock:
        assert pktinfo.ask(sock) is None


@pytest.mark.parametrize("wildcard", ["0.0.0.0", "::"])
def test_a_system_that_does_not_say_where_a_datagram_came_to(wildcard: str, need_ipv6: Any) -> None:
    need_ipv6()
    with bind_first("UDP", [make_address(wildcard, 0)]) as sock:
        info = pktinfo.ask(sock)
        assert (info is not None) == (sys.platform == "linux")
        if info is not None:
            assert info.own_ip([]) == info.own_ip([(info.level, info.type + 1, bytes(info.size))]) == b""
            assert info.ancillary(b"") == []
