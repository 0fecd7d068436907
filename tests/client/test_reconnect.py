"""A server that goes away, comes back, or comes back another: what a member sees, in virtual time."""

from __future__ import annotations

import asyncio

import pytest

import ocm
from ocm import Connection, ConnectionChanged, Delivery, Message, Person, Reason, Receipt, RoomClosed
from tests.client.stage import (
    ROOM,
    TOKEN,
    URL,
    Actor,
    Machine,
    acting,
    member,
    refuse_with,
    refuses,
    rest,
    says,
    seat_only,
    seats,
    serve_well,
    silent,
    soon,
)
from tests.peers import CREATE, JOIN, LEAVE, MEMBERS, SERVER, datagram, serving
from tests.virtual import now_s, quiet, virtual

LOST = ConnectionChanged(Connection.RECONNECTING, 0)


def found(attempt: int) -> ConnectionChanged:
    return ConnectionChanged(Connection.CONNECTED, attempt)


def failed(attempt: int) -> ConnectionChanged:
    return ConnectionChanged(Connection.RECONNECTING, attempt)


@virtual
async def test_a_cut_connection_is_mended_and_the_seat_is_kept() -> None:
    async with serving() as world:
        bob = await world.sit("ocm", CREATE, "r", "bob", host="10.0.0.8")
        machine = Machine(world.network)
        async with member(machine) as room:
            await asyncio.sleep(1)
            assert bob.notices() == ["aiko joined"]
            seen = [room.connection]
            machine.cut()
            for wait_s in (0.001, 1):
                await asyncio.sleep(wait_s)
                seen.append(room.connection)
            assert seen == [Connection.CONNECTED, Connection.RECONNECTING, Connection.CONNECTED]
            assert room.members() == ("bob", "aiko")
            bob.say("welcome back")
            await room.send("thanks")
            assert await soon(4, room) == [
                LOST,
                found(1),
                Receipt(1, "thanks", Delivery.SENT),
                Message(Person("bob"), "welcome back"),
            ]
            await quiet()
            assert bob.heard() == [datagram(b"r", b"aiko", b"thanks")]
        await quiet()
        assert bob.notices() == ["aiko left"]


@virtual
async def test_a_server_that_comes_back_is_found_again_by_the_old_token() -> None:
    async with acting(serve_well) as stage, member(stage.machine) as room:
        await asyncio.sleep(1)
        stage.crash()
        await asyncio.sleep(5)
        assert await room.fetch_members() == ("host", "aiko")
        await stage.open()
        room.post("said in the dark")
        await asyncio.sleep(6)
        events = await soon(3, room)
        assert events[0] == LOST
        assert all(event == failed(attempt) for attempt, event in enumerate(events[1:], 1))
        assert TOKEN in stage.actors[1].chunks[0][1]
        assert stage.actors[1].asked == [JOIN, MEMBERS]
        assert stage.ear.take() == [datagram(ROOM, TOKEN, b"said in the dark")]


@virtual
async def test_a_new_token_is_used_from_then_on() -> None:
    def another(actor: Actor, request: bytes) -> None:
        actor.send(seats(request[1], b"another"))

    async with acting(serve_well, another) as stage, member(stage.machine) as room:
        await asyncio.sleep(1)
        stage.machine.cut()
        await asyncio.sleep(1)
        await room.send("hello")
        await quiet()
        assert stage.ear.take() == [datagram(ROOM, b"another", b"hello")]


@virtual
async def test_a_host_makes_its_room_anew_where_the_server_has_forgotten_it() -> None:
    async with acting(serve_well, refuse_with(404), serve_well) as stage, member(stage.machine, create=True) as room:
        await asyncio.sleep(1)
        stage.machine.cut()
        await asyncio.sleep(1)
        assert await soon(2, room) == [LOST, found(1)]
        assert [actor.asked[0] for actor in stage.actors] == [CREATE, JOIN, CREATE]


@virtual
async def test_a_guest_waits_for_the_host_to_make_the_room_anew() -> None:
    scripts = (serve_well, refuse_with(404), refuse_with(404), serve_well)
    async with acting(*scripts) as stage, member(stage.machine) as room:
        await asyncio.sleep(1)
        stage.machine.cut()
        await asyncio.sleep(5)
        assert await soon(4, room) == [LOST, failed(1), failed(2), found(3)]
        assert [actor.asked[0] for actor in stage.actors] == [JOIN] * 4


