"""Streams over a simulated network: TCP as programs see it. Nothing is lost or doubled; it comes late, or it ends.

Bytes go in segments. A lost segment is sent again after a while that doubles; what comes behind it waits. While
the link is cut the stream stalls; when a segment stays unanswered for ``give_up_after_s`` the stream is lost to its
sender, and the other side hears of it only if it says something itself. An idle stream notices nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from ocm.errors import ConnectFailed, LocalProtocolError, TransportClosed
from ocm.protocol.address import Address, port_of
from ocm.transport.base import Accept, Stream, StreamHandler
from ocm.transport.link_model import NS_PER_S

if TYPE_CHECKING:
    from ocm.transport.sim import Host, World

SEGMENT_SIZE_MAX: Final = 1460
"""Bytes in one segment, as on Ethernet."""
WINDOW: Final = 65_536
"""Bytes under way, or waiting for the other side to read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamTimes:
    """How long streams wait.

    Linux waits 127 s for a connection and, unless told otherwise, 15 minutes for an answer; a phone, or a router
    in between, gives up much sooner.
    """

    resend_min_s: float = 0.2
    """Least time before a lost segment is sent again (twice the round trip if that is longer); it doubles."""
    resend_max_s: float = 8.0
    """Most time between two tries."""
    give_up_after_s: float = 30.0
    """How long a segment may stay unanswered before the stream is lost."""
    connect_resend_s: float = 1.0
    """Time before a lost request to connect is sent again; it doubles."""
    connect_timeout_s: float = 127.0
    """How long to try to connect."""


class _Segment:
    """Bytes under way; none is the end of the stream."""

    __slots__ = ("arrived", "data", "number", "sent_ns", "tries")

    def __init__(self, number: int, data: bytes | None, now_ns: int) -> None:
        self.number = number
        self.data = data
        self.sent_ns = now_ns
        self.tries = 0
        self.arrived = False


