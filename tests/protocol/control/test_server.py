"""Every request, good or bad, has its documented answer, in time and one packet at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ocm.errors import LimitExceeded, LocalProtocolError
from ocm.protocol.control.client import (
    ClientControl,
    ClientEvent,
    ClientState,
    MembersListed,
    Refused,
    Seated,
    Unseated,
)
from ocm.protocol.control.packets import Form, PacketReader, Violation
from ocm.protocol.control.server import (
    MEMBERS_SIZE_MAX,
    SERVER_STEPS,
    Request,
    ServerControl,
    ServerEvent,
    ServerState,
    Step,
)
from ocm.protocol.entry import Refusal
from ocm.protocol.limits import Limits
from ocm.protocol.wire.classic import ControlPacket, Header, Operation
from ocm.protocol.wire.size import Spelling, write_size

TOKEN = b"0123456789abcdef"
USER = b'{"user": "alice"}'
ACK = ControlPacket(1, 1, b"", b"\xc8").encode()


def serving(limits: Limits | None = None) -> ServerControl:
    return ServerControl(limits or Limits(), quiet_until_s=120.0)


def packet(
    operation: int = 1,
    stage: int = 0,
    room: bytes = b"room1",
    payload: bytes = USER,
    *,
    spelling: Spelling = Spelling.BIG_ENDIAN,
) -> bytes:
    return ControlPacket(operation, stage, room, payload, spelling).encode()


CREATE = packet()
JOIN = packet(2)
MEMBERS = packet(0x21)
LEAVE = packet(0x20)


def written(server: ServerControl) -> list[bytes]:
    """What the driver would write from now to the end, one packet per write."""
    writes: list[bytes] = []
    while server.has_more_to_send:
        now_s = server.next_timeout_s()
        assert now_s is not None
        writes += server.packets_to_send(now_s=now_s)
    return writes


def one_request(events: Sequence[ServerEvent]) -> Request:
    (event,) = events
    assert isinstance(event, Request)
    return event


def violation_of(events: Sequence[ServerEvent]) -> str:
    (event,) = events
    assert isinstance(event, Violation)
    return str(event.error)


def in_state(state: ServerState, limits: Limits | None = None) -> ServerControl:
    server = serving(limits)
    if state in (ServerState.ASKED, ServerState.SEATED, ServerState.SEATED_ASKED):
        one_request(server.receive_data(CREATE, now_s=0.0))
    if state in (ServerState.SEATED, ServerState.SEATED_ASKED):
        server.accept(TOKEN, now_s=0.0)
        assert len(written(server)) == 2
    if state is ServerState.SEATED_ASKED:
        one_request(server.receive_data(MEMBERS, now_s=0.0))
    if state is ServerState.FAILED:
        server.receive_data(b"\xff" * 32, now_s=0.0)
    assert server.state is state
    return server


# --- what is answered --------------------------------------------------------------------------------------------


def refusal(form: Form, code: Refusal, reason: str, asked: bytes) -> list[bytes]:
    """The documented way to say no to ``asked``."""
    operation, room = asked[1], asked[32 : 32 + asked[0]]
    match form:
        case Form.OCM:
            return [packet(operation, 1, room, json.dumps({"status_code": code, "message": reason}).encode())]
        case Form.PLAIN:
            return [packet(operation, 1, room, reason.encode())]
        case Form.REFERENCE:
            only = b'{"status_code": %d, "user_token": null}' % (400 if operation == 1 else 404)
            return [ACK, packet(operation, 2, b"", only)]


MALFORMED, NOT_ALLOWED = Refusal.MALFORMED, Refusal.NAME_NOT_ALLOWED
BARE = b"alice"
BAD: dict[str, tuple[bytes, Form, Refusal, str]] = {
    "operation 0": (packet(0), Form.OCM, MALFORMED, "unknown operation"),
    "operation 3": (packet(3), Form.OCM, MALFORMED, "unknown operation"),
    "operation 255": (packet(255), Form.OCM, MALFORMED, "unknown operation"),
    "operation 3, plain": (packet(3, payload=BARE), Form.PLAIN, MALFORMED, "unknown operation"),
    "operation 3, reference": (packet(3, 1, payload=BARE), Form.REFERENCE, MALFORMED, "unknown operation"),
    "leave, plain": (packet(0x20, payload=BARE), Form.PLAIN, MALFORMED, "unknown operation"),
    "members, plain": (packet(0x21, payload=BARE), Form.PLAIN, MALFORMED, "unknown operation"),
    "leave, reference": (packet(0x20, 1, payload=BARE), Form.REFERENCE, MALFORMED, "unknown operation"),
    "members, reference": (packet(0x21, 1, payload=USER), Form.REFERENCE, MALFORMED, "unknown operation"),
    "room empty": (packet(room=b""), Form.OCM, MALFORMED, "room name is empty"),
    "room empty, plain": (packet(room=b"", payload=BARE), Form.PLAIN, MALFORMED, "room name is empty"),
    "room empty, reference": (packet(1, 1, b"", BARE), Form.REFERENCE, MALFORMED, "room name is empty"),
    "room not UTF-8": (packet(room=b"\xff"), Form.OCM, MALFORMED, "room name is not UTF-8"),
    "room not UTF-8, plain": (packet(2, 0, b"\xff", BARE), Form.PLAIN, MALFORMED, "room name is not UTF-8"),
    "room not UTF-8, reference": (packet(2, 1, b"\xff", BARE), Form.REFERENCE, MALFORMED, "room name is not UTF-8"),
    "room unseen": (packet(room=b"a\nb"), Form.OCM, MALFORMED, "room name holds a character that cannot be shown"),
    "room too long": (packet(room=b"r" * 101), Form.OCM, MALFORMED, "room name is longer than 100 bytes"),
    "user empty": (packet(payload=b'{"user": ""}'), Form.OCM, NOT_ALLOWED, "user name is empty"),
    "user empty, plain": (packet(payload=b""), Form.PLAIN, NOT_ALLOWED, "user name is empty"),
    "user empty, reference": (packet(1, 1, payload=b""), Form.REFERENCE, NOT_ALLOWED, "user name is empty"),
    "user too long": (packet(payload=b"a" * 33), Form.PLAIN, NOT_ALLOWED, "user name is longer than 32 characters"),
    "user far too long": (packet(payload=b"a" * 256), Form.PLAIN, NOT_ALLOWED, "user name is longer than 255 bytes"),
    "user reserved": (packet(payload=b"server"), Form.PLAIN, NOT_ALLOWED, "user name is reserved"),
    "user not UTF-8": (packet(payload=b"\xff"), Form.PLAIN, MALFORMED, "user name is not UTF-8"),
    "user not UTF-8, reference": (packet(2, 1, payload=b"\xff"), Form.REFERENCE, MALFORMED, "user name is not UTF-8"),
    "no user": (packet(payload=b"{}"), Form.OCM, MALFORMED, "payload is not the JSON object it should be"),
    "broken JSON": (packet(payload=b"{"), Form.OCM, MALFORMED, "payload is not the JSON object it should be"),
    "deep JSON": (packet(payload=b"{" * 4096), Form.OCM, MALFORMED, "JSON nests too deep"),
    "half a surrogate pair": (
        packet(payload=b'{"user": "\\ud800"}'),
        Form.OCM,
        MALFORMED,
        "payload is not the JSON object it should be",
    ),
}


@pytest.mark.parametrize("spelling", [s for s in Spelling if s is not Spelling.LITTLE_ENDIAN])
@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_refused_in_its_own_form_and_one_may_ask_again(name: str, spelling: Spelling) -> None:
    data, form, code, reason = BAD[name]
    server = serving(Limits(room_size_max=100))
    size = Header.decode(data[:32]).payload_size
    assert server.receive_data(data[:3] + write_size(size, spelling) + data[32:], now_s=1.0) == []
    assert server.state is ServerState.IDLE
    replies = [ControlPacket.encode(reply) for reply in respelled(refusal(form, code, reason, data), form, spelling)]
    assert written(server) == replies
    assert one_request(server.receive_data(JOIN, now_s=2.0)).operation is Operation.JOIN


def respelled(writes: list[bytes], form: Form, spelling: Spelling) -> list[ControlPacket]:
    """The same packets, with their size written as the peer writes sizes; the reference form's never change."""
    reader = PacketReader(65_536)
    packets: list[ControlPacket] = []
    for data in writes:
        reader.feed(data)
        found = reader.next_packet()
        assert found is not None
        spelled = found.spelling if form is Form.REFERENCE else spelling
        packets.append(ControlPacket(found.operation, found.stage, found.room, found.payload, spelled))
    return packets