@virtual
async def test_a_room_that_does_not_come_back_in_fifteen_seconds_is_closed() -> None:
    async with acting(serve_well, refuse_with(404)) as stage, member(stage.machine) as room:
        await asyncio.sleep(1)
        start_s = now_s()
        stage.machine.cut()
        events = await rest(room)
        assert (events[0], events[-1]) == (LOST, RoomClosed(Reason.GONE))
        assert 15 < now_s() - start_s < 21
        await quiet()
        stage.all_let_go()


@virtual
async def test_a_server_that_stays_away_for_a_minute_is_given_up() -> None:
    async with acting(serve_well) as stage, member(stage.machine) as room:
        await asyncio.sleep(1)
        start_s = now_s()
        stage.crash()
        sending = asyncio.ensure_future(room.send("never heard"))
        with pytest.raises(ocm.ConnectFailed):
            await rest(room)
        assert 60 < now_s() - start_s < 66
        with pytest.raises(ocm.SendRefused) as refusal:
            await sending
        assert refusal.value.code == "closed"
        assert await rest(room) == []
        assert stage.machine.ports_open() == 0


@virtual
async def test_a_seat_that_was_given_to_another_is_given_up_with_the_servers_word() -> None:
    async with acting(serve_well, refuse_with(433)) as stage, member(stage.machine) as room:
        await asyncio.sleep(1)
        stage.machine.cut()
        with pytest.raises(ocm.RoomRefused) as refusal:
            await rest(room)
        assert refusal.value.code == 433


@virtual
async def test_a_server_that_is_back_for_a_moment_only_is_still_looked_for() -> None:
    moment = says(seats(JOIN, b"newest"), closes=True)
    async with acting(serve_well, moment, serve_well) as stage, member(stage.machine) as room:
        await asyncio.sleep(1)
        stage.machine.cut()
        await asyncio.sleep(3)
        assert b"newest" in stage.actors[2].chunks[0][1]
        assert room.connection is Connection.CONNECTED
        assert await soon(4, room) == [LOST, found(1), failed(1), found(2)]
        stage.machine.cut()
        await asyncio.sleep(1)
        assert await soon(2, room) == [LOST, found(1)]


@virtual
async def test_a_server_that_never_stays_is_given_up() -> None:
    async with acting(serve_well, says(seats(JOIN), closes=True)) as stage, member(stage.machine) as room:
        await asyncio.sleep(1)
        stage.machine.cut()
        with pytest.raises(ocm.TransportClosed):
            await rest(room)
        assert len(stage.actors) < 25
        await quiet()
        stage.all_let_go()


@virtual
async def test_a_server_that_goes_with_its_first_answer_is_looked_for() -> None:
    def answer_and_go(actor: Actor, request: bytes) -> None:
        serve_well(actor, request)
        if request[1] == MEMBERS:
            actor.stream.close()

    async with acting(answer_and_go, serve_well) as stage, member(stage.machine) as room:
        await asyncio.sleep(2)
        assert await soon(2, room) == [LOST, found(1)]


@pytest.mark.parametrize("words", ["room closed: the host has gone", "you were removed: removed by the server"])
@virtual
async def test_why_it_ended_is_heard_though_the_datagram_comes_behind_the_end(words: str) -> None:
    async with acting(serve_well) as stage, member(stage.machine) as room:
        await asyncio.sleep(1)
        stage.actors[0].stream.close()
        await asyncio.sleep(0.05)
        stage.notice(words)
        events = await rest(room)
        assert events[0] == LOST
        assert isinstance(events[1], RoomClosed | ocm.Removed)
        await asyncio.sleep(100)
        assert len(stage.actors) == 1, "it does not come back where it was sent away"


@virtual
async def test_a_room_may_be_closed_while_it_is_being_found_again() -> None:
    async with acting(serve_well, seat_only) as stage, member(stage.machine) as room:
        await asyncio.sleep(1)
        stage.machine.cut()
        await asyncio.sleep(0.5)
        stage.notice("room closed: the server is stopping")
        assert await rest(room) == [LOST, found(1), RoomClosed(Reason.SERVER_STOPPED)]
        await asyncio.sleep(100)
        stage.all_let_go()


@virtual
async def test_the_news_that_it_is_closed_may_overtake_the_new_seat() -> None:
    def script(actor: Actor, request: bytes) -> None:
        stage.notice("room closed: the host has gone")
        asyncio.get_running_loop().call_later(0.5, serve_well, actor, request)

    async with acting(serve_well, script) as stage, member(stage.machine) as room:
        await asyncio.sleep(1)
        stage.machine.cut()
        assert await rest(room) == [LOST, RoomClosed(Reason.HOST_LEFT)]
        await quiet()
        stage.all_let_go()


