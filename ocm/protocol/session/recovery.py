"""Loss recovery and congestion control of one direction of a session: RFC 9002 in shape, NewReno inside.

It knows packet numbers, sizes and times. What a packet carried is opaque: it is handed back when the packet was
acknowledged or lost, and whoever sent it decides what of it goes again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from ocm.protocol.wire.sealed import SEALED_SIZE_MAX

T = TypeVar("T")

PACKETS_LATER: Final = 3
"""A packet is lost when one sent so many later was acknowledged (RFC 9002 section 6.1.1)."""
TIME_THRESHOLD: Final = 9 / 8
"""... or when one sent later was, and so many round trips have passed (section 6.1.2)."""
GRANULARITY_S: Final = 0.001
ACK_DELAY_MAX_S: Final = 0.025
"""How long a receiver may hold an acknowledgement back."""
FIRST_TIMEOUT_S: Final = 1.0
"""The probe timeout before anything was measured (RFC 6298 section 2.1)."""
TIMEOUT_MAX_S: Final = 2.0
"""The longest probe timeout, however often it was doubled: a room waits for its messages."""
PROBES: Final = 2
"""Datagrams that a probe timeout sends (RFC 9002 section 6.2.4)."""
FIRST_WINDOW: Final = 10 * SEALED_SIZE_MAX
LEAST_WINDOW: Final = 4 * SEALED_SIZE_MAX
PACING_GAIN: Final = 1.25
BURST_SIZE: Final = 10 * SEALED_SIZE_MAX
"""Bytes that may leave at once."""


class RoundTrip:
    """The smoothed round-trip time (RFC 6298 section 2, RFC 9002 section 5.3)."""

    def __init__(self) -> None:
        """Start without a measurement."""
        self.smoothed_s: float | None = None
        self.variation_s = 0.0
        self.latest_s = 0.0
        self.least_s = 0.0

    def measure(self, sample_s: float, *, delay_s: float) -> None:
        """Take a sample: from sending a packet to its acknowledgement, of which ``delay_s`` were the peer's."""
        self.latest_s = sample_s
        if self.smoothed_s is None:
            self.smoothed_s, self.variation_s, self.least_s = sample_s, sample_s / 2, sample_s
            return
        self.least_s = min(self.least_s, sample_s)
        delay_s = min(delay_s, ACK_DELAY_MAX_S)
        if sample_s >= self.least_s + delay_s:  # a peer cannot make a round trip shorter than the shortest
            sample_s -= delay_s
        self.variation_s += (abs(self.smoothed_s - sample_s) - self.variation_s) / 4
        self.smoothed_s += (sample_s - self.smoothed_s) / 8

    @property
    def timeout_s(self) -> float:
        """How long to wait for an acknowledgement before probing, without back-off."""
        if self.smoothed_s is None:
            return FIRST_TIMEOUT_S
        return self.smoothed_s + max(4 * self.variation_s, GRANULARITY_S) + ACK_DELAY_MAX_S

    @property
    def loss_delay_s(self) -> float:
        """How long after sending a packet counts as lost, once a later one was acknowledged."""
        longest = max(self.smoothed_s or FIRST_TIMEOUT_S, self.latest_s)
        return max(TIME_THRESHOLD * longest, GRANULARITY_S)


