"""One control connection of a client: bytes to the machine, the machine's packets to the stream, one timer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from ocm.protocol.admission import Admission, Visit
from ocm.protocol.control.packets import Violation
from ocm.protocol.control.server import Request, ServerControl, ServerEvent
from ocm.protocol.entry import Refusal
from ocm.protocol.limits import Limits
from ocm.protocol.link.classic import ClassicLink
from ocm.transport.base import Stream

CLOSE_TIMEOUT_S: Final = 2.0
"""How long a peer that was shut out may take to hang up before it is cut off."""


class Desk(Protocol):
    """Who answers requests: the server."""

    def asked(self, connection: Connection, request: Request) -> None:
        """Take a request; answer by ``seat``, ``answer`` or ``refuse``, now or later."""
        ...

    def hung_up(self, connection: Connection) -> None:
        """Hear that the connection is gone."""
        ...


class Connection:
    """Drives one ``ServerControl`` (a ``StreamHandler``)."""

    def __init__(self, stream: Stream, visit: Visit, admission: Admission, limits: Limits, desk: Desk) -> None:
        """Start to listen on ``stream``."""
        self.stream = stream
        self.visit = visit
        self.link: ClassicLink | None = None
        """The seat that was given on this connection, while it lasts."""
        self.attached = False
        """Whether the peer keeps the connection open on purpose, so that its end means something."""
        self.told = False
        """Whether the answer that gave the seat is written: before that the peer has no token."""
        self._admission = admission
        self._desk = desk
        self._control = ServerControl(limits, quiet_until_s=visit.quiet_until_s)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._asking: Request | None = None
        self._gone = False
        self._ending = False
        self._left = False
        self._congested = False
        self._sync()

    @property
    def gone(self) -> bool:
        """Whether the stream is closed."""
        return self._gone

    # --- what the stream says ---------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take bytes."""
        self._admission.speak(self.visit)
        self._take(self._control.receive_data(data, now_s=self._loop.time()))

    def eof_received(self) -> None:
        """Close when the peer has said all it will; answers under way are still written."""
        self._take(self._control.receive_eof())
        self.end()

    def pause_writing(self) -> None:
        """Stop reading from a peer that does not read."""
        self._congested = True
        self._sync()

    def resume_writing(self) -> None:
        """Read again."""
        self._congested = False
        self._sync()

    def connection_lost(self, error: Exception | None) -> None:
        """Forget the peer."""
        self._gone = True
        if self._timer is not None:
            self._timer.cancel()
        self._admission.close(self.visit, now_s=self._loop.time())
        self._desk.hung_up(self)

    # --- what the server says ---------------------------------------------------------------------------

    def seat(self, link: ClassicLink) -> None:
        """Give the seat that was asked for."""
        self.link = link
        self._admission.seat(self.visit)
        self._take(self._control.accept(link.token, now_s=self._loop.time()))

    def answer(self, members: list[str] | None = None) -> None:
        """Say yes to LEAVE, and end: what was asked behind it is not answered; or say yes to MEMBERS."""
        events = self._control.answer(members, now_s=self._loop.time())
        if members is None:
            self.link = None
            self._left = self._ending = True
            events = []
        self._take(events)

    def refuse(self, why: Refusal, reason: str, *, delay_s: float = 0.0) -> None:
        """Say no."""
        self._take(self._control.refuse(why, reason, now_s=self._loop.time(), delay_s=delay_s))

    def hand_over(self) -> None:
        """Mind the stream no more: it speaks another protocol, and somebody else hears it."""
        self._gone = True
        if self._timer is not None:
            self._timer.cancel()

    def end(self) -> None:
        """Close as soon as what was asked is answered and written; cut off a peer that does not hang up."""
        if self._ending or self._gone:
            return
        self._ending = True
        self._sync()

    def abort(self) -> None:
        """Cut the peer off."""
        self.stream.abort()

    # --- the one place that keeps machine, stream and timer together ---------------------------------------

    def _take(self, events: list[ServerEvent]) -> None:
        for event in events:
            if isinstance(event, Violation):
                self._ending = True
            else:
                self._asking = event
        self._sync()

    def _sync(self) -> None:
        """Write what is due, read on unless a request waits, re-arm the timer."""
        if self._gone:
            return
        now_s = self._loop.time()
        for packet in self._control.packets_to_send(now_s=now_s):
            self.stream.write(packet)
        if not self._control.has_more_to_send:
            self.told = self.told or self.link is not None
            if self._asking is not None:  # not sooner: replies must not pile up, nor answers be given inside answers
                self._loop.call_soon(self._ask, self._asking)
                self._asking = None
        if self._control.asked or self._ending or self._congested:
            self.stream.pause_reading()
        else:
            self.stream.resume_reading()
        if self._ending and not self._control.has_more_to_send and (self._left or not self._control.asked):
            self._hang_up()
            return
        self._arm(self._control.next_timeout_s(), self._on_timer)

    def _ask(self, request: Request) -> None:
        if not self._gone:
            self._desk.asked(self, request)

    def _hang_up(self) -> None:
        self.stream.close()
        self._arm(self._loop.time() + CLOSE_TIMEOUT_S, self.abort)

    def _on_timer(self) -> None:
        self._take(self._control.handle_timeout(now_s=self._loop.time()))

    def _arm(self, at_s: float | None, action: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if at_s is None or self._gone else self._loop.call_at(at_s, action)


class _Nobody:
    """Hears a stream that was shut out."""

    def data_received(self, data: bytes) -> None: ...

    def eof_received(self) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def connection_lost(self, error: Exception | None) -> None: ...


NOBODY: Final = _Nobody()
"""What a stream is handed to that was shut out."""
