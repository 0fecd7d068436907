"""Hosts of our own, in network namespaces: what an address proves, seen from more than one address.

Needs root and ``ip netns``; part of ``make campaign``, since it changes the machine (and puts it back).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager

import pytest

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and iproute2"),
]

# A member by hand: joins, binds its UDP socket to the TCP port number, prints its token, then obeys lines of stdin.
MEMBER = """
import json, socket, sys
host, tcp, udp, operation, room, user = sys.argv[1:7]
family = socket.AF_INET6 if ":" in host else socket.AF_INET
stream = socket.socket(family, socket.SOCK_STREAM); stream.connect((host, int(tcp)))
body = json.dumps({"user": user}).encode()
stream.sendall(bytes([len(room), int(operation), 0]) + len(body).to_bytes(29, "big") + room.encode() + body)
def packet():
    head = stream.recv(32, socket.MSG_WAITALL)
    return stream.recv(head[0] + int.from_bytes(head[3:], "big"), socket.MSG_WAITALL)[head[0]:]
packet(); token = json.loads(packet())["user_token"]
port = socket.socket(family, socket.SOCK_DGRAM); port.bind(("", stream.getsockname()[1])); port.settimeout(1.5)
print(json.dumps({"token": token}), flush=True)
for line in sys.stdin:
    verb, _, rest = line.rstrip("\\n").partition(" ")
    if verb == "say":
        port.sendto(bytes([len(room), 64]) + room.encode() + token.encode() + rest.encode(), (host, int(udp)))
    else:
        try:
            while (datagram := port.recv(4096)).endswith(b" joined"): pass
            print(datagram[2 + datagram[0] + datagram[1]:].decode(), flush=True)
        except TimeoutError:
            print("nothing", flush=True)
"""

# Somebody with another member's token, and an ear.
THIEF = """
import socket, sys
host, udp, room, token = sys.argv[1:5]
family = socket.AF_INET6 if ":" in host else socket.AF_INET
port = socket.socket(family, socket.SOCK_DGRAM); port.settimeout(1.5)
port.sendto(bytes([len(room), len(token)]) + room.encode() + token.encode() + b"stolen", (host, int(udp)))
try:
    print(len(port.recv(4096)))
except TimeoutError:
    print(0)
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextmanager
def hosts(*names: str) -> Generator[None]:
    """Make a namespace for each name, all on one bridge inside the first; 10.77.0.N and fd77::N are theirs."""
    with ExitStack() as stack:
        for name in names:
            ip("netns", "add", name)
            stack.callback(ip, "netns", "del", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", names[0], "link", "add", "bridge0", "type", "bridge")
        ip("-n", names[0], "link", "set", "bridge0", "up")
        for number, name in enumerate(names, 1):
            ip(
                "link",
                "add",
                f"ocm{number}a",
                "netns",
                names[0],
                "type",
                "veth",
                "peer",
                f"ocm{number}b",
                "netns",
                name,
            )
            ip("-n", names[0], "link", "set", f"ocm{number}a", "master", "bridge0", "up")
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", f"ocm{number}b")
            ip("-n", name, "addr", "add", f"fd77::{number}/64", "dev", f"ocm{number}b", "nodad")
            ip("-n", name, "link", "set", f"ocm{number}b", "up")
        yield


class Program:
    """A Python program in a namespace, talked to by lines."""

    def __init__(self, name: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", name, sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.communicate(timeout=10)


@pytest.mark.parametrize("server_host", ["10.77.0.1", "fd77::1"])
def test_a_right_token_from_another_host_is_worth_nothing(server_host: str) -> None:
    serve = ("-m", "ocm", "serve", "--port", "0", "--udp-port", "0", "--json")
    with hosts("ocm-server", "ocm-alice", "ocm-bob", "ocm-mallory"), Program("ocm-server", *serve) as server:
        where = json.loads(server.line())
        tcp_port, udp_port = str(where["tcp_port"]), str(where["udp_port"])
        address = (server_host, tcp_port, udp_port)
        with (
            Program("ocm-alice", "-c", MEMBER, *address, "1", "room1", "alice") as alice,
        ):
            token = json.loads(alice.line())["token"]
            with Program("ocm-bob", "-c", MEMBER, *address, "2", "room1", "bob") as bob:
                assert json.loads(bob.line())["token"] != token
                with Program("ocm-mallory", "-c", THIEF, server_host, udp_port, "room1", token) as mallory:
                    assert mallory.line() == "0"
                alice.tell("say hello")
                bob.tell("hear")
                assert bob.line() == "hello", "not what was said with the stolen token"
                bob.tell("say hi alice")
                alice.tell("hear")
                assert alice.line() == "hi alice"
