"""What a classic server says in its own name: sentences a person can read and our own client can take apart.

In our own form a notice is a datagram with an empty name, which no member can send. The sentences are fixed
English, one spelling each, so that a client in another language can say them in its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, TypeAlias

from ocm.protocol.entry import Entry, Kind, Reason


@dataclass(frozen=True, slots=True)
class MemberJoined:
    """Somebody came in."""

    name: str


@dataclass(frozen=True, slots=True)
class MemberLeft:
    """Somebody is gone, and why."""

    name: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class RoomClosed:
    """The room is over, and why."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Removed:
    """You are no longer a member, and why."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Slowed:
    """You sent more than your allowance; so many messages were dropped."""

    dropped: int


@dataclass(frozen=True, slots=True)
class Announcement:
    """Something else the server said."""

    text: str


Notice: TypeAlias = MemberJoined | MemberLeft | RoomClosed | Removed | Slowed | Announcement

# Without BYE, which closes and removes nobody: a member called "room closed:" may leave.
_CLOSED: Final = {f"room closed: {reason.value}": reason for reason in Reason if reason is not Reason.BYE}
_REMOVED: Final = {f"you were removed: {reason.value}": reason for reason in Reason if reason is not Reason.BYE}
_SLOWED: Final = re.compile(r"you send too fast: ([0-9]{1,9}) messages were dropped")


def notice_of(entry: Entry) -> str | None:
    """Return the sentence that tells everybody else of ``entry``; None for what members say themselves."""
    match entry.kind:
        case Kind.JOIN:
            return f"{entry.name} joined"
        case Kind.LEAVE:
            reason = entry.body.decode()
            return f"{entry.name} left" + ("" if reason == Reason.BYE else f": {reason}")
        case Kind.CLOSED:
            return f"room closed: {entry.body.decode()}"
        case Kind.POLICY:
            return "the room takes encrypted connections only from now on"
        case _:
            return None


def farewell_of(entry: Entry) -> str | None:
    """Return the sentence that tells a member of its own removal; None where it left by its own words."""
    reason = entry.body.decode()
    return None if reason == Reason.BYE else f"you were removed: {reason}"


def slowed_notice(dropped: int) -> str:
    """Return the sentence for a member that sends beyond its allowance."""
    return f"you send too fast: {dropped} messages were dropped"


def read_notice(text: str) -> Notice:
    """Take a notice apart. Any text has a meaning: what no sentence fits is an announcement.

    Names may contain anything, so a sentence is told by its end; where a name imitates a sentence the whole
    text still ends in the words of the real one.
    """
    if text in _CLOSED:
        return RoomClosed(_CLOSED[text])
    if text in _REMOVED:
        return Removed(_REMOVED[text])
    if (match := _SLOWED.fullmatch(text)) is not None:
        return Slowed(int(match[1]))
    if text.endswith(" joined"):
        return MemberJoined(text.removesuffix(" joined"))
    for reason in Reason:
        ending = " left" if reason is Reason.BYE else f" left: {reason.value}"
        if text.endswith(ending):
            return MemberLeft(text.removesuffix(ending), reason)
    return Announcement(text)
