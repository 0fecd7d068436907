"""Sample programs for a bad network: three with a bug that no good network shows, and the same three without it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

import ocm

ROOM = "lab"
Ask = Callable[[ocm.Room], Awaitable[str]]


@contextlib.asynccontextmanager
async def two(host: str, guest: str) -> AsyncGenerator[tuple[ocm.Room, ocm.Room]]:
    """Seat two users in one room of a new server."""
    async with (
        ocm.serve("tcrp://[::1]:0") as server,
        ocm.connect(server.url, user=host) as one,
        ocm.connect(server.url, user=guest) as other,
        one.create(ROOM) as first,
        other.join(ROOM) as second,
    ):
        yield first, second


async def texts(room: ocm.Room) -> AsyncIterator[str]:
    async for event in room:
        if isinstance(event, ocm.Message):
            yield event.text


# --- a robot asks for its task -----------------------------------------------------------------------------


async def ask_once(room: ocm.Room) -> str:
    """Ask, and wait for the answer. The bug: question and answer may be lost."""
    room.post("task?")
    async for text in texts(room):
        return text
    return "no task"


async def ask_again(room: ocm.Room) -> str:
    """Ask every second until there is an answer."""
    heard = texts(room)
    answer = asyncio.ensure_future(anext(heard))
    while not answer.done():
        room.post("task?")
        await asyncio.wait([answer], timeout=1)
    return await answer


async def robot(ask: Ask) -> str:
    """Return the task that the robot got from the boss."""

    async def boss(room: ocm.Room) -> None:
        async for text in texts(room):
            if text == "task?":
                room.post("paint")

    async with two("boss", "robot") as (office, floor):
        answering = asyncio.create_task(boss(office))
        async with asyncio.timeout(30):
            task = await ask(floor)
        answering.cancel()
        return task


# --- a scoreboard ------------------------------------------------------------------------------------------


async def scoreboard(*, repeat: bool) -> str:
    """Return the score that the viewer saw last. The bug: a score is said once, whoever is away misses it."""
    async with two("match", "viewer") as (pitch, home):
        seen = "0"

        async def view() -> None:
            nonlocal seen
            async for text in texts(home):
                seen = text

        viewing = asyncio.create_task(view())
        score = -1
        for second in range(40):
            if second % 4 == 0 and second <= 20:
                score += 1
                pitch.post(f"{score}")
            elif repeat:
                pitch.post(f"{score}")
            await asyncio.sleep(1)
        viewing.cancel()
        return seen


# --- a picture in pieces -----------------------------------------------------------------------------------


async def picture(*, numbered: bool) -> str:
    """Return the picture as it arrived in pieces. The bug: they are put together in the order they come."""
    async with two("camera", "screen") as (camera, screen):
        for number, piece in enumerate("CHEESE"):
            camera.post(f"{number}{piece}")
            await asyncio.sleep(0.02)
        pieces = [text async for text in _first(6, texts(screen))]
        return "".join(piece[1] for piece in (sorted(pieces) if numbered else pieces))


async def _first(count: int, several: AsyncIterator[str]) -> AsyncIterator[str]:
    for _ in range(count):
        yield await anext(several)
