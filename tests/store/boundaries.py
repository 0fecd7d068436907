"""Makes a disk fail, or tear what is written, at every boundary; ``test_crash.py`` runs it.

    python -m tests.store.boundaries MODE FOLDER SEED [EVERY]

A server's journal and a client's state are written to, batch by batch. What was told as stored must be there, what was
told as failed must not, whatever is there must be whole, and when the disk works again it must go on. ``EVERY`` n: only
every n-th boundary is tried. Every mode ends with a line of JSON: what was done, and what was found to be wrong.
"""

from __future__ import annotations

import itertools
import json
import random
import resource
import signal
import sqlite3
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ocm.errors import JournalFailed, StateFailed
from ocm.protocol.memory import Memory
from ocm.store.client_sqlite import SqliteState
from ocm.store.database import Connect
from ocm.store.sqlite import SqliteJournal
from ocm.store.worker import InlineWorker
from tests.store.crash import a_memo, open_journal, snapshots, whole
from tests.store.faults import Disk, disk_error
from tests.store.histories import long_history

SOUND: Final = "[('ok',)]"
_LOG_HEADER, _FRAME_HEADER = 32, 24  # of SQLite's write-ahead log (its file format, section 4.1)


@dataclass
class Book:
    """Something that is written to, and what it holds after each batch."""

    name: str
    open: Callable[[Path, Connect | None], SqliteJournal | SqliteState]
    batches: Sequence[Any]
    states: Sequence[object]

    def submit(self, one: Any, batch: Any) -> JournalFailed | StateFailed | None:
        """Write one batch; return what was told of it."""
        outcome: list[JournalFailed | StateFailed | None] = []
        one.submit(batch, outcome.append)
        (error,) = outcome
        return error


def books(seed: int) -> list[Book]:
    history = long_history(seed, deeds=40)
    chance = random.Random(seed)
    story = [[a_memo(chance) for _ in range(chance.randrange(1, 4))] for _ in range(30)]
    memories = [Memory()]
    for memos in story:
        memories.append(deepcopy(memories[-1]))
        for memo in memos:
            memories[-1].apply(memo)
    return [
        Book("journal", lambda path, connect: open_journal(path, connect=connect), history, snapshots(history)),
        Book("state", lambda path, connect: SqliteState(path, worker=InlineWorker(), connect=connect), story, memories),
    ]


