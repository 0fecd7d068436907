"""Many are woken by one timer of the loop, each once and when it asked for."""

from __future__ import annotations

import asyncio
from random import Random

from ocm.server.alarms import Alarms
from tests.virtual import now_s, virtual


class Dormitory:
    """Notes who was woken when, counted from the beginning."""

    def __init__(self) -> None:
        self.began_s = now_s()
        self.woken: list[tuple[float, str]] = []
        self.alarms: Alarms[str] = Alarms(self._wake)

    def set(self, sleeper: str, in_s: float) -> None:
        self.alarms.set(sleeper, self.began_s + in_s)

    def _wake(self, sleeper: str) -> None:
        self.woken.append((round(now_s() - self.began_s, 6), sleeper))


@virtual
async def test_each_is_woken_once_at_the_earliest_time_that_was_asked_for() -> None:
    dormitory = Dormitory()
    dormitory.set("aiko", 3.0)
    dormitory.set("ben", 2.0)
    dormitory.set("aiko", 1.0)
    dormitory.set("aiko", 2.5)  # it asks again when it is woken
    await asyncio.sleep(10)
    assert dormitory.woken == [(1.0, "aiko"), (2.0, "ben")]
    dormitory.set("aiko", 11.0)
    dormitory.set("aiko", 11.0)
    await asyncio.sleep(10)
    assert dormitory.woken[2:] == [(11.0, "aiko")]


@virtual
async def test_who_is_forgotten_is_not_woken_and_may_ask_again() -> None:
    dormitory = Dormitory()
    dormitory.set("aiko", 1.0)
    dormitory.alarms.forget("aiko")
    dormitory.alarms.forget("ben")
    dormitory.set("aiko", 2.0)
    await asyncio.sleep(10)
    assert dormitory.woken == [(2.0, "aiko")]


@virtual
async def test_nobody_is_woken_behind_the_end() -> None:
    dormitory = Dormitory()
    dormitory.set("aiko", 1.0)
    dormitory.alarms.stop()
    dormitory.alarms.stop()
    await asyncio.sleep(10)
    assert dormitory.woken == []


@virtual
async def test_who_is_woken_may_ask_for_more_at_once() -> None:
    woken: list[float] = []

    def wake(sleeper: str) -> None:
        woken.append(round(now_s() - began_s, 6))
        if len(woken) < 4:
            alarms.set(sleeper, now_s() + len(woken) % 2)

    began_s = now_s()
    alarms: Alarms[str] = Alarms(wake)
    alarms.set("aiko", began_s + 1.0)
    await asyncio.sleep(10)
    assert woken == [1.0, 2.0, 2.0, 3.0]


@virtual
async def test_places_that_count_no_more_are_swept_out_and_nobody_is_missed() -> None:
    dormitory, chance = Dormitory(), Random(7)
    expected: dict[str, float] = {}
    for round_ in range(5000):
        sleeper = f"member {round_ % 40}"
        in_s = round(5.0 + chance.random() * 5.0 - round_ / 1000, 6)
        dormitory.set(sleeper, in_s)
        expected[sleeper] = min(in_s, expected.get(sleeper, in_s))
        assert len(dormitory.alarms._heap) <= 2 * 40 + 1024
    await asyncio.sleep(20)
    assert sorted(dormitory.woken) == sorted((at_s, sleeper) for sleeper, at_s in expected.items())


@virtual
async def test_places_that_count_no_more_do_not_pile_up() -> None:
    dormitory = Dormitory()
    dormitory.set("ben", 9000.0)
    for seconds in range(5000, 0, -1):
        dormitory.set("aiko", float(seconds))
    assert len(dormitory.alarms._heap) < 2000
    await asyncio.sleep(10_000)
    assert dormitory.woken == [(1.0, "aiko"), (9000.0, "ben")]
