"""One TLS connection of a client, and the datagrams that belong to it: the server's side of a TCRP/2 session.

``SESSION_STEPS`` says how far it comes. What a client asks for is handed on as events; whoever takes them answers with
``reply`` and ``refuse``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

from ocm.errors import RemoteProtocolError
from ocm.protocol.address import Address
from ocm.protocol.entry import Refusal
from ocm.protocol.limits import Limits
from ocm.protocol.link.modern import ModernLink
from ocm.protocol.session.addresses import Addresses
from ocm.protocol.session.channel import Channel
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
        self.closing: CloseCode | None = None
        """Why the session is over, where one of us said so."""
        self.links: dict[int, ModernLink] = {}
        """The rooms, by the handles of this session."""
        self.requests = 0
        """Requests that wait for an answer."""
        self.publishing: dict[ModernLink, None] = {}
        """Doors with messages to be taken; whoever takes them empties it."""
        self.refused_since_s = now_s
        self.refused = 0
        """Messages refused as too many, since ``refused_since_s``."""
        self.channel: Channel | None = None
        """Frames, once the client is known."""
        self._server_key = server_key
        self._limits = limits
        self._durability = durability
        self._randomness = randomness
        self._stir = stir
        self._reader = RecordReader()
        self._out = bytearray()
        self._last_words: list[tuple[Address, bytes]] = []
        self._secrets: SessionSecrets | None = None
        self._peer_id = b""
        self._ready: deque[ModernLink] = deque()
        self._held: Load | None = None
        self._next_handle = 1
        self._head_s: float | None = None
        self._udp_port = 0

    @property
    def is_over(self) -> bool:
        """Whether nothing more is taken; what is still to be sent may be sent."""
        return self.state is SessionState.OVER

    # --- the TLS connection -------------------------------------------------------------------------------

    def receive_data(self, data: bytes, *, now_s: float) -> list[SessionEvent]:
        """Take decrypted bytes; return what the client wants, oldest first. What breaks the rules ends the session."""
        events: list[SessionEvent] = []
        self._reader.feed(data)
        try:
            while not self.is_over and (record := self._reader.next()) is not None:
                event = self._on_record(record, now_s)
                if event is not None:
                    events.append(event)
                self._look(now_s)  # what comes behind a broken rule or a goodbye counts no more
        except RemoteProtocolError as error:
            self.close(CloseCode.PROTOCOL, str(error))
        self._look(now_s)
        return events

    def stream_lost(self, *, now_s: float) -> None:
        """Hear that the connection is gone: what is left of the session lives on datagrams."""
        if self.channel is not None:
            self.channel.stream_lost(now_s=now_s)
            self._look(now_s)
        elif not self.is_over:
            self._step(SessionStep.LOST)

    def data_to_send(self, *, space: int, now_s: float) -> bytes:
        """Return bytes to be written now: answers first, whatever ``space`` says, then about so much of frames."""
        if self.channel is not None and not self.is_over:
            for payload in self.channel.records_to_send(space=space - len(self._out), now_s=now_s):
                self._out += write_frames_record(payload)
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
        """Return what is to be sent by datagram now."""
        if self.channel is None:
            return []
        if self.is_over:
            last_words, self._last_words = self._last_words, []
            return last_words
        return self.channel.datagrams_to_send(now_s=now_s)

    # --- time -------------------------------------------------------------------------------------------

    def next_timeout_s(self) -> float | None:
        """When ``handle_timeout`` has something to do."""
        if self.channel is None or self.is_over:
            return None
        times = (self.channel.next_timeout_s(), self._head_s)
        return min((at_s for at_s in times if at_s is not None), default=None)

    def handle_timeout(self, *, now_s: float) -> None:
        """Do what is due."""
        if self.channel is None or self.is_over:
            return
        self.channel.handle_timeout(now_s=now_s)
        if self._head_s is not None and self._head_s <= now_s:
            self._head_s = None
            for link in self.links.values():
                link.show_head()
        self._look(now_s)

    # --- answers ----------------------------------------------------------------------------------------

    def known(self, *, client: bytes, resumed: bool, secret: bytes, udp_port: int, now_s: float) -> None:
        """Say that the client is known: the journal has its new secret."""
        assert self._secrets is not None, "HELLO comes before AUTH"
        self.client = client
        self.connection_id = self._randomness(CONNECTION_ID_SIZE)
        self._udp_port = udp_port
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

    def write_frames(self, frames: bytes) -> None:
        """Send frames over TLS, in front of what is answered next."""
        self._write(write_frames_record(frames))

    def close(self, code: CloseCode, reason: str) -> None:
        """End the session, and say why."""
        if self.is_over:
            return
        self._write(write_record(Op.CLOSE, Stage.REQUEST, Closing(code=code, reason=reason)))
        self.closing = code
        self._step(SessionStep.CLOSE)

    # --- rooms ------------------------------------------------------------------------------------------

    def seat(self, link: ModernLink, *, last: int, lowest_id: int) -> tuple[int, int]:
        """Let a door speak through this session; return the room's handle and the entry behind which it goes on."""
        if link.carrier is self:
            self.unseat(link)
        handle, self._next_handle = self._next_handle, self._next_handle + 1
        self.links[handle] = link
        return handle, link.attach(self, handle, last=last, lowest_id=lowest_id)

    def unseat(self, link: ModernLink) -> None:
        """Let a door speak through this session no more."""
        if self.links.get(link.handle) is link:
            del self.links[link.handle]
        if link.carrier is self:
            link.detach()

    def wake(self, link: ModernLink) -> None:
        """Hear that a door has something to send."""
        if link not in self._ready:
            self._ready.append(link)
            self._stir(self)

    # --- what the channel carries -------------------------------------------------------------------------

    def peek(self, *, now_s: float) -> Load | None:
        """Return the next frame of the next room, round robin."""
        while self._held is None and self._ready:
            link = self._ready[0]
            self._held = link.next() if link.carrier is self else None
            if self._held is None:
                self._ready.popleft()
                continue
            self._ready.rotate(-1)
            if isinstance(self._held.key, int):
                self._head_s = now_s + HEAD_AFTER_S
        return self._held

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
                link = self.links.get(handle)
                if link is None:
                    return True  # it has left since
                kept = link.publish(frame)
                if kept:
                    self.publishing[link] = None
                return kept
            case Received(room=handle):
                link = self.links.get(handle)
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
