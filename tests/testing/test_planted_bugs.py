"""A bug that no good network shows is found by a short test with the fixture, and a program without it passes.

Each test below is written as a user would, in a file of its own, and run by pytest over a few seeds.
"""

from __future__ import annotations

import pytest

from tests.testing import programs

pytest_plugins = ["pytester"]

KEPT = programs
"""Imported here too: pytester forgets what is imported inside, and there would be two of each class of ocm."""

NO_RETRY = """
import pytest
from tests.testing import programs

@pytest.mark.parametrize("run", range(8))
def test_the_robot_gets_its_task(network, run):
    network.link("robot", loss=0.2)
    assert network.run(programs.robot(programs.{ask})) == "paint"
"""
LOST_ON_RECONNECT = """
from tests.testing import programs

def test_the_viewer_sees_the_last_score(network):
    network.at(19, network.cut, "viewer")
    network.at(20, network.move, "viewer")
    network.at(25, network.heal, "viewer")
    assert network.run(programs.scoreboard(repeat={repeat})) == "5"
"""
ORDER_ASSUMED = """
import pytest
from tests.testing import programs

@pytest.mark.parametrize("run", range(8))
def test_the_screen_shows_the_picture(network, run):
    network.link("screen", reorder=0.3)
    assert network.run(programs.picture(numbered={numbered})) == "CHEESE"
"""


@pytest.mark.parametrize(
    ("test", "wrong", "right"),
    [
        (NO_RETRY, {"ask": "ask_once"}, {"ask": "ask_again"}),
        (LOST_ON_RECONNECT, {"repeat": False}, {"repeat": True}),
        (ORDER_ASSUMED, {"numbered": False}, {"numbered": True}),
    ],
    ids=["no retry", "lost on reconnect", "order assumed"],
)
def test_a_planted_bug_is_found(
    pytester: pytest.Pytester, test: str, wrong: dict[str, object], right: dict[str, object]
) -> None:
    assert len(test.strip().splitlines()) <= 15
    pytester.makepyfile(test_wrong=test.format(**wrong), test_right=test.format(**right))
    options = ("-p", "no:randomly", "--ocm-seed", "1", "-p", "no:cacheprovider", "-p", "no:asyncio")
    found = pytester.runpytest_inprocess(*options, "test_wrong.py")
    assert found.ret == pytest.ExitCode.TESTS_FAILED
    found.stdout.fnmatch_lines(["replay: pytest *test_wrong.py::test_* --ocm-seed 1", "simulated network: seed *"])
    fine = pytester.runpytest_inprocess(*options, "test_right.py")
    assert fine.ret == pytest.ExitCode.OK
