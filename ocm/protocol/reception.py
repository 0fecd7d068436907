"""Everybody of TCRP/2 at one server: who is known, who is connected, who sits where.

It stands between sessions and hub, as the server's desk does for classic connections, and is as pure as they are:
turns go to ``submit``, what the hub lets out comes to ``release``; a driver moves bytes, asks ``authorize``, keeps
time.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, assert_never

from ocm.errors import RemoteProtocolError
from ocm.protocol.address import Address
from ocm.protocol.answers import WAIT_S, read_back, seated, tell_members
from ocm.protocol.entry import Access, Identity, Kept, KeptMember, KeptRoom, Lifetime, Policy, Reason, Refusal
from ocm.protocol.hub import Delivery, Farewell, Hub, Recognized, Release, Reseating, Seating, Turn
from ocm.protocol.identities import Identities
from ocm.protocol.limits import Limits
from ocm.protocol.link.base import Addressing, Audience, Link
from ocm.protocol.link.log import RoomLog
from ocm.protocol.link.modern import ModernLink, client_of
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
from ocm.protocol.room import Intent, Member
from ocm.protocol.seats import Seats
from ocm.protocol.session.keys import Randomness
from ocm.protocol.wire.records import (
    CloseCode,
    Create,
    Done,
    History,
    Join,
    Kick,
    Members,
    Op,
    Raise,
)
from ocm.protocol.wire.sealed import read_sealed

ROOM_SIZE_MAX: Final = 64
"""Bytes of a room's name in TCRP/2."""
LOG_ID_SIZE: Final = 16


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
        self._heirs: dict[bytes, ModernSession] = {}
        """The next ones of clients that have one, by client id, until the client has a seat in it."""
        self._hub = hub
        self._limits = limits
        self._server_key = server_key
        self._durability = durability
        self._randomness = randomness
        self._submit = submit
        self._identities = Identities(limits, randomness=randomness, epoch_s=epoch_s)
        self._seats = Seats(limits)
        self._connections: dict[bytes, ModernSession] = {}
        self._entering: dict[ModernLink, list[tuple[ModernSession, Entering]]] = {}
        self._asked: deque[_Asked] = deque()
        self._stirred: dict[ModernSession, None] = {}
        self._grown: dict[Audience, int] = {}

    # --- beginning --------------------------------------------------------------------------------------

    def restore(self, kept: Kept, *, now_s: float) -> None:
        """Know everybody that a journal remembers; members of open rooms come after, by ``restore_link``."""
        self._identities.restore(kept.identities, now_s=now_s)
        for room in kept.rooms:
            gone = (*room.former, *room.members) if room.closed else room.former
            log = RoomLog(self._limits, self._hub.reader(room), head=room.last_seq, oldest=room.oldest_seq)
            for member in gone:
                link = self.restore_link(room, member, log)
                if link is not None:
                    self._seats.let_read_on(link, member.left_seq or room.last_seq, now_s=now_s)

    def restore_link(self, room: KeptRoom, member: KeptMember, log: RoomLog) -> ModernLink | None:
        """Make a member's door again; None: it is not one of TCRP/2."""
        client = client_of(member.door)
        if client is None:
            return None
        link = ModernLink(client, room.name, member.name, mark=member.mark, answers=member.answers)
        link.settle_in(log, log_id=room.log_id, policy=room.policy, member_id=member.id, joined_seq=member.joined_seq)
        self._seats.add(link)
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
        is_known = session.channel is not None
        for event in session.events(data, now_s=now_s):
            self._take([session], now_s)  # what was said before it was asked for
            knocking = self._on_event(session, event, now_s)
            if knocking is not None:
                knocks.append(knocking)
        self.stir(session)
        self._after([session], now_s)
        if is_known:
            self._succeed([session], now_s)
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
        self._succeed(touched, now_s)

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

    def disown(self) -> None:
        """Seal nothing any more: another process has the same keys."""
        for session in self._connections.values():
            session.disown()

    # --- rooms ------------------------------------------------------------------------------------------

    def let_in(self, knocking: Knocking, decision: str | Refusal, *, now_s: float) -> Refusal | None:
        """Let somebody into a room under a name, or refuse; return why, where it was refused at once."""
        session, request = knocking
        if session.is_over:
            return None
        why = decision if isinstance(decision, Refusal) else self._take_in(session, request, decision, now_s)
        if why is not None:
            self._refuse(session, _op_of(request), request.id, why)
        return why

    def _take_in(self, session: ModernSession, request: Entering, user: str, now_s: float) -> Refusal | None:
        link = self._door_of(session, request)
        if link is None:
            return self._take_in_new(session, request, user, now_s)
        if link.user != user:
            return Refusal.NAME_TAKEN
        if link in self._entering:
            self._entering[link].append((session, request))
        else:
            self._attach(session, request, link, resumed=True)
        return None

    def _take_in_new(self, session: ModernSession, request: Entering, user: str, now_s: float) -> Refusal | None:
        if self._seats.count(session.client) >= self._limits.rooms_per_session_max:
            return Refusal.SERVER_FULL
        link = ModernLink(session.client, request.room, user, mark=max(0, request.lowest - 1))
        turn = self._enter(link, request, now_s)
        if isinstance(turn, Refusal):
            return turn
        self._seats.add(link)
        self._entering[link] = [(session, request)]
        self._submit(turn)
        return None

    def release(self, release: Release, *, now_s: float) -> bool:
        """Take what the hub lets out, if it is for a modern member; return whether it was."""
        match release:
            case Delivery(audience, _, entry, _):
                if audience.form.addressing is not Addressing.PULL:
                    return False
                self._grown[audience] = entry.seq
            case Seating(link, entry):
                if not isinstance(link, ModernLink):
                    return False
                self._seat(link, entry.seq)
            case Farewell(link, _, reason, entry):
                if not isinstance(link, ModernLink):
                    return False
                if reason is Reason.BYE:
                    self._seats.forget(link)  # who left by its own words knows
                else:
                    self._seats.let_read_on(link, entry.seq, now_s=now_s)
            case Reseating():
                return False  # a modern member's door is moved from session to session
            case Recognized(identity):
                self._recognize(identity, now_s)
            case _:
                assert_never(release)
        return True

    def committed(self, up_to: int) -> None:
        """Hear that the hub has made the first ``up_to`` steps true: wake who reads, answer what led to them."""
        grown, self._grown = self._grown, {}
        for audience, seq in grown.items():
            for link in audience.links:
                assert isinstance(link, ModernLink), "no other reads the log"
                link.grow(seq)
        while self._asked and self._asked[0].up_to <= up_to:
            _, session, op, number = self._asked.popleft()
            session.requests -= 1
            session.reply(op, Done(id=number))

    def failed(self, turned_away: Iterable[Link], *, now_s: float) -> None:
        """Hear that the journal failed, and whom the hub has turned away."""
        if self._hub.counts().pending:
            return  # that was told before: what waits now came after it
        for link in turned_away:
            if isinstance(link, ModernLink):
                self._seats.forget(link)
                for session, request in self._entering.pop(link):
                    self._refuse(session, _op_of(request), request.id, Refusal.UNAVAILABLE)
        for _, session, op, number in self._asked:
            self._refuse(session, op, number, Refusal.UNAVAILABLE)
        self._asked.clear()
        for session in self._identities.failed():
            self.close(session, CloseCode.GOING_AWAY, "the server cannot write just now", now_s=now_s)

    # --- events of sessions -------------------------------------------------------------------------------

    def _on_event(self, session: ModernSession, event: SessionEvent, now_s: float) -> Knocking | None:
        match event:
            case Authenticates(request):
                self._remember(self._identities.claim(session, request, now_s=now_s))
            case StoredSecret():
                self._remember(self._identities.stored(session.client, session.digest))
            case Enters(request):
                return self._knock(session, request)
            case Asks(op, request):
                self._ask(session, op, request, now_s)
            case _:
                assert_never(event)
        return None

    def _remember(self, identity: Identity | None) -> None:
        if identity is not None:
            self._submit(self._hub.remember(identity))

    def _recognize(self, identity: Identity, now_s: float) -> None:
        """Know somebody; if that is what an AUTH waits for, answer it."""
        claim = self._identities.recognized(identity, now_s=now_s)
        if claim is None:
            return
        session = claim.session
        session.known(
            client=claim.client, resumed=claim.resumed, secret=claim.secret, udp_port=self.udp_port, now_s=now_s
        )
        self._connections[session.connection_id] = session
        heir = self._heirs.get(claim.client)
        if heir is not None:
            self._replace(heir, now_s)
        if claim.client in self.sessions:
            self._heirs[claim.client] = session
        else:
            self.sessions[claim.client] = session

    def _succeed(self, sessions: Iterable[ModernSession], now_s: float) -> None:
        """Hear something in sessions: where a client has a seat in its new one, or none to lose, the former ends."""
        for session in sessions:
            if self._heirs.get(session.client) is session:
                before = self.sessions[session.client]
                if session.links or not before.links:
                    self._replace(before, now_s)

    def _replace(self, session: ModernSession, now_s: float) -> None:
        session.close(CloseCode.REPLACED, "another session of this client has begun")
        self._unlist(session, now_s)

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

    def _door_of(self, session: ModernSession, request: Entering) -> ModernLink | None:
        """Return the door that this client has into the room, if it is to be used still."""
        link = self._seats.find(session.client, request.room)
        if link is None or not link.end_seq:
            return link
        reads_on = isinstance(request, Join) and request.log == link.log_id.hex() and request.last < link.end_seq
        if reads_on:
            return link
        self._seats.forget(link)
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
        """Let a seated member, which no session speaks for or this one, speak; tell it where it is."""
        member = link.member
        knows = isinstance(request, Join) and request.log == link.log_id.hex()
        # Who knows of no log, and is a member, may never have heard so; what was said since is news to it.
        last = request.last if isinstance(request, Join) and knows else link.read_up_to
        handle, start = session.seat(link, last=last, lowest_id=request.lowest)
        if member is not None:
            member.hear(math.inf)
        session.requests -= 1
        answer = seated(request, link, handle=handle, start=start, resumed=resumed, is_short=session.is_crowded)
        session.reply(_op_of(request), answer)

    # --- requests ---------------------------------------------------------------------------------------

    def _ask(self, session: ModernSession, op: Op, request: Asking, now_s: float) -> None:
        link = session.link(request.handle)
        member = None if link is None else link.member
        if link is None or member is None:
            self._refuse(session, op, request.id, Refusal.NOT_FOUND)
            return
        match request:
            case Members(after=after):
                session.answer_slowly(tell_members(link, request.id, after))
            case History():
                session.answer_slowly(read_back(link, request))
            case _:
                turn = self._change(op, request, member, now_s)
                if isinstance(turn, Refusal):
                    self._refuse(session, op, request.id, turn)
                    return
                self._asked.append(_Asked(turn.up_to, session, op, request.id))
                self._submit(turn)
                if not turn.records:  # it is so already, or will be when what waits is written
                    self.committed(turn.up_to - self._hub.counts().pending)

    def _change(self, op: Op, request: Asking, member: Member, now_s: float) -> Turn | Refusal:
        room = member.room
        if op is Op.LEAVE:
            return self._hub.leave(member, Reason.BYE, now_s=now_s)
        if room.host_id != member.id or member.leaving:
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

    def _refuse(self, session: ModernSession, op: Op, number: int, why: Refusal) -> None:
        session.requests -= 1
        wait_s = WAIT_S if why in {Refusal.UNAVAILABLE, Refusal.RATE_LIMITED} else 0.0
        session.refuse(op, number, why, REASONS[why], wait_s=wait_s)

    # --- after every call ---------------------------------------------------------------------------------

    def _take(self, sessions: Iterable[ModernSession], now_s: float) -> None:
        """Take what was published."""
        publishing = [link for session in sessions for link in session.publishing]
        if not publishing:
            return
        for session in sessions:
            session.publishing.clear()
        self._submit(self._hub.take(_intents(publishing), now_s=now_s))

    def _after(self, sessions: Collection[ModernSession], now_s: float) -> None:
        """Take what was published, let go of who is gone."""
        self._take(sessions, now_s)
        for session in sessions:
            for link in [link for link in session.links.values() if link.is_done]:
                self._seats.forget(link)
            if session.is_over:
                self._end(session, now_s)
        self._seats.expire(now_s=now_s)

    def _end(self, session: ModernSession, now_s: float) -> None:
        """A session is over: its members may come back. Idempotent."""
        if self._unlist(session, now_s) and session.client not in self.sessions:
            self._remember(self._identities.parted(session.client, now_s=now_s))

    def _unlist(self, session: ModernSession, now_s: float) -> bool:
        """Take nothing for a session any more, and its members for lost; return whether that was news."""
        self.stir(session)
        if self._connections.get(session.connection_id) is not session:
            return False
        del self._connections[session.connection_id]
        heir = self._heirs.pop(session.client, None)
        if heir is not session:
            del self.sessions[session.client]
        for link in list(session.links.values()):
            session.unseat(link)
            if link.member is not None:
                self._hub.lose(link.member, now_s=now_s)
        if heir is not None and heir is not session:
            self.sessions[session.client] = heir
            heir.take_seats()
        return True


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
