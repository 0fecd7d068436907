"""A server that is open at every address of its machine answers from the one that it was reached at."""

from __future__ import annotations

import asyncio
import socket
import sys
from contextlib import closing

import pytest

import ocm
from tests.peers import JOIN, datagram, request, token_in

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems send as their routes say")

REACHED = "127.0.0.2"
"""On Linux all of 127.0.0.0/8 is this machine, and answers leave from 127.0.0.1 if nobody says otherwise."""


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]"])
async def test_a_program_that_hears_only_whom_it_speaks_to_hears_the_room(host: str) -> None:
    """As one behind an address translator does, or a socket after ``connect``."""
    loop = asyncio.get_running_loop()
    async with ocm.serve(f"tcrp://{host}:0") as server, await server.create("r", "host") as room, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(REACHED, server.tcp_port)
        with closing(writer), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
            writer.write(request("ocm", JOIN, "r", "aiko"))
            _, seated = [await reader.readuntil(b"}") for _ in range(2)]
            ear.setblocking(False)
            ear.connect((REACHED, server.udp_port))
            await loop.sock_sendall(ear, datagram(b"r", token_in("ocm", "r", seated), b"hello"))
            async for event in room:
                if isinstance(event, ocm.Message):
                    break
            await room.send("welcome")
            assert await loop.sock_recv(ear, 4096) == datagram(b"r", b"host", b"welcome")
