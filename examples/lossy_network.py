"""A robot that follows each order once and in order; a test tries it on a network that loses every third packet.

The clock is virtual: minutes of trouble take a fraction of a second. A failure prints its seed and the command
that repeats it, packet by packet.

Run it: pytest examples/lossy_network.py
        python examples/lossy_network.py 7     one run with this seed, and the end of what happened on the network
"""

import asyncio
import sys

import ocm
from ocm.testing import Network

ORDERS = ["forward", "left", "forward", "right", "stop"]


async def command(room: ocm.Room) -> list[str]:
    """Send an order a minute; return what the robot says that it did."""
    done: list[str] = []
    orders = asyncio.create_task(send(room))
    async for event in room:
        if isinstance(event, ocm.Message):
            done.append(event.text)
            if len(done) == len(ORDERS):
                break
    await orders
    return done


async def send(room: ocm.Room) -> None:
    for order in ORDERS:
        await room.send(order)  # it is in the room now, whatever happens to the robot
        await asyncio.sleep(60)


async def obey(room: ocm.Room) -> None:
    """Follow whatever is said, and confirm it."""
    async for event in room:
        if isinstance(event, ocm.Message):
            room.post(f"done: {event.text}")


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
        done = await command(earth)
        await earth.leave()  # the host: the room closes, and the robot's iteration ends
        await obeying
        return done


def test_every_order_is_followed_once(network: Network) -> None:
    network.at(1, network.link, "robot", loss=0.33, delay_s=0.2, jitter_s=0.3)
    network.at(60, network.cut, "robot")
    network.at(75, network.heal, "robot")
    network.at(130, network.move, "robot")
    assert network.run(mission()) == [f"done: {order}" for order in ORDERS]


if __name__ == "__main__":
    with Network(seed=int(sys.argv[1]) if sys.argv[1:] else 1) as simulated:
        test_every_order_is_followed_once(simulated)
        print(simulated.timeline.tail(12))
        print(f"all {len(ORDERS)} orders followed after {simulated.now_s:.1f} virtual seconds")
