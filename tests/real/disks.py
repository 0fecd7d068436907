"""A disk of a few megabytes that gets full, and has room again: a tmpfs in a mount namespace of its own."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.real.audit import Found, all_shown, check, read_log
from tests.real.kills import posted
from tests.real.machines import Program, ServerProgram, member

_NAMESPACES: Final = ("--user", "--mount")
_QUIET_S: Final = 1.5
"""Nothing accepted for so long: the disk is full for the server too."""


class SmallDisk:
    """A file system of ``size_mib`` at ``folder``, seen by the programs that run ``within`` it; gone at the end."""

    def __init__(self, folder: Path, *, size_mib: int) -> None:
        self.within: tuple[str, ...] = ()
        """The words in front of a command that is to see it."""
        self._folder = folder
        self._options = f"size={size_mib}m,mode=700"
        self._holder: asyncio.subprocess.Process | None = None

    @property
    def path(self) -> Path:
        """Where this process sees what those programs see as ``folder``."""
        assert self._holder is not None, "made"
        return Path(f"/proc/{self._holder.pid}/root") / self._folder.relative_to("/")

    def fill(self) -> None:
        """Leave no byte."""
        with (self.path / "ballast").open("ab", buffering=0) as ballast:
            for size in (65_536, 4096, 1):
                try:
                    while True:
                        ballast.write(b"\0" * size)
                except OSError:
                    continue

    def free(self) -> None:
        """Make room."""
        (self.path / "ballast").unlink()

    async def __aenter__(self) -> Self:
        self._folder.mkdir()
        script = 'mount -t tmpfs -o "$0" tmpfs "$1" && echo made && exec cat'  # cat ends with our end of its stdin
        self._holder = await asyncio.create_subprocess_exec(
            *("unshare", "--map-root-user", *_NAMESPACES, "sh", "-c", script, self._options, str(self._folder)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._holder.stdout is not None, "a pipe"
        assert await self._holder.stdout.readline() == b"made\n"
        target = ("--target", str(self._holder.pid))
        self.within = ("nsenter", *target, *_NAMESPACES, "--preserve-credentials")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._holder is not None, "made"
        self._holder.kill()
        await self._holder.wait()


@cache
def can_make_disks() -> bool:
    """Say whether this machine lets us."""
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        return False
    words = ("unshare", "--map-root-user", *_NAMESPACES, "mount", "-t", "tmpfs", "tmpfs", "/mnt")
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


@dataclass(frozen=True, slots=True)
class Fullness:
    """What came of it."""

    found: Found
    full_s: list[float]
    """For how long nothing was accepted, each time."""
    settled_s: list[float]
    """How long after there was room again everything that had waited was in the room."""


async def fill_server_disks(folder: Path, *, times: int, rate: float = 30.0) -> Fullness:
    """Fill the disk of a durable server ``times`` times under load; every second time it is killed while it is full."""
    full_s: list[float] = []
    settled_s: list[float] = []
    async with AsyncExitStack() as stack:
        disk = await stack.enter_async_context(SmallDisk(folder / "disk", size_mib=4))
        server = ServerProgram(folder / "disk", log=folder / "server.log", within=disk.within)
        await stack.enter_async_context(server)
        members: dict[str, Program] = {}
        for user in ("aiko", "ben"):
            arguments = ("--rate", str(rate), *(() if members else ("--create",)))
            members[user] = await stack.enter_async_context(member(server, user, *arguments, folder=folder))
            await members[user].event("entered")
        log: dict[int, tuple[str, str]] = {}
        aiko = members["aiko"]
        for number in range(1, times + 1):
            await _accepted(aiko, after=len(aiko.lines))
            disk.fill()
            full_s.append(await _quiet(aiko))
            log |= await read_log(aiko)  # it goes on serving what it has
            for line in aiko.lines:
                assert line["event"] != "receipt" or line["seq"] in log, f"acknowledged, and not there: {line}"
            if not number % 2:
                await server.kill()
            disk.free()
            freed_s, marks = time.monotonic(), {user: len(program.lines) for user, program in members.items()}
            if not number % 2:
                await server.start()
            for user, program in members.items():
                await _accepted(program, after=marks[user])
            settled_s.append(time.monotonic() - freed_s)
        for program in members.values():
            after = len(program.lines)
            program.tell("stop")
            await program.event("drained", after=after)
        log |= await read_log(aiko)
        await all_shown(members, log)
        found = check({user: program.lines for user, program in members.items()}, log)
        assert "Traceback" not in server.complaints(), server.complaints()
    return Fullness(found, full_s, settled_s)


async def _accepted(program: Program, *, after: int) -> None:
    await program.event("receipt", after=after, within_s=40)


async def _quiet(program: Program) -> float:
    """Wait until nothing has been accepted for a while; return for how long."""
    async with asyncio.timeout(60):
        while True:
            last_s: float = max(line["at_s"] for line in program.lines if line["event"] == "receipt")
            quiet_s = time.monotonic() - last_s
            if quiet_s > _QUIET_S:
                return quiet_s
            await asyncio.sleep(_QUIET_S - quiet_s + 0.01)


async def fill_client_disks(folder: Path, *, times: int) -> int:
    """Fill the disk of a client's state; what was stored is in the room once. Return how much that is.

    With room again the same process goes on; every second time it is killed while the disk is full. (SQLite may write
    over what it wrote before, so that a full disk takes something now and then.)
    """
    stored: set[str] = set()
    told: set[str] = set()
    async with AsyncExitStack() as stack:
        disk = await stack.enter_async_context(SmallDisk(folder / "disk", size_mib=8))
        server = await stack.enter_async_context(ServerProgram(folder / "server"))
        reader = member(server, "reader", "--create", "--count", "0", folder=folder)
        await stack.enter_async_context(reader)
        await reader.event("entered")
        state = folder / "disk" / "state" / "aiko.db"
        seen = disk.path / "state" / "aiko.db"

        def aiko(*arguments: str) -> Program:
            return member(server, "aiko", "--state", str(state), *arguments, folder=folder, within=disk.within)

        for number in range(1, times + 1):
            async with aiko("--prefix", f"aiko {number}", "--rate", "40") as talker:
                await talker.wait_for(lambda line: line["event"] == "receipt" and line["text"].endswith(" 20"))
                server.freeze()  # what is said from here on waits
                await asyncio.sleep(0.3)
                disk.fill()
                full = await talker.event("state", within_s=60)
                server.thaw()
                assert "disk is full" in full["failure"], full
                await asyncio.sleep(1.0)
                if number % 2:
                    after = len(talker.lines)
                    disk.free()
                    await talker.event("receipt", after=after)
                    talker.tell("stop")
                    await talker.event("drained", after=after)
                    told_works = [line["failure"] is None for line in talker.lines if line["event"] == "state"]
                    assert told_works == [False, True] * (len(told_works) // 2), "each change is told once"
                else:
                    await talker.kill()
                    disk.free()
            assert not [line for line in talker.lines if line["event"] == "error"]
            told |= {line["text"] for line in talker.lines if line["event"] == "receipt"}
            stored |= posted(seen, folder)
        async with aiko("--count", "0") as talker:
            await talker.event("entered")
            talker.tell("stop")
            await talker.event("drained", within_s=60)
        found = [text for _, text in (await read_log(reader)).values()]
        assert len(found) == len(set(found)), "a message is in the room twice"
        assert not (stored | told) - set(found), "lost"
    return len(found)
