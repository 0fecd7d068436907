"""``import ocm`` as programs use it: serve, connect, create, join; and what happens when something goes wrong."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

import ocm
from ocm import Delivery, MemberJoined, MemberLeft, Message, Person, Reason, Receipt, RoomClosed
from ocm.protocol.address import address_text
from ocm.protocol.control.packets import Form
from ocm.protocol.url import parse_url
from ocm.transport.base import Network
from ocm.transport.memory import MemoryNetwork
from tests.client.stage import URL, Machine, Stage, acting, member, rest, serve_well, soon
from tests.peers import SERVER
from tests.virtual import Cut, cut_in_every_turn, now_s, quiet, virtual

ANYWHERE = f"tcrp://{SERVER}:0"
AIKO, BEN = Person("aiko"), Person("ben")


async def conversation(url: str, serving: Network | None, aikos: Network | None, bens: Network | None) -> None:
    async with (
        ocm.serve(url, network=serving) as server,
        ocm.connect(server.url, user="aiko", network=aikos) as aiko,
        ocm.connect(server.url, user="ben", network=bens) as ben,
        aiko.create("部屋") as hosted,
    ):
        async with ben.join("部屋") as room:
            assert await room.send("hello") == Receipt(1, "hello", Delivery.SENT)
            assert await soon(2, hosted) == [MemberJoined(BEN), Message(BEN, "hello")]
            assert hosted.post("hi, ben") == 1
            assert await soon(2, room) == [Receipt(1, "hello", Delivery.SENT), Message(AIKO, "hi, ben")]
            assert await room.fetch_members() == ("aiko", "ben")
            assert server.status().hub.members == 2
        assert await soon(2, hosted) == [Receipt(1, "hi, ben", Delivery.SENT), MemberLeft(BEN, Reason.BYE)]
        async with ben.join("部屋") as room:
            await hosted.leave()
            assert await rest(room) == [MemberLeft(AIKO, Reason.BYE), RoomClosed(Reason.HOST_LEFT)]
        assert await rest(hosted) == [MemberJoined(BEN)]
        with pytest.raises(ocm.RoomRefused) as refusal:
            async with ben.join("部屋"):
                pass
        assert refusal.value.code == ocm.Refusal.NOT_FOUND


@virtual
async def test_two_people_talk_over_a_network_in_memory() -> None:
    network = MemoryNetwork()
    await conversation(ANYWHERE, network.host(SERVER), Machine(network, "10.0.0.1"), Machine(network, "10.0.0.2"))


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost", "[::]", "0.0.0.0"])
async def test_two_people_talk_over_real_sockets(host: str) -> None:
    await conversation(f"tcrp://{host}:0", None, None, None)


@pytest.mark.parametrize("form", list(Form))
@virtual
async def test_every_form_of_the_classic_profile_can_be_spoken(form: Form) -> None:
    network = MemoryNetwork()
    async with (
        ocm.serve(ANYWHERE, network=network.host(SERVER)) as server,
        await server.create("r", "host") as host,
        member(Machine(network), url=f"{server.url}&form={form.value}".replace("?", "/r?")) as room,
    ):
        assert room.form is form
        receipt = await room.send("hello")
        assert receipt.delivery is (Delivery.IN_ROOM if form is Form.REFERENCE else Delivery.SENT)
        assert await anext(aiter(host)) == MemberJoined(AIKO)


# --- the server in the program -------------------------------------------------------------------------


@virtual
async def test_the_program_sits_in_rooms_of_its_own_server() -> None:
    network = MemoryNetwork()
    async with ocm.serve(ANYWHERE, network=network.host(SERVER)) as server:
        where = parse_url(server.url)
        assert (where.tcp_port, where.udp_port) == (server.tcp_port, server.udp_port)
        async with await server.create("lobby", "ref") as ref:
            with pytest.raises(ocm.RoomRefused):
                await server.create("lobby", "other")
            async with await server.join("lobby", "bot") as bot:
                assert ref.members() == ["ref", "bot"]
                assert server.kick("lobby", "bot")
                assert not server.kick("lobby", "bot")
                assert [event async for event in bot] == [ocm.Removed(Reason.KICKED)]


@virtual
async def test_a_member_that_is_kicked_is_told_and_does_not_come_back() -> None:
    network = MemoryNetwork()
    async with (
        ocm.serve(ANYWHERE, network=network.host(SERVER)) as server,
        await server.create("r", "ref") as ref,
        member(Machine(network), url=server.url.replace("?", "/r?")) as room,
    ):
        await asyncio.sleep(1)
        server.kick("r", "aiko")
        assert (await rest(room))[-1] == ocm.Removed(Reason.KICKED)
        await asyncio.sleep(100)
        assert ref.members() == ["ref"]


@virtual
async def test_members_are_told_when_the_server_stops() -> None:
    network = MemoryNetwork()
    async with contextlib.AsyncExitStack() as stack:
        async with ocm.serve(ANYWHERE, network=network.host(SERVER)) as server:
            room = await stack.enter_async_context(
                member(Machine(network), url=server.url.replace("?", "/r?"), create=True)
            )
            await asyncio.sleep(1)
        assert (await rest(room))[-1] == RoomClosed(Reason.SERVER_STOPPED)


@virtual
async def test_who_may_come_in_is_for_the_program_to_say() -> None:
    network = MemoryNetwork()
    asked: list[ocm.Knock] = []

    async def authorize(knock: ocm.Knock) -> ocm.Verdict:
        asked.append(knock)
        await asyncio.sleep(1)
        return knock.password == "sesame" and "ally"

    async with ocm.serve(
        ANYWHERE,
        network=network.host(SERVER),
        authorize=authorize,
        admits=lambda address: not address_text(address).startswith("10.9."),
    ) as server:
        machine = Machine(network)
        for password in (None, "wrong"):
            async with ocm.connect(server.url, user="aiko", password=password, network=machine) as client:
                with pytest.raises(ocm.RoomRefused):
                    async with client.create("r"):
                        pass
        async with (
            ocm.connect(server.url, user="aiko", password="sesame", network=machine) as client,
            client.create("r") as room,
        ):
            await asyncio.sleep(1)
            assert "ally" in room.members()
        async with ocm.connect(server.url, user="aiko", network=Machine(network, "10.9.0.1")) as client:
            with pytest.raises(ocm.TransportClosed):
                async with client.create("r"):
                    pass
    assert [(knock.user, knock.host, knock.creates, knock.password) for knock in asked] == [
        ("aiko", "10.0.0.1", True, password) for password in (None, "wrong", "sesame")
    ]


@virtual
async def test_a_port_that_is_taken_or_an_address_that_is_not_ours_is_said_at_once() -> None:
    network = MemoryNetwork()
    async with ocm.serve(f"tcrp://{SERVER}:4000", network=network.host(SERVER)):
        for url, error in (
            (f"tcrp://{SERVER}:4000?udp=0", ocm.AddressInUse),
            (f"tcrp://{SERVER}:4001", ocm.AddressInUse),
            ("tcrp://10.5.5.5:4001", ocm.TransportClosed),
        ):
            with pytest.raises(error):
                async with ocm.serve(url, network=network.host(SERVER)):
                    pass
        async with ocm.serve(f"tcrp://{SERVER}:4001?udp=0", network=network.host(SERVER)):
            pass  # what failed has kept nothing


# --- misuse --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["", "http://x", "tcrp://h:0", "tcrp://h?udp=0", "tcrps://h?udp=1", "tcrps://h#fp=1", "tcrp://h?x=1"]
)
@virtual
async def test_an_address_that_cannot_be_one_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(ocm.LocalProtocolError):
        async with ocm.connect(url, user="aiko", network=MemoryNetwork()):
            pass


@pytest.mark.parametrize("url", ["", "http://x", "tcrps://[::]?udp=9001"])
@virtual
async def test_a_server_cannot_be_where_no_address_is(url: str) -> None:
    with pytest.raises(ocm.LocalProtocolError):
        async with ocm.serve(url, network=MemoryNetwork()):
            pass


@pytest.mark.parametrize("user", ["", " ", "x" * 33, "a\nb", " a", "server", "\ud800", "\u202eevil"])
@virtual
async def test_a_name_that_cannot_be_one_is_refused_before_anything_is_sent(user: str) -> None:
    with pytest.raises(ocm.LocalProtocolError):
        async with ocm.connect(URL, user=user, network=MemoryNetwork()):
            pass


@pytest.mark.parametrize("room", ["", " ", "x" * 256, "a\nb", "\ud800"])
@virtual
async def test_a_room_that_cannot_be_one_is_refused_before_anything_is_sent(room: str) -> None:
    async with ocm.connect(URL, user="aiko", network=MemoryNetwork()) as client:
        for enter in (client.create, client.join):
            with pytest.raises(ocm.LocalProtocolError):
                enter(room)


@virtual
async def test_the_room_of_the_address_is_the_default_and_there_must_be_one() -> None:
    async with ocm.connect(f"tcrp://{SERVER}", user="aiko", network=MemoryNetwork()) as client:
        with pytest.raises(ocm.LocalProtocolError):
            client.join()
    async with acting(serve_well) as stage, member(stage.machine) as room:
        assert room.name == "r"


@virtual
async def test_a_room_has_one_iterator() -> None:
    async with acting(serve_well) as stage, member(stage.machine) as room:
        reader = aiter(room)
        with pytest.raises(ocm.LocalProtocolError):
            aiter(room)
        reader.close()
        aiter(room).close()


@virtual
async def test_a_membership_is_entered_once() -> None:
    async with acting(serve_well) as stage, ocm.connect(URL, user="aiko", network=stage.machine) as client:
        membership = client.join()
        async with membership:
            with pytest.raises(ocm.LocalProtocolError):
                await membership.__aenter__()
        with pytest.raises(ocm.LocalProtocolError):
            await membership.__aenter__()
        await quiet()
        stage.all_let_go()


@virtual
async def test_a_client_is_of_no_use_after_its_block() -> None:
    async with acting(serve_well) as stage:
        async with ocm.connect(URL, user="aiko", network=stage.machine) as client:
            pass
        with pytest.raises(ocm.LocalProtocolError):
            async with client.join():
                pass
        await quiet()
        stage.all_let_go()


@virtual
async def test_one_client_may_be_in_many_rooms() -> None:
    network = MemoryNetwork()
    async with (
        ocm.serve(ANYWHERE, network=network.host(SERVER)) as server,
        ocm.connect(server.url, user="aiko", network=Machine(network)) as client,
        client.create("one") as one,
        client.create("two") as two,
    ):
        await asyncio.gather(*(room.send(text) for room in (one, two) for text in ("a", "b")))
        assert server.status().hub.rooms == 2


# --- errors, and being cancelled -------------------------------------------------------------------------


class Oops(Exception):
    """An error of the program's own."""


