"""Whatever a server sends, nothing is raised, nothing grows without bound, and what the user sees stays in order."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ocm.protocol.address import make_address
from ocm.protocol.agent import EntryRefused, Settled
from ocm.protocol.entry import Kind
from ocm.protocol.events import Message
from ocm.protocol.wire import frames
from ocm.protocol.wire.classic import Header, Stage
from ocm.protocol.wire.frames import Frame, Published, write_frame
from ocm.protocol.wire.records import (
    Authenticated,
    Closing,
    Denied,
    Done,
    Greeting,
    MemberPage,
    MemberRow,
    Op,
    Pages,
    Payload,
    Seated,
    write_frames_record,
    write_record,
)
from tests.protocol.agent.scripted import LOG, ME, OTHER_LOG, ROOM, Client, Line

u8, u32, u64 = (st.integers(0, 2**bits - 1) | st.integers(0, 30) for bits in (8, 32, 64))
u53 = st.integers(0, 2**53 - 1) | st.integers(0, 30)
handles = st.sampled_from([1, 1, 1, 2, 3, 0, 2**32 - 1])
near = st.integers(0, 40) | u64
ids = st.integers(0, 12) | st.just(2**53 - 1)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
bodies = st.binary(max_size=12) | st.sampled_from(
    [
        b'{"member":2,"name":"aiko"}',
        b'{"member":1,"reason":"left"}',
        b'{"member":2,"reason":"connection lost"}',
        b'{"reason":"closed by the host"}',
        b'{"access":"mixed"}',
        b'{"member":"2"}',
        b"[[[[[[",
    ]
)
kinds = st.sampled_from([*Kind, 3, 255])


def gap(room: int, one: int, other: int, reason: int) -> frames.Gap:
    return frames.Gap(room, min(one, other), max(one, other), reason)


said_frames: st.SearchStrategy[Frame] = st.one_of(
    st.builds(Published, handles, ids, u8 | st.just(0), u64, u64),
    st.builds(
        frames.Message,
        handles,
        near,
        st.sampled_from([0, 1, ME, 2**32 - 1]),
        ids,
        u64,
        kinds,
        st.integers(0, 3),
        bodies,
    ),
    st.builds(gap, handles, near, near, u8),
    st.builds(frames.Head, handles, near, near),
    st.builds(frames.Signal, handles, u32, u32, u64, bodies),
    st.just(frames.Ping()),
    st.just(frames.Pong()),
    st.builds(frames.Close, st.integers(0, 9), st.binary(max_size=5)),
    st.builds(frames.Received, handles, u64, st.integers(0, 9)),
    st.builds(frames.Challenge, st.binary(min_size=8, max_size=8)),
)
"""Frames of any server; those in the middle are the honest ones."""
rows = st.lists(st.builds(MemberRow, u32, names, st.integers(-(2**53), 2**53)), max_size=6)
numbers = st.integers(0, 12)
seats = st.builds(
    Seated,
    id=numbers,
    member=st.sampled_from([ME, 1, 0]),
    handle=handles,
    log=st.sampled_from([LOG.hex(), OTHER_LOG.hex()]),
    head=u53,
    oldest=u53,
    start=u53,
    mark=u53,
    resumed=st.booleans(),
    access=st.sampled_from(["modern", "mixed", "later"]),
    lifetime=st.sampled_from(["close", "persist", "later"]),
    durable=st.booleans(),
    host=u32,
    members=rows,
    more=st.booleans(),
)
refusals = st.builds(
    Denied, id=numbers, code=st.sampled_from([400, 403, 404, 409, 480, 0]), wait_ms=st.sampled_from([0, 500, 2**53 - 1])
)


def record(op: Op, stage: Stage, payloads: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    def write(payload: Payload) -> bytes:
        return write_record(op, stage, payload)

    return payloads.map(write)


def later_version(operation: int, stage: int, payload: bytes) -> bytes:
    return Header(0, operation, stage, len(payload)).encode() + payload


frames_records = st.lists(said_frames, max_size=6).map(
    lambda several: write_frames_record(b"".join(map(write_frame, several)))
)
records = st.one_of(
    frames_records,
    frames_records,
    record(Op.JOIN, Stage.COMPLETE, seats),
    record(Op.JOIN, Stage.STATUS, refusals),
    record(Op.CREATE, Stage.STATUS, refusals),
    record(Op.MEMBERS, Stage.COMPLETE, st.builds(MemberPage, id=numbers, members=rows, more=st.booleans())),
    record(Op.MEMBERS, Stage.STATUS, refusals),
    record(Op.HISTORY, Stage.COMPLETE, st.builds(Pages, id=numbers, handle=u32, count=u32, oldest=u53, head=u53)),
    record(Op.HISTORY, Stage.STATUS, refusals),
    record(Op.LEAVE, Stage.COMPLETE, st.builds(Done, id=numbers)),
    record(Op.LEAVE, Stage.STATUS, refusals),
    record(Op.KICK, Stage.COMPLETE, st.builds(Done, id=numbers)),
    record(Op.AUTH, Stage.STATUS, refusals),
    record(Op.CLOSE, Stage.REQUEST, st.builds(Closing, code=st.integers(-3, 9))),
    record(
        Op.AUTH,
        Stage.COMPLETE,
        st.builds(
            Authenticated,
            client=st.just("0" * 32),
            resumed=st.booleans(),
            secret=st.just("0" * 64),
            connection=st.just("0" * 16),
            udp_port=st.just(0),
        ),
    ),
    record(
        Op.HELLO,
        Stage.STATUS,
        st.builds(
            Greeting,
            version=st.just(2),
            suite=st.just(1),
            secret=st.just("0" * 64),
            durability=names,
            burst=st.integers(1, 10**6),
            rate=st.floats(5e-324, 1e6),
            body_max=st.just(9),
        ),
    ),
    st.builds(later_version, st.integers(0x26, 255), st.integers(0, 3), st.binary(max_size=20)),
    st.binary(max_size=40),
)
deeds = st.sampled_from(["post", "read", "store", "leave", "enter", "history", "members", "kick", "lose", "wake"])
steps = st.lists(records | deeds | st.floats(0.01, 40.0), max_size=30)


class Witness:
    """A client that does as it is told, and minds what it sees."""

    def __init__(self) -> None:
        self.client = Client()
        self.client.enter()
        self.line: Line = self.client.connect()
        self.told: list[int] = []

    def step(self, step: bytes | str | float) -> None:
        client = self.client
        match step:
            case bytes():
                self.line.say_bytes(step)
            case float():
                client.pass_s(step)
            case "enter" if not client.agent.is_in(ROOM):
                client.enter()
                self.told.clear()
            case _ if not client.agent.is_in(ROOM):
                pass
            case "post" if client.room.over is None and not client.left:
                client.post()
            case "read":
                self.read()
            case "store":
                client.store()
            case "leave":
                client.agent.leave(ROOM, now_s=client.now_s)
                client.left = client.agent.is_in(ROOM)
            case "history":
                client.agent.history(ROOM, first=1, count=9)
            case "members":
                client.agent.fetch_members(ROOM)
            case "kick":
                client.agent.kick(ROOM, 1)
            case "lose":
                self.line.lose()
            case "wake":
                client.agent.woke(now_s=client.now_s)
            case _:
                pass
        self.look()

    def look(self) -> None:
        client = self.client
        self.line.session.data_to_send(space=9999, now_s=client.now_s)
        client.agent.datagrams_to_send(now_s=client.now_s)
        timeout_s = client.agent.next_timeout_s()
        assert timeout_s is None or 0 <= timeout_s < 1e14
        events = client.agent.events()
        if any(isinstance(event, EntryRefused) for event in events):
            client.left = False
        settled = [event.receipt.message_id for event in events if isinstance(event, Settled)]
        self.told += settled
        client.left = client.left and client.agent.is_in(ROOM)
        if self.line.session.is_over and client.agent.next_dial_s() is not None:
            self.line = client.open()
            self.line.greet()
            self.line.recognize()

    def read(self) -> None:
        seen = [event.seq for event in self.client.read() if isinstance(event, Message)]
        assert all(isinstance(seq, int) and seq < 2**53 for seq in seen)


@settings(max_examples=150)
@given(steps)
def test_a_server_may_say_anything(several: list[bytes | str | float]) -> None:
    witness = Witness()
    for step in several:
        witness.step(step)
    told = witness.told
    assert told == sorted(set(told)), "each receipt once, in the order of posting"


@settings(max_examples=150)
@given(st.lists(said_frames, max_size=40), st.booleans())
def test_a_room_may_be_told_anything(several: list[Frame], by_datagram: bool) -> None:
    """Entries are read once and in order, and nothing that is kept is more than it may be."""
    client = Client()
    line = client.connect_by_datagram() if by_datagram else client.sit()
    seqs: list[int] = []
    for number, frame in enumerate(several):
        if not number % 3:
            client.say()
        if by_datagram:
            line.traffic.say(frame)
            line.exchange()
        else:
            line.say_frames(frame)
        if not number % 4:
            seqs += [event.seq for event in client.read() if isinstance(event, Message) and event.seq is not None]
    assert seqs == sorted(set(seqs))
    told = [event.receipt.message_id for event in client.happened(Settled)]
    assert told == list(range(1, len(told) + 1))
    client.store()
    assert all(room.last < 2**53 for room in client.memory.rooms.values())


@given(st.lists(st.binary(max_size=60) | st.binary(max_size=1300), max_size=8), st.booleans())
def test_any_datagram_may_come(datagrams: list[bytes], is_known: bool) -> None:
    client = Client()
    line = client.connect_by_datagram()
    for data in datagrams:
        known = b"\0\x0e" + line.session.connection_id + data if is_known else data
        client.agent.receive_datagram(known, make_address("10.9.9.9", 9), now_s=client.now_s)
    assert not line.session.is_over
    client.say()
    line.exchange()
    assert line.traffic.frames


@given(st.binary(max_size=200))
def test_any_bytes_may_come_before_the_server_knows_us(data: bytes) -> None:
    client = Client()
    client.enter()
    line = client.open()
    line.say_bytes(data)
    client.pass_s(20.0)
    assert line.session.is_over
    assert client.agent.next_dial_s() is not None
