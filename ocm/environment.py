"""What a program takes from its surroundings: a network, what makes it secure, chance and time.

``ocm.serve`` and ``ocm.connect`` take them from the machine, unless they run inside a simulation, which hands its
own over by ``SIMULATION``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, TypeAlias

from ocm.protocol.address import Address
from ocm.store.worker import Worker
from ocm.transport.base import ClientSecurity, Network, ServerSecurity
from ocm.transport.certificate import Certificate


@dataclass(frozen=True, slots=True)
class Environment:
    """The surroundings of one server or client."""

    network: Network
    is_here: Callable[[Address], bool]
    """Whether an address is of this machine; in a simulation of any host, since there they are one machine to all."""
    randomness: Callable[[int], bytes]
    """Returns that many random bytes: what tokens are made of."""
    jitter: Callable[[], float]
    """Returns a uniform number of [0, 1), which keeps peers from doing things in step."""
    clock: Callable[[], float]
    """Returns the time of day, in seconds since 1970."""
    monotonic: Callable[[], float]
    """Returns seconds since some beginning; it never goes back, and stands still while nothing runs."""
    server_security: Callable[[Certificate | None], ServerSecurity]
    """Makes a server's streams secure with a certificate; with None, one is made."""
    client_security: Callable[[], ClientSecurity]
    """Makes a client's streams secure."""
    worker: Callable[[str], Worker]
    """Makes, by a name, what writes to disk without holding up the event loop."""


Surroundings: TypeAlias = Callable[[str], Environment]
"""Returns a new environment on the host that a server or client lives on by default."""

SIMULATION: Final[ContextVar[Surroundings | None]] = ContextVar("ocm simulation", default=None)
"""The simulation that the running program is part of."""
