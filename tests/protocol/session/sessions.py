"""Both sides of a session on a simulated network: datagrams over links that lose, records through a pipe that does not.

Whatever a test does, this holds: nothing is acknowledged that the other side did not take, nobody unproved is sent more
than the rules allow, and no side wants to be woken again and again at one moment.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Final

from ocm.protocol.address import Address, make_address
from ocm.protocol.session.addresses import AMPLIFICATION, Addresses, FixedAddress
from ocm.protocol.session.channel import Channel, Whereabouts
from ocm.protocol.session.keys import Direction, SessionSecrets
from ocm.protocol.session.lane import Load
from ocm.protocol.session.path import PathState
from ocm.protocol.wire.frames import Frame, Message, Publish, read_frames, write_frame
from ocm.protocol.wire.records import FRAMES_RECORD_SIZE_MAX, RecordReader, write_frames_record
from ocm.protocol.wire.sealed import SEALED_SIZE_MAX, SealedDatagram, read_sealed
from ocm.testing import Exchange, LinkModel
from ocm.transport.link_model import Draws, stream_key

SECRETS: Final = SessionSecrets(to_server=b"s" * 32, to_client=b"c" * 32)
CLIENT_ID: Final = b"to aiko!"
SERVER_ID: Final = b"to serve"
PIPE_SIZE_MAX: Final = 64 * 1024
"""Bytes that may wait in a pipe before its writer is told that there is no space."""
WAKES_MAX: Final = 20
"""Times that a side may be woken at one moment of time."""
BODY_SIZE: Final = 80


def address_of(name: str) -> Address:
    """Give a host, ``name`` or ``name@2`` after it moved, an address."""
    host, _, moves = name.partition("@")
    digits = sum(host.encode()) % 250
    return make_address(f"10.0.{digits}.{moves or 1}", 4000)


def number_of(frame: Message | Publish) -> int:
    return frame.seq if isinstance(frame, Message) else frame.message_id


class Numbered:
    """Numbered frames, PUBLISH of a client and MESSAGE of a server; what is told lost is said again."""

    def __init__(self, *, is_client: bool, sizes: Callable[[int], int] = lambda _: BODY_SIZE) -> None:
        self.waiting: deque[int] = deque()
        self.said = 0
        self.settled: set[int] = set()
        self.popped: Counter[int] = Counter()
        self.told_lost: Counter[int] = Counter()
        self.rewinds = 0
        self.taken: Counter[int] = Counter()
        self.keeps: Callable[[int], bool] = lambda _: True
        self.peer: Numbered = self
        self._is_client = is_client
        self._sizes = sizes

    def say(self, count: int) -> None:
        self.waiting.extend(range(self.said + 1, self.said + count + 1))
        self.said += count

    def is_done(self) -> bool:
        """Whether all that was said arrived."""
        return set(self.peer.taken) == set(range(1, self.said + 1))

    def frame(self, number: int) -> bytes:
        body = bytes(self._sizes(number))
        if self._is_client:
            return write_frame(Publish(1, number, 0, body))
        return write_frame(Message(1, number, 1, number, 0, 0, 0, body))

    # --- Traffic ----------------------------------------------------------------------------------------

    def peek(self, *, space: int, now_s: float) -> Load | None:
        while self.waiting and self.waiting[0] in self.settled:
            self.waiting.popleft()
        return Load(self.frame(self.waiting[0]), self, self.waiting[0]) if self.waiting else None

    def pop(self) -> None:
        self.popped[self.waiting.popleft()] += 1

    def acknowledged(self, load: Load) -> None:
        number = self._key(load)
        assert number in self.peer.taken, "acknowledged, and never taken"
        self.settled.add(number)

    def lost(self, load: Load, *, now_s: float) -> None:
        self.told_lost[self._key(load)] += 1
        self._again([self._key(load)])

    def rewind(self, *, now_s: float) -> None:
        self.rewinds += 1
        self._again(sorted(self.popped))

    def receive(self, frame: Frame, *, now_s: float) -> bool:
        assert isinstance(frame, Message if self._is_client else Publish)
        number = number_of(frame)
        if not self.keeps(number):
            return False
        self.taken[number] += 1
        return True

    def _key(self, load: Load) -> int:
        assert load.owner is self
        assert isinstance(load.key, int)
        return load.key

    def _again(self, numbers: Iterable[int]) -> None:
        waiting = set(self.waiting)
        self.waiting.extend(number for number in numbers if number not in self.settled | waiting)


class Side:
    """A channel, its traffic, and the machine that the exchange sees."""

    def __init__(self, name: str, channel: Channel, traffic: Numbered) -> None:
        self.name = name
        self.channel = channel
        self.traffic = traffic
        self.pipe: Pipe | None = None
        self.reader = RecordReader()
        self.reader.payload_size_max = 2**20
        self.gives_up_at_s: float | None = None
        """When the pulse said that the TLS connection is to be given up."""
        self.states: list[tuple[float, PathState]] = [(0.0, channel.path.state)]
        self.datagrams = 0
        self.recorded: set[int] = set()
        """What went over TLS."""
        self.received: Counter[Address] = Counter()
        self.sent: Counter[Address] = Counter()
        self.packets: Counter[Address] = Counter()
        self._names: dict[Address, str] = {}
        self._wakes: Counter[float] = Counter()

    def when_s(self, state: PathState) -> float:
        """When the path last came into a state."""
        return next(at_s for at_s, one in reversed(self.states) if one is state)

    def accounts_for_all(self) -> bool:
        """Whether all that was said is known to have come, or was told lost, or went over TLS."""
        traffic = self.traffic
        return set(traffic.popped) <= traffic.settled | set(traffic.told_lost) | self.recorded

    # --- Machine ----------------------------------------------------------------------------------------

    def receive_datagram(self, data: bytes, source: str, *, now_s: float) -> bool:
        address = address_of(source)
        self._names[address] = source
        datagram = read_sealed(data)
        assert datagram is not None
        opened = self.channel.receive_datagram(datagram, address, len(data), now_s=now_s)
        if opened:
            self.received[address] += len(data)
        return opened

    def datagrams_to_send(self, *, now_s: float) -> list[tuple[str, bytes]]:
        proved = self.channel.whereabouts.current
        out: list[tuple[str, bytes]] = []
        for address, data in self.channel.datagrams_to_send(now_s=now_s):
            self.datagrams += 1
            assert len(data) <= SEALED_SIZE_MAX
            if address != proved:
                self.sent[address] += len(data)
                self.packets[address] += 1
                assert self.sent[address] <= AMPLIFICATION * self.received[address], "a reflector"
            out.append((self._names.get(address, "server"), data))
        if self.pipe is not None:
            for payload in self.channel.records_to_send(space=self.pipe.space, now_s=now_s):
                frames = read_frames(payload, frames_max=4096)
                self.recorded |= {number_of(frame) for frame in frames if isinstance(frame, Message | Publish)}
                assert len(payload) <= FRAMES_RECORD_SIZE_MAX or len(frames) == 1
                self.pipe.write(write_frames_record(payload))
        if self.channel.path.state is not self.states[-1][1]:
            self.states.append((now_s, self.channel.path.state))
        return out

    def next_timeout_s(self) -> float | None:
        return self.channel.next_timeout_s()

    def handle_timeout(self, *, now_s: float) -> None:
        self._wakes[now_s] += 1
        assert self._wakes[now_s] <= WAKES_MAX, "it spins"
        if self.channel.handle_timeout(now_s=now_s):
            self.gives_up_at_s = now_s


class Pipe:
    """One direction of a TLS connection: bytes arrive in order and late, in pieces that are none of the writer's."""

    def __init__(self, exchange: Exchange, source: Side, target: Side, *, delay_s: float) -> None:
        self.delay_s = delay_s
        self.is_cut = False
        """Takes bytes, and gives none."""
        self._exchange = exchange
        self._source = source
        self._target = target
        self._waiting = 0

    @property
    def space(self) -> int:
        return PIPE_SIZE_MAX - self._waiting

    def write(self, data: bytes) -> None:
        self._waiting += len(data)
        for start in range(0, len(data), 1000):
            self._exchange.at(self._exchange.now_s + self.delay_s, self._arrival(data[start : start + 1000]))

    def _arrival(self, piece: bytes) -> Callable[[], None]:
        def arrive() -> None:
            if self.is_cut or not self._target.channel.stream_up:
                return
            self._waiting -= len(piece)
            now_s = self._exchange.now_s
            channel, reader = self._target.channel, self._target.reader
            channel.hear_stream(now_s=now_s)
            reader.feed(piece)
            while (record := reader.next()) is not None:
                channel.receive_frames(record.payload, now_s=now_s)
            self._exchange.wake(self._target.name)
            self._exchange.wake(self._source.name)

        return arrive


