"""The client gets a seat, a refusal or a violation out of every server, and nothing else ever comes out of it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocm.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from ocm.protocol.control.client import (
    CLIENT_STEPS,
    REPLY_SIZE_MAX,
    ClientControl,
    ClientEvent,
    ClientState,
    Heard,
    MembersListed,
    Refused,
    Seated,
    Unseated,
)
from ocm.protocol.control.packets import Form, Violation
from ocm.protocol.wire.classic import ControlPacket, Header, Operation
from ocm.protocol.wire.size import Spelling, write_size

TOKEN = "0123456789abcdef"
YES = b'{"status_code": 200}'
GIVEN = b'{"status_code": 200, "user_token": "0123456789abcdef"}'
NO = b'{"status_code": 404, "message": "no such room"}'
ACK = ControlPacket(1, 1, b"", b"\xc8").encode()


def reply(stage: int, payload: bytes, operation: int = 2) -> bytes:
    return ControlPacket(operation, stage, b"room1", payload).encode()


NULL = reply(2, b'{"status_code": 404, "user_token": null}')


def asking(form: Form = Form.OCM) -> ClientControl:
    client = ClientControl(form=form)
    client.send_request(Operation.JOIN, room="room1", user="alice")
    return client


def seated(form: Form = Form.OCM) -> ClientControl:
    client = asking(form)
    if form is Form.PLAIN:
        events = client.receive_data(reply(1, b"OK") + reply(2, TOKEN.encode()))
    elif form is Form.REFERENCE:
        events = client.receive_data(ACK + reply(2, GIVEN))
    else:
        events = client.receive_data(reply(1, YES) + reply(2, GIVEN))
    assert events == [Seated(form, TOKEN.encode())]
    assert client.form is form
    return client


def in_state(state: ClientState) -> ClientControl:
    match state:
        case ClientState.IDLE:
            return ClientControl()
        case ClientState.REQUESTED:
            return asking()
        case ClientState.ACCEPTED:
            client = asking()
            assert client.receive_data(reply(1, YES)) == []
        case ClientState.SEATED:
            return seated()
        case ClientState.ASKING:
            client = seated()
            client.send_members()
        case ClientState.ANSWERED | ClientState.LEFT:
            client = seated()
            client.send_leave()
            client.receive_data(reply(1, YES) + (reply(2, YES) if state is ClientState.LEFT else b""))
        case ClientState.FAILED:
            client = asking()
            client.receive_data(bytes(32))
    return client


def form_of(client: ClientControl) -> Form:
    return client.form


def violation_of(events: list[ClientEvent]) -> str:
    (event,) = events
    assert isinstance(event, Violation)
    return str(event.error)


# --- what the client says ----------------------------------------------------------------------------------------


@given(
    form=st.sampled_from(Form),
    spelling=st.sampled_from(Spelling),
    operation=st.sampled_from([Operation.CREATE, Operation.JOIN]),
    user=st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    password=st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
    token=st.none() | st.binary(max_size=10).map(bytes.hex).map(str.encode),
)
def test_a_request_says_what_was_asked(
    *, form: Form, spelling: Spelling, operation: Operation, user: str, password: str | None, token: bytes | None
) -> None:
    client = ClientControl(form=form, spelling=spelling)
    data = client.send_request(operation, room="部屋", user=user, password=password, token=token)
    payload = data[32 + 6 :]
    assert data[:3] == bytes([6, operation, form is Form.REFERENCE])
    assert data[3:32] == write_size(len(payload), spelling)
    assert data[32 : 32 + 6] == "部屋".encode()
    if form is Form.OCM:
        items = {"user": user, "password": password, "user_token": token.decode() if token is not None else None}
        assert json.loads(payload) == {key: value for key, value in items.items() if value is not None}
    else:
        assert payload == user.encode()


@pytest.mark.parametrize(
    ("operation", "room", "user", "token"),
    [
        (Operation.LEAVE, "room1", "alice", None),
        (Operation.MEMBERS, "room1", "alice", None),
        (Operation.JOIN, "", "alice", None),
        (Operation.JOIN, "r" * 256, "alice", None),
        (Operation.JOIN, "room\n1", "alice", None),
        (Operation.JOIN, "\ud800", "alice", None),
        (Operation.JOIN, "room1", "\ud800", None),
        (Operation.JOIN, "room1", "a" * 256, None),
        (Operation.JOIN, "room1", "alice", b"\xff"),
    ],
)
def test_a_request_that_cannot_be_made_is_our_mistake_and_changes_nothing(
    operation: Operation, room: str, user: str, token: bytes | None
) -> None:
    client = ClientControl()
    with pytest.raises(LocalProtocolError):
        client.send_request(operation, room=room, user=user, token=token)
    assert client.state is ClientState.IDLE
    assert client.send_request(Operation.JOIN, room="room1", user="alice")


@pytest.mark.parametrize("form", [Form.PLAIN, Form.REFERENCE])
def test_only_our_own_form_has_leave_and_members(form: Form) -> None:
    client = seated(form)
    for ask in (client.send_leave, client.send_members):
        with pytest.raises(LocalProtocolError, match=f"the {form.value} form has no"):
            ask()
    assert client.state is ClientState.SEATED


@pytest.mark.parametrize("state", ClientState)
@pytest.mark.parametrize("heard", [Heard.ASK, Heard.ASK_MORE])
def test_what_may_not_be_asked_now_is_our_mistake_and_changes_nothing(state: ClientState, heard: Heard) -> None:
    asks: list[Callable[[ClientControl], bytes]] = [
        lambda client: client.send_request(Operation.CREATE, room="room2", user="bob")
    ]
    if heard is Heard.ASK_MORE:
        asks = [ClientControl.send_leave, ClientControl.send_members]
    for ask in asks:
        client = in_state(state)
        assert client.state is state
        if (state, heard) in CLIENT_STEPS:
            assert ask(client)
            assert client.state is CLIENT_STEPS[state, heard]
        else:
            with pytest.raises(LocalProtocolError, match=f"in state {state.name}"):
                ask(client)
            assert client.state is state


# --- what it hears -----------------------------------------------------------------------------------------------

IN_TURN = {
    (ClientState.REQUESTED, 1): [Heard.YES, Heard.NO],
    (ClientState.ACCEPTED, 2): [Heard.TOKEN, Heard.NO],
    (ClientState.ASKING, 1): [Heard.YES, Heard.NO],
    (ClientState.ANSWERED, 2): [Heard.GONE],
}
SAID = {Heard.YES: YES, Heard.NO: NO, Heard.TOKEN: GIVEN, Heard.GONE: YES}


@pytest.mark.parametrize("state", [state for state in ClientState if state is not ClientState.FAILED])
@pytest.mark.parametrize("stage", [0, 1, 2, 3, 128, 255])
@pytest.mark.parametrize("heard", SAID)
def test_an_answer_in_turn_moves_on_and_one_out_of_turn_is_a_violation(
    state: ClientState, stage: int, heard: Heard
) -> None:
    client = in_state(state)
    if (state, stage) not in IN_TURN:
        assert "out of turn" in violation_of(client.receive_data(reply(stage, SAID[heard])))
        assert client.state is ClientState.FAILED
    elif heard in IN_TURN[state, stage]:
        client.receive_data(reply(stage, SAID[heard]))
        assert client.state is CLIENT_STEPS[state, heard]


def test_a_members_reply_leads_back_to_the_seat() -> None:
    client = in_state(ClientState.ASKING)
    client.receive_data(reply(1, YES) + reply(2, YES))
    assert client.state is CLIENT_STEPS[ClientState.ANSWERED, Heard.DONE]


@pytest.mark.parametrize("data", [b"", b"x", reply(1, YES), bytes(1000)])
def test_after_a_violation_the_server_is_ignored(data: bytes) -> None:
    client = in_state(ClientState.FAILED)
    assert client.receive_data(data) == []
    assert client.state is ClientState.FAILED


def test_a_violation_comes_after_what_was_read_before_it() -> None:
    events = asking().receive_data(reply(1, YES) + reply(2, GIVEN) + reply(1, YES))
    assert events[0] == Seated(Form.OCM, TOKEN.encode())
    assert "out of turn" in violation_of(events[1:])


REFUSALS: dict[str, tuple[Form, bytes, Refused]] = {
    "ours": (Form.OCM, reply(1, NO), Refused(404, "no such room")),
    "ours, late": (Form.OCM, reply(1, YES) + reply(2, NO), Refused(404, "no such room")),
    "without a sentence": (Form.OCM, reply(1, b'{"status_code": 471}'), Refused(471, "no such room")),
    "a code of its own": (Form.OCM, reply(1, b'{"status_code": -1, "message": ""}'), Refused(-1, "no such room")),
    "plain": (Form.PLAIN, reply(1, b"go away"), Refused(400, "go away")),
    "plain and empty": (Form.PLAIN, reply(1, b""), Refused(400, "no such room")),
    "plain, not UTF-8": (Form.PLAIN, reply(1, b"no\xff"), Refused(400, "no\ufffd")),
    "plain that says yes as the reference does": (Form.PLAIN, reply(1, b"\xc8"), Refused(400, "\ufffd")),
    "plain that says yes in JSON": (Form.PLAIN, reply(1, YES), Refused(400, YES.decode())),
    "reference": (Form.REFERENCE, ACK + NULL, Refused(404, "no such room")),
    "reference to our form": (Form.OCM, ACK + NULL, Refused(404, "no such room")),
    "ours to the reference form": (Form.REFERENCE, reply(1, NO), Refused(404, "no such room")),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_after_a_refusal_one_may_ask_again_on_the_same_connection(name: str) -> None:
    form, data, refused = REFUSALS[name]
    client = asking(form)
    assert client.receive_data(data) == [refused]
    assert client.state is ClientState.IDLE
    client.send_request(Operation.CREATE, room="room1", user="alice")
    if form is Form.PLAIN:
        assert client.receive_data(reply(1, b"OK") + reply(2, TOKEN.encode())) == [Seated(form, TOKEN.encode())]
    else:
        assert client.receive_data(reply(1, YES) + reply(2, GIVEN)) == [Seated(form, TOKEN.encode())]


def test_a_refused_create_without_a_sentence_is_about_a_room_that_exists() -> None:
    client = ClientControl(form=Form.REFERENCE)
    client.send_request(Operation.CREATE, room="room1", user="alice")
    data = ACK + reply(2, b'{"status_code": 400, "user_token": null}')
    assert client.receive_data(data) == [Refused(400, "the room exists already")]


def test_a_server_that_answers_our_form_as_the_reference_does_is_taken_at_its_word() -> None:
    client = asking()
    assert client.form is Form.OCM
    assert client.receive_data(ACK + reply(2, GIVEN)) == [Seated(Form.REFERENCE, TOKEN.encode())]
    assert form_of(client) is Form.REFERENCE
    with pytest.raises(LocalProtocolError, match="the reference form has no LEAVE"):
        client.send_leave()


@pytest.mark.parametrize("size", [1, 255])
def test_a_token_has_1_to_255_bytes(size: int) -> None:
    token = b"t" * size
    assert asking(Form.PLAIN).receive_data(reply(1, b"OK") + reply(2, token)) == [Seated(Form.PLAIN, token)]


def token_reply(token: object) -> bytes:
    return reply(1, YES) + reply(2, json.dumps({"status_code": 200, "user_token": token}).encode())


BAD: dict[str, tuple[Form, bytes]] = {
    "zeros": (Form.OCM, bytes(32)),
    "a web server": (Form.OCM, b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\n\r\n"),
    "plain yes to our form": (Form.OCM, reply(1, b"OK")),
    "nothing": (Form.OCM, reply(1, b"")),
    "a byte that is not 200": (Form.OCM, reply(1, b"\xc9")),
    "broken JSON": (Form.OCM, reply(1, b'{"status_code": 200')),
    "JSON without a status": (Form.OCM, reply(1, b"{}")),
    "JSON list": (Form.REFERENCE, reply(1, b"[200]")),
    "status in quotes": (Form.REFERENCE, reply(1, b'{"status_code": "200"}')),
    "plain yes to the reference form": (Form.REFERENCE, reply(1, b"OK")),
    "no token": (Form.OCM, reply(1, YES) + reply(2, YES)),
    "token is null": (Form.OCM, token_reply(None)),
    "token is empty": (Form.OCM, token_reply("")),
    "token is a number": (Form.OCM, token_reply(1)),
    "token of 256 bytes": (Form.OCM, token_reply("t" * 256)),
    "token of 86 kana": (Form.OCM, token_reply("あ" * 86)),
    "plain token of 256 bytes": (Form.PLAIN, reply(1, b"OK") + reply(2, b"t" * 256)),
    "plain token is empty": (Form.PLAIN, reply(1, b"OK") + reply(2, b"")),
    "reference reply of garbage": (Form.REFERENCE, ACK + reply(2, b"\xff")),
    "reference reply without JSON": (Form.REFERENCE, ACK + reply(2, b"")),
    "the token first": (Form.OCM, reply(2, GIVEN)),
    "yes twice": (Form.OCM, reply(1, YES) + reply(1, YES)),
    "a request of its own": (Form.OCM, reply(0, b'{"user": "server"}')),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_answer_is_a_violation(name: str) -> None:
    form, data = BAD[name]
    client = asking(form)
    violation_of(client.receive_data(data))
    assert client.state is ClientState.FAILED


@pytest.mark.parametrize("size", [REPLY_SIZE_MAX + 1, 2**232 - 1])
def test_a_promise_over_the_limit_is_refused_on_the_header(size: int) -> None:
    (event,) = asking().receive_data(Header(5, 2, 1, size).encode())
    assert isinstance(event, Violation)
    assert isinstance(event.error, LimitExceeded)
    assert event.error.asked == size


def test_an_answer_at_the_limit_is_read() -> None:
    assert asking().receive_data(reply(1, NO.ljust(REPLY_SIZE_MAX))) == [Refused(404, "no such room")]


# --- leaving and asking who is there ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "listed"),
    [
        (b'{"status_code": 200, "members": ["alice", "bob"], "count": 2}', MembersListed(("alice", "bob"), 2)),
        (b'{"status_code": 200, "members": ["alice"], "count": 900}', MembersListed(("alice",), 900)),
        (b'{"status_code": 200, "members": ["alice", "bob"]}', MembersListed(("alice", "bob"), 2)),
        (b'{"status_code": 200, "members": ["alice"], "count": -7}', MembersListed(("alice",), 1)),
        (YES, MembersListed((), 0)),
    ],
)
def test_members_are_listed_and_counted(payload: bytes, listed: MembersListed) -> None:
    client = seated()
    client.send_members()
    assert client.receive_data(reply(1, YES) + reply(2, payload)) == [listed]
    client.send_members()
    assert client.receive_data(reply(1, NO)) == [Refused(404, "no such room")]
    assert client.state is ClientState.SEATED


def test_leaving_is_confirmed() -> None:
    client = seated()
    data = client.send_leave()
    assert json.loads(data[32 + 5 :]) == {"user": "alice", "user_token": TOKEN}
    assert client.receive_data(reply(1, YES) + reply(2, YES)) == [Unseated()]
    assert client.state is ClientState.LEFT


@pytest.mark.parametrize("ask", [ClientControl.send_leave, ClientControl.send_members])
@pytest.mark.parametrize("data", [reply(1, YES) + reply(2, NO), reply(1, YES) + reply(2, b"OK"), reply(1, b"\xc8")])
def test_a_seat_is_not_argued_about(ask: Callable[[ClientControl], bytes], data: bytes) -> None:
    client = seated()
    ask(client)
    violation_of(client.receive_data(data))
    assert client.state is ClientState.FAILED


# --- any server --------------------------------------------------------------------------------------------------

payloads = st.one_of(
    st.sampled_from([YES, NO, GIVEN, b"OK", b"\xc8", b"", TOKEN.encode(), b"{", b"[" * 99, b'{"status_code": 1e999}']),
    st.binary(max_size=30),
)
replies = st.builds(
    ControlPacket,
    st.sampled_from([0, 1, 2, 0x20, 0x21, 255]),
    st.sampled_from([0, 1, 1, 1, 2, 2, 2, 3]),
    st.sampled_from([b"", b"room1", b"\xff"]),
    payloads,
    st.sampled_from(Spelling),
).map(ControlPacket.encode)
streams = st.lists(st.one_of(replies, replies, replies, st.binary(max_size=40)), max_size=6).map(b"".join)


def listen(client: ClientControl, chunks: list[bytes]) -> list[str]:
    """Everything the client makes of the chunks."""
    heard: list[str] = []
    for chunk in chunks:
        for event in client.receive_data(chunk):
            heard.append(f"{event!r} {event.error}" if isinstance(event, Violation) else repr(event))
            assert isinstance(event, Seated | Refused | MembersListed | Unseated | Violation)
            if isinstance(event, Violation):
                assert isinstance(event.error, RemoteProtocolError)
    return heard


@given(form=st.sampled_from(Form), state=st.sampled_from(ClientState), stream=streams, data=st.data())
def test_any_stream_means_the_same_however_it_is_cut(
    form: Form, state: ClientState, stream: bytes, data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    one, other = (in_state(state), in_state(state)) if form is Form.OCM else (asking(form), asking(form))
    heard = listen(one, [stream])
    assert listen(other, pieces) == heard
    assert other.state is one.state
    assert all("Violation" not in event for event in heard[:-1])
    if form is not Form.OCM or state is not ClientState.FAILED:
        assert (one.state is ClientState.FAILED) == any("Violation" in event for event in heard)
