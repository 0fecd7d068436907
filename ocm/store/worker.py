"""Who does a store's slow work: a thread beside the event loop, or the caller itself where there may be no thread."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol, TypeAlias, TypeVar

T = TypeVar("T")

Task: TypeAlias = Callable[[], Callable[[], None]]
"""Does a job; returns what tells its outcome, to be called on the event loop."""

_IDLE_S: Final = 1.0
"""How often a thread that has nothing to do tidies."""


class Worker(Protocol):
    """Does jobs one after the other, and tidies between them. A job and ``tidy`` never run side by side.

    Neither of them may raise.
    """

    def start(self, tidy: Callable[[], None]) -> None:
        """Begin. ``tidy`` is called after each job, and where there is a thread also while it has nothing to do."""
        ...

    def run(self, job: Callable[[], T], done: Callable[[T], None]) -> None:
        """Do ``job``, then call ``done`` on the event loop with what it returned, perhaps before this returns."""
        ...

    def close(self) -> None:
        """Return when every job was done and told; then do no more."""
        ...


class InlineWorker:
    """Does each job at once. For tests, and for virtual time, where there are no threads."""

    def __init__(self) -> None:
        """Start with nothing to do."""
        self._tidy: Callable[[], None] = _nothing
        self._tasks: deque[Task] = deque()
        self._is_running = False

    def start(self, tidy: Callable[[], None]) -> None:
        """Tidy after each job from now on."""
        self._tidy = tidy

    def run(self, job: Callable[[], T], done: Callable[[T], None]) -> None:
        """Do the job now; a job that is asked for by ``done`` comes after it, not inside it."""
        self._tasks.append(_task(job, done))
        if self._is_running:
            return
        self._is_running = True
        try:
            self._work()
        finally:
            self._is_running = False

    def close(self) -> None:
        """Do what is left, where it was asked for by the ``done`` that this is called from."""
        self._work()

    def _work(self) -> None:
        while self._tasks:
            tell = self._tasks.popleft()()
            tell()
            self._tidy()


class ThreadWorker:
    """Does the jobs in a thread of its own, which does not keep the process alive."""

    def __init__(self, name: str) -> None:
        """Name the thread; it begins with ``start``."""
        self._name = name
        self._tidy: Callable[[], None] = _nothing
        self._thread: threading.Thread | None = None
        self._tasks: queue.SimpleQueue[tuple[Task, asyncio.AbstractEventLoop] | None] = queue.SimpleQueue()
        self._untold: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def start(self, tidy: Callable[[], None]) -> None:
        """Start the thread."""
        self._tidy = tidy
        self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        self._thread.start()

    def run(self, job: Callable[[], T], done: Callable[[T], None]) -> None:
        """Hand the job to the thread."""
        self._tasks.put((_task(job, done), asyncio.get_running_loop()))

    def close(self) -> None:
        """Wait for the thread, and tell here what the loop was going to be told."""
        if self._thread is not None:
            self._tasks.put(None)
            self._thread.join()
            self._thread = None
        self._tell()

    def _work(self) -> None:
        while True:
            try:
                asked = self._tasks.get(timeout=_IDLE_S)
            except queue.Empty:
                self._tidy()
                continue
            if asked is None:
                return
            task, loop = asked
            self._untold.put(task())
            try:
                loop.call_soon_threadsafe(self._tell)
            except RuntimeError:  # the loop has ended: only ``close`` can tell now
                continue
            self._tidy()

    def _tell(self) -> None:
        """Tell, in order, what became of the jobs that are done."""
        while True:
            try:
                tell = self._untold.get_nowait()
            except queue.Empty:
                return
            tell()


def _task(job: Callable[[], T], done: Callable[[T], None]) -> Task:
    def task() -> Callable[[], None]:
        result = job()
        return lambda: done(result)

    return task


def _nothing() -> None:
    pass
