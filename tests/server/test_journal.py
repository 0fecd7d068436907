"""Commit, then acknowledge, then fan out: journals that take their time, and journals that fail."""

from __future__ import annotations

import asyncio

import pytest

from ocm.errors import JournalFailed, RoomRefused, SendRefused
from ocm.protocol.events import Event, MemberJoined, Message
from ocm.protocol.limits import Limits
from tests.peers import CREATE, JOIN, LEAVE, SlowJournal, datagram, refused, request, serving
from tests.virtual import now_s, quiet, virtual

LATER = "the server cannot take this just now; try again later"


@virtual
async def test_nothing_is_sent_before_the_journal_has_it() -> None:
    journal = SlowJournal()
    async with serving(journal=journal) as world:
        alice = await world.sit("ocm", CREATE, "r", "alice", host="10.0.0.1")
        bob = await world.sit("ocm", JOIN, "r", "bob", host="10.0.0.2")
        alice.heard()
        journal.prompt = False
        bob.say("hello")
        carl = await world.dial("10.0.0.3")
        carl.send(request("ocm", JOIN, "r", "carl"))
        leaver = await world.dial("10.0.0.2")
        leaver.send(bob.request(LEAVE))
        await asyncio.sleep(60)
        assert alice.heard() == bob.heard() == []
        assert carl.received == leaver.received == b""
        journal.commit(1)
        await quiet()
        assert alice.heard() == [datagram(b"r", b"bob", b"hello")]
        assert carl.received == b""
        journal.commit(1)
        await asyncio.sleep(0.1)
        assert alice.notices() == ["carl joined"]
        assert len(carl.chunks) == 2
        assert leaver.received == b""
        journal.commit(1)
        await asyncio.sleep(0.1)
        assert alice.notices() == ["bob left"]
        assert len(leaver.chunks) == 2


@pytest.mark.parametrize("form", ["ocm", "plain", "reference"])
@virtual
async def test_a_journal_that_fails_is_a_refusal_and_the_room_is_as_it_was(form: str) -> None:
    journal = SlowJournal()
    async with serving(journal=journal) as world:
        alice = await world.sit("ocm", CREATE, "r", "alice", host="10.0.0.1")
        journal.broken = True
        peer = await world.dial("10.0.0.2")
        replies = await peer.ask(request(form, JOIN, "r", "bob"))
        if form == "ocm":
            assert replies == [refused(JOIN, "r", 480, LATER)]
        assert not peer.ended
        assert (await (await world.dial()).ask(request("ocm", CREATE, "new", "carl"))) == [
            refused(CREATE, "new", 480, LATER)
        ]
        assert alice.heard() == []
        assert world.server.status().hub.members == 1
        assert world.server.status().hub.rooms == 1
        journal.broken = False
        seat = await world.ask_seat(peer, form, JOIN, "r", "bob")
        assert alice.notices() == ["bob joined"]
        seat.say("at last")
        await quiet()
        assert alice.heard() == [datagram(b"r", b"bob", b"at last")]


@virtual
async def test_a_leave_that_the_journal_does_not_take_is_answered_and_undone() -> None:
    journal = SlowJournal()
    async with serving(journal=journal) as world:
        alice = await world.sit("ocm", CREATE, "r", "alice", host="10.0.0.1")
        journal.prompt = False
        alice.peer.send(alice.request(LEAVE))
        await asyncio.sleep(0.1)
        journal.fail()
        await asyncio.sleep(0.1)
        assert alice.peer.chunks[-1][1] == refused(LEAVE, "r", 480, LATER)
        assert not alice.peer.ended
        assert world.server._classic.leaving == {}
        journal.prompt = True
        assert len(await alice.peer.ask(alice.request(LEAVE))) == 2
        assert world.server.status().hub.rooms == 0


@virtual
async def test_one_failure_does_not_refuse_the_leave_that_was_asked_behind_it() -> None:
    journal = SlowJournal()
    async with serving(journal=journal) as world:
        alice = await world.sit("ocm", CREATE, "r", "alice", host="10.0.0.1")
        bob = await world.sit("ocm", JOIN, "r", "bob", host="10.0.0.2")
        journal.prompt = False
        alice.say("one")
        await quiet()
        alice.say("two")
        await quiet()
        (_, first), (_, second) = journal._waiting
        journal._waiting.clear()
        first(JournalFailed("the disk is full"))
        bob.peer.send(bob.request(LEAVE))
        await quiet()
        second(JournalFailed("it stands on the first"))
        journal.commit()
        await asyncio.sleep(0.1)
        assert [data[1:3] for _, data in bob.peer.chunks[2:]] == [b"\x20\x01", b"\x20\x02"]
        assert world.server.status().hub.members == 1


@virtual
async def test_a_message_that_the_journal_does_not_take_is_heard_by_nobody() -> None:
    journal = SlowJournal()
    async with serving(journal=journal) as world:
        alice = await world.sit("ocm", CREATE, "r", "alice", host="10.0.0.1")
        bob = await world.sit("ocm", JOIN, "r", "bob", host="10.0.0.2")
        alice.heard()
        journal.broken = True
        bob.say("lost")
        await quiet()
        journal.broken = False
        bob.say("heard")
        await quiet()
        assert alice.heard() == [datagram(b"r", b"bob", b"heard")]