@virtual
async def test_what_fails_in_the_server_ends_its_block_and_is_raised_from_it() -> None:
    network = MemoryNetwork()

    def authorize(_: ocm.Knock) -> bool:
        raise Oops

    async def run() -> None:
        async with ocm.serve(ANYWHERE, network=network.host(SERVER), authorize=authorize) as server:
            with contextlib.suppress(ocm.RoomRefused):
                async with member(Machine(network), url=server.url.replace("?", "/r?")):
                    pass
            await asyncio.sleep(1000)

    start_s = now_s()
    with pytest.raises(Oops):
        await run()
    assert now_s() - start_s < 10


@virtual
async def test_what_fails_as_the_server_stops_is_raised_too() -> None:
    network = MemoryNetwork()

    async def authorize(_: ocm.Knock) -> bool:
        try:
            await asyncio.sleep(1000)
        finally:
            raise Oops

    entering: list[asyncio.Future[ocm.Room]] = []

    async def run() -> None:
        async with ocm.serve(ANYWHERE, network=network.host(SERVER), authorize=authorize) as server:
            url = server.url.replace("?", "/r?")
            entering.append(asyncio.ensure_future(member(Machine(network), url=url).__aenter__()))
            await asyncio.sleep(1)

    with pytest.raises(Oops):
        await run()
    with pytest.raises(ocm.OcmError):
        await entering[0]


