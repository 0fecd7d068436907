"""``ocm serve`` as a process."""

import asyncio
import hashlib
import signal
import socket
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

import ocm
from ocm.cli.machine import machine_addresses
from ocm.protocol.address import is_local_network, make_address
from tests.cli.program import PROFILES, chatting, ocm_command, run_ocm, seat, serving, url_of


async def test_json_tells_where_the_server_is_once_both_ports_accept() -> None:
    async with serving() as (program, ready):
        tcp_port, udp_port, fingerprint = ready["tcp_port"], ready["udp_port"], ready["fingerprint"]
        url = f"tcrps://127.0.0.1:{tcp_port}#fp={fingerprint}"
        assert ready == {
            "url": url,
            "host": "127.0.0.1",
            "tcp_port": tcp_port,
            "udp_port": udp_port,
            "fingerprint": fingerprint,
            "classic": "loopback",
            "join": [url],
            "join_classic": [f"tcrp://127.0.0.1:{tcp_port}?udp={udp_port}"],
        }
        assert len(bytes.fromhex(fingerprint)) == 32
        with socket.create_connection((ready["host"], tcp_port)):
            program.send_signal(signal.SIGINT)
            assert await program.finish() == (0, "")
        assert len(program.seen) == 1


async def test_people_are_told_how_to_join() -> None:
    async with ocm_command("serve", "--port", "0", "--udp-port", "0") as program:
        await program.expect("The fingerprint of the server's key")
        await program.expect("To join")
        line = await program.line()
        assert line.startswith('    ocm chat "tcrps://localhost:')
        assert "#fp=" in line
        await program.expect("not encrypted")
        await program.expect('    ocm chat "tcrp://localhost:')
        await program.expect("--classic lan")
        await program.expect("Ctrl-C")
        program.send_signal(signal.SIGTERM)
        status, err = await program.finish()
        assert (status, err) == (0, "")


@pytest.mark.parametrize("profile", PROFILES)
async def test_sigterm_tells_the_members_and_ends_well(profile: str) -> None:
    async with serving() as (server, ready), chatting(url_of(ready, profile), "aiko", create=True) as aiko:
        server.send_signal(signal.SIGTERM)
        async with asyncio.timeout(5):
            assert (await server.finish())[0] == 0
        await aiko.expect("The room is closed: the server is stopping")
        assert await aiko.finish() == (0, "")


async def test_a_server_may_do_without_the_classic_profile() -> None:
    async with serving("--classic", "off") as (_, ready):
        assert (ready["classic"], ready["join_classic"]) == ("off", [])
        async with chatting(ready["url"], "aiko", create=True):
            classic = f"tcrp://127.0.0.1:{ready['tcp_port']}?udp={ready['udp_port']}"
            status, out, err = await run_ocm(*seat(classic, "bob"))
            assert (status, out, err.count("\n")) == (1, "", 1)


async def test_a_server_keeps_its_key_for_its_user_or_in_its_data_directory(tmp_path: Path) -> None:
    places: Mapping[str, tuple[tuple[str, ...], Mapping[str, str]]] = {
        "xdg": ((), {"XDG_DATA_HOME": str(tmp_path / "share")}),
        "data": (("--data-dir", str(tmp_path / "data")), {}),
    }
    seen: set[str] = set()
    for options, env in places.values():
        fingerprints: list[str] = []
        for _ in range(2):
            async with serving(*options, env=env, home=tmp_path) as (_, ready):
                fingerprints.append(ready["fingerprint"])
        assert fingerprints[0] == fingerprints[1]
        seen.update(fingerprints)
    assert len(seen) == len(places)


def write_certificate(folder: Path, name: str) -> tuple[Path, Path, str]:
    """Make a certificate as an operator has one; return its file, its key's file and its key's fingerprint."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, SHA256())
    )
    certificate_path, key_path = folder / f"{name}.crt", folder / f"{name}.key"
    certificate_path.write_bytes(certificate.public_bytes(Encoding.PEM))
    key_path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return certificate_path, key_path, hashlib.sha256(public).hexdigest()


async def test_an_operators_own_certificate_is_used_and_turns_the_classic_profile_off(tmp_path: Path) -> None:
    certificate, key, fingerprint = write_certificate(tmp_path, "own")
    async with serving("--cert", str(certificate), "--key", str(key)) as (_, ready):
        assert (ready["fingerprint"], ready["classic"], ready["join_classic"]) == (fingerprint, "off", [])
        async with chatting(ready["url"], "aiko", create=True):
            pass


async def test_a_certificate_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    certificate, key, _ = write_certificate(tmp_path, "own")
    _, other_key, _ = write_certificate(tmp_path, "other")
    for cert_option, key_option, status, part in (
        (certificate, other_key, 1, "is not the key of the certificate"),
        (tmp_path / "nowhere", key, 1, "cannot be read"),
        (certificate, tmp_path / "nowhere", 1, "cannot be read"),
        (certificate, None, 2, "--cert and --key go together"),
        (None, key, 2, "--cert and --key go together"),
    ):
        options = [] if cert_option is None else ["--cert", str(cert_option)]
        options += [] if key_option is None else ["--key", str(key_option)]
        result, out, err = await run_ocm("serve", "--port", "0", "--udp-port", "0", *options)
        assert (result, out, err.count("\n")) == (status, "", 1)
        assert part in err


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


@pytest.mark.parametrize("profile", PROFILES)
async def test_limits_hold(profile: str) -> None:
    async with serving("--max-members", "1", "--max-rooms", "1") as (_, ready):
        url = url_of(ready, profile)
        async with chatting(url, "aiko", create=True):
            assert (await run_ocm(*seat(url, "bob")))[2] == "ocm: The room is full.\n"
            _, _, err = await run_ocm(*seat(url, "bob", room="other", create=True))
            assert "as many rooms" in err


async def test_who_is_silent_is_removed() -> None:
    async with (
        serving("--idle-timeout", "1") as (_, ready),
        chatting(url_of(ready, "classic"), "aiko", create=True) as aiko,
    ):
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
