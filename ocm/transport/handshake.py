"""How a stream becomes secure, or fails to: what all kinds of security share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from ocm.errors import HandshakeFailed, ServerUntrusted
from ocm.transport.base import Pinned, SecureAccept, Stream, Unknown
from ocm.transport.certificate import fingerprint
from ocm.transport.secure import Channel, SecureEnd

PROTOCOL: Final = "tcrp/2"
"""What both sides must choose by ALPN (RFC 7301)."""


class Handshake:
    """Hears a stream until it is secure, and passes on what it hears from then on."""

    __slots__ = ("_accept", "_below", "_channel", "_end", "_failed", "_full", "_make_channel", "_on_failed")

    def __init__(
        self,
        below: Stream,
        make_channel: Callable[[], Channel],
        accept: SecureAccept,
        on_failed: Callable[[HandshakeFailed], None],
    ) -> None:
        """Wait for ``greet`` or the first bytes; only then is the channel made."""
        self._below = below
        self._make_channel = make_channel
        self._accept = accept
        self._on_failed = on_failed
        self._channel: Channel | None = None
        self._end: SecureEnd | None = None
        self._failed = False
        self._full = False

    def greet(self) -> None:
        """Begin, as clients do."""
        self._receive(b"")

    def data_received(self, data: bytes) -> None:
        """Go on with the handshake, or with the stream."""
        if self._end is not None:
            self._end.data_received(data)
        elif not self._failed:
            self._receive(data)

    def eof_received(self) -> None:
        """Hear that no more comes: in the middle of a handshake it fails."""
        if self._end is not None:
            self._end.eof_received()
        else:
            self._fail(HandshakeFailed("the other side ended the connection while it was to be made secure"))

    def pause_writing(self) -> None:
        """Hear that much waits below."""
        self._full = True
        if self._end is not None:
            self._end.pause_writing()

    def resume_writing(self) -> None:
        """Hear that it has drained."""
        self._full = False
        if self._end is not None:
            self._end.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        """Hear that the stream below is gone."""
        if self._end is not None:
            self._end.connection_lost(error)
            return
        failure = HandshakeFailed("connection lost while it was to be made secure")
        failure.__cause__ = error
        self._fail(failure)

    def _receive(self, data: bytes) -> None:
        channel = self._channel = self._channel or self._make_channel()
        channel.feed(data)
        try:
            complete = channel.shake()
        except HandshakeFailed as failure:
            self._below.write(channel.take())  # why, for the peer
            self._fail(failure)
            return
        self._below.write(channel.take())
        if complete:
            self._end = SecureEnd(self._below, channel, full=self._full)
            self._end.begin(self._accept)

    def _fail(self, failure: HandshakeFailed) -> None:
        if not self._failed:
            self._failed = True
            self._channel = None
            self._below.close()
            asyncio.get_running_loop().call_soon(self._on_failed, failure)


def check_key(key: bytes, trust: Pinned | Unknown) -> None:
    """Raise ``ServerUntrusted`` unless it is the pinned key."""
    shown = fingerprint(key)
    if isinstance(trust, Unknown):
        raise ServerUntrusted("the server's key is not known yet", fingerprint=shown)
    if shown != trust.fingerprint:
        raise ServerUntrusted("the server's key is not the pinned one", fingerprint=shown)
