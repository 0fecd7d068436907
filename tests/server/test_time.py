"""What the server does by itself when time passes: idle, lost, flooding and vanished members."""

from __future__ import annotations

import asyncio

import pytest

from ocm.protocol.limits import Limits
from tests.peers import CREATE, JOIN, LEAVE, MEMBERS, Ear, Seat, World, datagram, local_port, request, serving
from tests.virtual import now_s, quiet, virtual

FORMS = ("ocm", "plain", "reference")


def worded(seat: Seat, text: bytes) -> bytes:
    match seat.form:
        case "ocm":
            return datagram(b"r", b"", text)
        case "plain":
            return b"* " + text.replace(b": ", b", ")
        case _:
            return datagram(b"r", seat.token, b"* " + text)


async def _attached(world: World, operation: int, user: str, *, host: str) -> Seat:
    """Sit down and ask for the members, which says that the connection is kept on purpose."""
    seat = await world.sit("ocm", operation, "r", user, host=host)
    assert len(await seat.peer.ask(seat.request(MEMBERS))) == 2
    return seat


async def _chat(seat: Seat, *, every_s: float, for_s: float) -> None:
    until_s = now_s() + for_s
    while now_s() < until_s:
        seat.ear.send(datagram(b"r", seat.token, b""))
        await asyncio.sleep(every_s)


@pytest.mark.parametrize("form", FORMS)
@virtual
async def test_an_idle_member_is_removed_and_told(form: str) -> None:
    async with serving() as world:
        alice = await world.sit("ocm", CREATE, "r", "alice", host="10.0.0.1")
        bob = await world.sit(form, JOIN, "r", "bob", host="10.0.0.2")
        joined_s = now_s()
        alice.heard()
        await _chat(alice, every_s=300, for_s=1200)
        assert bob.heard() == [worded(bob, b"you were removed: silent too long")]
        assert bob.ear.times_s[-1] - joined_s == pytest.approx(600, abs=1)
        assert bob.peer.ended
        assert alice.notices() == ["bob left: silent too long"]
        assert world.server.status().hub.members == 1


@pytest.mark.parametrize("form", FORMS)
@virtual
async def test_an_idle_host_takes_the_room_along_and_everybody_is_told(form: str) -> None:
    async with serving() as world:
        alice = await world.sit("ocm", CREATE, "r", "alice", host="10.0.0.1")
        bob = await world.sit(form, JOIN, "r", "bob", host="10.0.0.2")
        alice.heard()
        for _ in range(4):
            bob.ear.send(datagram(b"r", bob.token, b""))
            await asyncio.sleep(200)
        assert alice.notices() == ["you were removed: silent too long"]
        told = bob.heard()
        assert told[-1] == worded(bob, b"room closed: the host has gone")
        assert told[:-1] == ([datagram(b"r", b"", b"alice left: silent too long")] if form == "ocm" else [])
        assert bob.peer.ended
        assert alice.peer.ended
        assert world.server.status().hub.rooms == 0


@virtual
async def test_asking_who_is_there_is_a_sign_of_life() -> None:
    async with serving() as world:
        alice = await world.sit("ocm", CREATE, "r", "alice")
        for _ in range(5):
            await alice.peer.ask(alice.request(MEMBERS), wait_s=500)
        assert world.server.status().hub.members == 1


@virtual
async def test_a_member_may_close_its_connection_and_go_on_talking() -> None:
    async with serving() as world:
        alice = await world.sit("ocm", CREATE, "r", "alice", host="10.0.0.1")
        bob = await world.sit("reference", JOIN, "r", "bob", host="10.0.0.2")
        alice.heard()
        bob.peer.stream.close()
        await asyncio.sleep(300)
        bob.say("here I am")
        await quiet()
        assert alice.heard() == [datagram(b"r", b"bob", b"here I am")]


@virtual
async def test_a_kept_connection_that_breaks_is_a_member_lost_after_sixty_seconds() -> None:
    async with serving() as world:
        alice = await world.sit("ocm", CREATE, "r", "alice", host="10.0.0.1")
        bob = await _attached(world, JOIN, "bob", host="10.0.0.2")
        alice.heard()
        bob.peer.stream.abort()
        broke_s = now_s()
        await asyncio.sleep(59)
        assert alice.heard() == []
        await asyncio.sleep(2)
        assert alice.notices() == ["bob left: connection lost"]
        assert alice.ear.times_s[-1] - broke_s == pytest.approx(60, abs=0.1)
        assert bob.heard() == [datagram(b"r", b"", b"you were removed: connection lost")]


