"""Events as lines for people. Every text of a peer passes through here, and nothing of it can act on a screen."""

from __future__ import annotations

from typing import Final, Protocol, assert_never

import ocm
from ocm.cli.faults import explain_chatting
from ocm.cli.screen import Screen
from ocm.cli.words import Words
from ocm.protocol.text import shorten

NAME_SHOWN_MAX: Final = 64
"""Code points of a name that are shown."""
_TEXT_SHOWN_MAX: Final = 60
"""Code points of a message of ours that is told of."""
_ATTEMPTS_TOLD: Final = 4
"""One in so many attempts to reconnect is told."""
_NEWLINE_SIGN: Final = " \N{RETURN SYMBOL} "
_MISLEADING: Final = frozenset("*＊:：\"'<>~～!！")
"""In a name they could pass for our own punctuation: ``* alice has joined.``"""


class View(Protocol):
    """How a conversation is shown: as lines for people, or as JSON."""

    def entered(self, room: ocm.Room, *, created: bool) -> None:
        """We are in the room."""

    def event(self, event: ocm.Event) -> None:
        """Something happened in the room."""

    def who(self, names: tuple[str, ...]) -> None:
        """The answer to ``/who``."""

    def status(self, room: ocm.Room) -> None:
        """The answer to ``/status``."""

    def plaintext(self, count: int) -> None:
        """So many members are not encrypted now."""

    def not_done(self, error: ocm.OcmError, *, about: str | None) -> None:
        """What we asked for, about a member of that name, was refused."""

    def from_before(self, receipt: ocm.Receipt) -> None:
        """What we said before this program started has come as far as it will."""

    def given_up(self, receipt: ocm.Receipt) -> None:
        """A message of ours was given up since we leave; ``left`` tells how many were."""

    def not_sent(self, code: str, text: str) -> None:
        """A line of ours was refused."""

    def unknown_command(self, word: str) -> None:
        """A line of ours looked like a command."""

    def commands(self) -> None:
        """The answer to ``/help``."""

    def left(self, unsent: int) -> None:
        """We have left on our own; so many of our messages are not known to have arrived."""

    def failed(self, code: str | int, sentence: str) -> None:
        """The conversation cannot begin, or go on; stderr says so too."""


def show_name(name: str | None, words: Words) -> str:
    """Return a member's name for a line: short, harmless, and not to be taken for anything but a name."""
    if name is None:
        return words("chat.someone")
    safe = ocm.isolate(shorten(name, limit=NAME_SHOWN_MAX))
    return f'"{safe}"' if _MISLEADING.intersection(safe) else safe


def show_text(text: str) -> str:
    """Return a message's text as one line: a second one could pass for another member's."""
    shown = ocm.safe_text(text, newlines=True).replace("\n", _NEWLINE_SIGN)
    return ocm.isolate(shown)


def show_reason(reason: ocm.Reason, words: Words) -> str:
    """Say why, in the reader's language."""
    return words(f"reason.{reason.name.lower()}")


def show_event(event: ocm.Event, words: Words) -> str | None:
    """Return the line for an event; None where there is nothing to see."""
    match event:
        case ocm.Message(sender=sender, text=text):
            mark = "~ " if event.history else "! " if event.plaintext else ""
            return f"{mark}{show_name(sender.name, words)}: {show_text(text)}"
        case ocm.Receipt():
            line = _show_receipt(event, words)
        case ocm.MemberJoined() | ocm.MemberLeft() | ocm.RoomClosed() | ocm.Removed():
            line = _show_coming_and_going(event, words)
        case ocm.ConnectionChanged():
            line = _show_connection(event, words)
        case ocm.PathChanged(path=path):
            line = words(f"path.{path.kind.value}")
        case ocm.PolicyChanged(access=access):
            line = words(f"chat.policy_{access.value}")
        case ocm.LogChanged(rewound=rewound):
            line = words("chat.log_rewound" if rewound else "chat.log_new")
        case ocm.StateChanged(failure=why):
            line = words("chat.state_works") if why is None else words("chat.state_failed", why=show_text(why))
        case ocm.Gap(missed=missed):
            line = words("chat.gap", missed=missed)
        case ocm.Slowed(dropped=dropped):
            line = words("chat.slowed", dropped=dropped)
        case ocm.Announcement(text=text):
            line = words("chat.announcement", text=show_text(text))
        case _:
            assert_never(event)
    return None if line is None else f"* {line}"


def _show_receipt(receipt: ocm.Receipt, words: Words) -> str | None:
    """What came as far as it should needs no words."""
    text = show_text(shorten(receipt.text, limit=_TEXT_SHOWN_MAX))
    match receipt.delivery:
        case ocm.Delivery.REFUSED:
            key = f"refused.{receipt.code}"
            return words("chat.refused", text=text, why=words(key if key in words else "refused.invalid"))
        case ocm.Delivery.UNKNOWN:
            return words("chat.unknown", text=text)
        case _:
            return None