async def stay_until_broken(stage: Stage, also: Exception | None = None) -> None:
    """Be in a room while the network fails as no network may; perhaps fail, too, when told to stop."""
    async with member(stage.machine) as room:
        await asyncio.sleep(1)
        stage.machine.broken = Oops()
        stage.machine.cut()
        try:
            await rest(room)
        except asyncio.CancelledError:
            if also is None:
                raise
            raise also from None


@virtual
async def test_what_fails_behind_a_client_ends_its_block_and_is_raised_from_it() -> None:
    async with acting(serve_well) as stage:
        with pytest.raises(Oops):
            await stay_until_broken(stage)
        await quiet()
        stage.all_let_go()


@virtual
async def test_a_client_that_is_failing_already_does_not_wait_for_a_server_that_is_gone() -> None:
    async def run(stage: Stage) -> None:
        limits = ocm.Limits(burst_max=1, rate_per_s=0.1)
        async with (
            ocm.connect(URL, user="aiko", limits=limits, network=stage.machine) as client,
            client.join("one") as one,
            client.join("two") as two,
        ):
            await asyncio.sleep(1)
            for _ in range(5):
                two.post("slowly")
            stage.machine.broken = Oops()
            stage.machine.streams[0].abort()
            asyncio.get_running_loop().call_later(2, stage.machine.cut)
            await rest(one)

    async with acting(serve_well) as stage:
        start_s = now_s()
        with pytest.raises(Oops):
            await run(stage)
        assert now_s() - start_s < 10
        await quiet()
        stage.all_let_go()


