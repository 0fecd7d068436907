"""A million deliveries over terrible links: nothing lost, doubled or out of order, and how long it takes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import Final

from ocm.protocol.limits import Limits
from tests.campaign.checks import Checks
from tests.campaign.world import Person, World

MEMBERS: Final = 8
RATE_PER_S: Final = 8.0
"""Messages of each member per second."""


@dataclass(frozen=True, slots=True)
class Link:
    """How every member's link treats packets, in each direction."""

    loss: float
    delay_s: float
    jitter_s: float
    duplicate: float = 0.1
    reorder: float = 0.2


TERRIBLE: Final = Link(loss=0.3, delay_s=0.0, jitter_s=0.2)
"""With two such links between members, a packet that is not lost takes up to 0.9 s."""
BAD: Final = Link(loss=0.1, delay_s=0.01, jitter_s=0.03, reorder=0.02)
FAIR: Final = Link(loss=0.01, delay_s=0.01, jitter_s=0.03, reorder=0.02)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to."""

    deliveries: int
    p50_s: float
    p99_s: float
    virtual_s: float
    datagrams: int


def deliver(link: Link, *, seed: int, deliveries: int, members: int = MEMBERS) -> Outcome:
    """Let everybody talk until so many deliveries were made; assert that all of them are right."""
    world = World(seed, limits=Limits(room_log_messages_max=4096, room_log_size_max=2**24))
    checks = Checks(world)
    people = [world.add(f"m{number}", creates=number == 0) for number in range(members)]
    people[0].start()
    world.run(until_s=2.0)
    for person in people[1:]:
        person.start()
    world.run(until_s=6.0)
    for person in people:
        world.links.link(person.name, **asdict(link))
    rounds = deliveries // (members * members) + 1
    for number, person in enumerate(people):
        _talk(world, person, rounds, first_s=6.0 + number / (RATE_PER_S * members))
    world.run(until_s=6.0 + rounds / RATE_PER_S)
    checks.settle(within_s=60.0)
    _read_out(world, checks, rounds * members)
    checks.finish()
    delays = sorted(checks.delays_s)
    return Outcome(
        checks.deliveries, delays[len(delays) // 2], delays[len(delays) * 99 // 100], world.now_s, world.datagrams
    )


def _talk(world: World, person: Person, rounds: int, *, first_s: float) -> None:
    """Have somebody say something again and again."""

    def say(number: int) -> None:
        assert person.post(f"{person.name} says {number}"), "it has something to say, and nobody minds"
        if number + 1 < rounds:
            world.at(first_s + (number + 1) / RATE_PER_S, partial(say, number + 1))

    world.at(first_s, partial(say, 0))


def _read_out(world: World, checks: Checks, said: int) -> None:
    """Wait until everybody has read everything."""
    owed = said * len(world.people)
    deadline_s = world.now_s + 60.0
    while checks.deliveries < owed and world.now_s < deadline_s:
        world.run(until_s=world.now_s + 1.0)
