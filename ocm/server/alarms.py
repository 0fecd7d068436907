"""Many who want to be woken, and one timer of the loop for all of them."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

Sleeper = TypeVar("Sleeper", bound=Hashable)

_SPARE: Final = 1024
"""Places in the heap that count no more, above one for each that does, before they are swept out."""


class Alarms(Generic[Sleeper]):
    """Wakes each who asked, once. A timer of the loop for each costs several times as much as a place in a heap."""

    def __init__(self, wake: Callable[[Sleeper], None]) -> None:
        """Call ``wake`` for each whose time has come."""
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._due_s: dict[Sleeper, float] = {}
        self._heap: list[tuple[float, int, Sleeper]] = []
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    def set(self, sleeper: Sleeper, at_s: float) -> None:
        """Wake ``sleeper`` at ``at_s``. If it is to be woken sooner that stays: it asks again then."""
        due_s = self._due_s.get(sleeper)
        if due_s is not None and due_s <= at_s:
            return
        self._due_s[sleeper] = at_s
        self._count += 1
        heapq.heappush(self._heap, (at_s, self._count, sleeper))
        if len(self._heap) > 2 * len(self._due_s) + _SPARE:
            self._sweep()
        self._arm()

    def forget(self, sleeper: Sleeper) -> None:
        """Do not wake ``sleeper``."""
        self._due_s.pop(sleeper, None)

    def stop(self) -> None:
        """Wake nobody any more."""
        self._due_s.clear()
        self._heap.clear()
        self._arm()

    def _on_timer(self) -> None:
        self._timer = None
        now_s, heap = self._loop.time(), self._heap
        while heap and heap[0][0] <= now_s:
            at_s, _, sleeper = heapq.heappop(heap)
            if self._due_s.get(sleeper) == at_s:
                del self._due_s[sleeper]
                self._wake(sleeper)
        self._arm()

    def _arm(self) -> None:
        at_s = self._heap[0][0] if self._heap else None
        if self._timer is not None:
            if at_s is not None and self._timer.when() <= at_s:
                return  # it finds out then that it is early
            self._timer.cancel()
        self._timer = None if at_s is None else self._loop.call_at(at_s, self._on_timer)

    def _sweep(self) -> None:
        self._heap = [(at_s, number, sleeper) for number, (sleeper, at_s) in enumerate(self._due_s.items())]
        self._count = len(self._heap)
        heapq.heapify(self._heap)
