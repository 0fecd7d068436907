"""The driver of TCRP/2: TLS connections and sealed datagrams to the reception, what it has to say to the network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

from ocm import forks
from ocm.errors import HandshakeFailed
from ocm.protocol.address import Address, split_address
from ocm.protocol.admission import Admission, Visit
from ocm.protocol.entry import Refusal
from ocm.protocol.hub import Hub, Release, Turn
from ocm.protocol.limits import Limits
from ocm.protocol.link.base import Link
from ocm.protocol.link.modern_session import ModernSession
from ocm.protocol.reception import Knocking, Reception
from ocm.protocol.session.keys import Randomness
from ocm.protocol.wire.records import CloseCode
from ocm.protocol.wire.sealed import CONNECTION_ID_SIZE, ESCAPE
from ocm.server.alarms import Alarms
from ocm.server.fanout import Fanout
from ocm.server.gatekeeper import Gatekeeper, Knock
from ocm.transport.base import Batch, SecureStream, ServerSecurity, Stream, StreamHandler

_ID_END: Final = len(ESCAPE) + CONNECTION_ID_SIZE
_WRITE_SIZE: Final = 32_768
"""Bytes of frames written to one connection before the others get their turn."""
LINGER_S: Final = 2.0
"""How long to read and discard behind our last word: to close at once would take it back (RFC 1122, 4.2.2.13)."""


class ModernConnection:
    """One TLS connection, and the session that began on it (a ``StreamHandler`` of what TLS opened)."""

    def __init__(self, desk: ModernDesk, stream: Stream, visit: Visit) -> None:
        """Wait for the handshake on ``stream``."""
        self.stream = stream
        self.visit = visit
        self.session: ModernSession | None = None
        """Once the handshake is done."""
        self.is_up = True
        """Whether the connection is there."""
        self._secure: SecureStream | None = None
        self._desk = desk
        self._full = False
        self._ending = False
        loop = asyncio.get_running_loop()
        self._deadline: asyncio.TimerHandle | None = loop.call_later(desk.limits.tls_timeout_s, self.stream.abort)
        self._stalled: asyncio.TimerHandle | None = None

    @property
    def space(self) -> int:
        """Bytes of frames that may be written now."""
        return 0 if self._full else _WRITE_SIZE

    def begin(self, stream: SecureStream) -> StreamHandler:
        """Hear that the handshake is done."""
        self._secure = stream
        self._stop_deadline()
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(self._desk.limits.hello_timeout_s, self.stream.abort)
        self.session = self._desk.opened(self)
        return self

    def fail(self, _error: HandshakeFailed) -> None:
        """Hear that there will be no session; the peer may take its time to read why, but not for ever."""
        self._lost()
        self._deadline = asyncio.get_running_loop().call_later(LINGER_S, self.stream.abort)

    def known(self) -> None:
        """Hear that the client is known: it counts in no bound any more."""
        self._stop_deadline()

    def write(self, data: bytes) -> None:
        """Send bytes inside TLS."""
        if self._secure is not None and self.is_up:
            self._secure.write(data)

    def end(self) -> None:
        """Say nothing more; give the peer time to read what was said."""
        if self._ending or self._secure is None or not self.is_up:
            return
        self._ending = True
        self._stop_deadline()
        self._secure.write_eof()
        self._deadline = asyncio.get_running_loop().call_later(LINGER_S, self.stream.abort)

    # --- what the stream says ---------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take bytes; behind our last word they are of no interest."""
        if self.session is not None and not self._ending:
            self._desk.receive_data(self, self.session, data)

    def eof_received(self) -> None:
        """Close, too."""
        if self._secure is not None:
            self._secure.close()

    def pause_writing(self) -> None:
        """Send no frames, and read nothing, until the peer has read; a peer that never does is cut off."""
        self._full = True
        self._stalled = asyncio.get_running_loop().call_later(self._desk.limits.stalled_timeout_s, self.stream.abort)
        if self._secure is not None:
            self._secure.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        self._full = False
        self._stop_stalled()
        if self._secure is not None:
            self._secure.resume_reading()
        if self.session is not None:
            self._desk.kick(self.session)

    def connection_lost(self, error: Exception | None) -> None:
        """Hear that the connection is gone; the session may live on in datagrams."""
        self._lost()

    def _lost(self) -> None:
        self._stop_deadline()
        self._stop_stalled()
        self.is_up = False
        self._desk.lost(self)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _stop_stalled(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None


class ModernDesk:
    """Everybody who comes over TLS."""

    def __init__(
        self,
        security: ServerSecurity,
        hub: Hub,
        limits: Limits,
        *,
        admission: Admission,
        gatekeeper: Gatekeeper,
        fanout: Fanout,
        udp_port: int,
        durability: str,
        randomness: Randomness,
        submit: Callable[[Turn], None],
        rearm: Callable[[], None],
        on_hung_up: Callable[[], None],
        epoch_s: float,
    ) -> None:
        """Begin without anybody.

        Args:
            security: makes streams secure.
            hub: the rooms.
            limits: what clients may cost.
            admission: who may knock.
            gatekeeper: asks the embedding program.
            fanout: where datagrams go out.
            udp_port: the port that clients are told.
            durability: what the journal says of itself.
            randomness: for ids, secrets and challenges.
            submit: takes each turn to the journal, in order.
            rearm: called when the hub's timer may be due sooner.
            on_hung_up: called when a connection is gone.
            epoch_s: what to add to the loop's time for the time of day.
        """
        self.limits = limits
        self.reception = Reception(
            hub,
            limits,
            server_key=security.key,
            durability=durability,
            randomness=randomness,
            submit=submit,
            epoch_s=epoch_s,
        )
        self.reception.udp_port = udp_port
        forks.watch(self.reception)
        self.connections: dict[Visit, ModernConnection] = {}
        """TLS connections that are there, with a session or on the way to one."""
        self._security = security
        self._admission = admission
        self._gatekeeper = gatekeeper
        self._rearm = rearm
        self._on_hung_up = on_hung_up
        self._stopping = False
        self._fanout = fanout
        self._loop = asyncio.get_running_loop()
        self._by_session: dict[ModernSession, ModernConnection] = {}
        self._handshakes: dict[ModernConnection, None] = {}
        self._alarms = Alarms(self._on_alarm)
        self._scheduled = False

    # --- connections ------------------------------------------------------------------------------------

    def arrive(self, stream: Stream, visit: Visit) -> StreamHandler:
        """Take a stream whose first bytes are those of TLS; return who hears it."""
        self._admission.speak(visit)
        connection = ModernConnection(self, stream, visit)
        self.connections[visit] = connection
        self._handshakes[connection] = None
        if len(self._handshakes) > self.limits.handshakes_max:  # the oldest is the least likely to be honest
            oldest = next(iter(self._handshakes))
            del self._handshakes[oldest]  # its end is told later, and others may come before that
            oldest.stream.abort()
        return self._security.begin(stream, connection.begin, connection.fail)

    def cut_off(self, visit: Visit) -> None:
        """Cut off the connection of a visit that has to make room."""
        connection = self.connections.get(visit)
        if connection is not None:
            connection.stream.abort()

    def opened(self, connection: ModernConnection) -> ModernSession:
        """Begin a session."""
        self._handshakes.pop(connection, None)
        session = self.reception.open(connection.stream.remote, now_s=self._loop.time())
        self._by_session[session] = connection
        return session

    def lost(self, connection: ModernConnection) -> None:
        """Hear that a TLS connection is gone."""
        self._handshakes.pop(connection, None)
        self.connections.pop(connection.visit, None)
        self._on_hung_up()
        self._admission.close(connection.visit, now_s=self._loop.time())
        if connection.session is not None:
            self.reception.stream_lost(connection.session, now_s=self._loop.time())
            self.flush_soon()

    def receive_data(self, connection: ModernConnection, session: ModernSession, data: bytes) -> None:
        """Take bytes of a session."""
        for knocking in self.reception.receive_data(session, data, now_s=self._loop.time()):
            host, _ = split_address(connection.stream.remote)
            request = knocking.request
            knock = Knock(request.room, request.user, host, knocking.creates, request.password)
            self._gatekeeper.ask(knock, partial(self._decided, connection.visit, knocking))
        self.flush_soon()

    def _decided(self, visit: Visit, knocking: Knocking, decision: str | Refusal) -> None:
        delay_s = self._admission.join_delay_s(visit, now_s=self._loop.time())
        if delay_s:  # whatever comes of it: how long it takes says nothing
            self._loop.call_later(delay_s, self._let_in, visit, knocking, decision)
        else:
            self._let_in(visit, knocking, decision)

    def _let_in(self, visit: Visit, knocking: Knocking, decision: str | Refusal) -> None:
        if self._stopping:
            decision = Refusal.UNAVAILABLE
        now_s = self._loop.time()
        why = self.reception.let_in(knocking, decision, now_s=now_s)
        if why in {Refusal.NOT_FOUND, Refusal.NAME_TAKEN}:
            self._admission.fail_join(visit, now_s=now_s)
        self.flush_soon()

    # --- datagrams --------------------------------------------------------------------------------------

    def take(self, batch: Batch) -> Batch:
        """Take the datagrams that are for sessions; return the others."""
        knows = self.reception.knows
        sealed: list[tuple[bytes, Address]] = []
        others: list[tuple[bytes, Address]] = []
        for pair in batch:
            data = pair[0]
            is_sealed = data.startswith(ESCAPE) and knows(data[len(ESCAPE) : _ID_END])
            (sealed if is_sealed else others).append(pair)
        if sealed:
            self.reception.receive_batch(sealed, now_s=self._loop.time())
            self.flush_soon()
        return others

    # --- the hub ----------------------------------------------------------------------------------------

    def release(self, release: Release) -> bool:
        """Take what the hub lets out, if it is for members of ours; return whether it was."""
        return self.reception.release(release, now_s=self._loop.time())

    def committed(self, up_to: int) -> None:
        """Hear what the journal has."""
        self.reception.committed(up_to)
        self.flush_soon()

    def failed(self, turned_away: list[Link]) -> None:
        """Hear that the journal failed."""
        self.reception.failed(turned_away, now_s=self._loop.time())
        self.flush_soon()

    # --- sending ----------------------------------------------------------------------------------------

    def kick(self, session: ModernSession) -> None:
        """Have a look at what a session has to send, soon."""
        self.reception.stir(session)
        self.flush_soon()

    def flush_soon(self) -> None:
        """Send what there is at the end of this turn of the loop: what one turn said shares datagrams."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Send what there is."""
        self._scheduled = False
        now_s = self._loop.time()
        datagrams: list[tuple[Address, bytes]] = []
        for session in self.reception.stirred():
            connection = self._by_session.get(session)
            if connection is None:
                continue
            datagrams += session.datagrams_to_send(now_s=now_s)  # first: what is too large goes over TLS then
            data = session.data_to_send(space=connection.space, now_s=now_s)
            if data:
                self._write(connection, session, data)
            if session.is_over:
                self._finish(connection, session)
            elif (at_s := session.next_timeout_s()) is not None:
                self._alarms.set(session, at_s)
        if datagrams:
            self._fanout.send_all(datagrams)
        self._rearm()

    def _write(self, connection: ModernConnection, session: ModernSession, data: bytes) -> None:
        connection.write(data)
        if session.client and not connection.visit.seated:
            self._admission.seat(connection.visit)
            connection.known()
        if len(data) >= _WRITE_SIZE and connection.is_up:
            self.kick(session)  # there may be more; the others come first

    def _finish(self, connection: ModernConnection, session: ModernSession) -> None:
        del self._by_session[session]
        self._alarms.forget(session)
        connection.end()

    def _on_alarm(self, session: ModernSession) -> None:
        at_s, now_s = session.next_timeout_s(), self._loop.time()
        if at_s is None:
            return
        if at_s > now_s:  # what it was set for is settled
            self._alarms.set(session, at_s)
            return
        self.reception.handle_timeout(session, now_s=now_s)
        self.flush_soon()

    # --- the end ----------------------------------------------------------------------------------------

    def close_doors(self) -> None:
        """Let nobody into a room any more."""
        self._stopping = True

    @property
    def is_telling(self) -> bool:
        """Whether a member that is connected does not know yet that its room is over."""
        return any(link.end_seq for session in self.reception.sessions.values() for link in session.links.values())

    def stop(self) -> None:
        """Tell every client that we go, and to come back later."""
        now_s = self._loop.time()
        for session in list(self._by_session):
            self.reception.close(session, CloseCode.GOING_AWAY, "the server is stopping", now_s=now_s)
        self.flush()
        for connection in list(self.connections.values()):
            if connection.session is None:
                connection.stream.abort()

    def abort(self) -> None:
        """Cut off who has not hung up."""
        for connection in list(self.connections.values()):
            connection.stream.abort()
        self._alarms.stop()
        self._by_session.clear()
