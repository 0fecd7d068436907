"""Entering a room of a server that is down, broken or hostile: one clear error, and nothing left open."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ocm
from ocm.protocol.address import make_address
from tests.client.stage import (
    CLIENT,
    ROOM,
    TOKEN,
    URL,
    YES,
    Machine,
    acting,
    hang_up,
    member,
    refuse_with,
    says,
    seats,
    serve_well,
    silent,
)
from tests.peers import CREATE, JOIN, SERVER, TCP_PORT, packet
from tests.virtual import now_s, quiet, virtual

NO_TOKEN = packet(JOIN, 1, ROOM, YES)


async def refusal(machine: Machine, url: str = URL) -> BaseException:
    """Try to enter; return the error, once everything had time to close."""
    with pytest.raises(ocm.OcmError) as failure:
        async with member(machine, url=url):
            pass
    await quiet()
    return failure.value


@virtual
async def test_where_nobody_listens_the_connection_fails() -> None:
    async with acting(silent) as stage:
        stage.close()
        assert isinstance(await refusal(stage.machine), ocm.ConnectFailed)
        stage.all_let_go()


@virtual
async def test_a_name_that_does_not_resolve_fails() -> None:
    async with acting(silent) as stage:
        assert isinstance(await refusal(stage.machine, "tcrp://no.such.host/r"), ocm.ConnectFailed)
        stage.machine.addresses = []
        assert isinstance(await refusal(stage.machine), ocm.ConnectFailed)


@virtual
async def test_a_connection_that_is_never_made_fails_in_ten_seconds() -> None:
    async with acting(silent) as stage:
        stage.machine.dead = True
        start_s = now_s()
        assert isinstance(await refusal(stage.machine), ocm.ConnectFailed)
        assert now_s() - start_s == pytest.approx(10, abs=0.1)
        stage.all_let_go()


@pytest.mark.parametrize("answer", [b"", b"\x01", NO_TOKEN[:16], NO_TOKEN[:-1], NO_TOKEN, seats(JOIN)[:-1]])
@virtual
async def test_a_server_that_closes_before_the_token_is_whole_is_gone(answer: bytes) -> None:
    async with acting(says(answer, closes=True)) as stage:
        error = await refusal(stage.machine)
        assert type(error) is ocm.TransportClosed
        stage.all_let_go()


@virtual
async def test_a_server_that_hangs_up_on_the_first_byte_is_gone() -> None:
    async with acting(lambda actor, _: actor.stream.abort()) as stage:
        assert type(await refusal(stage.machine)) is ocm.TransportClosed
        stage.all_let_go()


@pytest.mark.parametrize("answer", [b"", NO_TOKEN[:16], NO_TOKEN])
@virtual
async def test_a_server_that_falls_silent_is_given_fifteen_seconds(answer: bytes) -> None:
    async with acting(says(answer)) as stage:
        start_s = now_s()
        error = await refusal(stage.machine)
        assert type(error) is ocm.TransportClosed
        assert now_s() - start_s == pytest.approx(15, abs=0.1)
        stage.all_let_go()


def token_packet(payload: bytes) -> bytes:
    return NO_TOKEN + packet(JOIN, 2, ROOM, payload)


@pytest.mark.parametrize(
    "answer",
    {
        "the request again": packet(JOIN, 0, ROOM, YES),
        "the token first": packet(JOIN, 2, ROOM, YES),
        "a stage that is not": packet(JOIN, 255, ROOM, YES),
        "the status twice": NO_TOKEN + NO_TOKEN,
        "bytes of another protocol": b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
        "a bare yes": packet(JOIN, 1, ROOM, b"OK"),
        "no JSON": packet(JOIN, 1, ROOM, b"{"),
        "JSON that is no object": packet(JOIN, 1, ROOM, b"{}"),
        "a code that is no number": packet(JOIN, 1, ROOM, b'{"status_code": "200"}'),
        "JSON that is not UTF-8": packet(JOIN, 1, ROOM, b'{"status_code": 200, "message": "\xff"}'),
        "no token": token_packet(YES),
        "an empty token": token_packet(b'{"status_code": 200, "user_token": ""}'),
        "a token of 256 bytes": token_packet(b'{"status_code": 200, "user_token": "%s"}' % (b"x" * 256)),
        "a token that is not UTF-8": token_packet(b'{"status_code": 200, "user_token": "\xff\xfe"}'),
        "a token of half a character": token_packet(b'{"status_code": 200, "user_token": "\\ud800"}'),
        "a token that is no text": token_packet(b'{"status_code": 200, "user_token": 5}'),
        "a bare token": token_packet(TOKEN),
    }.items(),
    ids=lambda item: item[0],
)
@virtual
async def test_what_breaks_the_protocol_ends_the_attempt_at_once(answer: tuple[str, bytes]) -> None:
    async with acting(says(answer[1])) as stage:
        start_s = now_s()
        error = await refusal(stage.machine)
        assert isinstance(error, ocm.RemoteProtocolError)
        assert now_s() - start_s < 1
        stage.all_let_go()


@virtual
async def test_a_reply_of_any_size_is_refused_on_its_header_alone() -> None:
    for size in (2**232 - 1, 65_537):
        async with acting(says(bytes((1, JOIN, 1)) + size.to_bytes(29, "big"))) as stage:
            error = await refusal(stage.machine)
            assert isinstance(error, ocm.LimitExceeded)
            assert (error.what, error.limit) == ("payload_size", 65_536)
            stage.all_let_go()


@pytest.mark.parametrize("size", [1, 255])
@virtual
async def test_tokens_of_every_length_that_fits_are_taken(size: int) -> None:
    token = b"t" * size
    async with acting(says(seats(JOIN, token))) as stage, member(stage.machine) as room:
        await room.send("hello")
        await quiet()
        assert stage.ear.take() == [bytes((1, size)) + b"r" + token + b"hello"]


@pytest.mark.parametrize("code", [*map(int, ocm.Refusal), 0, -1, 199, 201, 500, 2**53])
@virtual
async def test_every_refusal_says_its_code(code: int) -> None:
    async with acting(refuse_with(code)) as stage:
        error = await refusal(stage.machine)
        assert isinstance(error, ocm.RoomRefused)
        assert (error.code, error.reason) == (code, "no")
        stage.all_let_go()


@virtual
async def test_a_refusal_may_come_in_place_of_the_token() -> None:
    async with acting(says(token_packet(b'{"status_code": 433}'))) as stage:
        error = await refusal(stage.machine)
        assert isinstance(error, ocm.RoomRefused)
        assert error.code == 433


@virtual
async def test_a_plain_server_refuses_in_words() -> None:
    async with acting(says(packet(JOIN, 1, ROOM, "だめ".encode()))) as stage:
        error = await refusal(stage.machine, URL + "&form=plain")
        assert isinstance(error, ocm.RoomRefused)
        assert (error.code, error.reason) == (400, "だめ")


@given(answer=st.binary(max_size=80), closes=st.booleans())
@virtual
async def test_any_answer_gives_a_seat_or_an_error_of_ours(answer: bytes, closes: bool) -> None:
    async with acting(says(NO_TOKEN, answer, closes=closes)) as stage:
        try:
            async with member(stage.machine):
                pass
        except ocm.OcmError:
            pass
        await quiet()
        stage.all_let_go()


@virtual
async def test_what_comes_behind_the_token_does_not_undo_the_seat() -> None:
    async with acting(says(seats(JOIN) + b"\xff" * 40)) as stage, member(stage.machine) as room:
        await asyncio.sleep(1)
        await room.send("hello")
        await quiet()
        assert stage.ear.take()


@virtual
async def test_the_next_address_is_tried_when_the_first_does_not_answer() -> None:
    async with acting(serve_well) as stage:
        stage.machine.addresses = [make_address("10.0.0.99", TCP_PORT), make_address(SERVER, TCP_PORT)]
        async with member(stage.machine) as room:
            await room.send("hello")
            await quiet()
            assert stage.ear.take()
        assert stage.machine.ports_open() == 0


@virtual
async def test_datagrams_come_from_the_port_number_of_the_connection() -> None:
    async with acting(serve_well) as stage, member(stage.machine):
        assert stage.actors[0].stream.remote == make_address(CLIENT, int.from_bytes(stage.machine.ports[0].local[:2]))


@pytest.mark.parametrize("busy", [1, 4])
@virtual
async def test_a_port_number_that_is_taken_for_tcp_is_not_the_end(busy: int) -> None:
    async with acting(serve_well) as stage:
        stage.machine.busy = busy
        async with member(stage.machine) as room:
            await room.send("hello")
            await quiet()
            assert stage.ear.take()
            assert stage.machine.ports_open() == 1


@virtual
async def test_where_no_local_port_is_left_the_connection_fails() -> None:
    async with acting(serve_well) as stage:
        stage.machine.busy = 100
        assert isinstance(await refusal(stage.machine), ocm.ConnectFailed)
        stage.all_let_go()


@virtual
async def test_a_failed_attempt_can_be_followed_by_another() -> None:
    async with (
        acting(hang_up, refuse_with(404), serve_well) as stage,
        ocm.connect(URL, user="aiko", network=stage.machine) as client,
    ):
        for _ in range(2):
            with pytest.raises(ocm.OcmError):
                async with client.create():
                    pass
        async with client.create() as room:
            await room.send("hello")
        assert [actor.asked[0] for actor in stage.actors] == [CREATE] * 3


@virtual
async def test_an_error_shows_neither_token_nor_what_the_server_sent() -> None:
    for answer in (seats(JOIN, b"s3cret") + seats(JOIN, b"s3cret"), token_packet(b"{s3cret"), b"s3cret" * 9):
        async with acting(says(answer)) as stage:
            shown: list[object] = []
            try:
                async with member(stage.machine) as room:
                    shown.append(vars(room))
            except ocm.OcmError as error:
                shown += [error, error.__cause__, error.__context__]
            assert shown
            assert not any("s3cret" in f"{what} {what!r}" for what in shown)
