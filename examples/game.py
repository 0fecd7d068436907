"""A game whose server decides: thirty players move on a grid that is drawn in the terminal.

The server sits in the room without a socket. It tells where all stand, each player says where to go, and the server
moves those that may: nobody gets through a wall by saying so.

Run it: python examples/game.py        until Ctrl-C; in a pipe it ends after three frames
"""

import asyncio
import json
import random
import sys

import ocm

WIDTH, HEIGHT = 20, 12
PLAYERS = [f"{number:02}" for number in range(1, 31)]
MOVES = {"up": (0, -1), "down": (0, 1), "left": (-1, 0), "right": (1, 0)}
FRAME_S = 0.2
CLEAR = "\x1b[H\x1b[2J" if sys.stdout.isatty() else ""
LIMITS = ocm.Limits(members_per_room_max=len(PLAYERS) + 1, rate_per_s=4 / FRAME_S, burst_max=20)  # a few moves a frame


async def referee(room: ocm.LocalMember, frames: int | None) -> None:
    """Tell where all stand, wait a frame, draw; and so on. Then leave, which closes the room."""
    places: dict[str, tuple[int, int]] = {}
    moving = asyncio.create_task(move(room, places))
    while frames != 0:
        if places:
            await room.send(json.dumps(places))
        await asyncio.sleep(FRAME_S)
        print(drawn(places), flush=True)
        frames = None if frames is None else frames - 1
    await room.leave()
    await moving


async def move(room: ocm.LocalMember, places: dict[str, tuple[int, int]]) -> None:
    """Keep ``places`` as the players come, move and go."""
    async for event in room:
        match event:
            case ocm.MemberJoined(member=ocm.Person(name=str(name))):
                places[name] = (random.randrange(WIDTH), random.randrange(HEIGHT))
            case ocm.MemberLeft(member=ocm.Person(name=str(name))):
                places.pop(name, None)
            case ocm.Message(sender=ocm.Person(name=str(name)), text=text) if text in MOVES and name in places:
                (x, y), (dx, dy) = places[name], MOVES[text]
                places[name] = (min(max(x + dx, 0), WIDTH - 1), min(max(y + dy, 0), HEIGHT - 1))
            case _:  # not a move
                pass


def drawn(places: dict[str, tuple[int, int]]) -> str:
    rows = [[" ·"] * WIDTH for _ in range(HEIGHT)]
    for name, (x, y) in places.items():
        rows[y][x] = ocm.safe_text(name)[:2]
    return CLEAR + "\n".join("".join(row) for row in rows) + f"\n{len(places)} players\n"


async def play(url: str, name: str) -> None:
    """Move somewhere, once for every frame, until the room is closed."""
    async with ocm.connect(url, user=name, limits=LIMITS) as client, client.join("arena") as room:
        async for event in room:
            if isinstance(event, ocm.Message) and event.sender.name == "referee":
                room.post(random.choice(list(MOVES)))


async def main(frames: int | None) -> None:
    async with (
        ocm.serve("tcrps://127.0.0.1:0", limits=LIMITS) as server,
        await server.create("arena", "referee") as room,
        asyncio.TaskGroup() as players,
    ):
        for name in PLAYERS:
            players.create_task(play(server.url, name))
        await referee(room, frames)


if __name__ == "__main__":
    asyncio.run(main(frames=None if sys.stdout.isatty() else 3))
