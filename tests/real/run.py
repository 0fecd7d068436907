"""The campaigns on the real machine as a command: ``python -m tests.real.run servers --count 200``.

Each prints its figures as JSON and exits 1 when a promise was broken or a bar was missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import Final, TypeAlias

from tests.real.disks import fill_client_disks, fill_server_disks
from tests.real.kills import kill_clients, kill_servers, percentile
from tests.real.networks import Travels, blocked_from_the_start, cut_and_back, listen_and_roam, roam

Figures: TypeAlias = dict[str, object]
BACK_MAX_S: Final = 2.0
"""From a server's death until it has accepted a message of every member, where somebody starts it at once."""


async def servers(folder: Path, count: int) -> Figures:
    kills = await kill_servers(folder, count=count)
    figures = {**_spread("accepts", kills.accepts_s), **_spread("back", kills.back_s)}
    assert kills.back_s[-1] < BACK_MAX_S, f"not back in time: {figures}"
    return {"kills": count, **asdict(kills.found), **figures}


async def clients(folder: Path, count: int) -> Figures:
    return {"kills": count, **asdict(await kill_clients(folder, count=count))}


async def disks(folder: Path, count: int) -> Figures:
    (folder / "of-server").mkdir()
    (folder / "of-client").mkdir()
    server = await fill_server_disks(folder / "of-server", times=count)
    client = await fill_client_disks(folder / "of-client", times=count)
    return {"fills": count, **asdict(server.found), "settled_s": _rounded(server.settled_s), "of_client": client}


async def networks(folder: Path, count: int) -> Figures:
    figures: Figures = {}
    scenes: dict[str, Callable[[Path], Awaitable[Travels]]] = {
        "roaming": lambda where: roam(where, seconds=60.0 * count),
        "listening": listen_and_roam,
        "blocked": blocked_from_the_start,
        "cut": cut_and_back,
    }
    for name, scene in scenes.items():
        (folder / name).mkdir()
        figures[name] = asdict(await scene(folder / name))
    return figures


_CAMPAIGNS: Final[dict[str, tuple[Callable[[Path, int], Coroutine[None, None, Figures]], int]]] = {
    "servers": (servers, 200),
    "clients": (clients, 100),
    "disks": (disks, 6),
    "networks": (networks, 1),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.real.run")
    parser.add_argument("campaign", choices=list(_CAMPAIGNS))
    parser.add_argument("--count", type=int)
    options = parser.parse_args()
    campaign, count = _CAMPAIGNS[options.campaign]
    with tempfile.TemporaryDirectory(prefix="ocm-real-") as folder:
        try:
            figures = asyncio.run(campaign(Path(folder), options.count or count))
        except (AssertionError, TimeoutError):
            traceback.print_exc()
            for log in sorted(Path(folder).rglob("*.log")):
                print(f"--- {log.name}\n{log.read_text()[-2000:]}", file=sys.stderr)
            return 1
    print(json.dumps({options.campaign: figures}))
    return 0


def _spread(name: str, sorted_s: list[float]) -> Figures:
    values = {"p50": percentile(sorted_s, 0.5), "p99": percentile(sorted_s, 0.99), "max": sorted_s[-1]}
    return {f"{name}_{which}_s": round(value, 3) for which, value in values.items()}


def _rounded(values: list[float]) -> list[float]:
    return [round(value, 2) for value in values]


if __name__ == "__main__":
    sys.exit(main())
