"""A server in bytes that says what a test tells it to, a client at the other end, and nobody's clock."""

from __future__ import annotations

from collections import deque
from typing import Any, Final, TypeVar

from ocm.protocol.address import Address, make_address
from ocm.protocol.agent import Agent, AgentEvent, AgentRoom, Session
from ocm.protocol.entry import Kind
from ocm.protocol.events import Event
from ocm.protocol.limits import Limits
from ocm.protocol.memory import Memo, Memory
from ocm.protocol.session.addresses import Addresses
from ocm.protocol.session.channel import Channel
from ocm.protocol.session.keys import Direction, session_secrets
from ocm.protocol.session.lane import Load
from ocm.protocol.wire.classic import Stage
from ocm.protocol.wire.frames import Frame, Head, Message, Published, read_frames, write_frame
from ocm.protocol.wire.records import (
    PAYLOAD_SIZE_MAX,
    Authenticate,
    Authenticated,
    CloseCode,
    Closing,
    Create,
    Denied,
    Done,
    Greeting,
    Hello,
    Join,
    MemberRow,
    Op,
    Payload,
    RecordReader,
    RoomRequest,
    Seated,
    write_frames_record,
    write_record,
)
from ocm.protocol.wire.sealed import read_sealed
from ocm.transport.link_model import Draws, stream_key

P = TypeVar("P", bound=Payload)
H = TypeVar("H", bound=AgentEvent)

KEY: Final = b"the server's public key, as DER"
OTHER_KEY: Final = b"another server's public key, as DER"
SERVER: Final = make_address("10.0.0.1", 9001)
CLIENT: Final = make_address("10.0.0.2", 40000)
CLIENT_ID: Final = b"c" * 16
SECRETS: Final = (b"1" * 32, b"2" * 32, b"3" * 32)
SERVER_CONNECTION: Final = b"to serve"
LOG: Final = b"l" * 16
OTHER_LOG: Final = b"m" * 16
ROOM: Final = "room"
ME: Final = 2


def seated(number: int, **changes: Any) -> Seated:
    """The answer to CREATE and JOIN: member 2 of a room that member 1 made."""
    said: dict[str, Any] = {
        "id": number,
        "member": ME,
        "handle": 1,
        "log": LOG.hex(),
        "head": 10,
        "oldest": 1,
        "start": 10,
        "mark": 0,
        "resumed": False,
        "access": "modern",
        "lifetime": "close",
        "durable": True,
        "host": 1,
        "members": [MemberRow(1, "bob"), MemberRow(ME, "aiko")],
    }
    return Seated(**(said | changes))


def text(seq: int, body: bytes = b"hello", *, sender: int = 1, message_id: int = 0, handle: int = 1) -> Message:
    return Message(handle, seq, sender, message_id, 5000, Kind.TEXT, 0, body)


def change(seq: int, kind: int, body: bytes, *, handle: int = 1) -> Message:
    return Message(handle, seq, 1, 0, 5000, kind, 0, body)


def yes(message_id: int, seq: int = 11, *, handle: int = 1) -> Published:
    return Published(handle, message_id, 0, seq, 5000)


