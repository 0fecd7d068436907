"""What happens to packets under way: loss, doubling, reorder, delay, narrow links, cuts. Pure, and from a seed.

Time is whole nanoseconds, chance is counted: the fate of the n-th packet of a path is a function of the seed,
the names of the two hosts, n, and the conditions at that time. So traffic of one path never changes the fate
of another's, milder conditions lose a subset of what harsher ones lose, and no platform rounds differently.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, Literal, NamedTuple, TypeAlias

from ocm.errors import LocalProtocolError

Direction: TypeAlias = Literal["both", "up", "down"]
"""Of a host's link: ``up`` is from the host, ``down`` to it."""
Carrier: TypeAlias = Literal["udp", "tcp"]
"""What a packet belongs to: datagrams, or streams."""
CARRIERS: Final[tuple[Carrier, ...]] = ("udp", "tcp")

NS_PER_S: Final = 1_000_000_000
QUEUE_SIZE_MAX: Final = 65_536
"""Bytes that wait in front of a narrow link; what comes on top of them is lost."""
REORDER_HOLD_S: Final = 0.05
"""A packet that is overtaken is held for up to this long, plus the delay and jitter of its path."""
SAME_HOST_DELAY_NS: Final = 10_000
"""Between programs of one host."""
_DRAWS: Final = 8
"""Draws kept for each packet, so that conditions may change without moving those of the next packet."""
_LOSS, _DUPLICATE, _REORDER, _JITTER, _HOLD, _SECOND = range(6)
_MASK: Final = (1 << 64) - 1
_ONE: Final = 1 << 64


def stream_key(seed: int, *names: str) -> int:
    """Return a 64-bit key for ``draw``, different for every seed and sequence of names."""
    parts = [str(seed).encode(), *(name.encode("utf-8", "surrogatepass") for name in names)]
    framed = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return int.from_bytes(hashlib.blake2b(framed, digest_size=8).digest(), "big")


