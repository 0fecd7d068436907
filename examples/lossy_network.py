"""Code that sends again until it is answered, and a test that tries it on a network that loses every third packet.

The clock is virtual: minutes of trouble take a fraction of a second. A failure prints its seed and the command
that repeats it, packet by packet.

Run it: pytest examples/lossy_network.py
        python examples/lossy_network.py 7     one run with this seed, and the end of what happened on the network
"""

import asyncio
import sys
from collections.abc import AsyncIterator

import ocm
from ocm.testing import Network

ORDERS = ["forward", "left", "forward", "right", "stop"]


async def texts(room: ocm.Room) -> AsyncIterator[str]:
    async for event in room:
        if isinstance(event, ocm.Message):
            yield event.text


async def command(room: ocm.Room) -> None:
    """Send an order a minute, each until the robot confirms it."""
    heard = texts(room)
    for number, order in enumerate(ORDERS):
        confirmed = asyncio.ensure_future(wait_for(heard, f"done {number}"))
        while not confirmed.done():
            room.post(f"{number} {order}")
            await asyncio.wait([confirmed], timeout=0.5)
        await asyncio.sleep(60)


async def wait_for(heard: AsyncIterator[str], text: str) -> None:
    async for one in heard:
        if one == text:
            return


async def obey(room: ocm.Room) -> list[str]:
    """Follow each order once, however often it comes, and confirm it every time."""
    followed: list[str] = []
    async for text in texts(room):
        number, _, order = text.partition(" ")
        if int(number) == len(followed):
            followed.append(order)
        room.post(f"done {number}")
    return followed


async def mission() -> list[str]:
    """Return what the robot did."""
    async with (
        ocm.serve() as server,
        ocm.connect(server.url, user="robot") as robot,
        ocm.connect(server.url, user="control") as control,
        control.create("mars") as earth,
        robot.join("mars") as mars,
    ):
        obeying = asyncio.create_task(obey(mars))
        await command(earth)
        await earth.leave()  # the host: the room closes, and the robot's iteration ends
        return await obeying


def test_every_order_is_followed_once(network: Network) -> None:
    network.at(1, network.link, "robot", loss=0.33, delay_s=0.2, jitter_s=0.3)
    network.at(60, network.cut, "robot")
    network.at(75, network.heal, "robot")
    assert network.run(mission()) == ORDERS


if __name__ == "__main__":
    with Network(seed=int(sys.argv[1]) if sys.argv[1:] else 1) as simulated:
        test_every_order_is_followed_once(simulated)
        print(simulated.timeline.tail(12))
        print(f"all {len(ORDERS)} orders followed after {simulated.now_s:.1f} virtual seconds")
