"""A server's machines of TCRP/2 without sockets, and clients that are scripts in bytes."""

from __future__ import annotations

import hashlib
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from ocm.errors import JournalFailed
from ocm.protocol.address import Address, make_address
from ocm.protocol.control.packets import Form
from ocm.protocol.entry import CLASSIC_POLICY, Entry, KeptMember, KeptRoom, Policy, Refusal
from ocm.protocol.hub import Delivery, Farewell, Hub, Release, Reseating, Turn
from ocm.protocol.limits import Limits
from ocm.protocol.link.base import Addressing, Link
from ocm.protocol.link.classic import ClassicDoor, ClassicLink, restore_link
from ocm.protocol.link.log import RoomLog
from ocm.protocol.link.modern_session import ModernSession
from ocm.protocol.reception import Knocking, Reception
from ocm.protocol.session.addresses import FixedAddress
from ocm.protocol.session.channel import Channel
from ocm.protocol.session.keys import Direction, session_secrets
from ocm.protocol.session.lane import Load
from ocm.protocol.wire.classic import Stage, write_datagram
from ocm.protocol.wire.frames import Frame, Message, Published, read_frames, write_frame
from ocm.protocol.wire.payload import read_object
from ocm.protocol.wire.records import (
    Authenticate,
    Authenticated,
    Closing,
    Create,
    Denied,
    Greeting,
    Hello,
    Join,
    Op,
    Payload,
    RecordReader,
    Seated,
    Stored,
    write_frames_record,
    write_record,
)
from ocm.protocol.wire.sealed import read_sealed
from tests.campaign.ledger import Ledger

SERVER_KEY = b"the server's public key, as DER"
SERVER = make_address("10.0.0.1", 9001)
LIMITS = Limits()
SPACE = 65_536
T = TypeVar("T", bound=Payload)


class Dice:
    """Bytes that look random and are the same in every run."""

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._count = 0

    def __call__(self, size: int) -> bytes:
        self._count += 1
        return hashlib.shake_256(f"{self._seed} {self._count}".encode()).digest(size)


