"""TCRP/2 on a simulated network: that it repeats, byte for byte, and that a bad network costs nothing but time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ocm.bench.simulate import Talk
from ocm.testing import Network
from tests.canaries import needs_unmarked

ROOT = Path(__file__).parents[2]
URL = "tcrps://[::1]:0"
PROGRAM = """
from ocm.bench.simulate import Talk
from ocm.testing import Network

network = Network(7)
talk = Talk(network, 10, loss=0.3)
network.run(talk.run("tcrps://[::1]:0"))
print(network.timeline.digest())
"""


def talked(seed: int, seconds: int) -> Talk:
    network = Network(seed)
    talk = Talk(network, seconds, loss=0.3)
    network.run(talk.run(URL))
    return talk


def test_a_minute_of_ten_on_a_terrible_network_with_a_cut_comes_whole_and_in_order(network: Network) -> None:
    talk = Talk(network, 60, loss=0.3)
    network.run(talk.run(URL))
    assert len(talk.heard) == 90
    assert all(heard == list(range(60)) for heard in talk.heard.values())


def test_the_same_seed_gives_the_same_timeline_and_another_another() -> None:
    one, other, third = (talked(seed, 5) for seed in (7, 7, 8))
    assert one.network.timeline.bytes() == other.network.timeline.bytes()
    assert one.network.timeline.digest() != third.network.timeline.digest()


@needs_unmarked
def test_the_same_seed_gives_the_same_timeline_in_every_process() -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            capture_output=True,
            check=True,
            text=True,
            cwd=ROOT,
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert digests == {talked(7, 10).network.timeline.digest() + "\n"}
