"""A connection before it is known what it speaks: the first bytes decide who hears the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ocm.protocol.sniff import Profile, sniff
from ocm.transport.base import Stream, StreamHandler


class Shut:
    """Hears a stream that may speak TLS only: anything else ends it (a ``StreamHandler``)."""

    def __init__(self, stream: Stream, silent: StreamHandler) -> None:
        """End ``stream`` at its first bytes; ``silent`` minds one that says nothing."""
        self._stream = stream
        self._silent = silent

    def data_received(self, data: bytes) -> None:
        """End it."""
        self._stream.abort()

    def eof_received(self) -> None:
        """End it."""
        self._stream.abort()

    def pause_writing(self) -> None:
        """Nothing is written."""

    def resume_writing(self) -> None:
        """Nothing is written."""

    def connection_lost(self, error: Exception | None) -> None:
        """Pass it on."""
        self._silent.connection_lost(error)


class Arrival:
    """Holds the first bytes of a stream until they say who is to hear them (a ``StreamHandler``).

    ``classic`` hears of everything that happens until then, so that it minds a silent peer; for TLS the stream is
    handed over before anything is spent on it.
    """

    def __init__(
        self, stream: Stream, classic: StreamHandler, begin_tls: Callable[[], StreamHandler], *, decide_s: float
    ) -> None:
        """Wait. ``begin_tls`` is called if the first bytes are those of TLS, and returns who hears them.

        Args:
            stream: the new stream.
            classic: who hears a stream that is not TLS.
            begin_tls: makes the one who hears TLS.
            decide_s: how long the first bytes may take, once one has come.
        """
        self._stream = stream
        self._handler = classic
        self._begin_tls = begin_tls
        self._decide_s = decide_s
        self._held = b""
        self._decided = False
        self._timer: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """Pass bytes on, or hold them while they say nothing."""
        if self._decided:
            self._handler.data_received(data)
            return
        self._held += data
        profile = sniff(self._held)
        if profile is None:
            if self._timer is None:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(self._decide_s, self._stream.abort)
            return
        self._decide(profile)

    def eof_received(self) -> None:
        """Pass on the end; what came before it was all there is."""
        if not self._decided and self._held:
            self._decide(Profile.CLASSIC)
        self._handler.eof_received()

    def pause_writing(self) -> None:
        """Pass it on."""
        self._handler.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self._handler.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        """Pass it on."""
        self._stop_timer()
        self._handler.connection_lost(error)

    def _decide(self, profile: Profile) -> None:
        self._decided = True
        self._stop_timer()
        if profile is Profile.TLS:
            self._handler = self._begin_tls()
        held, self._held = self._held, b""
        self._handler.data_received(held)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
