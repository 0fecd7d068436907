"""Two hosts in network namespaces and a bad cable between them: what becomes of a room when the network changes."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Final

from tests.real.audit import Found, all_shown, check, read_log
from tests.real.cable import DEVICE
from tests.real.machines import Program, ServerProgram, member

SERVER_HOST: Final = "10.78.0.1"
_NET: Final = "10.78.0.0/24"
DELAY_S: Final = 0.025
"""Each way: a round trip is 50 ms."""
LOSS: Final = 0.05
BLOCKED_MAX_S: Final = 4.0
"""From a post to its receipt, and to the other member, where no datagram ever gets through."""
LIVE_MAX_S: Final = 10.0
"""The same whatever else becomes of the network, as long as there is one."""
BACK_MAX_S: Final = 60.0
"""Until messages travel by UDP again where that is possible again."""
_LIVE: Final = {"longest_to_receipt": LIVE_MAX_S, "longest_to_arrival": LIVE_MAX_S}


@cache
def can_make_networks() -> bool:
    """Say whether this machine lets us."""
    return os.geteuid() == 0 and shutil.which("ip") is not None and Path("/dev/net/tun").exists()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Network:
    """A server's host, a client's host, the cable between them."""

    def __init__(self, server: str, client: str, cable: Program) -> None:
        self.at_server = ("ip", "netns", "exec", server)
        self.at_client = ("ip", "netns", "exec", client)
        self._client = client
        self._cable = cable
        self._number = 2

    async def be(self, line: str) -> float:
        """Change the cable; return when that was done."""
        after = len(self._cable.lines)
        self._cable.tell(line)
        await self._cable.event("done", after=after)
        return time.monotonic()

    def move(self) -> None:
        """Give the client's host another address; the one that it had is gone."""
        old, self._number = self._number, self._number % 200 + 2
        _ip("-n", self._client, "addr", "add", f"10.78.0.{self._number}/32", "dev", DEVICE)
        _ip("-n", self._client, "addr", "del", f"10.78.0.{old}/32", "dev", DEVICE)


@asynccontextmanager
async def two_hosts(folder: Path) -> AsyncGenerator[Network]:
    """Make the hosts, and take them away again."""
    names = (f"ocm-server-{os.getpid()}", f"ocm-client-{os.getpid()}")
    async with AsyncExitStack() as stack:
        for name in names:
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "del", name)
        cable = await stack.enter_async_context(Program(("tests.real.cable", *names), log=folder / "cable.log"))
        await cable.event("ready")
        for number, name in enumerate(names, 1):
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "addr", "add", f"10.78.0.{number}/32", "dev", DEVICE)
            _ip("-n", name, "link", "set", DEVICE, "up", "mtu", "1500")
            _ip("-n", name, "route", "add", _NET, "dev", DEVICE)
        network = Network(*names, cable)
        await network.be(f"delay {DELAY_S}")
        await network.be(f"loss {LOSS}")
        yield network


@dataclass(frozen=True, slots=True)
class Travels:
    """What came of it."""

    found: Found
    figures: dict[str, float]
    """Seconds, by what was waited for."""


class _Scene:
    """A server on one host, a member on each, both talking."""

    def __init__(self, network: Network, near: Program, far: Program) -> None:
        self.network = network
        self.near = near
        """On the server's host."""
        self.far = far
        """Behind the cable."""

    async def finish(self, figures: dict[str, float], bars: dict[str, float]) -> Travels:
        """Stop talking; hold everything against the log, and figures against their bars."""
        members = {"near": self.near, "far": self.far}
        for program in members.values():
            after = len(program.lines)
            program.tell("stop")
            await program.event("drained", after=after)
        log = await read_log(self.near)
        await all_shown(members, log)
        found = check({user: program.lines for user, program in members.items()}, log)
        figures |= _longest(list(members.values()))
        for name, bar_s in bars.items():
            assert figures[name] < bar_s, f"{name} is above {bar_s} s: {figures}"
        return Travels(found, {name: round(value, 3) for name, value in figures.items()})


@asynccontextmanager
async def _scene(
    folder: Path, *changes: str, rate: float = 20.0, far_says: int | None = None
) -> AsyncGenerator[_Scene]:
    async with AsyncExitStack() as stack:
        network = await stack.enter_async_context(two_hosts(folder))
        for change in changes:
            await network.be(change)
        server = ServerProgram(folder / "server", host=SERVER_HOST, within=network.at_server)
        await stack.enter_async_context(server)
        arguments = ("--rate", str(rate))
        near = member(server, "near", "--create", *arguments, folder=folder, within=network.at_server)
        await stack.enter_async_context(near)
        await near.event("entered")
        count = () if far_says is None else ("--count", str(far_says))
        far = member(server, "far", *arguments, *count, folder=folder, within=network.at_client)
        await stack.enter_async_context(far)
        await far.event("entered")
        yield _Scene(network, near, far)
        assert "Traceback" not in server.complaints(), server.complaints()


