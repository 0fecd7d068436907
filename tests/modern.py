"""Rooms of TCRP/2 on a simulated network: what their tests share."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import ocm
from ocm.testing import Network

URL = "tcrps://[::1]:0"
AIKO, BEN, CARL = (ocm.Person(name) for name in ("aiko", "ben", "carl"))
Result = TypeVar("Result")


def simulated(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on the fixture ``network``, which it may take as an argument, too."""

    @functools.wraps(test)
    def run(network: Network, **arguments: Any) -> None:
        network.run(test(network=network, **arguments), at_most_s=20_000)

    return run


@asynccontextmanager
async def sitting(
    url: str,
    user: str,
    room: str = "r",
    *,
    create: bool = False,
    policy: ocm.Policy | None = None,
    password: str | None = None,
    state: Path | None = None,
    limits: ocm.Limits | None = None,
) -> AsyncGenerator[ocm.Room]:
    """Be in a room, by a client of one's own."""
    async with (
        ocm.connect(url, user=user, password=password, state=state, limits=limits) as client,
        client.create(room, policy=policy) if create else client.join(room) as seat,
    ):
        yield seat


class Listener:
    """Reads a room in the background, and keeps all that it hears."""

    def __init__(self, room: ocm.Room) -> None:
        self.events: list[ocm.Event] = []
        self.ended: BaseException | None = None
        self._task = asyncio.create_task(self._listen(room))

    @property
    def texts(self) -> list[str]:
        """What others said."""
        return [event.text for event in self.events if isinstance(event, ocm.Message)]

    @property
    def receipts(self) -> list[ocm.Receipt]:
        """What became of our own words."""
        return [event for event in self.events if isinstance(event, ocm.Receipt)]

    @property
    def ways(self) -> list[ocm.PathKind]:
        """Which ways messages went, one after the other."""
        return [event.path.kind for event in self.events if isinstance(event, ocm.PathChanged)]

    async def _listen(self, room: ocm.Room) -> None:
        try:
            async for event in room:
                self.events.append(event)
        except ocm.OcmError as error:
            self.ended = error

    async def end(self) -> list[ocm.Event]:
        """Wait until the room has ended; return all that was heard."""
        await self._task
        return self.events

    def stop(self) -> None:
        """Read no more."""
        self._task.cancel()


async def until(condition: Callable[[], bool], *, within_s: float = 30.0) -> float:
    """Wait until something is so; return how many seconds that took, to the hundredth."""
    start_s = now_s()
    while not condition():
        assert now_s() - start_s < within_s, f"not within {within_s} s"
        await asyncio.sleep(0.01)
    return now_s() - start_s


def now_s() -> float:
    """Return the running loop's time."""
    return asyncio.get_running_loop().time()


def way(room: ocm.Room) -> ocm.PathKind:
    """Return which way a room's messages travel just now."""
    return room.path.kind
