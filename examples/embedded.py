"""A server inside your own program, and two members that talk: everything in one process, over real sockets.

Run it: python examples/embedded.py
"""

import asyncio

import ocm


def only_short_names(knock: ocm.Knock) -> bool:
    """Decide who may come in; return another name to let somebody in under it."""
    return len(knock.user) <= 8


def shown(person: ocm.Person) -> str:
    """A peer chose this name: take out what would act on a terminal instead of being read."""
    return ocm.safe_text(person.name or "somebody")


async def main() -> None:
    async with (
        ocm.serve("tcrps://127.0.0.1:0", authorize=only_short_names) as server,
        ocm.connect(server.url, user="aiko") as aiko,
        ocm.connect(server.url, user="ben") as ben,
        aiko.create("lobby") as hosted,
    ):
        async with ben.join("lobby") as room:
            await room.send("Hello from Ben!")
        async for event in hosted:
            match event:
                case ocm.Message(sender=who, text=text):
                    print(f"{shown(who)}: {ocm.safe_text(text)}")
                case ocm.MemberJoined(member=who):
                    print(f"{shown(who)} came")
                case ocm.MemberLeft(member=who):
                    print(f"{shown(who)} went")
                    break
                case _:
                    pass


if __name__ == "__main__":
    asyncio.run(main())