@pytest.mark.parametrize("stage", range(2, 256))
def test_a_request_of_another_stage_is_refused(stage: int) -> None:
    for payload, form in ((USER, Form.OCM), (BARE, Form.PLAIN)):
        server = serving()
        data = packet(1, stage, payload=payload)
        assert server.receive_data(data, now_s=0.0) == []
        assert written(server) == refusal(form, MALFORMED, "a request has stage 0", data)


@given(form=st.sampled_from([Form.OCM, Form.PLAIN]), spelling=st.sampled_from(Spelling), size=st.integers(1, 16))
def test_replies_spell_sizes_as_the_request_did(form: Form, spelling: Spelling, size: int) -> None:
    user = "a" * size
    payload = json.dumps({"user": user}).encode() if form is Form.OCM else user.encode()
    server = serving()
    asked = one_request(server.receive_data(packet(2, payload=payload, spelling=spelling), now_s=0.0))
    assert (asked.form, asked.user) == (form, user)
    server.accept(TOKEN, now_s=0.0)
    for reply in written(server):
        assert reply[3:32] == write_size(len(reply) - 32 - 5, spelling)


def test_a_request_says_everything_that_was_asked() -> None:
    payload = b'{"user": "alice", "password": "pa55", "user_token": "0123", "stranger": [1]}'
    asked = one_request(serving().receive_data(packet(2, payload=payload), now_s=0.0))
    assert asked == Request(Operation.JOIN, Form.OCM, "room1", "alice", "pa55", b"0123")


