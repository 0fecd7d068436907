"""Besiege a server and see that it holds: ``python -m ocm.bench.siege``.

Sends junk datagrams and counts what comes back (nothing may), opens connections that drip a byte every four seconds
and silent ones, and times an honest join each second meanwhile. On loopback, against a server of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import socket
import sys
import time

from ocm.bench.members import ask_token, start_server
from ocm.protocol.wire.classic import Operation

DRIP_S = 4.0


def main() -> None:
    """Read the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--junk", type=int, default=100_000, help="datagrams")
    parser.add_argument("--slow", type=int, default=2000, help="dripping connections")
    parser.add_argument("--silent", type=int, default=300, help="silent connections")
    parser.add_argument("--silence", type=float, default=7.0, help="seconds before the silent ones are counted")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long it drips, and is asked honestly")
    parser.add_argument("--honest", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.honest:
        host, _, port = arguments.honest.rpartition(":")
        print(json.dumps(asyncio.run(_honest(host, int(port), arguments.seconds))))
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(json.dumps(asyncio.run(_siege(arguments))))


async def _siege(arguments: argparse.Namespace) -> dict[str, object]:
    server, where = await start_server()
    try:
        host, tcp_port = "127.0.0.1", where["tcp_port"]
        back = await _junk(host, where["udp_port"], arguments.junk)
        silent = [await _knock(host, tcp_port) for _ in range(arguments.silent)]
        await asyncio.sleep(arguments.silence)
        kept = len(silent) - sum(await asyncio.gather(*(_is_gone(reader) for reader, _ in silent)))
        joins = await _honest_process(host, tcp_port, arguments.seconds)
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


async def _honest_process(host: str, port: int, seconds: float) -> asyncio.subprocess.Process:
    """Start the honest peer as a program of its own, so that it does not wait for the besiegers."""
    command = [sys.executable, "-m", "ocm.bench.siege", "--honest", f"{host}:{port}", "--seconds", str(seconds)]
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


if __name__ == "__main__":
    main()
