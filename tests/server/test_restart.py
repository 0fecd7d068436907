"""A classic member that asks for its seat again has another token, also at a server that was started again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ocm.protocol.limits import Limits
from ocm.store.sqlite import SqliteJournal
from ocm.store.worker import InlineWorker
from tests.peers import CREATE, JOIN, MEMBERS, SlowJournal, World, counted_randomness, datagram, request, serving
from tests.store.scratch import new_path, tidy
from tests.virtual import now_s, quiet, virtual

EPOCH_S = 1_700_000_000.0
FORMS = ["ocm", "plain", "reference"]
HOST, GUEST, ELSEWHERE = "10.0.0.1", "10.0.0.2", "10.0.0.77"


@pytest.fixture
def path() -> Iterator[Path]:
    yield new_path("journal.db")
    tidy()


@asynccontextmanager
async def durably(path: Path, *, life: int) -> AsyncGenerator[World]:
    journal = SqliteJournal(path, Limits(), clock=lambda: EPOCH_S + now_s(), monotonic=now_s, worker=InlineWorker())
    randomness = counted_randomness()
    async with serving(journal=journal, randomness=lambda size: bytes([life]) + randomness(size - 1)) as world:
        yield world


async def seats(world: World, form: str, *, host: str) -> tuple[bytes, bytes]:
    """Let bob sit down, and ask for his seat again: where he was, without a token, or from elsewhere with it."""
    await world.sit("ocm", CREATE, "r", "alice", host=HOST)
    bob = await world.sit("ocm", JOIN, "r", "bob", host=GUEST)
    await bob.peer.ask(bob.request(MEMBERS))  # which says that the connection is kept on purpose
    if host == ELSEWHERE:
        return bob.token, (await world.sit("ocm", JOIN, "r", "bob", host=host, user_token=bob.token.decode())).token
    bob.peer.stream.abort()
    await quiet()
    return bob.token, (await world.sit(form, JOIN, "r", "bob", host=host)).token


@pytest.mark.parametrize(("form", "host"), [(form, GUEST) for form in FORMS] + [("ocm", ELSEWHERE)])
@virtual
async def test_the_token_that_was_given_last_is_good_after_a_restart_and_no_other(
    form: str, host: str, path: Path
) -> None:
    async with durably(path, life=1) as world:
        first, last = await seats(world, form, host=host)
    async with durably(path, life=2) as world:
        carl = await world.sit("plain", JOIN, "r", "carl", host="10.0.0.9")
        bob = await world.ear(host)
        bob.send(datagram(b"r", first, b"no"))
        bob.send(datagram(b"r", last, b"yes"))
        await quiet()
        assert carl.heard() == [b"bob: yes"]


@virtual
async def test_a_token_is_given_when_the_journal_has_it_and_until_then_the_old_one_is_good() -> None:
    journal = SlowJournal()
    async with serving(journal=journal) as world:
        alice = await world.sit("ocm", CREATE, "r", "alice", host=HOST)
        bob = await world.sit("ocm", JOIN, "r", "bob", host=GUEST)
        journal.prompt = False
        peer = await world.dial(ELSEWHERE)
        peer.send(request("ocm", JOIN, "r", "bob", user_token=bob.token.decode()))
        await quiet()
        assert peer.received == b""
        bob.say("here still")
        await quiet()
        journal.commit()
        await asyncio.sleep(1)
        assert datagram(b"r", b"bob", b"here still") in alice.heard()
        assert b"user_token" in peer.received
        bob.say("not from here any more")
        await quiet()
        journal.commit()
        assert alice.heard() == []


@virtual
async def test_a_journal_that_fails_leaves_a_member_where_it_was() -> None:
    journal = SlowJournal()
    async with serving(journal=journal) as world:
        alice = await world.sit("ocm", CREATE, "r", "alice", host=HOST)
        bob = await world.sit("ocm", JOIN, "r", "bob", host=GUEST)
        journal.broken = True
        (answer,) = await (await world.dial(ELSEWHERE)).ask(
            request("ocm", JOIN, "r", "bob", user_token=bob.token.decode())
        )
        assert b'"status_code": 480' in answer
        journal.broken = False
        alice.heard()
        bob.say("here")
        await quiet()
        assert alice.heard() == [datagram(b"r", b"bob", b"here")]


@virtual
async def test_who_hangs_up_before_its_new_token_was_written_may_ask_once_more() -> None:
    journal = SlowJournal()
    async with serving(journal=journal) as world:
        await world.sit("ocm", CREATE, "r", "alice", host=HOST)
        bob = await world.sit("ocm", JOIN, "r", "bob", host=GUEST)
        journal.prompt = False
        peer = await world.dial(ELSEWHERE)
        peer.send(request("ocm", JOIN, "r", "bob", user_token=bob.token.decode()))
        await quiet()
        peer.stream.abort()
        await quiet()
        journal.prompt = True
        journal.commit()
        assert world.server.status().hub.members == 2
        back = await world.sit("ocm", JOIN, "r", "bob", host=ELSEWHERE)
        assert back.token not in {b"", bob.token}
        assert world.server.status().hub.members == 2
