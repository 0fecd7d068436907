"""Rooms that do not outlive the process, in a journal that does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ocm.errors import JournalFailed
from ocm.protocol.entry import Entry, Identity, Kind, Opened, Record, Step
from ocm.protocol.limits import Limits
from ocm.store.memory import MemoryJournal


class Sorted(NamedTuple):
    """A batch, in two parts."""

    durable: list[Step]
    """What goes to the disk; of an ephemeral room only that it was opened."""
    passing: list[Step]
    """The steps of ephemeral rooms."""


class EphemeralLogs:
    """The logs of rooms whose policy is not durable. For the event loop's thread."""

    def __init__(self, limits: Limits) -> None:
        """Start without rooms."""
        self._journal = MemoryJournal(limits)
        self._closed_max = limits.rooms_max
        self._rooms: set[tuple[str, int]] = set()
        self._closed: dict[tuple[str, int], None] = {}

    def sort(self, batches: Sequence[Sequence[Step]]) -> list[Sorted]:
        """Part batches that go on from each other: all of them, or but the first, or none where not even that fits.

        A batch fits when it continues the logs of its ephemeral rooms. Behind another one that can be told only
        when that was kept.
        """
        opening: set[tuple[str, int]] = set()
        parted: list[Sorted] = []
        for steps in batches:
            one = Sorted([], [])
            for step in steps:
                if isinstance(step, Identity):
                    one.durable.append(step)
                    continue
                which = (step.room, step.incarnation)
                if isinstance(step, Opened) and not step.policy.durable:
                    opening.add(which)
                    one.durable.append(step)
                is_passing = which in opening or which in self._rooms
                (one.passing if is_passing else one.durable).append(step)
            parted.append(one)
        if self._journal.fits([step for one in parted for step in one.passing]):
            return parted
        return parted[:1] if self._journal.fits(parted[0].passing) else []

    def keep(self, steps: Sequence[Step]) -> None:
        """Keep the passing steps of one batch."""
        outcome: list[JournalFailed | None] = []
        self._journal.submit(steps, outcome.append)
        assert outcome == [None], "they were found to fit"
        for step in steps:
            if isinstance(step, Opened):
                self._rooms.add((step.room, step.incarnation))
            elif isinstance(step, Record) and step.entry.kind is Kind.CLOSED:
                self._closed[step.room, step.incarnation] = None
                if len(self._closed) > self._closed_max:
                    oldest = next(iter(self._closed))
                    del self._closed[oldest]
                    self._rooms.discard(oldest)

    def holds(self, room: str, incarnation: int) -> bool:
        """Tell whether this room is an ephemeral one."""
        return (room, incarnation) in self._rooms

    def read(self, room: str, incarnation: int, *, from_seq: int, count: int) -> Sequence[Entry]:
        """Read as ``Journal.read`` does."""
        return self._journal.read(room, incarnation, from_seq=from_seq, count=count)
