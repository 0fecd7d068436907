"""Kills journals and takes their disk away, in processes of its own; ``test_crash.py`` runs it.

    python -m tests.store.crash MODE FOLDER SEED [ROUNDS]

Children are forked, since a new interpreter for each would take minutes; so nothing here starts a thread before it
forks. Every mode ends with a line of JSON: what was done, and what was found to be wrong.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

from ocm.errors import JournalFailed
from ocm.protocol.entry import Kept
from ocm.protocol.limits import Limits
from ocm.protocol.memory import Entered, Left, Memo, Memory, Named, Posted, Read, Sent, Settled
from ocm.store.client_sqlite import SqliteState
from ocm.store.sqlite import SqliteJournal
from ocm.store.worker import InlineWorker, ThreadWorker, Worker
from tests.store.histories import Batch, folds, long_history

EPOCH_S = 1_700_000_000.0
LIMITS = Limits(room_kept_messages_max=7)
"""Few, so that entries are deleted all the time."""


def open_journal(
    path: Path, *, worker: Worker | None = None, connect: Callable[[Path], sqlite3.Connection] | None = None
) -> SqliteJournal:
    return SqliteJournal(path, LIMITS, clock=lambda: EPOCH_S, worker=worker or InlineWorker(), connect=connect)


def snapshots(history: Sequence[Batch]) -> list[Kept]:
    return list(folds(history, messages_max=LIMITS.room_kept_messages_max))


def child(work: Callable[[Callable[[int], None]], None]) -> tuple[int, int]:
    """Run ``work`` in a forked process, which is told how to say that a batch was acknowledged.

    Returns how many were, and the signal that ended the process, or 0.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reading)
            work(lambda number: _tell(writing, number))
            os._exit(0)
        except BaseException as error:
            sys.stderr.write(f"{error!r}\n")
            os._exit(1)
    os.close(writing)
    told = b""
    while part := os.read(reading, 65536):
        told += part
    os.close(reading)
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit("a child failed")
    return len(told), os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def _tell(writing: int, _: int) -> None:
    os.write(writing, b".")


def write(journal: SqliteJournal, history: Sequence[Batch], tell: Callable[[int], None]) -> None:
    """Submit a history, batch by batch; each of them must be taken."""

    def done(number: int, error: JournalFailed | None) -> None:
        assert error is None, error
        tell(number)

    for number, batch in enumerate(history):
        journal.submit(batch, partial(done, number))


