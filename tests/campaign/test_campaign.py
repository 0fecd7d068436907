"""Server and clients as pure machines, with the real codec and cipher, on links that lose, double, delay, reorder."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

import pytest

from tests.campaign.deliveries import BAD, FAIR, TERRIBLE, Link, deliver
from tests.campaign.roaming import SILENCE_MAX_S, travel
from tests.campaign.run import LINKS
from tests.campaign.scenarios import crash_at, play


@pytest.mark.parametrize("number", range(1, 13))
def test_a_story_of_faults_keeps_every_promise(number: int) -> None:
    play(number)


@pytest.mark.parametrize("link", [TERRIBLE, BAD, FAIR], ids=list(LINKS))
def test_everybody_hears_everything_once_and_in_order(link: Link) -> None:
    assert deliver(link, seed=7, deliveries=3000).deliveries >= 3000


def test_a_run_is_the_same_every_time() -> None:
    one, other = (deliver(TERRIBLE, seed=3, deliveries=500) for _ in range(2))
    assert one == other


@contextlib.contextmanager
def repeated_by(command: str) -> Generator[None]:
    """Say with a failure how to see it again."""
    try:
        yield
    except Exception as error:
        error.add_note(f"again: python -m tests.campaign.run {command}")
        raise


STEPS = {"receive", "append", "before the commit", "after the commit", "release", "send"}


def steps_before_the_end(seed: int) -> range:
    """Return the steps of a server that is not killed, in four fifths of its time."""
    steps = crash_at(None, seed=seed).steps
    assert set(steps) == STEPS
    return range(1, sum(steps.values()) * 4 // 5)


@pytest.mark.parametrize("part", range(5))
def test_a_server_that_is_killed_between_two_steps_loses_nothing(part: int) -> None:
    for step in steps_before_the_end(seed=1)[part::15]:
        assert crash_at(step, seed=1).crashes == 1


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(1, 21))
def test_a_server_that_is_killed_between_any_two_steps_loses_nothing(seed: int) -> None:
    steps = steps_before_the_end(seed)
    for step in steps:
        assert crash_at(step, seed=seed).crashes == 1
    print(f"killed at each of {len(steps)} steps")


@pytest.mark.campaign
@pytest.mark.parametrize("links", list(LINKS))
def test_a_million_deliveries(links: str) -> None:
    link, p50_s, p99_s = LINKS[links]
    count = 1_000_000 if links == "terrible" else 200_000
    with repeated_by(f"deliveries --seed 1 --count {count} --links {links}"):
        outcome = deliver(link, seed=1, deliveries=count)
        assert p50_s is None or outcome.p50_s < p50_s
        assert outcome.p99_s < p99_s


@pytest.mark.campaign
@pytest.mark.parametrize("twenty", range(10))
def test_two_hundred_minutes_of_roaming(twenty: int) -> None:
    for number in range(20 * twenty + 1, 20 * twenty + 21):
        travelled = travel(number, told=number % 2 == 0)
        longest_s = max(travelled.to_receipt_s, travelled.to_arrival_s)
        assert longest_s < SILENCE_MAX_S, f"again: python -m tests.campaign.run roaming --seed {number} --count 1"


@pytest.mark.campaign
@pytest.mark.parametrize("hundred", range(10))
def test_a_thousand_stories(hundred: int) -> None:
    for number in range(100 * hundred + 1, 100 * hundred + 101):
        with repeated_by(f"scenarios --seed {number} --count 1"):
            play(number)
