"""When a client connects: at once where it can, less and less often where that leads nowhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

DIAL_AFTER_S: Final = (0.0, 0.25, 0.25, 0.5, 0.5, 0.5, 1.0, 2.0, 4.0)
"""Waits before each attempt to connect; the last one repeats, each with up to a quarter of jitter."""
STEADY_S: Final = 10.0
"""A connection that lasted so long is followed by another at once."""
TRIES_OF_USEFUL: Final = 3
"""Connections in a row that led into a room and ended soon: no more of them are counted. Waits stay at 0.5 s."""


class Dialler:
    """One attempt at a time. Whoever owns it says what became of each."""

    def __init__(self, *, jitter: Callable[[], float]) -> None:
        """Want no connection yet. ``jitter`` draws from [0, 1)."""
        self.attempt = 0
        """Attempts that failed since a server was last reached."""
        self.is_busy = False
        """Whether an attempt is being made, to the point where the server knows us."""
        self.is_stopped = False
        """Whether there is never to be another."""
        self._jitter = jitter
        self._due_s: float | None = None
        self._reached_s: float | None = None
        self._in_a_row = 0

    @property
    def due_s(self) -> float | None:
        """When to dial; None: not just now."""
        return None if self.is_busy else self._due_s

    def want(self, *, now_s: float) -> None:
        """Dial soon, unless that is so already: at once, unless connections end as soon as they are made."""
        if self._due_s is not None or self.is_busy:
            return
        if self._reached_s is None or now_s - self._reached_s >= STEADY_S:
            self._in_a_row = 0
        self._plan(self._in_a_row, now_s)
        if self._reached_s is not None:
            self._in_a_row += 1

    def hurry(self, *, now_s: float) -> None:
        """Dial at once where it is to be dialled anyway: what made it wait is another now."""
        if self._due_s is not None:
            self._due_s = now_s

    def slow_down(self, *, now_s: float) -> None:
        """Dial late: what the server did not like it may not like again."""
        self._plan(len(DIAL_AFTER_S) - 1, now_s)

    def begin(self) -> None:
        """Hear that an attempt is being made."""
        self.is_busy = True
        self._due_s = None

    def fail(self, *, now_s: float) -> None:
        """Hear that it led nowhere."""
        self.is_busy = False
        self.attempt += 1
        self._plan(self.attempt, now_s)

    def reach(self, *, now_s: float) -> int:
        """Hear that the server knows us; return how many attempts failed before."""
        self.is_busy = False
        self._due_s = None
        self._reached_s = now_s
        attempt, self.attempt = self.attempt, 0
        return attempt

    def be_of_use(self) -> None:
        """Hear that the connection led into a room: a server that works and dies soon is not waited for longer."""
        self._in_a_row = min(self._in_a_row, TRIES_OF_USEFUL)

    def stop(self) -> None:
        """Never dial again."""
        self.is_stopped = True
        self._due_s = None

    def _plan(self, tries: int, now_s: float) -> None:
        if self.is_stopped or self.is_busy:
            return
        wait_s = DIAL_AFTER_S[min(tries, len(DIAL_AFTER_S) - 1)]
        self._due_s = now_s + (wait_s * (1 + self._jitter() / 4) if wait_s else 0.0)
