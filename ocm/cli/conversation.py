"""Being in a room: what is typed goes in, what happens comes out, until one of the two ends."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

import ocm
from ocm.cli.faults import DONE, FAILED
from ocm.cli.lines import Stdin, Unreadable
from ocm.cli.show import View
from ocm.cli.typed import Command, Kick, Say, Unknown, read_typed

UNSENT_MAX: Final = 1000
"""Messages that may wait to be sent before stdin is read on: a file piped in does not pile up in memory."""


class Conversation:
    """One stay in a room."""

    def __init__(self, room: ocm.Room, stdin: Stdin, view: View) -> None:
        """Prepare; ``run`` talks and listens."""
        self._room = room
        self._stdin = stdin
        self._view = view
        self._posted = 0
        self._received = 0
        self._left = False

    async def run(self, interrupted: asyncio.Event) -> int:
        """Talk and listen until the room or stdin ends; return the exit status.

        Raises ``OcmError`` when the connection was lost for good, and ``BrokenPipeError`` when nobody reads.
        """
        listener = asyncio.create_task(self._listen())
        typist = asyncio.create_task(self._type())
        stop = asyncio.create_task(interrupted.wait())
        try:
            await asyncio.wait({listener, typist, stop}, return_when=asyncio.FIRST_COMPLETED)
            if typist.done():
                typist.result()
            if listener.done():
                return listener.result()
            self._left = True
            typed_all = typist.done()
            typist.cancel()  # who reads on while the room is left would only be told that it is closed
            await self._room.leave(drain=typed_all)
            return await listener
        except BrokenPipeError:
            await self._room.leave(drain=False)
            raise
        finally:
            for task in (listener, typist, stop):
                task.cancel()
            await asyncio.wait({listener, typist, stop})

    async def _listen(self) -> int:
        """Show events; return the exit status when there are no more."""
        status = DONE
        ended = False
        plaintext = self._room.plaintext_members
        async for event in self._room:
            if self._left and isinstance(event, ocm.Receipt) and event.code == "closed":
                continue  # we did not wait for it: ``left`` says how many these are
            self._view.event(event)
            if self._room.plaintext_members != plaintext:
                plaintext = self._room.plaintext_members
                self._view.plaintext(plaintext or 0)
            match event:
                case ocm.Receipt():
                    self._received += 1
                case ocm.Gap():
                    self._received = self._posted  # its receipts may be among what is missing
                case ocm.Removed():
                    status, ended = FAILED, True
                case ocm.RoomClosed():
                    ended = True
                case _:
                    pass
        if self._left and not ended:
            self._view.left(max(0, self._posted - self._received))
        return status

    async def _type(self) -> None:
        """Read stdin to its end, or to ``/leave``; then wait until all that was said is settled."""
        while (line := await self._stdin.line()) is not None:
            if isinstance(line, Unreadable):
                self._view.not_sent(line.value, "")
                continue
            match read_typed(line):
                case Say(text):
                    await self._say(text)
                case Command.LEAVE:
                    return
                case Command.HELP:
                    self._view.commands()
                case Command.WHO:
                    self._view.who(tuple(await self._room.fetch_members()))
                case Command.STATUS:
                    self._view.status(self._room)
                case Command.CLOSE:
                    await self._ask(self._room.close())
                case Kick(user):
                    await self._ask(self._room.kick(user))
                case Unknown(word):
                    self._view.unknown_command(word)
                case None:
                    pass
        await self._room.drain()

    async def _ask(self, request: Coroutine[Any, Any, None]) -> None:
        try:
            await request
        except ocm.OcmError as error:
            self._view.not_done(error)

    async def _say(self, text: str) -> None:
        while True:
            try:
                self._room.post(text)
            except ocm.SendRefused as refused:
                if refused.retry_after_s is None:
                    self._view.not_sent(refused.code, text)
                    return
                await asyncio.sleep(refused.retry_after_s)
            else:
                break
        self._posted += 1
        if self._posted - self._received >= UNSENT_MAX:
            await self._room.drain()
            await asyncio.sleep(0)
