"""A bot that repeats what is said in a room, until somebody says "stop".

Run it: python examples/echo_bot.py                            a server of its own, with somebody to talk to
        python examples/echo_bot.py URL lobby                  in a room of a running server
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


async def talk_to_it() -> None:
    """Run a server whose own program talks to the bot."""
    async with ocm.serve("tcrps://127.0.0.1:0") as server, await server.create("lobby", "aiko") as room:
        bot = asyncio.create_task(echo(server.url, "lobby"))
        async for event in room:
            match event:
                case ocm.MemberJoined():
                    await room.send("hello")
                case ocm.Message(sender=who, text=text):
                    print(f"{ocm.safe_text(who.name or '?')}: {ocm.safe_text(text)}")
                    await room.send("stop")
                case ocm.MemberLeft():
                    break
                case _:
                    pass
        print(await bot, "repeated")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(asyncio.run(echo(sys.argv[1], sys.argv[2])), "repeated")
    else:
        asyncio.run(talk_to_it())
