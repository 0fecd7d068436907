"""Events as JSON, one object per line, for programs."""

from __future__ import annotations

import json
from typing import assert_never

import ocm
from ocm.cli.faults import code_of
from ocm.cli.screen import Screen


def json_line(values: dict[str, object]) -> str:
    """Return an object as one line: all of Unicode as it is, except what acts on a screen or ends a line somewhere."""
    return "".join(char if char.isprintable() else _escape(char) for char in json.dumps(values, ensure_ascii=False))


def _escape(char: str) -> str:
    return json.dumps(char)[1:-1] if char != "\x7f" else "\\u007f"


def event_values(event: ocm.Event) -> dict[str, object]:
    """Return what an event's object says beside ``room``."""
    values: dict[str, object]
    match event:
        case ocm.Message(sender=sender, text=text, seq=seq):
            values = {"event": "message", "user": sender.name, "text": text}
            if seq is not None:
                values |= {"seq": seq, "time_ms": event.time_ms, "history": event.history, "plaintext": event.plaintext}
        case ocm.Receipt(message_id=message_id, text=text, delivery=delivery):
            values = {"event": "receipt", "text": text, "message_id": message_id, "state": delivery.value}
            optional = {"seq": event.seq, "code": event.code}
            values |= {key: value for key, value in optional.items() if value is not None}
        case ocm.MemberJoined(member=member):
            values = {"event": "member_joined", "user": member.name}
        case ocm.MemberLeft(member=member, reason=reason):
            values = {"event": "member_left", "user": member.name, "reason": reason.name.lower()}
        case ocm.RoomClosed(reason=reason):
            values = {"event": "room_closed", "reason": reason.name.lower()}
        case ocm.Removed(reason=reason):
            values = {"event": "removed", "reason": reason.name.lower()}
        case ocm.Gap(missed=missed):
            values = {"event": "gap", "missed": missed}
        case ocm.Slowed(dropped=dropped):
            values = {"event": "slowed", "dropped": dropped}
        case ocm.Announcement(text=text):
            values = {"event": "announcement", "text": text}
        case ocm.ConnectionChanged() | ocm.PathChanged() | ocm.PolicyChanged() | ocm.LogChanged() | ocm.StateChanged():
            values = _change_values(event)
        case _:
            assert_never(event)
    return values


def _change_values(
    event: ocm.ConnectionChanged | ocm.PathChanged | ocm.PolicyChanged | ocm.LogChanged | ocm.StateChanged,
) -> dict[str, object]:
    match event:
        case ocm.ConnectionChanged(connection=connection, attempt=attempt):
            return {"event": "connection", "state": connection.value, "attempt": attempt}
        case ocm.PathChanged(path=path):
            return {"event": "path", "path": path.kind.value, "round_trip_s": path.round_trip_s, "loss": path.loss}
        case ocm.PolicyChanged(access=access):
            return {"event": "policy", "access": access.value}
        case ocm.LogChanged(rewound=rewound):
            return {"event": "log", "rewound": rewound}
        case ocm.StateChanged(failure=failure):
            return {"event": "state", "failure": failure}


class JsonView:
    """One object per line, flushed at once. Texts are as they came: whoever shows them escapes them."""

    def __init__(self, screen: Screen, *, room: str, user: str) -> None:
        """Write to ``screen`` about ``room``, in which we are ``user``."""
        self._screen = screen
        self._room = room
        self._user = user

    def entered(self, room: ocm.Room, *, created: bool) -> None:
        """Tell that we are in the room."""
        self._write(
            {"event": "joined", "user": self._user, "host": created, **_state_of(room), "returned": room.returned}
        )

    def event(self, event: ocm.Event) -> None:
        """Tell an event."""
        values = event_values(event)
        self._write(values | {"user": self._user} if isinstance(event, ocm.Receipt) else values)

    def who(self, names: tuple[str, ...]) -> None:
        """List the members."""
        self._write({"event": "who", "members": names})

    def status(self, room: ocm.Room) -> None:
        """Tell which way messages travel, and who can read them."""
        values = {"round_trip_s": room.path.round_trip_s, "loss": room.path.loss}
        self._write({"event": "status", "connection": room.connection.value, **_state_of(room), **values})

    def plaintext(self, count: int) -> None:
        """Tell how many members are not encrypted."""
        self._write({"event": "plaintext", "members": count})

    def not_done(self, error: ocm.OcmError, *, about: str | None) -> None:
        """Tell that something was refused."""
        self._write({"event": "refused", "user": self._user, "code": code_of(error), "reason": str(error)})

    def from_before(self, receipt: ocm.Receipt) -> None:
        """Tell it like any other."""
        self.event(receipt)

    def given_up(self, receipt: ocm.Receipt) -> None:
        """Tell it like any other."""
        self.event(receipt)

    def not_sent(self, code: str, text: str) -> None:
        """Tell that a line was not sent."""
        self._write({"event": "refused", "user": self._user, "code": code, "text": text})

    def unknown_command(self, word: str) -> None:
        """Tell that a line was no command."""
        self._write({"event": "refused", "user": self._user, "code": "unknown_command", "text": word})

    def commands(self) -> None:
        """Tell what can be asked for."""
        self._write({"event": "help", "commands": ["/help", "/who", "/status", "/kick", "/close", "/leave", "/quit"]})

    def left(self, unsent: int) -> None:
        """Tell that we have left."""
        self._write({"event": "left", "user": self._user, "unsent": unsent})

    def failed(self, code: str | int, sentence: str) -> None:
        """Tell why there is no more to tell; ``code`` is a number where a server refused."""
        kind = "refused" if isinstance(code, int) else "error"
        self._write({"event": kind, "user": self._user, "code": code, "reason": sentence})

    def _write(self, values: dict[str, object]) -> None:
        event = values.pop("event")
        self._screen.line(json_line({"event": event, "room": self._room, **values}))


def _state_of(room: ocm.Room) -> dict[str, object]:
    policy = room.policy
    return {
        "encrypted": room.encrypted,
        "policy": None if policy is None else policy.access.value,
        "plaintext_members": room.plaintext_members,
        "path": room.path.kind.value,
    }
