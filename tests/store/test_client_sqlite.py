"""A client's state on a disk that fails, or in a file that is not one."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from ocm.errors import StateFailed, StateLocked
from ocm.protocol.memory import Entered, Memo, Memory, Named, Posted
from ocm.store.client_sqlite import SqliteState
from ocm.store.worker import InlineWorker
from tests.store.faults import Disk

ENTERED: list[Memo] = [Entered("room", b"l" * 16, 1, 0)]
POSTED: list[Memo] = [Posted("room", 1, 0, b"a word")]


def submit(state: SqliteState, memos: list[Memo]) -> StateFailed | None:
    outcome: list[StateFailed | None] = []
    state.submit(memos, outcome.append)
    (error,) = outcome
    return error


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


def test_what_a_failing_disk_did_not_take_is_told_and_is_not_there(path: Path) -> None:
    disk = Disk()
    state = SqliteState(path, worker=InlineWorker(), connect=disk.connect)
    assert submit(state, ENTERED) is None
    before = state.load()
    disk.fails = lambda sql: sql == "COMMIT"
    failed = submit(state, POSTED)
    assert "state.db: the disk does not work; look into the system's log" in str(failed)
    disk.fails = lambda _: False
    assert state.load() == before
    assert submit(state, POSTED) is None
    state.close()


def test_what_cannot_be_read_is_an_error_of_ours(path: Path) -> None:
    disk = Disk()
    state = SqliteState(path, worker=InlineWorker(), connect=disk.connect)
    disk.fails = lambda sql: "FROM named" in sql
    with pytest.raises(StateFailed, match=r"the client's state .*: the disk does not work"):
        state.load()
    disk.fails = lambda _: False
    assert state.load() == Memory()
    state.close()


def test_a_newer_or_foreign_file_is_refused(path: Path) -> None:
    SqliteState(path, worker=InlineWorker()).close()
    for pragma, says in (("PRAGMA user_version = 2", "newer ocm"), ("PRAGMA application_id = 1", "another program")):
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(pragma)
        with pytest.raises(StateFailed, match=says) as refused:
            SqliteState(path, worker=InlineWorker())
        assert not isinstance(refused.value, StateLocked)


DAMAGE = {
    "a client that is a text": "UPDATE named SET client = 'me'",
    "a room that was read up to a word": "UPDATE room SET last = 'all'",
    "a count below zero": "UPDATE room SET mark = -1",
    "a message to no room": "DELETE FROM room",
    "a kind of more than a byte": "UPDATE posted SET kind = 256",
    "a body that is a number": "UPDATE posted SET body = 7",
    "no ledger": "DELETE FROM ledger",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_value_that_cannot_be_is_damage_and_never_a_traceback(path: Path, damage: str) -> None:
    state = SqliteState(path, worker=InlineWorker())
    assert submit(state, [*ENTERED, *POSTED, Named(b"c" * 16, b"1" * 32, b"k" * 32)]) is None
    state.close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        assert connection.execute(DAMAGE[damage]).rowcount
    with (
        pytest.raises(StateFailed, match=r"the client's state .*: the file is damaged"),
        contextlib.closing(SqliteState(path, worker=InlineWorker())) as again,
    ):
        again.load()


@pytest.mark.parametrize("column", ["named SET secret", "posted SET body"])
def test_what_is_told_of_damage_quotes_nothing_of_what_is_kept(path: Path, column: str) -> None:
    state = SqliteState(path, worker=InlineWorker())
    assert submit(state, [*ENTERED, *POSTED, Named(b"c" * 16, b"1" * 32, b"k" * 32)]) is None
    state.close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"UPDATE {column} = CAST(? AS TEXT)", (b"\xffcanary",))
    with (
        pytest.raises(StateFailed, match="the file is damaged") as refused,
        contextlib.closing(SqliteState(path, worker=InlineWorker())) as again,
    ):
        again.load()
    assert "canary" not in str(refused.value)