class SimStream:
    """One end of a stream of a simulated network."""

    def __init__(
        self, world: World, host: Host, number: int, remote: Address, write_buffer_max: int, *, owns_port: bool
    ) -> None:
        """Make an end; ``join`` gives it the other one."""
        self.local = host.address(number)
        self.remote = remote
        self._world = world
        self._host = host
        self._number = number
        self._owns_port = owns_port
        self._loop = world.loop
        self._write_buffer_max = write_buffer_max
        self._handler: StreamHandler | None = None
        self._peer = self
        # what our program does
        self._queue: deque[memoryview] = deque()
        self._waiting = 0
        self._due = False
        self._reading = True
        self._told_full = False
        self._closing = False
        self._lost = False
        self._error: TransportClosed | None = None
        self._eof_asked = False
        # what the system does for it, also when the program is gone already
        self._gone = False
        self._eof_sent = False
        self._next_number = 0
        self._under_way: dict[int, _Segment] = {}
        self._under_way_size = 0
        self._expected = 0
        self._early: dict[int, _Segment] = {}
        self._unread: deque[bytes | None] = deque()
        self._unread_size = 0
        host.streams[self] = None

    def join(self, peer: SimStream) -> None:
        """Name the other end."""
        self._peer = peer

    def begin(self, accept: Accept) -> None:
        """Ask ``accept`` who hears what follows."""
        try:
            self._handler = accept(self)
        except BaseException:
            self.abort()
            raise
        if self._lost:  # before anybody could be told
            self._tell_lost()
        self._schedule()

    # --- what programs call -----------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Queue bytes."""
        if self._closing or self._lost:
            return
        if self._eof_asked:
            raise LocalProtocolError("cannot write after write_eof")
        if data:
            self._queue.append(memoryview(bytes(data)))
            self._waiting += len(data)
            self._schedule()

    def write_eof(self) -> None:
        """Half-close."""
        if not self._closing and not self._lost:
            self._eof_asked = True
            self._schedule()

    def pause_reading(self) -> None:
        """Ask for no more data."""
        self._reading = False

    def resume_reading(self) -> None:
        """Ask for data again."""
        self._reading = True
        self._schedule()

    def close(self) -> None:
        """Send what is queued, then close."""
        if not self._closing and not self._lost:
            self._closing = self._eof_asked = True
            self._schedule()

    def abort(self) -> None:
        """Close at once; the peer sees a reset, if it gets through."""
        self._closing = True
        if not self._lost:
            self._end(None)
            self.send_reset()

    def fail(self, why: str) -> None:
        """Lose the stream without a word to the peer."""
        self._end(TransportClosed(f"connection lost ({why})"))

    # --- sending --------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        if not self._due:
            self._due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Do what waited for the loop: hand over what may be read, send what may be sent."""
        self._due = False
        if self._handler is None:
            return
        self._hand_over()
        self._send_queued()

    def _send_queued(self) -> None:
        handler = self._handler
        if self._gone or handler is None:
            return
        while self._queue and (room := WINDOW - self._under_way_size - self._peer._unread_size) > 0:
            self._send_segment(self._take(min(room, SEGMENT_SIZE_MAX)))
        if self._waiting > self._write_buffer_max and not self._told_full and not self._closing:
            self._told_full = True
            handler.pause_writing()
        elif self._told_full and self._waiting <= self._write_buffer_max // 4:
            self._told_full = False
            handler.resume_writing()
        if self._queue or self._gone:
            return
        if self._eof_asked and not self._eof_sent:
            self._eof_sent = True
            self._send_segment(None)
        if self._closing and not self._lost:  # the system does the rest
            self._unread.clear()
            self._unread_size = 0
            self._lose(None)

    def _take(self, size: int) -> bytes:
        data = self._queue.popleft()
        if len(data) > size:
            self._queue.appendleft(data[size:])
            data = data[:size]
        self._waiting -= len(data)
        return bytes(data)

    def _send_segment(self, data: bytes | None) -> None:
        segment = _Segment(self._next_number, data, self._world.now_ns())
        self._next_number += 1
        self._under_way[segment.number] = segment
        self._under_way_size += len(data or b"")
        self._try(segment)

    def _try(self, segment: _Segment) -> None:
        """Send a segment, the first time or again."""
        if self._gone or segment.number not in self._under_way:
            return
        if self.local[2:] != self._host.ip:  # the program is gone, and now the address is too
            self._end(None)
            return
        world, now_ns = self._world, self._world.now_ns()
        if now_ns - segment.sent_ns >= world.times.give_up_after_s * NS_PER_S:
            self.fail("no answer")
            return
        kind = "tcp end" if segment.data is None else "tcp data"
        fate, happening, host = world.launch(
            self._host, self._number, self.remote, f"{kind} again" if segment.tries else kind, segment.data or b""
        )
        segment.tries += 1
        rank = (happening.source, happening.destination, "tcp", happening.rank)
        if fate.arrivals_ns and host is self._peer._host:
            world.schedule(fate.arrivals_ns[0], rank, partial(self._arrived, segment, rank))
        else:
            world.schedule(now_ns + self._patience_ns(segment), rank, partial(self._try, segment))

    def _arrived(self, segment: _Segment, rank: tuple[str, str, str, int]) -> None:
        """A segment is at the other end; here we hear of it, unless the way back is cut."""
        peer, world = self._peer, self._world
        there = world.host_at(self.remote) is peer._host
        if there and not segment.arrived:
            segment.arrived = True
            peer._receive(segment)
        if there and world.model.is_up(peer._host.name, self._host.name):
            if self._under_way.pop(segment.number, None) is not None:
                self._under_way_size -= len(segment.data or b"")
                if not self._gone and (self._queue or self._eof_asked):
                    self._schedule()
        else:
            world.schedule(world.now_ns() + self._patience_ns(segment), rank, partial(self._try, segment))

    def _patience_ns(self, segment: _Segment) -> int:
        """Return how long to wait before a segment is sent again."""
        times = self._world.times
        round_trip_ns = self._world.model.round_trip_ns(self._host.name, self._peer._host.name)
        first_ns = max(round(times.resend_min_s * NS_PER_S), 2 * round_trip_ns)
        doubled_ns = first_ns << min(segment.tries - 1, 20)
        return max(first_ns, min(doubled_ns, round(times.resend_max_s * NS_PER_S)))

    # --- receiving ------------------------------------------------------------------------------------

    def _receive(self, segment: _Segment) -> None:
        """Take a segment off the link, in its turn."""
        if self._gone or (self._lost and segment.data is not None):
            # as TCP answers what comes for a connection it does not have
            self._gone = True
            self.send_reset()
            return
        self._early[segment.number] = segment
        while (ready := self._early.pop(self._expected, None)) is not None:
            self._expected += 1
            if not self._lost and not self._closing:
                self._unread.append(ready.data)
                self._unread_size += len(ready.data or b"")
        if self._handler is not None:
            self._hand_over()

    def _hand_over(self) -> None:
        """Give the handler what it may have."""
        handler = self._handler
        while self._unread and self._reading and handler is not None and not self._lost and not self._closing:
            data = self._unread.popleft()
            try:
                if data is None:
                    handler.eof_received()
                else:
                    self._unread_size -= len(data)
                    handler.data_received(data)
            except BaseException:
                self.abort()
                raise
            if self._peer._queue:
                self._peer._schedule()
        if self._closing and self._unread:  # nobody will ever read it
            self._unread.clear()
            self._unread_size = 0
            self._peer._schedule()

    def send_reset(self) -> None:
        """Tell the other end that there is no such stream; it is said once, and may be lost."""
        fate, happening, host = self._world.launch(self._host, self._number, self.remote, "tcp reset", b"")
        peer = self._peer
        if fate.arrivals_ns and host is peer._host:
            rank = (happening.source, happening.destination, "tcp", happening.rank)
            self._world.schedule(fate.arrivals_ns[0], rank, partial(peer.fail, "connection reset by peer"))

    # --- the end --------------------------------------------------------------------------------------

    def _end(self, error: TransportClosed | None) -> None:
        """Forget everything, for the program and for the system."""
        self._gone = True
        self._queue.clear()
        self._unread.clear()
        self._early.clear()
        self._under_way.clear()
        self._waiting = self._unread_size = self._under_way_size = 0
        self._lose(error)

    def _lose(self, error: TransportClosed | None) -> None:
        """End it for the program, which hears of it in the loop's next turn."""
        if self._lost:
            return
        self._lost = True
        self._error = None if self._closing else error
        self._host.streams.pop(self, None)
        if self._owns_port:
            self._host.taken.discard(("TCP", self._number))
        self._tell_lost()
        self._peer._schedule()  # it may wait for us to read

    def _tell_lost(self) -> None:
        if self._handler is not None:
            self._loop.call_soon(self._handler.connection_lost, self._error)


