"""What remembers: a server's journal, a client's state. Each sentence here is a test in ``tests/contracts``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from ocm.errors import JournalFailed, StateFailed
from ocm.protocol.entry import Entry, Kept, Step
from ocm.protocol.memory import Memo, Memory

Done: TypeAlias = Callable[[JournalFailed | None], None]


class Journal(Protocol):
    """Takes batches of records, in order, each whole or not at all.

    A batch is submitted with the sequence numbers its rooms are at, so a writer that lost its place fails
    instead of writing over another. Submitting what is in the journal already succeeds and changes nothing.
    """

    durability: str
    """What an acknowledged record survives: ``memory`` nothing, ``disk`` a kill or a loss of power."""

    def submit(self, records: Sequence[Step], done: Done) -> None:
        """Write ``records``; call ``done`` once, on the event loop, with None or with why nothing was written.

        Batches are done in the order of submission. ``done`` may be called before ``submit`` returns. After
        a failure every later batch that stands on the failed one fails too, and so does every batch that
        was submitted before ``done`` told of the failure: the hub has taken all of these back.
        """
        ...

    def read(self, room: str, incarnation: int, *, from_seq: int, count: int) -> Sequence[Entry]:
        """Return up to ``count`` entries of a room's log with ``seq >= from_seq``, oldest first.

        Entries may be missing at the front, where retention has dropped them; never in the middle. Raises
        ``JournalFailed`` where the journal is on a disk, and that fails.
        """
        ...

    def load(self) -> Kept:
        """Return what the journal holds, as a server needs it that starts. Raises ``JournalFailed``."""
        ...

    def close(self) -> None:
        """Finish what was submitted, then close; later batches fail. Idempotent."""
        ...


Stored: TypeAlias = Callable[[StateFailed | None], None]


class ClientState(Protocol):
    """What a client remembers over its own end: who it is, what it said whose fate it does not know, what it read.

    It belongs to one process at a time.
    """

    def load(self) -> Memory:
        """Return what is remembered. Raises ``StateFailed``."""
        ...

    def submit(self, memos: Sequence[Memo], stored: Stored) -> None:
        """Remember ``memos``, all or none; call ``stored`` once, on the event loop, in the order of submission.

        ``stored`` may be called before ``submit`` returns.
        """
        ...

    def close(self) -> None:
        """Finish what was submitted, then close and let another process have it. Idempotent."""
        ...
