"""What ocm writes is the golden bytes and what it reads from them is their meaning, however the stream is cut."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import pytest

from ocm.protocol.control.client import ClientControl, ClientEvent, MembersListed, Refused, Seated, Unseated
from ocm.protocol.control.packets import Form
from ocm.protocol.control.server import Request, ServerControl, ServerEvent
from ocm.protocol.entry import Entry, Kind, Refusal
from ocm.protocol.limits import Limits
from ocm.protocol.link.classic import OcmForm, PlainForm
from ocm.protocol.wire.classic import ControlPacket, Datagram, Header, Operation
from ocm.protocol.wire.size import Spelling
from tests.vectors import classic
from tests.vectors.classic import DATAGRAMS, LEAVE, MEMBERS, REFUSALS, SEATS, Exchange

Cut = Callable[[bytes], list[bytes]]


def whole(data: bytes) -> list[bytes]:
    return [data]


def after_the_header(data: bytes) -> list[bytes]:
    return [data[:32], data[32:]]


def byte_by_byte(data: bytes) -> list[bytes]:
    return [bytes([byte]) for byte in data]


CUTS = [whole, after_the_header, byte_by_byte]
SINGLE = {
    **{f"{name} accepted": exchange for name, exchange in SEATS.items()},
    **{f"{name} refused": exchange for name, exchange in REFUSALS.items()},
}
DIALOGUES = {
    **{name: [exchange] for name, exchange in SINGLE.items()},
    **{f"{name} refused, then accepted": [REFUSALS[name], SEATS[name]] for name in SEATS},
}
DIALOGUES["ocm create, members, leave"] = [SEATS["ocm create"], MEMBERS, LEAVE]
DIALOGUES["a form for each request"] = [REFUSALS["plain create"], REFUSALS["reference join"], SEATS["ocm create"]]


def answer(server: ServerControl, exchange: Exchange) -> list[ServerEvent]:
    if exchange.token:
        return server.accept(exchange.token, now_s=0.0)
    if exchange.code:
        reason = classic.EXISTS if exchange.code == 409 else classic.MISSING
        return server.refuse(Refusal(exchange.code), reason, now_s=0.0)
    return server.answer(["alice", "bob"] if exchange is MEMBERS else None, now_s=0.0)


def written(server: ServerControl) -> list[bytes]:
    """What the driver would write, one packet per write."""
    packets: list[bytes] = []
    while server.has_more_to_send:
        now_s = server.next_timeout_s()
        assert now_s is not None
        packets += server.packets_to_send(now_s=now_s)
    return packets


def serve(chunks: Iterable[bytes], dialogue: Sequence[Exchange]) -> tuple[list[Request], list[bytes]]:
    server = ServerControl(Limits(), quiet_until_s=120.0)
    requests: list[Request] = []
    for chunk in chunks:
        events = server.receive_data(chunk, now_s=0.0)
        while events:
            (request,) = events
            assert isinstance(request, Request)
            events = answer(server, dialogue[len(requests)])
            requests.append(request)
    assert server.receive_eof() == []
    return requests, written(server)


def meaning(exchange: Exchange) -> Request:
    token = classic.TOKEN_OCM if exchange in (MEMBERS, LEAVE) else None
    form = Form(exchange.form)
    return Request(Operation(exchange.operation), form, exchange.room, exchange.user, exchange.password, token)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("name", DIALOGUES)
def test_server_reads_golden_requests_and_writes_golden_replies(name: str, cut: Cut) -> None:
    dialogue = DIALOGUES[name]
    chunks = [chunk for exchange in dialogue for chunk in cut(exchange.request)]
    assert serve(chunks, dialogue) == (
        [meaning(exchange) for exchange in dialogue],
        [reply for exchange in dialogue for reply in exchange.replies],
    )


@pytest.mark.parametrize("name", DIALOGUES)
def test_requests_merged_into_one_segment_are_answered_one_after_the_other(name: str) -> None:
    dialogue = DIALOGUES[name]
    assert serve([b"".join(exchange.request for exchange in dialogue)], dialogue) == (
        [meaning(exchange) for exchange in dialogue],
        [reply for exchange in dialogue for reply in exchange.replies],
    )


def ask(client: ClientControl, exchange: Exchange) -> bytes:
    match exchange.operation:
        case Operation.LEAVE:
            return client.send_leave()
        case Operation.MEMBERS:
            return client.send_members()
        case operation:
            return client.send_request(
                Operation(operation), room=exchange.room, user=exchange.user, password=exchange.password
            )


def outcome(exchange: Exchange) -> ClientEvent:
    if exchange.token:
        return Seated(Form(exchange.form), exchange.token)
    if exchange.code:
        return Refused(*exchange.heard)
    return MembersListed(("alice", "bob"), 2) if exchange is MEMBERS else Unseated()


@pytest.mark.parametrize("cut", [*CUTS, "merged"])
@pytest.mark.parametrize("name", [name for name in DIALOGUES if name != "a form for each request"])
def test_client_writes_golden_requests_and_reads_golden_replies(name: str, cut: Cut | str) -> None:
    dialogue = DIALOGUES[name]
    client = ClientControl(form=Form(dialogue[0].form), spelling=Spelling[dialogue[0].spelling])
    for exchange in dialogue:
        assert ask(client, exchange) == exchange.request
        if isinstance(cut, str):
            chunks = [b"".join(exchange.replies)]
        else:
            chunks = [chunk for reply in exchange.replies for chunk in cut(reply)]
        assert [event for chunk in chunks for event in client.receive_data(chunk)] == [outcome(exchange)]


@pytest.mark.parametrize("name", [name for name in SINGLE if name.startswith("reference")])
def test_client_that_asks_in_our_form_reads_the_golden_reference_replies(name: str) -> None:
    exchange = SINGLE[name]
    client = ClientControl()
    client.send_request(Operation(exchange.operation), room=exchange.room, user=exchange.user)
    assert client.receive_data(b"".join(exchange.replies)) == [outcome(exchange)]


@pytest.mark.parametrize("exchange", SINGLE.values(), ids=SINGLE)
def test_packets_read_and_write_golden_bytes(exchange: Exchange) -> None:
    for data in (exchange.request, *exchange.replies):
        header = Header.decode(data[:32])
        assert header.encode() == data[:32]
        room, payload = data[32 : 32 + header.room_size], data[32 + header.room_size :]
        assert len(payload) == header.payload_size
        assert ControlPacket(header.operation, header.stage, room, payload, header.spelling).encode() == data


@pytest.mark.parametrize("name", DATAGRAMS)
def test_datagrams_read_and_write_golden_bytes(name: str) -> None:
    data, room, token, text = DATAGRAMS[name]
    assert Datagram.decode(data) == Datagram(room, token, text)
    assert Datagram(room, token, text).encode() == data


def test_members_of_our_form_and_of_the_plain_one_are_told_a_message_in_golden_bytes() -> None:
    said = Entry(1, 1, "alice", Kind.TEXT, b"hello", 0)
    assert OcmForm(b"room1").encode(said) == classic.OCM_DOWN
    assert PlainForm().encode(said) == classic.PLAIN_DOWN
