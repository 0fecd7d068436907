"""Whether a server is the one it should be: pins, servers that are known, a person who is asked."""

import json
import socket
import stat
from pathlib import Path

import pytest

import ocm
from ocm.cli.trust import grouped
from tests.cli.program import badge_of, chatting, ocm_command, on_terminal, run_ocm, seat
from tests.security import Authority

KNOWN = Path(".local/state/ocm/known_servers")
ANOTHER_KEY = "ab" * 32
QUESTION = "Is it what ocm serve shows there? (yes/no) "


def without_pin(url: str) -> str:
    return url.partition("#")[0]


def remember(home: Path, text: str) -> None:
    """Have a home where this stands in the file of known servers."""
    (home / KNOWN).parent.mkdir(parents=True)
    (home / KNOWN).write_text(text)


async def test_an_unknown_server_is_refused_where_nobody_can_be_asked(server: ocm.EmbeddedServer) -> None:
    status, out, err = await run_ocm(*seat(without_pin(server.url), "aiko", create=True))
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert server.url in err
    assert str(server.fingerprint) in err


async def test_programs_hear_of_an_unknown_server_in_json(modern_url: str) -> None:
    status, out, err = await run_ocm(*seat(without_pin(modern_url), "aiko", "--json", create=True))
    assert (status, err.count("\n")) == (1, 1)
    told = json.loads(out)
    assert (told["event"], told["code"]) == ("error", "untrusted")
    assert modern_url in told["reason"]


async def test_a_person_who_says_yes_is_not_asked_again(server: ocm.EmbeddedServer, tmp_path: Path) -> None:
    command = seat(without_pin(server.url), "aiko", create=True)
    async with on_terminal(*command, home=tmp_path) as aiko:
        shown = await aiko.until(QUESTION)
        for line in grouped(str(server.fingerprint)).split("\n"):
            assert f"    {line}\r\n" in shown
        for unclear in ("", "y", "hello"):
            aiko.type(unclear)
            assert "type yes or no" in await aiko.until(QUESTION)
        aiko.type("yes")
        await aiko.until(badge_of(server.url))
        aiko.type("/leave")
        await aiko.until("You have left.")
        assert await aiko.finish() == 0
    kept = tmp_path / KNOWN
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert kept.read_text() == f"127.0.0.1:{server.tcp_port} {server.fingerprint}\n"
    async with on_terminal(*command, home=tmp_path) as aiko:
        assert QUESTION not in await aiko.until(badge_of(server.url))
        async with chatting(without_pin(server.url), "bob", home=tmp_path):
            pass  # in a pipe, too


async def test_a_person_may_type_the_fingerprint_instead(server: ocm.EmbeddedServer, tmp_path: Path) -> None:
    async with on_terminal(*seat(without_pin(server.url), "aiko", create=True), home=tmp_path) as aiko:
        await aiko.until(QUESTION)
        aiko.type(grouped(str(server.fingerprint)).replace("\n", " ").upper())
        await aiko.until(badge_of(server.url))


@pytest.mark.parametrize("answer", ["no", "N", ANOTHER_KEY])
async def test_who_says_no_or_knows_another_key_is_not_connected_and_nothing_is_kept(
    modern_url: str, answer: str, tmp_path: Path
) -> None:
    async with on_terminal(*seat(without_pin(modern_url), "aiko", create=True), home=tmp_path) as aiko:
        await aiko.until(QUESTION)
        aiko.type(answer)
        await aiko.until("ocm: not connected")
        assert await aiko.finish() == 1
    assert not (tmp_path / KNOWN).exists()


