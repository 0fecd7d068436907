"""A lock that a process holds on a file and loses when it ends, however it ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path


class FileLock:
    """The lock on one file, which is made where it is missing and never removed: nothing is written into it."""

    def __init__(self, path: Path) -> None:
        """Take the lock. Raises ``BlockingIOError`` when somebody has it, other ``OSError`` when it cannot be had."""
        self._descriptor: int | None = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(self._descriptor)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let somebody else have it. Idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(*error.args) from None

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def make_private(path: Path) -> None:
    """Make sure that the file ``path`` is there and that nobody but its owner may read it; so for new folders above."""
    for folder in reversed(path.parents):
        folder.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if sys.platform != "win32":
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
