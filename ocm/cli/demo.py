"""``ocm demo``: a server and scripted members, over real TCP and UDP on this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Final

import click

import ocm
from ocm.cli.command import TranslatedCommand
from ocm.cli.conversation import Conversation
from ocm.cli.faults import DONE, CommandFailed
from ocm.cli.interruption import Interruption, run_politely
from ocm.cli.lines import Stdin
from ocm.cli.screen import STDOUT, Screen
from ocm.cli.show import TextView, show_name, show_reason, show_text
from ocm.cli.words import Words
from ocm.protocol.control.client import ClientControl
from ocm.protocol.control.packets import Form
from ocm.protocol.url import parse_url
from ocm.protocol.wire.classic import HEADER_SIZE, Operation, write_datagram

ROOM: Final = "tea"
STEP_TIMEOUT_S: Final = 5.0
"""How long a step of the demo may take; on this machine it takes milliseconds."""
_TOKEN: Final = bytes(64)
_EXAMPLE: Final = "ocm demo"


def demo_command(words: Words) -> click.Command:
    """Make the command."""

    def callback() -> int:
        return run_politely(lambda interruption: _Demo(words, interruption).run())

    return TranslatedCommand(words, "demo", params=[], callback=callback, example=_EXAMPLE)


class _Actor:
    """A scripted member."""

    def __init__(self, room: ocm.Room) -> None:
        self.room = room
        self.name = room.user
        self.events = aiter(room)

    async def sees(self, kind: type[ocm.Event], words: Words) -> ocm.Event:
        """Wait for an event of this kind."""
        try:
            async with asyncio.timeout(STEP_TIMEOUT_S):
                async for event in self.events:
                    if isinstance(event, kind):
                        return event
        except TimeoutError:
            pass
        raise CommandFailed(words("demo.failed", what=f"{self.name}: {kind.__name__}"))


class _Demo:
    """The play."""

    def __init__(self, words: Words, interruption: Interruption) -> None:
        self._words = words
        self._interruption = interruption
        self._stdin = Stdin()
        self._screen = Screen(STDOUT)
        self._cast: list[_Actor] = []

    async def run(self) -> int:
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(ocm.serve("tcrps://127.0.0.1:0"))
            assert server.classic_url is not None, "on loopback classic programs may connect"
            self._screen.tell(self._words("demo.serving", url=server.url))
            self._screen.tell(self._words("demo.serving_classic", url=server.classic_url))
            self._screen.tell(self._words("demo.packets"))
            self._screen.tell(self._words("demo.profiles"))
            self._screen.line("")
            aiko = await self._enter(stack, server.url, "aiko", create=True)
            bob = await self._enter(stack, server.url, "bob")
            hanako = await self._enter(stack, server.classic_url, "花子")
            await self._impostor(server.url, "bob")
            await self._says(aiko, self._words("demo.hello"))
            await self._says(hanako, self._words("demo.greeting"))
            await self._says(bob, self._words("demo.question"))
            await self._leaves(bob)
            if self._stdin.is_terminal and self._screen.is_terminal:
                return await self._invite(stack, server.url, aiko)
            await self._closes(aiko)
            status = server.status()
            self._screen.line("")
            counts = {"received": status.datagrams_received, "sent": status.datagrams_sent}
            self._screen.tell(self._words("demo.counts", **counts))
            self._screen.tell(self._words("demo.try_it"))
        return DONE

    async def _enter(self, stack: AsyncExitStack, url: str, user: str, *, create: bool = False) -> _Actor:
        client = await stack.enter_async_context(ocm.connect(url, user=user))
        secure = parse_url(url).secure
        hint = self._words("demo.sealed_request") if secure else _request_hint(user, create=create)
        carrier = "TLS" if secure else "TCP"
        self._tell(carrier, "->", f"demo.{'creates' if create else 'joins'}", user=user, room=ROOM, hint=hint)
        policy = ocm.Policy(ocm.Access.MIXED)
        membership = client.create(ROOM, policy=policy) if create else client.join(ROOM)
        actor = _Actor(await stack.enter_async_context(membership))
        for other in self._cast:
            await other.sees(ocm.MemberJoined, self._words)
            self._tell(_carrier(other), "<-", "demo.sees_join", user=other.name, other=user)
            if other.room.plaintext_members:
                count = other.room.plaintext_members
                self._tell("   ", "  ", "demo.sees_plaintext", user=other.name, count=count)
        self._cast.append(actor)
        return actor

    async def _impostor(self, url: str, user: str) -> None:
        try:
            async with ocm.connect(url, user=user) as client, client.join(ROOM):
                pass
        except ocm.RoomRefused as refused:
            self._tell("TLS", "<-", "demo.refused", user=user, code=refused.code)

    async def _says(self, speaker: _Actor, text: str) -> None:
        if speaker.room.encrypted:
            hint = self._words("demo.sealed")
        else:
            size = len(write_datagram(ROOM.encode(), _TOKEN, text.encode()))
            hint = f"{len(ROOM):02x} {len(_TOKEN):02x} {ROOM} <token> {text} = {size} bytes"
        self._tell(_carrier(speaker), "->", "demo.says", user=speaker.name, text=text, hint=hint)
        speaker.room.post(text)
        for other in self._cast:
            if other is not speaker:
                event = await other.sees(ocm.Message, self._words)
                assert isinstance(event, ocm.Message)
                values = {"sender": show_name(event.sender.name, self._words), "text": show_text(event.text)}
                hint = "demo.in_clear" if event.plaintext else "" if other.room.encrypted else "demo.to_clear"
                told = self._words(hint) if hint else ""
                self._tell(_carrier(other), "<-", "demo.hears", user=other.name, hint=told, **values)

    async def _leaves(self, actor: _Actor) -> None:
        self._tell("TLS" if actor.room.encrypted else "TCP", "->", "demo.leaves", user=actor.name)
        self._cast.remove(actor)
        await actor.room.leave()
        for other in self._cast:
            event = await other.sees(ocm.MemberLeft, self._words)
            assert isinstance(event, ocm.MemberLeft)
            reason = show_reason(event.reason, self._words)
            self._tell(_carrier(other), "<-", "demo.sees_leave", user=other.name, other=actor.name, reason=reason)

    async def _closes(self, host: _Actor) -> None:
        self._tell("TLS", "->", "demo.host_leaves", user=host.name)
        self._cast.remove(host)
        await host.room.leave()
        for other in self._cast:
            event = await other.sees(ocm.RoomClosed, self._words)
            assert isinstance(event, ocm.RoomClosed)
            reason = show_reason(event.reason, self._words)
            self._tell(_carrier(other), "<-", "demo.sees_close", user=other.name, reason=reason)

    async def _invite(self, stack: AsyncExitStack, url: str, bot: _Actor) -> int:
        """Let the user in; the host answers."""
        user = self._words("demo.your_name")
        client = await stack.enter_async_context(ocm.connect(url, user=user))
        room = await stack.enter_async_context(client.join(ROOM))
        self._screen.line("")
        self._screen.tell(self._words("demo.your_turn", user=user, bot=bot.name))
        view = TextView(self._screen, self._words, interactive=True)
        view.entered(room, created=False)
        answering = asyncio.create_task(_answer(bot, lambda text: self._words("demo.answer", text=text)))
        self._interruption.is_watched = True
        try:
            return await Conversation(room, self._stdin, view).run(self._interruption.event)
        finally:
            answering.cancel()

    def _tell(self, carrier: str, direction: str, key: str, *, hint: str = "", **values: object) -> None:
        line = f"{carrier} {direction} {self._words(key, **values)}"
        self._screen.tell(f"{line}   [{hint}]" if hint else line)


def _carrier(actor: _Actor) -> str:
    """Return which way a member's messages travel just now: over TLS until it is known that UDP gets through."""
    return "TLS" if actor.room.path.kind is ocm.PathKind.TLS else "UDP"


async def _answer(bot: _Actor, reply: Callable[[str], str]) -> None:
    async for event in bot.events:
        if isinstance(event, ocm.Message):
            bot.room.post(reply(event.text[:200]))


def _request_hint(user: str, *, create: bool) -> str:
    """Return the bytes of a request of the classic profile, as far as one can read them."""
    operation = Operation.CREATE if create else Operation.JOIN
    request = ClientControl(form=Form.OCM).send_request(operation, room=ROOM, user=user)
    return f"{request[:3].hex(' ')} .. {request[31:32].hex()} {ROOM} {request[HEADER_SIZE + len(ROOM) :].decode()}"
