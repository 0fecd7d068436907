"""One TLS connection of a client, and the datagrams that belong to it: the server's side of a TCRP/2 session.

``SESSION_STEPS`` says how far it comes. What a client asks for is handed on as events; whoever takes them answers with
``reply`` and ``refuse``.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

from ocm.errors import JournalFailed, RemoteProtocolError
from ocm.protocol.address import Address
from ocm.protocol.entry import Refusal
from ocm.protocol.limits import Limits
from ocm.protocol.link.modern import ModernLink
from ocm.protocol.session.addresses import Addresses
from ocm.protocol.session.channel import Channel
from ocm.protocol.session.deadlines import earliest
from ocm.protocol.session.keys import SECRET_SIZE, Direction, Randomness, SessionSecrets, session_secrets
from ocm.protocol.session.lane import Load
from ocm.protocol.wire.classic import Stage
from ocm.protocol.wire.frames import BODY_SIZE_MAX, Frame, Gap, Head, Message, Publish, Published, Received, Signal
from ocm.protocol.wire.records import (
    PAYLOAD_SIZE_MAX,
    SUITE,
    VERSION,
    Authenticate,
    Authenticated,
    CloseCode,
    Closing,
    ControlRecord,
    Create,
    Denied,
    Greeting,
    Hello,
    History,
    Join,
    Kick,
    Members,
    Op,
    Payload,
    Raise,
    RecordReader,
    RoomRequest,
    write_frames_record,
    write_record,
)
from ocm.protocol.wire.sealed import CONNECTION_ID_SIZE, SealedDatagram

HEAD_AFTER_S: Final = 1.0
"""How long after the last entry members are told where their rooms' logs end: a lost tail shows by it."""

Entering: TypeAlias = Create | Join
Asking: TypeAlias = RoomRequest | Members | Kick | Raise | History


class SessionState(Enum):
    """How far a session has come."""

    HELLO = "hello"
    AUTH = "auth"
    COMMITTING = "committing"
    OPEN = "open"
    OVER = "over"


class SessionStep(Enum):
    """What takes a session further."""

    HELLO = "HELLO.0"
    AUTH = "AUTH.0"
    KNOWN = "secret stored: AUTH.2"
    LOST = "TLS is lost"
    BOTH_LOST = "TLS and UDP are lost"
    CLOSE = "CLOSE of either side"


SESSION_STEPS: Final[Mapping[tuple[SessionState, SessionStep], SessionState]] = {
    (SessionState.HELLO, SessionStep.HELLO): SessionState.AUTH,
    (SessionState.AUTH, SessionStep.AUTH): SessionState.COMMITTING,
    (SessionState.COMMITTING, SessionStep.KNOWN): SessionState.OPEN,
    (SessionState.HELLO, SessionStep.LOST): SessionState.OVER,
    (SessionState.AUTH, SessionStep.LOST): SessionState.OVER,
    (SessionState.COMMITTING, SessionStep.LOST): SessionState.OVER,
    (SessionState.OPEN, SessionStep.BOTH_LOST): SessionState.OVER,
    (SessionState.HELLO, SessionStep.CLOSE): SessionState.OVER,
    (SessionState.AUTH, SessionStep.CLOSE): SessionState.OVER,
    (SessionState.COMMITTING, SessionStep.CLOSE): SessionState.OVER,
    (SessionState.OPEN, SessionStep.CLOSE): SessionState.OVER,
}
"""Every step. A session that breaks a rule is closed, too. The drawing in docs/ is made from it."""


@dataclass(frozen=True, slots=True)
class Authenticates:
    """The client says who it is."""

    request: Authenticate


@dataclass(frozen=True, slots=True)
class StoredSecret:
    """The client has its new secret where it will find it again."""


@dataclass(frozen=True, slots=True)
class Enters:
    """The client wants to make or join a room."""

    request: Entering


@dataclass(frozen=True, slots=True)
class Asks:
    """The client wants something of a room it is in."""

    op: Op
    request: Asking


SessionEvent: TypeAlias = Authenticates | StoredSecret | Enters | Asks


