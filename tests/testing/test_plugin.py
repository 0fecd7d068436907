"""The pytest plugin: a fixture with a seed, a line that repeats a failure, and no cost to anybody else."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from ocm.testing import Network

pytest_plugins = ["pytester"]

KEPT = Network
"""Imported here too: pytester forgets what is imported inside, and there would be two of each class of ocm."""

SEEDS = """
import pytest

@pytest.mark.parametrize("letter", ["a", "b c"])
def test_seed(network, letter):
    print(f"\\nseed: {letter}={network.seed}")
    assert letter == "a"

def test_other(network):
    print(f"\\nseed: other={network.seed}")
"""
OPTIONS = ("-p", "no:cacheprovider", "-p", "no:asyncio", "-s", "-W", "error")


def seeds(result: pytest.RunResult) -> dict[str, str]:
    return dict(line.removeprefix("seed: ").split("=") for line in result.outlines if line.startswith("seed: "))


def test_seeds_come_from_that_of_the_run_and_the_name_of_the_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=SEEDS)
    first = seeds(pytester.runpytest_inprocess(*OPTIONS, "--ocm-seed", "5"))
    assert len(set(first.values())) == 3
    assert seeds(pytester.runpytest_inprocess(*OPTIONS, "--ocm-seed", "5", "-p", "no:randomly")) == first
    assert seeds(pytester.runpytest_inprocess(*OPTIONS, "--ocm-seed", "5", "-k", "other")).items() <= first.items()
    assert not set(seeds(pytester.runpytest_inprocess(*OPTIONS, "--ocm-seed", "6")).values()) & set(first.values())


def test_a_failure_prints_the_line_that_repeats_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=SEEDS)
    result = pytester.runpytest_inprocess(*OPTIONS)
    result.assert_outcomes(passed=2, failed=1)
    (line,) = (line for line in result.outlines if line.startswith("replay: "))
    found = re.fullmatch(r"replay: pytest '(test_it\.py::test_seed\[b c\])' --ocm-seed (\d+)", line)
    assert found is not None
    again = pytester.runpytest_inprocess(*OPTIONS, found[1], "--ocm-seed", found[2])
    again.assert_outcomes(failed=1)
    assert seeds(again).items() <= seeds(result).items()
    assert line in again.outlines


def test_a_failure_shows_the_end_of_the_timeline(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_it="""
        import asyncio

        def test_time(network):
            for second in range(100):
                network.at(second, network.cut, f"host{second}")
            network.run(asyncio.sleep(99.5))
            assert False
        """
    )
    result = pytester.runpytest_inprocess(*OPTIONS)
    result.stdout.re_match_lines(
        [
            r"-+ simulated network -+",
            r"replay: pytest test_it.py::test_time --ocm-seed \d+",
            r"simulated network: seed \d+, 99.500000 virtual seconds; the last 40 of 100 lines of its timeline:",
            r"60.000000  host60 +cut",
            r"99.000000  host99 +cut",
        ]
    )
    result.stdout.no_re_match_line(r".*host59")


def test_who_does_not_use_the_fixture_sees_nothing_of_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it="def test_it(): assert False")
    result = pytester.runpytest_inprocess(*OPTIONS)
    result.assert_outcomes(failed=1)
    result.stdout.no_fnmatch_line("*replay*")


def test_the_plugin_does_not_import_ocm_nor_ocm_pytest() -> None:
    for module, others in (("_ocm_pytest", "ocm"), ("ocm", "pytest ocm.testing"), ("ocm.testing", "pytest")):
        program = f"import sys, {module}; sys.exit(any(other in sys.modules for other in {others.split()!r}))"
        subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
