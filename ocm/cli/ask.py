"""The questions before a chat: where, 1 create or 2 join, who, which room."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import ocm
from ocm.cli.faults import FAILED, MISUSED, CommandFailed
from ocm.cli.lines import Stdin
from ocm.cli.screen import Screen
from ocm.cli.words import Words
from ocm.protocol.names import room_name, user_name
from ocm.protocol.url import ServerUrl, parse_url

THIS_MACHINE: Final = str(ServerUrl("localhost", secure=True))
_LIMITS: Final = ocm.Limits()
_PASSWORD_SIZE_MAX: Final = 1024
_USER_REFUSALS: Final = frozenset({ocm.Refusal.NAME_TAKEN, ocm.Refusal.NAME_NOT_ALLOWED})


@dataclass(slots=True, kw_only=True)
class Answers:
    """What is known of where somebody wants to go; None is still to be asked."""

    server: str | None
    create: bool | None
    room: str | None
    user: str | None

    @property
    def is_complete(self) -> bool:
        """Whether nothing is to be asked."""
        return None not in (self.server, self.create, self.room, self.user)

    def forget(self, error: ocm.OcmError) -> None:
        """Forget what did not work out, so that it is asked again."""
        if not isinstance(error, ocm.RoomRefused):
            self.server = None
        elif error.code in _USER_REFUSALS:
            self.user = None
        else:
            self.create = self.room = None


class Interview:
    """Asks on the screen, hears from stdin."""

    def __init__(self, stdin: Stdin, screen: Screen, words: Words) -> None:
        """Prepare."""
        self._stdin = stdin
        self._screen = screen
        self._words = words
        self.has_asked = False

    async def complete(self, answers: Answers) -> None:
        """Ask for what is missing, again and again until it can be used. Raises ``CommandFailed`` when stdin ends."""
        words = self._words
        if answers.server is None:
            question = words("chat.ask_server", default=THIS_MACHINE)
            answers.server = await self._ask(question, lambda text: check_server(text, words), default=THIS_MACHINE)
        if answers.room is None:
            answers.room = parse_url(answers.server).room
        if answers.create is None:
            answers.create = await self._ask(words("chat.ask_operation"), self._check_operation) == "1"
        if answers.user is None:
            answers.user = await self._ask(words("chat.ask_user"), lambda text: check_user(text, words))
        if answers.room is None:
            answers.room = await self._ask(words("chat.ask_room"), lambda text: check_room(text, words))

    async def _ask(self, question: str, check: Callable[[str], str], *, default: str = "") -> str:
        while True:
            ending = "" if self._stdin.is_terminal else "\n"
            self._screen.write(question.rstrip(" " if ending else "") + ending)
            line = await self._stdin.line()
            if line is None:
                raise CommandFailed(self._words("chat.input_ended"), status=FAILED if self.has_asked else MISUSED)
            self.has_asked = True
            try:
                return check(line.strip() or default)
            except CommandFailed as failed:
                self._screen.tell(f"* {failed.sentence}")

    def _check_operation(self, text: str) -> str:
        digit = text.translate({ord("１"): "1", ord("２"): "2"})
        if digit not in ("1", "2"):
            raise CommandFailed(self._words("chat.ask_again"))
        return digit


def check_server(text: str, words: Words) -> str:
    """Return the address if it is one. Raises ``CommandFailed``."""
    try:
        url = parse_url(text)
        if url.tcp_port and url.udp_port:
            return text
    except ocm.LocalProtocolError:
        pass
    raise CommandFailed(words("chat.bad_server", server=ocm.safe_text(text)), status=MISUSED)


def check_user(text: str, words: Words) -> str:
    """Return the name if it can be a member's. Raises ``CommandFailed``."""
    most = _LIMITS.user_code_points_max
    try:
        return user_name(text.encode(errors="surrogateescape"), code_points_max=most)
    except ocm.RemoteProtocolError:
        raise CommandFailed(words("chat.bad_user", most=most), status=MISUSED) from None


def check_room(text: str, words: Words) -> str:
    """Return the name if it can be a room's. Raises ``CommandFailed``."""
    most = _LIMITS.room_size_max
    try:
        return room_name(text.encode(errors="surrogateescape"), size_max=most)
    except ocm.RemoteProtocolError:
        raise CommandFailed(words("chat.bad_room", most=most), status=MISUSED) from None


def read_password(path: Path | None, words: Words) -> str | None:
    """Return the first line of the file. Raises ``CommandFailed``."""
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            line = file.read(_PASSWORD_SIZE_MAX + 1).split(b"\n")[0].removesuffix(b"\r")
        if not 0 < len(line) <= _PASSWORD_SIZE_MAX:
            raise ValueError(f"{len(line)} bytes")
        return line.decode()
    except (OSError, ValueError) as error:
        detail = error.strerror if isinstance(error, OSError) else type(error).__name__
        raise CommandFailed(words("chat.bad_password_file", path=path, detail=detail), status=MISUSED) from None
