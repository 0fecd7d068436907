"""Whatever a peer sends gets its answer and nothing else, and the server goes on serving."""

from __future__ import annotations

import asyncio

import pytest

from ocm.protocol.limits import Limits
from tests.peers import CREATE, JOIN, LEAVE, MEMBERS, Seat, World, datagram, packet, refused, request, serving
from tests.vectors import classic
from tests.virtual import now_s, quiet, virtual

HUGE = bytes((0, 1, 0)) + b"\xff" * 29
TOO_LONG = "x" * 33


def ocm(message: str, code: int = 400, *, operation: int = CREATE, room: bytes = b"r") -> list[bytes]:
    status = f'{{"status_code": {code}, "message": "{message}"}}'
    return [packet(operation, 1, room, status.encode())]


def plain(message: str, *, operation: int = CREATE, room: bytes = b"r") -> list[bytes]:
    return [packet(operation, 1, room, message.encode())]


def reference(code: int, *, operation: int) -> list[bytes]:
    status = f'{{"status_code": {code}, "user_token": null}}'
    return [classic.REFERENCE_ACK, packet(operation, 2, b"", status.encode())]


NOT_JSON = "payload is not the JSON object it should be"
ANSWERED = {
    "empty user name": (packet(CREATE, 0, b"r", b'{"user": ""}'), ocm("user name is empty", 432)),
    "empty payload": (packet(CREATE, 0, b"r", b""), plain("user name is empty")),
    "empty room name": (
        packet(CREATE, 0, b"", b'{"user": "a"}'),
        ocm("room name is empty", room=b""),
    ),
    "empty names in the reference form": (packet(CREATE, 1, b"", b""), reference(400, operation=CREATE)),
    "long user name": (
        request("ocm", CREATE, "r", TOO_LONG),
        ocm("user name is longer than 32 characters", 432),
    ),
    "long bare user name": (packet(CREATE, 0, b"r", b"x" * 256), plain("user name is longer than 255 bytes")),
    "reserved user name": (request("plain", CREATE, "r", "server"), plain("user name is reserved")),
    "user name that shows nothing": (
        request("plain", CREATE, "r", "\u3164"),
        plain("user name holds a character that cannot be shown"),
    ),
    "user name with a control character": (
        request("plain", CREATE, "r", "a\x1b[2J"),
        plain("user name holds a character that cannot be shown"),
    ),
    "user name that is not UTF-8": (packet(CREATE, 0, b"r", b"\xff\xfe"), plain("user name is not UTF-8")),
    "room name that is not UTF-8": (
        packet(CREATE, 0, b"\xff\xfe", b"alice"),
        plain("room name is not UTF-8", room=b"\xff\xfe"),
    ),
    "JSON that is not UTF-8": (packet(CREATE, 0, b"r", b'{"user": "\xff"}'), ocm(NOT_JSON)),
    "JSON that is not whole": (packet(CREATE, 0, b"r", b'{"user": '), ocm(NOT_JSON)),
    "JSON without user": (packet(CREATE, 0, b"r", b"{}"), ocm(NOT_JSON)),
    "JSON with a user that is no text": (packet(CREATE, 0, b"r", b'{"user": 7}'), ocm(NOT_JSON)),
    "JSON with half a character": (packet(CREATE, 0, b"r", b'{"user": "\\ud800"}'), ocm(NOT_JSON)),
    "JSON that nests": (packet(CREATE, 0, b"r", b'{"user": ' + b"[" * 4000), ocm("JSON nests too deep")),
    "unknown operation": (packet(9, 0, b"r", b'{"user": "a"}'), ocm("unknown operation", operation=9)),
    "unknown bare operation": (packet(0, 0, b"r", b"alice"), plain("unknown operation", operation=0)),
    "unknown reference operation": (packet(3, 1, b"r", b"alice"), reference(404, operation=3)),
    "leave in the plain form": (packet(LEAVE, 0, b"r", b"alice"), plain("unknown operation", operation=LEAVE)),
    "stage 2": (packet(CREATE, 2, b"r", b'{"user": "a"}'), ocm("a request has stage 0")),
    "stage 200": (packet(CREATE, 200, b"r", b"alice"), plain("a request has stage 0")),
    "leave without a token": (
        request("ocm", LEAVE, "r", "a"),
        [refused(LEAVE, "r", 404, "no such room, or not yours to enter")],
    ),
    "members with a strange token": (
        request("ocm", MEMBERS, "r", "a", user_token="0" * 64),
        [refused(MEMBERS, "r", 404, "no such room, or not yours to enter")],
    ),
    "a token that is no ASCII": (
        request("ocm", MEMBERS, "r", "a", user_token="部屋"),
        [refused(MEMBERS, "r", 404, "no such room, or not yours to enter")],
    ),
}


