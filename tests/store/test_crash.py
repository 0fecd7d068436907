"""Nothing that was acknowledged is lost and nothing is damaged: not by kills, torn logs, or disks that are full.

What is killed and refused is in ``crash.py`` and ``boundaries.py``, which run in processes of their own.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ocm.store.database import Database
from tests.store import boundaries
from tests.store.scratch import make_folder

ROOT = Path(__file__).parents[2]


def crash(mode: str, folder: Path, *numbers: int, module: str = "crash") -> dict[str, Any]:
    command = [sys.executable, "-m", f"tests.store.{module}", mode, str(folder), *map(str, numbers)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    report: dict[str, Any] = json.loads(run.stdout)
    if "skip" in report:
        pytest.skip(report["skip"])
    assert report["wrong"] == [], f"{mode} {numbers}"
    return report


@pytest.fixture
def folder() -> Iterator[Path]:
    made = make_folder()
    yield made
    shutil.rmtree(made)


def test_a_process_that_is_killed_at_any_statement_loses_nothing(folder: Path) -> None:
    assert crash("statements", folder, 1)["rounds"] > 100


def test_a_client_that_is_killed_at_any_statement_forgets_nothing(folder: Path) -> None:
    assert crash("memories", folder, 1)["rounds"] > 50


def test_a_process_that_is_killed_while_it_writes_loses_nothing(tmp_path: Path) -> None:
    report = crash("kills", tmp_path, 1)
    assert report["rounds"] > 10
    assert report["in the middle"] > 0


def test_a_log_that_was_cut_holds_the_first_batches_up_to_some_place(folder: Path) -> None:
    """Such a disk lied when it said that all was written: what is left is whole, and in the order of the commits."""
    report = crash("torn", folder, 1)
    assert report["states"] > report["batches"] / 2


def test_where_no_file_can_grow_batches_fail_and_nothing_is_damaged(folder: Path) -> None:
    report = crash("limited", folder, 1)
    assert report["refused"] > report["rounds"] / 2


def test_a_full_disk_is_told_and_when_there_is_room_it_goes_on(folder: Path) -> None:
    report = crash("full", folder, 1)
    assert report["refused"] > 0
    assert report["written"] > 20


BOUNDARIES = ["limited", "torn", "failing"]


@pytest.mark.parametrize("mode", BOUNDARIES)
def test_what_fails_or_tears_at_a_boundary_leaves_what_was_told_and_nothing_else(folder: Path, mode: str) -> None:
    """Of a server's journal and of a client's state; the campaign tries every boundary, this one each 29th."""
    report = crash(mode, folder, 1, 29, module="boundaries")
    assert report["rounds"] > 40
    assert report["states" if mode == "torn" else "refused"] > 20


@pytest.mark.parametrize("book", boundaries.books(1), ids=lambda book: book.name)
def test_who_takes_a_failed_commit_for_one_is_found(
    folder: Path, book: boundaries.Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted(self: Database, connection: sqlite3.Connection) -> None:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("COMMIT")
        self._commits += 1

    monkeypatch.setattr(Database, "_commit", planted)
    assert boundaries.failing(book, folder, 5)["wrong"]


@pytest.mark.campaign
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(2, 7))
@pytest.mark.parametrize("mode", BOUNDARIES)
def test_every_boundary(folder: Path, mode: str, seed: int) -> None:
    print(mode, seed, crash(mode, folder, seed, 1, module="boundaries"))


@pytest.mark.campaign
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(2, 12))
@pytest.mark.parametrize("mode", ["statements", "memories", "torn", "limited", "full"])
def test_with_other_histories(folder: Path, mode: str, seed: int) -> None:
    crash(mode, folder, seed)


@pytest.mark.campaign
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(2, 12))
def test_two_hundred_kills(tmp_path: Path, seed: int) -> None:
    crash("kills", tmp_path, seed, 20)