@pytest.mark.parametrize("spelling", Spelling)
@pytest.mark.parametrize("size", [4097, 2**31])
def test_a_promise_over_the_limit_ends_the_conversation_on_the_header(spelling: Spelling, size: int) -> None:
    server = serving()
    header = Header(5, 1, 0, size, spelling).encode()
    assert server.receive_data(header[:31], now_s=0.0) == []
    (event,) = server.receive_data(header[31:], now_s=0.0)
    assert isinstance(event, Violation)
    assert isinstance(event.error, LimitExceeded)
    assert event.error.asked == size
    assert not server.has_more_to_send


def test_the_largest_promise_ends_the_conversation_on_the_header() -> None:
    (event,) = serving().receive_data(b"\xff" * 32, now_s=0.0)
    assert isinstance(event, Violation)
    assert isinstance(event.error, LimitExceeded)
    assert event.error.asked == 2**232 - 1


def test_a_payload_at_the_limit_is_read() -> None:
    assert one_request(serving().receive_data(packet(payload=USER.ljust(4096)), now_s=0.0)).user == "alice"


@pytest.mark.parametrize("size", [1, 31, 32, 36, len(CREATE) - 1])
def test_a_stream_that_ends_inside_a_packet_is_a_violation(size: int) -> None:
    server = serving()
    assert server.receive_data(CREATE[:size], now_s=0.0) == []
    assert violation_of(server.receive_eof()) == "the stream ended inside a packet"
    assert server.state is ServerState.FAILED
    assert server.receive_eof() == []


@pytest.mark.parametrize("state", ServerState)
def test_a_stream_that_ends_between_packets_is_fine(state: ServerState) -> None:
    assert in_state(state).receive_eof() == []


def test_a_peer_that_asks_and_hangs_up_is_still_answered() -> None:
    server = in_state(ServerState.ASKED)
    server.receive_data(JOIN[:10], now_s=0.0)
    assert server.receive_eof() == []
    server.refuse(Refusal.NOT_FOUND, "no such room", now_s=0.0)
    assert len(written(server)) == 1


# --- what is asked when ------------------------------------------------------------------------------------------


def test_a_header_may_come_in_32_segments() -> None:
    server = serving()
    for place in range(32):
        assert server.receive_data(CREATE[place : place + 1], now_s=0.0) == []
        assert not server.silent
    assert one_request(server.receive_data(CREATE[32:], now_s=0.0)).user == "alice"


