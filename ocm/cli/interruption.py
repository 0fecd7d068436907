"""Ctrl-C and its like: the first asks to end politely, the next one insists."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine
from typing import Any, Final

from ocm.cli.faults import DONE, FAILED

POLITE_S: Final = 2.0
"""How long a polite end may take."""
_AGAIN_S: Final = 0.1
_SIGNALS: Final = ("SIGINT", "SIGTERM", "SIGHUP")


class Interruption:
    """Whether somebody wants a command to end."""

    def __init__(self) -> None:
        """Nobody does yet."""
        self.event = asyncio.Event()
        self.is_watched = False
        """Whether the command looks at ``event``; if not, it is cut off."""
        self._task: asyncio.Task[Any] | None = None

    def install(self) -> None:
        """Hear signals, on behalf of the current task."""
        self._task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for name in _SIGNALS:
            with contextlib.suppress(AttributeError, NotImplementedError):  # Windows
                loop.add_signal_handler(getattr(signal, name), self._interrupt)

    def _interrupt(self) -> None:
        if self.is_watched and not self.event.is_set():
            self.event.set()
            asyncio.get_running_loop().call_later(POLITE_S, self._cut_off)
        else:
            self._cut_off()

    def _cut_off(self) -> None:
        """Cancel, and cancel again whatever the way out waits for."""
        if self._task is not None:
            self._task.cancel()
        asyncio.get_running_loop().call_later(_AGAIN_S, self._cut_off)


def run_politely(work: Callable[[Interruption], Coroutine[Any, Any, int]]) -> int:
    """Run ``work``; return its exit status."""
    interruption = Interruption()

    async def main() -> int:
        interruption.install()
        return await work(interruption)

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        return DONE if interruption.is_watched else FAILED