def _show_coming_and_going(
    event: ocm.MemberJoined | ocm.MemberLeft | ocm.RoomClosed | ocm.Removed, words: Words
) -> str:
    match event:
        case ocm.MemberJoined(member=member):
            return words("chat.member_joined", user=show_name(member.name, words))
        case ocm.MemberLeft(member=member, reason=reason):
            user = show_name(member.name, words)
            return words("chat.member_left", user=user, reason=show_reason(reason, words))
        case ocm.RoomClosed(reason=reason):
            return words("chat.room_closed", reason=show_reason(reason, words))
        case ocm.Removed(reason=reason):
            return words("chat.removed", reason=show_reason(reason, words))


def _show_connection(event: ocm.ConnectionChanged, words: Words) -> str | None:
    if event.connection is ocm.Connection.CONNECTED:
        return words("chat.connected")
    if event.attempt == 0:
        return words("chat.reconnecting")
    if event.attempt % _ATTEMPTS_TOLD == 0:
        return words("chat.still_reconnecting", attempt=event.attempt)
    return None


class TextView:
    """Plain lines: what people say as ``name: text``, everything else behind a ``*``."""

    def __init__(self, screen: Screen, words: Words, *, interactive: bool) -> None:
        """Write to ``screen``; ``interactive`` adds hints for somebody who types."""
        self._screen = screen
        self._words = words
        self._interactive = interactive
        self._is_detour = False
        """Whether it was said that messages do not travel as they should."""

    def entered(self, room: ocm.Room, *, created: bool) -> None:
        """Say where we are, and how private it is."""
        names = {"room": show_name(room.name, self._words), "user": show_name(room.user, self._words)}
        closes = room.policy is None or room.policy.lifetime is ocm.Lifetime.CLOSE
        if room.returned:
            self._note("chat.back", **names)
        elif created:
            self._note("chat.created" if closes else "chat.created_stays", **names)
        else:
            self._note("chat.joined", **names)
        self._privacy(room)
        if self._interactive:
            self._note("chat.hint")

    def event(self, event: ocm.Event) -> None:
        """Show an event. That messages travel by UDP is worth a line only where they did not."""
        if isinstance(event, ocm.PathChanged):
            was_detour, self._is_detour = self._is_detour, event.path.kind is not ocm.PathKind.UDP
            if not (was_detour or self._is_detour):
                return
        line = show_event(event, self._words)
        if line is not None:
            self._screen.tell(line)

    def who(self, names: tuple[str, ...]) -> None:
        """List the members."""
        shown = ", ".join(show_name(name, self._words) for name in names)
        self._note("chat.who", count=len(names), names=shown)

    def status(self, room: ocm.Room) -> None:
        """Say which way messages travel, and who can read them."""
        path = room.path
        self._note(f"path.{path.kind.value}")
        if path.round_trip_s is not None and path.kind is ocm.PathKind.UDP:
            self._note("path.trip", ms=f"{path.round_trip_s * 1000:.1f}", percent=f"{path.loss * 100:.1f}")
        self._privacy(room)
        if room.policy is not None and room.policy.access is ocm.Access.MODERN:
            self._note("chat.access_modern")

    def plaintext(self, count: int) -> None:
        """Say how many are not encrypted."""
        self._note("chat.plaintext" if count else "chat.no_plaintext", count=count)

    def not_done(self, error: ocm.OcmError, *, about: str | None) -> None:
        """Say why not."""
        match error:
            case ocm.RoomRefused(code=ocm.Refusal.NOT_FOUND) if about is not None:
                self._note("chat.nobody", user=show_name(about, self._words))
            case ocm.LocalProtocolError():
                self._note("chat.not_in_classic")
            case ocm.RoomRefused():
                self._note("fault.other", detail=explain_chatting(error, "", self._words))
            case _:
                self._note("chat.not_now")

    def from_before(self, receipt: ocm.Receipt) -> None:
        """Say what became of it: nobody has seen it on this screen."""
        if receipt.delivery in {ocm.Delivery.IN_ROOM, ocm.Delivery.SENT}:
            self._note("chat.from_before", text=show_text(shorten(receipt.text, limit=_TEXT_SHOWN_MAX)))
        else:
            self.event(receipt)

    def given_up(self, receipt: ocm.Receipt) -> None:
        """Say nothing: ``left`` does."""

    def not_sent(self, code: str, text: str) -> None:
        """Say why a line was not sent, and what to do."""
        if f"not_sent.{code}" in self._words:
            self._note(f"not_sent.{code}")
        else:
            self._note("not_sent.other", code=code)

    def unknown_command(self, word: str) -> None:
        """Explain."""
        self._note("chat.unknown_command", word=show_text(word[:NAME_SHOWN_MAX]))

    def commands(self) -> None:
        """List the commands."""
        self._note("chat.commands")

    def left(self, unsent: int) -> None:
        """Say goodbye."""
        if unsent:
            self._note("chat.unsent", count=unsent)
        self._note("chat.left")

    def failed(self, code: str | int, sentence: str) -> None:
        """Say nothing: stderr does."""

    def _privacy(self, room: ocm.Room) -> None:
        """Say who can read what is said."""
        policy, count = room.policy, room.plaintext_members or 0
        if not room.encrypted:
            self._note("chat.not_encrypted")
        elif count or (policy is not None and policy.access is ocm.Access.MIXED):
            self._note("chat.mixed" if count else "chat.mixed_none", count=count)
        else:
            self._note("chat.encrypted")

    def _note(self, key: str, **values: object) -> None:
        self._screen.tell(f"* {self._words(key, **values)}")
