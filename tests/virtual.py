"""Virtual time for tests: the loop of ``ocm.testing``, and what tests of servers share."""

from __future__ import annotations

import asyncio
import functools
import gc
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, ParamSpec

from ocm.errors import Stuck
from ocm.testing.virtual import START_S, VirtualLoop

__all__ = ["START_S", "Cut", "Stuck", "VirtualLoop", "cut_in_every_turn", "now_s", "quiet", "virtual"]

P = ParamSpec("P")


def virtual(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test in virtual time; it fails, too, when an exception was lost on the loop."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        loop = VirtualLoop()
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(test(*args, **kwargs))
            left = asyncio.all_tasks(loop)
        if loop.complaints or left:
            gc.collect()
        assert not left, f"tasks left behind: {left}"
        assert not loop.complaints, loop.complaints

    return run


def now_s() -> float:
    """Return the running loop's time."""
    return asyncio.get_running_loop().time()


async def quiet() -> None:
    """Let everything happen that is ready to; a millisecond passes."""
    await asyncio.sleep(0.001)


@dataclass
class Cut:
    """Where something is cancelled."""

    at: int | None
    """In which turn of the loop; None: it comes to its end."""
    turns: int = 0
    """How many it took."""

    async def follow(self, work: Coroutine[Any, Any, None]) -> None:
        """Let something run, cancelled where it is to be. What it raises then is its own affair."""
        task = asyncio.ensure_future(work)
        while not task.done():
            self.turns += 1
            if self.turns == self.at:
                task.cancel()
            await asyncio.sleep(0 if self.turns % 3 else 0.01)
        if self.at is None:
            await task


def cut_in_every_turn(play: Callable[[Cut], Coroutine[Any, Any, None]]) -> None:
    """Play to the end, then once for each turn of the loop that this took, cut there."""
    whole = Cut(None)
    virtual(play)(whole)
    for turn in range(1, whole.turns):
        virtual(play)(Cut(turn))
