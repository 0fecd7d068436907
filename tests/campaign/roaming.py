"""Somebody whose address changes every two seconds, on a link that loses and doubles: how long a message takes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final

from ocm.protocol.entry import Lifetime, Policy
from ocm.protocol.events import Event, Message, Receipt
from tests.campaign.checks import Checks
from tests.campaign.world import Person, World

EVERY_S: Final = 2.0
DELAY_S: Final = 0.025
"""Each way: a round trip is 50 ms."""
RATE_PER_S: Final = 4.0
"""Messages of each of the two."""
SILENCE_MAX_S: Final = 6.0
"""The bar: from a post to its receipt, and to the other one."""
SETTLED_MAX_S: Final = 10.0
"""The bar: from the last move until everything is in the room or refused."""
_BEGIN_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Travel:
    """What came of it, in seconds."""

    to_receipt_s: float
    """The longest from a post of who travels to its receipt."""
    to_arrival_s: float
    """The longest from a post of who stays to its arrival."""


def travel(seed: int, *, seconds: float = 60.0, told: bool = False, noticed: bool = False) -> Travel:
    """Let one stay and one travel, both talking; assert that nothing is lost, and that all settles in time.

    Args:
        seed: decides all chance, and losses between 5 and 10 %.
        seconds: for how long.
        told: whether TCP connections break with each move; else they seem to be there, as they do.
        noticed: whether the client sees that its machine has another address; behind a router it does not.
    """
    world = World(seed)
    checks = Checks(world)
    host, guest = world.add("host", creates=True), world.add("guest")
    host.policy = Policy(lifetime=Lifetime.PERSIST)
    host.start()
    world.run(until_s=1.0)
    loss = 0.05 + 0.05 * world.draws.fraction()
    world.links.link(guest.name, loss=loss, duplicate=loss, delay_s=DELAY_S, jitter_s=DELAY_S / 5)
    guest.start()
    world.run(until_s=_BEGIN_S)
    phase_s = EVERY_S * world.draws.fraction()
    for number in range(int(seconds / EVERY_S)):
        world.at(_BEGIN_S + phase_s + number * EVERY_S, partial(world.move, guest.name, told=told, noticed=noticed))
    for number in range(int(seconds * RATE_PER_S)):
        for person in (host, guest):
            world.at(_BEGIN_S + number / RATE_PER_S, partial(person.post, f"{person.name} says {number}"))
    receipts, arrivals = [0.0], [0.0]

    def watch(person: Person, event: Event) -> None:
        if person is guest and isinstance(event, Receipt):
            receipts.append(world.now_s - guest.said[event.text].posted_s)
        elif person is guest and isinstance(event, Message):
            arrivals.append(world.now_s - host.said[event.text].posted_s)

    world.watchers.append(watch)
    world.run(until_s=_BEGIN_S + seconds + EVERY_S)
    checks.settle(within_s=SETTLED_MAX_S)
    world.run(until_s=world.now_s + SILENCE_MAX_S)
    checks.finish()
    return Travel(max(receipts), max(arrivals))