@dataclass(frozen=True, slots=True)
class _Seat:
    """A seat that the client may not know of yet."""

    link: ModernLink
    last: int
    """The entry up to which it has the log."""


class ModernSession:
    """The server's side of one session. A driver sends what is due after every call (see ``Channel``)."""

    def __init__(
        self,
        *,
        server_key: bytes,
        peer: Address,
        limits: Limits,
        durability: str,
        randomness: Randomness,
        stir: Callable[[ModernSession], None],
        now_s: float,
    ) -> None:
        """Begin with a TLS connection that has just been set up.

        Args:
            server_key: our public key, as DER of its SubjectPublicKeyInfo.
            peer: where the connection comes from.
            limits: what a client may cost.
            durability: what the journal says of itself.
            randomness: for secrets, connection ids and challenges.
            stir: called when there may be something to send.
            now_s: the time.
        """
        self.peer = peer
        self.client = b""
        """The client id, once it is known."""
        self.connection_id = b""
        """What datagrams to us are called by, once the client is known."""
        self.state = SessionState.HELLO
        self.is_over = False
        """Whether nothing more is taken; what is still to be sent may be sent."""
        self.closing: CloseCode | None = None
        """Why the session is over, where one of us said so."""
        self.links: dict[int, ModernLink] = {}
        """The rooms, by the handles of this session."""
        self.promised: dict[int, _Seat] = {}
        """Rooms that the client's former session still speaks for, by the handles they will have here."""
        self.requests = 0
        """Requests that wait for an answer."""
        self.publishing: dict[ModernLink, None] = {}
        """Doors with messages to be taken; whoever takes them empties it."""
        self.digest = b""
        """SHA-256 of the resume secret that the client was given in this session."""
        self.channel: Channel | None = None
        """Frames, once the client is known."""
        self._server_key = server_key
        self._limits = limits
        self._durability = durability
        self._randomness = randomness
        self._stir = stir
        self._reader = RecordReader()
        self._out = bytearray()
        self._secrets: SessionSecrets | None = None
        self._peer_id = b""
        self._ready: deque[ModernLink] = deque()
        self._held: Load | None = None
        self._slow: deque[Iterator[bytes]] = deque()
        self._farewell: Closing | None = None
        self._next_handle = 1
        self._head_s: float | None = None
        self._heard_s = now_s
        self._silent_s = now_s + limits.session_timeout_s
        self._unreadable_s: float | None = None

    @property
    def is_crowded(self) -> bool:
        """Whether so much waits to be written that answers are to be short."""
        return len(self._out) > self._limits.send_buffer_max

    # --- the TLS connection -------------------------------------------------------------------------------

    def events(self, data: bytes, *, now_s: float) -> Iterator[SessionEvent]:
        """Take decrypted bytes; give what the client wants, oldest first: each before what came behind it is read.

        So it has to be iterated to its end. What breaks the rules ends the session.
        """
        if self.is_over:
            return
        self._heard_s = now_s
        self._reader.feed(data)
        try:
            while (record := self._next_record()) is not None:
                event = self._on_record(record, now_s)
                if event is not None:
                    yield event
                self._look(now_s)  # what comes behind a broken rule or a goodbye counts no more
        except RemoteProtocolError as error:
            self.close(CloseCode.PROTOCOL, str(error))
        self._look(now_s)

    def stream_lost(self, *, now_s: float) -> None:
        """Hear that the connection is gone: what is left of the session lives on datagrams."""
        self._out.clear()
        self._slow.clear()
        if self.channel is not None:
            self.channel.stream_lost(now_s=now_s)
            self._look(now_s)
        elif not self.is_over:
            self._step(SessionStep.LOST)

    def data_to_send(self, *, space: int, now_s: float) -> bytes:
        """Return bytes to be written now: answers first, then frames, in all about ``space``.

        Short answers are written whatever it says; there are only so many of them.
        """
        if self.channel is not None and not self.is_over:
            if self._slow:
                self._answer_on(space)
            for payload in self.channel.records_to_send(space=space - len(self._out), now_s=now_s):
                self._out += write_frames_record(payload)
        if not self._out:
            return b""
        data = bytes(self._out)
        self._out.clear()
        return data

    # --- datagrams --------------------------------------------------------------------------------------

    def receive_datagram(self, datagram: SealedDatagram, address: Address, size: int, *, now_s: float) -> bool:
        """Take a datagram with our connection id; return whether it opened."""
        if self.channel is None or self.is_over:
            return False
        opened = self.channel.receive_datagram(datagram, address, size, now_s=now_s)
        self._look(now_s)
        return opened

    def datagrams_to_send(self, *, now_s: float) -> list[tuple[Address, bytes]]:
        """Return what is to be sent by datagram now; of a session that is over, once, that it is."""
        if self.channel is None:
            return []
        if not self.is_over:
            return self.channel.datagrams_to_send(now_s=now_s)
        farewell, self._farewell = self._farewell, None
        return [] if farewell is None else self.channel.close(farewell.code, farewell.reason)

    # --- time -------------------------------------------------------------------------------------------

    def next_timeout_s(self) -> float | None:
        """When ``handle_timeout`` has something to do."""
        if self.channel is None or self.is_over:
            return None
        return earliest(self.channel.next_timeout_s(), self._head_s, self._silent_s, self._unreadable_s)

    def handle_timeout(self, *, now_s: float) -> None:
        """Do what is due."""
        if self.channel is None or self.is_over:
            return
        self.channel.handle_timeout(now_s=now_s)
        if self._head_s is not None and self._head_s <= now_s:
            self._head_s = None
            for link in self.links.values():
                link.show_head()
        if self._silent_s <= now_s:
            heard_s = max(self._heard_s, self.channel.heard_s)
            self._silent_s = heard_s + self._limits.session_timeout_s
        if self._silent_s <= now_s:
            self.close(CloseCode.IDLE, "nothing was heard for too long")
        if self._unreadable_s is not None:
            self.close(CloseCode.GOING_AWAY, "the log cannot be read just now")
        self._look(now_s)

    # --- answers ----------------------------------------------------------------------------------------

    def known(self, *, client: bytes, resumed: bool, secret: bytes, udp_port: int, now_s: float) -> None:
        """Say that the client is known: the journal has its new secret."""
        assert self._secrets is not None, "HELLO comes before AUTH"
        self.client = client
        self.digest = hashlib.sha256(secret).digest()
        self.connection_id = self._randomness(CONNECTION_ID_SIZE)
        self.channel = Channel(
            Direction.TO_CLIENT,
            self._secrets,
            peer_id=self._peer_id,
            whereabouts=Addresses(randomness=self._randomness),
            randomness=self._randomness,
            traffic=self,
            now_s=now_s,
        )
        self._secrets = None
        self._step(SessionStep.KNOWN)
        self._reader.payload_size_max = PAYLOAD_SIZE_MAX
        self.reply(
            Op.AUTH,
            Authenticated(
                client=client.hex(),
                resumed=resumed,
                secret=secret.hex(),
                connection=self.connection_id.hex(),
                udp_port=udp_port,
            ),
        )

    def reply(self, op: Op, payload: Payload) -> None:
        """Answer a request with yes."""
        self._write(write_record(op, Stage.COMPLETE, payload))

    def refuse(self, op: Op, number: int, why: Refusal, message: str, *, wait_s: float = 0.0) -> None:
        """Answer a request with no."""
        denied = Denied(id=number, code=int(why), message=message, wait_ms=round(wait_s * 1000))
        self._write(write_record(op, Stage.STATUS, denied))

    def answer_slowly(self, records: Iterator[bytes]) -> None:
        """Answer a request with several records, or a long one: each is made when there is room for it."""
        self._slow.append(records)
        self._stir(self)

    def close(self, code: CloseCode, reason: str) -> None:
        """End the session, and say why."""
        if self.is_over:
            return
        self._farewell = Closing(code=code, reason=reason)
        self._write(write_record(Op.CLOSE, Stage.REQUEST, self._farewell))
        self.closing = code
        self._step(SessionStep.CLOSE)

    def disown(self) -> None:
        """Seal nothing any more: another process has the same keys."""
        if self.channel is not None:
            self.channel.lane.disown()

    # --- rooms ------------------------------------------------------------------------------------------

    def seat(self, link: ModernLink, *, last: int, lowest_id: int) -> tuple[int, int]:
        """Let a door speak through this session; return the room's handle and the entry behind which it goes on.

        One that speaks through another session does so until the client shows that it knows the handle: the answer
        may never come, and whoever waits for it is not to be silent meanwhile.
        """
        handle, self._next_handle = self._next_handle, self._next_handle + 1
        self.promised = {number: seat for number, seat in self.promised.items() if seat.link is not link}
        link.skip_to(lowest_id)
        if link.carrier is not None and link.carrier is not self:
            self.promised[handle] = _Seat(link, last)
            return handle, min(last, link.head)
        if link.carrier is self:
            self.unseat(link)
        self.links[handle] = link
        return handle, link.attach(self, handle, last=last)

    def take_seats(self) -> None:
        """Hear that the client has only this session, or knows a seat that it was promised: it takes all of them."""
        promised, self.promised = self.promised, {}
        for handle, seat in promised.items():
            link = seat.link
            if link.carrier is not None:
                link.carrier.unseat(link)
            self.links[handle] = link
            link.attach(self, handle, last=seat.last)
            if link.member is not None:
                link.member.hear(math.inf)

    def link(self, handle: int) -> ModernLink | None:
        """Return the room that the client calls so: who names a seat that it was promised takes it."""
        if handle in self.promised:
            self.take_seats()
        return self.links.get(handle)

    def unseat(self, link: ModernLink) -> None:
        """Let a door speak through this session no more."""
        del self.links[link.handle]
        link.detach()

    def wake(self, link: ModernLink) -> None:
        """Hear that a door has something to send."""
        if link not in self._ready:
            self._ready.append(link)
            self._stir(self)

    # --- what the channel carries -------------------------------------------------------------------------

    def peek(self, *, space: int, now_s: float) -> Load | None:
        """Return what the next room has to say, round robin; each has its share of ``space``."""
        if self._held is not None or self._unreadable_s is not None:
            return self._held
        ready = self._ready
        while ready:
            link = ready[0]
            try:
                held = self._held = link.next(space=space // len(ready)) if link.carrier is self else None
            except JournalFailed:  # there may be others that can be read, but this one would wait for ever
                self._unreadable_s = now_s
                return None
            if held is None:
                ready.popleft()
                continue
            if not link.has_news:
                ready.popleft()
            elif len(ready) > 1:
                ready.rotate(-1)
            if isinstance(held.key, range):
                self._head_s = now_s + HEAD_AFTER_S
            return held
        return None

    def pop(self) -> None:
        """Hear that it is on its way."""
        self._held = None

    def acknowledged(self, load: Load) -> None:
        """Hear nothing of interest: what was read comes in RECEIVED, what was answered needs no more."""

    def lost(self, load: Load, *, now_s: float) -> None:
        """Tell the door."""
        if isinstance(load.owner, ModernLink) and load.owner.carrier is self:
            load.owner.lost(load)

    def rewind(self, *, now_s: float) -> None:
        """Tell every door."""
        self._held = None
        for link in self.links.values():
            link.rewind()

    def receive(self, frame: Frame, *, now_s: float) -> bool:
        """Take a frame of the client."""
        match frame:
            case Publish(room=handle):
                link = self.link(handle)
                if link is None or self.is_over:
                    return True  # it has left since
                if link.floods(frame, self._limits, now_s=now_s):
                    self.close(CloseCode.FLOOD, "ten times more was published than is granted")
                    return True
                kept = link.publish(frame)
                if kept:
                    self.publishing[link] = None
                return kept
            case Received(room=handle):
                link = self.link(handle)
                if link is not None:
                    link.receive(frame)
                return True
            case Signal():
                return True
            case Message() | Published() | Gap() | Head():
                raise RemoteProtocolError("a frame of servers came from a client")
            case _:
                raise RemoteProtocolError("a frame that belongs to the channel")

    # --- helpers ----------------------------------------------------------------------------------------

    def _step(self, step: SessionStep) -> None:
        self.state = SESSION_STEPS[self.state, step]
        self.is_over = self.state is SessionState.OVER

    def _next_record(self) -> ControlRecord | None:
        return None if self.is_over else self._reader.next()

    def _answer_on(self, space: int) -> None:
        """Go on with answers that are long."""
        while self._slow and len(self._out) < space:
            record = next(self._slow[0], None)
            if record is None:
                self._slow.popleft()
                self.requests -= 1
            else:
                self._out += record
        if self._slow and space > 0:
            self._stir(self)

    def _write(self, record: bytes) -> None:
        if not self.is_over:
            self._out += record
            self._stir(self)

    def _on_record(self, record: ControlRecord, now_s: float) -> SessionEvent | None:
        if record.operation == Op.FRAMES:
            if self.channel is None or record.stage != Stage.REQUEST:
                raise RemoteProtocolError("frames of somebody unknown")
            self.channel.receive_frames(record.payload, now_s=now_s)
            return None
        if record.stage != Stage.REQUEST:
            raise RemoteProtocolError("a client sends requests")
        payload = record.read()
        match self.state, payload:
            case _, Closing(code=code):
                self.closing = CloseCode.of(code)
                self._step(SessionStep.CLOSE)
                return None
            case SessionState.HELLO, Hello():
                self._greet(record.whole, payload)
                return None
            case SessionState.AUTH, Authenticate():
                self._step(SessionStep.AUTH)
                return Authenticates(payload)
            case SessionState.OPEN, _:
                return self._on_request(record, payload)
            case _:
                raise RemoteProtocolError("a record out of turn")

    def _on_request(self, record: ControlRecord, payload: Payload | None) -> SessionEvent | None:
        if record.operation == Op.AUTH_STORED:
            return StoredSecret()
        if payload is None:
            denied = Denied(id=record.request_id(), code=int(Refusal.MALFORMED), message="no such operation")
            self._write(write_record(record.operation, Stage.STATUS, denied))
            return None
        self.requests += 1
        if self.requests > self._limits.requests_max:
            raise RemoteProtocolError("too many requests at once")
        match payload:
            case Create() | Join():
                return Enters(payload)
            case RoomRequest() | Members() | Kick() | Raise() | History():
                return Asks(Op(record.operation), payload)
            case _:
                raise RemoteProtocolError("a record out of turn")

    def _greet(self, hello_record: bytes, hello: Hello) -> None:
        if VERSION not in hello.versions or SUITE not in hello.suites:
            raise RemoteProtocolError("no version or cipher suite in common")
        secret = self._randomness(SECRET_SIZE)
        limits = self._limits
        greeting = write_record(
            Op.HELLO,
            Stage.STATUS,
            Greeting(
                version=VERSION,
                suite=SUITE,
                secret=secret.hex(),
                durability=self._durability,
                burst=limits.burst_max,
                rate=limits.rate_per_s,
                body_max=BODY_SIZE_MAX,
            ),
        )
        self._write(greeting)
        self._secrets = session_secrets(
            hello=hello_record,
            answer=greeting,
            server_key=self._server_key,
            client_secret=bytes.fromhex(hello.secret),
            server_secret=secret,
        )
        self._peer_id = bytes.fromhex(hello.connection)
        self._step(SessionStep.HELLO)

    def _look(self, now_s: float) -> None:
        """See whether the channel has come to its end."""
        channel = self.channel
        if channel is None or self.is_over:
            return
        if channel.fault is not None:
            self.close(CloseCode.PROTOCOL, str(channel.fault))
        elif channel.farewell is not None:
            self.closing = CloseCode.of(channel.farewell.code)
            self._step(SessionStep.CLOSE)
        elif channel.is_dead:
            self._step(SessionStep.BOTH_LOST)