@virtual
async def test_garbage_on_the_control_connection_costs_the_connection_only() -> None:
    async with acting(serve_well) as stage, member(stage.machine) as room:
        await asyncio.sleep(1)
        stage.actors[0].send(b"\xff" * 40)
        await asyncio.sleep(1)
        assert await soon(2, room) == [LOST, found(1)]


@virtual
async def test_leaving_while_the_server_is_away_takes_no_time() -> None:
    async with acting(serve_well) as stage:
        async with member(stage.machine) as room:
            await asyncio.sleep(1)
            stage.crash()
            await asyncio.sleep(3)
            room.post("nobody will hear")
            start_s = now_s()
        assert now_s() == start_s
        stage.all_let_go()


@virtual
async def test_leaving_in_the_middle_of_an_attempt_takes_it_back() -> None:
    async with acting(serve_well, silent) as stage:
        async with member(stage.machine):
            await asyncio.sleep(1)
            stage.machine.cut()
            await asyncio.sleep(1)
            assert len(stage.actors) == 2
        await quiet()
        stage.all_let_go()


# --- servers that do not keep the connection ------------------------------------------------------------------


@virtual
async def test_a_server_that_closes_behind_the_token_is_not_thought_lost() -> None:
    async with acting(says(seats(JOIN), closes=True)) as stage, member(stage.machine) as room:
        await asyncio.sleep(1000)
        assert room.connection is Connection.CONNECTED
        await room.send("hello")
        await quiet()
        assert stage.ear.take() == [datagram(ROOM, TOKEN, b"hello")]
        assert await room.fetch_members() == ("aiko",)
        assert len(stage.actors) == 1


@pytest.mark.parametrize("answer", [b"", refuses(MEMBERS, 400), b"\xff" * 40])
@virtual
async def test_a_server_that_knows_no_questions_is_not_asked_again(answer: bytes) -> None:
    def script(actor: Actor, request: bytes) -> None:
        actor.send(seats(JOIN) if request[1] == JOIN else answer)
        if request[1] == MEMBERS and not answer:
            actor.stream.close()

    async with acting(script) as stage, member(stage.machine) as room:
        await asyncio.sleep(20)
        assert await room.fetch_members() == ("aiko",)
        await room.send("hello")
        await quiet()
        assert stage.ear.take() == [datagram(ROOM, TOKEN, b"hello")]
        assert stage.actors[0].asked == [JOIN, MEMBERS]
        assert len(stage.actors) == 1


@virtual
async def test_a_server_that_does_not_answer_the_question_is_used_without() -> None:
    async with acting(seat_only) as stage, member(stage.machine) as room:
        assert await room.fetch_members() == ("aiko",)
        await asyncio.sleep(100)
        assert room.connection is Connection.CONNECTED
        await room.send("hello")
        await quiet()
        assert stage.ear.take() == [datagram(ROOM, TOKEN, b"hello")]


@virtual
async def test_a_server_that_stops_answering_is_gone() -> None:
    answered: list[int] = []

    def script(actor: Actor, request: bytes) -> None:
        answered.append(request[1])
        if request[1] != MEMBERS or answered.count(MEMBERS) != 2:
            serve_well(actor, request)

    async with acting(script) as stage, member(stage.machine) as room:
        await asyncio.sleep(1)
        start_s = now_s()
        assert await room.fetch_members() == ("host", "aiko")
        assert now_s() - start_s == pytest.approx(15)
        await asyncio.sleep(1)
        assert await soon(2, room) == [LOST, found(1)]


# --- leaving --------------------------------------------------------------------------------------------


@virtual
async def test_leaving_tells_the_server_and_ends_iteration() -> None:
    async with acting(serve_well) as stage:
        async with member(stage.machine) as room:
            room.post("bye")
        assert stage.actors[0].asked == [JOIN, MEMBERS, LEAVE]
        assert await rest(room) == [Receipt(1, "bye", Delivery.SENT)]
        with pytest.raises(ocm.SendRefused) as posted:
            room.post("more")
        with pytest.raises(ocm.SendRefused) as sent:
            await room.send("more")
        assert posted.value.code == sent.value.code == "closed"
        await room.leave()
        await quiet()
        stage.all_let_go()
        assert len(stage.actors[0].asked) == 3


