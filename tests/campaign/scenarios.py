"""Random stories of everything that goes wrong, each from one number: ``play(7)``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from ocm.protocol.entry import Lifetime, Policy
from ocm.transport.link_model import Direction, Draws, stream_key
from tests.campaign.checks import Checks
from tests.campaign.world import Person, World

FAULTS_S: Final = 25.0
"""How long things go wrong."""
BEGIN_S: Final = 4.0


class Story:
    """One world and what happens in it."""

    def __init__(self, number: int) -> None:
        self.world = World(number)
        self.checks = Checks(self.world)
        self.draws = Draws(stream_key(number, "story"))
        count = 3 + self.below(3)
        self.people = [self.world.add(f"m{index}", creates=index == 0) for index in range(count)]
        self.people[0].policy = Policy(lifetime=Lifetime.PERSIST)
        self.faults: list[Callable[[float], None]] = [
            self.bad_link,
            self.cut,
            self.block_udp,
            self.clog,
            self.move,
            self.move_untold,
            self.break_tls,
            self.crash_server,
            self.crash_server_between_steps,
            self.crash_client,
            self.crash_client_that_speaks,
            self.fail_journal,
            self.replay,
            self.wake,
            self.jump_clock,
            self.pause_reader,
        ]

    # --- chance -----------------------------------------------------------------------------------------

    def below(self, bound: int) -> int:
        return self.draws.bits() % bound

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.draws.fraction()

    def somebody(self) -> Person:
        return self.people[self.below(len(self.people))]

    # --- the story --------------------------------------------------------------------------------------

    def play(self) -> None:
        world = self.world
        self.people[0].start()
        world.run(until_s=BEGIN_S / 2)
        for person in self.people[1:]:
            person.start()
        world.run(until_s=BEGIN_S)
        end_s = BEGIN_S + FAULTS_S
        for person in self.people:
            self._talk(person, end_s)
        for _ in range(3 + self.below(12)):
            at_s = self.between(BEGIN_S, end_s)
            fault = self.faults[self.below(len(self.faults))]
            world.at(at_s, partial(fault, end_s))
        world.run(until_s=end_s)
        self._stop_faults()
        self.checks.settle(within_s=10.0)
        world.run(until_s=world.now_s + 5.0)
        self.checks.finish()

    def _talk(self, person: Person, end_s: float) -> None:
        at_s = BEGIN_S
        number = 0
        while (at_s := at_s + self.between(0.02, 2.0)) < end_s:
            self.world.at(at_s, partial(person.post, f"{person.name} says {number}"))
            number += 1

    def _stop_faults(self) -> None:
        world = self.world
        world.crash_in = None
        world.failing = 0
        world.udp_blocked.clear()
        world.links.heal()
        for person in self.people:
            world.links.link(person.name, loss=0.0, duplicate=0.0, reorder=0.0, jitter_s=0.0)
            for pipe in person.pipes():
                pipe.clogged = False
            person.reads = True
            if person.agent is None:
                person.start()
            else:
                person.settle()
        if not world.server.alive:
            world.run(until_s=world.now_s + 1.0)

    # --- what goes wrong --------------------------------------------------------------------------------

    def bad_link(self, end_s: float) -> None:
        self.world.links.link(
            self.somebody().name,
            loss=self.between(0.0, 0.5),
            duplicate=self.between(0.0, 0.3),
            reorder=self.between(0.0, 0.3),
            jitter_s=self.between(0.0, 0.3),
        )

    def cut(self, end_s: float) -> None:
        name = self.somebody().name
        ways: tuple[Direction, ...] = ("both", "up", "down")
        self.world.links.cut(name, direction=ways[self.below(3)])
        self.world.at(self.world.now_s + self.between(0.2, 8.0), partial(self.world.links.heal, name))

    def block_udp(self, end_s: float) -> None:
        name = self.somebody().name
        self.world.udp_blocked.add(name)
        self.world.at(self.world.now_s + self.between(0.5, 15.0), partial(self.world.udp_blocked.discard, name))

    def clog(self, end_s: float) -> None:
        for pipe in self.somebody().pipes():
            pipe.clogged = True
            self.world.at(self.world.now_s + self.between(0.5, 8.0), pipe.unclog)

    def move(self, end_s: float) -> None:
        self.world.move(self.somebody().name)

    def move_untold(self, end_s: float) -> None:
        self.world.move(self.somebody().name, told=False, noticed=True)

    def break_tls(self, end_s: float) -> None:
        for pipe in self.somebody().pipes():
            pipe.break_up()

    def crash_server(self, end_s: float) -> None:
        self.world.crash_server(self.between(0.05, 3.0))

    def crash_server_between_steps(self, end_s: float) -> None:
        self.world.crash_in = 1 + self.below(60)

    def crash_client(self, end_s: float) -> None:
        self.crash_of(self.somebody())

    def crash_client_that_speaks(self, end_s: float) -> None:
        person = self.somebody()
        if person.agent is not None:
            person.post(f"{person.name} says its last words at {self.world.now_s}")
            self.world.at(self.world.now_s + self.between(0.0, 0.008), partial(self.crash_of, person))

    def crash_of(self, person: Person) -> None:
        if person.agent is not None:
            self.checks.crash(person)
            self.world.at(self.world.now_s + self.between(0.05, 4.0), person.restart)

    def fail_journal(self, end_s: float) -> None:
        self.world.failing = 1 + self.below(3)

    def replay(self, end_s: float) -> None:
        for _ in range(1 + self.below(20)):
            self.world.at(self.world.now_s + self.between(0.0, 1.0), self.world.replay)

    def wake(self, end_s: float) -> None:
        self.somebody().wake()

    def jump_clock(self, end_s: float) -> None:
        self.world.epoch_s += self.between(-400.0, 400.0) * 86_400.0

    def pause_reader(self, end_s: float) -> None:
        person = self.somebody()
        person.reads = False
        self.world.at(self.world.now_s + self.between(0.5, 6.0), person.read_on)


def play(number: int) -> World:
    """Play the story of this number; assert that all promises were kept."""
    story = Story(number)
    story.play()
    return story.world


def crash_at(step: int | None, *, seed: int) -> World:
    """Let three people enter and talk, the server killed at one of its steps (None: at none); assert the same."""
    world = World(seed)
    checks = Checks(world)
    for number in range(3):
        person = world.add(f"m{number}", creates=number == 0)
        world.links.link(person.name, loss=0.05 * number, jitter_s=0.02)
        world.at(4.0 * bool(number), person.start)  # guests come when there is a room, killed or not
        for line in range(4):
            world.at(5.0 + 0.2 * line + 0.05 * number, partial(person.post, f"{person.name} says {line}"))
    world.people["m0"].policy = Policy(lifetime=Lifetime.PERSIST)
    world.crash_in = step
    world.run(until_s=7.0)
    assert world.crash_in is None, "there are not so many steps"
    checks.settle(within_s=10.0)
    world.run(until_s=world.now_s + 5.0)
    checks.finish()
    return world
