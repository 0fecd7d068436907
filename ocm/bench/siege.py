"""Besiege a server and see that it holds: ``python -m ocm.bench.siege``.

Sends junk datagrams and counts what comes back (nothing may), opens connections that drip a byte every four seconds
and silent ones, and times an honest join each second meanwhile. With ``--half-open 10000`` it does something else:
opens so many connections from all over 127/8, which say nothing, and then as many which say a ClientHello and nothing
more; counts how many of these the server keeps, and how much memory it takes for them, while honest clients of TCRP/2
join ten times a second. On loopback, against a server of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import socket
import ssl
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import ocm
from ocm.bench.members import ask_token, start_server
from ocm.bench.processes import resident_memory
from ocm.protocol.wire.classic import Operation

DRIP_S: Final = 4.0
_JOIN_EVERY_S: Final = 0.1
_OPEN_AT_ONCE: Final = 10
_LOOK_EVERY: Final = 25
"""Rounds of opening between two looks at who is still there."""
_CATCH_UP_S: Final = 2.0
"""After which what was opened last has come through the server's backlog, and not timed out."""


def main() -> None:
    """Read the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--junk", type=int, default=100_000, help="datagrams")
    parser.add_argument("--slow", type=int, default=2000, help="dripping connections")
    parser.add_argument("--silent", type=int, default=300, help="silent connections")
    parser.add_argument("--silence", type=float, default=7.0, help="seconds before the silent ones are counted")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long it drips, and is asked honestly")
    parser.add_argument("--half-open", type=int, default=0, help="connections that say nothing, or a ClientHello only")
    parser.add_argument("--honest", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.honest:
        if arguments.honest.startswith("tcrps:"):
            print(json.dumps(asyncio.run(_honest_modern(arguments.honest, arguments.seconds))))
            return
        host, _, port = arguments.honest.rpartition(":")
        print(json.dumps(asyncio.run(_honest(host, int(port), arguments.seconds))))
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    siege = _half_open(arguments) if arguments.half_open else _siege(arguments)
    print(json.dumps(asyncio.run(siege)))


async def _siege(arguments: argparse.Namespace) -> dict[str, object]:
    server, where = await start_server()
    try:
        host, tcp_port = "127.0.0.1", where["tcp_port"]
        back = await _junk(host, where["udp_port"], arguments.junk)
        silent = [await _knock(host, tcp_port) for _ in range(arguments.silent)]
        await asyncio.sleep(arguments.silence)
        kept = len(silent) - sum(await asyncio.gather(*(_is_gone(reader) for reader, _ in silent)))
        joins = await _honest_process(f"{host}:{tcp_port}", arguments.seconds)
        started_s = time.monotonic()
        lives = await asyncio.gather(*(_drip(host, tcp_port, arguments.seconds) for _ in range(arguments.slow)))
        honest: list[float] = json.loads((await joins.communicate())[0])
        return {
            "junk": arguments.junk,
            "bytes_back": back,
            "silent": len(silent),
            "silent_kept": kept,
            "slow": len(lives),
            "slow_alive_at_end": sum(life is None for life in lives),
            "slow_longest_s": round(max((life for life in lives if life is not None), default=0.0), 2),
            "took_s": round(time.monotonic() - started_s, 1),
            "honest_joins": len(honest),
            "honest_longest_s": round(max(honest), 3),
        }
    finally:
        server.terminate()
        await server.wait()


async def _junk(host: str, udp_port: int, count: int) -> int:
    """Send junk of several kinds; return how many bytes came back."""
    draw = random.Random(1)
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.connect((host, udp_port))
    kinds = [b"", b"\0", b"\0\x0e" + draw.randbytes(48), b"\x05\x40room1" + b"0" * 64 + b"hello", draw.randbytes(1400)]
    back = 0
    for number in range(count):
        kind = kinds[number % len(kinds)]
        try:
            sock.send(kind if number % 7 else draw.randbytes(draw.randrange(200)))
        except BlockingIOError:
            await asyncio.sleep(0.001)
        if not number % 500:
            await asyncio.sleep(0.002)  # a full receive buffer would spare the server the work
    await asyncio.sleep(0.5)
    while True:
        try:
            back += len(sock.recv(65_536))
        except BlockingIOError:
            sock.close()
            return back


async def _knock(host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(host, port)


async def _is_gone(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(0.01):
            return not await reader.read(1)
    except ConnectionError:
        return True
    except TimeoutError:
        return False


async def _drip(host: str, port: int, seconds: float) -> float | None:
    """Send a byte every four seconds; return after how many the server hung up, None if it never did."""
    started_s = time.monotonic()
    try:
        reader, writer = await _knock(host, port)
        while (left_s := started_s + seconds - time.monotonic()) > 0:
            writer.write(b"\x05")
            try:
                async with asyncio.timeout(min(DRIP_S, left_s)):
                    if not await reader.read(1):
                        break
            except TimeoutError:
                continue
        else:
            return None
        writer.close()
    except ConnectionError:
        pass
    return time.monotonic() - started_s


async def _honest_process(where: str, seconds: float) -> asyncio.subprocess.Process:
    """Start the honest peer as a program of its own, so that it does not wait for the besiegers."""
    command = [sys.executable, "-m", "ocm.bench.siege", "--honest", where, "--seconds", str(seconds)]
    return await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)


async def _honest(host: str, port: int, seconds: float) -> list[float]:
    """Create a room each second; return how long each took."""
    took: list[float] = []
    for number in range(int(seconds)):
        started_s = time.monotonic()
        await ask_token(host, port, 0, operation=Operation.CREATE, room=f"honest {number}", user="alice")
        took.append(time.monotonic() - started_s)
        await asyncio.sleep(max(0.0, 1.0 - took[-1]))
    return took


# --- TCRP/2 ---------------------------------------------------------------------------------------------------


async def _half_open(arguments: argparse.Namespace) -> dict[str, object]:
    """Open connections that come to nothing, all the time; see what they cost, and whom they keep out."""
    server, where = await start_server()
    try:
        await _honest_modern(where["url"], 1.0)  # what the first ones cost is not the siege's
        joins = await _honest_process(where["url"], arguments.seconds)
        target = ("127.0.0.1", where["tcp_port"])
        siege = partial(_besiege, server.pid, target, count=arguments.half_open, seconds=arguments.seconds / 2)
        silent = await siege(first_words=b"")
        greeting = await siege(first_words=_client_hello())
        honest: list[float] = sorted(json.loads((await joins.communicate())[0]))
        return {
            "half_open": arguments.half_open,
            "silent_kept": silent.kept,
            "silent_mib": round(silent.grew / 2**20, 1),
            "in_handshake": greeting.kept,
            "in_handshake_mib": round(greeting.grew / 2**20, 1),
            "honest_joins": len(honest),
            "honest_p50_s": round(honest[len(honest) // 2], 3),
            "honest_p99_s": round(honest[len(honest) * 99 // 100], 3),
            "honest_longest_s": round(honest[-1], 3),
        }
    finally:
        server.terminate()
        await server.wait()


@dataclass(frozen=True, slots=True)
class _Cost:
    """What besiegers got."""

    kept: int
    """Connections that the server had kept, when it had had time to catch up."""
    grew: int
    """Bytes of memory that it took at most."""


@dataclass(slots=True)
class _Besiegers:
    """Connections that were opened, and are there as far as is known."""

    sockets: list[socket.socket] = field(default_factory=list[socket.socket])
    opened: int = 0

    def open(self, target: tuple[str, int], first_words: bytes) -> None:
        """Open one, from the next address of 127/8."""
        self.opened += 1
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.bind((f"127.{1 + self.opened // 62_500}.{self.opened // 250 % 250}.{1 + self.opened % 250}", 0))
            sock.settimeout(1.0)
            sock.connect(target)
            sock.setblocking(False)
            sock.send(first_words)
        except OSError:  # refused, or cut off already: the server defends itself
            sock.close()
        else:
            self.sockets.append(sock)

    def count(self) -> int:
        """Forget those that the server has ended; return how many are left."""
        self.sockets = [sock for sock in self.sockets if _is_there(sock)]
        return len(self.sockets)


async def _besiege(pid: int, target: tuple[str, int], *, first_words: bytes, count: int, seconds: float) -> _Cost:
    """Open ``count`` connections in ``seconds``; return what the server spent on them."""
    besiegers = _Besiegers()
    started_s = time.monotonic()
    before = most = resident_memory(pid)
    while besiegers.opened < count:
        for _ in range(min(_OPEN_AT_ONCE, count - besiegers.opened)):
            besiegers.open(target, first_words)
        due_s = started_s + seconds * besiegers.opened / count
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        if not besiegers.opened % (_OPEN_AT_ONCE * _LOOK_EVERY):
            besiegers.count()
            most = max(most, resident_memory(pid))
    await asyncio.sleep(_CATCH_UP_S)
    kept = besiegers.count()
    most = max(most, resident_memory(pid))
    for sock in besiegers.sockets:
        sock.close()
    return _Cost(kept, most - before)


def _is_there(sock: socket.socket) -> bool:
    try:
        while sock.recv(65_536):
            pass
    except BlockingIOError:
        return True
    except ConnectionError:
        pass
    sock.close()
    return False


def _client_hello() -> bytes:
    """Return what a client of TCRP/2 says first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # there will be nothing to verify
    context.set_alpn_protocols(["tcrp/2"])
    outgoing = ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake takes two")


async def _honest_modern(url: str, seconds: float) -> list[float]:
    """Connect and make a room, again and again; return how long each took."""
    took: list[float] = []
    end_s = time.monotonic() + seconds
    while (started_s := time.monotonic()) < end_s:
        async with ocm.connect(url, user="alice") as client, client.create(f"honest {len(took)}"):
            took.append(time.monotonic() - started_s)
        await asyncio.sleep(max(0.0, started_s + _JOIN_EVERY_S - time.monotonic()))
    return took


if __name__ == "__main__":
    main()
