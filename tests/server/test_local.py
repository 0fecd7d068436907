"""Members without a socket: the program that runs the server sits in a room itself."""

from __future__ import annotations

import asyncio

import pytest

from ocm.errors import LocalProtocolError, RoomRefused, SendRefused
from ocm.inbox import Inbox, InboxReader
from ocm.protocol.entry import Entry, Kind, Reason
from ocm.protocol.events import Event, Gap, MemberJoined, MemberLeft, Message, Person, Removed, RoomClosed
from ocm.protocol.limits import Limits
from ocm.server.local import LocalLink, LocalMember
from tests.peers import CREATE, JOIN, LEAVE, datagram, serving
from tests.virtual import quiet, virtual


async def rest(member: LocalMember) -> list[Event]:
    return [event async for event in member]


@virtual
async def test_it_says_and_hears_what_every_member_does() -> None:
    async with serving() as world, await world.server.enter("r", "lena", create=True) as lena:
        assert (lena.name, lena.user) == ("r", "lena")
        bob = await world.sit("ocm", JOIN, "r", "bob")
        bob.say("hello")
        await quiet()
        await lena.send("hello yourself")
        await quiet()
        assert bob.heard() == [datagram(b"r", b"lena", b"hello yourself")]
        assert lena.members() == ["lena", "bob"]
        await bob.peer.ask(bob.request(LEAVE))
        reader = aiter(lena)
        assert [await anext(reader) for _ in range(3)] == [
            MemberJoined(Person("bob")),
            Message(Person("bob"), "hello", 3),
            MemberLeft(Person("bob"), Reason.BYE),
        ]


@virtual
async def test_two_of_them_hear_each_other_and_not_themselves() -> None:
    async with serving() as world:
        async with (
            await world.server.enter("r", "lena", create=True) as lena,
            await world.server.enter("r", "mia", create=False) as mia,
        ):
            await lena.send("hi mia")
            await mia.send("hi lena")
        assert await rest(lena) == [
            MemberJoined(Person("mia")),
            Message(Person("mia"), "hi lena", 4),
            MemberLeft(Person("mia"), Reason.BYE),
        ]
        assert await rest(mia) == [Message(Person("lena"), "hi mia", 3)]


@virtual
async def test_a_host_that_leaves_takes_the_room_along() -> None:
    async with serving() as world:
        lena = await world.server.enter("r", "lena", create=True)
        mia = await world.server.enter("r", "mia", create=False)
        bob = await world.sit("plain", JOIN, "r", "bob")
        await lena.leave()
        await lena.leave()
        assert (await rest(mia))[-1] == RoomClosed(Reason.HOST_LEFT)
        await quiet()
        assert bob.heard() == [b"* room closed, the host has gone"]
        assert world.server.status().hub.members == 0
        with pytest.raises(SendRefused) as refusal:
            await mia.send("anybody?")
        assert refusal.value.code == "closed"
        await mia.leave()
        assert mia.members() == []


@virtual
async def test_it_is_refused_as_a_client_would_be() -> None:
    async with serving(limits=Limits(rooms_max=1, members_per_room_max=2)) as world:
        with pytest.raises(RoomRefused) as refusal:
            await world.server.enter("r", "lena", create=False)
        assert refusal.value.code == 404
        await world.server.enter("r", "lena", create=True)
        for room, user, create, code in (
            ("r", "mia", True, 409),
            ("r2", "mia", True, 472),
            ("r", "Lena", False, 433),
        ):
            with pytest.raises(RoomRefused) as refusal:
                await world.server.enter(room, user, create=create)
            assert refusal.value.code == code
        await world.server.enter("r", "mia", create=False)
        with pytest.raises(RoomRefused) as refusal:
            await world.server.enter("r", "nora", create=False)
        assert refusal.value.code == 471


@pytest.mark.parametrize(
    ("room", "user"), [("", "a"), ("r", ""), ("r", "x" * 33), ("r", "server"), ("\ud800", "a"), ("r", "\udfff")]
)
@virtual
async def test_names_that_cannot_be_are_our_own_programs_fault(room: str, user: str) -> None:
    async with serving() as world:
        with pytest.raises(LocalProtocolError):
            await world.server.enter(room, user, create=True)


@virtual
async def test_texts_that_cannot_be_sent_are_refused() -> None:
    async with serving() as world:
        lena = await world.server.enter("r", "lena", create=True)
        bobs = [await world.sit(form, JOIN, "r", f"bob {form}") for form in ("ocm", "plain", "reference")]
        most = 4096 - 2 - 1 - 36 - len("lena: ") - 28
        for text, code in (("", "empty"), ("x" * (most + 1), "too_large"), ("\ud800", "not_text")):
            with pytest.raises(SendRefused) as refusal:
                await lena.send(text)
            assert refusal.value.code == code
        for bob in bobs:
            bob.heard()
        await lena.send("x" * most)
        await quiet()
        assert all(len(bob.heard()) == 1 for bob in bobs)


@virtual
async def test_it_keeps_to_the_allowance() -> None:
    async with serving(limits=Limits(burst_max=3, rate_per_s=2.0)) as world:
        lena = await world.server.enter("r", "lena", create=True)
        for _ in range(3):
            await lena.send("x")
        with pytest.raises(SendRefused) as refusal:
            await lena.send("x")
        assert refusal.value.code == "rate"
        assert refusal.value.retry_after_s == pytest.approx(0.5)
        await asyncio.sleep(refusal.value.retry_after_s or 0)
        await lena.send("x")


@virtual
async def test_it_never_goes_idle() -> None:
    async with serving() as world:
        lena = await world.server.enter("r", "lena", create=True)
        bob = await world.sit("ocm", JOIN, "r", "bob")
        await asyncio.sleep(100_000)
        assert lena.members() == ["lena"]
        assert await anext(aiter(lena)) == MemberJoined(Person("bob"))
        assert bob.peer.ended


@virtual
async def test_a_kicked_one_is_told() -> None:
    async with serving() as world:
        await world.sit("ocm", CREATE, "r", "alice")
        lena = await world.server.enter("r", "lena", create=False)
        world.server.kick("r", "lena")
        assert await rest(lena) == [Removed(Reason.KICKED)]


@virtual
async def test_a_slow_reader_is_told_how_much_it_missed() -> None:
    async with serving(limits=Limits(events_max=5)) as world:
        alice = await world.sit("ocm", CREATE, "r", "alice")
        lena = await world.server.enter("r", "lena", create=False)
        for n in range(20):
            alice.say(f"text {n}")
        await quiet()
        reader = aiter(lena)
        seen = [await anext(reader) for _ in range(6)]
        assert [event.text for event in seen if isinstance(event, Message)] == [f"text {n}" for n in range(5)]
        assert seen[5] == Gap(15)
        alice.say("again")
        await quiet()
        assert await anext(reader) == Message(Person("alice"), "again", 23)


@virtual
async def test_it_has_one_reader() -> None:
    async with serving() as world:
        lena = await world.server.enter("r", "lena", create=True)
        reader = aiter(lena)
        with pytest.raises(LocalProtocolError):
            aiter(lena)
        reader.close()
        assert isinstance(aiter(lena), InboxReader)


def test_a_link_without_a_socket_sends_no_bytes() -> None:
    inbox = Inbox(10)
    link = LocalLink(inbox)
    with pytest.raises(LocalProtocolError):
        link.finish(b"x")
    assert link.address == b""
    link.take(Entry(1, 0, "", Kind.CLOSED, b"left", 0))  # told by ``end``
    assert link.form.encode_farewell(Entry(1, 0, "", Kind.CLOSED, b"left", 0)) is None
