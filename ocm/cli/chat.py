"""``ocm chat``: a person, or a program, in a room."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import click

import ocm
from ocm.cli.ask import Answers, Interview, check_room, check_server, check_user, read_password
from ocm.cli.command import TranslatedCommand
from ocm.cli.conversation import Conversation
from ocm.cli.faults import MISUSED, CommandFailed, code_of, explain_chatting
from ocm.cli.interruption import Interruption, run_politely
from ocm.cli.jsonl import JsonView
from ocm.cli.lines import Stdin
from ocm.cli.screen import STDOUT, Screen, complain
from ocm.cli.show import TextView, View
from ocm.cli.trust import KNOWN_SERVERS, KnownServers, Trust, Untrusted, name_of
from ocm.cli.words import Words
from ocm.protocol.url import ServerUrl, parse_url
from ocm.store.places import state_folder, state_path

HISTORY_SHOWN: Final = 20
"""Messages shown to somebody who was not there when they were said."""
HISTORY_ENTRIES: Final = 100
"""Entries of the log among which they are looked for: comings and goings are entries, too."""

_EXAMPLE: Final = """ocm chat
ocm chat "tcrps://192.168.1.5:12345#fp=0123..." --join --room lobby --user aiko"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatOptions:
    """What was given on the command line or in the environment."""

    url: str | None
    create: bool
    join: bool
    room: str | None
    user: str | None
    policy: Literal["modern", "mixed"] | None
    password_file: Path | None
    as_json: bool


def chat_command(words: Words) -> click.Command:
    """Make the command."""
    params: list[click.Parameter] = [
        click.Argument(["url"], required=False, envvar="OCM_URL", metavar=words("chat.server")),
        click.Option(["--create"], is_flag=True, help=words("chat.create")),
        click.Option(["--join"], is_flag=True, help=words("chat.join")),
        click.Option(["--room"], envvar="OCM_ROOM", metavar="ROOM", help=words("chat.room")),
        click.Option(["--user"], envvar="OCM_USER", metavar="USER", help=words("chat.user")),
        click.Option(["--policy"], type=click.Choice(["modern", "mixed"]), help=words("chat.policy")),
        click.Option(
            ["--password-file"], type=click.Path(path_type=Path), metavar="FILE", help=words("chat.password_file")
        ),
        click.Option(["--json", "as_json"], is_flag=True, help=words("chat.json")),
    ]

    def callback(**values: object) -> int:
        options = ChatOptions(**values)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        answers = _check(options, words)
        password = read_password(options.password_file, words)
        return run_politely(lambda interruption: _Chat(options, answers, password, words, interruption).run())

    command = TranslatedCommand(words, "chat", params=params, callback=callback, example=_EXAMPLE)
    command.help = f"{command.help}\n\n{words('chat.url')}"
    return command


def _check(options: ChatOptions, words: Words) -> Answers:
    """Look at what was given before anything is asked. Raises ``CommandFailed``."""
    if options.create and options.join:
        raise CommandFailed(words("chat.both"), status=MISUSED)
    server = None if options.url is None else check_server(options.url, words)
    room = options.room if options.room is not None or server is None else parse_url(server).room
    answers = Answers(
        server=server,
        create=options.create if options.create or options.join else None,
        room=None if room is None else check_room(room, words),
        user=None if options.user is None else check_user(options.user, words),
    )
    if options.as_json and not answers.is_complete:
        raise CommandFailed(words("chat.json_asks_nothing"), status=MISUSED)
    _policy(options, answers, words)
    return answers


def _policy(options: ChatOptions, answers: Answers, words: Words) -> ocm.Policy | None:
    """Return the kind of room to make; None: the usual one. Raises ``CommandFailed``."""
    if options.policy is None:
        return None
    if answers.server is not None and not parse_url(answers.server).secure:
        raise CommandFailed(words("chat.policy_classic"), status=MISUSED)
    if answers.create is False:
        raise CommandFailed(words("chat.policy_join"), status=MISUSED)
    return ocm.Policy(ocm.Access(options.policy))