def _longest(members: list[Program]) -> dict[str, float]:
    """Return the longest times from a post to its receipt and to the other member, and of nothing new to see."""
    lines = [line for program in members for line in program.lines]
    receipts = [line for line in lines if line["event"] == "receipt"]
    posted_s: dict[str, float] = {line["text"]: line["posted_s"] for line in receipts}
    shown = [[line for line in program.lines if line["event"] == "message"] for program in members]
    return {
        "longest_to_receipt": max(line["at_s"] - line["posted_s"] for line in receipts),
        "longest_to_arrival": max(line["at_s"] - posted_s[line["text"]] for each in shown for line in each),
        "longest_silence": max(later["at_s"] - sooner["at_s"] for each in shown for sooner, later in pairwise(each)),
    }


async def _first_after(program: Program, event: str, at_s: float, *, within_s: float) -> float:
    line = await program.wait_for(lambda line: line["event"] == event and line["at_s"] > at_s, within_s=within_s)
    return float(line["at_s"]) - at_s


async def roam(folder: Path, *, seconds: float, every_s: float = 2.0) -> Travels:
    """Change the client's address again and again."""
    async with _scene(folder) as scene:
        await _until_udp(scene.far)
        for _ in range(int(seconds / every_s)):
            await asyncio.sleep(every_s)
            scene.network.move()
        return await scene.finish({"moves": int(seconds / every_s)}, _LIVE)


async def listen_and_roam(folder: Path, *, moves: int = 5, every_s: float = 5.0) -> Travels:
    """Change the address of a client that says nothing: nobody but itself can know."""
    async with _scene(folder, far_says=1) as scene:
        await _until_udp(scene.far)
        for _ in range(moves):
            await asyncio.sleep(every_s)
            scene.network.move()
        await asyncio.sleep(every_s)
        return await scene.finish({"moves": moves}, _LIVE)


async def blocked_from_the_start(folder: Path) -> Travels:
    """Let no datagram through, ever."""
    async with _scene(folder, "udp off") as scene:
        entered_s = (await scene.far.event("entered"))["at_s"]
        heard_s = await _first_after(scene.far, "message", entered_s, within_s=20)
        said_s = await _first_after(scene.far, "receipt", entered_s, within_s=20)
        await asyncio.sleep(10)
        figures = {"first_heard": heard_s, "first_receipt": said_s}
        return await scene.finish(figures, dict.fromkeys((*figures, *_LIVE), BLOCKED_MAX_S))


async def cut_and_back(folder: Path) -> Travels:
    """Let no datagram through any more, and then again."""
    async with _scene(folder) as scene:
        await _until_udp(scene.far)
        await asyncio.sleep(3)
        cut_s = await scene.network.be("udp off")
        # All that is said from now on, and all that was on its way, comes over TLS.
        log_s = await _first_after(scene.far, "message", cut_s + 4 * DELAY_S, within_s=20) + 4 * DELAY_S
        said_s = await _first_after(scene.far, "receipt", cut_s + 4 * DELAY_S, within_s=20) + 4 * DELAY_S
        tls_s = await _on(scene.far, "tls", cut_s, within_s=40)
        await asyncio.sleep(15)
        back_s = await scene.network.be("udp on")
        udp_s = await _on(scene.far, "udp", back_s, within_s=60)
        await asyncio.sleep(3)
        figures = {"heard": log_s, "receipt": said_s, "tls": tls_s, "udp_again": udp_s}
        return await scene.finish(figures, _LIVE | {"udp_again": BACK_MAX_S})


async def _until_udp(program: Program) -> None:
    """Wait until messages travel by UDP as they do at first, of which nobody is told."""
    async with asyncio.timeout(20):
        while True:
            after = len(program.lines)
            program.tell("path")
            if (await program.event("way", after=after))["kind"] == "udp":
                return
            await asyncio.sleep(0.2)


async def _on(program: Program, path: str, after_s: float, *, within_s: float) -> float:
    """Wait until the member is told that messages travel a way; return how long after ``after_s``."""
    line = await program.wait_for(
        lambda line: line["event"] == "path" and line["kind"] == path and line["at_s"] > after_s, within_s=within_s
    )
    return float(line["at_s"]) - after_s
