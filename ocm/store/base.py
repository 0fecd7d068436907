"""The contract of a journal: where the logs of rooms are kept. Each sentence is a test in ``tests/contracts``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from ocm.errors import JournalFailed
from ocm.protocol.entry import Entry, Record

Done: TypeAlias = Callable[[JournalFailed | None], None]


class Journal(Protocol):
    """Takes batches of records, in order, each whole or not at all.

    A batch is submitted with the sequence numbers its rooms are at, so a writer that lost its place fails
    instead of writing over another. Submitting what is in the journal already succeeds and changes nothing.
    """

    durability: str
    """What an acknowledged record survives: ``memory`` nothing, ``disk`` a kill or a loss of power."""

    def submit(self, records: Sequence[Record], done: Done) -> None:
        """Write ``records``; call ``done`` once, on the event loop, with None or with why nothing was written.

        Batches are done in the order of submission. ``done`` may be called before ``submit`` returns. After
        a failure every later batch that stands on the failed one fails too, and so does every batch that
        was submitted before ``done`` told of the failure: the hub has taken all of these back.
        """
        ...

    def read(self, room: str, incarnation: int, *, from_seq: int, count: int) -> Sequence[Entry]:
        """Return up to ``count`` entries of a room's log with ``seq >= from_seq``, oldest first.

        Entries may be missing at the front, where retention has dropped them; never in the middle.
        """
        ...

    def close(self) -> None:
        """Finish what was submitted, then close; later batches fail. Idempotent."""
        ...
