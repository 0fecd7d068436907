"""A client's state on a disk that fails, or in a file that is not one."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from ocm.errors import StateFailed, StateLocked
from ocm.protocol.memory import Entered, Memo, Memory, Posted
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
