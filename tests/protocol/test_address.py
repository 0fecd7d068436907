"""Addresses keep what they were made of, and those of one host are known for one host's."""

from __future__ import annotations

import ipaddress
import sys

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from ocm.errors import LocalProtocolError
from ocm.protocol.address import (
    V4_PATH_SIZE,
    V4_SIZE,
    V6_PATH_SIZE,
    V6_SIZE,
    address_text,
    host_key,
    ip_of,
    is_local_network,
    is_loopback,
    make_address,
    network_key,
    peer_of,
    port_of,
    split_address,
)

ports = st.integers(0, 65535)
v4 = st.ip_addresses(v=4).map(str).map(ipaddress.IPv4Address)
v6 = st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address).filter(lambda ip: ip.ipv4_mapped is None)


@given(v4, ports)
def test_an_ipv4_address_is_port_and_ip(ip: ipaddress.IPv4Address, port: int) -> None:
    address = make_address(str(ip), port)
    assert address == port.to_bytes(2, "big") + ip.packed
    assert len(address) == V4_SIZE
    assert (port_of(address), ip_of(address)) == (port, ip.packed)
    assert split_address(address) == (str(ip), port)
    assert address_text(address) == f"{ip}:{port}"


@given(v6, ports, st.integers(0, 2**32 - 1))
def test_an_ipv6_address_is_the_tail_of_a_sockaddr(ip: ipaddress.IPv6Address, port: int, scope: int) -> None:
    host = f"{ip}%{scope}" if scope else str(ip)
    address = make_address(host, port)
    assert address == port.to_bytes(2, "big") + bytes(4) + ip.packed + scope.to_bytes(4, sys.byteorder)
    assert len(address) == V6_SIZE
    assert (port_of(address), ip_of(address)) == (port, ip.packed)
    assert split_address(address) == (host, port)
    assert address_text(address) == f"[{host}]:{port}"
    assert make_address(*split_address(address)) == address


@given(v4, ports, st.integers(0, 2**32 - 1))
@example(ipaddress.IPv4Address("10.0.0.1"), 1, 114)  # found by fuzzing: 10.0.0.1%114, which is no address
def test_ipv4_in_ipv6_clothes_is_the_same_host(ip: ipaddress.IPv4Address, port: int, scope: int) -> None:
    plain, mapped = make_address(str(ip), port), make_address(f"::ffff:{ip}%{scope}", port)
    assert len(mapped) == V6_SIZE
    for view in (ip_of, is_loopback, host_key, network_key, split_address, address_text):
        assert view(mapped) == view(plain)


@given(st.one_of(v4, v6), ports, ports)
def test_the_port_does_not_make_another_host(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address, one: int, two: int
) -> None:
    first, second = make_address(str(ip), one), make_address(str(ip), two)
    assert host_key(first) == host_key(second)
    assert network_key(first) == network_key(second)
    assert is_loopback(first) == ip.is_loopback


@given(v6, v6)
def test_limits_count_ipv6_by_the_first_64_bits(one: ipaddress.IPv6Address, two: ipaddress.IPv6Address) -> None:
    assume(not one.is_loopback and not two.is_loopback)
    first, second = make_address(str(one), 1), make_address(str(two), 1)
    neighbour = make_address(str(ipaddress.IPv6Address(one.packed[:8] + two.packed[8:])), 1)
    assert (network_key(first) == network_key(second)) == (one.packed[:8] == two.packed[:8])
    if not is_loopback(neighbour) and len(ip_of(neighbour)) == 16:
        assert network_key(first) == network_key(neighbour)


@given(v4, v4)
def test_limits_count_ipv4_by_address(one: ipaddress.IPv4Address, two: ipaddress.IPv4Address) -> None:
    assume(not one.is_loopback or not two.is_loopback)
    first, second = make_address(str(one), 1), make_address(str(two), 1)
    assert (network_key(first) == network_key(second)) == (one == two)


@given(st.one_of(v4, v6), ports, st.data())
def test_a_path_is_its_peer_with_our_end_behind(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int, data: st.DataObject
) -> None:
    for host in {str(ip), f"::ffff:{ip}" if ip.version == 4 else str(ip)}:
        peer = make_address(host, port)
        size = 4 if len(peer) == V4_SIZE else 16
        path = peer + data.draw(st.binary(min_size=size, max_size=size))
        assert len(path) in (V4_PATH_SIZE, V6_PATH_SIZE)
        assert peer_of(path) == peer_of(peer) == peer
        for view in (port_of, ip_of, is_loopback, host_key, network_key, split_address, address_text):
            assert view(path) == view(peer)


LOOPBACKS = ["127.0.0.1", "127.0.1.1", "127.255.255.255", "::1", "::ffff:127.0.0.1"]


def test_all_loopback_addresses_are_one_host() -> None:
    keys = {(is_loopback(address), host_key(address)) for address in (make_address(host, 9) for host in LOOPBACKS)}
    assert len(keys) == 1
    assert len({network_key(make_address(host, 9)) for host in LOOPBACKS}) == 1


@pytest.mark.parametrize("host", ["128.0.0.1", "126.255.255.255", "::2", "::", "::ffff:128.0.0.1", "fe80::1"])
def test_others_are_not_loopback(host: str) -> None:
    assert not is_loopback(make_address(host, 9))


@pytest.mark.parametrize(
    "host",
    [
        "",
        "localhost",
        "1.2.3",
        "1.2.3.4.5",
        "256.1.1.1",
        "1.2.3.4%5",
        "fe80::1%",
        "fe80::1%eth0",
        "fe80::1%-1",
        "fe80::1%4294967296",
        "[::1]",
        "::1::",
        "１.2.3.4",
    ],
)
def test_a_host_that_is_not_numeric_is_refused(host: str) -> None:
    with pytest.raises(LocalProtocolError, match="not a numeric address"):
        make_address(host, 9001)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_is_none_is_refused(port: int) -> None:
    with pytest.raises(LocalProtocolError, match="port"):
        make_address("127.0.0.1", port)


@given(st.text(), st.integers())
def test_any_host_and_port_make_an_address_or_are_refused(host: str, port: int) -> None:
    try:
        address = make_address(host, port)
    except LocalProtocolError:
        return
    assert len(address) in (V4_SIZE, V6_SIZE)


@pytest.mark.parametrize(
    ("host", "near"),
    [
        ("127.0.0.1", True),
        ("192.168.1.5", True),
        ("169.254.9.9", True),
        ("172.32.0.1", False),
        ("8.8.8.8", False),
        ("::1", True),
        ("fe80::1", True),
        ("fd00::1", True),
        ("2001:db8::1", False),
        ("::ffff:10.0.0.1", True),
        ("::ffff:8.8.8.8", False),
    ],
)
def test_the_local_network_is_told_from_the_world(host: str, near: bool) -> None:
    assert is_local_network(make_address(host, 9001)) is near
