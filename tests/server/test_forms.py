"""The three classic forms, byte for byte, and all of them in one room."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from ocm.protocol.address import make_address
from tests.peers import CREATE, JOIN, LEAVE, MEMBERS, datagram, local_port, packet, refused, request, serving
from tests.vectors import classic
from tests.virtual import quiet, virtual

FIXED = {32: bytes.fromhex("0123456789abcdef" * 4), 16: bytes.fromhex("fedcba9876543210" * 2)}
FIXED_UUID = bytes.fromhex("00000000111142228333444444444444")


def fixed(form: str, size: int) -> bytes:
    return FIXED_UUID if form == "reference" else FIXED[size]


@pytest.mark.parametrize("name", classic.SEATS)
@virtual
async def test_a_seat_is_given_in_these_bytes(name: str) -> None:
    exchange = classic.SEATS[name]
    async with serving(randomness=lambda size: fixed(exchange.form, size)) as world:
        if exchange.operation == JOIN:
            await world.server.enter(exchange.room, "the host", create=True)
        peer = await world.dial()
        assert await peer.ask(exchange.request) == list(exchange.replies)
        assert not peer.ended


@pytest.mark.parametrize("name", [name for name in classic.REFUSALS if "create" in name or "reference" in name])
@virtual
async def test_a_refusal_is_given_in_these_bytes(name: str) -> None:
    exchange = classic.REFUSALS[name]
    async with serving() as world:
        if exchange.operation == CREATE:
            await world.server.enter(exchange.room, "the host", create=True)
        peer = await world.dial()
        assert await peer.ask(exchange.request) == list(exchange.replies)
        assert not peer.ended


@virtual
async def test_a_missing_room_is_refused_in_these_bytes() -> None:
    sentence = b"no such room, or not yours to enter"
    async with serving() as world:
        peer = await world.dial()
        assert await peer.ask(classic.OCM_JOIN) == [
            bytes.fromhex("060201" + "00" * 28 + "46")
            + "部屋".encode()
            + b'{"status_code": 404, "message": "'
            + sentence
            + b'"}'
        ]
        assert await peer.ask(classic.PLAIN_JOIN) == [
            bytes.fromhex("050201") + b"35".ljust(29, b"\0") + b"room1" + sentence
        ]


@virtual
async def test_members_and_leave_are_answered_in_these_bytes() -> None:
    async with serving(randomness=lambda size: fixed("ocm", size)) as world:
        alice = await world.sit("ocm", CREATE, "room1", "alice")
        await world.server.enter("room1", "bob", create=False)
        assert await alice.peer.ask(classic.OCM_MEMBERS) == [classic.OCM_MEMBERS_1, classic.OCM_MEMBERS_2]
        assert await alice.peer.ask(classic.OCM_LEAVE) == [classic.OCM_LEAVE_1, classic.OCM_LEAVE_2]
        assert alice.peer.ended
        assert world.server.status().hub.rooms == 0


@virtual
async def test_datagrams_are_relayed_in_these_bytes() -> None:
    tokens = [FIXED[32], bytes(16), FIXED[16], FIXED_UUID]  # the second names the log of the room
    async with serving(randomness=lambda _: tokens.pop(0)) as world:
        alice = await world.sit("ocm", CREATE, "room1", "alice")
        plain = await world.sit("plain", JOIN, "room1", "paul", host="10.0.0.2")
        reference = await world.sit("reference", JOIN, "room1", "rita", host="10.0.0.3")
        alice.heard()
        alice.ear.send(classic.OCM_UP)
        await quiet()
        assert plain.heard() == [classic.PLAIN_DOWN]
        assert reference.heard() == [datagram(b"room1", classic.TOKEN_REFERENCE, b"hello")]
        reference.ear.send(classic.REFERENCE_UP)
        await quiet()
        assert reference.heard() == [classic.REFERENCE_DOWN]
        assert alice.heard() == [datagram(b"room1", b"rita", "こんにちは".encode())]
        plain.heard()
        plain.ear.send(classic.PLAIN_UP)
        await quiet()
        assert alice.heard() == [datagram(b"room1", b"paul", b"hello")]
        assert plain.heard() == []


@virtual
async def test_every_form_may_create_and_every_form_may_join_it() -> None:
    forms = ("ocm", "plain", "reference")
    async with serving() as world:
        for host_form in forms:
            room = f"made by {host_form}"
            seats = [await world.sit(host_form, CREATE, room, "host", host="10.0.0.1")]
            seats += [
                await world.sit(form, JOIN, room, f"guest {form}", host=f"10.0.0.{n + 2}")
                for n, form in enumerate(forms)
            ]
            for speaker in seats:
                for seat in seats:
                    seat.heard()
                speaker.say("hi: you")
                await quiet()
                for seat in seats:
                    expected = {
                        "ocm": datagram(room.encode(), speaker.user.encode(), b"hi: you"),
                        "plain": f"{speaker.user}: hi: you".encode(),
                        "reference": datagram(room.encode(), seat.token, b"hi: you"),
                    }[seat.form]
                    hears = seat is not speaker or seat.form == "reference"
                    assert seat.heard() == ([expected] if hears else [])


@virtual
async def test_only_our_own_form_is_told_who_comes_and_goes() -> None:
    async with serving() as world:
        alice = await world.sit("ocm", CREATE, "r", "alice")
        paul = await world.sit("plain", JOIN, "r", "paul")
        rita = await world.sit("reference", JOIN, "r", "rita")
        ole = await world.sit("ocm", JOIN, "r", "ole")
        assert (await ole.peer.ask(ole.request(LEAVE)))[0][2] == 1
        assert alice.notices() == ["paul joined", "rita joined", "ole joined", "ole left"]
        assert paul.heard() == rita.heard() == []


@virtual
async def test_names_go_into_the_text_of_reference_members_where_the_operator_wants_it() -> None:
    async with serving(names_in_reference=True) as world:
        rita = await world.sit("reference", CREATE, "r", "rita")
        paul = await world.sit("plain", JOIN, "r", "paul")
        paul.say("hello")
        await quiet()
        assert rita.heard() == [datagram(b"r", rita.token, b"paul: hello")]


@virtual
async def test_a_member_without_a_socket_is_named_in_the_text_of_reference_members() -> None:
    async with serving() as world:
        rita = await world.sit("reference", CREATE, "r", "rita")
        local = await world.server.enter("r", "lena", create=False)
        await local.send("hello")
        await quiet()
        assert rita.heard() == [datagram(b"r", rita.token, b"lena: hello")]


@pytest.mark.parametrize("form", ["ocm", "plain", "reference"])
@virtual
async def test_replies_are_20_ms_apart_and_one_write_each(form: str) -> None:
    async with serving() as world:
        peer = await world.dial()
        await peer.ask(request(form, CREATE, "r", "alice"))
        (first_s, first), (second_s, second) = peer.chunks
        assert second_s - first_s >= 0.02 - 1e-9
        for chunk in (first, second):
            assert len(chunk) == 32 + chunk[0] + int.from_bytes(chunk[3:32], "big")


@virtual
async def test_replies_to_requests_in_one_segment_are_20_ms_apart_too() -> None:
    async with serving() as world:
        peer = await world.dial()
        refusals = [request("ocm", JOIN, f"nowhere {n}", "alice") for n in range(5)]
        replies = await peer.ask(b"".join(refusals) + request("ocm", CREATE, "r", "alice"), wait_s=1)
        assert [reply[1] for reply in replies] == [JOIN] * 5 + [CREATE] * 2
        times = [time_s for time_s, _ in peer.chunks]
        assert all(later - sooner >= 0.02 - 1e-9 for sooner, later in pairwise(times))


@pytest.mark.parametrize("form", ["ocm", "plain", "reference"])
@virtual
async def test_a_refused_peer_asks_again_on_the_same_connection(form: str) -> None:
    async with serving() as world:
        peer = await world.dial()
        await peer.ask(request(form, JOIN, "r", "alice"))
        assert not peer.ended
        seat = await world.ask_seat(peer, form, CREATE, "r", "alice")
        assert seat.token
        assert world.server.status().hub.members == 1


@virtual
async def test_a_request_may_come_in_32_segments_and_more() -> None:
    async with serving() as world:
        peer = await world.dial()
        for byte in request("reference", CREATE, "room1", "alice"):
            peer.send(bytes((byte,)))
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.1)
        assert [chunk[2] for _, chunk in peer.chunks] == [1, 2]


@virtual
async def test_a_member_with_a_seat_gets_no_second_one_on_its_connection() -> None:
    async with serving() as world:
        alice = await world.sit("ocm", CREATE, "r", "alice")
        again = await alice.peer.ask(request("ocm", CREATE, "r2", "alice"))
        assert again == [refused(CREATE, "r2", 400, "this connection has a seat already")]
        assert world.server.status().hub.rooms == 1


@virtual
async def test_two_requests_in_one_segment_make_one_seat_and_one_refusal() -> None:
    async with serving() as world:
        peer = await world.dial()
        replies = await peer.ask(request("ocm", CREATE, "r", "alice") + request("ocm", CREATE, "r2", "alice"))
        assert [reply[2] for reply in replies] == [1, 2, 1]
        assert replies[2] == refused(CREATE, "r2", 400, "this connection has a seat already")
        assert world.server.status().hub.rooms == 1


@virtual
async def test_hundreds_of_questions_in_one_segment_are_answered_one_by_one() -> None:
    async with serving() as world:
        alice = await world.sit("ocm", CREATE, "r", "alice")
        replies = await alice.peer.ask(alice.request(MEMBERS) * 400, wait_s=30)
        assert len(replies) == 800
        times = [time_s for time_s, _ in alice.peer.chunks]
        assert all(later - sooner >= 0.02 - 1e-9 for sooner, later in pairwise(times))
        await world.works()


@virtual
async def test_a_peer_that_asks_faster_than_it_is_answered_is_not_read_from() -> None:
    async with serving() as world:
        alice = await world.sit("ocm", CREATE, "r", "alice")
        for _ in range(100):
            alice.peer.send(alice.request(MEMBERS) * 20)
            await asyncio.sleep(0.01)
        (connection,) = world.server._classic.connections.values()
        assert len(connection._control._outgoing) <= 4
        assert connection._control._reader.waiting <= 2 * 65_536
        await world.works()


@virtual
async def test_the_first_datagram_of_the_same_host_moves_the_members_address() -> None:
    async with serving() as world:
        alice = await world.sit("ocm", CREATE, "r", "alice")
        bob = await world.sit("ocm", JOIN, "r", "bob", host="10.0.0.2")
        other = await world.ear("10.0.0.2", 7777)
        assert local_port(bob.peer) != 7777
        other.send(datagram(b"r", bob.token, b"from elsewhere"))
        await quiet()
        assert alice.heard()[-1] == datagram(b"r", b"bob", b"from elsewhere")
        alice.say("to elsewhere")
        await quiet()
        assert other.take() == [datagram(b"r", b"alice", b"to elsewhere")]
        assert bob.heard() == []


@virtual
async def test_a_datagram_without_text_shows_where_we_are_and_is_not_relayed() -> None:
    async with serving() as world:
        alice = await world.sit("ocm", CREATE, "r", "alice")
        bob = await world.sit("ocm", JOIN, "r", "bob", host="10.0.0.2")
        alice.heard()
        other = await world.ear("10.0.0.2", 7777)
        other.send(datagram(b"r", bob.token, b""))
        await quiet()
        alice.say("found you")
        await quiet()
        assert other.take() == [datagram(b"r", b"alice", b"found you")]
        assert alice.heard() == []


@virtual
async def test_the_lowest_packet_spelled_by_hand_is_the_one_the_vectors_hold() -> None:
    assert packet(CREATE, 0, b"room1", b'{"user": "alice"}') == classic.OCM_CREATE
    assert request("reference", CREATE, "room1", "alice") == classic.REFERENCE_CREATE
    assert make_address("10.0.0.1", 1) == b"\0\1\n\0\0\1"
