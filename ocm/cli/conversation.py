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
UNSENT_SIZE_MAX: Final = 2**20
"""Characters of them, likewise."""
KEEP_AGAIN_S: Final = 1.0
"""How long a line that cannot be kept on this machine waits before it is tried again."""
ASK_PATIENCE_S: Final = 2.0
"""How long the next line waits for the answer to a command; a later answer is shown when it comes."""


class Conversation:
    """One stay in a room."""

    def __init__(self, room: ocm.Room, stdin: Stdin, view: View, *, shown_up_to: int = 0) -> None:
        """Prepare; ``run`` talks and listens. Messages up to the entry ``shown_up_to`` were shown already."""
        self._room = room
        self._stdin = stdin
        self._view = view
        self._shown_up_to = shown_up_to
        self._unsettled: dict[int, int] = {}
        """The sizes, in characters, of what was said here and whose fate is not known, by message id."""
        self._unsettled_size = 0
        self._unsent = 0
        """Messages that were given up when we left."""
        self._left = False
        self._asked: set[asyncio.Task[None]] = set()
        """What is asked of the server."""

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
            self._show(event)
            if self._room.plaintext_members != plaintext:
                plaintext = self._room.plaintext_members
                self._view.plaintext(plaintext or 0)
            match event:
                case ocm.Removed():
                    status, ended = FAILED, True
                case ocm.RoomClosed():
                    ended = True
                case _:
                    pass
        if self._left and not ended:
            self._view.left(self._unsent + len(self._unsettled))
        return status

    def _show(self, event: ocm.Event) -> None:
        match event:
            case ocm.Receipt(message_id=message_id):
                size = self._unsettled.pop(message_id, None)
                self._unsettled_size -= size or 0
                if self._left and event.delivery is ocm.Delivery.REFUSED and event.code == "closed":
                    self._unsent += 1  # by our leaving: told of as a number
                    self._view.given_up(event)
                elif size is not None:
                    self._view.event(event)
                else:
                    self._view.from_before(event)
            case ocm.Message(seq=int(seq)) if seq <= self._shown_up_to:
                pass
            case ocm.Gap():
                if not self._room.encrypted:
                    self._unsettled.clear()  # their receipts may be among what is missing
                    self._unsettled_size = 0
                self._view.event(event)
            case _:
                self._view.event(event)

    async def _type(self) -> None:
        """Read stdin to its end, or to ``/leave``; then wait until all that was said is settled."""
        try:
            if await self._obey():
                await asyncio.gather(*self._asked)
                await self._room.drain()
        finally:
            for task in self._asked:
                task.cancel()
            await asyncio.gather(*self._asked, return_exceptions=True)

    async def _obey(self) -> bool:
        """Do as stdin says; return whether that was to its end."""
        while (line := await self._stdin.line()) is not None:
            if isinstance(line, Unreadable):
                self._view.not_sent(line.value, "")
                continue
            match read_typed(line):
                case Say(text):
                    await self._say(text)
                case Command.LEAVE:
                    return False
                case Command.HELP:
                    self._view.commands()
                case Command.WHO:
                    await self._ask(self._who())
                case Command.STATUS:
                    self._view.status(self._room)
                case Command.CLOSE:
                    await self._ask(self._room.close())
                case Kick(user):
                    await self._ask(self._room.kick(user), about=user)
                case Unknown(word):
                    self._view.unknown_command(word)
                case None:
                    pass
        return True

    async def _ask(self, request: Coroutine[Any, Any, None], *, about: str | None = None) -> None:
        """Ask for something, and wait a little for the answer: what is typed behind it is not to wait for a server."""
        task = asyncio.create_task(self._answer(request, about=about))
        self._asked.add(task)
        await asyncio.wait({task}, timeout=ASK_PATIENCE_S)
        for answered in [task for task in self._asked if task.done()]:
            self._asked.remove(answered)
            answered.result()

    async def _answer(self, request: Coroutine[Any, Any, None], *, about: str | None) -> None:
        try:
            await request
        except ocm.OcmError as error:
            self._view.not_done(error, about=about)

    async def _who(self) -> None:
        self._view.who(tuple(await self._room.fetch_members()))

    async def _say(self, text: str) -> None:
        while True:
            try:
                message_id = self._room.post(text)
            except ocm.SendRefused as refused:
                if refused.retry_after_s is None:
                    self._view.not_sent(refused.code, text)
                    return
                await asyncio.sleep(refused.retry_after_s)
            except ocm.StateFailed:
                if self._stdin.is_terminal:
                    self._view.not_sent("state", text)
                    return
                await asyncio.sleep(KEEP_AGAIN_S)  # a file that is piped in waits; a person types it again
            else:
                break
        self._unsettled[message_id] = len(text)
        self._unsettled_size += len(text)
        if len(self._unsettled) >= UNSENT_MAX or self._unsettled_size >= UNSENT_SIZE_MAX:
            await self._room.drain()
            await asyncio.sleep(0)