@virtual
async def test_a_lost_member_that_is_heard_again_stays() -> None:
    async with serving() as world:
        await world.sit("ocm", CREATE, "r", "alice", host="10.0.0.1")
        bob = await _attached(world, JOIN, "bob", host="10.0.0.2")
        bob.peer.stream.abort()
        await asyncio.sleep(50)
        bob.say("still here")
        await asyncio.sleep(100)
        assert world.server.status().hub.members == 2


@pytest.mark.parametrize("operation", [JOIN, CREATE])
@virtual
async def test_a_lost_seat_is_taken_back_by_its_name_from_its_host(operation: int) -> None:
    async with serving() as world:
        alice = await world.sit("ocm", CREATE, "r", "alice", host="10.0.0.1")
        bob = await _attached(world, JOIN, "bob", host="10.0.0.2")
        alice.heard()
        bob.peer.stream.abort()
        await asyncio.sleep(30)
        back = await world.sit("ocm", operation, "r", "bob", host="10.0.0.2")
        assert back.token != bob.token
        bob.say("with the old token")
        back.say("with the new token")
        await asyncio.sleep(100)
        assert alice.heard() == [datagram(b"r", b"bob", b"with the new token")]
        alice.say("hello")
        await quiet()
        assert back.heard() == [datagram(b"r", b"alice", b"hello")]
        assert bob.heard() == []


@virtual
async def test_a_lost_seat_is_not_for_another_host() -> None:
    async with serving() as world:
        await world.sit("ocm", CREATE, "r", "alice", host="10.0.0.1")
        bob = await _attached(world, JOIN, "bob", host="10.0.0.2")
        bob.peer.stream.abort()
        await quiet()
        thief = await world.dial("10.0.0.66")
        (answer,) = await thief.ask(request("ocm", JOIN, "r", "bob"))
        assert b'"status_code": 433' in answer
        (answer,) = await thief.ask(request("ocm", JOIN, "r", "bob", user_token="0" * 64))
        assert b'"status_code": 433' in answer


@virtual
async def test_a_lost_seat_is_not_for_a_name_that_looks_like_its_own() -> None:
    async with serving() as world:
        await world.sit("ocm", CREATE, "r", "alice", host="10.0.0.1")
        bob = await _attached(world, JOIN, "bob", host="10.0.0.2")
        bob.peer.stream.abort()
        await quiet()
        (answer,) = await (await world.dial("10.0.0.2")).ask(request("ocm", JOIN, "r", "B0B"))
        assert b'"status_code": 433' in answer


@virtual
async def test_a_seat_that_is_not_lost_is_not_for_its_own_host_without_the_token() -> None:
    async with serving() as world:
        await _attached(world, CREATE, "alice", host="10.0.0.1")
        (answer,) = await (await world.dial("10.0.0.1")).ask(request("ocm", JOIN, "r", "alice"))
        assert b'"status_code": 433' in answer


@pytest.mark.parametrize("lost", [True, False])
@virtual
async def test_a_seat_is_taken_again_by_its_token_from_anywhere(lost: bool) -> None:
    async with serving() as world:
        alice = await _attached(world, CREATE, "alice", host="10.0.0.1")
        bob = await world.sit("plain", JOIN, "r", "bob", host="10.0.0.2")
        if lost:
            alice.peer.stream.abort()
            await quiet()
        back = await world.sit("ocm", JOIN, "r", "alice", host="10.0.0.77", user_token=alice.token.decode())
        await quiet()
        assert alice.peer.ended
        bob.heard()
        back.say("moved")
        bob.say("welcome")
        await quiet()
        assert bob.heard() == [b"alice: moved"]
        assert datagram(b"r", b"bob", b"welcome") in back.heard()
        await back.peer.ask(back.request(LEAVE))
        assert world.server.status().hub.rooms == 0  # it is the host still


@virtual
async def test_the_old_connections_end_does_not_harm_who_has_moved() -> None:
    async with serving() as world:
        alice = await _attached(world, CREATE, "alice", host="10.0.0.1")
        await world.sit("ocm", JOIN, "r", "alice", host="10.0.0.77", user_token=alice.token.decode())
        await asyncio.sleep(100)
        assert world.server.status().hub.members == 1


