"""What is fuzzed of files: what a journal and a client's state make of a disk that gives back something else."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Generator, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from ocm.errors import JournalFailed, StateFailed
from ocm.protocol.entry import Entry, Identity, Kept, Kind, Opened, Policy, Reason, Record, Refused, Step
from ocm.protocol.limits import Limits
from ocm.protocol.link.log import encode_tail
from ocm.protocol.memory import Entered, Memo, Memory, Named, Posted, Read, Sent
from ocm.store.client_sqlite import SqliteState
from ocm.store.sqlite import SqliteJournal
from ocm.store.worker import InlineWorker
from tests.store.scratch import scratch_parent

LIMITS: Final = Limits()
PAGE_SIZE: Final = 512
"""Bytes of a page of SQLite: the smallest, so that what is written in a file is not far apart."""
DIGEST: Final = bytes(32)
SECRET: Final = b"\xff canary: 32 bytes as the others"
BODY: Final = b"\xff canary"
"""What is kept is not UTF-8, so that it cannot pass for a name."""


def journal_file(data: bytes) -> None:
    """A journal with bytes of its file changed is refused, or read and written like any other."""
    with TemporaryDirectory(dir=scratch_parent()) as folder, refusing(JournalFailed):
        path = Path(folder, "journal.db")
        path.write_bytes(changed(journal_image(), data))
        with contextlib.closing(_journal(path)) as journal:
            kept = journal.load()
            typed(kept)
            for room in kept.rooms:
                entries = journal.read(room.name, room.incarnation, from_seq=1, count=100)
                assert len(entries) <= 100
                assert all(encode_tail(entry) for entry in entries), "members can be told of it"
            outcome: list[JournalFailed | None] = []
            journal.submit([_text(4)], outcome.append)
            assert len(outcome) == 1


def typed(kept: Kept) -> None:
    """See that a journal gives back what a server can stand on."""
    members = [member for room in kept.rooms for member in room.members]
    numbers = [kept.last_incarnation]
    for room in kept.rooms:
        numbers += (room.incarnation, room.last_seq, room.oldest_seq, room.next_member, room.time_ms)
    for member in members:
        numbers += (member.id, member.mark, *(number for answer in member.answers for number in answer[:4]))
    assert {type(number) for number in numbers} == {int}
    names = [*(room.name for room in kept.rooms), *(member.name for member in members)]
    assert {type(name) for name in names} <= {str}
    secrets = [secret for identity in kept.identities for secret in (identity.client, *identity.secrets)]
    opaque = [*secrets, *(room.log_id for room in kept.rooms), *(member.door for member in members)]
    assert {type(part) for part in opaque} <= {bytes}


def state_file(data: bytes) -> None:
    """A client's state with bytes of its file changed is refused, or read and written like any other."""
    with TemporaryDirectory(dir=scratch_parent()) as folder, refusing(StateFailed):
        path = Path(folder, "state.db")
        path.write_bytes(changed(state_image(), data))
        with contextlib.closing(_state(path)) as state:
            remembered(state.load())
            outcome: list[StateFailed | None] = []
            state.submit([Posted("room", 9, 0, b"more")], outcome.append)
            assert len(outcome) == 1


def remembered(memory: Memory) -> None:
    """See that a client's state gives back what a client can stand on."""
    posted = [one for room in memory.rooms.values() for one in room.posted.values()]
    numbers = [number for room in memory.rooms.values() for number in (room.last, room.mark, room.sent_up_to)]
    assert {type(number) for number in (*numbers, *(one.message_id for one in posted))} <= {int}
    assert {type(name) for name in memory.rooms} <= {str}
    opaque = [*(memory.named or ()), *(room.log_id for room in memory.rooms.values()), *(one.body for one in posted)]
    assert {type(part) for part in opaque} <= {bytes}
    assert all(0 <= one.kind < 256 for one in posted)


@contextlib.contextmanager
def refusing(kind: type[JournalFailed | StateFailed]) -> Generator[None]:
    """Pass over a refusal that quotes nothing of what is kept."""
    try:
        yield
    except kind as error:
        told = str(error)
    else:
        told = ""
    assert "canary" not in told


