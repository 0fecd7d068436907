"""Every example runs as it is, and does what it says."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import ocm
from examples.echo_bot import echo

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str) -> str:
    command = [sys.executable, str(EXAMPLES / name)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout


def test_the_embedded_server_carries_a_talk() -> None:
    assert run("embedded.py").splitlines() == ["ben came", "ben: Hello from Ben!", "ben went"]


async def test_the_echo_bot_repeats_until_it_is_told_to_stop() -> None:
    async with ocm.serve("tcrp://127.0.0.1:0") as server, await server.create("lobby", "aiko") as room:
        bot = asyncio.create_task(echo(server.url, "lobby"))
        events = aiter(room)
        assert await anext(events) == ocm.MemberJoined(ocm.Person("echo"))
        await room.send("hello")
        message = await anext(events)
        assert isinstance(message, ocm.Message)
        assert message.text == "aiko said hello"
        await room.send("stop")
        assert await bot == 1
