"""What somebody on the way can throw at sealed datagrams: changed bits, replays, packets of other places.

None of it is taken. A server's machines and clients of it, with the real codec and cipher: who throws sees every
datagram before it comes, and has packets of every session, direction and epoch to choose from.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from ocm.protocol.address import Address, make_address
from ocm.protocol.session.keys import EPOCH_BITS, EpochKey, next_secret
from ocm.protocol.session.lane import Load
from ocm.protocol.wire.frames import Ping, Publish, write_frame
from ocm.protocol.wire.sealed import CONNECTION_ID_SIZE, ESCAPE, HEADER_SIZE, TAG_SIZE, read_sealed, write_header
from ocm.transport.link_model import Draws, stream_key
from tests.protocol.desk import SERVER, Client, Desk, known

STEP_S: Final = 0.05
ELSEWHERE: Final = make_address("10.200.0.9", 4000)
_PUBLISH_SIZE: Final = HEADER_SIZE + TAG_SIZE + len(write_frame(Publish(1, 1, 0, b"")))
_CONNECTION: Final = slice(len(ESCAPE), len(ESCAPE) + CONNECTION_ID_SIZE)
_NUMBER: Final = slice(_CONNECTION.stop, HEADER_SIZE)


@dataclass(frozen=True)
class Caught:
    """A datagram as it was seen on its way."""

    session: Talker
    to_server: bool
    data: bytes

    @property
    def number(self) -> int:
        return int.from_bytes(self.data[_NUMBER], "big")


@dataclass
class Count:
    """What was thrown, and what of it was taken."""

    thrown: int = 0
    taken: int = 0
    kinds: dict[str, int] = field(default_factory=dict[str, int])

    def add(self, kind: str, thrown: int, taken: int) -> None:
        self.thrown += thrown
        self.taken += taken
        self.kinds[kind] = self.kinds.get(kind, 0) + thrown


class Talker:
    """A client in a room that talks by datagrams, each of which is caught before it comes."""

    def __init__(self, desk: Desk, client: Client) -> None:
        self.desk = desk
        self.client = client
        self.caught: list[Caught] = []
        self.said = 0

    def say(self, size: int) -> list[Caught]:
        """Publish something; return the datagrams, of about ``size`` bytes, that do not come yet."""
        body = b"x" * (size - _PUBLISH_SIZE)
        self.said += 1
        return self.send(write_frame(Publish(self.client.handles["lobby"], self.said, 0, body)))

    def send(self, frame: bytes) -> list[Caught]:
        """Send a frame; return the datagrams, which do not come yet."""
        client, channel = self.client, self.client.channel
        assert channel is not None
        client._loads.append(Load(frame, client, None))
        for _ in range(40):
            out = [data for _, data in channel.datagrams_to_send(now_s=self.desk.now_s)]
            if out:
                return self._catch(out, to_server=True)
            self.desk.wait(STEP_S)
            channel.handle_timeout(now_s=self.desk.now_s)
        raise AssertionError("nothing is sent")

    def answers(self) -> list[Caught]:
        """Return the datagrams that the server has sent, which do not come yet."""
        self.desk.wait(STEP_S)
        out = [data for _, data in self.client.arriving]
        self.client.arriving.clear()
        return self._catch(out, to_server=False)

    def throw(self, data: Iterable[bytes], *, to_server: bool, source: Address | None = None) -> int:
        """Let datagrams come; return how many were taken."""
        desk, client = self.desk, self.client
        if to_server:
            counters = desk.reception.counters
            batch = [(one, source or client.address) for one in data]
            before = counters.not_sealed + counters.unknown + counters.not_opened
            desk.reception.receive_batch(batch, now_s=desk.now_s)
            heard = desk.door.receive_batch(batch, now_s=desk.now_s)  # which is handed what is for no session
            desk.flush()
            dropped = counters.not_sealed + counters.unknown + counters.not_opened - before
            return len(batch) - dropped + len(heard)
        assert client.channel is not None
        taken = 0
        for one in data:
            datagram = read_sealed(one)
            if datagram is not None and datagram.connection_id == client._connection:
                taken += client.channel.receive_datagram(datagram, source or SERVER, len(one), now_s=desk.now_s)
        return taken

    def let_come(self, caught: Iterable[Caught]) -> None:
        """Let genuine datagrams come: each is taken."""
        for one in caught:
            assert self.throw([one.data], to_server=one.to_server) == 1, "a genuine datagram is taken"

    def connection(self, *, to_server: bool) -> bytes:
        """Return what datagrams in this direction are called by."""
        return self.client.session.connection_id if to_server else self.client._connection

    def _catch(self, out: list[bytes], *, to_server: bool) -> list[Caught]:
        caught = [Caught(self, to_server, data) for data in out]
        self.caught += caught
        return caught


class Table:
    """A room in which some talk by datagrams."""

    def __init__(self) -> None:
        self.desk = Desk()
        first = Client(self.desk, "first").authenticate()
        first.create("lobby")
        self.talkers = [self._sit(first)]

    def add(self, name: str) -> Talker:
        """Let somebody else in."""
        client = known(self.desk, name)
        client.join("lobby")
        self.talkers.append(self._sit(client))
        return self.talkers[-1]

    def come_back(self, before: Talker) -> Talker:
        """Let a client come back: the same member, in another session."""
        client = Client(self.desk, before.client.name).authenticate(before.client)
        client.join("lobby")
        talker = self._sit(client)
        talker.said = before.said
        self.talkers.append(talker)
        return talker

    def _sit(self, client: Client) -> Talker:
        client.stored()
        client.use_datagrams()
        client.pump()
        return Talker(self.desk, client)

    def state(self) -> list[object]:
        """Return what nothing that is thrown may change."""
        seen: list[object] = [self.desk.ledger.commits]
        for talker in self.talkers:
            session, channel = talker.client.session, talker.client.channel
            assert channel is not None
            ends = [channel] if session.channel is None else [channel, session.channel]
            seen += [(end.lane.largest, end.whereabouts.current, end.fault) for end in ends]
            seen.append(session.state)
        return seen


def _throw(
    table: Table,
    count: Count,
    kind: str,
    talker: Talker,
    data: list[bytes],
    *,
    to_server: bool,
    source: Address | None = None,
) -> None:
    before = table.state()
    count.add(kind, len(data), talker.throw(data, to_server=to_server, source=source))
    assert count.taken or table.state() == before, "what is not taken changes nothing"


# --- changed bits -----------------------------------------------------------------------------------------


def flip_bits(sizes: Iterable[int]) -> Count:
    """Change every bit of datagrams of these sizes, one at a time, in both directions, before the genuine one comes."""
    table, count = Table(), Count()
    talker = table.talkers[0]
    for size in sizes:
        for said in (lambda size=size: talker.say(size), talker.answers):
            for one in said():
                kind = "to the server" if one.to_server else "to a client"
                _throw(table, count, kind, talker, list(_flipped(one.data)), to_server=one.to_server)
                if count.taken:
                    return count
                talker.let_come([one])
    return count


def _flipped(data: bytes) -> Iterable[bytes]:
    for place in range(len(data) * 8):
        forged = bytearray(data)
        forged[place // 8] ^= 1 << place % 8
        yield bytes(forged)


# --- replays ----------------------------------------------------------------------------------------------


def replay(times: int, *, seed: int = 1) -> Count:
    """Send again what came before, old and new, from where it came and from elsewhere, while the talk goes on."""
    table, count, draws = Table(), Count(), Draws(stream_key(seed, "replays"))
    talkers = [table.talkers[0], table.add("second")]
    seen: list[Caught] = []
    while count.thrown < times:
        talker = talkers[draws.bits() % 2]
        for said in (lambda talker=talker: talker.say(60 + draws.bits() % 900), talker.answers):
            caught = said()
            talker.let_come(caught)
            seen += caught
        for _ in range(20):
            newest = seen[-20:] if draws.bits() % 2 else seen
            one = newest[draws.bits() % len(newest)]
            source = (None, ELSEWHERE)[draws.bits() % 2]
            _throw(table, count, "again", one.session, [one.data] * 5, to_server=one.to_server, source=source)
    return count


# --- packets of other places --------------------------------------------------------------------------------


def cross(rounds: int) -> Count:
    """Throw what was sealed for one place at every other: connections, directions, epochs, members."""
    table, count = Table(), Count()
    former = table.talkers[0]
    other = table.add("second")
    for _ in range(rounds):
        for talker in (former, other):
            talker.let_come(talker.say(100))
            talker.let_come(talker.answers())
    present = table.come_back(former)
    for _ in range(rounds):
        for talker in (present, other):
            fresh = talker.say(100)
            _cross(table, count, talker, [former, present, other])
            _cross_epochs(table, count, talker)
            if count.taken:
                return count
            talker.let_come(fresh)
            talker.let_come(talker.answers())
    return count


def _cross(table: Table, count: Count, at: Talker, sessions: list[Talker]) -> None:
    """Throw the newest packets of all sessions at one, both ways, under the name that it goes by there."""
    for one in [caught for session in sessions for caught in session.caught[-6:]]:
        for to_server in (True, False):
            if one.session is at and one.to_server is to_server:
                continue
            if one.session is at:
                kind = "direction"
            else:
                kind = "connection" if one.session.client.client == at.client.client else "member"
            name = at.connection(to_server=to_server)
            numbers = [one.number, *range(one.number + 1, one.number + 4), one.number + 5000]
            forged = [ESCAPE + name + number.to_bytes(6, "big") + one.data[HEADER_SIZE:] for number in numbers]
            _throw(table, count, kind, at, [one.data[:2] + name + one.data[10:], *forged], to_server=to_server)


def _cross_epochs(table: Table, count: Count, at: Talker) -> None:
    """Seal with the keys of one epoch under numbers of another, as who got hold of one key could."""
    client = at.client
    for to_server, first in ((True, client.secrets.to_server), (False, client.secrets.to_client)):
        name, secrets = at.connection(to_server=to_server), [first]
        while len(secrets) < 4:
            secrets.append(next_secret(secrets[-1]))
        forged: list[bytes] = []
        for epoch, secret in enumerate(secrets):
            for number_epoch in range(4):
                if number_epoch != epoch:
                    number = (number_epoch << EPOCH_BITS) + 900_000
                    header = write_header(name, number)
                    forged.append(header + EpochKey(secret).seal(number, write_frame(Ping()), header))
        ahead = (2 << EPOCH_BITS) + 7  # sealed as it should be, two epochs ahead of what was heard of
        header = write_header(name, ahead)
        forged.append(header + EpochKey(secrets[2]).seal(ahead, write_frame(Ping()), header))
        _throw(table, count, "epoch", at, forged, to_server=to_server)
