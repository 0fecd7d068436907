"""Pure machines over bad links: what is sent is delivered, late, twice or never, and timers ring when they said."""

from __future__ import annotations

import hashlib

import pytest

from ocm.errors import LocalProtocolError, Stuck
from ocm.testing import Exchange, LinkModel, Machine

RESEND_S = 0.3


class Reliable:
    """Numbers what it says, says it again until it is acknowledged, hears everything once and in order."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.sources: list[str] = []
        self._said: list[bytes] = []
        self._acked = 0
        self._due_s: float | None = None
        self._out: list[bytes] = []

    def say(self, text: bytes) -> None:
        self._said.append(text)

    def receive_datagram(self, data: bytes, source: str, *, now_s: float) -> None:
        self.sources.append(source)
        number, text = int.from_bytes(data[1:5], "big"), data[5:]
        if data.startswith(b"a"):
            self._acked = max(self._acked, number)
            return
        if number == len(self.heard):
            self.heard.append(text)
        self._out.append(b"a" + len(self.heard).to_bytes(4, "big"))

    def datagrams_to_send(self, *, now_s: float) -> list[bytes]:
        out, self._out = self._out, []
        waiting = range(self._acked, len(self._said))
        if waiting and (self._due_s is None or now_s >= self._due_s):
            self._due_s = now_s + RESEND_S
            out += [b"m" + number.to_bytes(4, "big") + self._said[number] for number in waiting[:8]]
        if not waiting:
            self._due_s = None
        return out

    def next_timeout_s(self) -> float | None:
        return self._due_s

    def handle_timeout(self, *, now_s: float) -> None:
        """What is due is asked for by ``datagrams_to_send``."""


class Parrot:
    """Sends a datagram to somebody at each tick, and notes what it hears."""

    def __init__(self, to: str = "", *, every_s: float = 0.001, until_s: float = 1.0) -> None:
        self.heard: list[tuple[float, str, bytes]] = []
        self._to = to
        self._every_s = every_s
        self._until_s = until_s
        self._next_s: float | None = every_s if to else None
        self._count = 0

    def receive_datagram(self, data: bytes, source: str, *, now_s: float) -> None:
        self.heard.append((now_s, source, data))

    def datagrams_to_send(self, *, now_s: float) -> list[tuple[str, bytes]]:
        if self._next_s is None or now_s < self._next_s:
            return []
        self._count += 1
        self._next_s = now_s + self._every_s if now_s < self._until_s else None
        return [(self._to, b"%d" % self._count)]

    def next_timeout_s(self) -> float | None:
        return self._next_s

    def handle_timeout(self, *, now_s: float) -> None:
        """Time alone is enough."""


def terrible(seed: int) -> LinkModel:
    model = LinkModel(seed)
    model.link("aiko", loss=0.3, duplicate=0.2, reorder=0.3, delay_s=0.1, jitter_s=0.2)
    return model


def exchange(links: LinkModel, **machines: Machine) -> Exchange:
    made = Exchange(links)
    for name, machine in machines.items():
        made.add(name, machine)
    return made


@pytest.mark.parametrize("seed", range(20))
def test_messages_arrive_once_and_in_order_over_a_terrible_network(seed: int) -> None:
    aiko, ben = Reliable(), Reliable()
    sent = [b"message %d" % number for number in range(50)]
    for text in sent:
        aiko.say(text)
    between = exchange(terrible(seed), aiko=aiko, ben=ben)
    between.at(2, lambda: between.links.cut("ben"))
    between.at(5, between.links.heal)
    between.run(until_s=120)
    assert ben.heard == sent
    assert between.sent > between.deliveries > 100


def digest(seed: int) -> str:
    ears = {name: Parrot(to) for name, to in (("aiko", "ben"), ("ben", "aiko"), ("cho", "ben"))}
    exchange(terrible(seed), **ears).run(until_s=3)
    return hashlib.sha256(repr([ear.heard for ear in ears.values()]).encode()).hexdigest()


def test_the_same_seed_gives_the_same_run_on_every_machine_and_python() -> None:
    assert digest(7) == "c4e8504e83f06f65b9ece5d57fba72324a0036025b6f8f5f72f94746da686681"
    assert digest(8) != digest(7)


def test_a_run_in_pieces_is_the_run_as_a_whole() -> None:
    whole, pieces = Parrot(), Parrot()
    exchange(terrible(1), aiko=Parrot("ben"), ben=whole).run(until_s=3)
    in_pieces = exchange(terrible(1), aiko=Parrot("ben"), ben=pieces)
    for until_s in (0.0, 0.0005, 0.25, 0.25, 1.1, 3):
        in_pieces.run(until_s=until_s)
        assert in_pieces.now_s == until_s
    assert whole.heard == pieces.heard
    assert in_pieces.deliveries == len(whole.heard)


def test_a_moved_machine_speaks_from_a_new_address_and_is_not_reached_at_the_old_one() -> None:
    aiko, ben = Parrot("ben"), Parrot("aiko")
    between = exchange(LinkModel(1), aiko=aiko, ben=ben)
    between.at(0.5, lambda: between.move("aiko"))
    between.run(until_s=3)
    assert {source for _, source, _ in ben.heard} == {"aiko", "aiko@2"}
    assert max(at_s for at_s, _, _ in aiko.heard) <= 0.5
    between.add("cho", Parrot("aiko@2", until_s=4))
    between.run(until_s=5)
    assert aiko.heard[-1][1] == "cho"


def test_a_timer_never_rings_early() -> None:
    class Punctual(Parrot):
        def handle_timeout(self, *, now_s: float) -> None:
            due_s = self.next_timeout_s()
            assert due_s is not None
            assert now_s >= due_s

    exchange(LinkModel(1), aiko=Punctual("ben", every_s=1 / 3), ben=Parrot()).run(until_s=2)


def test_a_machine_that_wants_to_be_woken_at_once_and_for_ever_is_stuck() -> None:
    class Nervous(Parrot):
        def next_timeout_s(self) -> float | None:
            return 0.0

    with pytest.raises(Stuck, match="second 0"):
        exchange(LinkModel(1), aiko=Nervous()).run(until_s=1)


def test_mistakes_are_refused() -> None:
    between = exchange(LinkModel(1), aiko=Parrot())
    for name in ("aiko", "a@b"):
        with pytest.raises(LocalProtocolError, match="a name of its own"):
            between.add(name, Parrot())
    alone = Reliable()
    alone.say(b"to whom?")
    between.add("ben", Parrot())
    between.add("cho", alone)
    with pytest.raises(LocalProtocolError, match="needs a destination"):
        between.run(until_s=1)