@pytest.mark.parametrize("what", ANSWERED)
@virtual
async def test_bad_requests_are_answered_so(what: str) -> None:
    bad, answers = ANSWERED[what]
    async with serving() as world:
        ear = await world.ear("10.0.0.1")
        peer = await world.dial()
        assert await peer.ask(bad, wait_s=1) == answers
        assert not peer.ended
        assert await peer.ask(request("ocm", CREATE, "r", "alice"))  # the connection is still good
        assert ear.heard == []
        await world.works()


@pytest.mark.parametrize("what", ["a promise of 2^232-1 bytes", "one byte over the limit"])
@virtual
async def test_a_promise_over_the_limit_ends_the_connection_at_once_and_without_a_word(what: str) -> None:
    promise = HUGE if what.startswith("a promise") else bytes((0, 1, 0)) + (4097).to_bytes(29, "big")
    async with serving() as world:
        peer = await world.dial()
        sent_s = now_s()
        assert await peer.ask(promise) == []
        assert peer.ended_s is not None
        assert peer.ended_s - sent_s < 0.01
        await world.works()


@virtual
async def test_a_payload_of_the_very_limit_is_read() -> None:
    async with serving() as world:
        peer = await world.dial()
        padding = " " * (4096 - len('{"user": "alice"}'))
        assert len(await peer.ask(packet(CREATE, 0, b"r", b'{"user": "alice"}' + padding.encode()))) == 2


@virtual
async def test_an_answer_under_way_is_written_before_a_bad_peer_is_shut_out() -> None:
    async with serving() as world:
        peer = await world.dial()
        replies = await peer.ask(request("ocm", CREATE, "r", "alice") + HUGE)
        assert [reply[2] for reply in replies] == [1, 2]
        assert peer.ended


@virtual
async def test_a_header_that_stops_is_given_five_seconds() -> None:
    async with serving() as world:
        peer = await world.dial()
        await asyncio.sleep(60)
        sent_s = now_s()
        peer.send(b"\x05\x01\x00")
        await asyncio.sleep(10)
        assert peer.received == b""
        assert peer.ended_s is not None
        assert peer.ended_s - sent_s == pytest.approx(5.0)
        await world.works()


@virtual
async def test_a_body_that_stops_is_given_ten_seconds() -> None:
    async with serving() as world:
        peer = await world.dial()
        sent_s = now_s()
        peer.send(request("ocm", CREATE, "r", "alice")[:-1])
        await asyncio.sleep(20)
        assert peer.received == b""
        assert peer.ended_s is not None
        assert peer.ended_s - sent_s == pytest.approx(10.0)


@virtual
async def test_a_byte_every_four_seconds_buys_no_time() -> None:
    async with serving() as world:
        peers = [await world.dial(f"10.0.1.{n}") for n in range(20)]
        started_s = now_s()
        for byte in request("plain", CREATE, "r", "a")[:10]:
            for peer in peers:
                peer.send(bytes((byte,)))
            await asyncio.sleep(4)
        for peer in peers:
            assert peer.received == b""
            assert peer.ended_s is not None
            assert peer.ended_s - started_s == pytest.approx(5.0)
        assert world.server.status().connections == 0
        await world.works()


@pytest.mark.parametrize("sent", [b"", b"\x05", request("ocm", CREATE, "r", "alice")[:-1]])
@virtual
async def test_the_end_of_a_stream_inside_a_packet_ends_it(sent: bytes) -> None:
    async with serving() as world:
        peer = await world.dial()
        peer.send(sent)
        peer.stream.write_eof()
        await quiet()
        assert peer.ended
        assert peer.received == b""
        assert world.server.status().connections == 0
        await world.works()


@virtual
async def test_a_half_closed_peer_still_gets_its_seat_and_keeps_it() -> None:
    async with serving() as world:
        peer = await world.dial()
        peer.send(request("ocm", CREATE, "r", "alice"))
        peer.stream.write_eof()
        await asyncio.sleep(0.1)
        assert [chunk[2] for _, chunk in peer.chunks] == [1, 2]
        assert peer.ended
        await asyncio.sleep(100)
        assert world.server.status().hub.members == 1


