"""What happened on a simulated network, in an order and a wording that is the same on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from ocm.transport.link_model import NS_PER_S

EVENTS_MAX: Final = 1_000_000
"""Happenings kept; later ones are counted only."""
_DIGEST_SIZE: Final = 3


@dataclass(slots=True)
class Happening:
    """One packet, or one change of the network. It never holds what the packet said: a size and a short digest."""

    time_ns: int
    """When, in nanoseconds since the network began."""
    source: str
    """The sending program, ``host:port``; the host for a change of the network."""
    destination: str
    """The program it is for, ``host:port``; empty for a change of the network."""
    kind: str
    """``udp``; ``tcp`` and what it is: open, accept, data, end, reset; or ``cut``, ``heal``, ``link``, ``move``, ..."""
    outcome: str
    """``arrives``, ``arrives twice``, ``lost``, ``lost: cut``, ``lost: queue full``, ``nobody there``; details of a
    change."""
    size: int = 0
    """Bytes of payload."""
    digest: str = ""
    """Six hex digits that are the same for the same payload."""
    arrivals_ns: tuple[int, ...] = ()
    """When it arrives, in nanoseconds since the network began."""
    rank: int = field(default=0, repr=False)
    """Which of those between the same two programs, in the order they were sent."""

    @property
    def time_s(self) -> float:
        """When, in seconds since the network began."""
        return self.time_ns / NS_PER_S

    @property
    def is_lost(self) -> bool:
        """Whether nobody got it."""
        return self.outcome.startswith(("lost", "nobody"))

    def cells(self) -> tuple[str, str, str, str, str, str]:
        """Return the columns of its line: time, from, to, kind, what, outcome."""
        arrow = f"-> {self.destination}" if self.destination else ""
        what = f"{self.size} B {self.digest}" if self.digest else ""
        when = " and ".join(_seconds(at_ns) for at_ns in self.arrivals_ns)
        return _seconds(self.time_ns), self.source, arrow, self.kind, what, f"{self.outcome} {when}".rstrip()


class Timeline:
    """What happened, oldest first: iterate over it, ``print`` it, or compare its ``bytes()`` with another run's."""

    def __init__(self, *, events_max: int = EVENTS_MAX) -> None:
        """Start empty."""
        self._events_max = events_max
        self._happenings: list[Happening] = []
        self._ranks: dict[tuple[str, str], int] = {}
        self._sorted = 0
        self.missed = 0
        """Happenings above the bound."""

    def add(self, happening: Happening) -> None:
        """Take one; its ``rank`` is set here."""
        if len(self._happenings) >= self._events_max:
            self.missed += 1
            return
        ends = happening.source, happening.destination
        happening.rank = self._ranks[ends] = self._ranks.get(ends, 0) + 1
        self._happenings.append(happening)

    def __len__(self) -> int:
        """Return how many are kept."""
        return len(self._happenings)

    def __iter__(self) -> Iterator[Happening]:
        """Go through them, oldest first; those of one moment by who sent them."""
        return iter(self._ordered())

    def of(self, host: str) -> list[Happening]:
        """Return those from or to a host."""
        return [one for one in self._ordered() if host in (_host(one.source), _host(one.destination))]

    def tail(self, count: int) -> str:
        """Return the text of the last ``count``."""
        return _table(self._ordered()[-count:] if count > 0 else [])

    def text(self) -> str:
        """Return a line for each, in aligned columns: seconds, from, to, kind, size and digest, what became of it."""
        missed = f"... and {self.missed} more, not kept\n" if self.missed else ""
        return _table(self._ordered()) + missed

    def __str__(self) -> str:
        """Return ``text()``."""
        return self.text()

    def bytes(self) -> bytes:
        """Return the text in UTF-8: the same for the same seed and program, on every machine and Python."""
        return self.text().encode("utf-8", "backslashreplace")

    def digest(self) -> str:
        """Return the SHA-256 of ``bytes()``, in hex."""
        return hashlib.sha256(self.bytes()).hexdigest()

    def _ordered(self) -> list[Happening]:
        if self._sorted != len(self._happenings):
            self._happenings.sort(key=lambda one: (one.time_ns, one.source, one.destination, one.rank))
            self._sorted = len(self._happenings)
        return self._happenings


def payload_digest(data: bytes) -> str:
    """Return six hex digits: enough to follow a payload, too little to guess it from."""
    return hashlib.blake2s(data, digest_size=_DIGEST_SIZE).hexdigest()


def _host(program: str) -> str:
    return program.rpartition(":")[0].partition("@")[0] if ":" in program else program


def _seconds(time_ns: int) -> str:
    micros = time_ns // 1000
    return f"{micros // 1_000_000}.{micros % 1_000_000:06d}"


def _table(happenings: list[Happening]) -> str:
    rows = [one.cells() for one in happenings]
    widths = [max((len(cell) for cell in column), default=0) for column in zip(*rows, strict=True)]
    lines: list[str] = []
    for row in rows:
        time, *others = row
        cells = [time.rjust(widths[0]), *(cell.ljust(width) for cell, width in zip(others, widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip() + "\n")
    return "".join(lines)