@virtual
async def test_an_error_of_the_block_goes_its_way_as_it_is() -> None:
    network = MemoryNetwork()
    for error in (Oops("mine"), KeyError("mine"), ocm.SendRefused("closed")):
        with pytest.raises(type(error)) as raised:
            async with (
                ocm.serve(ANYWHERE, network=network.host(SERVER)) as server,
                ocm.connect(server.url, user="aiko", network=Machine(network)) as client,
                client.create("r"),
            ):
                raise error
        assert raised.value is error
        assert raised.value.__cause__ is None


@virtual
async def test_two_errors_at_once_are_both_raised() -> None:
    async with acting(serve_well) as stage:
        with pytest.raises(ExceptionGroup) as raised:
            await stay_until_broken(stage, KeyError("while I was cleaning up"))
        assert {type(error) for error in raised.value.exceptions} == {Oops, KeyError}


@virtual
async def test_cancelling_send_stops_the_waiting_and_not_the_sending() -> None:
    limits = ocm.Limits(burst_max=1, rate_per_s=1)
    async with acting(serve_well) as stage:
        async with member(stage.machine, limits=limits) as room:
            room.post("first")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await room.send("second")
            await room.drain()
            await quiet()
            assert [data[-6:] for data in stage.ear.take()] == [b"ffirst", b"second"]
            said = await soon(2, room)
        assert said == [Receipt(1, "first", Delivery.SENT), Receipt(2, "second", Delivery.SENT)]


async def stay(server: ocm.EmbeddedServer, machine: Machine) -> None:
    """Enter, talk, lose the connection, find it, leave."""
    async with member(machine, url=server.url.replace("?", "/r?"), create=True) as room:
        room.post("one")
        await room.send("two")
        await room.fetch_members()
        machine.cut()
        await asyncio.sleep(0.3)
        await room.send("three")


def test_cancelled_at_any_moment_a_stay_leaves_nothing_open() -> None:
    async def play(cut: Cut) -> None:
        network = MemoryNetwork()
        machine = Machine(network)
        async with ocm.serve(ANYWHERE, network=network.host(SERVER)) as server:
            await cut.follow(stay(server, machine))
            await asyncio.sleep(3)
            assert server.status().connections == 0
            assert machine.ports_open() == 0

    cut_in_every_turn(play)
