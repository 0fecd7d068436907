"""What a program takes from its surroundings: a network, chance and the time of day.

``ocm.serve`` and ``ocm.connect`` take them from the machine, unless they run inside a simulation, which hands its
own over by ``SIMULATION``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, TypeAlias

from ocm.transport.base import Network


@dataclass(frozen=True, slots=True)
class Environment:
    """The surroundings of one server or client."""

    network: Network
    randomness: Callable[[int], bytes]
    """Returns that many random bytes: what tokens are made of."""
    jitter: Callable[[], float]
    """Returns a uniform number of [0, 1), which keeps peers from doing things in step."""
    clock: Callable[[], float]
    """Returns the time of day, in seconds since 1970."""


Surroundings: TypeAlias = Callable[[str], Environment]
"""Returns a new environment on the host that a server or client lives on by default."""

SIMULATION: Final[ContextVar[Surroundings | None]] = ContextVar("ocm simulation", default=None)
"""The simulation that the running program is part of."""