def test_two_requests_in_one_segment_are_answered_one_after_the_other() -> None:
    server = serving()
    assert one_request(server.receive_data(CREATE + JOIN, now_s=0.0)).operation is Operation.CREATE
    assert server.asked
    events = server.refuse(Refusal.ROOM_EXISTS, "the room exists already", now_s=0.0)
    assert one_request(events).operation is Operation.JOIN
    assert server.accept(TOKEN, now_s=0.0) == []
    assert [reply[1:3] for reply in written(server)] == [b"\x01\x01", b"\x02\x01", b"\x02\x02"]


@pytest.mark.parametrize("again", [CREATE, JOIN, packet(2, payload=BARE), packet(1, 1, payload=BARE)])
@pytest.mark.parametrize("at_once", [True, False])
def test_a_second_seat_on_one_connection_is_refused(again: bytes, *, at_once: bool) -> None:
    server = serving()
    one_request(server.receive_data(CREATE + (again if at_once else b""), now_s=0.0))
    events = server.accept(TOKEN, now_s=0.0)
    assert (events if at_once else server.receive_data(again, now_s=0.0)) == []
    assert server.state is ServerState.SEATED
    form = Form.REFERENCE if again[2] else Form.OCM if again.endswith(USER) else Form.PLAIN
    assert written(server)[2:] == refusal(form, MALFORMED, "this connection has a seat already", again)
    assert one_request(server.receive_data(LEAVE, now_s=0.0)).operation is Operation.LEAVE
    server.answer(now_s=0.0)
    assert one_request(server.receive_data(again, now_s=0.0)).room == "room1"


@pytest.mark.parametrize("at_once", [True, False])
def test_who_is_refused_too_often_is_told_and_dropped(*, at_once: bool) -> None:
    server = serving(Limits(refusals_max=3))
    if at_once:
        events = server.receive_data(packet(9) * 20, now_s=0.0)
    else:
        assert server.receive_data(packet(9), now_s=0.0) == []
        one_request(server.receive_data(JOIN, now_s=0.0))
        assert server.refuse(Refusal.NOT_FOUND, "no such room", now_s=0.0) == []
        events = server.receive_data(packet(9), now_s=0.0)
    assert violation_of(events) == "refused too often"
    assert server.state is ServerState.FAILED
    assert len(written(server)) == 3
    assert server.next_timeout_s() is None


@pytest.mark.parametrize("state", [ServerState.ASKED, ServerState.SEATED_ASKED])
def test_who_asks_faster_than_it_is_answered_is_dropped(state: ServerState) -> None:
    server = in_state(state, Limits(send_buffer_max=100))
    assert server.receive_data(MEMBERS, now_s=0.0) == []
    assert server.receive_data(bytes(200 - len(MEMBERS)), now_s=0.0) == []
    assert violation_of(server.receive_data(b"\0", now_s=0.0)) == "asks faster than it is answered"
    assert server.state is ServerState.FAILED


def test_a_members_reply_lists_as_many_as_fit_a_clients_limit() -> None:
    for names in ([f"user{number}" for number in range(20_000)], ["\U0001f600" * 32] * 1000, ["あ" * 32] * 1000):
        client, server = ClientControl(), serving()
        one_request(server.receive_data(client.send_request(Operation.CREATE, room="room1", user="alice"), now_s=0.0))
        server.accept(TOKEN, now_s=0.0)
        client.receive_data(b"".join(written(server)))
        one_request(server.receive_data(client.send_members(), now_s=0.0))
        server.answer(names, now_s=0.0)
        (listed,) = client.receive_data(b"".join(written(server)))
        assert isinstance(listed, MembersListed)
        assert listed.count == len(names)
        assert list(listed.members) == names[: len(listed.members)]
        assert sum(len(json.dumps({"name": name})) for name in listed.members) > MEMBERS_SIZE_MAX * 0.8


# --- the table ---------------------------------------------------------------------------------------------------

ANSWERS: dict[Step, Callable[[ServerControl], list[ServerEvent]]] = {
    Step.SEAT: lambda server: server.accept(TOKEN, now_s=0.0),
    Step.ANSWER: lambda server: server.answer([], now_s=0.0),
    Step.UNSEAT: lambda server: server.answer(now_s=0.0),
    Step.REFUSE: lambda server: server.refuse(Refusal.NOT_FOUND, "no such room", now_s=0.0),
}