class Line:
    """One connection: the client's session, and the server's end of it."""

    def __init__(self, client: Client, session: Session, key: bytes) -> None:
        self.client = client
        self.session = session
        self.frames: list[Frame] = []
        """What came over TLS and was not looked at."""
        self.channel: Channel | None = None
        self.traffic = Traffic(self)
        self._key = key
        self._records: deque[tuple[Op, Payload]] = deque()
        self._reader = RecordReader()
        self._reader.payload_size_max = PAYLOAD_SIZE_MAX
        self._hello = self._answer = b""

    # --- what the client says -----------------------------------------------------------------------------

    def listen(self) -> None:
        """Take what the client has to say over TLS."""
        self._reader.feed(self.session.data_to_send(space=65_536, now_s=self.client.now_s))
        while (record := self._reader.next()) is not None:
            if record.operation == Op.FRAMES:
                self.frames += read_frames(record.payload, frames_max=4096)
                continue
            payload = record.read()
            assert payload is not None
            if record.operation == Op.HELLO:
                self._hello = record.whole
            self._records.append((Op(record.operation), payload))

    def hear(self, kind: type[P]) -> P:
        """Return the client's next record, which is of this kind."""
        self.listen()
        assert self._records, "the client says nothing"
        _, payload = self._records.popleft()
        assert isinstance(payload, kind)
        return payload

    def hear_nothing(self) -> None:
        self.listen()
        assert not self._records

    def hear_frames(self, kind: type[Frame]) -> list[Frame]:
        self.listen()
        frames, self.frames = self.frames, []
        return [frame for frame in frames if isinstance(frame, kind)]

    # --- what the server says -----------------------------------------------------------------------------

    def say(self, op: Op, stage: Stage, payload: Payload) -> None:
        self.say_bytes(write_record(op, stage, payload))

    def say_bytes(self, data: bytes) -> None:
        self.session.receive_data(data, now_s=self.client.now_s)

    def say_frames(self, *frames: Frame) -> None:
        self.say_bytes(write_frames_record(b"".join(map(write_frame, frames))))

    def greet(self, *, version: int = 2, suite: int = 1, burst: int = 200, rate: float = 50.0) -> Hello:
        hello = self.hear(Hello)
        self._answer = write_record(
            Op.HELLO,
            Stage.STATUS,
            Greeting(
                version=version,
                suite=suite,
                secret="ab" * 32,
                durability="disk",
                burst=burst,
                rate=rate,
                body_max=61_440,
            ),
        )
        self.say_bytes(self._answer)
        return hello

    def recognize(
        self,
        *,
        client: bytes = CLIENT_ID,
        secret: bytes = SECRETS[0],
        resumed: bool = False,
        udp_port: int = 0,
    ) -> Authenticate:
        asked = self.hear(Authenticate)
        secrets = session_secrets(
            hello=self._hello,
            answer=self._answer,
            server_key=self._key,
            client_secret=_secret_of(self._hello),
            server_secret=bytes.fromhex("ab" * 32),
        )
        self.channel = Channel(
            Direction.TO_CLIENT,
            secrets,
            peer_id=self.session.connection_id,
            whereabouts=Addresses(randomness=self.client.draws.data),
            randomness=self.client.draws.data,
            traffic=self.traffic,
            now_s=self.client.now_s,
        )
        self.say_known(client=client, secret=secret, resumed=resumed, udp_port=udp_port)
        return asked

    def say_known(
        self, *, client: bytes = CLIENT_ID, secret: bytes = SECRETS[0], resumed: bool = False, udp_port: int = 0
    ) -> None:
        """Say AUTH.2."""
        self.say(
            Op.AUTH,
            Stage.COMPLETE,
            Authenticated(
                client=client.hex(),
                resumed=resumed,
                secret=secret.hex(),
                connection=SERVER_CONNECTION.hex(),
                udp_port=udp_port,
            ),
        )

    def seat(self, **changes: Any) -> Create | Join:
        """Let the client in, as it asks."""
        self.listen()
        op, asked = self._records.popleft()
        assert isinstance(asked, Create | Join)
        self.say(op, Stage.COMPLETE, seated(asked.id, **changes))
        return asked

    def deny(self, code: int, *, wait_ms: int = 0) -> Create | Join:
        self.listen()
        op, asked = self._records.popleft()
        assert isinstance(asked, Create | Join)
        self.say(op, Stage.STATUS, Denied(id=asked.id, code=code, message="no", wait_ms=wait_ms))
        return asked

    def let_leave(self) -> RoomRequest:
        asked = self.hear(RoomRequest)
        self.say(Op.LEAVE, Stage.COMPLETE, Done(id=asked.id))
        return asked

    def close(self, code: CloseCode) -> None:
        self.say(Op.CLOSE, Stage.REQUEST, Closing(code=code))

    def lose(self) -> None:
        self.session.lost(now_s=self.client.now_s)

    # --- datagrams ----------------------------------------------------------------------------------------

    def exchange(self) -> None:
        """Let datagrams pass both ways until there are none."""
        assert self.channel is not None
        agent, now_s = self.client.agent, self.client.now_s
        while True:
            up = agent.datagrams_to_send(now_s=now_s)
            self.take(up)
            down = self.channel.datagrams_to_send(now_s=now_s)
            for _, data in down:
                agent.receive_datagram(data, SERVER, now_s=now_s)
            if not up and not down:
                return

    def take(self, datagrams: list[tuple[Address, bytes]]) -> None:
        """Take datagrams of the client, all of which open."""
        assert self.channel is not None
        for address, data in datagrams:
            assert address == SERVER
            datagram = read_sealed(data)
            assert datagram is not None
            assert datagram.connection_id == SERVER_CONNECTION
            assert self.channel.receive_datagram(datagram, CLIENT, len(data), now_s=self.client.now_s)


