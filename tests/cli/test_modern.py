"""What ``ocm chat`` can do over TCRP/2 alone: remember, read back, say how private a room is, rule it."""

import resource
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

import ocm
from tests.cli.program import (
    Program,
    badge_of,
    chatting,
    ocm_command,
    on_terminal,
    same_ports,
    seat,
    serving,
    two_in_a_room,
)


@pytest.fixture
async def aiko(modern_url: str) -> AsyncIterator[ocm.Room]:
    """The host of the room tea, in the test's own process."""
    async with ocm.connect(modern_url, user="aiko") as client, client.create("tea") as room:
        yield room


async def next_message(room: ocm.Room) -> str:
    """Read on to the next message; return its text."""
    async for event in room:
        if isinstance(event, ocm.Message):
            return event.text
    raise EOFError


async def until_stored(program: Program, home: Path, count: int) -> None:
    """Have it answer, again and again, until so many messages are on its disk."""
    while True:
        program.type("/help")
        await program.expect("/leave")
        for path in (home / ".local" / "state" / "ocm").glob("*.db"):
            with closing(sqlite3.connect(path)) as database:
                if database.execute("SELECT count(*) FROM posted").fetchone()[0] == count:
                    return


async def test_what_was_typed_while_the_server_was_away_outlives_a_kill_and_arrives_once(tmp_path: Path) -> None:
    kept = ("--data-dir", str(tmp_path / "data"))
    home = tmp_path / "home"
    home.mkdir()
    async with serving(*kept) as (server, ready):
        url = ready["url"]
        async with ocm.connect(url, user="aiko") as client, client.create("tea") as aiko:
            async with chatting(url, "bob", home=home) as bob:
                bob.type("zero")
                assert await next_message(aiko) == "zero"
                server.send_signal(signal.SIGKILL)
                await server.finish()
                bob.type("one", "two", "three")
                await until_stored(bob, home, 3)
                bob.send_signal(signal.SIGKILL)
                await bob.finish()
            async with serving(*kept, *same_ports(ready)), chatting(url, "bob", home=home) as bob:
                bob.type("four")
                arrived = [await next_message(aiko) for _ in range(4)]
                assert arrived == ["one", "two", "three", "four"]
                assert bob.seen[0] == "* You are back in the room tea, as bob."
                for text in ("one", "two", "three"):
                    assert await bob.line() == f"* From before, and in the room now: {text}"
                bob.type("/leave")
                assert await bob.line() == "* You have left."


limits_files = pytest.mark.skipif(sys.platform != "linux", reason="needs prlimit")


