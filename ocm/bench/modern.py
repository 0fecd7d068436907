"""What TCRP/2 costs a server, with members that cost less than it does: ``python -m ocm.bench.modern``.

Server and members run on a core each, where there are two. ``--rate 0`` saturates: so many messages are under way at a
time (``--window``) that nobody waits. Prints as JSON how many messages were heard a second, by their authors too, the
processor time of the server for each, and how many datagrams it sent for each.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import resource
import time
from typing import Final

from ocm.bench.crowd import Crowd
from ocm.bench.processes import cpu_time_s, resident_memory
from ocm.bench.relay import LIMITS, BenchServer, bench_server
from ocm.protocol.session.publishing import UNSETTLED_MAX
from ocm.protocol.url import parse_url

_TEXT_SIZE: Final = 100
_WARM_S: Final = 0.2
_LATE_S: Final = 0.05
"""Who is behind the pace by more than this gives it up."""


def main() -> None:
    """Read the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=10, help="members of a room")
    parser.add_argument("--rooms", type=int, default=1)
    parser.add_argument("--window", type=int, default=UNSETTLED_MAX, help="messages under way, where it saturates")
    parser.add_argument("--rate", type=float, default=0.0, help="deliveries a second; 0: as many as go")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--settle", type=float, default=0.0, help="seconds to be quiet before memory is looked at")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(json.dumps(asyncio.run(_measure(options))))


async def _measure(options: argparse.Namespace) -> dict[str, float]:
    async with bench_server() as server:
        _pin(0, server.pid)
        _pin(1, 0)
        before = resident_memory(server.pid)
        crowd = Crowd()
        await crowd.enter(parse_url(server.urls[0]), rooms=options.rooms, each=options.size, limits=LIMITS)
        await asyncio.sleep(options.settle)
        memory = (resident_memory(server.pid) - before) / len(crowd.seats)
        gc.collect()
        gc.freeze()
        load = _Load(crowd, options.size, window=options.window, rate=options.rate)
        await load.run(_WARM_S)
        figures = await _run(load, crowd, server, options.seconds)
        await asyncio.sleep(0.5)
        missing = load.said * options.size - crowd.heard
        return figures | {"memory_per_member": round(memory), "missing": missing, "doubled": crowd.doubled}


async def _run(load: _Load, crowd: Crowd, server: BenchServer, seconds: float) -> dict[str, float]:
    crowd.latencies_ns.clear()
    heard, cpu_s, sent, own_s = crowd.heard, cpu_time_s(server.pid), await server.sent(), time.process_time()
    took_s = await load.run(seconds)
    heard, cpu_s, own_s = crowd.heard - heard, cpu_time_s(server.pid) - cpu_s, time.process_time() - own_s
    latencies_ns = sorted(crowd.latencies_ns)
    return {
        "per_s": round(heard / took_s),
        "cpu_us": round(cpu_s / max(1, heard) * 1e6, 2),
        "datagrams": round((await server.sent() - sent) / max(1, heard), 3),
        "server_cpu": round(cpu_s / took_s, 2),
        "load_cpu": round(own_s / took_s, 2),
        "p50_us": round(latencies_ns[len(latencies_ns) // 2] / 1000),
        "p99_us": round(latencies_ns[len(latencies_ns) * 99 // 100] / 1000),
    }


class _Load:
    """Lets the members of a crowd talk, one after the other."""

    def __init__(self, crowd: Crowd, size: int, *, window: int, rate: float) -> None:
        self.said = 0
        self._crowd = crowd
        self._size = size
        self._window = window
        self._rate = rate / size

    async def run(self, seconds: float) -> float:
        """Let them talk; return for how long."""
        began_s = time.monotonic()
        if self._rate:
            await self._pace(began_s + seconds)
        else:
            await self._saturate(began_s + seconds)
        return time.monotonic() - began_s

    async def _saturate(self, until_s: float) -> None:
        self._crowd.on_turn = self._fill
        self._fill()
        self._crowd.turn()
        await asyncio.sleep(until_s - time.monotonic())
        self._crowd.on_turn = lambda: None

    async def _pace(self, until_s: float) -> None:
        next_s = time.monotonic()
        while (now_s := time.monotonic()) < until_s:
            while next_s <= now_s and self._under_way() < UNSETTLED_MAX - 1:
                self._say()
                next_s += 1 / self._rate
            next_s = max(next_s, now_s - _LATE_S)
            self._crowd.turn()
            await asyncio.sleep(0)

    def _fill(self) -> None:
        while self._under_way() < self._window:
            self._say()

    def _under_way(self) -> float:
        return self.said - self._crowd.heard / self._size

    def _say(self) -> None:
        seats = self._crowd.seats
        seats[self.said * 7919 % len(seats)].say(_TEXT_SIZE)
        self.said += 1


def _pin(core: int, pid: int) -> None:
    """Let a process (0: this one) run on one core only, where the system can and there are two."""
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setaffinity(pid, {core})


if __name__ == "__main__":
    main()
