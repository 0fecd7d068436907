"""A bot that repeats what is said, until somebody tells it to stop.

Run it against a running server: python examples/echo_bot.py tcrp://localhost lobby
"""

import asyncio
import sys

import ocm


async def echo(url: str, room_name: str) -> int:
    """Sit in a room, make it if need be, and return how often something was repeated."""
    async with ocm.connect(url, user="echo") as client:
        try:
            async with client.join(room_name) as room:
                return await listen(room)
        except ocm.RoomRefused:
            async with client.create(room_name) as room:
                return await listen(room)


async def listen(room: ocm.Room) -> int:
    repeated = 0
    async for event in room:
        if isinstance(event, ocm.Message):
            if event.text == "stop":
                break
            room.post(f"{event.sender.name} said {event.text}")
            repeated += 1
    return repeated


if __name__ == "__main__":
    print(asyncio.run(echo(sys.argv[1], sys.argv[2])), "messages repeated")
