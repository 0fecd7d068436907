"""What reaches a member by UDP: the server's words, and whatever else the network carries."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ocm
from ocm import Announcement, Delivery, MemberJoined, MemberLeft, Message, Person, Reason, Receipt, RoomClosed
from ocm.protocol.address import port_of
from ocm.protocol.control.packets import Form
from tests.client.stage import (
    CLIENT,
    ROOM,
    TOKEN,
    URL,
    Actor,
    acting,
    member,
    rest,
    says,
    serve_well,
    soon,
)
from tests.peers import JOIN, SERVER, datagram, open_ear, packet
from tests.virtual import now_s, quiet, virtual

HELLO = Message(Person("bob"), "hello")
BOB_SAYS = datagram(ROOM, b"bob", b"hello")
PLAIN_SEAT = packet(JOIN, 1, ROOM, b"OK") + packet(JOIN, 2, ROOM, TOKEN)
REFERENCE_SEAT = packet(JOIN, 1, ROOM, b"\xc8") + packet(
    JOIN, 2, ROOM, b'{"status_code": 200, "user_token": "%s"}' % TOKEN
)


@virtual
async def test_only_the_servers_own_address_is_heard() -> None:
    async with acting(serve_well) as stage, member(stage.machine) as room:
        port = port_of(stage.machine.ports[-1].local)
        stranger = await open_ear(stage.network.host("10.6.6.6"), port_of(stage.ear.port.local))
        neighbour = await open_ear(stage.network.host(SERVER))
        for ear in (stranger, neighbour):
            ear.send(datagram(ROOM, b"bob", b"trust me"), host=CLIENT, port=port)
            ear.send(datagram(ROOM, b"", b"room closed: the host has gone"), host=CLIENT, port=port)
        await quiet()
        stage.tell(BOB_SAYS)
        assert await soon(1, room) == [HELLO]


@pytest.mark.parametrize(
    "junk",
    [b"", b"\x01", b"\xff\xff", BOB_SAYS[:4], datagram(b"other", b"bob", b"x"), datagram(b"", b"", b"room closed")],
)
@virtual
async def test_what_is_not_of_this_room_is_passed_over(junk: bytes) -> None:
    async with acting(serve_well) as stage, member(stage.machine) as room:
        stage.tell(junk)
        stage.tell(BOB_SAYS)
        assert await soon(1, room) == [HELLO]


@given(junk=st.lists(st.binary(max_size=60), max_size=30), form=st.sampled_from(["ocm", "plain"]))
@virtual
async def test_no_datagram_breaks_the_room(junk: list[bytes], form: str) -> None:
    script = says(PLAIN_SEAT) if form == "plain" else serve_well
    async with acting(script) as stage, member(stage.machine, url=f"{URL}&form={form}") as room:
        for data in junk:
            stage.tell(data)
        await quiet()
        await room.send("still here")
        await quiet()
        assert stage.ear.take() == [datagram(ROOM, TOKEN, b"still here")]


@virtual
async def test_the_servers_own_words_become_events() -> None:
    async with acting(serve_well) as stage, member(stage.machine) as room:
        for words in (
            "bob joined",
            "bob left: silent too long",
            "you send too fast: 3 messages were dropped",
            "hi all",
        ):
            stage.notice(words)
        assert await soon(4, room) == [
            MemberJoined(Person("bob")),
            MemberLeft(Person("bob"), Reason.IDLE),
            ocm.Slowed(3),
            Announcement("hi all"),
        ]


@pytest.mark.parametrize(
    ("words", "last"),
    [
        ("room closed: the server is stopping", RoomClosed(Reason.SERVER_STOPPED)),
        ("you were removed: silent too long", ocm.Removed(Reason.IDLE)),
    ],
)
@virtual
async def test_the_end_of_a_stay_ends_iteration_and_lets_go(words: str, last: ocm.Event) -> None:
    async with acting(serve_well) as stage, member(stage.machine) as room:
        stage.notice(words)
        stage.tell(BOB_SAYS)
        assert await rest(room) == [last]
        assert await rest(room) == []
        with pytest.raises(ocm.SendRefused) as refusal:
            room.post("anybody?")
        assert refusal.value.code == "closed"
        await quiet()
        stage.all_let_go()


@virtual
async def test_who_is_there_is_known_from_the_server_and_kept_up_to_date() -> None:
    async with acting(serve_well) as stage, member(stage.machine) as room:
        assert room.members() == ("aiko",)
        await asyncio.sleep(1)
        assert room.members() == ("host", "aiko")
        stage.notice("bob joined")
        stage.notice("host left")
        await quiet()
        assert room.members() == ("aiko", "bob")
        assert await room.fetch_members() == ("host", "aiko")


@virtual
async def test_a_server_cannot_make_up_members_without_end() -> None:
    async with acting(serve_well) as stage, member(stage.machine, limits=ocm.Limits(members_per_room_max=50)) as room:
        for number in range(200):
            stage.notice(f"m{number} joined")
        await quiet()
        assert len(room.members()) == 50


@virtual
async def test_a_datagram_that_overtakes_the_token_is_heard() -> None:
    def script(actor: Actor, request: bytes) -> None:
        stage.tell(BOB_SAYS)
        asyncio.get_running_loop().call_later(1, serve_well, actor, request)

    async with acting(script) as stage, member(stage.machine) as room:
        assert await soon(1, room) == [HELLO]


@virtual
async def test_a_room_may_be_over_before_the_token_has_come() -> None:
    def script(actor: Actor, request: bytes) -> None:
        stage.notice("room closed: the host has gone")
        asyncio.get_running_loop().call_later(1, serve_well, actor, request)

    async with acting(script) as stage, member(stage.machine) as room:
        assert await rest(room) == [RoomClosed(Reason.HOST_LEFT)]


@virtual
async def test_no_flood_before_the_token_takes_more_than_its_share() -> None:
    def script(actor: Actor, request: bytes) -> None:
        for data in (BOB_SAYS, *[b"junk"] * 100, datagram(ROOM, b"bob", b"too late")):
            stage.tell(data)
        asyncio.get_running_loop().call_later(1, serve_well, actor, request)

    async with acting(script) as stage, member(stage.machine, limits=ocm.Limits(events_max=10)) as room:
        await quiet()
        stage.notice("room closed: the host has gone")
        assert await rest(room) == [HELLO, RoomClosed(Reason.HOST_LEFT)]


@virtual
async def test_a_slow_reader_is_told_of_the_gap() -> None:
    async with acting(serve_well) as stage, member(stage.machine, limits=ocm.Limits(events_max=5)) as room:
        for _ in range(12):
            stage.tell(BOB_SAYS)
        await quiet()
        assert await soon(6, room) == [HELLO] * 5 + [ocm.Gap(7)]


# --- the forms ------------------------------------------------------------------------------------------


@virtual
async def test_a_plain_server_names_people_in_the_text() -> None:
    async with acting(says(PLAIN_SEAT, closes=True)) as stage, member(stage.machine, url=URL + "&form=plain") as room:
        assert (room.form, room.name, room.user) == (Form.PLAIN, "r", "aiko")
        assert stage.actors[0].received == packet(JOIN, 0, ROOM, b"aiko")
        stage.tell(b"bob: hello")
        stage.tell(b"somebody came")
        stage.tell(b"* you were removed, silent too long")
        assert await rest(room) == [HELLO, Message(Person(None), "somebody came"), ocm.Removed(Reason.IDLE)]


@virtual
async def test_a_reference_server_sends_our_own_messages_back() -> None:
    async with acting(says(REFERENCE_SEAT, closes=True)) as stage, member(stage.machine) as room:
        sending = asyncio.ensure_future(room.send("hello"))
        await quiet()
        assert stage.ear.take() == [datagram(ROOM, TOKEN, b"hello")]
        assert not sending.done()
        stage.tell(datagram(ROOM, TOKEN, b"hi"))
        stage.tell(datagram(ROOM, TOKEN, b"hello"))
        receipt = await sending
        assert receipt == Receipt(1, "hello", Delivery.IN_ROOM)
        assert await soon(2, room) == [Message(Person(None), "hi"), receipt]


@virtual
async def test_what_does_not_come_back_in_two_seconds_is_known_to_have_left_only() -> None:
    async with acting(says(REFERENCE_SEAT, closes=True)) as stage, member(stage.machine) as room:
        start_s = now_s()
        assert (await room.send("hello")).delivery is Delivery.SENT
        assert now_s() - start_s == pytest.approx(2, abs=0.1)


@virtual
async def test_leaving_waits_for_what_is_still_to_come_back() -> None:
    async with acting(says(REFERENCE_SEAT, closes=True)) as stage:
        async with member(stage.machine) as room:
            room.post("one")
            room.post("two")
            assert stage.ear.take() == []
        await quiet()
        assert await rest(room) == [Receipt(1, "one", Delivery.SENT), Receipt(2, "two", Delivery.SENT)]


@virtual
async def test_a_pile_of_messages_goes_out_in_order_within_the_allowance() -> None:
    limits = ocm.Limits(burst_max=5, rate_per_s=10)
    async with acting(serve_well) as stage:
        start_s = now_s()
        async with member(stage.machine, limits=limits) as room:
            for number in range(50):
                room.post(str(number))
        assert now_s() - start_s > 4
        assert stage.ear.heard == [datagram(ROOM, TOKEN, b"%d" % number) for number in range(50)]


@pytest.mark.parametrize(
    ("text", "code"), [("", "empty"), ("\ud800", "not_text"), ("x" * 5000, "too_large"), ("語" * 1400, "too_large")]
)
@virtual
async def test_a_text_that_cannot_be_said_is_refused_and_nothing_is_sent(text: str, code: str) -> None:
    async with acting(serve_well) as stage, member(stage.machine) as room:
        with pytest.raises(ocm.SendRefused) as posted:
            room.post(text)
        with pytest.raises(ocm.SendRefused) as sent:
            await room.send(text)
        assert posted.value.code == sent.value.code == code
        await room.drain()
        await quiet()
        assert stage.ear.take() == []
