"""A lock has one holder, and ends with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ocm.store.filelock import FileLock, make_private

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys
from pathlib import Path
from ocm.store.filelock import FileLock

lock = FileLock(Path(sys.argv[1]))
print("locked", flush=True)
sys.stdin.read()
"""


def test_there_is_one_holder(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    with pytest.raises(BlockingIOError):
        FileLock(tmp_path / "lock")
    lock.release()
    lock.release()
    FileLock(tmp_path / "lock").release()


def test_a_process_that_is_killed_holds_it_no_more(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "lock")]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(BlockingIOError):
            FileLock(tmp_path / "lock")
        holder.kill()
        holder.wait()
        FileLock(tmp_path / "lock").release()


def test_a_lock_in_a_folder_that_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FileLock(tmp_path / "none" / "lock")


def test_a_private_file_is_for_its_owner_and_so_are_new_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    before = tmp_path.stat().st_mode
    make_private(path)
    assert [part.stat().st_mode & 0o777 for part in (path, *path.parents[:2])] == [0o600, 0o700, 0o700]
    assert tmp_path.stat().st_mode == before


def test_a_file_that_was_there_keeps_its_words_and_loses_its_readers(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("words")
    path.chmod(0o644)
    make_private(path)
    assert path.read_text() == "words"
    assert path.stat().st_mode & 0o777 == 0o600
