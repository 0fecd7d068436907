"""A member as a program of its own: ``python -m tests.real.member URL --room R --user U``.

It says numbered messages and prints all it sees, one JSON object a line. Lines on its stdin are commands: ``stop``
(say no more; ``drained`` when the fate of everything is known), ``audit`` (print what the server's log holds beyond
the last audit), ``path``, ``leave``. With the end of its stdin it ends, without leaving.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from dataclasses import asdict

import ocm

_PAGE = 256


class Member:
    """One seat, and what it is told to do."""

    def __init__(self, room: ocm.Room, *, prefix: str, first: int, count: int, rate: float) -> None:
        self._room = room
        self._prefix = prefix
        self._numbers = iter(range(first, first + count))
        self._interval_s = 1 / rate
        self._talking = True
        self._audited = 0
        self._posted_s: dict[str, float] = {}

    async def talk(self) -> None:
        """Say the next number whenever it is time, whatever became of those before it."""
        due_s = time.monotonic()
        for number in self._numbers:
            if not self._talking:
                break
            text = f"{self._prefix} {number}"
            self._posted_s[text] = time.monotonic()
            await self._say(text)
            due_s += self._interval_s
            if (wait_s := due_s - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)
        tell("said")

    async def _say(self, text: str) -> None:
        """Say it, and where it cannot be kept, once it can."""
        while True:
            try:
                self._room.post(text)
                return
            except ocm.StateFailed:
                await asyncio.sleep(self._interval_s)

    async def listen(self) -> None:
        """Print every event."""
        async for event in self._room:
            match event:
                case ocm.Message():
                    tell("message", seq=event.seq, name=event.sender.name, text=event.text)
                case ocm.Receipt():
                    # None: another process of ours has posted it.
                    posted_s = self._posted_s.pop(event.text, None)
                    fate = {"seq": event.seq, "delivery": event.delivery, "code": event.code}
                    tell("receipt", text=event.text, posted_s=posted_s, **fate)
                case ocm.ConnectionChanged():
                    tell("connection", state=event.connection)
                case ocm.PathChanged():
                    tell("path", kind=event.path.kind)
                case ocm.StateChanged():
                    tell("state", failure=event.failure)
                case _:
                    tell("other", what=type(event).__name__, fields=asdict(event))

    async def obey(self, lines: asyncio.StreamReader) -> bool:
        """Do as the lines say; return whether to leave."""
        async for line in lines:
            match line.split():
                case [b"stop"]:
                    self._talking = False
                    await self._room.drain()
                    tell("drained")
                case [b"audit"]:
                    await self._audit()
                case [b"path"]:
                    tell("way", kind=self._room.path.kind)
                case [b"leave"]:
                    return True
                case _:
                    raise ValueError(f"no command: {line!r}")
        return False

    async def _audit(self) -> None:
        """Page back through the server's log as far as it was not printed before."""
        entries: list[tuple[int, str, str]] = []
        before: int | None = None
        while before is None or before - 1 > self._audited:
            page = await self._room.history(_PAGE, before=before)
            found = [(one.seq or 0, one.sender.name or "", one.text) for one in page]
            entries = [one for one in found if one[0] > self._audited] + entries
            if not found or found[0][0] <= self._audited:
                break
            before = found[0][0]
        if entries:
            self._audited = entries[-1][0]
        tell("log", entries=entries)


def tell(event: str, **fields: object) -> None:
    """Print a line. Its time is on a clock that all processes of a machine share."""
    print(json.dumps({"event": event, "at_s": time.monotonic(), **fields}, default=str), flush=True)


async def run(options: argparse.Namespace) -> None:
    """Enter, talk, listen, obey."""
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    policy = ocm.Policy(lifetime=ocm.Lifetime.PERSIST)
    async with ocm.connect(options.url, user=options.user, state=options.state) as client:
        entrance = client.create(options.room, policy=policy) if options.create else client.join(options.room)
        room = await entrance.__aenter__()  # not left at the end: a program that is killed does not leave either
        tell("entered")
        member = Member(
            room, prefix=options.prefix or options.user, first=options.first, count=options.count, rate=options.rate
        )
        work = [asyncio.create_task(member.talk()), asyncio.create_task(member.listen())]
        obeying = asyncio.create_task(member.obey(lines))
        await asyncio.wait([obeying, work[1]], return_when=asyncio.FIRST_COMPLETED)
        for task in work:
            task.cancel()
        outcomes = await asyncio.gather(*work, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, ocm.OcmError):
                tell("error", what=type(outcome).__name__, text=str(outcome))
            elif isinstance(outcome, Exception):
                raise outcome
        if obeying.done() and obeying.result():
            await room.leave()
        obeying.cancel()


def main() -> None:
    """Read the arguments; an error of ours is a line, too."""
    parser = argparse.ArgumentParser(prog="python -m tests.real.member")
    parser.add_argument("url")
    parser.add_argument("--room", default="lobby")
    parser.add_argument("--user", required=True)
    parser.add_argument("--create", action="store_true")
    parser.add_argument("--state")
    parser.add_argument("--prefix", help="what messages begin with; else the user's name")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--count", type=int, default=10**9)
    parser.add_argument("--rate", type=float, default=20.0, help="messages a second")
    options = parser.parse_args()
    try:
        asyncio.run(run(options))
    except ocm.OcmError as error:
        tell("error", what=type(error).__name__, text=str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
