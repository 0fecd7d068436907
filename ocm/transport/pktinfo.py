"""To which of our addresses a datagram came, and from which an answer leaves (ip(7), RFC 3542 section 6).

A socket that is open at every address of a machine sends from the one that the system's routes choose. Where there
are several that may be another than the one the peer knows, and then firewalls, address translators and clients that
compare addresses drop what comes.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

from ocm.protocol.address import MAPPED, ip_of
from ocm.transport.sockaddr import from_sockaddr

Ancillary: TypeAlias = tuple[int, int, bytes]
"""Level, type and data of a control message, as ``recvmsg`` gives it and ``sendmsg`` takes it."""

_IP_PKTINFO: Final = 8
"""Of Linux; Python has a name for it from 3.14 on."""


class PacketInfo(NamedTuple):
    """How one family's control message is laid out."""

    level: int
    type: int
    size: int
    """Bytes of its data."""
    start: int
    """Where our IP begins in them."""
    ip_size: int

    def own_ip(self, ancillary: Sequence[Ancillary]) -> bytes:
        """Return to which IP of ours the datagram came; nothing if the system did not say."""
        for level, kind, data in ancillary:
            if (level, kind) == (self.level, self.type):
                return data[self.start : self.start + self.ip_size]
        return b""

    def ancillary(self, own_ip: bytes) -> list[Ancillary]:
        """Return what makes a datagram leave from an IP of ours; from none in particular where it is empty."""
        if not own_ip:
            return []
        data = bytes(self.start) + own_ip
        return [(self.level, self.type, data + bytes(self.size - len(data)))]

    def any_ip(self, address: bytes) -> bytes:
        """Return the IP that lets the routes choose, on the way to an address."""
        mapped = self.ip_size > 4 and len(ip_of(address)) == 4
        return MAPPED + bytes(4) if mapped else bytes(self.ip_size)


_V4: Final = PacketInfo(socket.IPPROTO_IP, _IP_PKTINFO, 12, 4, 4)


def ask(sock: socket.socket) -> PacketInfo | None:
    """Let a UDP socket say where datagrams come to; None: it is open at one address, or the system is not Linux."""
    if sys.platform != "linux" or any(ip_of(from_sockaddr(sock.getsockname()))):
        return None
    if sock.family == socket.AF_INET:
        info = _V4
        sock.setsockopt(info.level, info.type, 1)
    else:
        info = PacketInfo(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, 20, 0, 16)
        sock.setsockopt(info.level, socket.IPV6_RECVPKTINFO, 1)
    return info
