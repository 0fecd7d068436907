"""Everybody of TCRP/2 at one server: who is known, who is connected, who sits where.

It stands between sessions and hub, as the server's desk does for classic connections, and is as pure as they are:
turns go to ``submit``, what the hub lets out comes to ``release``; a driver moves bytes, asks ``authorize``, keeps
time.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, assert_never

from ocm.errors import RemoteProtocolError
from ocm.protocol.address import Address
from ocm.protocol.entry import Access, Identity, Kept, KeptMember, KeptRoom, Lifetime, Policy, Reason, Refusal
from ocm.protocol.hub import Delivery, Farewell, Hub, Recognized, Release, Seating, Turn
from ocm.protocol.limits import Limits
from ocm.protocol.link.base import Addressing, Link
from ocm.protocol.link.log import HISTORY_FLAG, RoomLog, encode_tail
from ocm.protocol.link.modern import CLIENT_ID_SIZE, ModernLink, client_of
from ocm.protocol.link.modern_session import (
    Asking,
    Asks,
    Authenticates,
    Entering,
    Enters,
    ModernSession,
    SessionEvent,
    StoredSecret,
)
from ocm.protocol.names import room_name, user_name
from ocm.protocol.room import Intent, Member, Room
from ocm.protocol.session.keys import SECRET_SIZE, Randomness
from ocm.protocol.wire.records import (
    DETACHED_FLAG,
    PLAINTEXT_FLAG,
    Authenticate,
    CloseCode,
    Create,
    Done,
    History,
    Join,
    Kick,
    MemberPage,
    MemberRow,
    Members,
    Op,
    Pages,
    Raise,
    RoomRequest,
    Seated,
)
from ocm.protocol.wire.sealed import read_sealed

ROOM_SIZE_MAX: Final = 64
"""Bytes of a room's name in TCRP/2."""
MEMBERS_PAGE: Final = 200
"""Members told in one record."""
HISTORY_SIZE_MAX: Final = 256 * 1024
"""Bytes of entries told for one HISTORY."""
CONNECTED_S: Final = 30 * 86_400.0
"""How long a client is known whose session the server never saw end."""
FLOOD_FACTOR: Final = 10
"""So many times the allowance, for ``FLOOD_S``, ends a session."""
FLOOD_S: Final = 10.0
LOG_ID_SIZE: Final = 16
_ENTRY_FRAME_SIZE: Final = 16 * 1024
"""Bytes of frames gathered into one record."""


class Knocking(NamedTuple):
    """Somebody wants into a room: the embedding program is to be asked, then ``let_in``."""

    session: ModernSession
    request: Entering

    @property
    def creates(self) -> bool:
        """Whether it wants to make the room."""
        return isinstance(self.request, Create)


class _Asked(NamedTuple):
    """A request that is answered when the journal has what it led to."""

    up_to: int
    session: ModernSession
    op: Op
    number: int


@dataclass(slots=True)
class ReceptionCounters:
    """Datagrams that were not let in, and why. None of them was answered."""

    not_sealed: int = 0
    """Too short, too long, or without the escape."""
    unknown: int = 0
    """With a connection id of nobody."""
    not_opened: int = 0
    """Sealed by somebody else, or come before."""


