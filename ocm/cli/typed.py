"""What a person types in a room: a message, or one of the commands."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias


class Command(Enum):
    """What can be asked for instead of being said."""

    HELP = "/help"
    WHO = "/who"
    LEAVE = "/leave"
    STATUS = "/status"
    CLOSE = "/close"


@dataclass(frozen=True, slots=True)
class Say:
    """Say this."""

    text: str


@dataclass(frozen=True, slots=True)
class Kick:
    """Remove the member of this name."""

    user: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """Looks like a command, and is none: explained, not sent."""

    word: str


Typed: TypeAlias = Say | Command | Kick | Unknown

_KICK: Final = "/kick"
_COMMANDS: Final = {command.value: command for command in Command} | {"/quit": Command.LEAVE}


def read_typed(line: str) -> Typed | None:
    """Tell what a line means; None when it is blank. ``//`` says a text that begins with one ``/``."""
    if not line.strip():
        return None
    if line.startswith("//"):
        return Say(line[1:])
    if line.startswith("/"):
        typed = line.rstrip()
        word, _, rest = typed.partition(" ")
        if word == _KICK and rest.strip():
            return Kick(rest.strip())
        return _COMMANDS.get(typed) or Unknown(typed.split()[0])
    return Say(line)
