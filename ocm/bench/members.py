"""Many classic members at once, as cheap as the system allows: for load, not for talking.

Each has a TCP connection for its seat, closed behind the token, and a UDP socket on the same port number.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from dataclasses import dataclass
from typing import Any

from ocm.protocol.wire.classic import HEADER_SIZE, ControlPacket, Header, Operation, Stage, write_datagram


@dataclass(slots=True)
class BenchMember:
    """One seat: its socket, connected to the server's UDP port, and what a message begins with."""

    room: str
    user: str
    sock: socket.socket
    head: bytes

    def say(self, text: bytes) -> None:
        """Send one message."""
        self.sock.send(self.head + text)


async def start_server() -> tuple[asyncio.subprocess.Process, dict[str, Any]]:
    """Start ``ocm serve`` on loopback and free ports; return it and what it says of itself."""
    command = [sys.executable, "-m", "ocm", "serve", "--host", "127.0.0.1", "--port", "0", "--udp-port", "0", "--json"]
    server = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert server.stdout is not None
    where: dict[str, Any] = json.loads(await server.stdout.readline())
    return server, where


async def seat_members(
    host: str, tcp_port: int, udp_port: int, *, rooms: int, each: int, at_once: int = 200
) -> list[BenchMember]:
    """Fill ``rooms`` rooms with ``each`` members; return them room by room."""
    turn = asyncio.Semaphore(at_once)

    async def enter(room: int, place: int) -> BenchMember:
        async with turn:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.setblocking(False)
            sock.bind((host, 0))
            sock.connect((host, udp_port))
            name, user = f"room-{room}", f"member {room}-{place}"
            operation = Operation.JOIN if place else Operation.CREATE
            token = await ask_token(host, tcp_port, sock.getsockname()[1], operation=operation, room=name, user=user)
            return BenchMember(name, user, sock, write_datagram(name.encode(), token, b""))

    hosts = await asyncio.gather(*(enter(room, 0) for room in range(rooms)))
    guests = await asyncio.gather(*(enter(room, place) for room in range(rooms) for place in range(1, each)))
    return [
        member
        for room, owner in enumerate(hosts)
        for member in (owner, *guests[room * (each - 1) : (room + 1) * (each - 1)])
    ]


async def ask_token(host: str, tcp_port: int, port: int, *, operation: Operation, room: str, user: str) -> bytes:
    """Return the token of a new seat, asked for from local port number ``port``."""
    request = ControlPacket(operation, Stage.REQUEST, room.encode(), json.dumps({"user": user}).encode())
    try:
        reader, writer = await asyncio.open_connection(host, tcp_port, local_addr=(host, port))
    except OSError:  # the port number is in use for TCP: the first datagram will tell the server ours
        reader, writer = await asyncio.open_connection(host, tcp_port)
    writer.write(request.encode())
    payload = b"{}"
    for _ in (Stage.STATUS, Stage.COMPLETE):
        header = Header.decode(await reader.readexactly(HEADER_SIZE))
        payload = (await reader.readexactly(header.room_size + header.payload_size))[header.room_size :]
    writer.close()
    return str(json.loads(payload)["user_token"]).encode()