class Window:
    """How many bytes may be under way (RFC 9002 section 7), and how fast they leave."""

    def __init__(self) -> None:
        """Start with ten datagrams."""
        self.size = FIRST_WINDOW
        self._threshold: int | None = None
        self._recovery_s: float | None = None
        self._credit = float(BURST_SIZE)
        self._credit_at_s: float | None = None

    def acknowledge(self, size: int, *, sent_s: float) -> None:
        """Grow, unless a loss is being recovered from."""
        if self._recovery_s is not None and sent_s <= self._recovery_s:
            return
        if self._threshold is None or self.size < self._threshold:
            self.size += size
        else:
            self.size += SEALED_SIZE_MAX * size // self.size

    def lose(self, *, sent_s: float, now_s: float) -> None:
        """Halve, once for all that was sent before."""
        if self._recovery_s is not None and sent_s <= self._recovery_s:
            return
        self._recovery_s = now_s
        self.size = self._threshold = max(self.size // 2, LEAST_WINDOW)

    def spend(self, size: int) -> None:
        """Note that a datagram left."""
        self._credit -= size

    def wait_s(self, smoothed_s: float | None, *, now_s: float) -> float:
        """Return how long the next datagram waits for its turn."""
        before_s, self._credit_at_s = self._credit_at_s, now_s
        if before_s is not None and self._credit < BURST_SIZE:
            gained = (now_s - before_s) * self._rate(smoothed_s)
            self._credit = min(self._credit + gained, BURST_SIZE)
        return 0.0 if self._credit > 0 else (1.0 - self._credit) / self._rate(smoothed_s)

    def _rate(self, smoothed_s: float | None) -> float:
        """Bytes a second."""
        return PACING_GAIN * self.size / max(smoothed_s or FIRST_TIMEOUT_S, GRANULARITY_S)


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What became of packets."""

    acknowledged: list[T] = field(default_factory=list[T])
    lost: list[T] = field(default_factory=list[T])
    probes: int = 0
    """Datagrams to send at once, whatever the window says, each with the oldest data there is."""


class Recovery(Generic[T]):
    """The packets under way in one direction. Only packets that want an acknowledgement are told to it."""

    def __init__(self) -> None:
        """Start with nothing under way."""
        self.round_trip = RoundTrip()
        self.window = Window()
        self._sent: OrderedDict[int, tuple[int, float, T]] = OrderedDict()  # size, when it was sent, content
        self._under_way = 0  # bytes
        self._largest_sent = -1
        self._largest_acknowledged = -1
        self._largest_elsewhere = -1
        self._timeouts = 0
        self._loss_s: float | None = None
        self._probe_s: float | None = None

    @property
    def timeouts_in_a_row(self) -> int:
        """Probe timeouts since the last acknowledgement."""
        return self._timeouts

    def oldest(self) -> T | None:
        """Return what the oldest packet under way carries, for a probe to carry too."""
        return next(iter(self._sent.values()))[2] if self._sent else None

    def under_way_up_to(self, largest: int) -> list[int]:
        """Return the numbers of the packets under way up to ``largest``, in descending order."""
        numbers: list[int] = []
        for number in self._sent:
            if number > largest:
                break
            numbers.append(number)
        numbers.reverse()
        return numbers

    def may_send(self, size: int) -> bool:
        """Whether the window has room for a datagram of ``size`` bytes."""
        return self._under_way + size <= self.window.size

    def wait_s(self, *, now_s: float) -> float | None:
        """Return how long the next datagram waits for its turn; None: until one under way is settled."""
        if not self.may_send(SEALED_SIZE_MAX):
            return None
        return self.window.wait_s(self.round_trip.smoothed_s, now_s=now_s)

    def send(self, number: int, size: int, content: T, *, now_s: float) -> None:
        """Note that a packet left; numbers rise."""
        self._sent[number] = size, now_s, content
        self._largest_sent = number
        self._under_way += size
        self.window.spend(size)
        # As RFC 6298 and not as RFC 9002: somebody who says a little all the time would put the probe off for ever.
        if self._probe_s is None:
            self._arm(now_s)

    def acknowledge(self, numbers: Iterable[int], *, delay_s: float, now_s: float) -> Outcome[T]:
        """Take an acknowledgement of ``numbers``, the largest first; return what it settles and what it shows lost."""
        acknowledged: list[T] = []
        largest: int | None = None
        is_used = 2 * self._under_way >= self.window.size  # one that is hardly used says nothing about the path
        for number in numbers:
            if largest is None:
                largest = number
            packet = self._sent.pop(number, None)
            if packet is None:
                continue
            size, sent_s, content = packet
            self._under_way -= size
            acknowledged.append(content)
            if number <= self._largest_elsewhere:
                continue
            if number == largest and number > self._largest_acknowledged:
                self.round_trip.measure(now_s - sent_s, delay_s=delay_s)
            if is_used:
                self.window.acknowledge(size, sent_s=sent_s)
        if largest is not None:
            self._largest_acknowledged = max(self._largest_acknowledged, largest)
        if acknowledged:
            self._timeouts = 0
        lost = self._find_lost(now_s)
        self._arm(now_s)
        return Outcome(acknowledged, lost)

    def next_timeout_s(self) -> float | None:
        """When ``handle_timeout`` has something to do; None: never."""
        return self._loss_s if self._loss_s is not None else self._probe_s

    def handle_timeout(self, *, now_s: float) -> Outcome[T]:
        """Return what is lost by now, or ask for probes."""
        if self._loss_s is not None:
            if now_s < self._loss_s:
                return Outcome()
            lost = self._find_lost(now_s)
            self._arm(now_s)
            return Outcome(lost=lost)
        if self._probe_s is None or now_s < self._probe_s:
            return Outcome()
        self._timeouts += 1
        self._arm(now_s)
        return Outcome(probes=PROBES)

    def forget(self) -> list[T]:
        """Give everything under way back: the path is another one, or is no more."""
        contents = [content for _, _, content in self._sent.values()]
        self._sent.clear()
        self._under_way = 0
        self._loss_s = self._probe_s = None
        self._timeouts = 0
        return contents

    def renew(self) -> None:
        """Forget what was learned of the path, not what is under way: it is another path (RFC 9000 section 9.4).

        What becomes of packets that went the old way says nothing about the new one.
        """
        self.round_trip = RoundTrip()
        self.window = Window()
        self._largest_elsewhere = self._largest_sent
        self._timeouts = 0

    def _find_lost(self, now_s: float) -> list[T]:
        """Take out the packets that later ones have overtaken for good; note when the next would be."""
        self._loss_s = None
        lost: list[T] = []
        delay_s = self.round_trip.loss_delay_s
        while self._sent:
            number, (size, sent_s, content) = next(iter(self._sent.items()))
            if number > self._largest_acknowledged:
                break
            due_s = sent_s + delay_s
            if number > self._largest_acknowledged - PACKETS_LATER and due_s > now_s:
                self._loss_s = due_s  # those behind it were sent later
                break
            del self._sent[number]
            self._under_way -= size
            if number > self._largest_elsewhere:
                self.window.lose(sent_s=sent_s, now_s=now_s)
            lost.append(content)
        return lost

    def _arm(self, now_s: float) -> None:
        """Store when to probe: counted from now, when something was heard or probed, or sent where nothing was."""
        if not self._sent:
            self._probe_s = None
            return
        self._probe_s = now_s + min(self.round_trip.timeout_s * 2**self._timeouts, TIMEOUT_MAX_S)
