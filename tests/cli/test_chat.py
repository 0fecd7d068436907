"""``ocm chat`` as a process, alone and with others."""

import asyncio
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path

import pytest

from ocm.cli.lines import LINE_SIZE_MAX
from tests.cli.hostile import HOSTILE, controls
from tests.cli.program import (
    Program,
    badge_of,
    chatting,
    environment,
    ocm_command,
    on_terminal,
    run_ocm,
    same_ports,
    seat,
    serving,
    two_in_a_room,
    url_of,
)

JAPANESE = {"LANG": "ja_JP.UTF-8"}


async def test_two_people_chat_through_pipes(url: str) -> None:
    async with two_in_a_room(url) as (aiko, bob):
        badge = badge_of(url)
        made = "* You have made the room tea and are its host, as aiko. It closes when you leave."
        assert aiko.seen == [made, badge, "* bob has joined."]
        assert bob.seen == ["* You are in the room tea, as bob.", badge]
        aiko.type("hello", "", "//who")
        assert await bob.line() == "aiko: hello"
        assert await bob.line() == "aiko: /who"
        bob.type("こんにちは\r")
        assert await aiko.line() == "bob: こんにちは"
        bob.type("/who", "/nonsense at all", "/help")
        assert await bob.line() == "* Here (2): aiko, bob"
        assert "/nonsense is no command, and was not sent" in await bob.line()
        assert "/leave" in await bob.line()
        bob.type("bye", "/quit")
        assert await bob.line() == "* You have left."
        assert await bob.finish() == (0, "")
        assert await aiko.line() == "bob: bye"
        assert await aiko.line() == "* bob is gone: left."


async def test_nothing_a_peer_writes_acts_on_the_screen(url: str) -> None:
    async with two_in_a_room(url) as (aiko, bob):
        bob.type("\x1b[2J\u202eevil\x9b31m\u2028aiko: I agree")
        assert await aiko.line() == "bob: \ufffd[2J\ufffdevil\ufffd31m\ufffdaiko: I agree"


async def test_programs_get_one_object_per_line(url: str) -> None:
    is_modern = url.startswith("tcrps://")
    here = {"room": "tea"}
    privacy = {"encrypted": is_modern, "policy": "modern" if is_modern else None}
    count = {"plaintext_members": 0 if is_modern else None}
    async with ocm_command(*seat(url, "aiko", "--json", create=True)) as aiko:
        joined = await aiko.event("joined")
        assert joined["path"] in {"udp", "tls"}
        state = {"path": joined["path"], "returned": False}
        assert joined == here | privacy | count | state | {"event": "joined", "user": "aiko", "host": True}
        async with ocm_command(*seat(url, "bob", "--json")) as bob:
            assert (await bob.event("joined"))["host"] is False
            assert await aiko.event("member_joined") == here | {"event": "member_joined", "user": "bob"}
            bob.type("one\x1b\u2028two")
            message = await aiko.event("message")
            logged = ("seq", "time_ms", "history", "plaintext") if is_modern else ()
            assert message == here | {"event": "message", "user": "bob", "text": "one\x1b\u2028two"} | {
                key: message[key] for key in logged
            }
            assert message.get("history", False) is message.get("plaintext", False) is False
            receipt = await bob.event("receipt")
            settled = {"state": "in_room", "seq": message["seq"]} if is_modern else {"state": "sent"}
            said = {"event": "receipt", "user": "bob", "text": "one\x1b\u2028two"}
            assert receipt == here | said | settled | {"message_id": receipt["message_id"]}
            bob.type("/who", "/nonsense", "x" * (LINE_SIZE_MAX + 1))
            bob.write(b"\xff\n")
            assert (await bob.event("who"))["members"] == ["aiko", "bob"]
            assert (await bob.event("refused"))["code"] == "unknown_command"
            assert (await bob.event("refused"))["code"] == "too_large"
            assert (await bob.event("refused"))["code"] == "not_text"
            bob.end_input()
            assert (await bob.event("left"))["unsent"] == 0
            assert await bob.finish() == (0, "")
        assert (await aiko.event("member_left"))["reason"] == "bye"


async def test_a_long_line_is_one_message_or_refused_as_its_profile_says(url: str) -> None:
    long = "x" * 5000
    async with two_in_a_room(url) as (aiko, bob):
        bob.type(long, "short")
        if url.startswith("tcrps://"):
            assert await aiko.line() == f"bob: {long}"
        else:
            await bob.expect("Not sent: the line is longer than one message can be.")
        assert await aiko.line() == "bob: short"


async def test_no_hostile_text_acts_on_a_screen_or_makes_a_second_line(url: str) -> None:
    texts = [text for text in HOSTILE if text.strip() and "\n" not in text]
    sent = [text for text in texts if not any(0xD800 <= ord(char) < 0xE000 for char in text)]
    async with two_in_a_room(url) as (aiko, bob):
        bob.type(*sent, "the end")
        shown = [await aiko.line() for _ in sent]
        assert await aiko.line() == "bob: the end"
    assert all(line.startswith("bob: ") for line in shown)
    assert [line for line in shown if controls(line)] == []


