"""kill -9, again and again: of a server under load, of a client with messages that wait."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
import tempfile
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from tests.real.audit import Found, all_shown, check, read_log, shown
from tests.real.machines import Program, ServerProgram, member

USERS = ("aiko", "ben", "carla", "dmitri")
_AUDIT_EVERY = 25
"""Kills between two looks into the log: sooner than it could forget."""


@dataclass(frozen=True, slots=True)
class Kills:
    """What came of it. Times are seconds, sorted."""

    found: Found
    accepts_s: list[float]
    """From the kill to a server that accepts (it is started at once)."""
    back_s: list[float]
    """From the kill until a message of every member was accepted again."""


async def kill_servers(folder: Path, *, count: int, rate: float = 20.0, seed: int = 1) -> Kills:
    """Kill a durable server ``count`` times while four members talk; check everything everybody saw."""
    draw = random.Random(seed)
    accepts_s: list[float] = []
    back_s: list[float] = []
    log: dict[int, tuple[str, str]] = {}
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(ServerProgram(folder / "server"))
        members: dict[str, Program] = {}
        for user in USERS:
            arguments = ("--rate", str(rate), *(() if members else ("--create",)))
            members[user] = await stack.enter_async_context(member(server, user, *arguments, folder=folder))
            await members[user].event("entered")
        for number in range(1, count + 1):
            await asyncio.sleep(draw.uniform(0.02, 0.4))  # into another moment of its work each time
            marks = {user: len(program.lines) for user, program in members.items()}
            await server.kill()
            await server.start()
            accepts_s.append(server.accepts_s - server.killed_s)
            back = [_back(program, marks[user], server.accepts_s) for user, program in members.items()]
            back_s.append(max(await asyncio.gather(*back)) - server.killed_s)
            if not number % _AUDIT_EVERY:
                log |= await read_log(members[USERS[0]])
        for program in members.values():
            after = len(program.lines)
            program.tell("stop")
            await program.event("drained", after=after, within_s=120)  # what was sent and not answered adds up
        log |= await read_log(members[USERS[0]])
        await all_shown(members, log)
        found = check({user: program.lines for user, program in members.items()}, log)
        assert "Traceback" not in server.complaints(), server.complaints()
    return Kills(found, sorted(accepts_s), sorted(back_s))


async def _back(program: Program, after: int, accepts_s: float) -> float:
    """Return when the server that accepts again had accepted a message of the member."""
    line = await program.wait_for(lambda line: line["event"] == "receipt" and line["at_s"] > accepts_s, after=after)
    at_s: float = line["at_s"]
    return at_s


@dataclass(frozen=True, slots=True)
class ClientKills:
    """What came of it."""

    messages: int
    """Messages in the room at the end."""
    waiting: int
    """Of these, those whose fate the client did not know when it was killed; several times killed, several times."""


async def kill_clients(folder: Path, *, count: int, each: int = 30, seed: int = 1) -> ClientKills:
    """Kill a client ``count`` times while it talks; what its state held is in the room exactly once."""
    draw = random.Random(seed)
    state = folder / "aiko.db"
    stored: set[str] = set()
    waiting = 0
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(ServerProgram(folder / "server"))
        reader = member(server, "reader", "--create", "--count", "0", folder=folder)
        await stack.enter_async_context(reader)
        await reader.event("entered")
        for number in range(1, count + 1):
            arguments = ("--state", str(state), "--prefix", f"aiko {number}", "--count", str(each), "--rate", "400")
            async with member(server, "aiko", *arguments, folder=folder) as talker:
                await talker.event("entered")
                await asyncio.sleep(draw.uniform(0.0, 0.1))
                if number % 3:  # two of three are killed while nobody answers, with much on its way
                    server.freeze()
                    await asyncio.sleep(draw.uniform(0.0, 0.1))
            if number % 3:
                server.thaw()
            texts = posted(state, folder)
            waiting += len(texts)
            stored |= texts
            if not number % _AUDIT_EVERY:  # let the outbox run empty
                async with member(server, "aiko", "--state", str(state), "--count", "0", folder=folder) as talker:
                    await _drained(talker)
        async with member(server, "aiko", "--state", str(state), "--count", "0", folder=folder) as talker:
            await _drained(talker)
        log = await read_log(reader)
        found = [text for _, text in log.values()]
        assert len(found) == len(set(found)), "a message is in the room twice"
        assert not stored - set(found), f"lost: {sorted(stored - set(found))[:5]}"
        _check_order(found)
        assert "Traceback" not in server.complaints(), server.complaints()
        await shown(reader, max(log))
        assert [line["text"] for line in reader.lines if line["event"] == "message"] == found, "the reader saw the same"
    return ClientKills(len(found), waiting)


async def _drained(talker: Program) -> None:
    await talker.event("entered")
    talker.tell("stop")
    await talker.event("drained", within_s=60)


def posted(state: Path, folder: Path) -> set[str]:
    """Read, from a copy, what a state holds whose process is dead."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        for name in (state.name, state.name + "-wal"):
            if (source := state.with_name(name)).exists():
                shutil.copy(source, Path(scratch) / name)
        with closing(sqlite3.connect(Path(scratch) / state.name)) as connection:
            return {bytes(body).decode() for [body] in connection.execute("SELECT body FROM posted")}


def _check_order(texts: list[str]) -> None:
    keys = [tuple(map(int, text.split()[1:])) for text in texts]
    assert keys == sorted(keys), "out of order"


def percentile(sorted_s: list[float], share: float) -> float:
    """Return the value below which ``share`` of the values are."""
    return sorted_s[min(len(sorted_s) - 1, int(len(sorted_s) * share))]
