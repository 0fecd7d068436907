"""The client's side of one session: a TLS connection, and the datagrams that belong to it.

```
 HELLO -- HELLO.1 --> AUTH -- AUTH.2 --> OPEN -- CLOSE, fault, both ways lost --> OVER
```
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from ocm.errors import RemoteProtocolError
from ocm.protocol.address import Address
from ocm.protocol.agent.room import AgentRoom
from ocm.protocol.memory import Named
from ocm.protocol.session.addresses import FixedAddress
from ocm.protocol.session.channel import Channel
from ocm.protocol.session.keys import SECRET_SIZE, Direction, Randomness, SessionSecrets, session_secrets
from ocm.protocol.session.lane import Load
from ocm.protocol.wire.classic import Stage
from ocm.protocol.wire.frames import Frame, Gap, Head, Message, Published, Signal
from ocm.protocol.wire.records import (
    PAYLOAD_SIZE_MAX,
    SUITE,
    VERSION,
    Authenticate,
    Authenticated,
    CloseCode,
    Closing,
    ControlRecord,
    Denied,
    Done,
    Greeting,
    Hello,
    MemberPage,
    Op,
    Pages,
    Payload,
    RecordReader,
    Seated,
    Stored,
    write_frames_record,
    write_record,
)
from ocm.protocol.wire.sealed import CONNECTION_ID_SIZE, SealedDatagram

Answer: TypeAlias = Denied | Seated | Pages | MemberPage | Done


class SessionState(Enum):
    """How far a session has come."""

    HELLO = "hello"
    AUTH = "auth"
    OPEN = "open"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Recognized:
    """The server knows us."""

    answer: Authenticated


@dataclass(frozen=True, slots=True)
class Told:
    """The server answers a request."""

    op: Op
    answer: Answer


@dataclass(frozen=True, slots=True)
class ReadBack:
    """An entry that was said before, in answer to HISTORY."""

    room: AgentRoom
    message: Message


SessionEvent: TypeAlias = Recognized | Told | ReadBack


class Session:
    """One connection's session, for its agent; a driver moves bytes (``receive_data``, ``data_to_send``, ``lost``)."""

    def __init__(
        self,
        *,
        server_key: bytes,
        server_address: Callable[[int], Address],
        named: Named | None,
        randomness: Randomness,
        on_event: Callable[[Session, SessionEvent, float], None],
        on_change: Callable[[Session, float], None],
        now_s: float,
    ) -> None:
        """Begin with a TLS connection that has just been set up; HELLO waits to be sent.

        Args:
            server_key: the server's public key, as DER of its SubjectPublicKeyInfo.
            server_address: makes the address of datagrams from the port that the server names.
            named: what we are known by; it goes to the server that it came from and to no other.
            randomness: for secrets, connection ids and challenges.
            on_event: takes what the server says.
            on_change: called when the session may have come to its end.
            now_s: the time.
        """
        self.state = SessionState.HELLO
        self.closing: CloseCode | None = None
        """Why the session is over, where one of us said so."""
        self.server = hashlib.sha256(server_key).digest()
        """What its server is called in memory."""
        self.connection_id = randomness(CONNECTION_ID_SIZE)
        """What datagrams to us are called by."""
        self.channel: Channel | None = None
        """Frames, once we are known."""
        self.rooms: dict[int, AgentRoom] = {}
        """The rooms that this session speaks for, by handle."""
        self.gave_up = False
        """Whether the connection is to be cut off, for nothing comes over it; the session may live on datagrams."""
        self.greeting: Greeting | None = None
        """What the server grants."""
        self.began_s = now_s
        self._server_key = server_key
        self._server_address = server_address
        is_ours = named is not None and named.server == self.server
        self._named = named if is_ours else None
        self._randomness = randomness
        self._on_event = on_event
        self._on_change = on_change
        self._reader = RecordReader()
        self._out = bytearray()
        self._last_words: list[tuple[Address, bytes]] = []
        self._secret = randomness(SECRET_SIZE)
        self._hello = write_record(
            Op.HELLO,
            Stage.REQUEST,
            Hello(
                versions=[VERSION],
                suites=[SUITE],
                secret=self._secret.hex(),
                connection=self.connection_id.hex(),
            ),
        )
        self._out += self._hello
        self._secrets: SessionSecrets | None = None
        self._held: Load | None = None
        self._turn: deque[AgentRoom] = deque()
        self._offered_s = now_s
        self._round_trip_s = 0.0
        self._last_handle = 0

    @property
    def is_over(self) -> bool:
        """Whether the driver is to close the connection, once what is to be sent is sent."""
        return self.state is SessionState.OVER

    @property
    def has_shown_name(self) -> bool:
        """Whether it may have told the server who we are."""
        return self._named is not None and self.greeting is not None

    # --- the TLS connection -------------------------------------------------------------------------------

    def receive_data(self, data: bytes, *, now_s: float) -> None:
        """Take decrypted bytes. What breaks the rules ends the session."""
        if self.is_over:
            return
        self._reader.feed(data)
        if self.channel is not None:
            self.channel.hear_stream(now_s=now_s)
        try:
            while self.state is not SessionState.OVER and (record := self._reader.next()) is not None:
                self._on_record(record, now_s)
                self._heed_channel()  # what comes behind a broken rule or a goodbye counts no more
        except RemoteProtocolError as error:
            self.close(CloseCode.PROTOCOL, str(error))
        self.look(now_s=now_s)

    def lost(self, *, now_s: float) -> None:
        """Hear that the connection is gone; what is left of the session lives on datagrams."""
        if self.channel is None:
            self.state = SessionState.OVER
        elif not self.is_over:
            self.channel.stream_lost(now_s=now_s)
        self.look(now_s=now_s)

    def data_to_send(self, *, space: int, now_s: float) -> bytes:
        """Return bytes to be written now: requests first, then about ``space`` bytes of frames."""
        if self.channel is not None and not self.is_over:
            if self._out:
                self.channel.await_stream(now_s=now_s)
            for payload in self.channel.records_to_send(space=space - len(self._out), now_s=now_s):
                self._out += write_frames_record(payload)
        data = bytes(self._out)
        self._out.clear()
        return data

    # --- for the agent ------------------------------------------------------------------------------------

    def receive_datagram(self, datagram: SealedDatagram, address: Address, size: int, *, now_s: float) -> None:
        """Take a datagram with our connection id."""
        if self.channel is not None and not self.is_over:
            self.channel.receive_datagram(datagram, address, size, now_s=now_s)
            self.look(now_s=now_s)

    def datagrams_to_send(self, *, now_s: float) -> list[tuple[Address, bytes]]:
        """Return what is to be sent by datagram now."""
        if self.channel is None:
            return []
        if self.is_over:
            last_words, self._last_words = self._last_words, []
            return last_words
        self._offered_s = now_s
        return self.channel.datagrams_to_send(now_s=now_s)

    def next_timeout_s(self) -> float | None:
        """When ``handle_timeout`` has something to do, or there is something to send."""
        if self.channel is None or self.is_over:
            return None
        times = [self.channel.next_timeout_s()]
        times += [room.next_missed_s for room in self.rooms.values()]
        for room in self.rooms.values():
            at_s = room.next_timeout_s()
            # One that is due already waits for room in a window or a buffer, not for time.
            if at_s is not None and at_s > self._offered_s:
                times.append(at_s)
        return min((at_s for at_s in times if at_s is not None), default=None)

    def handle_timeout(self, *, now_s: float) -> None:
        """Do what is due. Where nothing comes over the connection, it is given up."""
        if self.channel is None or self.is_over:
            return
        # Every datagram that is lost is said again: what does not come was too large for one.
        missing = [room for room in self.rooms.values() if room.misses(now_s=now_s)]
        if missing:
            self.channel.await_stream(now_s=now_s)
        if self.channel.handle_timeout(now_s=now_s):
            self.gave_up = True
            self.channel.stream_lost(now_s=now_s)
        self.look(now_s=now_s)

    def request(self, op: Op, payload: Payload) -> None:
        """Ask for something."""
        if not self.is_over:
            self._out += write_record(op, Stage.REQUEST, payload)

    def say_stored(self) -> None:
        """Say that the new resume secret is stored."""
        self.request(Op.AUTH_STORED, Stored())

    def close(self, code: CloseCode, reason: str) -> None:
        """End the session, and say why."""
        if self.is_over:
            return
        self._out += write_record(Op.CLOSE, Stage.REQUEST, Closing(code=code, reason=reason))
        if self.channel is not None:
            self._last_words = self.channel.close(code, reason)
        self.closing = code
        self.state = SessionState.OVER

    def drop(self) -> None:
        """End the session without a word: another has taken its place."""
        self.state = SessionState.OVER
        self._out.clear()
        self.rooms.clear()
        self._turn.clear()

    def disown(self) -> None:
        """Seal nothing any more: another process has the same keys."""
        if self.channel is not None:
            self.channel.lane.disown()

    def seat(self, room: AgentRoom) -> None:
        """Speak for a room from now on, by its handle; by another than before no more."""
        self.unseat(room)
        self.rooms[room.handle] = room
        self._turn.append(room)

    def unseat(self, room: AgentRoom) -> None:
        """Speak for a room no more."""
        self.rooms = {handle: other for handle, other in self.rooms.items() if other is not room}
        self._turn = deque(other for other in self._turn if other is not room)
        if self._held is not None and self._held.owner is room:
            self._held = None

    def speaks_for(self, room: AgentRoom) -> bool:
        """Say whether a room is one of this session's."""
        return any(room is one for one in self.rooms.values())

    def look(self, *, now_s: float) -> None:
        """See whether the session has come to its end."""
        self._heed_channel()
        self._on_change(self, now_s)

    # --- what the channel carries -------------------------------------------------------------------------

    def peek(self, *, space: int, now_s: float) -> Load | None:
        """Return the next frame of the next room, round robin."""
        for _ in range(len(self._turn)):
            if self._held is not None:
                break
            self._held = self._turn[0].next_load(now_s=now_s)
            self._turn.rotate(-1)
        return self._held

    def pop(self) -> None:
        """Hear that it is on its way."""
        self._held = None

    def acknowledged(self, load: Load) -> None:
        """Hear nothing of interest: a message is settled by its answer."""

    def lost_load(self, load: Load, *, now_s: float) -> None:
        """Tell the room."""
        assert isinstance(load.owner, AgentRoom), "rooms are all that speaks"
        load.owner.lost(load, now_s=now_s)

    def rewind(self, *, now_s: float) -> None:
        """Tell every room."""
        self._held = None
        for room in self.rooms.values():
            room.rewind(now_s=now_s)

    def receive(self, frame: Frame, *, now_s: float) -> bool:
        """Take a frame of the server."""
        match frame:
            case Message(room=handle, flags=flags) if flags & 1:
                room = self.rooms.get(handle)
                if room is not None:
                    self._on_event(self, ReadBack(room, frame), now_s)
                return True
            case Published(room=handle) | Message(room=handle) | Gap(room=handle) | Head(room=handle):
                room = self.rooms.get(handle)
                if room is None:  # one that we left; or the answer that gives us this handle is still on its way
                    return handle <= self._last_handle
                return room.receive(frame, now_s=now_s)
            case Signal():
                return True
            case _:
                raise RemoteProtocolError("a frame of clients came from a server")

    # --- helpers ----------------------------------------------------------------------------------------

    def _heed_channel(self) -> None:
        channel = self.channel
        if channel is not None and not self.is_over:
            if channel.fault is not None:
                self.close(CloseCode.PROTOCOL, str(channel.fault))
            elif channel.farewell is not None:
                self.closing = CloseCode.of(channel.farewell.code)
                self.state = SessionState.OVER
            elif channel.is_dead:
                self.state = SessionState.OVER

    def _on_record(self, record: ControlRecord, now_s: float) -> None:
        if record.operation == Op.FRAMES:
            if self.channel is None or record.stage != Stage.REQUEST:
                raise RemoteProtocolError("frames of somebody unknown")
            self.channel.receive_frames(record.payload, now_s=now_s)
            return
        payload = record.read()
        match self.state, payload:
            case _, Closing(code=code):
                self.closing = CloseCode.of(code)
                self.state = SessionState.OVER
            case SessionState.HELLO, Greeting():
                self._greeted(record.whole, payload, now_s)
            case SessionState.AUTH, Denied():
                raise RemoteProtocolError("the server refuses everybody")
            case SessionState.AUTH, Authenticated():
                self._recognized(payload, now_s)
            case SessionState.OPEN, Seated(handle=handle) if handle <= self._last_handle:
                raise RemoteProtocolError("a handle that names another room")
            case SessionState.OPEN, Denied() | Seated() | Pages() | MemberPage() | Done():
                if isinstance(payload, Seated):
                    self._last_handle = payload.handle
                self._on_event(self, Told(Op(record.operation), payload), now_s)
            case SessionState.OPEN, None if record.is_of_later_version:
                pass  # nothing that we asked for
            case _:
                raise RemoteProtocolError("a record out of turn")

    def _greeted(self, answer: bytes, greeting: Greeting, now_s: float) -> None:
        if greeting.version != VERSION or greeting.suite != SUITE:
            raise RemoteProtocolError("the server chose what we do not speak")
        self.greeting = greeting
        self._secrets = session_secrets(
            hello=self._hello,
            answer=answer,
            server_key=self._server_key,
            client_secret=self._secret,
            server_secret=bytes.fromhex(greeting.secret),
        )
        self._secret = b""
        self.state = SessionState.AUTH
        self._round_trip_s = now_s - self.began_s
        named = self._named
        request = (
            Authenticate() if named is None else Authenticate(client=named.client.hex(), secret=named.secret.hex())
        )
        self.request(Op.AUTH, request)

    def _recognized(self, answer: Authenticated, now_s: float) -> None:
        assert self._secrets is not None, "HELLO comes before AUTH"
        client = None if self._named is None else self._named.client
        if answer.resumed and bytes.fromhex(answer.client) != client:
            raise RemoteProtocolError("the server takes us for somebody else")
        port = answer.udp_port
        whereabouts = FixedAddress(self._server_address(port or 1))
        self.channel = Channel(
            Direction.TO_SERVER,
            self._secrets,
            peer_id=bytes.fromhex(answer.connection),
            whereabouts=whereabouts,
            randomness=self._randomness,
            traffic=_Traffic(self),
            now_s=now_s,
            round_trip_s=self._round_trip_s,
        )
        self._secrets = None
        self.state = SessionState.OPEN
        self._reader.payload_size_max = PAYLOAD_SIZE_MAX
        if port:
            self.channel.path.begin(now_s=now_s)
        self._on_event(self, Recognized(answer), now_s)


class _Traffic:
    """A session as its channel sees it: ``lost`` is what happens to frames there, and to the connection elsewhere."""

    def __init__(self, session: Session) -> None:
        self.peek = session.peek
        self.pop = session.pop
        self.acknowledged = session.acknowledged
        self.lost = session.lost_load
        self.rewind = session.rewind
        self.receive = session.receive
