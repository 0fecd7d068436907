"""What every datagram port keeps beside its pipe: counts, lent slots, a line of what must wait."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from ocm.errors import LocalProtocolError, TransportClosed
from ocm.protocol.address import Address
from ocm.protocol.limits import DATAGRAM_SIZE_MAX
from ocm.transport.base import Group, PortCounters

SLOTS_MAX: Final = 64
"""Slots one port lends at once."""
SLOT_SIZE: Final = DATAGRAM_SIZE_MAX + 512
"""Bytes of a slot: the largest datagram, and room to seal it."""
BATCH_MAX: Final = 64
"""Datagrams handed to ``on_batch`` at once."""
ROUNDS_MAX: Final = 4
"""Batches read or sent before the event loop gets its turn again."""

Destination = TypeVar("Destination")
"""A fitted address in the form that the implementation's calls want."""


@dataclass(slots=True)
class Counters:
    """What a port did, since it opened (see ``PortCounters``)."""

    received: int = 0
    oversized: int = 0
    from_port_0: int = 0
    sent: int = 0
    dropped: int = 0


class LentSlot:
    """A lent buffer for one datagram (see ``Slot``)."""

    __slots__ = ("size", "to", "view")

    def __init__(self, view: memoryview) -> None:
        """Wrap a buffer."""
        self.view = view
        self.size = 0
        self.to: Address = b""


class LinePort(ABC, Generic[Destination]):
    """The part of a datagram port that does not depend on how datagrams move.

    An implementation says how datagrams are offered to the system, from slots, groups and the line, and what
    happens when some must wait (``_watch_writable``).
    """

    def __init__(self, local: Address, *, unsent_max: int) -> None:
        """Start open, with nothing waiting."""
        self.local = local
        self.counters: PortCounters = Counters()
        self.held = False
        """True while datagrams wait or the port is closed: then nothing may be sent directly."""
        self._closed = False
        self._unsent_max = unsent_max
        self._line: deque[tuple[bytes, Destination]] = deque()
        self._slots: list[LentSlot] = []
        self._lent = 0

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed

    def slots(self, count: int) -> Sequence[LentSlot]:
        """Lend up to ``count`` slots until the next ``flush`` (see ``DatagramPort.slots``)."""
        self._check_open()
        if count < 1:
            raise LocalProtocolError(f"cannot lend {count} slots")
        if self._lent == SLOTS_MAX:
            self.flush()
        first, self._lent = self._lent, min(self._lent + count, SLOTS_MAX)
        for index in range(len(self._slots), self._lent):
            self._slots.append(self._new_slot(index))
        lent = self._slots[first : self._lent]
        for slot in lent:
            slot.size = 0
        return lent

    def flush(self) -> int:
        """Send the filled slots in order; return how many datagrams wait."""
        self._check_open()
        lent, self._lent = self._lent, 0
        if lent:
            self._send_slots(lent)
        return len(self._line)

    def close(self) -> None:
        """Close; what waits is dropped. Idempotent."""
        if self._closed:
            return
        self._closed = self.held = True
        self.counters.dropped += len(self._line)
        self._line.clear()
        self._close_pipe()

    @abstractmethod
    def group(self, addresses: Sequence[Address]) -> Group:
        """Prebuild a group of addresses."""

    @abstractmethod
    def fit(self, address: Address) -> Destination | None:
        """Return the address as this port's calls want it, or None when it cannot be reached."""

    @abstractmethod
    def _send_slots(self, lent: int) -> None:
        """Send those of the first ``lent`` slots that are filled."""

    @abstractmethod
    def _drain(self) -> None:
        """Send what waits as far as the system takes it, a few batches at most: the loop stays fair."""

    @abstractmethod
    def _watch_writable(self, wanted: bool) -> None:
        """Have ``_drain`` called, or not any more, when the system may take datagrams again."""

    @abstractmethod
    def _close_pipe(self) -> None:
        """Let go of the socket and of everything registered with the loop."""

    def _new_slot(self, index: int) -> LentSlot:
        """Make slot number ``index``."""
        return LentSlot(memoryview(bytearray(SLOT_SIZE)))

    def _wait(self, payload: bytes, destination: Destination) -> None:
        """Put a datagram at the end of the line, dropping the oldest if it is full."""
        if len(self._line) >= self._unsent_max:
            self._line.popleft()
            self.counters.dropped += 1
        self._line.append((payload, destination))
        if not self.held:
            self.held = True
            self._watch_writable(True)

    def _release_if_empty(self) -> None:
        """Let datagrams go out directly again when none waits."""
        if not self._line:
            self.held = False
            self._watch_writable(False)

    def _check_open(self) -> None:
        if self._closed:
            raise TransportClosed("the port is closed")


class OneByOnePort(LinePort[Destination]):
    """A datagram port whose system takes one datagram at a time (``_offer``)."""

    def group(self, addresses: Sequence[Address]) -> Group:
        """Prebuild a group of addresses."""
        self._check_open()
        return _OneByOneGroup(self, addresses)

    def send_each(self, payload: bytes, destinations: Iterable[Destination | None]) -> None:
        """Send the same bytes to fitted destinations; None is one that cannot be reached."""
        self._check_open()
        for destination in destinations:
            if destination is None:
                self.counters.dropped += 1
            elif self.held or not self._offer(payload, destination):
                self._wait(payload, destination)

    @abstractmethod
    def _offer(self, payload: bytes, destination: Destination) -> bool:
        """Send and count one datagram, dropped if refused for good; False means: let it wait."""

    def _send_slots(self, lent: int) -> None:
        """Send those of the first ``lent`` slots that are filled."""
        for slot in self._slots[:lent]:
            if slot.size:
                self.send_each(bytes(slot.view[: slot.size]), (self.fit(slot.to),))

    def _drain(self) -> None:
        """Send what waits as far as the system takes it, a few batches at most: the loop stays fair."""
        for _ in range(min(len(self._line), BATCH_MAX * ROUNDS_MAX)):
            if not self._offer(*self._line[0]):
                return
            self._line.popleft()
        self._release_if_empty()


class _OneByOneGroup(Generic[Destination]):
    """A group of addresses that are sent to one after the other."""

    def __init__(self, port: OneByOnePort[Destination], addresses: Sequence[Address]) -> None:
        self._port = port
        self._destinations = [port.fit(address) for address in addresses]

    def send(self, payload: bytes, skip: int | None = None) -> None:
        """Send ``payload`` to every address but the one at index ``skip``."""
        if skip is None:
            self._port.send_each(payload, self._destinations)
        else:
            self._port.send_each(payload, self._destinations[:skip])
            self._port.send_each(payload, self._destinations[skip + 1 :])