def boundaries(size: int, page: int) -> Iterator[int]:
    """Where writes of a write-ahead log of ``size`` bytes begin, and places inside them."""
    yield from (0, 1, _LOG_HEADER - 1)
    for frame in range(_LOG_HEADER, size, _FRAME_HEADER + page):
        yield from (frame, frame + 1, frame + _FRAME_HEADER - 1)
        yield from (frame + _FRAME_HEADER, frame + _FRAME_HEADER + 1, frame + _FRAME_HEADER + page // 2)
    yield size


def _written(book: Book, path: Path) -> tuple[bytes, bytes]:
    """Write everything; return the file and its write-ahead log as a kill would leave them."""
    one = book.open(path, None)
    for batch in book.batches:
        assert book.submit(one, batch) is None
    left = path.read_bytes(), path.with_name(f"{path.name}-wal").read_bytes()
    one.close()
    _remove(path)
    return left


def _remove(path: Path) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


def _page(log: bytes) -> int:
    return int.from_bytes(log[8:12], "big")


# --- modes ------------------------------------------------------------------------------------------------


def limited(book: Book, folder: Path, every: int) -> dict[str, Any]:
    """Let no file grow beyond n bytes: for n at a boundary that write fails, for n inside one it tears."""
    wrong: list[str] = []
    path = folder / "book.db"
    file, log = _written(book, path)
    page = _page(log)
    first = _made(book, path)
    growing = range(first - first % page, len(file) + len(log), page)  # of the file itself, where the log goes into it
    limits = sorted({*boundaries(len(log), page), *growing, *(n + page // 2 for n in growing)})
    refused = rounds = 0
    for limit in limits[::every]:
        rounds += 1
        _made(book, path)
        one = book.open(path, None)
        written = 0
        with _no_file_above(limit):
            failure = None
            for batch in book.batches:
                failure = book.submit(one, batch)
                if failure is not None:
                    break
                written += 1
        refused += failure is not None
        if one.load() != book.states[written]:
            wrong.append(f"{book.name}, {limit} bytes: it is not what it was after the {written} batches told of")
        for batch in book.batches[written:]:
            again = book.submit(one, batch)
            if again is not None:
                wrong.append(f"{book.name}, {limit} bytes: it does not go on: {again}")
                break
        one.close()
        wrong += _look(book, path, f"{limit} bytes")
        _remove(path)
    return {"rounds": rounds, "refused": refused, "wrong": wrong}


def torn(book: Book, folder: Path, every: int) -> dict[str, Any]:
    """Cut the log of a killed process at every boundary and inside each write; sometimes there is junk behind it.

    Such a disk lied when it said that all was written. What is left is whole, and holds the first batches up to some
    place; a longer log never holds less.
    """
    wrong: list[str] = []
    path = folder / "book.db"
    file, log = _written(book, path)
    states = 0
    rounds = 0
    at_least = 0
    for cut in sorted({*boundaries(len(log), _page(log))})[::every]:
        for junk in (b"", random.Random(cut).randbytes(3000)):
            rounds += 1
            path.write_bytes(file)
            path.with_name(f"{path.name}-wal").write_bytes(log[:cut] + junk)
            one = book.open(path, None)
            held = one.load()
            one.close()
            at = next((n for n in range(at_least, len(book.states)) if book.states[n] == held), None)
            if at is None:
                wrong.append(f"{book.name}, cut at {cut}: not what it was after any number of batches from {at_least}")
            elif not junk:
                states += at > at_least
                at_least = at
            if (found := whole(path)) != SOUND:
                wrong.append(f"{book.name}, cut at {cut}: {found}")
            _remove(path)
    if every == 1 and book.states[at_least] != book.states[-1]:
        wrong.append(f"{book.name}: the whole log does not hold all")
    return {"rounds": rounds, "states": states, "wrong": wrong}


def failing(book: Book, folder: Path, every: int) -> dict[str, Any]:
    """Let the n-th statement fail, for all n: nothing of it is done, or all of it, and nobody hears so."""
    wrong: list[str] = []
    path = folder / "book.db"
    refused = rounds = 0
    for n in itertools.count(0, every):
        reached = False
        for code in (sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_FULL):
            for is_done in (False, True):
                rounds += 1
                what = f"{book.name}, statement {n}, {'done' if is_done else 'not done'}, code {code}"
                _made(book, path)
                told, found, reached = _fail_at(book, path, n, code, is_done=is_done)
                refused += told
                wrong += [f"{what}: {one}" for one in found]
                wrong += _look(book, path, what)
                _remove(path)
        if not reached:
            return {"rounds": rounds, "refused": refused, "wrong": wrong}
    raise AssertionError


def _fail_at(book: Book, path: Path, n: int, code: int, *, is_done: bool) -> tuple[int, list[str], bool]:
    """Write with a disk that fails once; return how often it was told, what is wrong, and whether it failed at all."""
    disk = Disk(error=lambda: disk_error(code))
    one = book.open(path, disk.connect)
    due = len(disk.statements) + n + 1
    disk.fails = lambda _: len(disk.statements) == due
    disk.does_it_all_the_same = is_done
    told = 0
    for place, batch in enumerate(book.batches):
        while book.submit(one, batch) is not None:
            told += 1
            if told > 3:
                one.close()
                return told, ["it does not go on"], True
            if one.load() != book.states[place]:
                one.close()
                return told, [f"after a failure it does not hold {place} batches"], True
    one.close()
    return told, [], len(disk.statements) >= due


def _made(book: Book, path: Path) -> int:
    """Make an empty one; return the size of its file."""
    book.open(path, None).close()
    return path.stat().st_size


def _look(book: Book, path: Path, what: str) -> list[str]:
    """Say what is wrong with a file into which all was written in the end."""
    found = whole(path)
    one = book.open(path, None)
    held = one.load()
    one.close()
    wrong = [] if held == book.states[-1] else [f"{book.name}, {what}: it does not hold all in the end"]
    return wrong if found == SOUND else [*wrong, f"{book.name}, {what}: {found}"]


@contextmanager
def _no_file_above(limit: int) -> Generator[None]:
    """Let no file of this process grow beyond so many bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


MODES: dict[str, Callable[[Book, Path, int], dict[str, Any]]] = {"limited": limited, "torn": torn, "failing": failing}


def main(mode: str, folder: str, seed: str, every: str = "1") -> dict[str, Any]:
    """Do a mode with a journal, then with a client's state."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    total: dict[str, Any] = {}
    for book in books(int(seed)):
        for key, value in MODES[mode](book, Path(folder), int(every)).items():
            total[key] = total[key] + value if key in total else value
    return total


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