class Session:
    """A client ``aiko`` and a ``server``, joined by links and by pipes."""

    def __init__(
        self,
        *,
        seed: int = 0,
        sizes: Callable[[int], int] = lambda _: BODY_SIZE,
        stream_delay_s: float = 0.05,
        channel: type[Channel] = Channel,
    ) -> None:
        self.links = LinkModel(seed)
        self.links.link("aiko", delay_s=0.02)
        self.exchange = Exchange(self.links)
        self.client = self._side(Direction.TO_SERVER, channel, sizes)
        self.server = self._side(Direction.TO_CLIENT, channel, sizes)
        self.sides = (self.client, self.server)
        for one, other in (self.sides, self.sides[::-1]):
            one.traffic.peer = other.traffic
            one.pipe = Pipe(self.exchange, one, other, delay_s=stream_delay_s)
            self.exchange.add(one.name, one)

    def _side(self, sends: Direction, channel: type[Channel], sizes: Callable[[int], int]) -> Side:
        is_client = sends is Direction.TO_SERVER
        name = "aiko" if is_client else "server"
        randomness = Draws(stream_key(self.links.seed, name)).data
        whereabouts: Whereabouts
        whereabouts = FixedAddress(address_of("server")) if is_client else Addresses(randomness=randomness)
        traffic = Numbered(is_client=is_client, sizes=sizes)
        made = channel(
            sends,
            SECRETS,
            peer_id=SERVER_ID if is_client else CLIENT_ID,
            whereabouts=whereabouts,
            randomness=randomness,
            traffic=traffic,
            now_s=0.0,
        )
        return Side(name, made, traffic)

    @property
    def now_s(self) -> float:
        return self.exchange.now_s

    def begin(self) -> None:
        """Let the client know of a UDP port."""
        self.client.channel.path.begin(now_s=self.now_s)
        self.wake()

    def wake(self) -> None:
        for side in self.sides:
            self.exchange.wake(side.name)

    def say(self, count: int) -> None:
        """Let both sides say so many things."""
        for side in self.sides:
            side.traffic.say(count)
        self.wake()

    def trickle(self, count: int, *, every_s: float, from_s: float = 0.0) -> None:
        """Let both sides say one thing again and again."""
        for number in range(count):
            self.exchange.at(self.now_s + from_s + number * every_s, lambda: self.say(1))

    def run(self, for_s: float) -> None:
        self.exchange.run(until_s=self.now_s + for_s)
        for side in self.sides:
            assert side.channel.fault is None, side.channel.fault

    def run_until(self, is_so: Callable[[], bool], *, within_s: float) -> float:
        """Run until something is so; return how many seconds it took."""
        start_s = self.now_s
        while not is_so():
            assert self.now_s - start_s < within_s, f"not within {within_s} s"
            self.run(0.1)
        return self.now_s - start_s

    def is_done(self) -> bool:
        return all(side.traffic.is_done() for side in self.sides)

    def finish(self, *, within_s: float) -> float:
        """Run until all that was said arrived, and until nothing is under way; return how long the former took."""
        took_s = self.run_until(self.is_done, within_s=within_s)
        self.run(25.0)
        assert all(side.accounts_for_all() for side in self.sides)
        return took_s

    def are(self, state: PathState) -> bool:
        return all(side.channel.path.state is state for side in self.sides)

    def up(self) -> None:
        """Begin, and wait until both can send datagrams."""
        self.begin()
        self.run_until(lambda: self.are(PathState.UP), within_s=60.0)

    def cut_stream(self) -> None:
        """Let the TLS connection carry nothing any more; nobody is told."""
        for side in self.sides:
            assert side.pipe is not None
            side.pipe.is_cut = True

    def lose_stream(self) -> None:
        """Let both sides hear that the TLS connection is gone."""
        for side in self.sides:
            side.channel.stream_lost(now_s=self.now_s)
        self.wake()


def parsed(data: bytes) -> SealedDatagram:
    datagram = read_sealed(data)
    assert datagram is not None
    return datagram