@virtual
async def test_a_server_that_does_not_let_us_go_is_left_all_the_same() -> None:
    def script(actor: Actor, request: bytes) -> None:
        if request[1] != LEAVE:
            serve_well(actor, request)

    async with acting(script) as stage:
        async with member(stage.machine):
            await asyncio.sleep(1)
            start_s = now_s()
        assert now_s() - start_s == pytest.approx(2)
        await quiet()
        stage.all_let_go()


@virtual
async def test_an_exception_leaves_at_once_whatever_waits_to_be_said() -> None:
    async with acting(serve_well) as stage:

        async def fail() -> None:
            async with member(stage.machine) as room:
                for count in range(1000):
                    room.post(f"text {count}")
                raise ZeroDivisionError

        start_s = now_s()
        with pytest.raises(ZeroDivisionError):
            await fail()
        assert now_s() - start_s < 1
        assert stage.actors[0].asked == [JOIN, MEMBERS, LEAVE]
        await quiet()
        stage.all_let_go()


@virtual
async def test_leaving_twice_at_once_is_leaving() -> None:
    async with acting(serve_well) as stage:
        async with member(stage.machine) as room:
            await asyncio.sleep(1)
            await asyncio.gather(room.leave(), room.leave(), room.leave(drain=False))
        await quiet()
        stage.all_let_go()


@virtual
async def test_leaving_interrupted_lets_go_all_the_same() -> None:
    async with acting(seat_only) as stage, ocm.connect(URL, user="aiko", network=stage.machine) as client:
        for wait_s in (0.0, 0.1, 0.3, 1.0):
            async with client.join() as room:
                leaving = asyncio.ensure_future(room.leave())
                await asyncio.sleep(wait_s)
                leaving.cancel()
                await asyncio.wait([leaving])
                await quiet()
                stage.all_let_go()
                assert await rest(room) == []


@virtual
async def test_a_pile_of_messages_can_be_left_unsaid() -> None:
    limits = ocm.Limits(burst_max=1, rate_per_s=1)
    async with acting(serve_well) as stage, member(stage.machine, limits=limits) as room:
        await asyncio.sleep(1)
        sending = [asyncio.ensure_future(room.send(str(number))) for number in range(100)]
        await asyncio.sleep(0)
        await room.leave(drain=False)
        results = await asyncio.gather(*sending, return_exceptions=True)
        assert isinstance(results[0], Receipt)
        assert all(isinstance(result, ocm.SendRefused) for result in results[1:])


@virtual
async def test_a_question_nobody_waits_for_does_not_stand_in_the_way_of_leaving() -> None:
    waiting: list[tuple[Actor, bytes]] = []

    def script(actor: Actor, request: bytes) -> None:
        if request[1] == MEMBERS and len(actor.asked) > 2:
            waiting.append((actor, request))
            asyncio.get_running_loop().call_later(0.5, serve_well, actor, request)
        else:
            serve_well(actor, request)

    async with acting(script) as stage:
        async with member(stage.machine) as room:
            await asyncio.sleep(1)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await room.fetch_members()
        assert waiting
        assert stage.actors[0].asked == [JOIN, MEMBERS, MEMBERS, LEAVE]


@virtual
async def test_questions_asked_at_once_are_all_answered() -> None:
    async with serving() as world:
        machine = Machine(world.network)
        async with member(machine, create=True) as room:
            answers = await asyncio.gather(*(room.fetch_members() for _ in range(5)))
        assert answers == [("aiko",)] * 5
        assert world.server.status().hub.members == 0
        assert SERVER in URL


@virtual
async def test_a_send_may_be_cancelled_at_the_moment_the_room_ends() -> None:
    limits = ocm.Limits(burst_max=1, rate_per_s=1)
    async with acting(serve_well) as stage, member(stage.machine, limits=limits) as room:
        room.post("first")
        sending = asyncio.ensure_future(room.send("second"))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(sending.cancel)
        stage.notice("room closed: the host has gone")
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert (await rest(room))[-1] == RoomClosed(Reason.HOST_LEFT)


@virtual
async def test_whoever_waits_for_all_to_be_said_need_not_outlast_the_room() -> None:
    limits = ocm.Limits(burst_max=1, rate_per_s=0.001)
    async with acting(serve_well) as stage, member(stage.machine, limits=limits) as room:
        for text in ("one", "two", "three"):
            room.post(text)
        draining = asyncio.ensure_future(room.drain())
        await asyncio.sleep(1)
        assert not draining.done()
        stage.notice("room closed: the host has gone")
        await draining
