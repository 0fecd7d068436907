"""``authorize``: the embedding program decides who comes in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from ocm.errors import LocalProtocolError
from ocm.server.gatekeeper import Knock, Verdict
from tests.peers import CREATE, JOIN, datagram, refused, request, serving
from tests.virtual import quiet, virtual

LATER = "the server cannot take this just now; try again later"


def asleep(verdict: Verdict) -> Callable[[Knock], Awaitable[Verdict]]:
    async def decide(_: Knock) -> Verdict:
        await asyncio.sleep(5)
        return verdict

    return decide


def at_once(verdict: Verdict) -> Callable[[Knock], Verdict]:
    return lambda _: verdict


WAYS = [at_once, asleep]


@virtual
async def test_it_is_told_who_wants_what() -> None:
    knocks: list[Knock] = []

    def note(knock: Knock) -> bool:
        knocks.append(knock)
        return True

    async with serving(authorize=note) as world:
        await world.sit("ocm", CREATE, "r", "alice", host="10.0.0.1", password="pa55")
        await world.sit("plain", JOIN, "r", "bob", host="2001:db8::7")
        assert knocks == [
            Knock("r", "alice", "10.0.0.1", creates=True, password="pa55"),
            Knock("r", "bob", "2001:db8::7", creates=False),
        ]
        assert "pa55" not in repr(knocks)


@pytest.mark.parametrize("way", WAYS)
@virtual
async def test_yes_lets_them_in(way: Callable[[Verdict], Callable[[Knock], Verdict]]) -> None:
    async with serving(authorize=way(True)) as world:
        peer = await world.dial()
        assert len(await peer.ask(request("ocm", CREATE, "r", "alice"), wait_s=6)) == 2


@pytest.mark.parametrize("way", WAYS)
@virtual
async def test_a_name_lets_them_in_under_it(way: Callable[[Verdict], Callable[[Knock], Verdict]]) -> None:
    async with serving(authorize=way("Alice (staff)")) as world:
        peer = await world.dial()
        assert len(await peer.ask(request("ocm", CREATE, "r", "alice"), wait_s=6)) == 2
        assert [member.name for member in world.server._hub.members("r")] == ["Alice (staff)"]


@pytest.mark.parametrize("form", ["ocm", "plain", "reference"])
@pytest.mark.parametrize("way", WAYS)
@virtual
async def test_no_is_the_answer_of_a_missing_room_byte_for_byte(
    way: Callable[[Verdict], Callable[[Knock], Verdict]], form: str
) -> None:
    async with serving(authorize=way(False)) as world:
        await world.server.enter("there", "host", create=True)
        there = await (await world.dial()).ask(request(form, JOIN, "there", "alice"), wait_s=6)
        missing = await (await world.dial()).ask(request(form, JOIN, "gone!", "alice"), wait_s=6)
    async with serving() as world:
        plainly_missing = await (await world.dial()).ask(request(form, JOIN, "gone!", "alice"), wait_s=6)
    assert missing == plainly_missing
    assert [reply.replace(b"there", b"gone!") for reply in there] == missing


@virtual
async def test_a_verdict_that_takes_its_time_holds_up_nobody_else() -> None:
    asked = asyncio.Event()

    async def decide(knock: Knock) -> bool:
        if knock.user == "slow":
            await asked.wait()
        return True

    async with serving(authorize=decide) as world:
        slow = await world.dial()
        slow.send(request("ocm", CREATE, "slow room", "slow"))
        await asyncio.sleep(300)
        await world.works()
        assert not slow.ended
        asked.set()
        await asyncio.sleep(0.1)
        assert len(slow.chunks) == 2


@virtual
async def test_who_hung_up_meanwhile_is_not_let_in() -> None:
    async with serving(authorize=asleep(True)) as world:
        for verdict_s in (1, 6):
            peer = await world.dial()
            peer.send(request("ocm", CREATE, "r", "alice"))
            await asyncio.sleep(verdict_s)
            peer.stream.abort()
            await asyncio.sleep(10)
        assert world.server.status().hub.rooms == 1  # the one that was let in before it hung up


@pytest.mark.parametrize("awaited", [False, True])
@virtual
async def test_what_it_raises_is_kept_and_the_peer_is_told_to_come_later(awaited: bool) -> None:
    def fail(_: Knock) -> bool:
        raise ZeroDivisionError("mine")

    async def fail_later(_: Knock) -> bool:
        await asyncio.sleep(1)
        raise ZeroDivisionError("mine")

    async with serving(authorize=fail_later if awaited else fail) as world:
        peer = await world.dial()
        assert await peer.ask(request("ocm", CREATE, "r", "alice"), wait_s=2) == [refused(CREATE, "r", 480, LATER)]
        assert await peer.ask(request("ocm", CREATE, "r", "alice"), wait_s=2)  # a second failure changes nothing
        with pytest.raises(ZeroDivisionError, match="mine"):
            await world.server.failure


@pytest.mark.parametrize("bad", ["", "x" * 33, "server", "a\x00b", " a", "\ud800"])
@pytest.mark.parametrize("way", WAYS)
@virtual
async def test_a_name_that_cannot_be_used_is_the_programs_fault(
    way: Callable[[Verdict], Callable[[Knock], Verdict]], bad: str
) -> None:
    async with serving(authorize=way(bad)) as world:
        peer = await world.dial()
        assert await peer.ask(request("ocm", CREATE, "r", "alice"), wait_s=6) == [refused(CREATE, "r", 480, LATER)]
        with pytest.raises(LocalProtocolError, match="authorize gave a name that cannot be used"):
            await world.server.failure
        assert world.server.status().hub.rooms == 0


@virtual
async def test_verdicts_still_to_come_are_given_up_when_the_server_stops() -> None:
    async with serving(authorize=asleep(True)) as world:
        peer = await world.dial()
        peer.send(request("ocm", CREATE, "r", "alice"))
        await quiet()
        await world.server.stop()
        await asyncio.sleep(10)
        assert peer.received == b""
        assert peer.ended
        assert world.server.status().hub.rooms == 0


@virtual
async def test_two_that_ask_for_one_name_get_one_seat() -> None:
    async with serving(authorize=asleep(True)) as world:
        alice = await world.server.enter("r", "alice", create=True)
        peers = [await world.dial(f"10.0.0.{n}") for n in range(1, 4)]
        for peer in peers:
            peer.send(request("ocm", JOIN, "r", "bob"))
        await asyncio.sleep(6)
        assert sorted(len(peer.chunks) for peer in peers) == [1, 1, 2]
        assert alice.members() == ["alice", "bob"]
        assert datagram(b"r", b"", b"bob joined") not in [peer.received for peer in peers]
