"""How old things are, on a machine whose clock may be wrong."""

from __future__ import annotations

from collections.abc import Callable


class AgeClock:
    """Seconds that count towards ages: at most one for each second of running time.

    A time of day that jumps ahead by a year makes nothing a year older, one that jumps back makes nothing younger,
    and while no server runs nothing ages. So data is kept too long rather than lost.
    """

    def __init__(self, clock: Callable[[], float], monotonic: Callable[[], float], *, aged_s: float) -> None:
        """Go on from ``aged_s``; ``clock`` is the time of day and ``monotonic`` never jumps, both in seconds."""
        self._clock = clock
        self._monotonic = monotonic
        self._aged_s = aged_s
        self._clock_s = clock()
        self._running_s = monotonic()

    def now_s(self) -> float:
        """Return the age of the journal."""
        clock_s, running_s = self._clock(), self._monotonic()
        self._aged_s += max(0.0, min(clock_s - self._clock_s, running_s - self._running_s))
        self._clock_s, self._running_s = clock_s, running_s
        return self._aged_s

    def age_at_ms(self, time_ms: int) -> float:
        """Return what ``now_s`` will be at the given time of day, in milliseconds since 1970, if clocks are right."""
        return self.now_s() + max(0.0, time_ms / 1000 - self._clock_s)
