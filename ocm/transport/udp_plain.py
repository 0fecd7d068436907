"""Datagrams one by one through plain non-blocking sockets, for systems without ``recvmmsg``."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from ocm.protocol.address import Address
from ocm.transport.base import Batch
from ocm.transport.line import BATCH_MAX, ROUNDS_MAX, OneByOnePort
from ocm.transport.sockaddr import fit, from_sockaddr, to_sockaddr

SockAddr: TypeAlias = tuple[Any, ...]

FULL: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS, errno.ENOMEM})
"""The system has no room now; the same datagram may go later."""


class PlainPort(OneByOnePort[SockAddr]):
    """A datagram port on a bound, non-blocking UDP socket, which it owns from now on."""

    def __init__(
        self, sock: socket.socket, on_batch: Callable[[Batch], None], *, size_max: int, unsent_max: int
    ) -> None:
        """Start receiving on the running loop."""
        super().__init__(from_sockaddr(sock.getsockname()), unsent_max=unsent_max)
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._on_batch = on_batch
        self._size_max = size_max
        self._buffer = bytearray(size_max + 1)  # so that a longer datagram shows in its length
        self._loop.add_reader(sock, self._read)

    def fit(self, address: Address) -> SockAddr | None:
        """Return the address as ``sendto`` on this socket takes it."""
        fitted = fit(address, self._sock.family)
        return None if fitted is None else to_sockaddr(fitted)

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
                size, sender = self._sock.recvfrom_into(self._buffer)
            except OSError:  # nothing left; or an error that ICMP left, which is gone now
                return batch, False
            if size > self._size_max:
                self.counters.oversized += 1
            elif sender[1] == 0:
                self.counters.from_port_0 += 1
            else:
                batch.append((bytes(memoryview(self._buffer)[:size]), from_sockaddr(sender)))
        return batch, True

    def _offer(self, payload: bytes, destination: SockAddr) -> bool:
        try:
            self._sock.sendto(payload, destination)
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