@virtual
async def test_who_hangs_up_while_the_journal_writes_leaves_no_ghost() -> None:
    journal = SlowJournal()
    async with serving(journal=journal) as world:
        alice = await world.sit("ocm", CREATE, "r", "alice", host="10.0.0.1")
        journal.prompt = False
        peer = await world.dial("10.0.0.2")
        peer.send(request("ocm", JOIN, "r", "bob"))
        await quiet()
        peer.stream.abort()
        await quiet()
        journal.prompt = True
        journal.commit()
        await quiet()
        assert alice.notices() == ["bob joined", "bob left: connection lost"]
        assert world.server.status().hub.members == 1
        assert len(world.server._classic.door.links) == 1


@virtual
async def test_who_hangs_up_while_the_journal_fails_is_forgotten() -> None:
    journal = SlowJournal()
    async with serving(journal=journal) as world:
        journal.prompt = False
        peer = await world.dial("10.0.0.2")
        peer.send(request("ocm", CREATE, "r", "bob"))
        await quiet()
        peer.stream.abort()
        await quiet()
        journal.fail()
        await quiet()
        assert world.server.status().hub.rooms == 0
        assert world.server._classic.entering == {}


@virtual
async def test_a_member_without_a_socket_waits_for_the_journal_too() -> None:
    journal = SlowJournal()
    async with serving(journal=journal) as world:
        journal.prompt = False
        entering = asyncio.ensure_future(world.server.enter("r", "alice", create=True))
        await asyncio.sleep(60)
        assert not entering.done()
        journal.commit()
        alice = await entering
        assert alice.members() == ["alice"]
        entering = asyncio.ensure_future(world.server.enter("r", "bob", create=False))
        await quiet()
        journal.fail()
        with pytest.raises(RoomRefused) as refusal:
            await entering
        assert (refusal.value.code, refusal.value.reason) == (480, LATER)
        journal.prompt = True
        bob = await world.server.enter("r", "bob", create=False)
        assert bob.members() == ["alice", "bob"]


@pytest.mark.parametrize("fails", [False, True])
@virtual
async def test_a_local_member_that_was_cancelled_on_its_way_in_leaves_no_ghost(fails: bool) -> None:
    journal = SlowJournal()
    async with serving(journal=journal) as world:
        journal.prompt = False
        entering = asyncio.ensure_future(world.server.enter("r", "alice", create=True))
        await quiet()
        entering.cancel()
        await asyncio.wait([entering])
        journal.prompt = True
        if fails:
            journal.fail()
        else:
            journal.commit()
        await quiet()
        assert world.server.status().hub.members == world.server.status().hub.rooms == 0


@virtual
async def test_a_full_line_before_the_journal_refuses_and_drops_and_tells() -> None:
    journal = SlowJournal()
    async with serving(journal=journal, limits=Limits(pending_max=4)) as world:
        alice = await world.sit("ocm", CREATE, "r", "alice", host="10.0.0.1")
        local = await world.server.enter("r", "lena", create=False)
        journal.prompt = False
        for n in range(6):
            alice.say(f"text {n}")
        await quiet()
        peer = await world.dial("10.0.0.2")
        assert await peer.ask(request("ocm", JOIN, "r", "bob")) == [refused(JOIN, "r", 480, LATER)]
        with pytest.raises(SendRefused) as too_much:
            await local.send("me too")
        assert (too_much.value.code, too_much.value.retry_after_s) == ("rate", 1.0)
        await asyncio.sleep(2)
        assert "you send too fast: 2 messages were dropped" in alice.notices()
        journal.commit()
        reader = aiter(local)
        events: list[Event] = [await anext(reader) for _ in range(4)]
        assert [event.text for event in events if isinstance(event, Message)] == [f"text {n}" for n in range(4)]
        assert not any(isinstance(event, MemberJoined) for event in events)


@virtual
async def test_stop_waits_for_the_journal_and_tells_the_members() -> None:
    journal = SlowJournal()
    async with serving(journal=journal) as world:
        alice = await world.sit("plain", CREATE, "r", "alice", host="10.0.0.1")
        alice.peer.stream.close()
        await quiet()
        journal.prompt = False
        asyncio.get_running_loop().call_later(0.5, journal.commit)
        await world.server.stop()
        await quiet()
        assert alice.heard() == [b"* room closed, the server is stopping"]


@virtual
async def test_a_journal_that_answers_after_the_end_harms_nobody() -> None:
    journal = SlowJournal()
    journal.finishes_at_once = False
    async with serving(journal=journal) as world:
        alice = await world.sit("ocm", CREATE, "r", "alice", host="10.0.0.1")
        bob = await world.sit("ocm", JOIN, "r", "bob", host="10.0.0.2")
        alice.heard()
        journal.prompt = False
        bob.say("hello")
        entering = asyncio.ensure_future(world.server.enter("r", "carl", create=False))
        peer = await world.dial("10.0.0.4")
        peer.send(request("ocm", JOIN, "r", "dora"))
        await quiet()
        started_s = now_s()
        await world.server.stop()
        assert now_s() - started_s == pytest.approx(1.0, abs=0.1)
        journal.commit()
        with pytest.raises(RoomRefused):
            await entering
        await asyncio.sleep(1000)
        assert alice.heard() == []
        assert peer.ended
        assert peer.received == b""
