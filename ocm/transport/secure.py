"""A ``SecureStream`` over any ``Stream``: the rules that all kinds of security share.

A ``Channel`` turns bytes into secret ones and back and does no I/O; a ``SecureEnd`` is the stream, once the channel
is ready (see ``ocm.transport.handshake``). Nothing that a peer sends raises out of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from ocm.errors import LocalProtocolError, TransportClosed
from ocm.transport.base import SecureAccept, Stream, StreamHandler

REPLIES_SIZE_MAX: Final = 16_384
"""Bytes that a peer which reads nothing can make the channel answer by itself."""


class Channel(Protocol):
    """One side of a secure connection, without I/O."""

    server_key: bytes
    """The server's public key (see ``SecureStream``); known when ``shake`` has returned True."""

    def feed(self, data: bytes) -> None:
        """Take bytes from below. They are kept until ``shake`` or ``read`` gets to them."""
        ...

    def shake(self) -> bool:
        """Go on with the handshake; return whether it is complete. Raises ``HandshakeFailed``."""
        ...

    def read(self) -> bytes | None:
        """Return the peer's next bytes, b"" at its end, None if more must be fed. Raises ``TransportClosed``."""
        ...

    def seal(self, data: bytes) -> bytes:
        """Return what to send for ``data``. Raises ``TransportClosed``."""
        ...

    def seal_end(self) -> bytes:
        """Return what to send to say that no more comes. Raises ``TransportClosed``."""
        ...

    def take(self) -> bytes:
        """Return what the channel itself has to say, and forget it."""
        ...


class SecureEnd:
    """A ``SecureStream`` to its user, and the handler of the stream below.

    While reading is paused, what came from below waits as it came, and no more is taken: it is what the stream
    below hands over at once. What is written goes on at once, and waits below.
    """

    __slots__ = (
        "_below",
        "_below_ended",
        "_channel",
        "_due",
        "_ended",
        "_eof_sent",
        "_error",
        "_full",
        "_handler",
        "_over",
        "_peer_ended",
        "_reading",
        "_replies_size",
        "_told_full",
        "local",
        "remote",
        "server_key",
    )

    def __init__(self, below: Stream, channel: Channel, *, full: bool) -> None:
        """Take over a stream below, on which much may wait already, with a channel that is ready."""
        self.local = below.local
        self.remote = below.remote
        self.server_key = channel.server_key
        self._below = below
        self._channel = channel
        self._handler: StreamHandler | None = None
        self._reading = True
        self._due = False
        self._full = full
        self._told_full = False
        self._replies_size = 0
        self._eof_sent = False
        self._peer_ended = False
        self._below_ended = False
        self._ended = False  # by our user: what comes later is no error to anybody
        self._over = False  # for whatever reason: nothing is handed over or sent any more
        self._error: TransportClosed | None = None

    def begin(self, accept: SecureAccept) -> None:
        """Ask ``accept`` who hears what follows."""
        try:
            self._handler = accept(self)
        except BaseException:
            self.abort()
            raise
        self._hand_over()
        if self._full:
            asyncio.get_running_loop().call_soon(self._tell_full)

    # --- what our user calls --------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Queue bytes."""
        if self._over:
            return
        if self._eof_sent:
            raise LocalProtocolError("cannot write after write_eof")
        if data:
            self._send(lambda: self._channel.seal(data))

    def write_eof(self) -> None:
        """Half-close: the stream below stays open for what the peer sends."""
        if not self._over and not self._eof_sent:
            self._eof_sent = True
            self._send(self._channel.seal_end)

    def pause_reading(self) -> None:
        """Ask for no more data."""
        self._reading = False
        if not self._over:
            self._below.pause_reading()

    def resume_reading(self) -> None:
        """Ask for data again."""
        self._reading = True
        if not self._over and not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._resume)

    def close(self) -> None:
        """Send what is queued, then close."""
        self.write_eof()
        if not self._over:
            self._ended = self._over = True
            self._below.close()

    def abort(self) -> None:
        """Close at once; the peer sees a reset."""
        self._ended = self._over = True
        self._below.abort()

    # --- what the stream below tells ------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Pass on what the bytes say."""
        if not self._over and not self._peer_ended:
            self._channel.feed(data)
            self._hand_over()

    def eof_received(self) -> None:
        """Hear that no more comes, of which the peer should have spoken first."""
        self._below_ended = True
        self._hand_over()

    def pause_writing(self) -> None:
        """Tell our user."""
        self._full = True
        self._tell_full()

    def resume_writing(self) -> None:
        """Tell our user, if he knows of the pause at all."""
        self._full = False
        self._replies_size = 0
        if self._told_full and self._handler is not None:
            self._told_full = False
            self._handler.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        """Tell our user, for the last time."""
        self._over = True
        handler, self._handler = self._handler, None
        if handler is None:
            return
        if self._ended:
            error = None
        elif self._error is not None:
            error = self._error
        elif error is None and not self._peer_ended:
            error = _truncated()
        handler.connection_lost(error)

    # --- helpers --------------------------------------------------------------------------------------

    def _resume(self) -> None:
        """Hand over what waited; only when nothing waits any more may the stream below bring more."""
        self._due = False
        self._hand_over()
        if self._reading and not self._over:
            self._below.resume_reading()

    def _hand_over(self) -> None:
        """Give the handler what it may have."""
        try:
            while self._reading and not self._over and not self._peer_ended and self._handler is not None:
                data = self._read()
                if data is None:
                    break
                if data:
                    self._handler.data_received(data)
                else:
                    self._peer_ended = True
                    self._handler.eof_received()
        except BaseException:
            self.abort()
            raise

    def _read(self) -> bytes | None:
        """Return the peer's next bytes, b"" at its end, None if there are none for now."""
        try:
            data = self._channel.read()
            self._reply(self._channel.take())
        except TransportClosed as error:
            self._break(error)
            return None
        if data is None and self._below_ended:
            self._break(_truncated())
        return data

    def _reply(self, reply: bytes) -> None:
        """Send what the channel answers by itself. Raises ``TransportClosed`` when the peer seems not to want it."""
        if reply:
            self._replies_size += len(reply)
            if self._full and self._replies_size > REPLIES_SIZE_MAX:
                raise TransportClosed("connection lost (the other side asks for answers and does not read them)")
            self._below.write(reply)

    def _send(self, seal: Callable[[], bytes]) -> None:
        try:
            sealed = seal()
        except TransportClosed as error:
            self._break(error)
        else:
            self._below.write(sealed)

    def _break(self, error: TransportClosed) -> None:
        """End with an error, of which our user hears when the stream below is gone."""
        self._over = True
        self._error = error
        self._below.abort()

    def _tell_full(self) -> None:
        if self._full and not self._told_full and self._handler is not None and not self._over:
            self._told_full = True
            self._handler.pause_writing()


def _truncated() -> TransportClosed:
    return TransportClosed("connection lost (the other side ended without saying so)")
