"""Every example runs as it is, and does what it says."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

import ocm
from examples.bridge import bridge
from examples.echo_bot import echo
from examples.sensor import publish, read

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout


def test_the_embedded_server_carries_a_talk() -> None:
    assert run("embedded.py").splitlines() == ["ben came", "ben: Hello from Ben!", "ben went"]


def test_the_echo_bot_talks_to_itself() -> None:
    assert run("echo_bot.py").splitlines()[-1] == "1 repeated"


def test_the_game_draws_thirty_players_on_a_grid() -> None:
    frames = run("game.py").split("\n\n")
    assert frames[-1] == ""
    assert len(frames) == 4
    *rows, count = frames[2].splitlines()
    assert count == "30 players"
    assert [len(row) for row in rows] == [40] * 12


def test_the_bridge_carries_both_ways_and_ends_with_a_room() -> None:
    assert sorted(run("bridge.py").splitlines()) == [
        "in coffee: ~ aiko: hello from the tea room",
        "in tea: ~ ben: hello from the coffee room",
    ]


async def test_a_bridge_does_not_relay_what_another_bridge_has_relayed() -> None:
    async with (
        ocm.serve("tcrps://127.0.0.1:0") as server,
        await server.create("one", "aiko") as aiko,
        await server.create("two", "ben") as ben,
        asyncio.TaskGroup() as tasks,
    ):
        events, heard = aiter(aiko), aiter(ben)
        tasks.create_task(bridge(server.url.replace("#", "/one#"), server.url.replace("#", "/two#")))
        assert await anext(events) == ocm.MemberJoined(ocm.Person("bridge"))
        assert await anext(heard) == ocm.MemberJoined(ocm.Person("bridge"))
        await aiko.send("~ chidi: relayed before")
        await aiko.send("hello")
        message = await anext(heard)
        assert isinstance(message, ocm.Message)
        assert message.text == "~ aiko: hello"
        await aiko.leave()


def test_the_sensor_is_read() -> None:
    lines = run("sensor.py", "--every", "0.05", "--count", "3").splitlines()
    numbers = [int(line.partition(": ")[2].partition(":")[0]) for line in lines]
    assert numbers == [1, 2, 3]
    assert all(line.endswith(" °C") for line in lines)


async def test_sensor_and_reader_outlive_a_restart_of_the_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[str] = []

    async def show_more(count: int) -> None:
        enough = len(shown) + count
        while len(shown) < enough:
            shown.extend(capsys.readouterr().out.splitlines())
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as tasks:
        async with ocm.serve("tcrps://127.0.0.1:0", data_dir=tmp_path / "server") as server:
            url = server.url
            sensor = tasks.create_task(publish(url, state=tmp_path / "sensor.db", every_s=0.02))
            reader = tasks.create_task(read(url, state=tmp_path / "reader.db", retry_s=0.02))
            await show_more(5)
        async with ocm.serve(url, data_dir=tmp_path / "server"):
            await show_more(20)
            sensor.cancel()
            await reader
    numbers = [int(line.partition(": ")[2].partition(":")[0]) for line in shown]
    assert numbers == list(range(1, len(numbers) + 1))  # none missing, none twice


def test_the_classroom_counts_points() -> None:
    assert run("classroom.py").splitlines()[-1] == "points: 3"


def test_a_lossy_network_loses_no_order() -> None:
    assert run("lossy_network.py", "7").splitlines()[-1].startswith("all 5 orders followed")


def test_a_client_over_the_pure_core_chats() -> None:
    assert run("sans_io_client.py").splitlines() == ["host: welcome, aiko; you said hello", "left"]


def test_a_transport_of_ones_own_carries_a_room() -> None:
    lines = run("own_transport.py").splitlines()
    assert "server: a TCP stream with 127.0.0.1" in lines[0]
    assert "server: 1200 bytes by UDP from 127.0.0.1" in "\n".join(lines)


def test_the_fuzz_target_has_no_complaint() -> None:
    seed, result = run("fuzz_target.py", "--seed", "7").splitlines()
    assert seed == "seed 7"
    assert result.endswith("inputs, no complaint")


async def test_the_echo_bot_repeats_until_it_is_told_to_stop() -> None:
    async with ocm.serve("tcrps://127.0.0.1:0") as server, await server.create("lobby", "aiko") as room:
        bot = asyncio.create_task(echo(server.url, "lobby"))
        events = aiter(room)
        assert await anext(events) == ocm.MemberJoined(ocm.Person("echo"))
        await room.send("hello")
        message = await anext(events)
        assert isinstance(message, ocm.Message)
        assert message.text == "aiko said hello"
        await room.send("stop")
        assert await bot == 1