class _Chat:
    """From the first question to the last word."""

    def __init__(
        self, options: ChatOptions, answers: Answers, password: str | None, words: Words, interruption: Interruption
    ) -> None:
        self._options = options
        self._answers = answers
        self._password = password
        self._words = words
        self._interruption = interruption
        self._stdin = Stdin()
        self._screen = Screen(STDOUT, encoding="utf-8" if options.as_json else None)

    async def run(self) -> int:
        interview = Interview(self._stdin, self._screen, self._words)
        trust = self._trust()
        while True:
            await interview.complete(self._answers)
            try:
                return await self._visit(trust)
            except ocm.OcmError as error:
                sentence = self._explain(error)
                if self._interruption.is_watched or not interview.has_asked:
                    self._view().failed(code_of(error), sentence)
                    raise CommandFailed(sentence) from None
                self._screen.tell(f"* {sentence}")
                self._answers.forget(error)
            except CommandFailed as failed:
                self._view().failed("untrusted" if isinstance(failed, Untrusted) else "failed", failed.sentence)
                raise

    def _trust(self) -> Trust:
        asks = self._stdin.is_terminal and self._screen.is_terminal and not self._options.as_json
        folder = state_folder(environment=os.environ, home=Path.home())
        known = KnownServers(folder / KNOWN_SERVERS, self._words)
        return Trust(known, self._stdin, self._screen, self._words, asks=asks)

    async def _visit(self, trust: Trust) -> int:
        """Enter the room of a server that is the one it should be, stay, leave."""
        answers = self._answers
        assert answers.server is not None, "it was asked for"
        policy = _policy(self._options, answers, self._words)
        server = await trust.settle(answers.server)
        try:
            async with AsyncExitStack() as stack:
                client = await self._connect(stack, server)
                membership = client.create(answers.room, policy=policy) if answers.create else client.join(answers.room)
                return await self._stay(await stack.enter_async_context(membership))
        except ocm.ServerUntrusted as error:  # now, or when the connection was lost later
            raise trust.changed(answers.server, error) from None

    async def _stay(self, room: ocm.Room) -> int:
        self._interruption.is_watched = True
        view = self._view()
        view.entered(room, created=bool(self._answers.create))
        shown_up_to = 0
        if room.encrypted and not room.returned:
            shown_up_to = await self._show_history(room, view)
        conversation = Conversation(room, self._stdin, view, shown_up_to=shown_up_to)
        return await conversation.run(self._interruption.event)

    async def _connect(self, stack: AsyncExitStack, server: str) -> ocm.Client:
        """Connect with what is remembered; a second process at a time is somebody new."""
        user = self._answers.user
        assert user is not None, "it was asked for"
        state = self._state_of(parse_url(server))
        try:
            return await stack.enter_async_context(ocm.connect(server, user=user, password=self._password, state=state))
        except ocm.StateLocked:
            complain(self._words("chat.state_locked"))
        return await stack.enter_async_context(ocm.connect(server, user=user, password=self._password))

    def _state_of(self, url: ServerUrl) -> Path | None:
        """Return the file that remembers this user in this room at this server; None: nothing is remembered."""
        answers = self._answers
        if not url.secure:
            return None
        assert answers.room is not None, "it was asked for"
        assert answers.user is not None, "it was asked for"
        server = url.fingerprint or name_of(url)  # where an authority vouches, keys come and go
        return state_path(server, answers.room, answers.user, environment=os.environ, home=Path.home())

    async def _show_history(self, room: ocm.Room, view: View) -> int:
        """Show what was said last to somebody who was not there; return the entry up to which that is."""
        try:
            entries = await room.history(HISTORY_ENTRIES)
        except ocm.OcmError:
            return 0  # the room goes on without it
        shown = entries[-HISTORY_SHOWN:]
        for message in shown:
            view.event(message)
        return max((message.seq or 0 for message in shown), default=0)

    def _view(self) -> View:
        if self._options.as_json:
            return JsonView(self._screen, room=self._answers.room or "", user=self._answers.user or "")
        interactive = self._stdin.is_terminal and self._screen.is_terminal
        return TextView(self._screen, self._words, interactive=interactive)

    def _explain(self, error: ocm.OcmError) -> str:
        server = ocm.safe_text(self._answers.server or "")
        if self._interruption.is_watched and not isinstance(error, ocm.RoomRefused | ocm.StateFailed):
            return self._words("fault.gave_up", server=server)
        return explain_chatting(error, server, self._words)
