"""Time the simulated network: ``python -m ocm.bench.simulate``.

Prints as JSON how long a minute of a room with ten members, 30 % loss and a cut takes with real servers and clients
on virtual time, in TCRP/2 and in the classic profile, what of it was heard, and how many deliveries a second the driver
of pure machines makes.
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
_PATIENCE_S: Final = 20.0
"""How long to wait for what is still on its way: in the classic profile some of it never comes."""


def main() -> None:
    """Read the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="virtual seconds of the room")
    parser.add_argument("--loss", type=float, default=0.3, help="share of packets lost in each direction")
    parser.add_argument("--deliveries", type=int, default=100_000, help="datagrams between two pure machines")
    arguments = parser.parse_args()
    rooms = {
        "modern": _room(arguments.seconds, "tcrps://[::1]:0", loss=arguments.loss),
        "classic": _room(arguments.seconds, "tcrp://[::1]:0", loss=arguments.loss),
    }
    print(json.dumps(rooms | _machines(arguments.deliveries)))


def _room(seconds: int, url: str, *, loss: float) -> dict[str, float]:
    """Let everybody say something each second; once all are in, the network is bad, and one of them is cut off."""
    network = Network(seed=7)
    began_s = time.perf_counter()
    talk = Talk(network, seconds, loss=loss)
    network.run(talk.run(url))
    took_s = time.perf_counter() - began_s
    return {
        "real_s": round(took_s, 3),
        "virtual_s": round(network.now_s, 3),
        "said": _MEMBERS * seconds,
        "heard": sum(map(len, talk.heard.values())),
        "heard_in_order": sum(heard == sorted(set(heard)) for heard in talk.heard.values()),
        "packets": len(network.timeline),
    }


class Talk:
    """A room of ten in which everybody says a number each second."""

    def __init__(self, network: Network, seconds: int, *, loss: float) -> None:
        """Prepare; the network is to be bad, and cut one off, once all are in."""
        self.heard: dict[tuple[str, str], list[int]] = {}
        """The numbers that one member heard of another, by both names."""
        self.network = network
        """Where it takes place."""
        self._seconds = seconds
        self._loss = loss
        self._inside = 0
        self._all_inside = asyncio.Event()

    async def run(self, url: str) -> None:
        """Have the talk."""
        async with ocm.serve(url) as server, await server.create("lobby", "host"), asyncio.TaskGroup() as group:
            for number in range(1, _MEMBERS + 1):
                group.create_task(self._join(server.url, f"m{number}"))

    async def _join(self, url: str, name: str) -> None:
        async with ocm.connect(url, user=name) as client, client.join("lobby") as room:
            listening = asyncio.create_task(self._listen(room, name))
            self._inside += 1
            if self._inside == _MEMBERS:
                self._break_network()
            await self._all_inside.wait()
            for second in range(self._seconds):
                room.post(str(second))
                await asyncio.sleep(1)
            await asyncio.wait([listening], timeout=_PATIENCE_S)
            listening.cancel()

    async def _listen(self, room: ocm.Room, name: str) -> None:
        left = (_MEMBERS - 1) * self._seconds
        async for event in room:
            if isinstance(event, ocm.Message):
                self.heard.setdefault((name, event.sender.name or ""), []).append(int(event.text))
                left -= 1
                if not left:
                    return

    def _break_network(self) -> None:
        network = self.network
        for number in range(1, _MEMBERS + 1):
            network.link(f"m{number}", loss=self._loss, duplicate=0.05, reorder=0.1, jitter_s=0.01)
        network.at(network.now_s + self._seconds / 3, network.cut, "m3")
        network.at(network.now_s + self._seconds / 2, network.heal, "m3")
        self._all_inside.set()


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