@dataclass(eq=False)
class Desk:
    """Hub, reception and a journal that answers at once, or when the test says so."""

    limits: Limits = LIMITS
    patient: bool = False
    """Whether the journal waits for ``commit`` and ``fail``."""
    now_s: float = 1000.0
    ledger: Ledger = field(default_factory=Ledger)
    reception_class: type[Reception] = Reception

    def __post_init__(self) -> None:
        self.starts = 0
        self.door = ClassicDoor()
        self.classic: dict[ClassicLink, list[bytes]] = defaultdict(list)
        """What classic members were sent."""
        self.clients: dict[ModernSession, Client] = {}
        self.pending: deque[Turn] = deque()
        self.decide: Callable[[Knocking], str | Refusal | None] = lambda knocking: knocking.request.user
        """Who is let in, and under which name; None: later."""
        self.knocking: list[Knocking] = []
        """Those of whom it is not decided yet."""
        self.space = SPACE
        """Bytes that the server may write to a client at a time."""
        self.oldest_kept = 1
        """The oldest entry that the journal has not dropped."""
        self.unreadable = False
        self.start()

    def start(self) -> None:
        """Begin as the journal remembers it."""
        self.starts += 1
        self.hub = Hub(self.limits, epoch_s=1_700_000_000.0, read=self.read)
        self.reception = self.reception_class(
            self.hub,
            self.limits,
            server_key=SERVER_KEY,
            durability="disk",
            randomness=Dice(f"server {self.starts}"),
            submit=self.submit,
            epoch_s=1_700_000_000.0,
        )
        self.reception.udp_port = 9001
        kept = self.ledger.load()
        self.reception.restore(kept, now_s=self.now_s)
        self.submit(self.hub.restore(kept, self.restore, now_s=self.now_s))

    def read(self, room: str, incarnation: int, first: int, count: int) -> Sequence[Entry]:
        if self.unreadable:
            raise JournalFailed("the disk cannot be read")
        return self.ledger.read(room, incarnation, max(first, self.oldest_kept), count)

    def restore(self, room: KeptRoom, member: KeptMember, log: RoomLog) -> Link | None:
        link = self.reception.restore_link(room, member, log)
        if link is not None:
            return link
        restored = restore_link(member.door, room=room.name, user=member.name, names=False)
        if restored is None:
            return None
        self.door.restored[restored[0]] = restored[1]
        return restored[1]

    def crash(self) -> None:
        """Be killed, and start again; what was not written is gone, and all sessions with it."""
        self.pending.clear()
        self.clients.clear()
        self.door = ClassicDoor()
        self.start()

    # --- the journal ------------------------------------------------------------------------------------

    def submit(self, turn: Turn) -> None:
        if turn.records:
            self.pending.append(turn)
            if not self.patient:
                self.commit()

    def commit(self, count: int = 1_000_000) -> None:
        """Write the oldest batches."""
        for _ in range(min(count, len(self.pending))):
            turn = self.pending.popleft()
            self.ledger.commit(turn.records)
            self.hub.committed(turn.up_to, self.release)
            self.reception.committed(turn.up_to)
        self.flush()

    def fail(self) -> None:
        """Fail to write the oldest batch, and with it all that wait."""
        failed = list(self.pending)
        self.pending.clear()
        for turn in failed:
            self.reception.failed(self.hub.failed(turn.up_to), now_s=self.now_s)
        self.flush()

    def release(self, release: Release) -> None:
        if self.reception.release(release, now_s=self.now_s):
            return
        match release:
            case Delivery(audience, payload, _, skip):
                for link in audience.links:
                    if isinstance(link, ClassicLink) and link is not skip:
                        each = audience.form.addressing is Addressing.EACH
                        self.classic[link].append(link.finish(payload) if each else payload)
            case Farewell(link, payload):
                if isinstance(link, ClassicLink):
                    if payload is not None:
                        self.classic[link].append(payload)
                    self.door.forget(link)
            case Reseating(ClassicLink() as link, ClassicLink() as before):
                self.door.forget(before)
                self.door.links[link.token] = link
            case _:
                pass

    # --- time and traffic -------------------------------------------------------------------------------

    def flush(self) -> None:
        """Bring clients what the server has to say to them; what goes in datagrams is kept for ``pump``."""
        for _ in range(1000):
            stirred = self.reception.stirred()
            if not stirred:
                return
            for session in stirred:
                client = self.clients.get(session)
                data = session.data_to_send(space=self.space, now_s=self.now_s)
                if client is not None:
                    client.feed(data)
                    client.arriving += session.datagrams_to_send(now_s=self.now_s)
                    assert client.spins(), "a timer spins"
        raise AssertionError("it never comes to rest")

    def wait(self, seconds: float) -> None:
        """Let time pass, with everything that becomes due in it."""
        end_s = self.now_s + seconds
        while True:
            due = [(self.hub.next_timeout_s() or end_s, 0)]
            sessions = list(self.clients)
            for place, session in enumerate(sessions, 1):
                due.append((session.next_timeout_s() or end_s, place))
            at_s, place = min(due)
            if at_s >= end_s:
                break
            self.now_s = max(self.now_s, at_s)
            if place:
                self.reception.handle_timeout(sessions[place - 1], now_s=self.now_s)
            else:
                self.submit(self.hub.handle_timeout(now_s=self.now_s))
            self.flush()
            again_s = (sessions[place - 1] if place else self.hub).next_timeout_s()
            assert again_s is None or again_s > self.now_s, "a timer spins"
        self.now_s = end_s
        self.submit(self.hub.handle_timeout(now_s=self.now_s))
        self.flush()

    # --- classic members --------------------------------------------------------------------------------

    def classic_member(
        self, room: str, user: str, *, create: bool = False, form: Form = Form.OCM, policy: Policy = CLASSIC_POLICY
    ) -> ClassicLink | Refusal:
        number = len(self.door.links) + len(self.classic) + 1
        link = ClassicLink(
            form, room=room, user=user, token=b"%036d" % number, address=make_address("10.1.0.1", number)
        )
        if create:
            turn = self.hub.create(
                link, room=room, user=user, now_s=self.now_s, policy=policy, log_id=b"%016d" % number
            )
        else:
            turn = self.hub.join(link, room=room, user=user, now_s=self.now_s)
        if isinstance(turn, Refusal):
            return turn
        self.door.links[link.token] = link
        self.submit(turn)
        self.flush()
        return link

    def say_classic(self, link: ClassicLink, text: str) -> None:
        self.datagram_classic(link, write_datagram(link.room, link.token, text.encode()))

    def datagram_classic(self, link: ClassicLink, data: bytes) -> None:
        intents = self.door.receive_batch([(data, link.address)], now_s=self.now_s)
        self.submit(self.hub.take(intents, now_s=self.now_s))
        self.flush()


