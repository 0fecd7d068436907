"""What a delivery costs the server, in TCRP/2 and in the classic profile: ``python -m ocm.bench.relay``.

Starts a server with the allowance of members raised, fills a room of each size with clients of the library, first of
one profile, then of the other, and lets them talk: in bursts (64 messages under way) and at a rate. Prints as JSON, per
delivery, microseconds of the server's processor time and how many were delivered a second. The clients live in one
process, which costs more than the server: the processor time is the figure, and what the server would deliver on a
core of its own is its inverse.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import pstats
import resource
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import ocm
from ocm.bench.processes import cpu_time_s

LIMITS: Final = ocm.Limits(burst_max=10**6, rate_per_s=1e6, bytes_per_s=10**9, pending_max=10**6)
"""A server that refuses nobody for saying much, and members who know it."""
_TEXT_SIZE: Final = 100
_UNDER_WAY: Final = 64
_BACKLOG_MAX: Final = 1000
"""Messages under way above which a load that cannot keep its pace says no more."""
_SETTLE_S: Final = 1.0
_STALLED_S: Final = 0.5
"""What was not heard after so long is not coming: the classic profile loses messages."""
_PROFILED: Final = 40


def main() -> None:
    """Read the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2, 10, 100], help="members of a room")
    parser.add_argument("--rate", type=float, default=20_000.0, help="deliveries a second, where it is no burst")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="times that each is measured; medians are printed")
    parser.add_argument("--profile", action="store_true", help="also print where the server's time goes, to stderr")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if options.serve:
        _serve(profiled=options.profile)
        return
    print(json.dumps(asyncio.run(_measure(options))))


async def _measure(options: argparse.Namespace) -> dict[str, float]:
    samples: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for size in options.sizes:
            for profile in ("modern", "classic"):
                for load, rate in (("burst", None), ("paced", options.rate)):
                    figures = await _run(profile, size, rate, options.seconds, profiled=options.profile)
                    samples.setdefault(f"{profile}_{size}_{load}_cpu_us", []).append(figures.cpu_us)
                    samples.setdefault(f"{profile}_{size}_{load}_per_s", []).append(figures.per_s)
                    samples.setdefault(f"{profile}_{size}_{load}_datagrams", []).append(figures.datagrams)
    return {name: round(sorted(values)[len(values) // 2], 2) for name, values in samples.items()}


@dataclass(frozen=True, slots=True)
class _Figures:
    """One measurement."""

    cpu_us: float
    """Processor time of the server, per delivery."""
    per_s: float
    """Deliveries a second."""
    datagrams: float
    """Datagrams that the server sent, per delivery."""


async def _run(profile: str, size: int, rate: float | None, seconds: float, *, profiled: bool) -> _Figures:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(bench_server(profiled=profiled))
        url = server.urls[0 if profile == "modern" else 1]
        rooms: list[ocm.Room] = []
        for number in range(size):
            client = await stack.enter_async_context(ocm.connect(url, user=f"member {number}", limits=LIMITS))
            rooms.append(await stack.enter_async_context(client.join("load") if number else client.create("load")))
        talk = _Talk(rooms)
        listening = [asyncio.create_task(talk.listen(place)) for place in range(size)]
        await asyncio.sleep(_SETTLE_S)
        heard, cpu_s, sent, began_s = talk.heard, cpu_time_s(server.pid), await server.sent(), time.monotonic()
        if rate is None:
            await talk.burst(began_s + seconds)
        else:
            await talk.pace(began_s + seconds, rate / (size - 1))
        took_s, cpu_s = time.monotonic() - began_s, cpu_time_s(server.pid) - cpu_s
        heard, sent = max(1, talk.heard - heard), await server.sent() - sent
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)
        return _Figures(cpu_s / heard * 1e6, heard / took_s, sent / heard)


class _Talk:
    """Members who say numbered messages. One is under way until the member after its author heard it."""

    def __init__(self, rooms: Sequence[ocm.Room]) -> None:
        self.heard = 0
        self._rooms = rooms
        self._under_way = 0
        self._said = 0
        self._news = asyncio.Event()

    async def listen(self, place: int) -> None:
        """Hear what is said to the member at ``place``."""
        before = (place - 1) % len(self._rooms)
        async for event in self._rooms[place]:
            if isinstance(event, ocm.Message):
                self.heard += 1
                if int(event.text.split()[0]) == before:
                    self._under_way -= 1
                    self._news.set()

    def say(self) -> None:
        """Let the next member say something."""
        place = self._said % len(self._rooms)
        self._rooms[place].post(f"{place} ".ljust(_TEXT_SIZE, "x"))
        self._said += 1
        self._under_way += 1

    async def burst(self, until_s: float) -> None:
        """Keep messages under way."""
        while time.monotonic() < until_s:
            while self._under_way < _UNDER_WAY:
                self.say()
            self._news.clear()
            try:
                async with asyncio.timeout(_STALLED_S):
                    await self._news.wait()
            except TimeoutError:
                self._under_way = 0

    async def pace(self, until_s: float, rate: float) -> None:
        """Say ``rate`` messages a second."""
        began_s, first = time.monotonic(), self._said
        while (now_s := time.monotonic()) < until_s:
            while self._said - first < (now_s - began_s) * rate and self._under_way < _BACKLOG_MAX:
                self.say()
            await asyncio.sleep(1 / rate)


class BenchServer:
    """The server's process, as the load sees it."""

    def __init__(self, process: asyncio.subprocess.Process, urls: Sequence[str]) -> None:
        self.urls = urls
        self.pid = process.pid
        self._process = process

    async def sent(self) -> int:
        """Ask how many datagrams it has sent."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"sent\n")
        return int(await self._process.stdout.readline())


@asynccontextmanager
async def bench_server(*, profiled: bool = False) -> AsyncGenerator[BenchServer]:
    """Run a server in a process of its own, with the allowance of members raised."""
    command = [sys.executable, "-m", "ocm.bench.relay", "--serve", *(["--profile"] if profiled else [])]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield BenchServer(process, json.loads(await process.stdout.readline()))
    finally:
        process.stdin.close()
        await process.wait()


def _serve(*, profiled: bool) -> None:
    if not profiled:
        asyncio.run(_serve_until_told())
        return
    profile = cProfile.Profile()
    profile.runcall(asyncio.run, _serve_until_told())
    pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(_PROFILED)


async def _serve_until_told() -> None:
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with ocm.serve("tcrps://127.0.0.1:0", limits=LIMITS) as server:
        print(json.dumps([server.url, server.classic_url]), flush=True)
        async for _ in lines:
            print(server.status().datagrams_sent, flush=True)


if __name__ == "__main__":
    main()
