"""Datagrams one by one through plain non-blocking sockets, for systems without ``recvmmsg``."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias

from ocm.protocol.address import Address, peer_of
from ocm.transport.base import Batch
from ocm.transport.line import BATCH_MAX, ROUNDS_MAX, OneByOnePort
from ocm.transport.pktinfo import Ancillary, PacketInfo
from ocm.transport.sockaddr import fit, from_sockaddr, to_sockaddr

SockAddr: TypeAlias = tuple[Any, ...]

FULL: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS, errno.ENOMEM})
"""The system has no room now; the same datagram may go later."""


_ANCILLARY_SIZE: Final = 128
"""More bytes than the one control message takes that we ask for."""


class Target(NamedTuple):
    """Where a datagram goes, as the system's calls take it, and what says where it leaves from."""

    sockaddr: SockAddr
    ancillary: list[Ancillary]


class PlainPort(OneByOnePort[Target]):
    """A datagram port on a bound, non-blocking UDP socket, which it owns from now on."""

    def __init__(
        self,
        sock: socket.socket,
        on_batch: Callable[[Batch], None],
        *,
        size_max: int,
        unsent_max: int,
        info: PacketInfo | None = None,
    ) -> None:
        """Start receiving on the running loop. With ``info`` the socket was asked to say where datagrams come to."""
        super().__init__(from_sockaddr(sock.getsockname()), unsent_max=unsent_max)
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._on_batch = on_batch
        self._size_max = size_max
        self._info = info
        self._buffer = bytearray(size_max + 1)  # so that a longer datagram shows in its length
        self._loop.add_reader(sock, self._read)

    def fit(self, address: Address) -> Target | None:
        """Return the address as the calls on this socket take it."""
        fitted = fit(address, self._sock.family)
        if fitted is None:
            return None
        own_ip = fitted.removeprefix(peer_of(fitted))
        return Target(to_sockaddr(fitted), [] if self._info is None else self._info.ancillary(own_ip))

    def _read(self) -> None:
        for _ in range(ROUNDS_MAX):
            batch, more = self._receive_batch()
            self.counters.received += len(batch)
            if batch:
                self._on_batch(batch)
            if not more or self.closed:
                return

    def _receive_batch(self) -> tuple[list[tuple[bytes, Address]], bool]:
        """Return what arrived, and whether there may be more."""
        batch: list[tuple[bytes, Address]] = []
        for _ in range(BATCH_MAX):
            try:
                size, sender, own_ip = self._receive()
            except OSError:  # nothing left; or an error that ICMP left, which is gone now
                return batch, False
            if size > self._size_max:
                self.counters.oversized += 1
            elif sender[1] == 0:
                self.counters.from_port_0 += 1
            else:
                batch.append((bytes(memoryview(self._buffer)[:size]), from_sockaddr(sender) + own_ip))
        return batch, True

    def _receive(self) -> tuple[int, SockAddr, bytes]:
        if self._info is None:
            size, sender = self._sock.recvfrom_into(self._buffer)
            return size, sender, b""
        size, ancillary, _, sender = self._sock.recvmsg_into([self._buffer], _ANCILLARY_SIZE)
        return size, sender, self._info.own_ip(ancillary)

    def _offer(self, payload: bytes, destination: Target) -> bool:
        try:
            if destination.ancillary:
                self._sock.sendmsg([payload], destination.ancillary, 0, destination.sockaddr)
            else:
                self._sock.sendto(payload, destination.sockaddr)
        except OSError as error:
            if error.errno in FULL:
                return False
            self.counters.dropped += 1
        else:
            self.counters.sent += 1
        return True

    def _watch_writable(self, wanted: bool) -> None:
        if wanted:
            self._loop.add_writer(self._sock, self._drain)
        else:
            self._loop.remove_writer(self._sock)

    def _close_pipe(self) -> None:
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
