"""A sensor that publishes a reading every second, and a reader that shows them; both outlive the server's restarts.

A room reconnects by itself for a minute. What is longer, or a server that is not there yet, ends the block with an
error of ocm: then the sensor starts again.

Run it: python examples/sensor.py                                   a server of its own, a sensor and a reader
        python examples/sensor.py publish tcrp://localhost/garden   or read; --every SECONDS, --count READINGS
"""

import argparse
import asyncio
import random

import ocm

RETRY_S = 2.0


async def publish(url: str, *, every_s: float, count: int | None) -> None:
    """Send readings for ever, or so many of them."""
    sent = 0
    while sent != count:
        try:
            async with ocm.connect(url, user="thermometer") as client, client.create() as room:
                while sent != count:
                    await asyncio.sleep(every_s)
                    await room.send(f"{random.gauss(21.0, 0.5):.1f} °C")
                    sent += 1
        except ocm.OcmError as error:
            print(f"the sensor waits: {ocm.safe_text(str(error))}", flush=True)
            await asyncio.sleep(RETRY_S)


async def read(url: str, *, retry_s: float = RETRY_S) -> None:
    """Show readings until the sensor is switched off."""
    while True:
        try:
            async with ocm.connect(url, user="reader") as client, client.join() as room:
                async for event in room:
                    match event:
                        case ocm.Message(sender=who, text=text):
                            print(f"{ocm.safe_text(who.name or '?')}: {ocm.safe_text(text)}", flush=True)
                        case ocm.ConnectionChanged(connection=state):
                            print(state, flush=True)
                        case _:
                            pass
            return
        except ocm.OcmError as error:
            print(f"the reader waits: {ocm.safe_text(str(error))}", flush=True)
            await asyncio.sleep(retry_s)


async def both(*, every_s: float, count: int | None) -> None:
    async with ocm.serve("tcrp://127.0.0.1:0") as server, asyncio.TaskGroup() as group:
        url = server.url.replace("?", "/garden?")
        group.create_task(read(url, retry_s=every_s / 2))
        await publish(url, every_s=every_s, count=count)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("role", nargs="?", choices=["publish", "read"])
    parser.add_argument("url", nargs="?", default="tcrp://localhost/garden")
    parser.add_argument("--every", type=float, default=1.0)
    parser.add_argument("--count", type=int)
    options = parser.parse_args()
    if options.role == "read":
        asyncio.run(read(options.url))
    elif options.role == "publish":
        asyncio.run(publish(options.url, every_s=options.every, count=options.count))
    else:
        asyncio.run(both(every_s=options.every, count=options.count))
