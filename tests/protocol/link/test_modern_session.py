"""A session at the server: its states, what ends it and with which code, and that no bytes make it raise or spin."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocm.protocol.entry import Kind
from ocm.protocol.link.modern_session import SESSION_STEPS, SessionState, SessionStep
from ocm.protocol.session.path import PathState
from ocm.protocol.wire.classic import HEADER_SIZE, Header, Stage
from ocm.protocol.wire.frames import (
    Ack,
    Close,
    Frame,
    Gap,
    Head,
    Message,
    Padding,
    Ping,
    Pong,
    Publish,
    Published,
    Received,
    Signal,
    write_frame,
)
from ocm.protocol.wire.records import (
    EARLY_PAYLOAD_SIZE_MAX,
    PAYLOAD_SIZE_MAX,
    Authenticate,
    Authenticated,
    CloseCode,
    Closing,
    Denied,
    Done,
    Greeting,
    Hello,
    Op,
    RoomRequest,
    Seated,
    Stored,
    write_frames_record,
    write_record,
)
from tests.protocol.desk import Client, Desk, known, seat

# --- how far it comes ---------------------------------------------------------------------------------------


def state(client: Client) -> SessionState:
    return client.session.state


def test_it_goes_from_hello_to_open_and_over() -> None:
    desk = Desk(patient=True)
    client = Client(desk)
    assert state(client) is SessionState.HELLO
    client.write(client.hello())
    assert state(client) is SessionState.AUTH
    client.write(write_record(Op.AUTH, Stage.REQUEST, Authenticate()))
    assert state(client) is SessionState.COMMITTING
    desk.commit()
    assert state(client) is SessionState.OPEN
    client.write(write_record(Op.CLOSE, Stage.REQUEST, Closing(code=0)))
    assert state(client) is SessionState.OVER
    assert client.session.closing is CloseCode.BYE
    assert client.closed is None, "it is not told what it said itself"


def test_every_step_is_in_the_table() -> None:
    assert set(SESSION_STEPS.values()) == set(SessionState) - {SessionState.HELLO}
    assert all(step in {one for _, one in SESSION_STEPS} for step in SessionStep)


def test_a_greeting_says_what_is_granted() -> None:
    desk = Desk()
    client = Client(desk)
    client.write(client.hello())
    greeting = client.last(Greeting)
    assert (greeting.version, greeting.suite, greeting.durability) == (2, 1, "disk")
    assert (greeting.burst, greeting.rate, greeting.body_max) == (200, 50.0, 61_440)


@pytest.mark.parametrize(("versions", "suites"), [([1, 3], [1]), ([2], [2]), ([], [1])])
def test_without_a_version_and_a_suite_in_common_there_is_no_session(versions: list[int], suites: list[int]) -> None:
    client = Client(Desk())
    hello = Hello(versions=versions, suites=suites, secret="00" * 32, connection="00" * 8)
    client.write(write_record(Op.HELLO, Stage.REQUEST, hello))
    assert client.closed == CloseCode.PROTOCOL


@given(st.lists(st.integers(1, 400), max_size=8))
def test_it_makes_no_difference_how_the_stream_is_cut(sizes: list[int]) -> None:
    desk = Desk()
    client = Client(desk, "alice")

    def write(data: bytes) -> None:
        for size in sizes:
            client.write(data[:size])
            data = data[size:]
        client.write(data)

    write(client.hello() + write_record(Op.AUTH, Stage.REQUEST, Authenticate()))
    write(client.create_record("lobby"))
    said = [write_frames_record(write_frame(Publish(1, number, 0, b"%d" % number))) for number in (1, 2, 3)]
    write(b"".join(said) + write_record(Op.LEAVE, Stage.REQUEST, RoomRequest(id=9, handle=1)))
    assert [entry.body for log in desk.ledger.logs.values() for entry in log.entries if entry.kind is Kind.TEXT] == [
        b"1",
        b"2",
        b"3",
    ]
    assert client.last(Done).id == 9


# --- what breaks the rules ------------------------------------------------------------------------------------

REQUEST = write_record(Op.LEAVE, Stage.REQUEST, RoomRequest(id=1, handle=1))
AUTH = write_record(Op.AUTH, Stage.REQUEST, Authenticate())
HELLO = write_record(Op.HELLO, Stage.REQUEST, Hello(versions=[2], suites=[1], secret="00" * 32, connection="00" * 8))
FRAMES = write_frames_record(write_frame(Ping()))


def json_record(operation: int, payload: bytes, stage: Stage = Stage.REQUEST) -> bytes:
    return Header(0, operation, stage, len(payload)).encode() + payload


@pytest.mark.parametrize(
    "data",
    [AUTH, REQUEST, FRAMES, write_record(Op.AUTH_STORED, Stage.REQUEST, Stored()), json_record(0x77, b"{}")],
    ids=["AUTH", "a request", "FRAMES", "AUTH_STORED", "an unknown operation"],
)
def test_nothing_comes_before_hello(data: bytes) -> None:
    client = Client(Desk())
    client.write(data)
    assert client.closed == CloseCode.PROTOCOL


@pytest.mark.parametrize("data", [HELLO, REQUEST, FRAMES], ids=["HELLO", "a request", "FRAMES"])
@pytest.mark.parametrize("committing", [False, True])
def test_nothing_but_auth_follows_it(data: bytes, committing: bool) -> None:
    desk = Desk(patient=True)
    client = Client(desk)
    client.write(client.hello(), AUTH if committing else b"")
    client.write(data)
    assert client.closed == CloseCode.PROTOCOL
    desk.commit()
    assert client.all(Authenticated) == []


@pytest.mark.parametrize(
    "data",
    [
        HELLO,
        AUTH,
        write_record(Op.LEAVE, Stage.COMPLETE, Done(id=1)),
        write_record(Op.LEAVE, Stage.STATUS, Denied(code=400)),
        json_record(Op.AUTH_STORED, b"{}", Stage.COMPLETE),
        json_record(Op.FRAMES, b"\x01", Stage.STATUS),
        json_record(Op.LEAVE, b"{"),
        json_record(Op.LEAVE, b'{"id": 1}'),
        json_record(Op.LEAVE, b'{"id": -1, "handle": 1}'),
        json_record(Op.JOIN, b'{"id": 1, "room": "\\ud800", "user": "x"}'),
        json_record(Op.HISTORY, b'{"id": 1, "handle": 1, "first": 1, "count": 257}'),
        json_record(0x77, b'{"id": "seven"}'),
        json_record(0x77, b"\xff"),
        Header(1, Op.LEAVE, Stage.REQUEST, 2).encode() + b"a{}",
        Header(0, Op.LEAVE, Stage.REQUEST, PAYLOAD_SIZE_MAX + 1).encode(),
        b"\xff" * HEADER_SIZE,
    ],
)
def test_what_breaks_the_rules_ends_an_open_session(data: bytes) -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    alice.frames.clear()
    bob.write(data, REQUEST)
    assert bob.closed == CloseCode.PROTOCOL
    assert isinstance(bob.last(Closing), Closing), "nothing is taken behind it"
    assert alice.heard() == [], "its member is away, and not gone"
    assert len(desk.hub.members("lobby")) == 2


def test_an_operation_that_is_not_known_is_refused_by_its_id() -> None:
    client = known(Desk(), "alice")
    client.write(json_record(0x77, b'{"id": 7, "whatever": [1]}'))
    assert (client.last(Denied).id, client.last(Denied).code) == (7, 400)
    client.write(json_record(0x78, b"{}"))
    assert (client.last(Denied).id, client.last(Denied).code) == (0, 400)
    assert client.closed is None


def test_payloads_are_small_before_the_client_is_known() -> None:
    client = Client(Desk())
    client.write(Header(0, Op.HELLO, Stage.REQUEST, EARLY_PAYLOAD_SIZE_MAX + 1).encode())
    assert client.closed == CloseCode.PROTOCOL
    client = known(Desk(), "alice")
    client.write(Header(0, Op.FRAMES, Stage.REQUEST, PAYLOAD_SIZE_MAX).encode())
    assert client.closed is None


@pytest.mark.parametrize(
    "frame",
    [
        Message(1, 1, 1, 1, 0, 0, 0, b"x"),
        Published(1, 1, 0, 1, 0),
        Gap(1, 1, 2, 1),
        Head(1, 1, 1),
    ],
    ids=lambda frame: type(frame).__name__,
)
@pytest.mark.parametrize("sealed", [False, True])
def test_a_client_does_not_speak_like_a_server(frame: Frame, sealed: bool) -> None:
    [alice] = seat(Desk(), "lobby", "alice")
    if sealed:
        alice.use_datagrams()
        alice.seal(frame)
    else:
        alice.say(frame)
    assert alice.closed == CloseCode.PROTOCOL


@pytest.mark.parametrize("frame", [Ack(1, 0, b""), Padding(3)], ids=["ACK", "PADDING"])
def test_frames_that_belong_into_datagrams_do_not_come_over_tls(frame: Frame) -> None:
    client = known(Desk(), "alice")
    client.say(frame)
    assert client.closed == CloseCode.PROTOCOL


def test_a_session_takes_no_frame_that_is_the_channels() -> None:
    session = known(Desk(), "alice").session
    with pytest.raises(Exception, match="belongs to the channel"):
        session.receive(Ping(), now_s=0.0)


def test_signals_are_taken_and_not_passed_on_yet() -> None:
    alice, bob = seat(Desk(), "lobby", "alice", "bobby")
    alice.say(Signal(1, 0, 1, 1, b"x"))
    assert alice.closed is None
    assert bob.frames == []


# --- how it ends ----------------------------------------------------------------------------------------------


def test_a_close_of_the_client_leaves_its_seats_as_they_are() -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    alice.frames.clear()
    bob.write(write_record(Op.CLOSE, Stage.REQUEST, Closing(code=0)))
    assert alice.heard() == []
    [_, member] = desk.hub.members("lobby")
    assert member.lost_s == desk.now_s
    assert desk.reception.sessions == {bytes.fromhex(alice.client or ""): alice.session}


def test_a_close_code_that_is_not_known_is_a_bye() -> None:
    client = known(Desk(), "alice")
    client.write(write_record(Op.CLOSE, Stage.REQUEST, Closing(code=77)))
    assert client.session.closing is CloseCode.BYE


def test_a_close_frame_ends_it_too() -> None:
    desk = Desk()
    client = known(desk, "alice")
    client.use_datagrams()
    client.seal(Close(1, b""))
    assert client.session.is_over
    assert client.session.closing is CloseCode.GOING_AWAY
    assert client.session not in desk.reception.sessions.values()


@pytest.mark.parametrize("how_far", ["HELLO", "AUTH", "COMMITTING", "OPEN"])
def test_without_a_path_it_ends_with_its_tls_connection(how_far: str) -> None:
    desk = Desk(patient=True)
    client = Client(desk)
    for data in [[client.hello()], [client.hello(), AUTH]][how_far != "AUTH"] if how_far != "HELLO" else []:
        client.write(data)
    if how_far == "OPEN":
        desk.commit()
    assert state(client).name == how_far
    client.lose_stream()
    client.lose_stream()
    assert state(client) is SessionState.OVER
    desk.commit()
    assert desk.reception.sessions == {}
    assert client.session.next_timeout_s() is None


def test_with_a_path_it_lives_on_datagrams() -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    bob.use_datagrams()
    bob.lose_stream()
    assert not bob.session.is_over
    alice.say(Publish(alice.handles["lobby"], 1, 0, b"hello"))
    bob.pump()
    assert bob.texts() == ["hello"]
    bob.seal(Publish(bob.handles["lobby"], 1, 0, b"hello yourself"))
    assert alice.texts()[-1] == "hello yourself"
    assert bob.session.data_to_send(space=9999, now_s=desk.now_s) == b""


def test_when_both_ways_are_lost_it_is_over() -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    bob.use_datagrams()
    bob.lose_stream()
    alice.say(Publish(alice.handles["lobby"], 1, 0, b"hello"))  # which nobody acknowledges
    desk.wait(40.0)
    assert bob.session.is_over
    assert bob.session.channel is not None
    assert bob.session.channel.path.state in {PathState.DOWN, PathState.SUSPECT}
    [_, member] = desk.hub.members("lobby")
    assert member.lost_s is not None


def test_a_client_of_which_nothing_is_heard_has_no_session_any_more() -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    for _ in range(10):
        desk.wait(desk.limits.session_timeout_s - 1)
        alice.say(Ping())
    assert alice.closed is None
    assert bob.closed == CloseCode.IDLE
    assert len(desk.hub.members("lobby")) == 2
    assert Pong() in alice.frames


def test_datagrams_are_a_sign_of_life_too() -> None:
    desk = Desk()
    client = known(desk, "alice")
    client.use_datagrams()
    for _ in range(20):
        desk.wait(desk.limits.session_timeout_s / 2)
        client.seal(Received(9, 0, 0))
    assert client.closed is None


@pytest.mark.parametrize("code", [CloseCode.GOING_AWAY, CloseCode.KICKED])
def test_it_says_why_it_ends_whichever_way_is_there(code: CloseCode) -> None:
    desk = Desk()
    client = known(desk, "alice")
    client.use_datagrams()
    desk.reception.close(client.session, code, "because", now_s=desk.now_s)
    desk.reception.close(client.session, CloseCode.FLOOD, "again", now_s=desk.now_s)
    desk.flush()
    assert client.closed == code
    client.pump()
    assert client.channel is not None
    assert client.channel.farewell == Close(code, b"because")
    assert client.session.datagrams_to_send(now_s=desk.now_s) == []


def test_behind_its_end_nothing_is_taken() -> None:
    desk = Desk()
    client = known(desk, "alice")
    client.use_datagrams()
    client.write(write_record(Op.CLOSE, Stage.REQUEST, Closing(code=0)))
    client.write(client.create_record("lobby"))
    client.seal(Ping())
    client.session.handle_timeout(now_s=desk.now_s + 1e6)
    assert desk.hub.rooms() == []
    assert client.session.next_timeout_s() is None
    client.session.reply(Op.LEAVE, Done(id=1))
    assert client.session.data_to_send(space=9999, now_s=desk.now_s) == b""


def test_publishing_behind_its_end_in_the_same_packet_is_not_taken() -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    alice.use_datagrams()
    alice.seal(Message(1, 1, 1, 1, 0, 0, 0, b"x"), Publish(alice.handles["lobby"], 1, 0, b"x"))
    assert bob.texts() == []
    flood = [Publish(alice.handles["lobby"], 1, 0, b"x")]
    carol, dave = seat(desk, "other", "carol", "daved")
    for _ in range(7):
        carol.say(*(flood * 1001))
    assert carol.closed == CloseCode.FLOOD
    assert dave.texts() == ["x"]


def test_a_log_that_cannot_be_read_ends_those_sessions_that_would_read_it() -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    log = bob.last(Seated).log
    alice.say(Publish(alice.handles["lobby"], 1, 0, b"hello"))
    desk.crash()
    desk.unreadable = True
    back = Client(desk, "bobby").authenticate(bob)
    other = known(desk, "carol")
    back.join("lobby", log=log, last=2)
    assert isinstance(back.last(Seated), Seated)
    assert back.texts() == []
    assert back.session.next_timeout_s() is not None
    desk.wait(0.001)
    assert back.closed == CloseCode.GOING_AWAY
    assert other.closed is None
    desk.unreadable = False
    again = Client(desk, "bobby").authenticate(back)
    again.join("lobby", log=log, last=2)
    assert again.texts() == ["hello"]


def test_what_waits_to_be_written_goes_with_the_connection() -> None:
    desk = Desk()
    client = known(desk, "alice")
    client.use_datagrams()
    desk.space = 0
    client.session.reply(Op.LEAVE, Done(id=1))
    client.lose_stream()
    assert client.session.data_to_send(space=0, now_s=desk.now_s) == b""


# --- datagrams ------------------------------------------------------------------------------------------------


def test_a_datagram_of_nobody_is_dropped_and_counted() -> None:
    desk = Desk()
    client = known(desk, "alice")
    good = b"\x00\x0e" + client.session.connection_id + bytes(6)
    assert desk.reception.knows(client.session.connection_id)
    assert not desk.reception.knows(bytes(8))
    batch = [b"", b"\x05lobby", good, good + bytes(16), good[:9] + b"x" + bytes(30), good + bytes(30), bytes(2000)]
    desk.reception.receive_batch([(data, client.address) for data in batch], now_s=desk.now_s)
    counters = desk.reception.counters
    assert (counters.not_sealed, counters.unknown, counters.not_opened) == (5, 1, 1)
    assert client.session.datagrams_to_send(now_s=desk.now_s) == []


def test_a_datagram_counts_once() -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    alice.use_datagrams()
    assert alice.channel is not None
    data = alice.channel.lane.seal(write_frame(Publish(alice.handles["lobby"], 1, 0, b"hello")))
    for _ in range(3):
        desk.reception.receive_batch([(data, alice.address)], now_s=desk.now_s)
    desk.flush()
    assert desk.reception.counters.not_opened == 2
    assert bob.texts() == ["hello"]
    assert [one for one, _ in alice.published()] in ([], [1])


def test_nobody_is_sent_a_datagram_who_has_not_proved_its_address() -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    alice.say(Publish(alice.handles["lobby"], 1, 0, b"hello"))
    assert bob.arriving == []


def test_behind_a_close_in_the_same_batch_nothing_is_opened() -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    alice.use_datagrams()
    assert alice.channel is not None
    seal, handle = alice.channel.lane.seal, alice.handles["lobby"]
    frames: list[Frame] = [Publish(handle, 1, 0, b"said"), Close(0, b""), Publish(handle, 2, 0, b"too late")]
    batch = [(seal(write_frame(frame)), alice.address) for frame in frames]
    desk.reception.receive_batch(batch, now_s=desk.now_s)
    desk.flush()
    assert bob.texts() == ["said"]
    assert desk.reception.counters.not_opened == 1


def test_a_process_that_has_the_same_keys_seals_nothing() -> None:
    desk = Desk()
    alice = known(desk, "alice")
    alice.use_datagrams()
    desk.reception.disown()
    alice.say(Ping())
    assert alice.session.channel is not None
    assert not alice.session.channel.carries
    assert Pong() in alice.frames, "TLS has keys of its own"
    known(desk, "other").session.disown()
    Client(desk).session.disown()


# --- any bytes -------------------------------------------------------------------------------------------------

pieces = st.lists(
    st.one_of(
        st.binary(max_size=200),
        st.sampled_from([HELLO, AUTH, REQUEST, FRAMES]),
        st.builds(
            json_record,
            st.sampled_from([*Op, 0, 0x77, 255]),
            st.one_of(
                st.binary(max_size=60),
                st.sampled_from(
                    [
                        b"{}",
                        b'{"id":1,"handle":1}',
                        b'{"id":1,"handle":1,"first":0,"count":256}',
                        b'{"id":2,"room":"lobby","user":"alice"}',
                        b'{"id":3,"room":"lobby","user":"alice","lowest":0,"last":9007199254740991}',
                        b'{"id":4,"handle":1,"member":1}',
                        b'{"code":0}',
                    ]
                ),
            ),
            st.sampled_from(Stage),
        ),
    ),
    max_size=12,
)


@settings(max_examples=300)
@given(st.booleans(), st.booleans(), pieces)
def test_any_bytes_are_taken_or_end_the_session_with_a_code(is_known: bool, patient: bool, data: list[bytes]) -> None:
    desk = Desk()
    client = Client(desk)
    if is_known:
        client.authenticate().create("lobby", "alice")
    desk.patient = patient
    for piece in data:
        client.write(piece)
    desk.commit()
    desk.wait(200.0)
    assert client.session.is_over or client.session.channel is None, "before that the driver's clock runs"
    assert client.session.closing is not None or not client.session.is_over


frames: st.SearchStrategy[Frame] = st.one_of(
    st.builds(Publish, st.integers(0, 3), st.integers(0, 200), st.integers(0, 255), st.binary(max_size=20)),
    st.builds(Received, st.integers(0, 3), st.integers(0, 20), st.integers(0, 65535)),
    st.builds(Signal, st.just(1), st.just(1), st.just(1), st.integers(0, 9), st.binary(max_size=5)),
    st.just(Ping()),
    st.builds(Ack, st.integers(20, 60), st.integers(0, 9), st.just(b"\x01")),
    st.builds(Close, st.integers(0, 9), st.just(b"")),
)


@settings(max_examples=200)
@given(
    st.lists(st.one_of(st.binary(min_size=1, max_size=60), st.lists(frames, min_size=1, max_size=5)), max_size=10),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=6),
)
def test_any_datagrams_are_taken_or_end_the_session_with_a_code(
    content: list[bytes | list[Frame]], flips: list[tuple[int, int]]
) -> None:
    desk = Desk()
    [alice] = seat(desk, "lobby", "alice")
    alice.use_datagrams()
    assert alice.channel is not None
    for number, one in enumerate(content):
        data = bytearray(alice.channel.lane.seal(one if isinstance(one, bytes) else b"".join(map(write_frame, one))))
        if number < len(flips):
            place, bits = flips[number]
            data[place % len(data)] ^= bits
        desk.reception.receive_batch([(bytes(data), alice.address)], now_s=desk.now_s)
        desk.flush()
    desk.wait(300.0)
    assert alice.session.is_over
    assert alice.session.closing is not None


@given(st.lists(st.binary(max_size=80), max_size=20))
def test_any_junk_is_dropped_and_never_answered(batch: list[bytes]) -> None:
    desk = Desk()
    client = known(desk, "alice")
    prefix = b"\x00\x0e" + client.session.connection_id
    everything = [*batch, *(prefix + data for data in batch)]
    desk.reception.receive_batch([(data, client.address) for data in everything], now_s=desk.now_s)
    desk.flush()
    assert client.arriving == []
    assert not client.session.is_over


def test_nothing_of_a_session_shows_a_secret() -> None:
    client = known(Desk(), "alice")
    shown = repr([client.answers, client.session, client.secrets, client.all(Authenticated)])
    assert client.secret is not None
    assert client.secret not in shown
