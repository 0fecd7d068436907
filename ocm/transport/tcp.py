"""Streams over TCP, on asyncio's own transports."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import struct
from typing import Final, cast

from ocm.errors import AddressInUse, ConnectFailed, LocalProtocolError, TransportClosed
from ocm.protocol.address import Address, port_of, split_address
from ocm.transport.base import Accept, Stream, StreamHandler
from ocm.transport.sockaddr import from_sockaddr

_log: Final = logging.getLogger(__name__)

BACKLOG: Final = 1024
"""Connections the system keeps for us until we accept them."""
_ACCEPTS_MAX: Final = 64
"""Connections accepted before the event loop gets its turn again."""
ACCEPT_RETRY_S: Final = 1.0
"""How long to leave the door shut when the system has no file or memory left for another connection."""
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # struct linger


class TcpStream(asyncio.Protocol):
    """One connection: a ``Stream`` to its user, a protocol to asyncio."""

    local: Address
    remote: Address

    def __init__(self, accept: Accept, *, write_buffer_max: int, remote: Address | None = None) -> None:
        """Wait for asyncio to connect us; ``remote`` is known already where it was accepted."""
        self._accept = accept
        self._write_buffer_max = write_buffer_max
        self._known_remote = remote
        self.began = False
        """Whether ``accept`` was asked: a connection can end before it has addresses."""
        self._handler: StreamHandler | None = None
        self._ended = False  # by our side: what comes later is no error to anybody
        self._lost = False
        self._eof_sent = False
        self._eof_received = False
        self._paused = False
        self._full = False
        self._told_full = False

    def write(self, data: bytes) -> None:
        """Queue bytes."""
        if self._transport.is_closing():
            return
        if self._eof_sent:
            raise LocalProtocolError("cannot write after write_eof")
        self._transport.write(data)

    def write_eof(self) -> None:
        """Half-close."""
        if not self._transport.is_closing():
            self._eof_sent = True
            self._transport.write_eof()

    def pause_reading(self) -> None:
        """Ask for no more data."""
        self._paused = True
        if not self._eof_received:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Ask for data again."""
        self._paused = False
        if not self._eof_received:  # else asyncio reads the end a second time
            self._transport.resume_reading()

    def close(self) -> None:
        """Send what is queued, then close."""
        self._ended = True
        self._transport.close()

    def abort(self) -> None:
        """Close at once; the peer sees a reset, so that it does not take what it has for the whole."""
        self._ended = True
        if self._lost:  # asyncio's transports do not bear it then
            return
        with contextlib.suppress(OSError):
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport and ask ``accept`` who hears what follows."""
        transport = cast("asyncio.Transport", transport)  # uvloop's is one by shape only
        self._transport = transport
        with contextlib.suppress(OSError):  # asyncio does it only where the socket was made with TCP's number
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport.set_write_buffer_limits(high=self._write_buffer_max)
        local, remote = transport.get_extra_info("sockname"), self._known_remote
        if remote is None and (peer := transport.get_extra_info("peername")) is not None:
            remote = from_sockaddr(peer)
        if local is None or remote is None:  # the peer has reset it already
            transport.abort()
            return
        self.began = True
        self.local, self.remote = from_sockaddr(local), remote
        try:
            self._handler = self._accept(self)
        except BaseException:
            self.abort()
            raise
        if self._paused:
            asyncio.get_running_loop().call_soon(self._stay_paused)

    def _stay_paused(self) -> None:
        """Pause again: older asyncios (3.11.2) begin to read behind ``connection_made``, whatever was said in it."""
        if self._paused and not self._eof_received and not self._transport.is_closing():
            self._transport.resume_reading()
            self._transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        """Pass bytes on."""
        if self._handler is not None:
            self._handler.data_received(data)

    def eof_received(self) -> bool:
        """Pass the peer's end on and keep our half open."""
        self._eof_received = True
        if self._handler is not None:
            self._handler.eof_received()
        return True

    def pause_writing(self) -> None:
        """Tell the handler in the loop's next turn: asyncio calls this from inside ``write``."""
        self._full = True
        asyncio.get_running_loop().call_soon(self._tell_full)

    def resume_writing(self) -> None:
        """Tell the handler, if it knows of the pause at all."""
        self._full = False
        if self._told_full and self._handler is not None:
            self._told_full = False
            self._handler.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the handler, for the last time."""
        self._lost = True
        handler, self._handler = self._handler, None
        if handler is None:
            return
        error = None
        if exc is not None and not self._ended:
            error = TransportClosed(f"connection lost ({reason(exc)})")
            error.__cause__ = exc
        handler.connection_lost(error)

    def _tell_full(self) -> None:
        if self._full and not self._told_full and self._handler is not None:
            self._told_full = True
            self._handler.pause_writing()


class TcpListener:
    """An open door on a listening, non-blocking socket, which it owns from now on.

    It accepts by itself: asyncio's server traces every refusal of the system, and tries again at once.
    """

    def __init__(
        self, sock: socket.socket, accept: Accept, *, write_buffer_max: int, accept_retry_s: float = ACCEPT_RETRY_S
    ) -> None:
        """Start accepting on the running loop."""
        self.local = from_sockaddr(sock.getsockname())
        self._sock = sock
        self._accept = accept
        self._write_buffer_max = write_buffer_max
        self._accept_retry_s = accept_retry_s
        self._loop = asyncio.get_running_loop()
        self._retry: asyncio.TimerHandle | None = None
        self._starting: set[asyncio.Task[None]] = set()
        self._open()

    def close(self) -> None:
        """Accept no more."""
        if self._sock.fileno() < 0:
            return
        if self._retry is not None:
            self._retry.cancel()
        self._loop.remove_reader(self._sock)
        self._sock.close()

    def _open(self) -> None:
        self._retry = None
        self._loop.add_reader(self._sock, self._accept_some)

    def _accept_some(self) -> None:
        for _ in range(_ACCEPTS_MAX):
            try:
                sock, remote = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    continue  # that connection is gone already
                _log.warning("cannot accept connections for a while: %s", reason(error))
                self._loop.remove_reader(self._sock)
                self._retry = self._loop.call_later(self._accept_retry_s, self._open)
                return
            task = self._loop.create_task(self._start(sock, from_sockaddr(remote)))
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)

    async def _start(self, sock: socket.socket, remote: Address) -> None:
        def make_stream() -> TcpStream:
            return TcpStream(self._accept, write_buffer_max=self._write_buffer_max, remote=remote)

        try:
            sock.setblocking(False)
            await self._loop.connect_accepted_socket(make_stream, sock)
        except OSError as error:
            _log.debug("a connection ended before it began: %s", reason(error))
            sock.close()


async def connect(
    host: str, port: int, accept: Accept, *, write_buffer_max: int, local: Address | None = None
) -> Stream:
    """Open a stream to a host by name or number; its addresses are tried in turn (see ``Network.connect``)."""
    family, source = socket.AF_UNSPEC, None
    if local is not None:
        source = split_address(local)
        family = socket.AF_INET6 if ":" in source[0] else socket.AF_INET
    loop = asyncio.get_running_loop()
    try:
        _, made = await loop.create_connection(
            lambda: TcpStream(accept, write_buffer_max=write_buffer_max),
            host,
            port,
            family=family,
            local_addr=source,  # and no happy_eyeballs_delay: cancelled, Python 3.14 leaves its winner open
        )
    except OSError as error:
        if local is not None and error.errno == errno.EADDRINUSE:
            raise AddressInUse("TCP", port_of(local)) from error
        raise connect_failed(host, port, error) from error
    except ValueError as error:  # a name that no resolver can be asked for
        raise connect_failed(host, port, error) from error
    stream: TcpStream = made
    if not stream.began:
        raise connect_failed(host, port, ConnectionResetError(errno.ECONNRESET, "closed at once"))
    return stream


def connect_failed(host: str, port: int, error: Exception) -> ConnectFailed:
    """Say for people why there is no connection."""
    if isinstance(error, (socket.gaierror, ValueError)):
        return ConnectFailed(f"no such host name: {host}")
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    why = reason(error)
    return ConnectFailed(f"nobody answers at {place}" + (f" ({why})" if why else ""))


def reason(error: Exception) -> str:
    """Return the system's words for an error, or nothing where it has none of its own."""
    return os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno else ""