async def test_the_room_closes_with_its_host(url: str) -> None:
    async with two_in_a_room(url) as (aiko, bob):
        aiko.end_input()
        assert await aiko.finish() == (0, "")
        await bob.expect("* The room is closed: the host has gone.")
        assert await bob.finish() == (0, "")  # though its stdin is open


@pytest.mark.parametrize(("env", "words"), [({}, "no such room"), (JAPANESE, "その部屋はない")])
async def test_a_refused_join_is_one_line_and_exit_1(url: str, env: dict[str, str], words: str) -> None:
    status, out, err = await run_ocm(*seat(url, "aiko"), env=env)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert words in err


async def test_refusals_in_json_carry_the_code(url: str) -> None:
    async with chatting(url, "aiko", create=True), ocm_command(*seat(url, "aiko", "--json")) as second:
        refused = await second.event("refused")
        assert (refused["code"], refused["user"]) == (433, "aiko")
        assert (await second.finish())[0] == 1


async def test_an_unreachable_server_is_one_line() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        status, out, err = await run_ocm(*seat(f"tcrp://127.0.0.1:{unused.getsockname()[1]}", "aiko"))
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "nobody answers" in err


async def test_something_else_that_answers_is_one_line() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        status, out, err = await run_ocm(*seat(f"tcrp://127.0.0.1:{port}", "aiko"))
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "no chat server" in err


async def test_a_file_of_500_lines_arrives_whole(url: str) -> None:
    lines = [f"line {number} あ" for number in range(500)]
    with tempfile.TemporaryFile() as file:
        file.write("\n".join(lines).encode())
        file.seek(0)
        async with (
            chatting(url, "aiko", create=True) as aiko,
            ocm_command(*seat(url, "bob"), stdin=file.fileno()) as bob,
        ):
            assert await aiko.expect("bob has joined")
            assert [await aiko.line() for _ in lines] == [f"bob: {line}" for line in lines]
            assert await bob.finish() == (0, "")


async def test_the_null_device_enters_and_leaves(classic_url: str) -> None:
    status, out, err = await run_ocm(*seat(classic_url, "aiko", create=True))
    assert (status, err) == (0, "")
    assert "You have left" in out


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&- 2>&-"])
async def test_closed_files_are_no_trouble(classic_url: str, closed: str, tmp_path: Path) -> None:
    command = f'exec python -m ocm "$@" {closed}'
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", command, "sh", *seat(classic_url, "aiko", create=True)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(tmp_path) | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    _, err = await asyncio.wait_for(process.communicate(), 20)
    assert (process.returncode, err) == (0, b"")


async def test_a_broken_stdout_ends_it_without_a_word(url: str) -> None:
    async with two_in_a_room(url) as (aiko, bob):
        bob.close_output()
        aiko.type("are you there?")
        status, err = await bob.finish()
        assert (status, err) == (1, "")
        assert await aiko.line() == "* bob is gone: left."


@pytest.mark.parametrize(("arguments", "env"), [(["--lang", "ja"], {}), ([], JAPANESE)])
async def test_it_speaks_japanese(classic_url: str, arguments: list[str], env: dict[str, str]) -> None:
    async with ocm_command(*seat(classic_url, "aiko", create=True), *arguments, env=env) as aiko:
        await aiko.expect("部屋 tea を作りました")
        aiko.type("/leave")
        assert await aiko.line() == "* この部屋は暗号化されていません。ネットワークを見られる人には内容が読めます。"
        assert await aiko.line() == "* 退出しました。"


async def test_a_screen_that_knows_ascii_only_gets_escapes(classic_url: str) -> None:
    async with ocm_command(
        *seat(classic_url, "aiko", "--lang", "ja", create=True), env={"PYTHONIOENCODING": "ascii"}
    ) as aiko:
        assert "\\u90e8\\u5c4b tea" in await aiko.line()


async def test_what_is_not_given_is_asked_until_it_can_be_used(classic_url: str) -> None:
    async with ocm_command("chat") as aiko:
        aiko.type("http://example.org", classic_url, "3", "１", "server", "aiko", " ", "tea")
        await aiko.expect("Server (Enter for tcrps://localhost:12345):")
        await aiko.expect("* http://example.org is not the address of a server")
        await aiko.expect("1 to create")
        await aiko.expect("* Please type 1 or 2.")
        await aiko.expect("Your name:")
        await aiko.expect("* This cannot be a user name")
        await aiko.expect("Name of the room:")
        await aiko.expect("* This cannot be the name of a room")
        await aiko.expect("You have made the room tea")
        async with ocm_command("chat", classic_url) as bob:
            bob.type("1", "bob", "tea", "2", "tea")
            await bob.expect("* A room of this name exists already")
            await bob.expect("You are in the room tea, as bob.")
            async with ocm_command("chat", f"{classic_url.replace('?', '/tea?')}", "--join") as other:
                other.type("bob")
                await other.expect("* Somebody in the room has this name")
                other.type("other")
                await other.expect("You are in the room tea, as other.")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "stdin ended"),
        (["--create", "--join"], "not both"),
        (["--json"], "nothing is asked"),
        (["https://example.org", "--join"], "not the address of a server"),
        (["--user", "server"], "cannot be a user name"),
        (["--room", "x" * 256], "cannot be the name of a room"),
        (["tcrp://[::1]", "--create", "--policy", "mixed"], "--policy is for encrypted servers"),
        (["tcrps://[::1]", "--join", "--policy", "modern"], "--policy is for --create"),
        (["tcrp://[::1]", "--join", "--policy", "modern"], "--policy is for encrypted servers"),
        (["--password-file", "/nowhere"], "cannot read a password"),
        (["--nonsense"], "See: ocm chat --help"),
    ],
)
async def test_misuse_is_one_line_and_exit_2(arguments: list[str], part: str) -> None:
    status, _, err = await run_ocm("chat", *arguments)
    assert (status, err.count("\n")) == (2, 1)
    assert part in err


