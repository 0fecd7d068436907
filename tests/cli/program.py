"""The command ``ocm`` as a real process, with pipes; what it prints is waited for, never slept for."""

import asyncio
import json
import os
import pty
import signal
import sys
import termios
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest

PROFILES: Final = ("modern", "classic")
PATIENCE_S = 20.0
"""How long anything may take on a busy machine."""


class Program:
    """A running ``ocm``."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid
        self.seen: list[str] = []

    async def line(self) -> str:
        """The next line of stdout; raises EOFError at its end."""
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            raw = await self._process.stdout.readline()
        if not raw:
            raise EOFError("\n".join(self.seen))
        self.seen.append(raw.decode().removesuffix("\n"))
        return self.seen[-1]

    async def expect(self, part: str) -> str:
        """Read lines until one contains ``part``; return it."""
        while part not in (line := await self.line()):
            pass
        return line

    async def event(self, kind: str) -> dict[str, Any]:
        """Read JSON lines until an event of this kind."""
        while True:
            values: dict[str, Any] = json.loads(await self.line())
            if values["event"] == kind:
                return values

    def type(self, *lines: str) -> None:
        """Write lines to stdin."""
        self.write("".join(f"{line}\n" for line in lines).encode())

    def write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(data)

    def end_input(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def close_output(self) -> None:
        """Stop reading stdout."""
        transport: Any = vars(self._process)["_transport"]
        transport.get_pipe_transport(1).close()

    async def finish(self) -> tuple[int, str]:
        """Wait for the end; return the exit status and all of stderr. What is left of stdout is in ``seen``."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        async with asyncio.timeout(PATIENCE_S):
            out, err = await asyncio.gather(self._process.stdout.read(), self._process.stderr.read())
            status = await self._process.wait()
        self.seen += out.decode().split("\n")[:-1]
        return status, err.decode()

    async def kill(self) -> None:
        """Make sure that it is gone."""
        if self._process.returncode is None:
            self._process.kill()
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self.finish()


class Terminal:
    """A running ``ocm`` on a terminal, and the person in front of it."""

    def __init__(self, process: asyncio.subprocess.Process, leader: int) -> None:
        self._process = process
        self.pid = process.pid
        self.leader = leader

    async def until(self, part: str) -> str:
        """Read the screen until ``part`` is on it; return what came."""
        loop = asyncio.get_running_loop()
        shown = b""
        async with asyncio.timeout(PATIENCE_S):
            while part.encode() not in shown:
                ready = asyncio.Event()
                loop.add_reader(self.leader, ready.set)
                try:
                    await ready.wait()
                finally:
                    loop.remove_reader(self.leader)
                shown += os.read(self.leader, 4096)
        return shown.decode()

    def type(self, line: str) -> None:
        os.write(self.leader, f"{line}\n".encode())

    async def finish(self) -> int:
        """Wait for the end; return the exit status."""
        async with asyncio.timeout(PATIENCE_S):
            return await self._process.wait()

    async def kill(self) -> None:
        """Make sure that it is gone."""
        if self._process.returncode is None:
            self._process.kill()
        await self.finish()
        os.close(self.leader)


@asynccontextmanager
async def on_terminal(*arguments: str, home: Path, columns: int = 0) -> AsyncGenerator[Terminal]:
    """Run ``ocm`` on a terminal of its own, as wide as is said; 0: it does not say."""
    try:
        leader, follower = pty.openpty()
    except OSError as error:
        pytest.skip(f"this machine has no terminal to give: {error}")
    if columns:
        termios.tcsetwinsize(follower, (24, columns))
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ocm"),
            *arguments,
            stdin=follower,
            stdout=follower,
            stderr=follower,
            env=environment(home),
        )
    finally:
        os.close(follower)
    terminal = Terminal(process, leader)
    try:
        yield terminal
    finally:
        await terminal.kill()


def environment(home: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """A clean environment, in English, that leads to no other folder than ``home``."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OCM_", "XDG_", "LC_", "LANG", "PYTHONIOENCODING"))
    }
    return kept | {"HOME": str(home), "LANG": "C.UTF-8"} | dict(more or {})


@asynccontextmanager
async def ocm_command(
    *arguments: str,
    stdin: int = PIPE,
    env: Mapping[str, str] | None = None,
    home: Path | None = None,
    within: Sequence[str] = (),
) -> AsyncGenerator[Program]:
    """Run ``ocm`` with these arguments, with an empty home of its own or ``home``; it is gone at the block's end.

    With ``within`` it runs behind another command's words.
    """
    with TemporaryDirectory() as empty:
        process = await asyncio.create_subprocess_exec(
            *(*within, sys.executable, "-m", "ocm"),
            *arguments,
            stdin=stdin,
            stdout=PIPE,
            stderr=PIPE,
            env=environment(home or Path(empty), env),
        )
        program = Program(process)
        try:
            yield program
        finally:
            await program.kill()


async def run_ocm(
    *arguments: str, stdin: int = DEVNULL, env: Mapping[str, str] | None = None, home: Path | None = None
) -> tuple[int, str, str]:
    """Run ``ocm`` to its end; return its exit status, stdout and stderr."""
    async with ocm_command(*arguments, stdin=stdin, env=env, home=home) as program:
        status, err = await program.finish()
        return status, "\n".join(program.seen), err


@asynccontextmanager
async def serving(
    *arguments: str, env: Mapping[str, str] | None = None, home: Path | None = None
) -> AsyncGenerator[tuple[Program, dict[str, Any]]]:
    """Run ``ocm serve`` on loopback and free ports; give it and its first line."""
    ports = () if "--port" in arguments else ("--port", "0", "--udp-port", "0")
    command = ("serve", "--host", "127.0.0.1", *ports, "--json", *arguments)
    async with ocm_command(*command, stdin=DEVNULL, env=env, home=home) as program:
        yield program, json.loads(await program.line())


def same_ports(ready: Mapping[str, Any]) -> tuple[str, ...]:
    """Options of a server that takes the place of another."""
    return ("--port", str(ready["tcp_port"]), "--udp-port", str(ready["udp_port"]))


def url_of(ready: Mapping[str, Any], profile: str) -> str:
    """Where a server is for clients of a profile."""
    url = ready["url"] if profile == "modern" else ready["join_classic"][0]
    assert isinstance(url, str)
    return url


def badge_of(url: str) -> str:
    """How a room at this address is called when one enters it; the last line that ``ocm chat`` then writes."""
    if url.startswith("tcrps://"):
        return "* Encrypted between you and the server; the server can read along."
    return "* This room is not encrypted: whoever can watch the network can read along."


@asynccontextmanager
async def chatting(
    url: str, user: str, *more: str, create: bool = False, home: Path | None = None
) -> AsyncGenerator[Program]:
    """Enter the room tea, and read on to where one is in it."""
    async with ocm_command(*seat(url, user, *more, create=create), home=home) as program:
        await program.expect(badge_of(url))
        yield program


@asynccontextmanager
async def two_in_a_room(url: str) -> AsyncGenerator[tuple[Program, Program]]:
    """Let aiko make a room and bob join it; both have read on to bob's arrival."""
    async with chatting(url, "aiko", create=True) as aiko, chatting(url, "bob") as bob:
        await aiko.expect("bob has joined")
        yield aiko, bob


def seat(url: str, user: str, *more: str, room: str = "tea", create: bool = False) -> tuple[str, ...]:
    """Arguments of ``ocm`` that enter a room."""
    return ("chat", url, "--create" if create else "--join", "--room", room, "--user", user, *more)