class Dial:
    """One attempt to connect: asks until somebody answers or time is up."""

    def __init__(
        self,
        world: World,
        host: Host,
        number: int,
        remote: Address,
        *,
        asked: str,
        accept: Accept,
        write_buffer_max: int,
    ) -> None:
        """Prepare to connect from port ``number``, which was claimed; ``asked`` is the address for error messages."""
        self._world = world
        self._host = host
        self._number = number
        self._remote = remote
        self._asked = asked
        self._accept = accept
        self._answer: asyncio.Future[None] = world.loop.create_future()
        self._ours = SimStream(world, host, number, remote, write_buffer_max, owns_port=True)
        self._theirs: SimStream | None = None
        self._label = host.label(number)
        self._tries = 0

    async def connect(self) -> Stream:
        """Return the stream, which has begun. Raises ``ConnectFailed``."""
        world = self._world
        timeout_ns = world.now_ns() + round(world.times.connect_timeout_s * NS_PER_S)
        world.schedule(timeout_ns, (self._label, "", "tcp", 0), self._give_up)
        self._ask()
        try:
            await self._answer
        except BaseException:
            if self._theirs is None:
                self._ours.fail("never connected")
            else:
                self._ours.abort()
            raise
        return self._ours

    def _ask(self) -> None:
        """Knock, the first time or again."""
        if self._answer.done():
            return
        world = self._world
        fate, happening, host = world.launch(self._host, self._number, self._remote, "tcp open", b"")
        rank = (happening.source, happening.destination, "tcp", happening.rank)
        if fate.arrivals_ns and host is not None:
            world.schedule(fate.arrivals_ns[0], rank, partial(self._knock, host))
        wait_ns = round(world.times.connect_resend_s * NS_PER_S) << self._tries
        self._tries += 1
        world.schedule(world.now_ns() + wait_ns, rank, self._ask)

    def _knock(self, host: Host) -> None:
        """Arrive at the other host."""
        if self._world.host_at(self._remote) is not host:
            return
        listener = host.listeners.get(port_of(self._remote))
        if self._theirs is not None:  # our answer was lost
            self._reply(host, "tcp accept", self._begin)
        elif listener is None:
            self._reply(host, "tcp reset", self._refuse)
        else:
            self._theirs = theirs = SimStream(
                self._world,
                host,
                port_of(self._remote),
                self._ours.local,
                listener.write_buffer_max,
                owns_port=False,
            )
            theirs.join(self._ours)
            self._ours.join(theirs)
            self._reply(host, "tcp accept", self._begin)
            theirs.begin(listener.accept)

    def _reply(self, host: Host, kind: str, action: Callable[[], None]) -> None:
        world = self._world
        fate, happening, back = world.launch(host, port_of(self._remote), self._ours.local, kind, b"")
        if fate.arrivals_ns and back is self._host:
            rank = (happening.source, happening.destination, "tcp", happening.rank)
            world.schedule(fate.arrivals_ns[0], rank, action)

    def _begin(self) -> None:
        if self._answer.done():
            if self._answer.cancelled() or self._answer.exception() is not None:
                self._ours.send_reset()
            return
        self._answer.set_result(None)
        self._ours.begin(self._accept)

    def _refuse(self) -> None:
        self._fail(f"nobody answers at {self._asked} (connection refused)")

    def _give_up(self) -> None:
        self._fail(f"nobody answers at {self._asked} (no answer)")

    def _fail(self, why: str) -> None:
        if not self._answer.done():
            self._answer.set_exception(ConnectFailed(why))
