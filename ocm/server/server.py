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

from ocm.errors import JournalFailed, LocalProtocolError, OcmError, RoomRefused
from ocm.inbox import Inbox
from ocm.protocol.address import Address, host_key, port_of, split_address
from ocm.protocol.admission import Admission, Visit
from ocm.protocol.control.server import Request
from ocm.protocol.entry import CLASSIC_POLICY, Entry, KeptMember, KeptRoom, Policy, Reason, Refusal
from ocm.protocol.hub import Delivery, Farewell, Hub, HubCounts, Release, Seating, Turn
from ocm.protocol.limits import DATAGRAM_SIZE_MAX, Limits
from ocm.protocol.link.base import Link
from ocm.protocol.link.classic import (
    ClassicDoor,
    ClassicLink,
    DoorCounters,
    Randomness,
    make_token,
    restore_link,
    slowed,
)
from ocm.protocol.link.log import RoomLog
from ocm.protocol.names import room_name
from ocm.protocol.reception import LOG_ID_SIZE, REASONS
from ocm.protocol.room import Intent, Member
from ocm.protocol.wire.classic import Operation
from ocm.server.arrival import Arrival, Shut
from ocm.server.connection import NOBODY, Connection
from ocm.server.fanout import Fanout
from ocm.server.gatekeeper import Authorize, Gatekeeper, Knock, why_not
from ocm.server.local import LocalLink, LocalMember
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
"""How long peers may take to hang up when the server stops, before they are cut off."""


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
    """Rooms for classic TCRP programs, over whatever ``network`` it is given.

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
        self._gatekeeper = Gatekeeper(authorize, limits, self._fail)
        self._admits = admits
        self._names = names_in_reference
        self._security = security
        self._epoch_s = epoch_s
        self._hub = Hub(limits, epoch_s=epoch_s, read=self._read)
        self._door = ClassicDoor()
        self._admission = Admission(limits)
        self._modern: ModernDesk | None = None
        self._connections: dict[Visit, Connection] = {}
        self._seats: dict[Link, Connection] = {}
        self._entering: dict[Link, Connection | asyncio.Future[None]] = {}
        self._leaving: dict[Link, list[Connection]] = {}
        self._slowed: set[ClassicLink] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s: float | None = None
        self._stopping = False
        self._stopped = False
        self._hung_up = asyncio.Event()
        self._port: DatagramPort
        self._listener: StreamListener
        self._fanout: Fanout

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
        )
        self._fanout = Fanout(self._port)
        try:
            self._restore()
            self._listener = await self._network.listen(
                host, tcp_port, self._accept, write_buffer_max=self._limits.send_buffer_max
            )
        except BaseException:
            self._port.close()
            raise

    def _restore(self) -> None:
        """Make the desk for TCRP/2; be as the journal remembers it. Raises ``JournalFailed``."""
        kept, now_s = self._journal.load(), self._loop.time()
        if self._security is not None:
            self._modern = ModernDesk(
                self._security,
                self._hub,
                self._limits,
                admission=self._admission,
                gatekeeper=self._gatekeeper,
                durability=self._journal.durability,
                randomness=self._randomness,
                submit=self._submit,
                rearm=self._rearm,
                epoch_s=self._epoch_s,
            )
            self._modern.open_port(self._fanout, self.udp_port)
            self._modern.reception.restore(kept, now_s=now_s)
        self._submit(self._hub.restore(kept, self._restore_link, now_s=now_s))

    def _restore_link(self, room: KeptRoom, member: KeptMember, log: RoomLog) -> Link | None:
        modern = None if self._modern is None else self._modern.reception.restore_link(room, member, log)
        if modern is not None:
            return modern
        restored = restore_link(member.door, room=room.name, user=member.name, names=self._names)
        if restored is None:
            return None
        digest, link = restored
        self._door.restored[digest] = link
        return link

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
        """Close every room, tell the members, close every socket. Takes about a second at most. Idempotent."""
        if self._stopping:
            return
        self._stopping = True
        self._listener.close()
        self._gatekeeper.stop()
        for room in self._hub.rooms():
            if not self._outlives(room):
                self._submit(self._hub.close(room, Reason.SERVER_STOPPED, now_s=self._loop.time()))
        for connection in list(self._connections.values()):
            connection.end()
        if self._modern is not None:
            self._modern.flush()
            self._modern.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                while self._is_busy():
                    self._hung_up.clear()
                    with contextlib.suppress(TimeoutError):  # nothing says when socket or journal has caught up
                        await asyncio.wait_for(self._hung_up.wait(), _STOP_TIMEOUT_S / 20)
        for connection in list(self._connections.values()):
            connection.abort()
        if self._modern is not None:
            self._modern.abort()
        self._journal.close()
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        for waiting in self._entering.values():
            _turn_away(waiting)
        self._entering.clear()
        self._port.close()
        if not self.failure.done():
            self.failure.cancel()

    def _is_busy(self) -> bool:
        modern = self._modern is not None and self._modern.connections
        return bool(self._connections or modern or self._port.flush() or self._hub.counts().pending)

    def _outlives(self, room: str) -> bool:
        """Whether a room is there again when the server is."""
        known = self._hub.room(room)
        return known is not None and known.policy.durable and self._journal.durability != "memory"

    def status(self) -> Status:
        """Count what the server is doing."""
        counters = self._port.counters
        return Status(
            self._hub.counts(),
            self._door.counters,
            len(self._connections),
            counters.received,
            counters.sent,
            counters.dropped,
        )

    # --- members without a socket -----------------------------------------------------------------------

    async def enter(self, room: str, user: str, *, create: bool, policy: Policy | None = None) -> LocalMember:
        """Sit in a room without a socket.

        Raises:
            RoomRefused: as a client would be refused.
            LocalProtocolError: a name cannot be one.
        """
        try:
            room_name(room.encode(), size_max=self._limits.room_size_max)
        except (OcmError, UnicodeEncodeError) as error:
            raise LocalProtocolError(why_not(error)) from None
        self._gatekeeper.check_user(user)
        if self._stopping:
            raise RoomRefused(int(Refusal.UNAVAILABLE), REASONS[Refusal.UNAVAILABLE])
        inbox = Inbox(self._limits.events_max)
        link = LocalLink(inbox)
        seated: asyncio.Future[None] = self._loop.create_future()
        turn = self._ask_hub(link, room, user, create=create, policy=policy or CLASSIC_POLICY)
        if isinstance(turn, Refusal):
            raise RoomRefused(int(turn), REASONS[turn])
        if link.member is not None:
            link.member.hear(math.inf)
        self._entering[link] = seated
        self._submit(turn)
        await seated
        return LocalMember(room, user, link, inbox, say=self._say, leave=self._dismiss, members=self._members_of)

    def _ask_hub(self, link: Link, room: str, user: str, *, create: bool, policy: Policy) -> Turn | Refusal:
        now_s = self._loop.time()
        if not create:
            return self._hub.join(link, room=room, user=user, now_s=now_s)
        log_id = self._randomness(LOG_ID_SIZE)
        return self._hub.create(link, room=room, user=user, now_s=now_s, policy=policy, log_id=log_id)

    def _say(self, intent: Intent) -> float | None:
        """Take what a local member says; return None, or the seconds to wait (0: waiting does not help)."""
        turn = self._hub.take([intent], now_s=self._loop.time())
        self._submit(turn)
        return turn.refusals[0].wait_s if turn.refusals else None

    def _dismiss(self, member: Member, reason: Reason = Reason.BYE) -> None:
        self._submit(self._hub.leave(member, reason, now_s=self._loop.time()))

    def _members_of(self, room: str) -> list[str]:
        return [member.name for member in self._hub.members(room)]

    def kick(self, room: str, user: str) -> bool:
        """Remove a member; say whether there was one of this name."""
        member = self._hub.named(room, user)
        if member is None:
            return False
        turn = self._hub.leave(member, Reason.KICKED, now_s=self._loop.time())
        self._submit(turn)
        return bool(turn.records)

    # --- control connections ------------------------------------------------------------------------------

    def _accept(self, stream: Stream) -> StreamHandler:
        admitted = self._admits is None or self._admits(stream.remote)
        if self._stopping or not (admitted or self._modern is not None):
            stream.abort()
            return NOBODY
        visit, leaving = self._admission.open(stream.remote, now_s=self._loop.time())
        for other in leaving:
            self._connections[other].abort()
        if visit is None:
            stream.abort()
            return NOBODY
        connection = self._connections[visit] = Connection(stream, visit, self._admission, self._limits, self)
        modern = self._modern
        if modern is None:
            return connection

        def begin_tls() -> StreamHandler:
            del self._connections[visit]
            connection.hand_over()
            self._hung_up.set()
            return modern.arrive(stream, visit)

        classic = connection if admitted else Shut(stream, connection)
        return Arrival(stream, classic, begin_tls, decide_s=self._limits.header_timeout_s)

    def hung_up(self, connection: Connection) -> None:
        """Hear that a connection is gone; a member that kept it open on purpose has not long to stay."""
        del self._connections[connection.visit]
        self._hung_up.set()
        link = connection.link
        if link is None:
            return
        self._seats.pop(link, None)
        if link.member is None:
            return
        if not connection.told:
            self._dismiss(link.member, Reason.LOST)  # it never got its token
        elif connection.attached:
            self._hub.lose(link.member, now_s=self._loop.time())
            self._arm(self._hub.next_timeout_s())

    def asked(self, connection: Connection, request: Request) -> None:
        """Answer a request, at once or when ``authorize`` has made up its mind."""
        match request.operation:
            case Operation.CREATE | Operation.JOIN:
                self._knock(connection, request)
            case Operation.LEAVE:
                self._leave(connection, request)
            case Operation.MEMBERS:
                link = self._seat_of(request)
                if link is None or link.member is None:
                    self._refuse(connection, Refusal.NOT_FOUND)
                    return
                link.member.hear(self._loop.time())
                connection.attached = connection.attached or connection.link is link
                connection.answer(self._members_of(request.room))

    def _knock(self, connection: Connection, request: Request) -> None:
        if self._stopping:
            self._refuse(connection, Refusal.UNAVAILABLE)
            return
        host, _ = split_address(connection.stream.remote)
        creates = request.operation is Operation.CREATE
        knock = Knock(request.room, request.user, host, creates, request.password)
        self._gatekeeper.ask(knock, partial(self._decided, connection, request))

    def _decided(self, connection: Connection, request: Request, decision: str | Refusal) -> None:
        """Let somebody in under a name, or say why not."""
        if isinstance(decision, Refusal):
            self._refuse(connection, decision)
        elif not connection.gone:
            self._enter(connection, request, decision)

    def _enter(self, connection: Connection, request: Request, user: str) -> None:
        now_s = self._loop.time()
        link = ClassicLink(
            request.form,
            room=request.room,
            user=user,
            token=make_token(request.form, self._randomness),
            address=connection.stream.remote,
            names=self._names,
        )
        back = self._returning(connection, request, user)
        if back is not None and (before := self._hub.move(back, link)) is not None:
            self._forget(before)
            back.hear(now_s)
            self._seat(link, connection)
            return
        create = request.operation is Operation.CREATE
        turn = self._ask_hub(link, request.room, user, create=create, policy=CLASSIC_POLICY)
        if isinstance(turn, Refusal):
            self._refuse(connection, turn)
            return
        self._entering[link] = connection
        self._submit(turn)

    def _returning(self, connection: Connection, request: Request, user: str) -> Member | None:
        """Return the member who asks again: by its token, or from the host on which its connection broke."""
        member = self._hub.named(request.room, user)
        if member is None or member.name != user:
            return None
        link = self._hub.link_of(member)
        if not isinstance(link, ClassicLink):
            return None
        if (
            request.token is not None
            and (self._door.links.get(request.token) or self._door.recall(request.token)) is link
        ):
            return member
        same_host = host_key(connection.stream.remote) == host_key(link.address)
        return member if member.lost_s is not None and same_host else None

    def _leave(self, connection: Connection, request: Request) -> None:
        link = self._seat_of(request)
        if link is None or link.member is None:
            self._refuse(connection, Refusal.NOT_FOUND)
            return
        self._leaving.setdefault(link, []).append(connection)
        turn = self._hub.leave(link.member, Reason.BYE, now_s=self._loop.time())
        self._submit(turn)

    def _seat_of(self, request: Request) -> ClassicLink | None:
        """Return the link whose token the request shows, if it is of that room."""
        token = request.token or b""
        link = self._door.links.get(token) or self._door.recall(token)
        return link if link is not None and link.room == request.room.encode() else None

    def _refuse(self, connection: Connection, why: Refusal) -> None:
        if connection.gone:
            return
        late_s = 0.0
        if why in (Refusal.NOT_FOUND, Refusal.NAME_TAKEN):
            late_s = self._admission.fail_join(connection.visit, now_s=self._loop.time())
        connection.refuse(why, REASONS[why], delay_s=late_s)

    # --- datagrams --------------------------------------------------------------------------------------

    def _on_batch(self, batch: Batch) -> None:
        now_s = self._loop.time()
        if self._modern is not None:
            sealed, batch = self._modern.split(batch)
            if sealed:
                self._modern.on_batch(sealed)
        intents = self._door.receive_batch(batch, now_s=now_s)
        if not intents:
            return
        turn = self._hub.take(intents, now_s=now_s)
        for member, wait_s in turn.refusals:
            link = self._hub.link_of(member)
            if wait_s and isinstance(link, ClassicLink):
                self._slow(link)
        self._submit(turn)

    def _slow(self, link: ClassicLink) -> None:
        """Note a message dropped over the allowance; the member is told, once for all that come together."""
        link.dropped += 1
        if link not in self._slowed:
            self._slowed.add(link)
            self._loop.call_later(_SLOWED_AFTER_S, self._tell_slowed, link)

    def _tell_slowed(self, link: ClassicLink) -> None:
        self._slowed.discard(link)
        if link.member is not None and not self._stopping:
            self._fanout.send(link.address, slowed(link))

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
        if self._modern is not None:
            self._modern.failed(turned_away)
        for link in turned_away:
            waiting = self._entering.pop(link, None)
            if waiting is None:
                continue
            if isinstance(waiting, Connection):
                self._refuse(waiting, Refusal.UNAVAILABLE)
            else:
                _turn_away(waiting)
        for link, several in list(self._leaving.items()):
            member = link.member
            if member is not None and (member.leaving or not member.room.is_open):
                continue  # asked after that batch was taken back
            del self._leaving[link]
            for asked in several:
                self._refuse(asked, Refusal.UNAVAILABLE)

    def _release(self, release: Release) -> None:
        if self._modern is not None and self._modern.release(release):
            return
        if isinstance(release, Delivery):
            self._fanout.deliver(release)
        elif isinstance(release, Farewell):
            self._bid_farewell(release)
        elif isinstance(release, Seating):
            link = release.link
            waiting = self._entering.pop(link)
            if isinstance(link, ClassicLink) and isinstance(waiting, Connection):
                self._seat(link, waiting)
            elif isinstance(waiting, asyncio.Future) and not waiting.done():
                waiting.set_result(None)
            elif link.member is not None:
                self._loop.call_soon(self._dismiss, link.member)  # nobody waits for the seat any more

    def _seat(self, link: ClassicLink, connection: Connection) -> None:
        self._door.links[link.token] = link
        if not connection.gone:
            self._seats[link] = connection
            connection.seat(link)
        elif link.member is not None:
            self._loop.call_soon(self._dismiss, link.member, Reason.LOST)  # it hung up before it was answered

    def _bid_farewell(self, farewell: Farewell) -> None:
        link = farewell.link
        if isinstance(link, LocalLink):
            link.end(farewell.entry)
            return
        if farewell.payload is not None:
            self._fanout.tell(link, farewell.payload)
        self._forget(link)

    def _forget(self, link: Link) -> None:
        """Take a token out of use and finish with the connections that hang on it."""
        if isinstance(link, ClassicLink):
            self._door.forget(link)
            self._slowed.discard(link)
        for asked in self._leaving.pop(link, []):
            if not asked.gone:
                asked.answer()
        connection = self._seats.pop(link, None)
        if connection is not None:
            connection.link = None
            connection.end()

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


def _turn_away(waiting: Connection | asyncio.Future[None]) -> None:
    """Tell who waits for a seat in this program that there is none."""
    if isinstance(waiting, asyncio.Future) and not waiting.done():
        waiting.set_exception(RoomRefused(int(Refusal.UNAVAILABLE), REASONS[Refusal.UNAVAILABLE]))
