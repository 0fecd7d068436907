"""Network addresses as short byte strings: cheap to compare, to hash and to hand to the system.

An address is ``port(2) | IPv4(4)``, 6 bytes, or ``port(2) | flow(4) | IPv6(16) | scope(4)``, 26 bytes: the
tail of the system's own ``sockaddr`` (flow 0; scope in the machine's byte order, as the system keeps it),
so that a relay compares and copies it without taking it apart. Everything else reads it through the
functions here.

Where a port is open at every address of a machine, an address that a datagram came from ends with the one of ours
that it came to, 4 or 16 bytes of IP: that makes a path, and what is sent back along it leaves from there.
"""

from __future__ import annotations

import ipaddress
import sys
from typing import Final, TypeAlias

from ocm.errors import LocalProtocolError

Address: TypeAlias = bytes

V4_SIZE: Final = 6
V6_SIZE: Final = 26
V4_PATH_SIZE: Final = V4_SIZE + 4
V6_PATH_SIZE: Final = V6_SIZE + 16
MAPPED: Final = bytes(10) + b"\xff\xff"
"""What stands before an IPv4 address in IPv6 clothes (RFC 4291 2.5.5.2)."""
_LOOPBACK: Final = b"\x7f\x00\x00\x01"
_LOCAL_NETWORKS: Final = tuple(
    map(
        ipaddress.ip_network,
        (
            *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"),
            *("::1/128", "fc00::/7", "fe80::/10"),
        ),
    )
)


def make_address(host: str, port: int) -> Address:
    """Pack a numeric host, IPv6 with an optional numeric ``%scope``, and a port.

    Raises ``LocalProtocolError`` when the host is not numeric or the port is not in 0..65535.
    """
    if not 0 <= port <= 65535:
        raise LocalProtocolError(f"port {port} is not in 0..65535")
    try:
        ip = ipaddress.ip_address(host)
        if isinstance(ip, ipaddress.IPv4Address):
            return port.to_bytes(2, "big") + ip.packed
        scope = int(ip.scope_id or "0").to_bytes(4, sys.byteorder)
    except (ValueError, OverflowError):
        raise LocalProtocolError("not a numeric address") from None
    return port.to_bytes(2, "big") + bytes(4) + ip.packed + scope


def port_of(address: Address) -> int:
    """Return the port number."""
    return int.from_bytes(address[:2], "big")


def ip_of(address: Address) -> bytes:
    """Return 4 or 16 bytes of IP; an IPv4 address that came in IPv6 clothes (RFC 4291 2.5.5.2) gives 4."""
    if len(address) < V6_SIZE:
        return address[2:V4_SIZE]
    ip = address[6:22]
    return ip[12:] if ip.startswith(MAPPED) else ip


def peer_of(address: Address) -> Address:
    """Return the peer's end of a path: the address without the one of ours behind it."""
    return address[: V4_SIZE if len(address) < V6_SIZE else V6_SIZE]


def is_loopback(address: Address) -> bool:
    """Tell whether the address can only be this machine (127.0.0.0/8 or ::1)."""
    ip = ip_of(address)
    return ip[0] == 127 if len(ip) == 4 else ip == bytes(15) + b"\x01"


def is_local_network(address: Address) -> bool:
    """Tell whether the address is this machine or its network: loopback, private (RFC 1918, RFC 4193), link-local."""
    ip = ipaddress.ip_address(ip_of(address))
    return any(ip in network for network in _LOCAL_NETWORKS if network.version == ip.version)


def host_key(address: Address) -> bytes:
    """Return what two addresses of one host share: the IP; all loopback addresses are one host."""
    return _LOOPBACK if is_loopback(address) else ip_of(address)


def network_key(address: Address) -> bytes:
    """Return what limits count by: the IPv4 address, or the first 64 bits of an IPv6 address."""
    host = host_key(address)
    return host if len(host) == 4 else host[:8]


def split_address(address: Address) -> tuple[str, int]:
    """Return the host as text (with ``%scope`` where IPv6 has one) and the port."""
    ip = ipaddress.ip_address(ip_of(address))
    scope = int.from_bytes(address[22:26], sys.byteorder) if ip.version == 6 else 0
    return (f"{ip}%{scope}" if scope else str(ip)), port_of(address)


def address_text(address: Address) -> str:
    """Return ``host:port``, IPv6 in brackets, for messages to people."""
    host, port = split_address(address)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
