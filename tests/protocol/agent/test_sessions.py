"""One session of a client: what it takes from a server and when, in whatever pieces it comes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocm.protocol.agent import AgentEvent
from ocm.protocol.agent.dialling import DIAL_AFTER_S
from ocm.protocol.agent.session import SessionState
from ocm.protocol.entry import Kind
from ocm.protocol.events import Event, PathChanged, PathKind
from ocm.protocol.wire.classic import Header, Stage
from ocm.protocol.wire.frames import Gap, Ping, Pong, Publish, Received, write_frame, write_frames
from ocm.protocol.wire.records import (
    CloseCode,
    Closing,
    Denied,
    Done,
    Greeting,
    Hello,
    Join,
    Op,
    RoomRequest,
    Stored,
    write_frames_record,
    write_record,
)
from tests.protocol.agent.scripted import CLIENT_ID, ROOM, SERVER, Client, change, head, seated, text, yes


def test_hello_is_the_first_thing_that_is_said() -> None:
    client = Client()
    client.enter()
    line = client.open()
    hello = line.hear(Hello)
    assert (hello.versions, hello.suites) == ([2], [1])
    assert hello.connection == line.session.connection_id.hex()
    assert line.session.next_timeout_s() is None
    assert line.session.datagrams_to_send(now_s=0.0) == []
    line.session.handle_timeout(now_s=0.0)
    line.hear_nothing()
    other = Client()
    other.enter()
    assert other.open().session.state is SessionState.HELLO


@pytest.mark.parametrize(("version", "suite"), [(1, 1), (2, 2), (3, 1)])
def test_a_choice_that_was_not_offered_ends_it(version: int, suite: int) -> None:
    client = Client()
    client.enter()
    line = client.open()
    line.greet(version=version, suite=suite)
    assert line.session.closing is CloseCode.PROTOCOL
    assert line.hear(Closing).code == CloseCode.PROTOCOL


@pytest.mark.parametrize(
    "data",
    [
        write_record(Op.JOIN, Stage.COMPLETE, seated(1)),
        write_record(Op.AUTH, Stage.STATUS, Denied(code=1)),
        write_record(Op.LEAVE, Stage.COMPLETE, Done(id=1)),
        write_record(Op.HELLO, Stage.REQUEST, Hello(versions=[2], suites=[1], secret="0" * 64, connection="0" * 16)),
        write_frames_record(write_frame(Ping())),
        write_record(0x99, Stage.REQUEST, Done(id=1)),
        b"\x16\x03\x01" + bytes(29),
        b"\0" * 4 + b"\xff" * 28,
    ],
    ids=["a seat", "AUTH.1", "LEAVE.2", "HELLO.0", "frames", "an unknown operation", "TLS", "an endless record"],
)
def test_what_comes_out_of_turn_ends_it(data: bytes) -> None:
    client = Client()
    client.enter()
    line = client.open()
    line.say_bytes(data)
    assert line.session.closing is CloseCode.PROTOCOL
    line.say_bytes(data)
    assert client.agent.next_dial_s() == client.now_s + DIAL_AFTER_S[1]


@pytest.mark.parametrize("stage", [0, 1, 2, 7])
@pytest.mark.parametrize("payload", [b"", b'{"id": 1}', b"\xff not JSON"])
def test_a_record_of_a_later_version_is_passed_over(stage: int, payload: bytes) -> None:
    client = Client()
    line = client.sit()
    line.hear(Stored)
    line.say_bytes(Header(0, 0x99, stage, len(payload)).encode() + payload)
    line.say_frames(text(11))
    assert line.session.state is SessionState.OPEN
    line.hear_nothing()
    assert len(client.read()) == 1


def test_a_stage_that_an_operation_does_not_have_ends_it() -> None:
    client = Client()
    line = client.sit()
    line.say_bytes(write_record(Op.LEAVE, Stage.REQUEST, RoomRequest(id=1, handle=1)))
    assert line.session.closing is CloseCode.PROTOCOL


@pytest.mark.parametrize("is_known", [False, True])
def test_a_server_that_resumes_somebody_else_ends_it(is_known: bool) -> None:
    client = Client()
    if is_known:
        client.sit().lose()
    else:
        client.enter()
    line = client.connect(client=b"d" * 16, resumed=True)
    assert line.session.closing is CloseCode.PROTOCOL
    assert line.hear(Closing).reason == "the server takes us for somebody else"


@pytest.mark.parametrize("log", ["", "00", "G" * 32, "AB" * 16, "00" * 17])
def test_a_log_that_is_not_16_bytes_ends_it(log: str) -> None:
    client = Client()
    client.enter()
    line = client.connect()
    line.seat(log=log)
    assert line.session.is_over
    assert client.room.log_id == b""


def test_frames_have_one_stage() -> None:
    client = Client()
    line = client.sit()
    record = bytearray(write_frames_record(write_frame(text(11))))
    record[2] = Stage.STATUS
    line.say_bytes(bytes(record))
    assert line.session.closing is CloseCode.PROTOCOL


@pytest.mark.parametrize("code", [0, 1, 99])
def test_the_servers_goodbye_ends_it(code: int) -> None:
    client = Client()
    line = client.sit()
    line.hear(Stored)
    line.say(Op.CLOSE, Stage.REQUEST, Closing(code=code))
    assert line.session.closing is CloseCode.of(code)
    line.say_frames(text(11))
    line.session.close(CloseCode.BYE, "")
    line.session.say_stored()
    line.hear_nothing()
    line.session.handle_timeout(now_s=client.now_s)
    assert client.room.up_to == 10
    hello = Client()
    hello.enter()
    early = hello.open()
    early.say(Op.CLOSE, Stage.REQUEST, Closing(code=code))
    assert early.session.is_over


def test_a_ping_is_answered_and_a_pong_is_nothing() -> None:
    client = Client()
    line = client.sit()
    line.say_frames(Ping(), Pong(), Ping())
    assert line.hear_frames(Pong) == [Pong()]
    assert not line.session.is_over


def test_without_a_port_nothing_goes_by_datagram() -> None:
    client = Client()
    line = client.sit()
    client.say()
    assert client.agent.datagrams_to_send(now_s=client.now_s) == []
    assert line.hear_frames(Publish)


def test_nothing_is_said_where_there_is_no_space() -> None:
    client = Client()
    line = client.sit()
    line.hear(Stored)
    line.listen()
    client.say()
    assert line.session.data_to_send(space=0, now_s=client.now_s) == b""
    client.agent.datagrams_to_send(now_s=client.now_s)
    timeout_s = line.session.next_timeout_s()
    assert timeout_s is not None
    assert timeout_s > client.now_s, "it waits for space, not for time"
    assert line.hear_frames(Publish)


def test_rooms_speak_in_turn() -> None:
    client = Client()
    line = client.sit()
    line.hear(Stored)
    client.enter("another")
    line.seat(handle=2)
    line.listen()
    for _ in range(3):
        client.post(b"x")
        client.post(b"x", "another")
    client.store()
    rooms = [frame.room for frame in line.hear_frames(Publish) if isinstance(frame, Publish)]
    assert rooms in ([1, 2] * 3, [2, 1] * 3)


def test_a_room_that_is_left_says_nothing_more() -> None:
    """Not even what was about to go."""
    client = Client()
    line = client.connect_by_datagram()
    client.say()
    assert line.session.peek(space=1000, now_s=client.now_s) is not None
    line.session.unseat(client.room)
    assert line.session.peek(space=1000, now_s=client.now_s) is None
    held = Client()
    other = held.connect_by_datagram()
    held.say()
    load = other.session.peek(space=1000, now_s=held.now_s)
    other.session.unseat(held.agent.room(ROOM))
    other.session.seat(held.room)
    assert load is not None
    held.enter("another")
    other.hear(Stored)
    other.seat(handle=2)
    other.session.peek(space=1000, now_s=held.now_s)
    other.session.unseat(held.room)


def test_what_was_lost_in_a_datagram_goes_again() -> None:
    client = Client()
    line = client.connect_by_datagram()
    client.pass_s(1.0)
    line.exchange()
    message_id = client.say()
    line.say_frames(text(11))
    client.pass_s(0.2)
    lost = client.agent.datagrams_to_send(now_s=client.now_s)
    assert lost
    for _ in range(8):
        client.post(b"more")
        client.store()
        client.pass_s(0.3)
        line.exchange()
    sent = [frame for frame in line.traffic.frames if isinstance(frame, Publish)]
    assert message_id in {frame.message_id for frame in sent}
    assert any(isinstance(frame, Received) and frame.up_to == 11 for frame in line.traffic.frames)


def test_a_path_that_falls_silent_is_told() -> None:
    client = Client()
    line = client.connect_by_datagram()
    client.read()
    client.say()
    for _ in range(40):
        client.agent.datagrams_to_send(now_s=client.now_s)
        line.say_frames(Pong())
        client.pass_s(0.5)
    assert client.agent.path().kind is PathKind.TLS
    assert [event.path.kind for event in client.read() if isinstance(event, PathChanged)] == [PathKind.TLS]
    assert line.hear_frames(Publish)


def test_a_break_of_the_rules_by_datagram_ends_it_too() -> None:
    client = Client()
    line = client.connect_by_datagram()
    line.traffic.say(head(2**60))
    line.exchange()
    assert line.session.closing is CloseCode.PROTOCOL
    line.hear(Stored)
    line.hear(Closing)
    assert client.agent.next_dial_s() == client.now_s + 4.0


def test_what_comes_before_its_seat_comes_again() -> None:
    """The answer to JOIN travels over TLS, what is said in the room perhaps faster."""
    client = Client()
    line = client.connect_by_datagram()
    line.traffic.say(text(1, handle=2))
    line.exchange()
    client.pass_s(0.1)
    line.exchange()
    assert not line.traffic.told
    line.traffic.say(text(11))
    line.exchange()
    client.pass_s(0.1)
    line.exchange()
    assert line.traffic.told, "but only that of the known room"


def test_what_comes_over_a_connection_that_was_given_up_is_heard() -> None:
    client = Client()
    line = client.connect_by_datagram()
    line.lose()
    line.lose()
    line.say_frames(text(11))
    assert client.room.head == 11


# --- any pieces -----------------------------------------------------------------------------------------------


def conversation(client: Client) -> list[bytes]:
    """What a server says in a room, once it knows the client."""
    changed = change(13, Kind.JOIN, b'{"member":3,"name":"carl"}')
    return [
        write_record(Op.JOIN, Stage.COMPLETE, seated(1)),
        write_frames_record(write_frames((text(11), text(12), changed, yes(1), head(20)))),
        write_record(Op.END, Stage.STATUS, Denied(id=2, code=403)),
        write_frames_record(write_frame(Gap(1, 14, 19, 1))),
        write_record(Op.CLOSE, Stage.REQUEST, Closing(code=1)),
    ]


def told(chunks: list[bytes]) -> tuple[list[AgentEvent], list[Event], int]:
    client = Client()
    client.enter()
    client.post()
    line = client.connect()
    client.store()
    assert line.hear(Join).id == 1
    for chunk in chunks:
        line.say_bytes(chunk)
    return client.agent.events(), client.read(), client.room.head


@given(st.lists(st.integers(1, 2000), max_size=12))
def test_a_stream_means_the_same_however_it_comes(cuts: list[int]) -> None:
    stream = b"".join(conversation(Client()))
    ends = sorted({min(cut, len(stream)) for cut in cuts} | {len(stream)})
    chunks = [stream[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    assert told(chunks) == told([stream])


def test_no_secret_of_a_session_shows() -> None:
    client = Client()
    line = client.connect_by_datagram()
    greeting = line.session.greeting
    assert greeting is not None
    assert repr(greeting) == "Greeting(...)"
    assert CLIENT_ID.hex() not in repr(line.session)
    assert isinstance(greeting, Greeting)
    assert line.channel is not None
    assert line.channel.whereabouts.current is not None
    assert line.channel.whereabouts.current != SERVER


def test_an_agent_says_whether_there_is_anything_to_store_or_to_tell() -> None:
    client = Client()
    assert not client.agent.has_news
    client.sit()
    assert client.agent.has_news
    client.store()
    client.agent.events()
    assert not client.agent.has_news
    client.post()
    assert client.agent.has_news


def test_an_agent_that_was_disowned_seals_nothing_on_any_connection() -> None:
    client = Client()
    line = client.connect_by_datagram()
    assert line.session.channel is not None
    assert not line.session.channel.lane.is_blocked
    client.agent.disown()
    assert line.session.channel.lane.is_blocked
    dialling = Client()
    dialling.agent.disown()
    early = dialling.open()
    dialling.agent.disown()  # it has no keys yet
    assert early.session.channel is None
