"""A sensor that publishes a reading every second, and a reader that shows them; both outlive the server's restarts.

A room reconnects by itself for a minute. What lasts longer, and a server that says goodbye, ends the block; then
both programs start again.

Run it: python examples/sensor.py                              a server of its own, a sensor and a reader
        python examples/sensor.py publish tcrp://localhost     or read; --every SECONDS, --count READINGS
"""

import argparse
import asyncio
import random

import ocm

ROOM = "garden"


async def publish(url: str, *, every_s: float, count: int | None = None) -> None:
    """Send readings for ever, or so many of them; then take the room along."""
    sent = 0
    while sent != count:
        try:
            async with ocm.connect(url, user="thermometer") as client, client.create(ROOM) as room:
                while sent != count:
                    await asyncio.sleep(every_s)
                    await room.send(f"{random.gauss(21.0, 0.5):.1f} °C")
                    sent += 1
        except ocm.OcmError as error:
            await start_again("sensor", str(error), every_s)


async def read(url: str, *, retry_s: float = 1.0) -> None:
    """Show readings until the sensor is switched off."""
    while True:
        why = "the room was closed"
        try:
            async with ocm.connect(url, user="reader") as client, client.join(ROOM) as room:
                async for event in room:
                    match event:
                        case ocm.Message(sender=who, text=text):
                            print(f"{ocm.safe_text(who.name or '?')}: {ocm.safe_text(text)}", flush=True)
                        case ocm.RoomClosed(reason=ocm.Reason.HOST_LEFT):
                            return
                        case ocm.ConnectionChanged(connection=state):
                            print(state, flush=True)
                        case _:
                            pass
        except ocm.OcmError as error:
            why = str(error)
        await start_again("reader", why, retry_s)


async def start_again(who: str, why: str, after_s: float) -> None:
    print(f"the {who} starts again: {ocm.safe_text(why)}", flush=True)
    await asyncio.sleep(after_s)


async def both(*, every_s: float, count: int | None) -> None:
    async with ocm.serve("tcrp://127.0.0.1:0") as server, asyncio.TaskGroup() as tasks:
        tasks.create_task(publish(server.url, every_s=every_s, count=count))
        tasks.create_task(read(server.url, retry_s=every_s / 4))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("role", nargs="?", choices=["publish", "read"])
    parser.add_argument("url", nargs="?", default="tcrp://localhost")
    parser.add_argument("--every", type=float, default=1.0)
    parser.add_argument("--count", type=int)
    options = parser.parse_args()
    if options.role == "read":
        asyncio.run(read(options.url))
    elif options.role == "publish":
        asyncio.run(publish(options.url, every_s=options.every, count=options.count))
    else:
        asyncio.run(both(every_s=options.every, count=options.count))
