"""What is fuzzed of TCRP/2's sessions: machines that hear a peer, and what a client makes of a log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from ocm.protocol.address import make_address
from ocm.protocol.agent import AgentEvent
from ocm.protocol.agent.roster import NAME_SIZE_MAX, Roster
from ocm.protocol.entry import Kind
from ocm.protocol.events import Announcement, Event, Message, Removed, RoomClosed
from ocm.protocol.limits import Limits
from ocm.protocol.link.classic import ClassicLink
from ocm.protocol.link.modern_session import ModernSession, SessionEvent
from ocm.protocol.wire import frames
from ocm.protocol.wire.classic import Stage, write_datagram
from ocm.protocol.wire.frames import write_frame, write_frames
from ocm.protocol.wire.records import (
    SUITE,
    VERSION,
    Authenticate,
    CloseCode,
    Closing,
    Create,
    Denied,
    Hello,
    History,
    Join,
    Kick,
    Members,
    Op,
    Raise,
    RoomRequest,
    Stored,
    write_frames_record,
    write_record,
)
from ocm.protocol.wire.sealed import FRAMES_SIZE_MAX
from tests.fuzz.pieces import cut, object_of, values_in_json
from tests.protocol.agent.scripted import SERVER, Client, change, head, seated, text, yes
from tests.protocol.desk import Desk, seat

LIMITS = Limits()
MEMBERS_MAX = 8
SEATED = seated(1)
HELLO = write_record(
    Op.HELLO, Stage.REQUEST, Hello(versions=[VERSION], suites=[SUITE], secret="ab" * 32, connection="cd" * 8)
)
AUTH = write_record(Op.AUTH, Stage.REQUEST, Authenticate())


def client_session(data: bytes) -> None:
    """A client whose server says these bytes: nothing is raised, and they mean the same however they arrive."""
    stream, chunks = cut(data)
    assert told(chunks) == told([stream])


def told(chunks: Iterable[bytes]) -> tuple[list[AgentEvent], list[Event], CloseCode | None]:
    client = Client()
    client.enter()
    client.post()
    line = client.connect()
    client.store()
    for chunk in chunks:
        line.say_bytes(chunk)
    line.session.data_to_send(space=65_536, now_s=client.now_s)
    events = client.agent.events()
    seen = client.read() if client.agent.is_in("room") else []
    in_order(seen)
    return events, seen, line.session.closing


def server_session(data: bytes) -> None:
    """A server whose client says these bytes, known or not: nothing is raised, however they arrive."""
    is_known = bool(sum(data[:1]) % 2)
    stream, chunks = cut(data[1:])
    assert wanted(chunks, is_known=is_known) == wanted([stream], is_known=is_known)


def wanted(chunks: Iterable[bytes], *, is_known: bool) -> tuple[list[SessionEvent], CloseCode | None, int]:
    session = ModernSession(
        server_key=b"a public key",
        peer=make_address("192.0.2.1", 4000),
        limits=LIMITS,
        durability="memory",
        randomness=bytes,
        stir=lambda _: None,
        now_s=0.0,
    )
    if is_known:
        assert len(list(session.events(HELLO + AUTH, now_s=0.0))) == 1
        session.known(client=bytes(16), resumed=False, secret=bytes(32), udp_port=0, now_s=0.0)
    events = [event for chunk in chunks for event in session.events(chunk, now_s=0.0)]
    session.data_to_send(space=65_536, now_s=0.0)
    assert session.is_over or session.requests <= LIMITS.requests_max
    return events, session.closing, session.requests


def client_datagram(data: bytes) -> None:
    """Datagrams for a client, sealed by its server or by nobody: nothing is raised, and entries stay in order."""
    client = Client()
    line = client.connect_by_datagram()
    channel = line.channel
    assert channel is not None
    client.say()
    seen: list[Event] = []
    for is_sealed, piece in pieces(data):
        known = b"\0\x0e" + line.session.connection_id
        whole = channel.lane.seal(piece[:FRAMES_SIZE_MAX]) if is_sealed else known + piece
        client.agent.receive_datagram(whole, SERVER, now_s=client.now_s)
        client.agent.datagrams_to_send(now_s=client.now_s)
        if client.agent.is_in("room"):
            seen += client.read()
        client.pass_s(0.1)
    in_order(seen)
    timeout_s = client.agent.next_timeout_s()
    assert timeout_s is None or timeout_s >= 0


def pieces(data: bytes) -> Iterator[tuple[bool, bytes]]:
    """Cut records of ``size(1) | datagram``; the high bit of the first makes it one of somebody else."""
    start = 0
    while start < len(data):
        size = data[start] & 0x7F
        piece = data[start + 1 : start + 1 + size]
        if piece:
            yield not data[start] & 0x80, piece
        start += 1 + size


def server_room(data: bytes) -> None:
    """A server one of whose members says these bytes: nothing is raised, and who sits beside it reads one log."""
    desk = Desk()
    bob, eve = seat(desk, "room", "bob", "eve", access="mixed")
    carl = desk.classic_member("room", "carl")
    assert isinstance(carl, ClassicLink)
    assert eve.channel is not None
    for is_sealed, piece in pieces(data):
        if is_sealed:
            whole = eve.channel.lane.seal(piece[:FRAMES_SIZE_MAX])
            desk.reception.receive_batch([(whole, eve.address)], now_s=desk.now_s)
            desk.flush()
        elif not eve.session.is_over:
            eve.write(piece)
    desk.wait(0.2)
    bob.say(frames.Publish(bob.handles["room"], 1, Kind.TEXT, b"over"))
    seqs = bob.seqs()
    assert seqs == [*range(seqs[0], seqs[0] + len(seqs))]
    assert bob.closed is None
    assert bob.texts()[-1] == "over"
    assert desk.classic[carl][-1] == write_datagram(b"room", b"bob", b"over")


def entry_body(data: bytes) -> None:
    """One byte is the kind of an entry, the rest its body: what the user sees of it is bounded."""
    roster = Roster(members_max=MEMBERS_MAX)
    roster.seat(SEATED)
    for kind in (Kind.JOIN, sum(data[:1])):
        event = roster.event_of(frames.Message(1, 11, 1, 0, 0, kind, 0, data[1:]))
        assert isinstance(event, RoomClosed) == (kind == Kind.CLOSED)
        assert not isinstance(event, Removed) or kind == Kind.LEAVE
        assert not isinstance(event, Announcement) or event.text == f"[kind {kind}]"
        assert isinstance(event, Message) == (kind == Kind.TEXT)
    assert len(roster.members) <= MEMBERS_MAX
    assert all(len(row.name) <= NAME_SIZE_MAX for row in roster.members.values())


def entry_object(data: bytes) -> None:
    """The same, of a body that is a JSON object."""
    entry_body(data[:1] + object_of(data[1:], CHANGE))


CHANGE: Final = values_in_json({"member": 3, "name": "carl", "flags": 1, "reason": "left", "access": "modern"})


def in_order(events: Iterable[Event]) -> None:
    seqs = [event.seq for event in events if isinstance(event, Message) and event.seq is not None]
    assert seqs == sorted(set(seqs))


CUT = b"\x1f\x04\x00"
CARL = b'{"member":3,"name":"carl","flags":1}'
CLOSED = b'{"reason":"closed by the host"}'
SAID = write_frames((text(11), change(12, Kind.JOIN, CARL), yes(1), head(20), frames.Gap(1, 13, 19, 1)))
SEAT = write_record(Op.JOIN, Stage.COMPLETE, SEATED)
_BYE = write_record(Op.CLOSE, Stage.REQUEST, Closing(code=0))
TO_CLIENT = (
    CUT + SEAT + write_frames_record(SAID),
    CUT + SEAT + write_frames_record(write_frame(change(11, Kind.CLOSED, CLOSED))),
    CUT + write_record(Op.JOIN, Stage.STATUS, Denied(id=1, code=404)) + SEAT,
    CUT + SEAT + write_record(Op.CLOSE, Stage.REQUEST, Closing(code=1)) + SEAT,
    CUT + SEAT + write_frames_record(b"\x7f") + _BYE,
    CUT + SEAT + write_frames_record(write_frame(frames.Close(2, b""))) + _BYE,
)
TO_SERVER = (
    b"\0" + CUT + HELLO + AUTH + write_record(Op.AUTH_STORED, Stage.REQUEST, Stored()),
    b"\1"
    + CUT
    + write_record(Op.CREATE, Stage.REQUEST, Create(id=1, room="room", user="aiko"))
    + write_record(Op.JOIN, Stage.REQUEST, Join(id=2, room="room", user="bob", log="0" * 32, last=5, lowest=3))
    + write_record(Op.MEMBERS, Stage.REQUEST, Members(id=3, handle=1))
    + write_record(Op.LEAVE, Stage.REQUEST, RoomRequest(id=4, handle=1))
    + write_frames_record(write_frame(frames.Publish(1, 1, 0, b"hi")) + write_frame(frames.Received(1, 2, 3)))
    + write_record(0x99, Stage.REQUEST, RoomRequest(id=5, handle=1))
    + write_record(Op.CLOSE, Stage.REQUEST, Closing(code=0)),
    # Found by fuzzing: behind frames that break the rules, or say goodbye, records of the same piece were heard.
    b"\1" + CUT + write_frames_record(write_frame(frames.Pong()) + b"\x7f") + _BYE,
    b"\1" + CUT + write_frames_record(write_frame(frames.Close(1, b""))) + _BYE,
)
_TEXT = write_frame(text(11))
TO_PORT = (
    bytes([len(_TEXT)]) + _TEXT,
    bytes([0x80 | len(_TEXT)]) + _TEXT,
    bytes([9]) + write_frame(frames.Challenge(b"8 bytes!")) + bytes([1]) + write_frame(frames.Ping()),
)


def _said(data: bytes, *, is_sealed: bool = False) -> bytes:
    """Records of ``pieces``: what one says, cut where it is too long."""
    cut = [data[at : at + 0x7F] for at in range(0, len(data), 0x7F)]
    return b"".join(bytes([len(piece) | (0 if is_sealed else 0x80)]) + piece for piece in cut)


_PUBLISH = write_frame(frames.Publish(1, 1, 0, b"hi"))
_ASKING = (
    write_record(Op.JOIN, Stage.REQUEST, Join(id=2, room="room", user="eve", log="0" * 32, last=5, lowest=3)),
    write_record(Op.CREATE, Stage.REQUEST, Create(id=3, room="two", user="eve")),
    write_record(Op.HISTORY, Stage.REQUEST, History(id=4, handle=1, first=1, count=9)),
    write_record(Op.MEMBERS, Stage.REQUEST, Members(id=5, handle=1)),
    write_record(Op.KICK, Stage.REQUEST, Kick(id=6, handle=1, member=1)),
    write_record(Op.END, Stage.REQUEST, RoomRequest(id=7, handle=1)),
    write_record(Op.RAISE, Stage.REQUEST, Raise(id=8, handle=1, access="modern")),
    write_record(Op.LEAVE, Stage.REQUEST, RoomRequest(id=9, handle=1)),
    write_record(Op.CLOSE, Stage.REQUEST, Closing(code=0)),
)
TO_ROOM = (
    _said(_PUBLISH + write_frame(frames.Received(1, 2, 3)), is_sealed=True),
    _said(write_frames_record(_PUBLISH + write_frame(frames.Received(1, 2, 3)))),
    _said(write_frames_record(write_frame(frames.Signal(1, 2, 3, 4, b"x")))),
    *map(_said, _ASKING),
    _said(b"".join(_ASKING)),
)
BODIES = (
    b"\1" + CARL,
    b"\2" + b'{"member":2,"name":"aiko","reason":"removed by the server"}',
    b"\5" + CLOSED,
    b"\5",
    b"\6" + b'{"access":"modern"}',
    b"\0hello",
    b"\3" + b'{"name":"x"}',
)
