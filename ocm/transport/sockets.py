"""The real network: the one place that makes sockets, and picks the implementation that fits the system."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeAlias

from ocm.errors import AddressInUse, LocalProtocolError, TransportClosed
from ocm.protocol.address import V6_SIZE, Address, make_address
from ocm.transport import pktinfo, tcp
from ocm.transport.base import Accept, Batch, DatagramPort, Stream, StreamListener
from ocm.transport.sockaddr import from_sockaddr, to_sockaddr
from ocm.transport.udp_plain import PlainPort

if sys.platform == "linux":
    from ocm.transport.udp_mmsg import MmsgPort, system_calls

Kind: TypeAlias = Literal["TCP", "UDP"]

BUFFER_SIZE: Final = 4 * 1024 * 1024
"""Bytes of the system's buffers asked for, each way, for a datagram port; less is taken silently."""
_SO_SNDBUFFORCE: Final = 32
_SO_RCVBUFFORCE: Final = 33
_WILDCARDS: Final = (make_address("::", 0), make_address("0.0.0.0", 0))


class SocketNetwork:
    """TCP and UDP of this machine (see ``Network``)."""

    def __init__(self, *, batched: bool = True, ipv6: bool = True) -> None:
        """Choose what to use.

        Args:
            batched: recvmmsg and sendmmsg where the system has them; else one call per datagram.
            ipv6: listen on IPv6 too where no host is named.
        """
        self._batched = batched
        self._wildcards = _WILDCARDS if ipv6 else _WILDCARDS[1:]

    async def listen(self, host: str | None, port: int, accept: Accept, *, write_buffer_max: int) -> StreamListener:
        """Accept streams (see ``Network.listen``)."""
        sock = bind_first("TCP", await self._candidates(host, port))
        return tcp.TcpListener(sock, accept, write_buffer_max=write_buffer_max)

    async def connect(
        self, host: str, port: int, accept: Accept, *, write_buffer_max: int, local: Address | None = None
    ) -> Stream:
        """Open a stream (see ``Network.connect``)."""
        return await tcp.connect(host, port, accept, write_buffer_max=write_buffer_max, local=local)

    async def open_port(
        self,
        host: str | None,
        port: int,
        on_batch: Callable[[Batch], None],
        *,
        size_max: int,
        unsent_max: int,
        multihomed: bool = False,
    ) -> DatagramPort:
        """Open a datagram port (see ``Network.open_port``)."""
        sock = bind_first("UDP", await self._candidates(host, port))
        info = pktinfo.ask(sock) if multihomed else None
        if sys.platform == "linux" and self._batched and (calls := system_calls()) is not None:
            return MmsgPort(sock, on_batch, size_max=size_max, unsent_max=unsent_max, calls=calls, info=info)
        return PlainPort(sock, on_batch, size_max=size_max, unsent_max=unsent_max, info=info)

    async def resolve(self, host: str, port: int) -> Sequence[Address]:
        """Return the addresses of a name (see ``Network.resolve``)."""
        with contextlib.suppress(LocalProtocolError):
            return [make_address(host, port)]
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        except (OSError, ValueError) as error:
            raise tcp.connect_failed(host, port, error) from error
        return list(dict.fromkeys(from_sockaddr(sockaddr) for *_, sockaddr in found))

    def source(self, destination: Address) -> Address | None:
        """Ask the system's routes (see ``Network.source``)."""
        family = socket.AF_INET6 if len(destination) == V6_SIZE else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.connect(to_sockaddr(destination))  # of a datagram socket: nothing is sent
                return bytes(2) + from_sockaddr(sock.getsockname())[2:]
        except OSError:
            return None

    async def _candidates(self, host: str | None, port: int) -> Sequence[Address]:
        if host is None:
            return [port.to_bytes(2, "big") + wildcard[2:] for wildcard in self._wildcards]
        return await self.resolve(host, port)


def bind_first(kind: Kind, candidates: Sequence[Address]) -> socket.socket:
    """Return a socket on the first of the addresses that this system can serve, listening if it is TCP.

    Raises:
        AddressInUse: another program has the port, on an address we could serve.
        TransportClosed: none of the addresses can be served.
    """
    failure: OSError | None = None
    for address in candidates:
        try:
            return _bind(kind, address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise AddressInUse(kind, int.from_bytes(address[:2], "big")) from error
            failure = failure or error
    assert failure is not None, "there is at least one address"
    raise TransportClosed(f"cannot listen on {kind}: {tcp.reason(failure)}") from failure


def _bind(kind: Kind, address: Address) -> socket.socket:
    family = socket.AF_INET if len(address) == len(_WILDCARDS[1]) else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_STREAM if kind == "TCP" else socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if kind == "TCP" and os.name == "posix":  # elsewhere it would let two programs share a port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if kind == "UDP":
            _enlarge_buffers(sock)
        sock.bind(to_sockaddr(address))
        if kind == "TCP":
            sock.listen(tcp.BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _enlarge_buffers(sock: socket.socket) -> None:
    """Ask for large buffers, past the system's limit where we are allowed to."""
    for forced, plain in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
        for option in (plain, forced) if sys.platform == "linux" else (plain,):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_SIZE)
