"""Virtual time: an event loop that never waits. When nothing is ready its clock jumps to what is due next.

So a test may say "two minutes later" and take a millisecond, runs the same way each time, and fails at once
where everybody waits for ever. Good for whatever moves by callbacks alone, as ``MemoryNetwork`` does.
"""

from __future__ import annotations

import asyncio
import functools
import gc
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final, ParamSpec

P = ParamSpec("P")

START_S: Final = 1000.0
"""What the clock shows at first: far from 0, so that nothing rests on that."""
EARLY_S: Final = 1e-6
"""More than the base class runs a timer early."""
SPINS_MAX: Final = 200_000
"""Turns of the loop at one moment of time, before somebody must be running in circles."""


class Stuck(Exception):
    """Nothing is ready and nothing is due, or the same is ready again and again: everybody waits for ever."""


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop without a selector; see the module."""

    _scheduled: list[asyncio.TimerHandle]  # of the base class, but not in the stubs
    _ready: deque[asyncio.Handle]

    def __init__(self) -> None:
        super().__init__()
        self.complaints: list[dict[str, Any]] = []
        """What would have been logged: exceptions of callbacks, and those that nobody retrieved."""
        self._now_s = START_S
        self._idle = 0
        self._selector = self  # all that the base class asks of it is ``select``
        self.set_exception_handler(lambda _, context: self.complaints.append(context))

    def time(self) -> float:
        return self._now_s

    def select(self, timeout: float | None) -> list[Any]:
        """Be the selector: pass the time, see nothing happen."""
        if timeout is None:
            raise Stuck("nothing is ready and nothing is due")
        # on the dot: a sum may have been rounded, and the base class runs a timer up to its clock's resolution
        # early; whoever then finds it too early arms it again, and no time would pass
        due = [handle.when() for handle in self._scheduled[:1] if handle.when() <= self._now_s + timeout + EARLY_S]
        self._now_s = max([self._now_s + timeout, *due])
        self._idle = 0 if timeout > 0 else self._idle + 1
        if self._idle > SPINS_MAX:
            raise Stuck(f"no time passes, yet there is always something to do: {self._ready}")
        return []

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps."""


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
