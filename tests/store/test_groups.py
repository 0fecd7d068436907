"""Whatever waits is one group, and what follows a failure fails until it was told."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from ocm.errors import JournalFailed
from ocm.store.groups import Groups, Written
from ocm.store.worker import T


class LaterWorker:
    """A worker whose jobs are done when the test says so."""

    def __init__(self) -> None:
        self._waiting: list[Callable[[], None]] = []

    def start(self, tidy: Callable[[], None]) -> None:
        """Never tidies."""

    def run(self, job: Callable[[], T], done: Callable[[T], None]) -> None:
        assert not self._waiting, "one job at a time"
        self._waiting.append(lambda: done(job()))

    def finish(self) -> None:
        self._waiting.pop()()

    def close(self) -> None:
        while self._waiting:
            self.finish()


class Desk:
    """Groups of strings; the bad ones fail. Keeps what was written together, and what was told."""

    def __init__(self, *, group_max: int = 99) -> None:
        self.worker = LaterWorker()
        self.written: list[list[str]] = []
        self.landed: list[int] = []
        self.told: list[str] = []
        self._group_max = group_max
        self.groups: Groups[str, JournalFailed] = Groups(
            self.worker, start=self._start, landed=self.landed.append, failed=JournalFailed, what="the desk"
        )

    def _start(self, batches: Sequence[str]) -> tuple[int, Callable[[], Written[JournalFailed]]]:
        group = list(batches[: self._group_max])
        return len(group), lambda: self._write(group)

    def _write(self, group: list[str]) -> Written[JournalFailed]:
        if "bug" in group:
            raise ZeroDivisionError
        good = next((count for count, batch in enumerate(group) if batch.startswith("bad")), len(group))
        self.written.append(group[:good])
        return Written(good, None if good == len(group) else JournalFailed(group[good]))

    def submit(self, *batches: str, then: Callable[[], None] | None = None) -> None:
        for batch in batches:

            def done(error: JournalFailed | None, batch: str = batch) -> None:
                self.told.append(f"{batch}: {error or 'ok'}")
                if then is not None:
                    then()

            self.groups.submit(batch, done)


def test_what_waits_is_written_together() -> None:
    desk = Desk()
    desk.submit("a", "b", "c")
    desk.worker.finish()
    assert desk.told == ["a: ok"]
    desk.submit("d")
    desk.worker.finish()
    assert desk.written == [["a"], ["b", "c"]]
    desk.worker.finish()
    assert desk.told == ["a: ok", "b: ok", "c: ok", "d: ok"]
    assert desk.landed == [1, 2, 1]


def test_what_is_not_of_the_group_comes_with_the_next() -> None:
    desk = Desk(group_max=2)
    desk.submit("a", "b", "c", "d")
    desk.worker.close()
    assert desk.written == [["a"], ["b", "c"], ["d"]]


def test_what_stands_behind_a_failure_fails_with_it() -> None:
    desk = Desk()
    desk.submit("a", "b", "bad", "c")
    desk.worker.finish()
    desk.submit("d")
    desk.worker.finish()
    assert desk.told == ["a: ok", "b: ok", "bad: bad", "c: bad", "d: bad"]
    assert desk.written == [["a"], ["b"]]
    desk.submit("e")
    desk.worker.finish()
    assert desk.told[5:] == ["e: ok"]


def test_what_comes_before_the_failure_is_told_fails_and_what_comes_after_does_not() -> None:
    desk = Desk()
    desk.submit("first")
    desk.submit("b", then=lambda: desk.submit("too early"))
    desk.submit("bad", then=lambda: desk.submit("bad again", "in time"))
    desk.submit("c", then=lambda: desk.submit("behind"))
    desk.worker.finish()
    desk.worker.finish()
    assert desk.told == ["first: ok", "b: ok", "bad: bad", "c: bad", "too early: bad"]
    desk.worker.close()
    assert desk.told[5:] == ["bad again: bad again", "in time: bad again", "behind: bad again"]
    assert desk.written == [["first"], ["b"], []]


def test_a_failure_inside_a_failure_covers_what_comes_until_it_is_told() -> None:
    desk = Desk()

    def fail_again() -> None:
        desk.submit("bad two")
        desk.worker.finish()

    desk.submit("a")
    desk.submit("bad", then=fail_again)
    desk.submit("c", then=lambda: desk.submit("too early"))
    desk.worker.finish()
    desk.worker.finish()
    assert desk.told == ["a: ok", "bad: bad", "c: bad", "bad two: bad two", "too early: bad two"]


def test_closing_writes_what_waits_and_takes_no_more() -> None:
    desk = Desk()
    desk.submit("a", "b", "c")
    desk.groups.close()
    desk.groups.close()
    desk.submit("d")
    assert desk.told == ["a: ok", "b: ok", "c: ok", "d: the desk is closed"]


def test_a_mistake_of_ours_is_raised_and_nobody_waits_for_ever() -> None:
    desk = Desk()
    desk.submit("bug", "b")
    with pytest.raises(ZeroDivisionError):
        desk.worker.finish()
    assert desk.told == ["bug: the desk met an error in ocm itself", "b: the desk met an error in ocm itself"]
    desk.submit("c")
    desk.worker.finish()
    assert desk.told[2:] == ["c: ok"]
