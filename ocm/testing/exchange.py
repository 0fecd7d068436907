"""Pure machines over bad links: no event loop, no objects of ours, only a heap of what is due."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from typing import Final, Protocol, TypeAlias

from ocm.errors import LocalProtocolError, Stuck
from ocm.transport.link_model import NS_PER_S, LinkModel

TURNS_MAX: Final = 100_000
"""Turns of one machine at one moment of time, before it must be running in circles."""

Outgoing: TypeAlias = "bytes | tuple[str, bytes]"
"""A datagram for the only other machine, or for the one of that name or address."""


class Machine(Protocol):
    """A pure machine that talks in datagrams (see ``docs`` and ``ocm.protocol``): the driver brings time and bytes."""

    def receive_datagram(self, data: bytes, source: str, *, now_s: float) -> object:
        """Take a datagram that came from ``source``, a name (``name@2`` at its second address)."""
        ...

    def datagrams_to_send(self, *, now_s: float) -> Iterable[Outgoing]:
        """Return what is to be sent now."""
        ...

    def next_timeout_s(self) -> float | None:
        """Return when ``handle_timeout`` is due; None: never, or not before something else happens."""
        ...

    def handle_timeout(self, *, now_s: float) -> object:
        """Do what is due."""
        ...


class Exchange:
    """Moves datagrams between machines over the links of a ``LinkModel``, in virtual time.

    ``exchange = Exchange(LinkModel(seed=7)); exchange.add("aiko", machine)``, then ``exchange.run(until_s=60)``. After
    whatever may have changed a machine, all it has to send is sent and its timer is armed anew. The links of
    ``exchange.links`` may be changed between runs and, by ``at``, within.
    """

    def __init__(self, links: LinkModel) -> None:
        """Begin at second 0, without machines."""
        self.links = links
        """The links, to be made better or worse."""
        self.deliveries = 0
        """Datagrams that arrived."""
        self.sent = 0
        """Datagrams that machines sent."""
        self._now_ns = 0
        self._machines: dict[str, Machine] = {}
        self._addresses: dict[str, str] = {}
        self._moves: dict[str, int] = {}
        self._armed: dict[str, int] = {}
        self._due: list[tuple[int, int, Callable[[], object] | None, str, str, bytes]] = []
        self._sequence = 0

    @property
    def now_s(self) -> float:
        """Virtual seconds since the beginning."""
        return self._now_ns / NS_PER_S

    def add(self, name: str, machine: Machine) -> None:
        """Put a machine on the host ``name``, one on each. Raises ``LocalProtocolError`` where there is one."""
        if name in self._machines or "@" in name:
            raise LocalProtocolError("each machine has a name of its own, without '@'")
        self._machines[name] = machine
        self._addresses[name] = name
        self._moves[name] = 1
        self.at(self.now_s, lambda: self.wake(name))

    def wake(self, name: str) -> None:
        """Send what a machine has to send and arm its timer: call it after you have changed the machine yourself."""
        machine = self._machines[name]
        now_ns = self._now_ns
        now_s = now_ns / NS_PER_S
        for outgoing in machine.datagrams_to_send(now_s=now_s):
            destination, data = (self._other(name), outgoing) if isinstance(outgoing, bytes) else outgoing
            self._launch(name, destination, data)
        self._arm(name, machine)

    def at(self, at_s: float, function: Callable[[], object]) -> None:
        """Call ``function`` at a moment of virtual time; at once, in the next ``run``, if that is over."""
        self._push(max(round(at_s * NS_PER_S), self._now_ns), function)

    def move(self, name: str) -> None:
        """Give a machine's host a new address, ``name@2``: what is sent to the old one is lost."""
        del self._addresses[self._address(name)]
        self._moves[name] += 1
        self._addresses[self._address(name)] = name

    def run(self, *, until_s: float) -> None:
        """Let time pass until ``until_s``, or until nothing is due.

        Raises ``Stuck`` when a machine wants to be woken again and again at one moment.
        """
        until_ns = round(until_s * NS_PER_S)
        due, turns, machines = self._due, 0, self._machines
        while due and due[0][0] <= until_ns:
            at_ns, _, action, source, destination, data = heapq.heappop(due)
            if at_ns > self._now_ns:
                self._now_ns, turns = at_ns, 0
            turns += 1
            if turns > TURNS_MAX * (1 + len(machines)):
                raise Stuck(f"no time passes at second {self.now_s:g}, yet there is always something to do")
            if action is not None:
                action()
            elif source:
                name = self._addresses.get(destination)
                if name is not None:
                    self.deliveries += 1
                    machines[name].receive_datagram(data, source, now_s=at_ns / NS_PER_S)
                    self.wake(name)
            elif self._armed.get(destination) == at_ns:
                del self._armed[destination]
                machines[destination].handle_timeout(now_s=at_ns / NS_PER_S)
                self.wake(destination)
        self._now_ns = max(self._now_ns, until_ns)

    def _launch(self, name: str, destination: str, data: bytes) -> None:
        host = destination.partition("@")[0]
        _, arrivals_ns = self.links.send(name, host, len(data), now_ns=self._now_ns)
        self.sent += 1
        source = self._address(name)
        for at_ns in arrivals_ns:
            self._push(at_ns, None, source, destination, data)

    def _push(
        self,
        at_ns: int,
        action: Callable[[], object] | None,
        source: str = "",
        destination: str = "",
        data: bytes = b"",
    ) -> None:
        self._sequence += 1
        heapq.heappush(self._due, (at_ns, self._sequence, action, source, destination, data))

    def _arm(self, name: str, machine: Machine) -> None:
        at_s = machine.next_timeout_s()
        if at_s is None:
            self._armed.pop(name, None)
            return
        at_ns = max(round(at_s * NS_PER_S), self._now_ns)
        while at_ns / NS_PER_S < at_s:  # a machine that is woken before its time would ask again for the same
            at_ns += 1
        if self._armed.get(name) != at_ns:
            self._armed[name] = at_ns
            self._push(at_ns, None, "", name)

    def _address(self, name: str) -> str:
        return name if self._moves[name] == 1 else f"{name}@{self._moves[name]}"

    def _other(self, name: str) -> str:
        others = [other for other in self._machines if other != name]
        if len(others) != 1:
            raise LocalProtocolError("among more or fewer than two machines a datagram needs a destination")
        return others[0]