def killing_before(n: int) -> Callable[[Path], sqlite3.Connection]:
    """Open connections that kill the process before the n-th statement of all of them."""
    count = itertools.count()

    def trace(_: str) -> None:
        if next(count) == n:
            os.kill(os.getpid(), signal.SIGKILL)

    def connect(path: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        connection.set_trace_callback(trace)
        return connection

    return connect


def submit(journal: SqliteJournal, batch: Batch) -> JournalFailed | None:
    """Submit one batch to a journal that tells at once; return what it told."""
    outcome: list[JournalFailed | None] = []
    journal.submit(batch, outcome.append)
    (error,) = outcome
    return error


def whole(path: Path) -> str:
    """Say what SQLite finds wrong with a file."""
    connection = sqlite3.connect(path)
    try:
        return str(connection.execute("PRAGMA integrity_check").fetchall())
    finally:
        connection.close()


def place(path: Path, kept: Sequence[Kept], acknowledged: int) -> tuple[int, str]:
    """Open a file that nobody closed; return which snapshot it holds, and what is wrong."""
    journal = open_journal(path)
    try:
        loaded = journal.load()
        entries = {
            (room.name, room.incarnation): [
                entry.seq for entry in journal.read(room.name, room.incarnation, from_seq=1, count=999)
            ]
            for room in loaded.rooms
        }
    finally:
        journal.close()
    if (found := whole(path)) != "[('ok',)]":
        return -1, f"damaged: {found}"
    for room in loaded.rooms:
        if entries[room.name, room.incarnation] != list(range(room.oldest_seq, room.last_seq + 1)):
            return -1, f"a hole in {room.name} {room.incarnation}"
    # Snapshots may be alike, where a batch changed nothing.
    at = next((n for n in range(acknowledged, len(kept)) if kept[n] == loaded), -1)
    return at, "" if at >= 0 else f"not what it was after {acknowledged} batches or later"


# --- modes ------------------------------------------------------------------------------------------------


def statements(folder: Path, seed: int) -> dict[str, Any]:
    """Kill the process before its n-th statement, for all n of a history; then write all of it again."""
    history = long_history(seed, deeds=18)
    kept = snapshots(history)
    wrong: list[str] = []
    for n in itertools.count():
        path = folder / f"{n}.db"

        def work(tell: Callable[[int], None], path: Path = path, n: int = n) -> None:
            journal = open_journal(path, connect=killing_before(n))
            write(journal, history, tell)
            journal.close()

        acknowledged, killed = child(work)
        at, problem = place(path, kept, acknowledged)
        if problem:
            wrong.append(f"statement {n}: {problem}")
        if at > acknowledged + 1:
            wrong.append(f"statement {n}: batch {at} was never submitted")
        journal = open_journal(path)
        write(journal, history, lambda _: None)
        if journal.load() != kept[-1]:
            wrong.append(f"statement {n}: not whole after it was written again")
        journal.close()
        for file in folder.iterdir():
            file.unlink()
        if not killed:
            return {"rounds": n, "batches": len(history), "wrong": wrong}
    raise AssertionError


def memories(folder: Path, seed: int) -> dict[str, Any]:
    """Kill a client before its n-th statement, for all n of a story."""
    chance = random.Random(seed)
    story = [[a_memo(chance) for _ in range(chance.randrange(1, 4))] for _ in range(12)]
    kept = [Memory()]
    for memos in story:
        kept.append(deepcopy(kept[-1]))
        for memo in memos:
            kept[-1].apply(memo)
    wrong: list[str] = []
    for n in itertools.count():
        path = folder / f"{n}.db"

        def work(tell: Callable[[int], None], path: Path = path, n: int = n) -> None:
            state = SqliteState(path, worker=InlineWorker(), connect=killing_before(n))
            for memos in story:
                state.submit(memos, lambda error: tell(0) if error is None else os._exit(1))
            state.close()

        acknowledged, killed = child(work)
        state = SqliteState(path, worker=InlineWorker())
        if state.load() not in kept[acknowledged : acknowledged + 2]:
            wrong.append(f"statement {n}: not what it was after {acknowledged} batches or one more")
        state.close()
        if (found := whole(path)) != "[('ok',)]":
            wrong.append(f"statement {n}: {found}")
        for file in folder.iterdir():
            file.unlink()
        if not killed:
            return {"rounds": n, "wrong": wrong}
    raise AssertionError


def a_memo(chance: random.Random) -> Memo:
    room, number = chance.choice("ab"), chance.randrange(20)
    return chance.choice(
        [
            Named(b"c" * 16, chance.randbytes(32), b"k" * 32),
            Entered(room, b"%016d" % (number % 2), number, number),
            Posted(room, number, 0, chance.randbytes(9)),
            Posted(room, number + 10, 0, chance.randbytes(9)),
            Sent(room, number),
            Settled(room, number),
            Read(room, number),
            Left(room) if number == 0 else Read(room, number),
        ]
    )


def kills(folder: Path, seed: int, rounds: int = 20) -> dict[str, Any]:
    """Kill a process that writes in a thread, after some acknowledgements; go on from what it left."""
    history = long_history(seed, deeds=50 * rounds)
    kept = snapshots(history)
    path = folder / "journal.db"
    chance = random.Random(seed)
    wrong: list[str] = []
    begun = done = in_the_middle = 0
    for done in range(1, rounds + 1):
        end = min(len(history), begun + _AHEAD + 25)
        acknowledged = begun + _killed_writer(path, history[begun:end], kill_after=chance.randrange(1, 25))
        at, problem = place(path, kept, acknowledged)
        if problem or at > end:
            wrong.append(f"round {done}: {problem or 'it holds what was never submitted'}")
            break
        in_the_middle += at < end
        begun = at
        if begun == len(history):
            break
    return {"rounds": done, "in the middle": in_the_middle, "batches": begun, "wrong": wrong}


_AHEAD = 75
"""Batches that are submitted beyond those after whose acknowledgement the process is killed."""


def _killed_writer(path: Path, history: Sequence[Batch], *, kill_after: int) -> int:
    """Fork a process that submits all there is, and kill it after it acknowledged so much; return how much it did."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)

        def done(error: JournalFailed | None) -> None:
            if error is not None:
                os._exit(1)
            _tell(writing, 0)
            room.release()

        room = asyncio.Semaphore(3)

        async def story() -> None:
            journal = open_journal(path, worker=ThreadWorker("journal"))
            for batch in history:
                await room.acquire()
                journal.submit(batch, done)
            await asyncio.get_running_loop().create_future()  # to be killed

        asyncio.run(story())
    os.close(writing)
    told = 0
    while told < min(kill_after, len(history)):
        if not os.read(reading, 1):
            raise SystemExit("a child failed")
        told += 1
    os.kill(pid, signal.SIGKILL)
    while part := os.read(reading, 65536):
        told += len(part)
    os.close(reading)
    os.waitpid(pid, 0)
    return told


def torn(folder: Path, seed: int) -> dict[str, Any]:
    """Cut the write-ahead log of a killed process at many places, as a disk may that lies about what it has."""
    history = long_history(seed, deeds=40)
    kept = snapshots(history)
    path = folder / "journal.db"

    def work(tell: Callable[[int], None]) -> None:
        write(open_journal(path), history, tell)
        os.kill(os.getpid(), signal.SIGKILL)

    acknowledged, _ = child(work)
    log = path.with_name(f"{path.name}-wal")
    size = log.stat().st_size
    wrong: list[str] = []
    places = [0]
    for cut in range(0, size + 2003, 2003):  # no multiple of a page
        for junk in (b"", os.urandom(3000)):
            copy = folder / "copy.db"
            shutil.copyfile(path, copy)
            copy.with_name("copy.db-wal").write_bytes(log.read_bytes()[:cut] + junk)
            try:
                at, problem = place(copy, kept, places[-1])  # a longer log never holds less
            except JournalFailed as error:
                at, problem = -1, f"cannot be opened: {error}"
            if problem:
                wrong.append(f"cut at {cut} with {len(junk)}: {problem}")
            elif not junk:
                places.append(at)
            for file in folder.glob("copy.db*"):
                file.unlink()
    if kept[places[-1]] != kept[acknowledged]:
        wrong.append("the whole log does not hold all")
    return {"rounds": len(places), "states": len(set(places)), "batches": len(history), "wrong": wrong}


def limited(folder: Path, seed: int) -> dict[str, Any]:
    """Let no file grow beyond n bytes, for many n: writes fail or tear there. Then let them grow again."""
    history = long_history(seed, deeds=60)
    kept = snapshots(history)
    wrong: list[str] = []
    refused_in_all = rounds = 0
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for limit in range(1000, 400_000, 7001):
        rounds += 1
        path = folder / f"{limit}.db"
        open_journal(path).close()

        def work(tell: Callable[[int], None], limit: int = limit, path: Path = path) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            problems = _fill(path, history, kept)
            if problems is None:
                tell(0)
            elif problems:
                raise AssertionError(problems)

        refused, _ = child(work)
        refused_in_all += refused
        at, problem = place(path, kept, len(history))
        if problem or at != len(history):
            wrong.append(f"limit {limit}: {problem}")
        for file in folder.iterdir():
            file.unlink()
    return {"rounds": rounds, "refused": refused_in_all, "wrong": wrong}


def _fill(path: Path, history: Sequence[Batch], kept: Sequence[Kept]) -> str | None:
    """Write until it fails, look what is there, take the limit away and write the rest; None: it did fail."""
    try:
        journal = open_journal(path)
    except JournalFailed:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        journal = open_journal(path)
    failure: JournalFailed | None = None
    written = 0
    for batch in history:
        if (failure := submit(journal, batch)) is not None:
            break
        written += 1
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    if journal.load() != kept[written]:
        return f"holds something else than the {written} batches that were told"
    for batch in history[written:]:
        if (again := submit(journal, batch)) is not None:
            return f"does not go on: {again}"
    journal.close()
    return "" if failure is None else None


def full(folder: Path, seed: int) -> dict[str, Any]:
    """Fill a small disk, make room on it, and go on. ``{"skip": why}`` where no disk can be mounted."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "ocm", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        return {"skip": "no small disk can be mounted here"}
    try:
        return _full(folder, long_history(seed, deeds=2000))
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _full(folder: Path, history: Sequence[Batch]) -> dict[str, Any]:
    kept = snapshots(history)
    ballast, path = folder / "ballast", folder / "journal.db"
    ballast.write_bytes(bytes(1_000_000))
    journal = open_journal(path)
    wrong: list[str] = []
    written = refused = 0
    while written < len(history):
        failure = submit(journal, history[written])
        if failure is None:
            written += 1
            continue
        refused += 1
        if "the disk is full; make room on it" not in str(failure):
            wrong.append(f"says: {failure}")
        if journal.load() != kept[written]:
            wrong.append("what was acknowledged cannot be read while the disk is full")
        if not ballast.exists():
            break
        if any(submit(journal, history[written]) is None for _ in range(3)):
            wrong.append("it takes what does not fit")
        ballast.unlink()
    journal.close()
    at, problem = place(path, kept, written)
    if problem or at != written:
        wrong.append(problem or "holds more than was told")
    return {"written": written, "refused": refused, "batches": len(history), "wrong": wrong}


MODES: dict[str, Callable[..., dict[str, Any]]] = {
    "statements": statements,
    "memories": memories,
    "kills": kills,
    "torn": torn,
    "limited": limited,
    "full": full,
}

if __name__ == "__main__":
    mode, where, *numbers = sys.argv[1:]
    print(json.dumps(MODES[mode](Path(where), *map(int, numbers))))