@contextmanager
def full_disk(pid: int) -> Generator[None]:
    """Let a process make no file larger."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
    yield
    resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


@limits_files
async def test_lines_of_a_pipe_wait_while_this_machine_cannot_keep_them(
    modern_url: str, aiko: ocm.Room, tmp_path: Path
) -> None:
    async with chatting(modern_url, "bob", home=tmp_path) as bob:
        bob.type("one")
        assert await next_message(aiko) == "one"
        with full_disk(bob.pid):
            bob.type("two", "three")
            await bob.expect("cannot be kept on this machine")
            await aiko.send("still heard")
            await bob.expect("aiko: still heard")
            bob.type("four")
        assert [await next_message(aiko) for _ in range(3)] == ["two", "three", "four"]
        bob.type("/leave")
        await bob.finish()
        assert sum("kept" in line for line in bob.seen) == 2, bob.seen
        assert "* What you type is kept again, and sent." in bob.seen


@limits_files
async def test_a_person_is_told_of_each_line_that_this_machine_cannot_keep(
    modern_url: str, aiko: ocm.Room, tmp_path: Path
) -> None:
    async with on_terminal(*seat(modern_url, "bob"), home=tmp_path) as bob:
        await bob.until("/help")
        bob.type("one")
        assert await next_message(aiko) == "one"
        with full_disk(bob.pid):
            bob.type("two")
            await bob.until("cannot be kept on this machine")
            bob.type("not taken")
            await bob.until("Not sent: it cannot be kept on this machine just now.")
        await bob.until("is kept again")
        bob.type("three")
        assert [await next_message(aiko) for _ in range(2)] == ["two", "three"]
        bob.type("/leave")
        assert await bob.finish() == 0


async def test_a_second_chat_of_the_same_user_says_that_it_is_somebody_new(
    modern_url: str, aiko: ocm.Room, tmp_path: Path
) -> None:
    async with chatting(modern_url, "bob", home=tmp_path), ocm_command(*seat(modern_url, "bob"), home=tmp_path) as bob:
        status, err = await bob.finish()
        assert status == 1
        assert err.split("\n")[0] == (
            "ocm: another ocm chat of yours is in this room: this one is somebody new, and remembers nothing."
        )
        assert "Somebody in the room has this name" in err


async def test_a_newcomer_reads_what_was_said_and_one_who_returns_does_not(
    modern_url: str, aiko: ocm.Room, tmp_path: Path
) -> None:
    await aiko.send("one")
    await aiko.send("two")
    said = ["~ aiko: one", "~ aiko: two"]
    async with chatting(modern_url, "bob", home=tmp_path) as bob:
        bob.type("hi")
        assert await next_message(aiko) == "hi"  # so that all before it is on disk, when bob is killed
        bob.type("/help")
        await bob.expect("/leave")
        assert bob.seen[2:-1] == said
    for history in ([], [*said, "~ bob: hi"]):
        async with chatting(modern_url, "bob", home=tmp_path) as bob:
            if history:
                await bob.expect(history[-1])
            bob.type("/leave")
            await bob.expect("* You have left.")
            bob.send_signal(signal.SIGKILL)  # that it has left is on disk
            await bob.finish()
            assert [line for line in bob.seen if line.startswith("~")] == history
    async with ocm_command(*seat(modern_url, "carol", "--json")) as carol:
        assert [(await carol.event("message"))["history"] for _ in range(3)] == [True] * 3


async def test_status_says_which_way_messages_travel_and_who_can_read_them(modern_url: str, aiko: ocm.Room) -> None:
    async with chatting(modern_url, "bob") as bob:
        bob.type("/status")
        await bob.expect("* Messages travel ")
        await bob.expect(badge_of(modern_url))


async def test_what_is_typed_does_not_wait_for_a_server_that_does_not_answer() -> None:
    async with serving() as (server, ready), chatting(ready["url"], "aiko", create=True) as aiko:
        aiko.type("/who")
        await aiko.expect("* Here (1): aiko")
        server.send_signal(signal.SIGSTOP)
        aiko.type("/who", "/help")
        await aiko.expect("/leave")
        assert sum("Here" in line for line in aiko.seen) == 1
        server.send_signal(signal.SIGCONT)
        await aiko.expect("* Here (1): aiko")


async def status_by_datagram(program: Program) -> dict[str, Any]:
    """Ask for the status, again and again until datagrams are known to get through; return it."""
    while True:
        program.type("/status")
        status = await program.event("status")
        if status["path"] == "udp":
            return status


async def test_status_in_json(modern_url: str, aiko: ocm.Room) -> None:
    async with ocm_command(*seat(modern_url, "bob", "--json")) as bob:
        status = await status_by_datagram(bob)
        assert status == {
            "event": "status",
            "room": "tea",
            "connection": "connected",
            "path": "udp",
            "round_trip_s": status["round_trip_s"],
            "loss": 0.0,
            "encrypted": True,
            "policy": "modern",
            "plaintext_members": 0,
        }


async def test_status_on_a_classic_server_says_that_nothing_is_encrypted(classic_url: str) -> None:
    async with chatting(classic_url, "aiko", create=True) as aiko:
        aiko.type("/status", "/kick bob", "/close")
        await aiko.expect("* Messages travel by UDP.")
        await aiko.expect("not encrypted")
        await aiko.expect("A classic server cannot do this")
        await aiko.expect("A classic server cannot do this")


async def test_the_host_removes_a_member_and_closes_the_room(modern_url: str) -> None:
    async with two_in_a_room(modern_url) as (aiko, bob):
        aiko.type("/kick nobody", "/kick bob")
        assert await aiko.line() == "* Nobody here is called nobody."
        await bob.expect("* You are out of the room: removed from the room.")
        assert (await bob.finish())[0] == 1
        assert await aiko.line() == "* bob is gone: removed from the room."
        aiko.type("/close")
        await aiko.expect("* The room is closed: closed by the host.")
        assert await aiko.finish() == (0, "")


async def test_a_guest_may_neither_remove_nor_close(modern_url: str, aiko: ocm.Room) -> None:
    async with chatting(modern_url, "bob") as bob:
        bob.type("/kick aiko", "/close", "still here")
        for _ in range(2):
            assert await bob.line() == "* Only the host of the room may do this."
        assert await next_message(aiko) == "still here"
    async with ocm_command(*seat(modern_url, "carol", "--json")) as carol:
        carol.type("/close")
        assert (await carol.event("refused"))["code"] == 403


async def test_a_mixed_room_says_who_is_not_encrypted(modern_url: str, classic_url: str) -> None:
    async with ocm_command(*seat(modern_url, "aiko", "--policy", "mixed", create=True)) as aiko:
        await aiko.expect("* Everybody here is encrypted up to the server just now")
        async with (
            ocm_command(*seat(modern_url, "bob", "--json")) as bob,
            ocm.connect(classic_url, user="carol") as client,
        ):
            assert (await bob.event("joined"))["policy"] == "mixed"
            async with client.join("tea") as carol:
                await aiko.expect("* Unencrypted members here now: 1.")
                assert (await bob.event("plaintext"))["members"] == 1
                await carol.send("hello")
                assert await aiko.line() == "! carol: hello"
                assert (await bob.event("message"))["plaintext"] is True
                bob.type("hello")
                assert await aiko.line() == "bob: hello"
            await aiko.expect("* No unencrypted members here any more.")
            assert (await bob.event("plaintext"))["members"] == 0


async def test_a_room_is_closed_to_the_classic_profile_unless_it_is_made_mixed(
    modern_url: str, classic_url: str, aiko: ocm.Room
) -> None:
    async with ocm_command(*seat(classic_url, "bob")) as bob:
        status, err = await bob.finish()
    assert (status, err.count("\n")) == (1, 1)
