"""What a client remembers in memory: nothing after the process."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

from ocm.errors import StateFailed
from ocm.protocol.memory import Memo, Memory
from ocm.store.base import Stored


class MemoryState:
    """The state of a client that begins anew each time."""

    def __init__(self) -> None:
        """Remember nothing."""
        self._memory = Memory()
        self._is_open = True

    def load(self) -> Memory:
        """Return what is remembered, for the caller to keep. Raises ``StateFailed`` after ``close``."""
        if not self._is_open:
            raise StateFailed("the client's state is closed")
        return deepcopy(self._memory)

    def submit(self, memos: Sequence[Memo], stored: Stored) -> None:
        """Remember at once, and say so at once."""
        if not self._is_open:
            stored(StateFailed("the client's state is closed"))
            return
        for memo in memos:
            self._memory.apply(memo)
        stored(None)

    def close(self) -> None:
        """Take nothing more."""
        self._is_open = False