@pytest.mark.parametrize("state", ServerState)
@pytest.mark.parametrize("step", ANSWERS)
def test_an_answer_out_of_turn_is_our_mistake_and_changes_nothing(state: ServerState, step: Step) -> None:
    server = in_state(state)
    before = server.next_timeout_s()
    if (state, step) in SERVER_STEPS:
        assert ANSWERS[step](server) == []
        assert server.state is SERVER_STEPS[state, step]
    else:
        with pytest.raises(LocalProtocolError, match=f"in state {state.name}"):
            ANSWERS[step](server)
        assert server.state is state
        assert server.next_timeout_s() == before
        assert not server.has_more_to_send


@pytest.mark.parametrize("state", ServerState)
def test_a_request_is_read_where_the_table_says_so(state: ServerState) -> None:
    server = in_state(state)
    events = server.receive_data(MEMBERS, now_s=0.0)
    assert server.state is SERVER_STEPS.get((state, Step.REQUEST), state)
    assert len(events) == ((state, Step.REQUEST) in SERVER_STEPS)


@pytest.mark.parametrize("token", [b"", b"t" * 256, b"\xff", "鍵".encode()])
def test_a_token_that_no_datagram_or_json_can_carry_is_our_mistake_and_changes_nothing(token: bytes) -> None:
    server = in_state(ServerState.ASKED)
    with pytest.raises(LocalProtocolError, match="a token has 1 to 255 bytes"):
        server.accept(token, now_s=0.0)
    assert server.state is ServerState.ASKED
    assert not server.has_more_to_send


@pytest.mark.parametrize("data", [b"", b"x", CREATE, b"\xff" * 32])
def test_after_a_violation_everything_is_ignored(data: bytes) -> None:
    server = in_state(ServerState.FAILED)
    for _ in range(3):
        assert server.receive_data(data, now_s=1000.0) == []
        assert server.receive_eof() == []
        assert server.handle_timeout(now_s=1000.0) == []
        assert server.packets_to_send(now_s=1000.0) == []
        assert server.next_timeout_s() is None
    assert server.state is ServerState.FAILED
    assert not server.asked
    assert not server.silent


# --- time --------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(1, 20), st.sampled_from([0.25, 0.5, 1.0, 2.0, 4.0])), max_size=20))
def test_a_deadline_counts_from_the_first_byte_and_never_starts_again(arrivals: list[tuple[int, float]]) -> None:
    server = serving()
    data, now_s, sent = packet(payload=USER.ljust(4096)), 10.0, 0
    for size, pause_s in arrivals:
        assert server.receive_data(data[sent : sent + size], now_s=now_s) == []
        sent += size
        deadline = 10.0 + (10.0 if sent >= 32 else 5.0)
        assert server.next_timeout_s() == deadline
        assert server.handle_timeout(now_s=min(now_s, deadline - 0.01)) == []
        now_s += pause_s
        if now_s >= deadline:
            assert violation_of(server.handle_timeout(now_s=now_s)) == "too slow"
            assert server.state is ServerState.FAILED
            return
    assert server.state is ServerState.IDLE


def test_a_header_has_5_seconds_and_a_packet_10() -> None:
    server = serving()
    server.receive_data(CREATE[:1], now_s=50.0)
    assert server.handle_timeout(now_s=54.99) == []
    server.receive_data(CREATE[1:32], now_s=54.99)
    assert server.handle_timeout(now_s=59.99) == []
    assert violation_of(server.handle_timeout(now_s=60.0)) == "too slow"


def test_a_header_that_is_late_ends_the_conversation() -> None:
    server = serving()
    server.receive_data(CREATE[:31], now_s=50.0)
    assert violation_of(server.handle_timeout(now_s=55.0)) == "too slow"


def test_the_next_packet_has_a_deadline_of_its_own() -> None:
    server = serving()
    server.receive_data(CREATE[:5], now_s=0.0)
    one_request(server.receive_data(CREATE[5:] + MEMBERS[:5], now_s=4.0))
    assert server.next_timeout_s() is None
    server.accept(TOKEN, now_s=4.0)
    written(server)
    assert server.next_timeout_s() == 9.0
    one_request(server.receive_data(MEMBERS[5:], now_s=8.0))
    server.answer([], now_s=8.0)
    written(server)
    assert server.next_timeout_s() is None  # a seat may be kept in silence
    server.receive_data(b"\x05", now_s=5000.0)
    assert server.next_timeout_s() == 5005.0


