"""Nothing that was acknowledged is lost and nothing is damaged: not by kills, torn logs, or disks that are full.

What is killed and refused is in ``crash.py``, which runs in a process of its own.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.store.scratch import make_folder

ROOT = Path(__file__).parents[2]


def crash(mode: str, folder: Path, *numbers: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.store.crash", mode, str(folder), *map(str, numbers)]
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