@virtual
async def test_a_token_of_somebody_else_takes_no_seat() -> None:
    async with serving() as world:
        alice = await world.sit("ocm", CREATE, "r", "alice", host="10.0.0.1")
        await world.sit("ocm", JOIN, "r", "bob", host="10.0.0.2")
        peer = await world.dial("10.0.0.66")
        (answer,) = await peer.ask(request("ocm", JOIN, "r", "bob", user_token=alice.token.decode()))
        assert b'"status_code": 433' in answer


@virtual
async def test_a_local_seat_is_not_taken_over() -> None:
    async with serving() as world:
        await world.server.enter("r", "alice", create=True)
        (answer,) = await (await world.dial()).ask(request("ocm", JOIN, "r", "alice"))
        assert b'"status_code": 433' in answer


@pytest.mark.parametrize("form", FORMS)
@virtual
async def test_a_peer_that_hangs_up_before_its_token_was_written_leaves_no_ghost(form: str) -> None:
    async with serving() as world:
        alice = await world.sit("ocm", CREATE, "r", "alice", host="10.0.0.1")
        alice.heard()
        peer = await world.dial("10.0.0.2")
        peer.send(request(form, JOIN, "r", "bob"))
        await asyncio.sleep(0.01)
        assert len(peer.chunks) == 1
        peer.stream.abort()
        await quiet()
        assert alice.notices() == ["bob joined", "bob left: connection lost"]
        assert world.server.status().hub.members == 1
        assert len(world.server._classic.door.links) == 1


@virtual
async def test_a_kept_connection_that_breaks_inside_an_answer_is_lost_and_not_gone() -> None:
    async with serving() as world:
        alice = await _attached(world, CREATE, "alice", host="10.0.0.1")
        alice.peer.send(alice.request(MEMBERS))
        await asyncio.sleep(0.01)
        alice.peer.stream.abort()
        await asyncio.sleep(10)
        assert world.server.status().hub.rooms == 1
        await world.sit("ocm", JOIN, "r", "alice", host="10.0.0.1")


@virtual
async def test_a_question_from_another_connection_does_not_attach_it() -> None:
    async with serving() as world:
        alice = await world.sit("ocm", CREATE, "r", "alice", host="10.0.0.1")
        other = await world.dial("10.0.0.1")
        assert len(await other.ask(alice.request(MEMBERS))) == 2
        other.stream.abort()
        alice.peer.stream.abort()
        await asyncio.sleep(100)
        assert world.server.status().hub.members == 1


# --- leaving ------------------------------------------------------------------------------------------------------


@virtual
async def test_leave_by_ones_own_connection() -> None:
    async with serving() as world:
        alice = await world.sit("ocm", CREATE, "r", "alice", host="10.0.0.1")
        bob = await world.sit("ocm", JOIN, "r", "bob", host="10.0.0.2")
        alice.heard()
        assert [reply[1:3] for reply in await bob.peer.ask(bob.request(LEAVE))] == [b"\x20\x01", b"\x20\x02"]
        assert bob.peer.ended
        assert alice.notices() == ["bob left"]
        assert bob.notices() == []
        await world.sit("ocm", JOIN, "r", "bob", host="10.0.0.3")


@virtual
async def test_leave_by_another_connection_ends_both() -> None:
    async with serving() as world:
        alice = await world.sit("ocm", CREATE, "r", "alice", host="10.0.0.1")
        bob = await world.sit("plain", JOIN, "r", "bob", host="10.0.0.2")
        alice.heard()
        other = await world.dial("10.0.0.2")
        assert len(await other.ask(bob.request(LEAVE))) == 2
        assert other.ended
        assert bob.peer.ended
        assert alice.notices() == ["bob left"]


@virtual
async def test_what_is_asked_behind_a_leave_is_not_answered() -> None:
    async with serving() as world:
        alice = await world.sit("ocm", CREATE, "r", "alice", host="10.0.0.1")
        bob = await world.sit("ocm", JOIN, "r", "bob", host="10.0.0.2")
        alice.heard()
        replies = await bob.peer.ask(bob.request(LEAVE) + request("ocm", JOIN, "r", "bob"), wait_s=1)
        assert [reply[1] for reply in replies] == [LEAVE, LEAVE]
        assert bob.peer.ended
        assert alice.notices() == ["bob left"]
        assert world.server.status().connections == 1