async def test_a_known_server_with_another_key_is_refused_loudly_and_stays_known_by_its_old_one(
    server: ocm.EmbeddedServer, tmp_path: Path
) -> None:
    known = f"another:1 {ANOTHER_KEY}\n127.0.0.1:{server.tcp_port} {ANOTHER_KEY}\n"
    remember(tmp_path, known)
    status, out, err = await run_ocm(*seat(without_pin(server.url), "aiko", create=True), home=tmp_path)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "NOT CONNECTED" in err
    assert "has another key than it had before" in err
    assert str(server.fingerprint) in err
    assert str(tmp_path / KNOWN) in err
    assert (tmp_path / KNOWN).read_text() == known
    async with on_terminal(*seat(without_pin(server.url), "aiko", create=True), home=tmp_path) as aiko:
        assert "(yes/no)" not in await aiko.until("NOT CONNECTED")
        assert await aiko.finish() == 1


async def test_a_wrong_pin_is_refused_and_nothing_is_asked(modern_url: str) -> None:
    status, out, err = await run_ocm(*seat(f"{without_pin(modern_url)}#fp={ANOTHER_KEY}", "aiko", create=True))
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "has another key than the one in its address" in err


async def test_a_right_pin_asks_nothing_and_keeps_nothing_in_the_file(modern_url: str, tmp_path: Path) -> None:
    async with on_terminal(*seat(modern_url, "aiko", create=True), home=tmp_path) as aiko:
        assert QUESTION not in await aiko.until(badge_of(modern_url))
    assert not (tmp_path / KNOWN).exists()


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1:1",
        f"a b {ANOTHER_KEY}",
        f"127.0.0.1:1 {ANOTHER_KEY}0",
        f"ok:1 {ANOTHER_KEY}\n\x1b[2J",
        "\ud800",
        "\n" * 5 * 2**20,
    ],
)
async def test_a_broken_file_of_known_servers_is_one_line(modern_url: str, text: str, tmp_path: Path) -> None:
    remember(tmp_path, "")
    (tmp_path / KNOWN).write_bytes(text.encode(errors="surrogatepass"))
    status, out, err = await run_ocm(*seat(without_pin(modern_url), "aiko", create=True), home=tmp_path)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert f"cannot use the file of known servers {tmp_path / KNOWN}" in err


async def test_there_is_no_way_back_to_the_classic_profile() -> None:
    async with ocm.serve("tcrp://127.0.0.1:0") as server:
        status, out, err = await run_ocm(*seat(f"tcrps://127.0.0.1:{server.tcp_port}", "aiko", create=True))
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert "does not speak the encrypted profile" in err
        assert server.status().hub.rooms == 0


async def test_nobody_at_an_encrypted_address_is_one_line() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        status, out, err = await run_ocm(*seat(f"tcrps://127.0.0.1:{unused.getsockname()[1]}", "aiko"))
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "nobody answers" in err


async def test_a_server_that_an_authority_vouches_for_is_entered_without_a_question(tmp_path: Path) -> None:
    authority = Authority()
    env = {"SSL_CERT_FILE": str(authority.keep(tmp_path / "authority.pem"))}
    certificate = authority.vouch_for("localhost")
    async with ocm.serve("tcrps://localhost:0", certificate=certificate) as server:
        assert server.classic_url is None
        command = seat(f"localhost:{server.tcp_port}", "aiko", create=True)
        async with ocm_command(*command, "--json", env=env, home=tmp_path) as aiko:
            aiko.type("hello")
            await aiko.event("receipt")  # so that all before it is on disk
        async with ocm_command(*command, env=env, home=tmp_path) as aiko:  # it was killed, and is remembered
            assert await aiko.line() == "* You are back in the room tea, as aiko."
        status, _, err = await run_ocm(*seat(f"127.0.0.1:{server.tcp_port}", "aiko"), env=env)  # by another name
        assert (status, "no authority vouches for it" in err) == (1, True)
        port = server.tcp_port
    async with ocm.serve(f"tcrps://localhost:{port}", udp_port=0) as server:
        status, _, err = await run_ocm(*command, env=env, home=tmp_path)
        assert (status, err.count("\n")) == (1, 1)
        assert "is not known here" in err
    assert not (tmp_path / KNOWN).exists()