def test_what_came_while_we_thought_is_timed_from_the_answer() -> None:
    server = serving()
    server.receive_data(CREATE, now_s=0.0)
    server.receive_data(MEMBERS[:10], now_s=1.0)
    server.accept(TOKEN, now_s=30.0)
    assert not server.handle_timeout(now_s=34.9)
    assert server.handle_timeout(now_s=35.0)


def test_nothing_at_all_is_not_a_first_byte() -> None:
    server = serving()
    assert server.receive_data(b"", now_s=50.0) == []
    assert server.silent
    assert server.next_timeout_s() == 120.0


def test_a_silent_peer_has_until_the_time_it_was_given() -> None:
    server = ServerControl(Limits(), quiet_until_s=7.0)
    assert server.silent
    assert server.next_timeout_s() == 7.0
    assert server.handle_timeout(now_s=6.99) == []
    assert violation_of(server.handle_timeout(now_s=7.0)) == "too slow"


@pytest.mark.parametrize("data", [packet(9), JOIN])
def test_after_a_refusal_one_may_sit_at_the_prompt_again(data: bytes) -> None:
    server = serving()
    if server.receive_data(data, now_s=100.0):
        server.refuse(Refusal.NOT_FOUND, "no such room", now_s=100.0, delay_s=2.0)
    written(server)
    assert server.silent
    deadline = server.next_timeout_s()
    assert deadline == (222.0 if data is JOIN else 220.0)
    assert server.handle_timeout(now_s=219.9) == []
    assert violation_of(server.handle_timeout(now_s=222.0)) == "too slow"


def test_after_leaving_one_may_sit_at_the_prompt_again() -> None:
    server = in_state(ServerState.SEATED)
    one_request(server.receive_data(LEAVE, now_s=3600.0))
    server.answer(now_s=3600.0)
    assert server.handle_timeout(now_s=3600.1) == []
    assert len(written(server)) == 2
    assert server.next_timeout_s() == 3720.0


def test_the_time_to_sit_never_gets_shorter() -> None:
    server = ServerControl(Limits(), quiet_until_s=500.0)
    server.receive_data(packet(9), now_s=0.0)
    written(server)
    assert server.next_timeout_s() == 500.0


@pytest.mark.parametrize("asked", [JOIN, packet(2, payload=BARE), packet(2, 1, payload=BARE)])
def test_a_late_refusal_is_late_and_nothing_overtakes_it(asked: bytes) -> None:
    server = serving()
    one_request(server.receive_data(asked, now_s=10.0))
    assert server.refuse(Refusal.NOT_FOUND, "no such room", now_s=10.0, delay_s=2.0) == []
    assert server.next_timeout_s() == 12.0
    assert server.packets_to_send(now_s=11.99) == []
    one_request(server.receive_data(CREATE, now_s=11.0))
    server.accept(TOKEN, now_s=11.0)
    assert server.packets_to_send(now_s=11.99) == []
    (first,) = server.packets_to_send(now_s=12.0)
    form = Form.REFERENCE if asked[2] else Form.OCM if asked.endswith(USER) else Form.PLAIN
    writes = [first, *written(server)]
    assert writes[:-2] == refusal(form, Refusal.NOT_FOUND, "no such room", asked)
    assert [reply[:3] for reply in writes[-2:]] == [b"\x05\x01\x01", b"\x05\x01\x02"]


TICK_S = 1 / 64  # sums of it are exact


