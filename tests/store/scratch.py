"""Folders for files that a test writes: in memory where the machine has that, since no test turns the power off."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Protocol, TypeVar

_MEMORY = Path("/dev/shm")


class Closes(Protocol):
    """What has a file open."""

    def close(self) -> None: ...


C = TypeVar("C", bound=Closes)

_folders: list[Path] = []
_open: list[Closes] = []


def scratch_parent() -> str | None:
    """Where to put a temporary folder; None: where the system does."""
    return str(_MEMORY) if _MEMORY.is_dir() else None


def make_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="ocm-", dir=scratch_parent()))


def new_path(name: str) -> Path:
    """Return a path in a folder of its own, until ``tidy``."""
    _folders.append(make_folder())
    return _folders[-1] / name


def opened(one: C) -> C:
    """Have something closed by ``tidy``."""
    _open.append(one)
    return one


def tidy() -> None:
    """Close what was opened, the last first, and remove the folders."""
    while _open:
        _open.pop().close()
    while _folders:
        shutil.rmtree(_folders.pop())