@virtual
async def test_a_half_closed_peer_is_still_refused_twice() -> None:
    async with serving() as world:
        peer = await world.dial()
        peer.send(request("plain", JOIN, "r", "alice") * 2)
        peer.stream.write_eof()
        await asyncio.sleep(0.1)
        assert len(peer.chunks) == 2
        assert peer.ended
        assert world.server.status().connections == 0


@virtual
async def test_a_shut_out_peer_that_does_not_hang_up_is_cut_off() -> None:
    async with serving() as world:
        peer = await world.dial(hangs_up=False)
        peer.stream.pause_reading()
        peer.send(HUGE)
        await asyncio.sleep(3)
        assert peer.lost
        assert world.server.status().connections == 0


@virtual
async def test_a_peer_that_resets_is_forgotten() -> None:
    async with serving() as world:
        for sent in (b"", b"\x05\x01", request("ocm", JOIN, "r", "alice")):
            peer = await world.dial()
            peer.send(sent)
            await quiet()
            peer.stream.abort()
            await quiet()
            assert world.server.status().connections == 0
        await world.works()


@virtual
async def test_sixteen_refusals_on_one_connection_are_enough() -> None:
    async with serving() as world:
        peer = await world.dial()
        for _ in range(16):
            assert await peer.ask(packet(9, 0, b"r", b"alice"))
        assert peer.ended
        await world.works()


# --- datagrams --------------------------------------------------------------------------------------------------


async def _pair(world: World) -> tuple[Seat, Seat]:
    alice = await world.sit("ocm", CREATE, "r", "alice", host="10.0.0.1")
    bob = await world.sit("ocm", JOIN, "r", "bob", host="10.0.0.2")
    alice.heard()
    return alice, bob


@virtual
async def test_a_token_of_another_room_says_nothing() -> None:
    async with serving() as world:
        alice, bob = await _pair(world)
        await world.sit("ocm", CREATE, "other", "carl", host="10.0.0.3")
        bob.ear.send(datagram(b"other", bob.token, b"hello"))
        await quiet()
        assert alice.heard() == bob.heard() == []
        assert world.server.status().door.wrong_room == 1


@virtual
async def test_a_right_token_from_another_host_says_nothing() -> None:
    async with serving() as world:
        alice, bob = await _pair(world)
        thief = await world.ear("10.0.0.66")
        thief.send(datagram(b"r", bob.token, b"hello"))
        await quiet()
        assert alice.heard() == bob.heard() == thief.take() == []
        assert world.server.status().door.wrong_address == 1
        alice.say("for bob")
        await quiet()
        assert bob.heard() == [datagram(b"r", b"alice", b"for bob")]
        assert thief.take() == []


@virtual
async def test_a_right_token_from_another_port_says_nothing_once_the_first_has_spoken() -> None:
    async with serving() as world:
        alice, bob = await _pair(world)
        bob.say("first")
        await quiet()
        other = await world.ear("10.0.0.2")
        other.send(datagram(b"r", bob.token, b"second"))
        await quiet()
        assert alice.heard() == [datagram(b"r", b"bob", b"first")]
        assert other.take() == []
        assert world.server.status().door.wrong_address == 1


@virtual
async def test_datagrams_that_are_no_messages_are_dropped_and_counted() -> None:
    async with serving() as world:
        alice, bob = await _pair(world)
        token = bob.token
        for bad in (b"", b"\x01", b"\x05\x40room", b"\xff\xff" + bytes(300), datagram(b"r", token, b"")[:-1]):
            bob.ear.send(bad)
        bob.ear.send(datagram(b"r", b"", b"no token"))
        bob.ear.send(datagram(b"r", token[:-1] + b"x", b"wrong token"))
        bob.ear.send(datagram(b"r", token, b"\xff not text"))
        paul = await world.sit("plain", JOIN, "r", "paul")  # its short token leaves room for too much text
        alice.heard()
        bob.heard()
        paul.say(b"x" * 4058)
        bob.ear.send(datagram(b"r", token, b"x" * 5000))
        await quiet()
        assert alice.heard() == bob.heard() == []
        door = world.server.status().door
        assert (door.malformed, door.unknown_token, door.not_text, door.oversized) == (5, 2, 1, 1)
        assert world.server._port.counters.oversized == 1
        await world.works()


@virtual
async def test_ten_thousand_junk_datagrams_get_no_byte_back() -> None:
    async with serving() as world:
        alice, bob = await _pair(world)
        junk = await world.ear("10.0.0.66")
        sent = world.server.status().datagrams_sent
        for n in range(10_000):
            junk.send(datagram(b"r", n.to_bytes(32, "big").hex().encode(), b"hello") if n % 2 else b"\x05" * (n % 97))
        await quiet()
        assert junk.take() == alice.heard() == bob.heard() == []
        assert world.server.status().datagrams_sent == sent
        await world.works()