@given(
    dialogue=st.lists(st.sampled_from([CREATE, packet(9), packet(2, 1, payload=BARE)]), min_size=1, max_size=5),
    delays=st.lists(st.sampled_from([0.0, 1.0]), min_size=5, max_size=5),
    looks=st.lists(st.integers(0, 9), max_size=40),
)
def test_packets_go_one_by_one_a_pause_apart_however_late_the_driver_is(
    dialogue: list[bytes], delays: list[float], looks: list[int]
) -> None:
    server = serving(Limits(reply_pause_s=3 * TICK_S))
    events = server.receive_data(b"".join(dialogue), now_s=0.0)
    for delay_s in delays:
        if events:
            events = server.refuse(Refusal.NOT_FOUND, "no", now_s=0.0, delay_s=delay_s)
    now_s, sent_s = 0.0, -1.0
    reader = PacketReader(65_536)
    for ticks in [*looks, *[200] * 20]:
        now_s += ticks * TICK_S
        writes = server.packets_to_send(now_s=now_s)
        if writes:
            (write,) = writes
            reader.feed(write)
            assert reader.next_packet() is not None
            assert reader.waiting == 0
            assert now_s - sent_s >= 3 * TICK_S
            sent_s = now_s
    assert not server.has_more_to_send


def test_the_second_packet_waits_for_its_pause_when_the_first_went_late() -> None:
    server = in_state(ServerState.ASKED)
    server.accept(TOKEN, now_s=0.0)
    assert len(server.packets_to_send(now_s=5.0)) == 1
    assert server.packets_to_send(now_s=5.0) == []
    assert server.next_timeout_s() == 5.02
    assert len(server.packets_to_send(now_s=5.02)) == 1


def test_a_deadline_that_comes_before_the_next_packet_is_heard_of_first() -> None:
    server = serving()
    one_request(server.receive_data(JOIN, now_s=10.0))
    server.refuse(Refusal.NOT_FOUND, "no such room", now_s=10.0, delay_s=60.0)
    server.receive_data(b"\x05", now_s=10.0)
    assert server.next_timeout_s() == 15.0


# --- any stream --------------------------------------------------------------------------------------------------

payloads = st.one_of(st.sampled_from([USER, BARE, b"", b"{}", b"\xff", b"[" * 99, b"server"]), st.binary(max_size=20))
requests = st.builds(
    packet,
    st.sampled_from([1, 1, 2, 2, 0x20, 0x21, 0, 255]),
    st.sampled_from([0, 0, 0, 1, 2, 255]),
    st.sampled_from([b"room1", b"room1", b"", b"\xff"]),
    payloads,
    spelling=st.sampled_from(Spelling),
)
streams = st.lists(st.one_of(requests, requests, requests, st.binary(max_size=40)), max_size=8).map(b"".join)


def listen(chunks: list[bytes]) -> tuple[list[str], list[bytes], ServerState]:
    """What is asked and what is written, with every second request refused."""
    server = serving()
    heard: list[str] = []
    for chunk in chunks:
        events = server.receive_data(chunk, now_s=0.0)
        while events:
            (event,) = events
            heard.append(repr(event) if isinstance(event, Request) else f"violation: {event.error}")
            if isinstance(event, Violation):
                break
            if len(heard) % 2 == 0:
                events = server.refuse(Refusal.ROOM_FULL, "the room is full", now_s=0.0)
            elif event.operation is Operation.LEAVE:
                events = server.answer(now_s=0.0)
            elif event.operation is Operation.MEMBERS:
                events = server.answer(["alice"], now_s=0.0)
            else:
                events = server.accept(TOKEN, now_s=0.0)
    heard += [f"violation: {event.error}" for event in server.receive_eof() if isinstance(event, Violation)]
    return heard, written(server), server.state