class Reception:
    """Sessions, identities and seats. Synchronous and without a clock."""

    def __init__(
        self,
        hub: Hub,
        limits: Limits,
        *,
        server_key: bytes,
        durability: str,
        randomness: Randomness,
        submit: Callable[[Turn], None],
        epoch_s: float = 0.0,
    ) -> None:
        """Begin without anybody.

        Args:
            hub: the rooms.
            limits: what clients may cost.
            server_key: our public key, as DER of its SubjectPublicKeyInfo.
            durability: what the journal says of itself.
            randomness: for ids and secrets.
            submit: takes each turn to the journal, in order.
            epoch_s: what to add to ``now_s`` for the time of day.
        """
        self.udp_port = 0
        """The port number that clients are told; 0: none."""
        self.counters = ReceptionCounters()
        self.sessions: dict[bytes, ModernSession] = {}
        """Those that are open, by client id."""
        self._hub = hub
        self._limits = limits
        self._server_key = server_key
        self._durability = durability
        self._randomness = randomness
        self._submit = submit
        self._epoch_s = epoch_s
        self._identities: OrderedDict[bytes, Identity] = OrderedDict()
        self._forgotten_s: dict[bytes, float] = {}
        """When a client that has no session is known no more. No wall clock: that may jump (section 6, clocks)."""
        self._connections: dict[bytes, ModernSession] = {}
        self._seats: dict[tuple[bytes, str], ModernLink] = {}
        self._ended: OrderedDict[ModernLink, float] = OrderedDict()
        self._written: dict[bytes, Identity] = {}
        """The newest that was handed to the journal of each client, until the journal has it."""
        self._recognizing: dict[bytes, tuple[ModernSession, bool, bytes]] = {}
        self._entering: dict[ModernLink, list[tuple[ModernSession, Entering]]] = {}
        self._asked: deque[_Asked] = deque()
        self._stirred: dict[ModernSession, None] = {}

    # --- beginning --------------------------------------------------------------------------------------

    def restore(self, kept: Kept, *, now_s: float) -> None:
        """Know everybody that a journal remembers; members of open rooms come after, by ``restore_link``."""
        for identity in kept.identities:
            self._identities[identity.client] = identity
            self._forgotten_s[identity.client] = now_s + self._limits.identity_timeout_s
        for room in kept.rooms:
            if room.closed:
                log = RoomLog(self._limits, self._hub.reader(room), head=room.last_seq, oldest=room.oldest_seq)
                for member in room.members:
                    link = self.restore_link(room, member, log)
                    if link is not None:
                        link.end(room.last_seq)
                        self._ended[link] = now_s + self._limits.detached_timeout_s

    def restore_link(self, room: KeptRoom, member: KeptMember, log: RoomLog) -> ModernLink | None:
        """Make a member's door again; None: it is not one of TCRP/2."""
        client = client_of(member.door)
        if client is None:
            return None
        link = ModernLink(client, room.name, member.name, mark=member.mark, answers=member.answers)
        link.settle_in(log, log_id=room.log_id, policy=room.policy, member_id=member.id, joined_seq=room.last_seq)
        self._seats[client, room.name] = link
        return link

    # --- sessions ---------------------------------------------------------------------------------------

    def open(self, peer: Address, *, now_s: float) -> ModernSession:
        """Begin a session on a TLS connection that has just been set up."""
        return ModernSession(
            server_key=self._server_key,
            peer=peer,
            limits=self._limits,
            durability=self._durability,
            randomness=self._randomness,
            stir=self.stir,
            now_s=now_s,
        )

    def receive_data(self, session: ModernSession, data: bytes, *, now_s: float) -> list[Knocking]:
        """Take decrypted bytes of a session; return who is to be let in, or not."""
        knocks: list[Knocking] = []
        for event in session.receive_data(data, now_s=now_s):
            knocking = self._on_event(session, event, now_s)
            if knocking is not None:
                knocks.append(knocking)
        self.stir(session)
        self._after([session], now_s)
        return knocks

    def receive_batch(self, batch: Iterable[tuple[bytes, Address]], *, now_s: float) -> None:
        """Take datagrams. Never raises for what it reads."""
        touched: dict[ModernSession, None] = {}
        for data, address in batch:
            datagram = read_sealed(data)
            if datagram is None:
                self.counters.not_sealed += 1
                continue
            session = self._connections.get(datagram.connection_id)
            if session is None:
                self.counters.unknown += 1
            elif session.receive_datagram(datagram, address, len(data), now_s=now_s):
                touched[session] = None
                self._stirred[session] = None
            else:
                self.counters.not_opened += 1
        self._after(touched, now_s)

    def stream_lost(self, session: ModernSession, *, now_s: float) -> None:
        """Hear that a session's TLS connection is gone."""
        session.stream_lost(now_s=now_s)
        self.stir(session)
        self._after([session], now_s)

    def handle_timeout(self, session: ModernSession, *, now_s: float) -> None:
        """Do what is due for a session."""
        session.handle_timeout(now_s=now_s)
        self.stir(session)
        self._after([session], now_s)

    def close(self, session: ModernSession, code: CloseCode, reason: str, *, now_s: float) -> None:
        """End a session, and say why."""
        session.close(code, reason)
        self._after([session], now_s)

    def knows(self, connection_id: bytes) -> bool:
        """Say whether a datagram's connection id is that of a session."""
        return connection_id in self._connections

    def stir(self, session: ModernSession) -> None:
        """Note that a session may have something to send."""
        self._stirred[session] = None

    def stirred(self) -> list[ModernSession]:
        """Return the sessions that may have something to send or another time-out, since this was last asked."""
        stirred, self._stirred = self._stirred, {}
        return list(stirred)

    # --- rooms ------------------------------------------------------------------------------------------

    def let_in(self, knocking: Knocking, decision: str | Refusal, *, now_s: float) -> None:
        """Let somebody into a room under a name, or refuse."""
        session, request = knocking
        if session.is_over:
            return
        if isinstance(decision, Refusal):
            self._refuse(session, _op_of(request), request.id, decision)
            return
        link = self._seat_of(session, request)
        if link is not None:
            if link.user != decision:
                self._refuse(session, _op_of(request), request.id, Refusal.NAME_TAKEN)
            elif link in self._entering:
                self._entering[link].append((session, request))
            else:
                self._attach(session, request, link, resumed=True)
            return
        if len(session.links) >= self._limits.rooms_per_session_max:
            self._refuse(session, _op_of(request), request.id, Refusal.UNAVAILABLE)
            return
        link = ModernLink(session.client, request.room, decision, mark=request.lowest - 1)
        turn = self._enter(link, request, now_s)
        if isinstance(turn, Refusal):
            self._refuse(session, _op_of(request), request.id, turn)
            return
        self._seats[session.client, request.room] = link
        self._entering[link] = [(session, request)]
        self._submit(turn)

    def release(self, release: Release, *, now_s: float) -> bool:
        """Take what the hub lets out, if it is for a modern member; return whether it was."""
        match release:
            case Delivery(audience, _, entry, _):
                if audience.form.addressing is not Addressing.PULL:
                    return False
                for link in audience.links:
                    if isinstance(link, ModernLink):
                        link.grow(entry.seq)
            case Seating(link, entry):
                if not isinstance(link, ModernLink):
                    return False
                self._seat(link, entry.seq)
            case Farewell(link, _, reason, entry):
                if not isinstance(link, ModernLink):
                    return False
                self._bid_farewell(link, reason, entry.seq, now_s)
            case Recognized(identity):
                self._recognize(identity, now_s)
            case _:
                assert_never(release)
        return True

    def committed(self, up_to: int) -> None:
        """Hear that the hub has made the first ``up_to`` steps true: answer what led to them."""
        while self._asked and self._asked[0].up_to <= up_to:
            _, session, op, number = self._asked.popleft()
            session.requests -= 1
            session.reply(op, Done(id=number))

    def failed(self, turned_away: Iterable[Link], *, now_s: float) -> None:
        """Hear that the journal failed, and whom the hub has turned away."""
        for link in turned_away:
            if isinstance(link, ModernLink):
                self._seats.pop((link.client, link.room), None)
                for session, request in self._entering.pop(link, []):
                    self._refuse(session, _op_of(request), request.id, Refusal.UNAVAILABLE)
        for _, session, op, number in self._asked:
            self._refuse(session, op, number, Refusal.UNAVAILABLE)
        self._asked.clear()
        self._written.clear()
        recognizing, self._recognizing = self._recognizing, {}
        for session, _, _ in recognizing.values():
            self.close(session, CloseCode.GOING_AWAY, "the server cannot write just now", now_s=now_s)

    # --- events of sessions -------------------------------------------------------------------------------

    def _on_event(self, session: ModernSession, event: SessionEvent, now_s: float) -> Knocking | None:
        match event:
            case Authenticates(request):
                self._authenticate(session, request, now_s)
            case StoredSecret():
                known = self._known(session.client)
                if known is not None and len(known.secrets) > 1:
                    self._remember(known._replace(secrets=known.secrets[:1]))
            case Enters(request):
                return self._knock(session, request)
            case Asks(op, request):
                self._ask(session, op, request, now_s)
        return None

    def _authenticate(self, session: ModernSession, request: Authenticate, now_s: float) -> None:
        client, kept = self._resume(request, now_s)
        secret = self._randomness(SECRET_SIZE)
        digest = hashlib.sha256(secret).digest()
        resumed = client is not None
        identity = Identity(
            client or self._randomness(CLIENT_ID_SIZE), (digest, *kept), self._time_ms(now_s + CONNECTED_S)
        )
        self._recognizing[digest] = session, resumed, secret
        self._remember(identity)

    def _resume(self, request: Authenticate, now_s: float) -> tuple[bytes | None, tuple[bytes, ...]]:
        """Return the client whose secret this is, and that secret's hash: it stays good until the next is used."""
        if request.client is None or request.secret is None:
            return None, ()
        known = self._known(bytes.fromhex(request.client))
        shown = hashlib.sha256(bytes.fromhex(request.secret)).digest()
        if known is None or self._forgotten_s.get(known.client, math.inf) <= now_s:
            return None, ()
        if not sum(hmac.compare_digest(shown, digest) for digest in known.secrets):  # all of them: no early way out
            return None, ()
        return known.client, (shown,)

    def _known(self, client: bytes) -> Identity | None:
        """Return what a client is known by, or will be when the journal has it."""
        return self._written.get(client) or self._identities.get(client)

    def _remember(self, identity: Identity) -> None:
        self._written[identity.client] = identity
        self._submit(self._hub.remember(identity))

    def _recognize(self, identity: Identity, now_s: float) -> None:
        """Know somebody; if that is what an AUTH waits for, answer it."""
        client = identity.client
        if self._written.get(client) is identity:
            del self._written[client]
        self._identities[client] = identity
        self._identities.move_to_end(client)
        while len(self._identities) > self._limits.identities_max:
            oldest, _ = self._identities.popitem(last=False)
            self._forgotten_s.pop(oldest, None)
        waiting = self._recognizing.pop(identity.secrets[0], None)
        if waiting is None:
            return
        session, resumed, secret = waiting
        if session.is_over:
            return
        before = self.sessions.get(client)
        if before is not None:
            self.close(before, CloseCode.REPLACED, "another session of this client has begun", now_s=now_s)
        session.known(client=client, resumed=resumed, secret=secret, udp_port=self.udp_port, now_s=now_s)
        self.sessions[client] = self._connections[session.connection_id] = session
        self._forgotten_s.pop(client, None)

    def _knock(self, session: ModernSession, request: Entering) -> Knocking | None:
        try:
            room_name(request.room.encode(), size_max=ROOM_SIZE_MAX)
        except RemoteProtocolError:
            self._refuse(session, _op_of(request), request.id, Refusal.MALFORMED)
            return None
        try:
            user_name(request.user.encode(), code_points_max=self._limits.user_code_points_max)
        except RemoteProtocolError:
            self._refuse(session, _op_of(request), request.id, Refusal.NAME_NOT_ALLOWED)
            return None
        return Knocking(session, request)

    def _enter(self, link: ModernLink, request: Entering, now_s: float) -> Turn | Refusal:
        if isinstance(request, Join):
            return self._hub.join(link, room=request.room, user=link.user, now_s=now_s)
        policy = _policy_of(request)
        if policy is None:
            return Refusal.MALFORMED
        return self._hub.create(
            link, room=request.room, user=link.user, now_s=now_s, policy=policy, log_id=self._randomness(LOG_ID_SIZE)
        )

    def _seat_of(self, session: ModernSession, request: Entering) -> ModernLink | None:
        """Return the door that this client has into the room, if it is to be used still."""
        key = session.client, request.room
        link = self._seats.get(key)
        if link is None or not link.end_seq:
            return link
        reads_on = isinstance(request, Join) and request.log == link.log_id.hex() and request.last < link.end_seq
        if reads_on:
            return link
        self._forget(link)
        return None

    def _seat(self, link: ModernLink, joined_seq: int) -> None:
        member = link.member
        room, log = self._hub.room(link.room), self._hub.log(link.room)
        assert member is not None and room is not None and log is not None, "it was just seated"  # noqa: PT018
        link.settle_in(log, log_id=room.log_id, policy=room.policy, member_id=member.id, joined_seq=joined_seq)
        waiting = self._entering.pop(link, [])
        for number, (session, request) in enumerate(waiting):
            if not session.is_over:
                self._attach(session, request, link, resumed=number > 0)
        if link.carrier is None:  # nobody waits any more: it may come back
            self._hub.lose(member, now_s=member.heard_s)

    def _attach(self, session: ModernSession, request: Entering, link: ModernLink, *, resumed: bool) -> None:
        """Let a seated member speak through a session, and tell it where it is."""
        member, log = link.member, link.log
        assert log is not None, "it is seated"
        if link.carrier is not None and link.carrier is not session:
            link.carrier.unseat(link)
        knows = isinstance(request, Join) and request.log == link.log_id.hex()
        last = request.last if knows and isinstance(request, Join) else log.head if resumed else link.joined_seq
        handle, start = session.seat(link, last=last, lowest_id=request.lowest)
        if member is not None:
            member.hear(math.inf)
        session.requests -= 1
        room = self._hub.room(link.room)
        if room is not None and room.log_id != link.log_id:
            room = None
        policy = link.policy if room is None else room.policy
        rows, more = self._page(room, 0)
        session.reply(
            _op_of(request),
            Seated(
                id=request.id,
                member=link.member_id,
                handle=handle,
                log=link.log_id.hex(),
                head=link.end_seq or log.head,
                oldest=log.oldest,
                start=start,
                mark=link.mark,
                resumed=resumed,
                access=policy.access.value,
                lifetime=policy.lifetime.value,
                durable=policy.durable,
                host=0 if room is None else room.host_id,
                members=rows,
                more=more,
            ),
        )

    def _bid_farewell(self, link: ModernLink, reason: Reason, seq: int, now_s: float) -> None:
        """A member is gone: who left by its own words knows; others read on to the entry that says so."""
        if reason is Reason.BYE:
            self._forget(link)
            return
        link.end(seq)
        self._ended[link] = now_s + self._limits.detached_timeout_s
        while len(self._ended) > self._limits.rooms_max:
            self._forget(next(iter(self._ended)))

    def _forget(self, link: ModernLink) -> None:
        """Let go of a door that leads nowhere any more."""
        if isinstance(link.carrier, ModernSession):
            link.carrier.unseat(link)
        self._ended.pop(link, None)
        if self._seats.get((link.client, link.room)) is link:
            del self._seats[link.client, link.room]

    # --- requests ---------------------------------------------------------------------------------------

    def _ask(self, session: ModernSession, op: Op, request: Asking, now_s: float) -> None:
        link = session.links.get(request.handle)
        room = None if link is None else self._hub.room(link.room)
        member = None if link is None else link.member
        if link is None or link.log is None or room is None or member is None:
            self._refuse(session, op, request.id, Refusal.NOT_FOUND)
            return
        match request:
            case Members(after=after):
                rows, more = self._page(room, after)
                session.requests -= 1
                session.reply(op, MemberPage(id=request.id, members=rows, more=more))
            case History():
                self._read_back(session, request, link.log)
            case Kick() | Raise() | RoomRequest():
                turn = self._change(op, request, room, member, now_s)
                if isinstance(turn, Refusal):
                    self._refuse(session, op, request.id, turn)
                    return
                self._asked.append(_Asked(turn.up_to, session, op, request.id))
                self._submit(turn)
                if not turn.records:  # it is so already, or will be when what waits is written
                    self.committed(turn.up_to - self._hub.counts().pending)

    def _change(self, op: Op, request: Asking, room: Room, member: Member, now_s: float) -> Turn | Refusal:
        if op is Op.LEAVE:
            return self._hub.leave(member, Reason.BYE, now_s=now_s)
        if room.host_id != member.id:
            return Refusal.FORBIDDEN
        match request:
            case Kick(member=number):
                other = room.members.get(number)
                if other is None:
                    return Refusal.NOT_FOUND
                return self._hub.leave(other, Reason.KICKED, now_s=now_s)
            case Raise(access=access):
                if access != Access.MODERN:
                    return Refusal.MALFORMED
                return self._hub.raise_access(room.name, now_s=now_s)
            case _:
                return self._hub.close(room.name, Reason.ENDED, now_s=now_s)

    def _read_back(self, session: ModernSession, request: History, log: RoomLog) -> None:
        prefix = b"\x05" + request.handle.to_bytes(4, "big")
        waiting: list[bytes] = []
        size = total = count = 0
        for entry in log.entries(request.first, request.count):
            frame = prefix + encode_tail(entry, flags=HISTORY_FLAG)
            if total and total + len(frame) > HISTORY_SIZE_MAX:
                break
            if waiting and size + len(frame) > _ENTRY_FRAME_SIZE:
                session.write_frames(b"".join(waiting))
                waiting, size = [], 0
            waiting.append(frame)
            size += len(frame)
            total += len(frame)
            count += 1
        if waiting:
            session.write_frames(b"".join(waiting))
        session.requests -= 1
        pages = Pages(id=request.id, handle=request.handle, count=count, oldest=log.oldest, head=log.head)
        session.reply(Op.HISTORY, pages)

    def _page(self, room: Room | None, after: int) -> tuple[list[MemberRow], bool]:
        """Return members behind the one with the id ``after``, and whether there are more."""
        if room is None:
            return [], False
        rows: list[MemberRow] = []
        for member in room.members.values():  # ids rise in the order of joining
            if member.id <= after:
                continue
            if len(rows) == MEMBERS_PAGE:
                return rows, True
            flags = PLAINTEXT_FLAG * member.plaintext | DETACHED_FLAG * (member.lost_s is not None)
            rows.append(MemberRow(member.id, member.name, flags))
        return rows, False

    def _refuse(self, session: ModernSession, op: Op, number: int, why: Refusal) -> None:
        session.requests -= 1
        wait_s = 1.0 if why in {Refusal.UNAVAILABLE, Refusal.RATE_LIMITED} else 0.0
        session.refuse(op, number, why, REASONS[why], wait_s=wait_s)

    # --- after every call ---------------------------------------------------------------------------------

    def _after(self, sessions: Iterable[ModernSession], now_s: float) -> None:
        """Take what was published, let go of who is gone."""
        sessions = list(sessions)
        publishing = [link for session in sessions for link in session.publishing]
        if publishing:
            for session in sessions:
                session.publishing.clear()
            turn = self._hub.take(_intents(publishing), now_s=now_s)
            if turn.records:
                self._submit(turn)
            for member, _ in turn.refusals:
                self._count_refusal(member)
        for session in sessions:
            for link in [link for link in session.links.values() if link.is_done]:
                self._forget(link)
            if now_s - session.refused_since_s > FLOOD_S:
                session.refused_since_s, session.refused = now_s, 0
            if session.refused > FLOOD_FACTOR * FLOOD_S * self._limits.rate_per_s:
                session.close(CloseCode.FLOOD, "ten times more than is allowed")
            if session.is_over:
                self._end(session, now_s)
        while self._ended and next(iter(self._ended.values())) <= now_s:
            self._forget(next(iter(self._ended)))

    def _count_refusal(self, member: Member) -> None:
        link = self._hub.link_of(member)
        session = link.carrier if isinstance(link, ModernLink) else None
        if not isinstance(session, ModernSession):
            return
        session.refused += 1

    def _end(self, session: ModernSession, now_s: float) -> None:
        """A session is over: its members may come back. Idempotent."""
        self.stir(session)
        if self._connections.get(session.connection_id) is not session:
            return
        del self._connections[session.connection_id]
        del self.sessions[session.client]
        self._forgotten_s[session.client] = now_s + self._limits.identity_timeout_s
        for link in list(session.links.values()):
            session.unseat(link)
            if link.member is not None:
                self._hub.lose(link.member, now_s=now_s)
        known = self._known(session.client)
        if known is not None and known.secrets[0] not in self._recognizing:  # else another session begins
            self._remember(known._replace(until_ms=self._time_ms(now_s + self._limits.identity_timeout_s)))

    def _time_ms(self, now_s: float) -> int:
        return int((self._epoch_s + now_s) * 1000)


REASONS: Final = {
    Refusal.MALFORMED: "not a request that can be understood",
    Refusal.FORBIDDEN: "only the room's host may do this",
    Refusal.NOT_FOUND: "no such room, or not yours to enter",
    Refusal.ROOM_EXISTS: "the room exists already",
    Refusal.RATE_LIMITED: "too many requests",
    Refusal.NAME_NOT_ALLOWED: "this name cannot be used here",
    Refusal.NAME_TAKEN: "somebody in the room has this name, or one that looks like it",
    Refusal.ROOM_FULL: "the room is full",
    Refusal.SERVER_FULL: "the server has as many rooms as it may have",
    Refusal.UNAVAILABLE: "the server cannot take this just now; try again later",
}
"""What a refusal says, in words."""


def _op_of(request: Entering) -> Op:
    return Op.CREATE if isinstance(request, Create) else Op.JOIN


def _policy_of(request: Create) -> Policy | None:
    try:
        return Policy(Access(request.access), Lifetime(request.lifetime), request.durable)
    except ValueError:
        return None


def _intents(links: Iterable[ModernLink]) -> Iterator[Intent]:
    for link in links:
        yield from link.intents()
