"""Virtual time for tests: the loop of ``ocm.testing``, and what tests of servers share."""

from __future__ import annotations

import asyncio
import functools
import gc
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

from ocm.errors import Stuck
from ocm.testing.virtual import START_S, VirtualLoop

__all__ = ["START_S", "Stuck", "VirtualLoop", "now_s", "quiet", "virtual"]

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
