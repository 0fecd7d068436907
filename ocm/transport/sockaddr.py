"""Between our addresses and the forms the system's calls want."""

from __future__ import annotations

import socket
import sys
from typing import Any, Final

from ocm.protocol.address import MAPPED, V4_PATH_SIZE, V4_SIZE, V6_PATH_SIZE, V6_SIZE, Address, ip_of, split_address

_V4_FIELDS: Final = 2
_SIZES: Final[dict[int, tuple[int, int]]] = {
    socket.AF_INET: (V4_SIZE, V4_PATH_SIZE),
    socket.AF_INET6: (V6_SIZE, V6_PATH_SIZE),
}


def from_sockaddr(sockaddr: tuple[Any, ...]) -> Address:
    """Pack what ``getsockname`` and ``recvfrom`` return, IPv4 or IPv6 (whose host may name an interface)."""
    host: str = sockaddr[0]
    port: int = sockaddr[1]
    if len(sockaddr) == _V4_FIELDS:
        return port.to_bytes(2, "big") + socket.inet_aton(host)
    scope: int = sockaddr[3]
    ip = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    return port.to_bytes(2, "big") + bytes(4) + ip + scope.to_bytes(4, sys.byteorder)


def to_sockaddr(address: Address) -> tuple[Any, ...]:
    """Return what ``bind`` and ``sendto`` take for the peer's end, of the family that the address's length says."""
    port = int.from_bytes(address[:2], "big")
    if len(address) < V6_SIZE:
        return split_address(address)
    scope = int.from_bytes(address[22:26], sys.byteorder)
    return socket.inet_ntop(socket.AF_INET6, address[6:22]), port, 0, scope


def fit(address: Address, family: int) -> Address | None:
    """Return the address as a socket of ``family`` spells it, or None when it cannot reach it at all.

    A path stays one in a socket of its own family: no other has given it out.
    """
    if len(address) in _SIZES[family]:
        return address
    if len(address) in _SIZES[socket.AF_INET]:
        return address[:2] + bytes(4) + MAPPED + ip_of(address) + bytes(4)
    if len(address) not in _SIZES[socket.AF_INET6]:
        return None
    undressed = address[:2] + ip_of(address)
    return undressed if len(undressed) == V4_SIZE else None


def plain(address: Address) -> Address:
    """Return the address with an IPv4 address in IPv6 clothes undressed."""
    return fit(address, socket.AF_INET) or address
