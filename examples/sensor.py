"""A sensor that publishes a reading every second, and a reader that shows each of them once.

Whatever happens to the network, to the server or to one of the programs: what was measured meanwhile comes later. A
room connects again by itself; its state file lets a program that starts again go on where it stopped.

Run it: python examples/sensor.py                              a server of its own, a sensor and a reader
        python examples/sensor.py publish URL                  or read; --every SECONDS, --count READINGS
"""

import argparse
import asyncio
import random
import sys
import tempfile
from pathlib import Path

import ocm

ROOM = "garden"


async def publish(url: str, *, state: Path, every_s: float, count: int | None = None) -> None:
    """Post readings for ever, or so many of them; then take the room along."""
    async with ocm.connect(url, user="thermometer", state=state) as client, client.create(ROOM) as room:
        posted = 0
        while posted != count:
            await asyncio.sleep(every_s)
            posted += 1
            room.post(f"{posted}: {random.gauss(21.0, 0.5):.1f} °C")
        await room.drain()


async def read(url: str, *, state: Path, retry_s: float = 1.0) -> None:
    """Show readings until the sensor is switched off."""
    async with ocm.connect(url, user="reader", state=state) as client:
        while True:
            try:
                async with client.join(ROOM) as room:
                    return await show(room)
            except ocm.RoomRefused:  # the sensor has not made it yet
                await asyncio.sleep(retry_s)


async def show(room: ocm.Room) -> None:
    for message in await room.history():
        print(f"before we came: {ocm.safe_text(message.text)}", flush=True)
    async for event in room:
        match event:
            case ocm.Message(sender=who, text=text):
                print(f"{ocm.safe_text(who.name or '?')}: {ocm.safe_text(text)}", flush=True)
            case ocm.ConnectionChanged(connection=state):
                print(state, file=sys.stderr, flush=True)
            case _:
                pass


async def both(*, every_s: float, count: int | None) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with ocm.serve("tcrps://127.0.0.1:0") as server, asyncio.TaskGroup() as tasks:
            tasks.create_task(publish(server.url, state=folder / "sensor.db", every_s=every_s, count=count))
            tasks.create_task(read(server.url, state=folder / "reader.db", retry_s=every_s / 4))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("role", nargs="?", choices=["publish", "read"])
    parser.add_argument("url", nargs="?", default="")
    parser.add_argument("--every", type=float, default=1.0)
    parser.add_argument("--count", type=int)
    options = parser.parse_args()
    if options.role == "read":
        asyncio.run(read(options.url, state=Path("reader.db")))
    elif options.role == "publish":
        asyncio.run(publish(options.url, state=Path("sensor.db"), every_s=options.every, count=options.count))
    else:
        asyncio.run(both(every_s=options.every, count=options.count))
