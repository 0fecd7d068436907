"""Group commit: whatever waits when the writer is free is written together, and told in the order of submission."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from ocm.store.worker import InlineWorker, Worker

B = TypeVar("B")
E = TypeVar("E", bound=Exception)


@dataclass(frozen=True, slots=True)
class Written(Generic[E]):
    """What became of a group: its first ``count`` batches are stored, and ``error`` says why the others are not."""

    count: int
    error: E | None = None


class Groups(Generic[B, E]):
    """Batches on their way to a writer that takes one group at a time.

    There is no delay: a group is what came while the one before it was being written. When a batch fails,
    everything behind it fails too, up to the moment in which the failure is told.

    Args:
        worker: who writes.
        start: called on the event loop with what waits; returns how many of these batches are the group, one at
            least, and the job that writes them.
        landed: called on the event loop with how many batches of that group were stored, before this is told.
        failed: makes an error of its text, for batches that come after ``close`` or meet a mistake in our code.
        what: what is written into, for that text.
    """

    def __init__(
        self,
        worker: Worker,
        *,
        start: Callable[[Sequence[B]], tuple[int, Callable[[], Written[E]]]],
        landed: Callable[[int], None],
        failed: Callable[[str], E],
        what: str,
    ) -> None:
        """Begin with nothing to write."""
        self._worker = worker
        self._start = start
        self._landed = landed
        self._failed = failed
        self._what = what
        self._is_open = True
        self._waiting: deque[tuple[B, Callable[[E | None], None]]] = deque()
        self._under_way: list[tuple[B, Callable[[E | None], None]]] = []
        self._untold: deque[tuple[Callable[[E | None], None], E | None]] = deque()
        self._failure: E | None = None
        self._telling = False

    def submit(self, batch: B, done: Callable[[E | None], None]) -> None:
        """Write ``batch`` with the next group; call ``done`` with None or with why it was not."""
        error = self._failure if self._is_open else self._failed(f"{self._what} is closed")
        if error is None:
            self._waiting.append((batch, done))
            self._next()
        else:
            self._tell([(done, error)])

    def close(self) -> None:
        """Write what waits, tell of it, and take no more. Idempotent."""
        if not self._is_open:
            return
        self._is_open = False
        worker, self._worker = self._worker, InlineWorker()  # for what stands behind the job under way
        worker.close()
        while self._waiting:
            self._next()

    def _next(self) -> None:
        if self._waiting and not self._under_way:
            count, job = self._start([batch for batch, _ in self._waiting])
            self._under_way = [self._waiting.popleft() for _ in range(count)]
            self._worker.run(partial(_caught, job), self._finished)

    def _finished(self, written: Written[E] | Exception) -> None:
        if isinstance(written, Exception):  # a mistake of ours: nobody shall wait for ever, and the loop shall see it
            self._settle(Written(0, self._failed(f"{self._what} met an error in ocm itself")))
            raise written
        self._settle(written)

    def _settle(self, written: Written[E]) -> None:
        group, self._under_way = self._under_way, []
        self._landed(written.count)
        outcomes: list[tuple[Callable[[E | None], None], E | None]]
        outcomes = [(done, None) for _, done in group[: written.count]]
        if written.error is not None:
            self._failure = written.error
            outcomes += [(done, written.error) for _, done in (*group[written.count :], *self._waiting)]
            self._waiting.clear()
        self._tell(outcomes)

    def _tell(self, outcomes: Sequence[tuple[Callable[[E | None], None], E | None]]) -> None:
        """Tell what is untold, in order; what ``done`` submits meanwhile is told behind that."""
        self._untold += outcomes
        if self._telling:
            return
        self._telling = True
        try:
            while self._untold:
                done, error = self._untold.popleft()
                if error is self._failure:
                    self._failure = None  # told: what is submitted from here on stands on nothing that failed
                done(error)
        finally:
            self._telling = False
            self._next()


def _caught(job: Callable[[], Written[E]]) -> Written[E] | Exception:
    try:
        return job()
    except Exception as error:  # the worker may be a thread, which has nobody to tell
        return error
