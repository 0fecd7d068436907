"""The benchmarks run, and what they count is right; what they time is nobody's to assert."""

import asyncio
import json
import sys
from typing import Any

import pytest


async def run(module: str, *arguments: str) -> dict[str, Any]:
    """Run one as its users do; return the figures it prints."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"ocm.bench.{module}", *arguments), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(process.communicate(), 50)
    assert process.returncode == 0
    figures: dict[str, Any] = json.loads(out)
    return figures


async def test_a_held_load_arrives_whole() -> None:
    figures = await run("hold", "--rooms", "2", "--each", "3", "--rate", "40", "--seconds", "0.5")
    assert (figures["members"], figures["missing"], figures["exit_status"]) == (6, 0, 0)
    assert figures["heard"] == figures["due"] == 40


async def test_a_siege_gets_nothing_and_honest_peers_get_in() -> None:
    figures = await run(
        *("siege", "--junk", "400", "--slow", "5", "--silent", "4", "--silence", "0.1", "--seconds", "1")
    )
    assert (figures["bytes_back"], figures["honest_joins"]) == (0, 1)
    assert (figures["slow"], figures["slow_alive_at_end"], figures["silent_kept"]) == (5, 5, 4)


async def test_the_codecs_are_timed() -> None:
    figures = await run("codec", "--rounds", "1")
    assert all(value > 0 for value in figures.values())


@pytest.mark.parametrize("rate", ["0", "400"])
async def test_a_crowd_of_tcrp2_hears_all_that_is_said(rate: str) -> None:
    figures = await run("modern", "--rooms", "2", "--size", "3", "--rate", rate, "--window", "4", "--seconds", "0.2")
    assert figures["missing"] == 0
    assert figures["per_s"] > 0


async def test_the_simulated_network_is_timed() -> None:
    figures = await run("simulate", "--seconds", "3", "--deliveries", "1000")
    assert (figures["modern"]["heard"], figures["modern"]["heard_in_order"]) == (270, 90)
    assert 0 < figures["classic"]["heard"] < 270
    assert figures["machine_deliveries"] >= 1000
