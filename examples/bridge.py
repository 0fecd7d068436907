"""A bridge between two rooms of two servers: what is said in one is heard in the other, with the name of who said it.

Relayed lines carry a mark, and lines with the mark are never relayed: however many bridges there are, nothing runs
in circles.

Run it: python examples/bridge.py                  two servers of its own, and somebody in each
        python examples/bridge.py URL URL          two rooms, tcrps://host/room#fp=..., until one of them is closed
"""

import asyncio
import sys

import ocm

MARK = "~ "


async def bridge(one: str, other: str) -> None:
    """Sit in the rooms of both URLs until one of them ends."""
    async with (
        ocm.connect(one, user="bridge") as here,
        ocm.connect(other, user="bridge") as there,
        here.join() as near,
        there.join() as far,
        asyncio.TaskGroup() as both_ways,
    ):
        both_ways.create_task(relay(near, far))
        both_ways.create_task(relay(far, near))


async def relay(source: ocm.Room, target: ocm.Room) -> None:
    async for event in source:
        if isinstance(event, ocm.Message) and not event.text.startswith(MARK):
            try:
                target.post(f"{MARK}{event.sender.name}: {event.text}")
            except ocm.SendRefused as refused:  # the name may have made it too long
                print(f"not relayed to {ocm.safe_text(target.name)}: {refused.code}", file=sys.stderr)
    await target.leave()  # which ends the other direction, too


async def main() -> None:
    """Let Aiko and Ben talk, each at a server of their own."""
    async with (
        ocm.serve("tcrps://127.0.0.1:0") as one,
        ocm.serve("tcrps://127.0.0.1:0") as other,
        await one.create("tea", "aiko") as aiko,
        await other.create("coffee", "ben") as ben,
        asyncio.TaskGroup() as group,
    ):
        urls = (one.url.replace("#", "/tea#"), other.url.replace("#", "/coffee#"))
        group.create_task(bridge(*urls))
        group.create_task(show(ben, answer="hello from the coffee room"))
        async for event in aiko:
            if isinstance(event, ocm.MemberJoined):
                break
        await aiko.send("hello from the tea room")
        await show(aiko)
        await aiko.leave()  # the room closes, and the bridge with it


async def show(room: ocm.LocalMember, answer: str | None = None) -> None:
    """Show the first message, and answer it."""
    async for event in room:
        if isinstance(event, ocm.Message):
            print(f"in {room.name}: {ocm.safe_text(event.text)}")
            break
    if answer is not None:
        await room.send(answer)


if __name__ == "__main__":
    asyncio.run(bridge(sys.argv[1], sys.argv[2]) if len(sys.argv) == 3 else main())
