"""Who may knock: bounds on connections that have no seat in a room yet, and on failed joins.

A connection is a ``Visit`` from its acceptance until its end. At a bound the oldest visit without a seat
goes, never the newest: an honest join takes milliseconds, so it is never the oldest.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field

from ocm.protocol.address import Address, host_key, is_loopback, network_key
from ocm.protocol.limits import Limits


@dataclass(eq=False, slots=True)
class Visit:
    """One connection, as far as admission is concerned."""

    host: bytes
    network: bytes
    is_local: bool
    quiet_until_s: float = 0.0
    """When it has been silent for too long, unless it has said something by then."""
    silent: bool = True
    seated: bool = False


@dataclass(slots=True)
class _Host:
    """What is remembered of a network's behaviour."""

    abandoned_s: deque[float] = field(default_factory=deque[float])
    failed_joins_s: deque[float] = field(default_factory=deque[float])


class Admission:
    """Counts visits and decides which go. Knows no socket: the driver closes what it is told to."""

    def __init__(self, limits: Limits) -> None:
        """Start with nobody."""
        self._limits = limits
        self._unseated: OrderedDict[Visit, None] = OrderedDict()
        self._unseated_of: Counter[bytes] = Counter()
        self._silent_of: Counter[bytes] = Counter()
        self._silent = 0
        self._hosts: OrderedDict[bytes, _Host] = OrderedDict()

    def open(self, peer: Address, *, now_s: float) -> tuple[Visit | None, list[Visit]]:
        """Let a connection in; return its visit, or None when its network is to wait, and the visits that must go."""
        visit = Visit(host_key(peer), network_key(peer), is_loopback(peer))
        limits = self._limits
        if not visit.is_local and len(self._recent(visit.network, now_s).abandoned_s) >= limits.abandoned_per_host_max:
            return None, []
        leaving: list[Visit] = []
        if not visit.is_local and self._unseated_of[visit.network] >= limits.unseated_per_host_max:
            leaving.append(next(other for other in self._unseated if other.network == visit.network))
        elif len(self._unseated) >= limits.unseated_max:
            leaving.append(next(iter(self._unseated)))
        for other in leaving:
            self.close(other, now_s=now_s)
        visit.quiet_until_s = self.quiet_until_s(visit, now_s=now_s)
        self._unseated[visit] = None
        self._unseated_of[visit.network] += 1
        self._silent_of[visit.host] += 1
        self._silent += 1
        return visit, leaving

    def quiet_until_s(self, visit: Visit, *, now_s: float) -> float:
        """When ``visit`` will have been silent for too long, were it silent from now on."""
        limits = self._limits
        long = self._silent_of[visit.host] < limits.silent_per_host_max and self._silent < limits.silent_max
        return now_s + (limits.silent_timeout_s if long else limits.silent_short_timeout_s)

    def speak(self, visit: Visit) -> None:
        """Note that the visit has sent its first byte. Idempotent."""
        if visit.silent:
            visit.silent = False
            self._silent -= 1
            _count_down(self._silent_of, visit.host)

    def seat(self, visit: Visit) -> None:
        """Note that the visit has got a seat: it counts in no bound any more. Idempotent."""
        if visit in self._unseated:
            self._forget(visit)
        visit.seated = True

    def close(self, visit: Visit, *, now_s: float) -> None:
        """Note that the visit is over; without a seat it counts as abandoned. Idempotent."""
        if visit not in self._unseated:
            return
        self._forget(visit)
        if not visit.is_local:
            _remember(self._recent(visit.network, now_s).abandoned_s, now_s, self._limits.abandoned_per_host_max)

    def join_delay_s(self, visit: Visit, *, now_s: float) -> float:
        """Return how much later a join of this network is decided, whatever comes of it: so many have failed."""
        failed = self._recent(visit.network, now_s).failed_joins_s
        return self._limits.failed_join_delay_s if len(failed) >= self._limits.failed_joins_max else 0.0

    def fail_join(self, visit: Visit, *, now_s: float) -> float:
        """Note a join that was refused; return how many seconds late to say so."""
        failed = self._recent(visit.network, now_s).failed_joins_s
        late = len(failed) >= self._limits.failed_joins_max
        _remember(failed, now_s, self._limits.failed_joins_max)
        return self._limits.failed_join_delay_s if late else 0.0

    def _forget(self, visit: Visit) -> None:
        self.speak(visit)
        del self._unseated[visit]
        _count_down(self._unseated_of, visit.network)

    def _recent(self, network: bytes, now_s: float) -> _Host:
        """Return what is remembered of ``network``, without what is too old; forget somebody if that is too much."""
        host = self._hosts.pop(network, None) or _Host()
        self._hosts[network] = host
        while len(self._hosts) > self._limits.hosts_max:
            self._hosts.popitem(last=False)
        _drop_old(host.abandoned_s, now_s - self._limits.abandoned_window_s)
        _drop_old(host.failed_joins_s, now_s - self._limits.failed_joins_window_s)
        return host


def _count_down(counter: Counter[bytes], key: bytes) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]


def _remember(times: deque[float], now_s: float, most: int) -> None:
    times.append(now_s)
    while len(times) > most:
        times.popleft()


def _drop_old(times: deque[float], before_s: float) -> None:
    while times and times[0] < before_s:
        times.popleft()