def draw(key: int, index: int) -> int:
    """Return number ``index`` of the stream ``key``: 64 uniform bits (splitmix64 of Steele, Lea and Flood, 2014)."""
    z = (key + (index + 1) * 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


class Draws:
    """A stream of chance for one purpose: the same for the same key, on every machine and Python."""

    def __init__(self, key: int) -> None:
        """Start the stream of ``stream_key``."""
        self._key = key
        self._count = 0

    def bits(self) -> int:
        """Return 64 uniform bits."""
        self._count += 1
        return draw(self._key, self._count)

    def fraction(self) -> float:
        """Return a uniform number of [0, 1)."""
        return (self.bits() >> 11) * 2.0**-53

    def data(self, size: int) -> bytes:
        """Return ``size`` uniform bytes. Not for secrets: whoever knows the seed knows them."""
        words = b"".join(self.bits().to_bytes(8, "big") for _ in range((size + 7) // 8))
        return words[:size]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """How one direction of a link treats packets.

    Raises ``LocalProtocolError`` when a value cannot be one.
    """

    loss: float = 0.0
    """Share of packets lost, 0 to 1."""
    duplicate: float = 0.0
    """Share of packets that arrive twice, 0 to 1."""
    reorder: float = 0.0
    """Share of packets held back so that later ones overtake them, 0 to 1. With 0 and without duplicates, order is
    kept: jitter alone never reorders."""
    delay_s: float = 0.0
    """Seconds every packet takes."""
    jitter_s: float = 0.0
    """Seconds that a packet takes on top of ``delay_s`` at most, uniform."""
    bandwidth: float = math.inf
    """Bytes per second; what comes faster waits in a queue of ``queue_size_max``."""
    queue_size_max: int = QUEUE_SIZE_MAX
    """Bytes that may wait for ``bandwidth``; above it packets are lost."""

    def __post_init__(self) -> None:
        for name in ("loss", "duplicate", "reorder"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise LocalProtocolError(f"{name} is a share, from 0 to 1")
        for name in ("delay_s", "jitter_s"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise LocalProtocolError(f"{name} is in seconds, not below 0")
        if not self.bandwidth >= 1.0:
            raise LocalProtocolError("bandwidth is in bytes per second, at least 1")
        if self.queue_size_max < 0:
            raise LocalProtocolError("queue_size_max is in bytes, not below 0")


PERFECT: Final = Conditions()
"""A link that takes no time and loses nothing."""
LAN: Final = Conditions(delay_s=0.001)
"""Between two hosts of which nothing else was said."""


class Outcome(Enum):
    """What becomes of a packet."""

    ARRIVES = "arrives"
    TWICE = "arrives twice"
    LOST = "lost"
    CUT = "lost: cut"
    FULL = "lost: queue full"


class Fate(NamedTuple):
    """What becomes of a packet, and when its copies arrive."""

    outcome: Outcome
    """What became of it, for a timeline."""
    arrivals_ns: tuple[int, ...]
    """When each copy arrives, in nanoseconds since the network began; none where it was lost."""


_LOST: Final = Fate(Outcome.LOST, ())
_CUT: Final = Fate(Outcome.CUT, ())
_FULL: Final = Fate(Outcome.FULL, ())


class LinkModel:
    """All links between named hosts: each host has a link up and a link down, each pair of hosts a path.

    A packet passes the link up of its sender, the path, and the link down of its receiver: losses multiply, delays
    add up, a narrow link is shared by all that passes it. Packets of a host to itself pass nothing.
    """

    def __init__(self, seed: int, *, path: Conditions = LAN) -> None:
        """Make links that are perfect but for ``path``, the conditions between any two hosts."""
        self.seed = seed
        """What decides all chance."""
        self._path = path
        self._links: dict[tuple[str, str], _Link] = {}
        self._pairs: dict[tuple[str, str], _Link] = {}
        self._cuts: set[tuple[str, str, Carrier]] = set()
        self._apart: set[tuple[str, str]] = set()
        self._paths: dict[tuple[str, str], _Path] = {}

    # --- conditions -----------------------------------------------------------------------------------

    def link(
        self,
        host: str,
        other: str | None = None,
        *,
        loss: float | None = None,
        duplicate: float | None = None,
        reorder: float | None = None,
        delay_s: float | None = None,
        jitter_s: float | None = None,
        bandwidth: float | None = None,
        queue_size_max: int | None = None,
        direction: Direction = "both",
    ) -> None:
        """Set conditions, of a host's link or of the path between two; what is not given stays (see ``Conditions``).

        ``direction`` is as seen from ``host``. Each direction has the whole delay: a round trip takes two.
        Raises ``LocalProtocolError`` when a value cannot be one.
        """
        given = {
            "loss": loss,
            "duplicate": duplicate,
            "reorder": reorder,
            "delay_s": delay_s,
            "jitter_s": jitter_s,
            "bandwidth": bandwidth,
            "queue_size_max": queue_size_max,
        }
        changes = {name: value for name, value in given.items() if value is not None}
        for link in [self._link(host, other, way) for way in _ways(direction)]:
            link.conditions = replace(link.conditions, **changes)  # type: ignore[arg-type]
        self._paths_changed()

    def conditions(self, host: str, other: str | None = None, *, direction: Literal["up", "down"] = "up") -> Conditions:
        """Return the conditions that ``link`` set, or those at first."""
        return self._link(host, other, direction).conditions

    def cut(self, host: str, *, direction: Direction = "both", only: Carrier | None = None) -> None:
        """Let nothing through from (``up``) or to (``down``) a host any more; its own programs still meet.

        With ``only`` the other carrier gets through, as in networks that block UDP.

        Raises ``LocalProtocolError`` for what is no carrier.
        """
        if only is not None and only not in CARRIERS:
            raise LocalProtocolError('only is "udp" or "tcp"')
        carriers = CARRIERS if only is None else (only,)
        self._cuts.update((host, way, carrier) for way in _ways(direction) for carrier in carriers)
        self._paths_changed()

    def heal(self, host: str | None = None) -> None:
        """Undo every cut and partition of a host, or all of them."""
        self._cuts = {cut for cut in self._cuts if host not in (None, cut[0])}
        self._apart = {pair for pair in self._apart if host is not None and host not in pair}
        self._paths_changed()

    def partition(self, group: Iterable[str], other: Iterable[str]) -> None:
        """Let nothing through between two groups of hosts, either way."""
        others = tuple(other)
        for host in group:
            self._apart.update(pair for far in others for pair in ((host, far), (far, host)))
        self._paths_changed()

    # --- packets --------------------------------------------------------------------------------------

    def is_up(self, source: str, destination: str, carrier: Carrier = "tcp") -> bool:
        """Say whether anything gets through at all."""
        return carrier not in self._fresh(source, destination).down

    def round_trip_ns(self, source: str, destination: str) -> int:
        """Return the longest that a packet and its answer take where nothing waits or is held, in nanoseconds."""
        there, back = self._fresh(source, destination), self._fresh(destination, source)
        return there.delay_ns + there.jitter_ns + back.delay_ns + back.jitter_ns

    def send(self, source: str, destination: str, size: int, *, now_ns: int, kind: str = "udp") -> Fate:
        """Decide on the next packet of ``size`` bytes from ``source`` to ``destination``.

        Args:
            source: name of the sending host.
            destination: name of the receiving host.
            size: bytes, for links with a bandwidth.
            now_ns: the time, in nanoseconds; never earlier than the last one said.
            kind: packets of one kind do not change the fate of another kind's, but where they share a narrow link.
        """
        path = self._fresh(source, destination)
        lane = path.lanes.get(kind)
        if lane is None:
            lane = path.lanes[kind] = _Lane(stream_key(self.seed, source, destination, kind))
        index = lane.count * _DRAWS
        lane.count += 1
        if kind in path.down:
            return _CUT
        at_ns = now_ns
        for link in path.narrow:
            through_ns = link.pass_on(size, at_ns)
            if through_ns is None:
                return _FULL
            at_ns = through_ns
        key = lane.key
        if path.loss and draw(key, index + _LOSS) < path.loss:
            return _LOST
        at_ns += path.delay_ns
        if path.jitter_ns:
            at_ns += path.jitter_ns * draw(key, index + _JITTER) >> 64
        if path.reorder and draw(key, index + _REORDER) < path.reorder:
            at_ns += 1 + (path.hold_ns * draw(key, index + _HOLD) >> 64)
        else:
            at_ns = lane.latest_ns = max(at_ns, lane.latest_ns)
        if path.duplicate and draw(key, index + _DUPLICATE) < path.duplicate:
            return Fate(Outcome.TWICE, (at_ns, at_ns + 1 + (path.hold_ns * draw(key, index + _SECOND) >> 64)))
        return Fate(Outcome.ARRIVES, (at_ns,))

    # --- between conditions and packets -----------------------------------------------------------------

    def _link(self, host: str, other: str | None, way: str) -> _Link:
        if other is None:
            return self._links.setdefault((host, way), _Link(PERFECT))
        ends = (host, other) if way == "up" else (other, host)
        return self._pairs.setdefault(ends, _Link(self._path))

    def _paths_changed(self) -> None:
        for path in self._paths.values():
            path.fresh = False

    def _fresh(self, source: str, destination: str) -> _Path:
        path = self._paths.get((source, destination))
        if path is None:
            path = self._paths[source, destination] = _Path()
        if not path.fresh:
            if source == destination:
                path.refresh([], down=())
                path.delay_ns = SAME_HOST_DELAY_NS if self._path.delay_s else 0
            else:
                links = (
                    self._link(source, None, "up"),
                    self._link(source, destination, "up"),
                    self._link(destination, None, "down"),
                )
                apart = (source, destination) in self._apart
                ends = (source, "up"), (destination, "down")
                down = [one for one in CARRIERS if apart or any((*end, one) in self._cuts for end in ends)]
                path.refresh(links, down=down)
        return path


class _Link:
    """One direction of a host's link, or of a path: conditions, and when the last byte that waits has gone out."""

    __slots__ = ("conditions", "free_ns")

    def __init__(self, conditions: Conditions) -> None:
        self.conditions = conditions
        self.free_ns = 0

    def pass_on(self, size: int, now_ns: int) -> int | None:
        """Return when the last byte is through; None where there is no room to wait."""
        per_1000_s = round(self.conditions.bandwidth * 1000)
        start_ns = max(now_ns, self.free_ns)
        waiting = (start_ns - now_ns) * per_1000_s // (1000 * NS_PER_S)
        if waiting and waiting + size > self.conditions.queue_size_max:
            return None
        self.free_ns = start_ns + size * 1000 * NS_PER_S // per_1000_s
        return self.free_ns


class _Lane:
    """Packets of one kind on one path."""

    __slots__ = ("count", "key", "latest_ns")

    def __init__(self, key: int) -> None:
        self.key = key
        self.count = 0
        self.latest_ns = 0


class _Path:
    """The links between two hosts as one, in numbers that are quick to compare with draws."""

    __slots__ = (
        "delay_ns", "down", "duplicate", "fresh", "hold_ns", "jitter_ns", "lanes", "loss", "narrow", "reorder",
    )  # fmt: skip

    def __init__(self) -> None:
        self.lanes: dict[str, _Lane] = {}
        self.fresh = False

    def refresh(self, links: Iterable[_Link], *, down: Iterable[str]) -> None:
        """Combine the conditions of the links; packets of the carriers that are ``down`` are lost."""
        links = tuple(links)
        several = [link.conditions for link in links]
        self.down = frozenset(down)
        self.loss = _threshold(conditions.loss for conditions in several)
        self.duplicate = _threshold(conditions.duplicate for conditions in several)
        self.reorder = _threshold(conditions.reorder for conditions in several)
        self.delay_ns = sum(round(conditions.delay_s * NS_PER_S) for conditions in several)
        self.jitter_ns = sum(round(conditions.jitter_s * NS_PER_S) for conditions in several)
        self.hold_ns = self.delay_ns + self.jitter_ns + round(REORDER_HOLD_S * NS_PER_S)
        self.narrow = tuple(link for link in links if link.conditions.bandwidth < math.inf)
        self.fresh = True


def _threshold(shares: Iterable[float]) -> int:
    """Return what 64 uniform bits are below as often as one of several things happens."""
    spared = 1.0
    for share in shares:
        spared *= 1.0 - share
    return int((1.0 - spared) * _ONE)


def _ways(direction: Direction) -> tuple[Literal["up", "down"], ...]:
    if direction not in {"both", "up", "down"}:
        raise LocalProtocolError('direction is "both", "up" or "down"')
    return ("up", "down") if direction == "both" else (direction,)
