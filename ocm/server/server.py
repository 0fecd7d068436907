"""The server: a stream listener, a datagram port, a journal, and the hub between them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

from ocm.errors import JournalFailed
from ocm.protocol.address import Address, port_of
from ocm.protocol.admission import Admission, Visit
from ocm.protocol.entry import CLASSIC_POLICY, Entry, KeptMember, KeptRoom, Policy, Reason
from ocm.protocol.hub import Delivery, Hub, HubCounts, Release, Turn
from ocm.protocol.limits import DATAGRAM_SIZE_MAX, Limits
from ocm.protocol.link.base import Link
from ocm.protocol.link.classic import (
    DoorCounters,
    Randomness,
)
from ocm.protocol.link.log import RoomLog
from ocm.server.arrival import Arrival, Shut
from ocm.server.classic import ClassicDesk
from ocm.server.connection import NOBODY
from ocm.server.fanout import Fanout
from ocm.server.gatekeeper import Authorize, Gatekeeper
from ocm.server.local import LocalDesk, LocalMember
from ocm.server.modern import ModernDesk
from ocm.store.base import Journal
from ocm.transport.base import (
    Batch,
    DatagramPort,
    Network,
    ServerSecurity,
    Stream,
    StreamHandler,
    StreamListener,
)

_log: Final = logging.getLogger(__name__)

_SLOWED_AFTER_S: Final = 1.0
"""How long drops over the allowance are gathered before the member is told of them."""
_STOP_TIMEOUT_S: Final = 1.0
"""How long members may take to hear that a stopping server closes their room, and then to hang up."""


Admits: TypeAlias = Callable[[Address], bool]
"""Whether connections are taken from an address at all; it must not raise."""


@dataclass(frozen=True, slots=True)
class Status:
    """What the server is doing."""

    hub: HubCounts
    """Rooms, members and what waits for the journal, just now."""
    door: DoorCounters
    """Datagrams that were not let in, since the server started."""
    connections: int
    """Control connections that are open."""
    datagrams_received: int
    """Datagrams that came in since the server started, let in or not."""
    datagrams_sent: int
    """Datagrams that went out since the server started."""
    datagrams_dropped: int
    """Datagrams that should have gone out, and for which there was no room."""


class Server:
    """Rooms for programs of both profiles, over whatever ``network`` it is given.

    It keeps running whatever a peer sends. While the journal fails, requests are refused. What fails in
    ``authorize`` is kept in ``failure`` and ends the server's ``async with``.
    """

    def __init__(
        self,
        network: Network,
        journal: Journal,
        *,
        limits: Limits,
        randomness: Randomness,
        epoch_s: float = 0.0,
        authorize: Authorize | None = None,
        security: ServerSecurity | None = None,
        admits: Admits | None = None,
        names_in_reference: bool = False,
    ) -> None:
        """Prepare; nothing listens before ``start``.

        Args:
            network: where streams and datagrams come from.
            journal: where the logs of rooms are kept.
            limits: what peers may cost.
            randomness: for tokens, ids and secrets.
            epoch_s: what to add to the loop's time for the time of day.
            authorize: asked for each who wants in; None: everybody may.
            security: makes streams secure for TCRP/2; None: the classic profile only.
            admits: asked for the address of every connection that speaks the classic profile.
            names_in_reference: put the sender's name into the text for reference programs.
        """
        self._network = network
        self._journal = journal
        self._limits = limits
        self._randomness = randomness
        self._security = security
        self._epoch_s = epoch_s
        self._gatekeeper = Gatekeeper(authorize, limits, self._fail)
        self._admits = admits
        self._names = names_in_reference
        self._hub = Hub(limits, epoch_s=epoch_s, read=self._read)
        self._admission = Admission(limits)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s: float | None = None
        self._stopping = False
        self._stopped = False
        self._hung_up = asyncio.Event()
        self._port: DatagramPort
        self._listener: StreamListener
        self._fanout: Fanout
        self._classic: ClassicDesk
        self._local: LocalDesk
        self._modern: ModernDesk | None = None

    # --- life -----------------------------------------------------------------------------------------

    async def start(self, host: str | None, *, tcp_port: int, udp_port: int) -> None:
        """Listen at ``host`` (None: every address). Ports may be 0.

        Raises:
            AddressInUse: a port is taken.
            TransportClosed: the address is not ours.
        """
        self._loop = asyncio.get_running_loop()
        self.failure: asyncio.Future[None] = self._loop.create_future()
        """Done with an exception when the server can no longer do its work."""
        self._port = await self._network.open_port(
            host,
            udp_port,
            self._on_batch,
            size_max=DATAGRAM_SIZE_MAX,
            unsent_max=self._limits.unsent_datagrams_max,
            multihomed=True,
        )
        self._fanout = Fanout(self._port)
        try:
            self._make_desks()
            self._restore()
            self._listener = await self._network.listen(
                host, tcp_port, self._accept, write_buffer_max=self._limits.send_buffer_max
            )
        except BaseException:
            self._port.close()
            raise

    def _make_desks(self) -> None:
        hub, limits = self._hub, self._limits
        self._local = LocalDesk(
            hub, limits, gatekeeper=self._gatekeeper, randomness=self._randomness, submit=self._submit
        )
        self._classic = ClassicDesk(
            hub,
            limits,
            admission=self._admission,
            gatekeeper=self._gatekeeper,
            fanout=self._fanout,
            randomness=self._randomness,
            names_in_reference=self._names,
            submit=self._submit,
            rearm=self._rearm,
            on_hung_up=self._hung_up.set,
        )
        if self._security is not None:
            self._modern = ModernDesk(
                self._security,
                hub,
                limits,
                admission=self._admission,
                gatekeeper=self._gatekeeper,
                fanout=self._fanout,
                udp_port=self.udp_port,
                durability=self._journal.durability,
                randomness=self._randomness,
                submit=self._submit,
                rearm=self._rearm,
                on_hung_up=self._hung_up.set,
                epoch_s=self._epoch_s,
            )

    def _restore(self) -> None:
        """Be as the journal remembers it. Raises ``JournalFailed``."""
        kept, now_s = self._journal.load(), self._loop.time()
        if self._modern is not None:
            self._modern.reception.restore(kept, now_s=now_s)
        self._submit(self._hub.restore(kept, self._restore_link, now_s=now_s))

    def _restore_link(self, room: KeptRoom, member: KeptMember, log: RoomLog) -> Link | None:
        modern = None if self._modern is None else self._modern.reception.restore_link(room, member, log)
        return modern or self._classic.restore_link(room, member)

    def _read(self, room: str, incarnation: int, first: int, count: int) -> Sequence[Entry]:
        return self._journal.read(room, incarnation, from_seq=first, count=count)

    @property
    def tcp_port(self) -> int:
        """Where control connections are accepted."""
        return port_of(self._listener.local)

    @property
    def udp_port(self) -> int:
        """Where datagrams are read."""
        return port_of(self._port.local)

    async def stop(self) -> None:
        """Close rooms that do not outlive us, tell the members, close every socket. Two seconds at most. Idempotent."""
        if self._stopping:
            return
        self._stopping = True
        self._local.stop()
        self._listener.close()
        self._gatekeeper.stop()
        if self._modern is not None:
            self._modern.close_doors()
        for room in self._hub.rooms():
            if not self._outlives(room):
                self._submit(self._hub.close(room, Reason.SERVER_STOPPED, now_s=self._loop.time()))
        self._classic.stop()
        try:
            await self._wait_while(self._is_telling)
            if self._modern is not None:
                self._modern.stop()
            await self._wait_while(self._is_busy)
        finally:
            self._shut()

    def _shut(self) -> None:
        self._classic.abort()
        if self._modern is not None:
            self._modern.abort()
        self._journal.close()
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        self._local.abort()
        self._port.close()
        if not self.failure.done():
            self.failure.cancel()

    async def _wait_while(self, is_needed: Callable[[], bool]) -> None:
        """Wait for peers and journal, but not for long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                while is_needed():
                    self._hung_up.clear()
                    with contextlib.suppress(TimeoutError):  # nothing says when socket or journal has caught up
                        await asyncio.wait_for(self._hung_up.wait(), _STOP_TIMEOUT_S / 20)

    def _is_telling(self) -> bool:
        """Whether members of TCRP/2 are still to hear that their rooms are over."""
        return self._modern is not None and (self._hub.counts().pending > 0 or self._modern.is_telling)

    def _is_busy(self) -> bool:
        modern = self._modern is not None and self._modern.connections
        return bool(self._classic.connections or modern or self._port.flush() or self._hub.counts().pending)

    def _outlives(self, room: str) -> bool:
        """Whether a room is there again when the server is."""
        known = self._hub.room(room)
        return known is not None and known.policy.durable and self._journal.durability != "memory"

    def status(self) -> Status:
        """Count what the server is doing."""
        counters = self._port.counters
        return Status(
            self._hub.counts(),
            self._classic.door.counters,
            len(self._classic.connections) + (0 if self._modern is None else len(self._modern.connections)),
            counters.received,
            counters.sent,
            counters.dropped,
        )

    async def enter(self, room: str, user: str, *, create: bool, policy: Policy = CLASSIC_POLICY) -> LocalMember:
        """Sit in a room without a socket (see ``LocalDesk.enter``)."""
        return await self._local.enter(room, user, create=create, policy=policy)

    def kick(self, room: str, user: str) -> bool:
        """Remove a member; say whether there was one of this name."""
        member = self._hub.named(room, user)
        if member is None:
            return False
        turn = self._hub.leave(member, Reason.KICKED, now_s=self._loop.time())
        self._submit(turn)
        return bool(turn.records)

    # --- what arrives -------------------------------------------------------------------------------------

    def _accept(self, stream: Stream) -> StreamHandler:
        admitted = self._admits is None or self._admits(stream.remote)
        modern = self._modern
        if self._stopping or not (admitted or modern is not None):
            stream.abort()
            return NOBODY
        visit, leaving = self._admission.open(stream.remote, now_s=self._loop.time())
        for other in leaving:
            self._cut_off(other)
        if visit is None:
            stream.abort()
            return NOBODY
        connection = self._classic.arrive(stream, visit)
        if modern is None:
            return connection

        def begin_tls() -> StreamHandler:
            self._classic.hand_over(connection)
            return modern.arrive(stream, visit)

        classic = connection if admitted else Shut(stream, connection)
        return Arrival(stream, classic, begin_tls, decide_s=self._limits.header_timeout_s)

    def _cut_off(self, visit: Visit) -> None:
        connection = self._classic.connections.get(visit)
        if connection is not None:
            connection.abort()
        elif self._modern is not None:
            self._modern.cut_off(visit)

    def _on_batch(self, batch: Batch) -> None:
        if self._modern is not None:
            batch = self._modern.take(batch)
        self._classic.on_batch(batch)

    # --- the hub, the journal and what they let out -------------------------------------------------------

    def _submit(self, turn: Turn) -> None:
        if turn.deadline_s != self._timer_s:  # before the journal, whose answer may come at once and set another
            self._arm(turn.deadline_s)
        if turn.records:
            self._journal.submit(turn.records, partial(self._on_journal, turn.up_to))

    def _on_journal(self, up_to: int, error: JournalFailed | None) -> None:
        if self._stopped:
            return
        if error is None:
            self._hub.committed(up_to, self._release)
            if self._modern is not None:
                self._modern.committed(up_to)
            self._arm(self._hub.next_timeout_s())
            return
        _log.error("the journal failed; nothing of the batch is in it")
        turned_away = self._hub.failed(up_to)
        self._local.failed(turned_away)
        self._classic.failed(turned_away)
        if self._modern is not None:
            self._modern.failed(turned_away)

    def _release(self, release: Release) -> None:
        if self._modern is not None and self._modern.release(release):
            return
        if isinstance(release, Delivery):
            self._fanout.deliver(release)
        elif not self._classic.release(release):
            self._local.release(release)

    def _arm(self, at_s: float | None) -> None:
        if at_s == math.inf:
            at_s = None  # only members that never go
        if at_s == self._timer_s:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_s = at_s
        self._timer = None if at_s is None else self._loop.call_at(at_s, self._on_timer)

    def _rearm(self) -> None:
        self._arm(self._hub.next_timeout_s())

    def _on_timer(self) -> None:
        self._timer_s = None
        self._submit(self._hub.handle_timeout(now_s=self._loop.time()))
        self._arm(self._hub.next_timeout_s())

    def _fail(self, error: Exception) -> None:
        if not self.failure.done():
            self.failure.set_exception(error)