def changed(image: bytes, data: bytes) -> bytes:
    """Write bytes over others: ``data`` is records of ``place(2) | byte``."""
    written = bytearray(image)
    for at in range(0, len(data) - 2, 3):
        written[int.from_bytes(data[at : at + 2], "big") % len(image)] = data[at + 2]
    return bytes(written)


# --- the files ----------------------------------------------------------------------------------------------


@cache
def journal_image() -> bytes:
    """The file of a journal that holds one of everything."""

    def write(path: Path) -> None:
        with contextlib.closing(_journal(path)) as journal:
            journal.submit(_STEPS, _went_well)

    return _image_of(write)


@cache
def state_image() -> bytes:
    """The file of a client's state that holds one of everything."""

    def write(path: Path) -> None:
        with contextlib.closing(_state(path)) as state:
            state.submit(_MEMOS, _went_well)

    return _image_of(write)


def _image_of(write: Callable[[Path], None]) -> bytes:
    with TemporaryDirectory(dir=scratch_parent()) as folder:
        path = Path(folder, "file.db")
        write(path)
        return path.read_bytes()


def _journal(path: Path) -> SqliteJournal:
    return SqliteJournal(
        path, LIMITS, clock=lambda: 1.0, monotonic=lambda: 1.0, worker=InlineWorker(), connect=_connect
    )


def _state(path: Path) -> SqliteState:
    return SqliteState(path, worker=InlineWorker(), connect=_connect)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
    return connection


def _went_well(error: Exception | None) -> None:
    assert error is None


def _text(seq: int) -> Record:
    return Record("room", 1, Entry(seq, 1, "aiko", Kind.TEXT, BODY, 5, False, seq))


_CLOSED: Final = Entry(1, 0, "", Kind.CLOSED, Reason.ENDED.encode(), 5)
_STEPS: Final[Sequence[Step]] = (
    Opened("room", 1, b"l" * 16, Policy()),
    Record("room", 1, Entry(1, 1, "aiko", Kind.JOIN, b"", 5, False), b"2" + b"c" * 16),
    Record("room", 1, Entry(2, 2, "bob", Kind.JOIN, b"", 5), b"1" + bytes(39)),
    _text(3),
    Refused("room", 1, 1, 4, 16, 5, DIGEST),
    Identity(b"c" * 16, (SECRET, b"2" * 32), 2_000_000),
    Opened("over", 2, b"m" * 16, Policy()),
    Record("over", 2, _CLOSED),
)
_MEMOS: Final[Sequence[Memo]] = (
    Named(b"c" * 16, SECRET, b"k" * 32),
    Entered("room", b"l" * 16, 3, 4),
    Posted("room", 5, 0, BODY),
    Posted("room", 6, 0, b"again"),
    Sent("room", 5),
    Read("room", 4),
)


def _over(image: Callable[[], bytes], before: bytes, after: bytes) -> bytes:
    """Return the input that writes ``after`` where ``before`` stands in a file for the last time."""
    start = image().rindex(before)
    return b"".join((start + at).to_bytes(2, "big") + after[at : at + 1] for at in range(len(after)))


# Another text; a policy or room that there is not; bytes that are text now, and bytes that are text now and no UTF-8;
# and, found by fuzzing, a declaration that is no UTF-8, which SQLite quotes.
IN_JOURNAL: Final = (
    _over(journal_image, b"canary", b"kanari"),
    _over(journal_image, b"modern", b"motern"),
    _over(journal_image, b"\x15\x08.\x01", b"\x15\x08/"),
    _over(journal_image, b"\x15\x08\x1c\x01\x08", b"\x15\x08\x1d"),
    _over(journal_image, b"KEY AUTOINCR", b"\x80"),
)
IN_STATE: Final = (
    _over(state_image, b"canary", b"kanari"),
    _over(state_image, b"room", b"rook"),
    _over(state_image, b",LL", b",LM"),
    _over(state_image, b"\x1croom\x05\xff", b"\x1d"),
    _over(state_image, b",LL", b",M"),
    _over(state_image, b"KEY (room, message_id)", b"\x80"),
)