async def test_the_environment_answers_and_options_beat_it(classic_url: str) -> None:
    env = {"OCM_URL": classic_url, "OCM_ROOM": "tea", "OCM_USER": "aiko"}
    async with ocm_command("chat", "--create", env=env) as aiko:
        await aiko.expect("You have made the room tea and are its host, as aiko.")
        async with ocm_command("chat", "--join", "--user", "bob", env=env) as bob:
            await bob.expect("You are in the room tea, as bob.")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupt_leaves_politely_whatever_waits_to_be_sent(url: str, number: signal.Signals) -> None:
    async with two_in_a_room(url) as (aiko, bob):
        bob.type(*(f"line {count}" for count in range(600)))
        await aiko.expect("bob: line 100")
        bob.send_signal(number)
        async with asyncio.timeout(5):
            status, err = await bob.finish()
        assert (status, err) == (0, "")
        assert any("Your last messages are not known to have arrived: " in line for line in bob.seen)
        assert await aiko.expect("bob is gone") == "* bob is gone: left."


async def test_an_interrupt_at_a_question_ends_with_1() -> None:
    async with ocm_command("chat") as program:
        await program.expect("Server")
        program.send_signal(signal.SIGINT)
        assert await program.finish() == (1, "")


async def test_a_killed_classic_server_that_comes_back_is_found_again() -> None:
    async with serving() as (server, ready), two_in_a_room(url_of(ready, "classic")) as (aiko, bob):
        await until_attached(aiko)
        await until_attached(bob)
        server.send_signal(signal.SIGKILL)
        await aiko.expect("The connection is lost")
        await bob.expect("The connection is lost")
        async with serving(*same_ports(ready)):
            await aiko.expect("Connected again")
            await bob.expect("Connected again")
            bob.type("back")
            assert await aiko.expect("bob:") == "bob: back"


async def test_a_killed_server_that_comes_back_with_its_data_has_lost_nothing(tmp_path: Path) -> None:
    kept = ("--data-dir", str(tmp_path / "data"))
    async with serving(*kept) as (server, ready), two_in_a_room(ready["url"]) as (aiko, bob):
        bob.type("before")
        assert await aiko.line() == "bob: before"
        server.send_signal(signal.SIGKILL)
        await server.finish()
        bob.type("meanwhile")
        async with serving(*kept, *same_ports(ready)):
            bob.type("after")
            assert await aiko.expect("bob:") == "bob: meanwhile"
            assert await aiko.expect("bob:") == "bob: after"
            async with chatting(ready["url"], "carol") as carol:
                assert [await carol.line() for _ in range(3)] == ["~ bob: before", "~ bob: meanwhile", "~ bob: after"]


async def until_attached(program: Program) -> None:
    """Wait until the connection is kept: only then is the answer the server's, with everybody in it."""
    while True:
        program.type("/who")
        if "(2)" in await program.expect("Here ("):
            return


async def test_a_narrow_terminal_cuts_no_word(classic_url: str, tmp_path: Path) -> None:
    command = ("chat", classic_url, "--create", "--user", "aiko", "--room", "tea")
    async with on_terminal(*command, home=tmp_path, columns=40) as aiko:
        await aiko.until("You have made the room tea")
        async with chatting(classic_url, "bob") as bob:
            await aiko.until("bob has joined.")
            bob.type("a message that does not fit into one line of a screen as narrow as that")
            shown = await aiko.until("as that")
        assert shown.strip() == "bob: a message that does not fit into\r\n  one line of a screen as narrow as that"


async def test_a_terminal_is_asked_on_one_line_and_keeps_its_flags(classic_url: str, tmp_path: Path) -> None:
    async with on_terminal("chat", classic_url, "--create", "--user", "aiko", home=tmp_path) as aiko:
        await aiko.until("Name of the room: ")
        aiko.type("tea")
        assert "not encrypted" in await aiko.until("/help shows the commands.")
        assert os.get_blocking(aiko.leader)
        aiko.type("/quit")
        await aiko.until("* You have left.")
        assert await aiko.finish() == 0