class Traffic:
    """What the server says and hears in datagrams."""

    def __init__(self, line: Line) -> None:
        self.waiting: deque[Frame] = deque()
        self.frames: list[Frame] = []
        self.told: list[Load] = []

    def say(self, *frames: Frame) -> None:
        self.waiting.extend(frames)

    def peek(self, *, space: int, now_s: float) -> Load | None:
        return Load(write_frame(self.waiting[0]), self) if self.waiting else None

    def pop(self) -> None:
        self.waiting.popleft()

    def acknowledged(self, load: Load) -> None:
        self.told.append(load)

    def lost(self, load: Load, *, now_s: float) -> None: ...

    def rewind(self, *, now_s: float) -> None: ...

    def receive(self, frame: Frame, *, now_s: float) -> bool:
        self.frames.append(frame)
        return True


class Client:
    """An agent, its store, and the driver that a test is."""

    def __init__(self, memory: Memory | None = None, *, limits: Limits | None = None, jitter: float = 0.0) -> None:
        self.memory = memory or Memory()
        self.draws = Draws(stream_key(7, "agent"))
        self.now_s = 100.0
        self.events: list[AgentEvent] = []
        self.memos: list[Memo] = []
        """All that were handed out."""
        self._unstored: list[Memo] = []
        self._stored = 0
        self.left = False
        """Whether the room is being left."""
        self.agent = Agent(
            self.memory.copy(),
            user="aiko",
            limits=limits or Limits(),
            randomness=self.draws.data,
            jitter=lambda: jitter,
        )

    def enter(self, room: str = ROOM, *, create: bool = False) -> None:
        self.agent.enter(room, create=create, now_s=self.now_s)

    def open(self, *, key: bytes = KEY) -> Line:
        """Have a connection, on which nothing was said."""
        self.agent.dialling(now_s=self.now_s)
        session = self.agent.opened(server_key=key, server_address=address_of, now_s=self.now_s)
        return Line(self, session, key)

    def connect(
        self,
        *,
        key: bytes = KEY,
        client: bytes = CLIENT_ID,
        secret: bytes = SECRETS[0],
        resumed: bool = False,
        udp_port: int = 0,
    ) -> Line:
        """Have a connection on which the server knows us."""
        line = self.open(key=key)
        line.greet()
        line.recognize(client=client, secret=secret, resumed=resumed, udp_port=udp_port)
        return line

    def sit(self, **changes: Any) -> Line:
        """Be in the room."""
        self.enter()
        line = self.connect()
        line.seat(**changes)
        self.store()
        return line

    def sit_beside(self) -> Line:
        """Be in the room, and wait for the answer of others that are wanted."""
        self.enter()
        line = self.connect()
        assert line.hear(Join).room != ROOM
        line.seat()
        self.store()
        return line

    def connect_by_datagram(self) -> Line:
        """Be in the room, and have a path."""
        self.enter()
        line = self.connect(udp_port=9001)
        line.seat()
        self.store()
        line.exchange()
        return line

    def hand_out(self) -> list[Memo]:
        """Take what is to be stored, and store nothing."""
        memos = self.agent.memos_to_store()
        self.memos += memos
        self._unstored += memos
        return memos

    def store(self, count: int | None = None) -> None:
        """Store what is to be stored, or so many of it, and say so."""
        self.hand_out()
        count = len(self._unstored) if count is None else count
        for memo in self._unstored[:count]:
            self.memory.apply(memo)
        del self._unstored[:count]
        self._stored += count
        self.agent.stored(self._stored, now_s=self.now_s)

    def fail_to_store(self) -> None:
        """Store nothing of what is to be stored, and say so."""
        self.hand_out()
        self._unstored.clear()
        self.agent.store_failed("full")

    def post(self, body: bytes = b"hi", room: str = ROOM) -> int:
        return self.agent.post(room, body, now_s=self.now_s)

    def say(self, body: bytes = b"hi") -> int:
        """Post, and store."""
        message_id = self.post(body)
        self.store()
        return message_id

    def read(self, room: str = ROOM) -> list[Event]:
        events: list[Event] = []
        while (event := self.agent.read(room, now_s=self.now_s)) is not None:
            events.append(event)
        return events

    def pass_s(self, seconds: float) -> None:
        self.now_s += seconds
        self.agent.handle_timeout(now_s=self.now_s)

    def happened(self, kind: type[H]) -> list[H]:
        """Return what of this kind happened since this was last asked for anything."""
        events = self.agent.events()
        self.events += events
        return [event for event in events if isinstance(event, kind)]

    @property
    def room(self) -> AgentRoom:
        return self.agent.room(ROOM)


def address_of(port: int) -> Address:
    return make_address("10.0.0.1", port)


def head(number: int, *, handle: int = 1) -> Head:
    return Head(handle, number, 1)


def _secret_of(hello: bytes) -> bytes:
    reader = RecordReader()
    reader.feed(hello)
    record = reader.next()
    assert record is not None
    said = record.read()
    assert isinstance(said, Hello)
    return bytes.fromhex(said.secret)