@given(stream=streams, data=st.data())
def test_any_stream_is_answered_the_same_however_it_is_cut(stream: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    whole = listen([stream])
    assert listen(pieces) == whole
    assert all("violation" not in event for event in whole[0][:-1])


# --- both sides --------------------------------------------------------------------------------------------------


class Conversation(RuleBasedStateMachine):
    """A client and a server over a pipe that cuts as it likes, with answers as they come."""

    @initialize(form=st.sampled_from(Form), spelling=st.sampled_from(list(Spelling)[:-1]))
    def connect(self, form: Form, spelling: Spelling) -> None:
        self.form = form
        self.client = ClientControl(form=form, spelling=spelling)
        self.server = ServerControl(Limits(refusals_max=1000), quiet_until_s=1e6)
        self.up = self.down = b""
        self.now_s = self.sent_s = 0.0
        self.asked: Request | None = None
        self.due: list[ClientEvent] = []

    def client_is(self, *states: ClientState) -> bool:
        return self.client.state in states

    @precondition(lambda self: self.client_is(ClientState.IDLE))
    @rule(
        operation=st.sampled_from([Operation.CREATE, Operation.JOIN]),
        room=st.sampled_from(["room1", "部屋", "r" * 255]),
        user=st.sampled_from(["alice", "愛子", "server", "", "a" * 33]),
        password=st.sampled_from([None, "pa55"]),
    )
    def ask(self, operation: Operation, room: str, user: str, password: str | None) -> None:
        assert self.due == []
        self.up += self.client.send_request(operation, room=room, user=user, password=password)
        reason = {"server": "user name is reserved", "": "user name is empty"}.get(user)
        reason = "user name is longer than 32 characters" if len(user) > 32 else reason
        if reason is not None:
            self.expect_refusal(Refusal.NAME_NOT_ALLOWED, reason, operation)

    @precondition(lambda self: self.form is Form.OCM and self.client_is(ClientState.SEATED))
    @rule(leave=st.booleans())
    def ask_more(self, *, leave: bool) -> None:
        assert self.due == []
        self.up += self.client.send_leave() if leave else self.client.send_members()

    @rule(size=st.integers(1, 400))
    def carry_up(self, size: int) -> None:
        data, self.up = self.up[:size], self.up[size:]
        for event in self.server.receive_data(data, now_s=self.now_s):
            assert isinstance(event, Request)
            assert event.form is self.form
            self.asked = event

    @rule(size=st.integers(1, 400))
    def carry_down(self, size: int) -> None:
        data, self.down = self.down[:size], self.down[size:]
        for event in self.client.receive_data(data):
            assert event == self.due.pop(0)

    @rule(ticks=st.integers(0, 4))
    def look(self, ticks: int) -> None:
        self.now_s += ticks / 128
        assert self.server.handle_timeout(now_s=self.now_s) == []
        for write in self.server.packets_to_send(now_s=self.now_s):
            assert self.sent_s == 0.0 or self.now_s - self.sent_s >= 0.0199
            self.sent_s = self.now_s
            self.down += write

    @precondition(lambda self: self.asked is not None)
    @rule(yes=st.booleans(), late=st.booleans(), size=st.integers(1, 255))
    def answer(self, *, yes: bool, late: bool, size: int) -> None:
        asked, self.asked = self.asked, None
        assert asked is not None
        if not yes:
            self.server.refuse(Refusal.ROOM_FULL, "満室", now_s=self.now_s, delay_s=0.1 * late)
            self.expect_refusal(Refusal.ROOM_FULL, "満室", asked.operation)
        elif asked.operation is Operation.LEAVE:
            self.server.answer(now_s=self.now_s)
            self.due.append(Unseated())
        elif asked.operation is Operation.MEMBERS:
            self.server.answer(["alice", "愛子"] * size, now_s=self.now_s)
            self.due.append(MembersListed(("alice", "愛子") * size, 2 * size))
        else:
            self.server.accept(b"t" * size, now_s=self.now_s)
            self.due.append(Seated(self.form, b"t" * size))

    def expect_refusal(self, code: Refusal, reason: str, operation: Operation) -> None:
        match self.form:
            case Form.OCM:
                self.due.append(Refused(code, reason))
            case Form.PLAIN:
                self.due.append(Refused(400, reason))
            case Form.REFERENCE if operation is Operation.CREATE:
                self.due.append(Refused(400, "the room exists already"))
            case Form.REFERENCE:
                self.due.append(Refused(404, "no such room"))

    @invariant()
    def nobody_has_failed(self) -> None:
        assert self.server.state is not ServerState.FAILED
        assert self.client.state is not ClientState.FAILED
        assert self.server.asked == (self.asked is not None)

    def teardown(self) -> None:
        self.carry_up(len(self.up) or 1)
        if self.asked is not None:
            self.answer(yes=True, late=False, size=1)
        while self.server.has_more_to_send:
            self.look(4)
        self.carry_down(len(self.down) or 1)
        assert self.due == []
        states = {ClientState.IDLE: ServerState.IDLE, ClientState.LEFT: ServerState.IDLE}
        assert self.server.state is states.get(self.client.state, ServerState.SEATED)
        assert self.client_is(ClientState.IDLE, ClientState.SEATED, ClientState.LEFT)


TestConversation = Conversation.TestCase