class Client:
    """One session of a client: what it sends is written by hand, what comes is kept as it came."""

    def __init__(self, desk: Desk, name: str = "client") -> None:
        self.desk = desk
        self.name = name
        self.address: Address = make_address(f"10.0.1.{sum(name.encode()) % 250}", 4000)
        self.session = desk.reception.open(self.address, now_s=desk.now_s)
        desk.clients[self.session] = self
        self.answers: list[tuple[Op, Payload]] = []
        """Every record that came, oldest first, FRAMES left out."""
        self.frames: list[Frame] = []
        """Frames that came over TLS."""
        self.sealed: list[Frame] = []
        """Frames that came in datagrams."""
        self.arriving: list[tuple[Address, bytes]] = []
        """Datagrams on their way to us."""
        self.handles: dict[str, int] = {}
        self.number = 0
        self.client: str | None = None
        self.secret: str | None = None
        self.channel: Channel | None = None
        self.keeps: Callable[[Frame], bool] = lambda _: True
        self._reader = RecordReader()
        self._reader.payload_size_max = 2**20
        self._dice = Dice(name)
        self._rooms: dict[int, str] = {}
        self._loads: deque[Load] = deque()
        self._hello = b""
        self._client_secret = b""
        self._turns = 0
        self._turned_s = desk.now_s

    # --- the TLS connection -----------------------------------------------------------------------------

    def write(self, *pieces: bytes) -> None:
        """Send bytes over TLS, in one read of the server."""
        desk = self.desk
        for knocking in desk.reception.receive_data(self.session, b"".join(pieces), now_s=desk.now_s):
            decision = desk.decide(knocking)
            if decision is None:
                desk.knocking.append(knocking)
            else:
                desk.reception.let_in(knocking, decision, now_s=desk.now_s)
        desk.flush()

    def feed(self, data: bytes) -> None:
        """Take bytes of the server."""
        self._reader.feed(data)
        while (record := self._reader.next()) is not None:
            if record.operation == Op.FRAMES:
                self.frames += read_frames(record.payload, frames_max=4096)
                continue
            payload = record.read() or read_object(record.payload, Denied)
            self.answers.append((Op(record.operation) if record.operation in set(Op) else Op.CLOSE, payload))
            if isinstance(payload, Greeting):
                self._agree(record.whole, payload)
            if isinstance(payload, Authenticated):
                self.client, self.secret = payload.client, payload.secret
                self._open(payload)
            if isinstance(payload, Seated):
                self.handles[self._rooms.get(payload.id, "")] = payload.handle

    def spins(self) -> bool:
        """Count how often we were sent to at one moment."""
        self._turns = self._turns + 1 if self._turned_s == self.desk.now_s else 0
        self._turned_s = self.desk.now_s
        return self._turns < 2000

    def last(self, kind: type[T]) -> T:
        """Return the newest answer, which is of this kind."""
        payload = self.answers[-1][1]
        assert isinstance(payload, kind), payload
        return payload

    def all(self, kind: type[T]) -> list[T]:
        return [payload for _, payload in self.answers if isinstance(payload, kind)]

    @property
    def closed(self) -> int | None:
        """The code with which the server has closed."""
        closings = self.all(Closing)
        return closings[0].code if closings else None

    # --- what clients say -------------------------------------------------------------------------------

    def hello(self, **other: object) -> bytes:
        self._client_secret = self._dice(32)
        hello = Hello(versions=[2], suites=[1], secret=self._client_secret.hex(), connection=self._dice(8).hex())
        self._hello = write_record(Op.HELLO, Stage.REQUEST, hello)
        self._connection = bytes.fromhex(hello.connection)
        return self._hello

    def authenticate(self, before: Client | None = None, **given: str) -> Client:
        """Say who we are; return ourselves."""
        client, secret = (before.client, before.secret) if before is not None else (None, None)
        request = Authenticate(client=given.get("client", client), secret=given.get("secret", secret))
        self.write(self.hello(), write_record(Op.AUTH, Stage.REQUEST, request))
        return self

    def stored(self) -> None:
        self.write(write_record(Op.AUTH_STORED, Stage.REQUEST, Stored()))

    def create_record(self, room: str, user: str | None = None, **other: object) -> bytes:
        return self._entering(Op.CREATE, room, Create, user, other)

    def join_record(self, room: str, user: str | None = None, **other: object) -> bytes:
        return self._entering(Op.JOIN, room, Join, user, other)

    def create(self, room: str, user: str | None = None, **other: object) -> Payload:
        self.write(self.create_record(room, user, **other))
        return self.answers[-1][1]

    def join(self, room: str, user: str | None = None, **other: object) -> Payload:
        self.write(self.join_record(room, user, **other))
        return self.answers[-1][1]

    def ask(self, op: Op, make: Callable[..., Payload], **fields: object) -> Payload:
        """Ask something, with a new id; return the newest answer."""
        self.number += 1
        self.write(write_record(op, Stage.REQUEST, make(id=self.number, **fields)))
        return self.answers[-1][1]

    def say(self, *frames: Frame) -> None:
        """Send frames over TLS."""
        self.write(write_frames_record(b"".join(map(write_frame, frames))))

    def texts(self, room: str | None = None) -> list[str]:
        """What was heard, in the order of its coming."""
        return [one.body.decode() for one in self.heard() if one.kind == 0]

    def heard(self) -> list[Message]:
        return [one for one in (*self.frames, *self.sealed) if isinstance(one, Message) and not one.flags & 1]

    def seqs(self) -> list[int]:
        return [one.seq for one in self.heard()]

    def published(self) -> list[tuple[int, int]]:
        """Message ids and statuses, in the order of their coming."""
        answers = [one for one in (*self.frames, *self.sealed) if isinstance(one, Published)]
        return [(one.message_id, one.status) for one in answers]

    # --- datagrams --------------------------------------------------------------------------------------

    def use_datagrams(self) -> None:
        """Prove our address, and let the server prove its."""
        assert self.channel is not None
        self.channel.path.begin(now_s=self.desk.now_s)
        for _ in range(20):
            if self.session.channel is not None and self.session.channel.carries and self.channel.carries:
                return
            self.pump()
            self.desk.wait(0.02)
        raise AssertionError("no way for datagrams")

    def seal(self, *frames: Frame) -> None:
        """Send frames in datagrams."""
        self._loads.extend(Load(write_frame(frame), self, frame) for frame in frames)
        self.pump()

    def pump(self) -> None:
        """Let datagrams go to and fro until there are none."""
        channel, desk = self.channel, self.desk
        assert channel is not None
        for _ in range(1000):
            sent = channel.datagrams_to_send(now_s=desk.now_s)
            arriving, self.arriving = self.arriving, []
            if not sent and not arriving:
                return
            for _, data in arriving:
                datagram = read_sealed(data)
                assert datagram is not None
                channel.receive_datagram(datagram, SERVER, len(data), now_s=desk.now_s)
                assert channel.fault is None, channel.fault
            desk.reception.receive_batch([(data, self.address) for _, data in sent], now_s=desk.now_s)
            desk.flush()
        raise AssertionError("datagrams go to and fro for ever")

    def lose_stream(self) -> None:
        """Lose the TLS connection, and let both sides know."""
        if self.channel is not None:
            self.channel.stream_lost(now_s=self.desk.now_s)
        self.desk.reception.stream_lost(self.session, now_s=self.desk.now_s)
        self.desk.flush()

    # --- Traffic ----------------------------------------------------------------------------------------

    def peek(self, *, space: int, now_s: float) -> Load | None:
        return self._loads[0] if self._loads else None

    def pop(self) -> None:
        self._loads.popleft()

    def acknowledged(self, load: Load) -> None: ...

    def lost(self, load: Load, *, now_s: float) -> None:
        self._loads.append(load)

    def rewind(self, *, now_s: float) -> None: ...

    def receive(self, frame: Frame, *, now_s: float) -> bool:
        if not self.keeps(frame):
            return False
        self.sealed.append(frame)
        return True

    # --- helpers ----------------------------------------------------------------------------------------

    def _entering(
        self, op: Op, room: str, make: Callable[..., Payload], user: str | None, other: dict[str, object]
    ) -> bytes:
        self.number += 1
        self._rooms[self.number] = room
        return write_record(
            op, Stage.REQUEST, make(id=self.number, room=room, user=self.name if user is None else user, **other)
        )

    def _agree(self, answer: bytes, greeting: Greeting) -> None:
        self.secrets = session_secrets(
            hello=self._hello,
            answer=answer,
            server_key=SERVER_KEY,
            client_secret=self._client_secret,
            server_secret=bytes.fromhex(greeting.secret),
        )

    def _open(self, authenticated: Authenticated) -> None:
        self.channel = Channel(
            Direction.TO_SERVER,
            self.secrets,
            peer_id=bytes.fromhex(authenticated.connection),
            whereabouts=FixedAddress(SERVER),
            randomness=self._dice,
            traffic=self,
            now_s=self.desk.now_s,
        )


def known(desk: Desk, name: str) -> Client:
    """Return a new client that the server knows."""
    return Client(desk, name).authenticate()


def seat(desk: Desk, room: str, *names: str, **create: str | bool) -> list[Client]:
    """Return new clients that are in a room; the first has made it."""
    clients = [known(desk, name) for name in names]
    for number, client in enumerate(clients):
        answer = client.join(room) if number else client.create(room, None, **create)
        assert isinstance(answer, Seated), answer
    return clients


def denied(payload: Payload) -> int:
    """Return the code of a refusal."""
    assert isinstance(payload, Denied), payload
    return payload.code
