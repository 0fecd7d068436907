"""Ages grow by an hour in an hour at most, whatever the time of day says."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocm.store.ages import AgeClock

YEAR_S = 365 * 86_400.0


@dataclass
class Clocks:
    """A time of day that can be set, and a clock that only runs."""

    day_s: float = 1_700_000_000.0
    running_s: float = 1000.0

    def age_clock(self, aged_s: float = 0.0) -> AgeClock:
        return AgeClock(lambda: self.day_s, lambda: self.running_s, aged_s=aged_s)

    def pass_s(self, seconds: float) -> None:
        self.day_s += seconds
        self.running_s += seconds


def test_it_goes_on_from_where_it_was() -> None:
    clocks = Clocks()
    ages = clocks.age_clock(500.0)
    clocks.pass_s(60)
    assert ages.now_s() == pytest.approx(560)


def test_a_clock_a_year_ahead_and_back_changes_nothing() -> None:
    clocks = Clocks()
    ages = clocks.age_clock()
    clocks.day_s += YEAR_S
    assert ages.now_s() == 0
    clocks.pass_s(60)
    assert ages.now_s() == pytest.approx(60)
    clocks.day_s -= YEAR_S
    assert ages.now_s() == pytest.approx(60)
    clocks.pass_s(60)
    assert ages.now_s() == pytest.approx(120)


def test_a_day_asleep_counts_for_nothing() -> None:
    clocks = Clocks()
    ages = clocks.age_clock()
    clocks.day_s += 86_400
    clocks.pass_s(5)
    assert ages.now_s() == pytest.approx(5)


def test_a_clock_that_is_set_back_stands_until_it_is_asked_again() -> None:
    clocks = Clocks()
    ages = clocks.age_clock()
    clocks.running_s += 60
    clocks.day_s -= 3600
    assert ages.now_s() == 0


@pytest.mark.parametrize(("in_s", "lives_s"), [(3600, 3600), (-5, 0)])
def test_a_time_of_day_becomes_an_age(in_s: float, lives_s: float) -> None:
    clocks = Clocks()
    ages = clocks.age_clock(100.0)
    clocks.day_s += YEAR_S  # wrong, but so is the time that is asked for
    clocks.running_s += 10
    until_ms = int((clocks.day_s + in_s) * 1000)
    assert ages.age_at_ms(until_ms) == pytest.approx(110 + lives_s)


@given(st.lists(st.tuples(st.floats(-1e9, 1e9), st.floats(0, 1e6)), max_size=20))
def test_ages_never_fall_and_never_outrun_the_running_clock(steps: list[tuple[float, float]]) -> None:
    clocks = Clocks()
    ages = clocks.age_clock()
    before, started_s = 0.0, clocks.running_s
    for day_s, running_s in steps:
        clocks.day_s += day_s
        clocks.running_s += running_s
        assert before <= (before := ages.now_s()) <= clocks.running_s - started_s + 1e-3
