"""``ocm serve`` as a process."""

import asyncio
import signal
import socket
from pathlib import Path

import pytest

import ocm
from ocm.cli.machine import machine_addresses
from ocm.protocol.address import is_local_network, make_address
from tests.cli.program import ocm_command, run_ocm, seat, serving


async def test_json_tells_where_the_server_is_once_both_ports_accept() -> None:
    async with serving() as (program, ready):
        assert ready["url"] == f"tcrp://127.0.0.1:{ready['tcp_port']}?udp={ready['udp_port']}"
        assert (ready["host"], ready["fingerprint"], ready["classic"]) == ("127.0.0.1", None, "lan")
        with socket.create_connection((ready["host"], ready["tcp_port"])):
            program.send_signal(signal.SIGINT)
            assert await program.finish() == (0, "")
        assert len(program.seen) == 1


async def test_people_are_told_how_to_join() -> None:
    async with ocm_command("serve", "--port", "0", "--udp-port", "0") as program:
        await program.expect("To join")
        line = await program.line()
        assert line.startswith('    ocm chat "tcrp://localhost:')
        await program.expect("not encrypted")
        await program.expect("Ctrl-C")
        program.send_signal(signal.SIGTERM)
        status, err = await program.finish()
        assert (status, err) == (0, "")


async def test_sigterm_tells_the_members_and_ends_well() -> None:
    async with serving() as (server, ready), ocm_command(*seat(ready["url"], "aiko", create=True)) as aiko:
        await aiko.expect("not encrypted")
        server.send_signal(signal.SIGTERM)
        async with asyncio.timeout(5):
            assert (await server.finish())[0] == 0
        await aiko.expect("The room is closed: the server is stopping")
        assert await aiko.finish() == (0, "")


@pytest.mark.parametrize("kind", ["TCP", "UDP"])
async def test_a_port_in_use_is_one_line_that_says_what_to_do(kind: str) -> None:
    what, option = (socket.SOCK_STREAM, "--port") if kind == "TCP" else (socket.SOCK_DGRAM, "--udp-port")
    with socket.socket(socket.AF_INET, what) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind == "TCP":
            taken.listen()
        port = taken.getsockname()[1]
        ports = {"--port": "0", "--udp-port": "0"} | {option: str(port)}
        options = [word for pair in ports.items() for word in pair]
        status, out, err = await run_ocm("serve", "--host", "127.0.0.1", *options)
    assert (status, out) == (1, "")
    assert err == (
        f"ocm: port {port} is already in use by another program ({kind}). "
        f"Choose another with {option}, or {option} 0.\n"
    )


async def test_a_data_directory_serves_one_server(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "data"
    async with serving("--data-dir", str(directory)):
        status, _, err = await run_ocm("serve", "--port", "0", "--udp-port", "0", "--data-dir", str(directory))
        assert status == 1
        assert err == f"ocm: another server uses the directory {directory}. Give this one its own with --data-dir.\n"
    async with serving("--data-dir", str(directory)):
        pass
    (tmp_path / "file").touch()
    status, _, err = await run_ocm("serve", "--port", "0", "--udp-port", "0", "--data-dir", str(tmp_path / "file"))
    assert (status, err.count("\n"), "File exists" in err) == (1, 1, True)


@pytest.mark.parametrize(
    ("options", "status", "part"),
    [
        (["--classic", "off"], 2, "only the classic profile"),
        (["--host", "192.0.2.99"], 1, "cannot listen on 192.0.2.99"),
        (["--host", "a/b"], 2, "not a host name"),
        (["--port", "70000"], 2, "See: ocm serve --help"),
        (["--idle-timeout", "0"], 2, "See: ocm serve --help"),
        (["--idle-timeout", "nan"], 2, "See: ocm serve --help"),
        (["--max-rooms", "0"], 2, "See: ocm serve --help"),
    ],
)
async def test_what_cannot_be_served_is_one_line(options: list[str], status: int, part: str) -> None:
    result, out, err = await run_ocm("serve", "--port", "0", "--udp-port", "0", *options)
    assert (result, out, err.count("\n")) == (status, "", 1)
    assert part in err


async def test_limits_hold() -> None:
    async with (
        serving("--max-members", "1", "--max-rooms", "1", "--idle-timeout", "2") as (_, ready),
        ocm_command(*seat(ready["url"], "aiko", create=True)) as aiko,
    ):
        await aiko.expect("not encrypted")
        assert (await run_ocm(*seat(ready["url"], "bob")))[2] == "ocm: The room is full.\n"
        _, _, err = await run_ocm(*seat(ready["url"], "bob", room="other", create=True))
        assert "as many rooms" in err
        await aiko.expect("silent too long")


@pytest.mark.parametrize(
    ("host", "is_near"),
    [
        ("127.3.2.1", True),
        ("10.255.0.1", True),
        ("172.16.0.1", True),
        ("172.31.255.255", True),
        ("192.168.1.5", True),
        ("169.254.1.1", True),
        ("::1", True),
        ("fd00::1", True),
        ("fe80::1%2", True),
        ("::ffff:192.168.1.5", True),
        ("172.32.0.1", False),
        ("192.169.0.1", False),
        ("8.8.8.8", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("::", False),
        ("2001:db8::1", False),
        ("fec0::1", False),
        ("::ffff:8.8.8.8", False),
    ],
)
def test_the_local_network_is_loopback_private_and_link_local(host: str, is_near: bool) -> None:
    assert is_local_network(make_address(host, 1)) is is_near


async def test_who_is_not_admitted_is_hung_up_on() -> None:
    admitted = False
    async with (
        ocm.serve("tcrp://127.0.0.1:0", admits=lambda _: admitted) as server,
        ocm.connect(server.url, user="aiko") as client,
    ):
        with pytest.raises(ocm.TransportClosed):
            await client.create("tea").__aenter__()
        assert server.status().connections == 0
        admitted = True
        async with client.create("tea"):
            pass


def test_addresses_of_this_machine_are_those_that_others_can_reach() -> None:
    for host in machine_addresses():
        make_address(host, 0)
        assert not host.startswith(("127.", "fe80:"))
        assert host != "::1"