@virtual
async def test_a_member_that_left_is_not_heard() -> None:
    async with serving() as world:
        alice, bob = await _pair(world)
        await bob.peer.ask(bob.request(LEAVE))
        alice.heard()
        bob.say("still there?")
        await quiet()
        assert alice.heard() == []


@virtual
async def test_the_longest_names_and_texts_fit() -> None:
    room, user = "r" * 255, "😀" * 32
    async with serving() as world:
        for form in ("ocm", "plain", "reference"):
            seats = [await world.sit(form, CREATE, room, user)]
            seats += [await world.sit(other, JOIN, room, f"b {other}") for other in ("ocm", "plain", "reference")]
            text = b"x" * (4096 - 2 - 255 - (128 + 2))
            for seat in seats:
                seat.heard()
            if form == "ocm":
                text = text[: 4096 - 2 - 255 - 130]
            seats[0].say(text)
            await quiet()
            for seat in seats[1:]:
                assert len(seat.heard()) == 1
            closer = await world.dial()
            world.server.kick(room, user)
            await quiet()
            closer.stream.close()
            await quiet()
            assert world.server.status().hub.rooms == 0


# --- admission --------------------------------------------------------------------------------------------------


@virtual
async def test_ten_failed_joins_are_answered_at_once_and_the_next_two_seconds_late() -> None:
    async with serving() as world:
        for n in range(12):
            peer = await world.dial()
            asked_s = now_s()
            peer.send(request("ocm", JOIN, f"guess {n}", "alice"))
            await asyncio.sleep(3)
            ((answered_s, _),) = peer.chunks
            assert answered_s - asked_s == pytest.approx(0.0 if n < 10 else 2.0, abs=0.01)
            peer.stream.close()
        other = await world.dial("10.0.0.2")
        assert await other.ask(request("ocm", JOIN, "guess", "bob"))


@virtual
async def test_silent_connections_are_kept_two_minutes_and_above_eight_of_a_host_five_seconds() -> None:
    async with serving() as world:
        opened_s = now_s()
        peers = [await world.dial() for _ in range(10)]
        await asyncio.sleep(200)
        kept = [peer.ended_s - opened_s for peer in peers if peer.ended_s is not None]
        assert kept == pytest.approx([120.0] * 8 + [5.0] * 2, abs=0.1)
        assert all(peer.received == b"" for peer in peers)


@virtual
async def test_a_host_without_a_seat_has_sixteen_connections_and_its_oldest_goes() -> None:
    async with serving() as world:
        seat = await world.sit("ocm", CREATE, "r", "alice")
        peers = [await world.dial() for _ in range(17)]
        await quiet()
        assert [peer.ended for peer in peers] == [True] + [False] * 16
        assert not seat.peer.ended
        await world.works()


@virtual
async def test_at_the_bound_of_connections_the_oldest_goes_and_an_honest_join_comes_through() -> None:
    async with serving(limits=Limits(unseated_max=50)) as world:
        await world.sit("ocm", CREATE, "r", "alice")
        peers = [await world.dial(f"10.1.{n}.1") for n in range(60)]
        await quiet()
        assert [peer.ended for peer in peers] == [True] * 10 + [False] * 50
        asked_s = now_s()
        bob = await world.sit("ocm", JOIN, "r", "bob", host="10.0.0.2")
        assert bob.peer.chunks[-1][0] - asked_s < 0.05


@virtual
async def test_a_host_that_abandons_its_connections_is_shut_out_for_a_while() -> None:
    async with serving() as world:
        for _ in range(32):
            (await world.dial()).stream.abort()
        await quiet()
        shut_out = await world.dial()
        await quiet()
        assert shut_out.lost
        assert shut_out.received == b""
        await world.works()
        await asyncio.sleep(601)
        await world.sit("ocm", CREATE, "r", "alice")


@virtual
async def test_the_tables_are_empty_when_everybody_has_gone() -> None:
    async with serving() as world:
        alice, bob = await _pair(world)
        await bob.peer.ask(bob.request(LEAVE))
        await alice.peer.ask(alice.request(LEAVE))
        server = world.server
        assert not any(
            (server._classic.connections, server._classic.seats, server._classic.entering, server._classic.leaving)
        )
        assert server._classic.door.links == {}
        assert server._classic.slowed == set()
        assert not server._admission._unseated
        assert not alice.peer.received.endswith(HUGE)
        assert Limits().unseated_max == 2000
