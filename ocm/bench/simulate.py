"""Time the simulated network: ``python -m ocm.bench.simulate``.

Prints as JSON how long a minute of a room with ten members, 20 % loss and a cut takes with real servers and clients
on virtual time, and how many deliveries a second the driver of pure machines makes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Iterable
from typing import Final

import ocm
from ocm.testing import Exchange, LinkModel, Network

_MEMBERS: Final = 10


def main() -> None:
    """Read the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="virtual seconds of the room")
    parser.add_argument("--deliveries", type=int, default=100_000, help="datagrams between two pure machines")
    arguments = parser.parse_args()
    print(json.dumps(_room(arguments.seconds) | _machines(arguments.deliveries)))


def _room(seconds: int) -> dict[str, float]:
    network = Network(seed=7)
    for number in range(1, _MEMBERS + 1):
        network.link(f"m{number}", loss=0.2, jitter_s=0.01)
    network.at(seconds / 3, network.cut, "m3")
    network.at(seconds / 2, network.heal, "m3")
    began_s = time.perf_counter()
    heard = network.run(_talk(seconds))
    took_s = time.perf_counter() - began_s
    return {
        "room_real_s": round(took_s, 3),
        "room_virtual_s": round(network.now_s, 3),
        "room_heard": heard,
        "room_packets": len(network.timeline),
    }


async def _talk(seconds: int) -> int:
    heard = 0

    async def listen(room: ocm.Room) -> None:
        nonlocal heard
        async for event in room:
            heard += isinstance(event, ocm.Message)

    async def sit(entrance: ocm.Membership) -> None:
        async with entrance as room:
            listening = asyncio.create_task(listen(room))
            for second in range(seconds):
                room.post(f"second {second}")
                await asyncio.sleep(1)
            listening.cancel()

    async def join(url: str, number: int) -> None:
        async with ocm.connect(url, user=f"m{number}") as client:
            await sit(client.join("lobby"))

    async with (
        ocm.serve("tcrp://[::1]:0") as server,
        await server.create("lobby", "host"),
        asyncio.TaskGroup() as group,
    ):
        for number in range(1, _MEMBERS + 1):
            group.create_task(join(server.url, number))
    return heard


class _Talker:
    """Says something every millisecond."""

    def __init__(self) -> None:
        self._next_s = 0.0

    def receive_datagram(self, data: bytes, source: str, *, now_s: float) -> None:
        """Hear it."""

    def datagrams_to_send(self, *, now_s: float) -> Iterable[bytes]:
        if now_s < self._next_s:
            return ()
        self._next_s = now_s + 0.001
        return (b"x" * 100,)

    def next_timeout_s(self) -> float | None:
        return self._next_s

    def handle_timeout(self, *, now_s: float) -> None:
        """Time alone is enough."""


def _machines(deliveries: int) -> dict[str, float]:
    links = LinkModel(7)
    links.link("aiko", loss=0.2, duplicate=0.1, reorder=0.1, jitter_s=0.01)
    exchange = Exchange(links)
    exchange.add("aiko", _Talker())
    exchange.add("ben", _Talker())
    began_s = time.perf_counter()
    while exchange.deliveries < deliveries:
        exchange.run(until_s=exchange.now_s + 1)
    took_s = time.perf_counter() - began_s
    return {"machine_deliveries": exchange.deliveries, "machine_deliveries_per_s": round(exchange.deliveries / took_s)}


if __name__ == "__main__":
    main()
