"""Real processes: a server, members, and what they print. They are ended by the handles that started them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

Line: TypeAlias = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
_LINE_SIZE_MAX = 64 * 2**20
"""An audit is one line."""


class Program:
    """A process whose lines are kept as they come. With ``within`` it runs behind another command's words."""

    def __init__(self, words: Sequence[str], *, log: Path, within: Sequence[str] = ()) -> None:
        self.lines: list[Line] = []
        self._words = [*within, sys.executable, "-m", *words]
        self._log = log
        self._news = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "started"
        return self._process.pid

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._words,
                cwd=ROOT,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=_LINE_SIZE_MAX,
            )
        self._reading = asyncio.create_task(self._read(self._process))

    def tell(self, line: str) -> None:
        assert self._process is not None, "started"
        assert self._process.stdin is not None, "a pipe"
        self._process.stdin.write(line.encode() + b"\n")

    async def wait_for(self, found: Callable[[Line], bool], *, after: int = 0, within_s: float = 20.0) -> Line:
        """Return the first line from number ``after`` on that is what is looked for."""
        async with asyncio.timeout(within_s):
            while True:
                for line in self.lines[after:]:
                    if found(line):
                        return line
                after = len(self.lines)
                if self._process is None or self._process.returncode is not None:
                    raise AssertionError(f"{self._words} has ended: {self._log.read_text()[-2000:]}")
                self._news.clear()
                await self._news.wait()

    async def event(self, event: str, *, after: int = 0, within_s: float = 20.0) -> Line:
        """Return the first line of a kind."""
        return await self.wait_for(lambda line: line.get("event") == event, after=after, within_s=within_s)

    async def kill(self) -> None:
        """End it as a loss of power would: nothing of it runs any more."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """Ask it to end."""
        await self._end(signal.SIGTERM)

    async def _end(self, how: signal.Signals) -> None:
        if self._process is None or self._reading is None:
            return
        if self._process.returncode is None:
            self._process.send_signal(how)
        await self._process.wait()
        await self._reading

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None, "a pipe"
        async for line in process.stdout:
            if line.endswith(b"\n"):  # else it was killed in the middle of it
                self.lines.append(json.loads(line))
                self._news.set()
        self._news.set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.kill()


class ServerProgram:
    """``ocm serve`` with a data directory, always on the ports that it had first."""

    def __init__(
        self, folder: Path, *, log: Path | None = None, host: str = "127.0.0.1", within: Sequence[str] = ()
    ) -> None:
        self.folder = folder
        self.log = log or folder.with_name(folder.name + ".log")
        self.url = ""
        self.killed_s = 0.0
        """When it was killed last, on the clock of ``time.monotonic``."""
        self.accepts_s = 0.0
        """When it said last that it accepts."""
        self._host = host
        self._within = within
        self._ports = ("0", "0")
        self._program: Program | None = None

    @property
    def pid(self) -> int:
        assert self._program is not None, "started"
        return self._program.pid

    async def start(self) -> None:
        tcp_port, udp_port = self._ports
        ports = ("--port", tcp_port, "--udp-port", udp_port)
        words = ("ocm", "serve", "--host", self._host, *ports, "--data-dir", str(self.folder), "--json")
        self._program = Program(words, log=self.log, within=self._within)
        await self._program.start()
        where = await self._program.wait_for(lambda line: "url" in line)
        self.accepts_s = time.monotonic()
        self.url = where["url"]
        self._ports = (str(where["tcp_port"]), str(where["udp_port"]))

    async def kill(self) -> None:
        assert self._program is not None, "started"
        self.killed_s = time.monotonic()
        await self._program.kill()

    def freeze(self) -> None:
        """Let it do nothing; what is sent to it waits in the system's buffers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def complaints(self) -> str:
        """Return what it wrote to stderr."""
        return self.log.read_text()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._program is not None:
            await self._program.stop()


def member(
    server: ServerProgram, user: str, *arguments: str, folder: Path, within: Sequence[str] = (), url: str | None = None
) -> Program:
    """Make a member's program, not started yet."""
    words = ("tests.real.member", url or server.url, "--user", user, *arguments)
    return Program(words, log=folder / f"{user}.log", within=within)
