"""Hold a load on real sockets and count: ``python -m ocm.bench.hold --rooms 1 --each 1000 --rate 20 --seconds 60``.

Starts ``ocm serve`` on loopback, seats the members, says ``rate`` messages a second in all, and prints as JSON how
many of the deliveries that were due came, and how much memory the server grew by for each member (0 on systems
without ``/proc``).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import selectors
import sys
import time
from pathlib import Path

from ocm.bench.members import BenchMember, seat_members, start_server
from ocm.bench.processes import resident_memory


def main() -> None:
    """Read the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rooms", type=int, default=1)
    parser.add_argument("--each", type=int, default=1000, help="members of each room")
    parser.add_argument("--rate", type=float, default=20.0, help="messages a second, in all")
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    result = asyncio.run(hold(arguments.rooms, arguments.each, arguments.rate, arguments.seconds))
    print(json.dumps(result))
    sys.exit(0 if result["missing"] == 0 else 1)


async def hold(rooms: int, each: int, rate: float, seconds: float) -> dict[str, float]:
    """Run one load against a server of its own; return the figures."""
    server, where = await start_server()
    try:
        empty = resident_memory(server.pid)
        started_s = time.monotonic()
        members = await seat_members("127.0.0.1", where["tcp_port"], where["udp_port"], rooms=rooms, each=each)
        seated_s = time.monotonic() - started_s
        await asyncio.sleep(0.5)  # joins still being told
        full = resident_memory(server.pid)
        _drain(members)
        overruns = _overruns()
        figures = _talk(members, rate, seconds, each - 1)
        loaded = resident_memory(server.pid)
        figures["receive_buffer_overruns"] = _overruns() - overruns
    finally:
        server.terminate()
        status = await server.wait()
        await asyncio.sleep(0)
    return figures | {
        "members": len(members),
        "seated_s": round(seated_s, 2),
        "server_kib_per_member": round((full - empty) / len(members) / 1024, 2),
        "server_mib": round(loaded / 2**20, 1),
        "exit_status": status,
    }


def _talk(members: list[BenchMember], rate: float, seconds: float, copies: int) -> dict[str, float]:
    """Say and hear for ``seconds``; each message is due ``copies`` times."""
    selector = selectors.DefaultSelector()
    for member in members:
        selector.register(member.sock, selectors.EVENT_READ, member)
    total = int(rate * seconds)
    late_us: list[float] = []
    heard = said = 0
    start = time.monotonic()
    end = start + seconds + 2.0
    while heard < total * copies and (now := time.monotonic()) < end:
        while said < total and start + said / rate <= now:
            members[said * 7919 % len(members)].say(b"%d %d" % (time.monotonic_ns(), said))
            said += 1
        for key, _ in selector.select(min(0.01, 1 / rate)):
            for datagram in _read(key.data):
                words = datagram[2 + datagram[0] + datagram[1] :].split()
                if len(words) == 2 and words[0].isdigit():
                    heard += 1
                    late_us.append((time.monotonic_ns() - int(words[0])) / 1000)
    late_us.sort()
    return {
        "said": said,
        "due": total * copies,
        "heard": heard,
        "missing": total * copies - heard,
        "p50_us": round(late_us[len(late_us) // 2]) if late_us else 0,
        "p99_us": round(late_us[len(late_us) * 99 // 100]) if late_us else 0,
    }


def _read(member: BenchMember) -> list[bytes]:
    datagrams: list[bytes] = []
    while True:
        try:
            datagrams.append(member.sock.recv(8192))
        except BlockingIOError:
            return datagrams


def _drain(members: list[BenchMember]) -> None:
    for member in members:
        _read(member)


def _overruns() -> int:
    """Return how many datagrams this machine has dropped for full receive buffers, 0 where it does not say."""
    try:
        counters = Path("/proc/net/snmp").read_text()
    except FileNotFoundError:
        return 0
    names, values = (line.split() for line in counters.splitlines() if line.startswith("Udp:"))
    return int(values[names.index("RcvbufErrors")])


if __name__ == "__main__":
    main()
