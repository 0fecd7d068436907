"""Folders for files that a test writes: in memory where the machine has that, since no test turns the power off."""

from __future__ import annotations

import tempfile
from pathlib import Path

_MEMORY = Path("/dev/shm")


def scratch_parent() -> str | None:
    """Where to put a temporary folder; None: where the system does."""
    return str(_MEMORY) if _MEMORY.is_dir() else None


def make_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="ocm-", dir=scratch_parent()))