@pytest.mark.parametrize("form", FORMS)
@virtual
async def test_a_host_that_leaves_closes_the_room_for_everybody(form: str) -> None:
    async with serving() as world:
        alice = await world.sit("ocm", CREATE, "r", "alice", host="10.0.0.1")
        bob = await world.sit(form, JOIN, "r", "bob", host="10.0.0.2")
        await alice.peer.ask(alice.request(LEAVE))
        assert bob.heard()[-1] == worded(bob, b"room closed: the host has gone")
        assert bob.peer.ended
        assert alice.peer.ended
        assert world.server.status().hub.rooms == 0
        assert world.server._classic.door.links == {}
        await world.sit("ocm", CREATE, "r", "carl", host="10.0.0.3")


@pytest.mark.parametrize("form", FORMS)
@virtual
async def test_a_kicked_member_is_told_and_its_connection_closed(form: str) -> None:
    async with serving() as world:
        alice = await world.sit("ocm", CREATE, "r", "alice", host="10.0.0.1")
        bob = await world.sit(form, JOIN, "r", "bob", host="10.0.0.2")
        alice.heard()
        bob.heard()
        assert world.server.kick("r", "bob")
        assert not world.server.kick("r", "bob")
        assert not world.server.kick("nowhere", "bob")
        await quiet()
        assert bob.heard() == [worded(bob, b"you were removed: removed by the server")]
        assert bob.peer.ended
        assert alice.notices() == ["bob left: removed by the server"]
        bob.say("let me in")
        await quiet()
        assert alice.heard() == []


@virtual
async def test_a_kicked_host_takes_the_room_along() -> None:
    async with serving() as world:
        await world.sit("ocm", CREATE, "r", "alice", host="10.0.0.1")
        bob = await world.sit("ocm", JOIN, "r", "bob", host="10.0.0.2")
        bob.heard()
        assert world.server.kick("r", "alice")
        await quiet()
        assert bob.notices() == ["alice left: removed by the server", "room closed: the host has gone"]


# --- flooding -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@virtual
async def test_who_floods_is_told_once_how_many_messages_were_dropped(form: str) -> None:
    async with serving(limits=Limits(burst_max=10, rate_per_s=1.0)) as world:
        alice = await world.sit("ocm", CREATE, "r", "alice", host="10.0.0.1")
        bob = await world.sit(form, JOIN, "r", "bob", host="10.0.0.2")
        alice.heard()
        for n in range(50):
            bob.say(f"spam {n}")
        await asyncio.sleep(0.5)
        assert len(alice.heard()) == 10
        bob.heard()
        await asyncio.sleep(1)
        assert bob.heard() == [worded(bob, b"you send too fast: 40 messages were dropped")]
        await asyncio.sleep(5)
        assert bob.heard() == []
        for n in range(7):
            bob.say(f"more spam {n}")
        await asyncio.sleep(1.5)
        assert bob.heard()[-1] == worded(bob, b"you send too fast: 1 messages were dropped")


@virtual
async def test_who_floods_and_leaves_is_told_nothing_any_more() -> None:
    async with serving(limits=Limits(burst_max=1, rate_per_s=1.0)) as world:
        await world.sit("ocm", CREATE, "r", "alice", host="10.0.0.1")
        bob = await world.sit("ocm", JOIN, "r", "bob", host="10.0.0.2")
        bob.say("one")
        bob.say("two")
        await quiet()
        assert world.server._classic.slowed
        await bob.peer.ask(bob.request(LEAVE))
        bob.heard()
        await asyncio.sleep(2)
        assert bob.heard() == []
        assert not world.server._classic.slowed


@virtual
async def test_a_peer_that_reads_nothing_is_not_read_from_and_holds_up_nobody() -> None:
    async with serving(limits=Limits(send_buffer_max=500)) as world:
        alice = await world.sit("ocm", CREATE, "r", "alice", host="10.0.0.1")
        alice.peer.stream.pause_reading()
        for _ in range(20):
            alice.peer.send(alice.request(MEMBERS))
        await asyncio.sleep(10)
        (connection,) = world.server._classic.connections.values()
        assert connection._congested
        await world.works()
        alice.peer.stream.resume_reading()
        await asyncio.sleep(2)
        assert not connection._congested
        assert len(alice.peer.chunks) == 42
        assert isinstance(alice.ear, Ear)
        assert local_port(alice.peer)
