"""Who is in a room and what kind of room it is, as its log tells: entries become what their reader sees."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Annotated, Final

import msgspec

from ocm.errors import RemoteProtocolError
from ocm.protocol.entry import Access, Kind, Lifetime, Policy, Reason
from ocm.protocol.events import (
    Announcement,
    Event,
    MemberJoined,
    MemberLeft,
    Message,
    Person,
    PolicyChanged,
    Removed,
    RoomClosed,
)
from ocm.protocol.wire import frames
from ocm.protocol.wire.payload import read_object
from ocm.protocol.wire.records import PLAINTEXT_FLAG, MemberRow, Seated

NAMES_MAX: Final = 4096
"""Names of members, here or gone, that are kept."""
NAME_SIZE_MAX: Final = 255
"""Code points of a name that are kept: no profile has longer ones."""
_PLAINTEXT: Final = 2


class _Change(msgspec.Struct, frozen=True):
    """The body of an entry that is no text."""

    member: Annotated[int, msgspec.Meta(ge=0, lt=2**32)] = 0
    name: str = ""
    flags: int = 0
    reason: str = ""
    access: str = ""


class Roster:
    """One room's members and policy. The server's words, and so bounded, whatever it says."""

    def __init__(self, *, members_max: int) -> None:
        """Begin knowing nobody; at most ``members_max`` are told apart."""
        self.policy: Policy | None = None
        """What kind of room it is; None: not known, or of a later version."""
        self.member_id = 0
        self.host_id = 0
        self.members: dict[int, MemberRow] = {}
        """Those in the room, as far as the log was read."""
        self._members_max = members_max
        self._names: dict[int, str] = {}

    @property
    def is_full(self) -> bool:
        """Whether no more members are told apart."""
        return len(self.members) >= self._members_max

    @property
    def plaintext_members(self) -> int:
        """How many members speak the classic profile."""
        return sum(bool(row.flags & PLAINTEXT_FLAG) for row in self.members.values())

    def seat(self, seated: Seated) -> None:
        """Take a seat: what was known of who is in counts no more."""
        self.member_id, self.host_id = seated.member, seated.host
        self.policy = _policy_of(seated)
        self.members = {}
        self.add(seated.members)

    def add(self, rows: Iterable[MemberRow]) -> None:
        """Take members; who is known already stays as it is."""
        for row in rows:
            name = row.name[:NAME_SIZE_MAX]
            self._name(row.id, name)
            if not self.is_full:
                self.members.setdefault(row.id, MemberRow(row.id, name, row.flags))

    def learn(self, entry: frames.Message) -> None:
        """Learn from an entry that is read back what somebody is called; it makes nobody a member."""
        if entry.kind not in {Kind.JOIN, Kind.LEAVE}:
            return
        with contextlib.suppress(RemoteProtocolError):  # then nobody is named
            change = read_object(entry.body, _Change)
            if change.name and change.member not in self._names:
                self._name(change.member, change.name[:NAME_SIZE_MAX])

    def event_of(self, message: frames.Message) -> Event | None:
        """Return what an entry means to its reader; None: nothing. ``RoomClosed`` and ``Removed`` end the room."""
        if message.kind == Kind.TEXT:
            return None if message.sender == self.member_id else self.text_of(message, history=False)
        try:
            change = read_object(message.body, _Change)
        except RemoteProtocolError:
            if message.kind != Kind.CLOSED:
                return Announcement(f"[kind {message.kind}]")
            change = _Change()  # nothing comes behind it, whatever it says
        return self._change(message.kind, change)

    def text_of(self, message: frames.Message, *, history: bool) -> Message:
        """Return a text, with the name that its sender was last known by."""
        name = self._names.get(message.sender)
        return Message(
            Person(f"member {message.sender}" if name is None else name),
            message.body.decode(errors="replace"),
            message.seq,
            message.time_ms,
            history=history,
            plaintext=bool(message.flags & _PLAINTEXT),
            is_ours=message.sender == self.member_id,
        )

    def _name(self, member: int, name: str) -> None:
        self._names[member] = name
        if len(self._names) > NAMES_MAX:
            del self._names[next(iter(self._names))]

    def _change(self, kind: int, change: _Change) -> Event | None:
        person = Person(change.name[:NAME_SIZE_MAX])
        match kind:
            case Kind.JOIN:
                self.add([MemberRow(change.member, change.name, change.flags)])
                return None if change.member == self.member_id else MemberJoined(person)
            case Kind.LEAVE:
                self.members.pop(change.member, None)
                if change.member == self.host_id:
                    self.host_id = next(iter(self.members), 0)
                reason = _reason_of(change, otherwise=Reason.KICKED)
                return Removed(reason) if change.member == self.member_id else MemberLeft(person, reason)
            case Kind.CLOSED:
                return RoomClosed(_reason_of(change, otherwise=Reason.GONE))
            case Kind.POLICY if (access := _access_of(change)) is not None:
                if self.policy is not None:
                    self.policy = Policy(access, self.policy.lifetime, self.policy.durable)
                return PolicyChanged(access)
            case _:
                return Announcement(f"[kind {kind}]")


def _reason_of(change: _Change, *, otherwise: Reason) -> Reason:
    """Return the reason that an entry names; ``otherwise`` for one of a later version: who is gone is gone."""
    try:
        return Reason(change.reason)
    except ValueError:
        return otherwise


def _access_of(change: _Change) -> Access | None:
    try:
        return Access(change.access)
    except ValueError:
        return None  # of a later version


def _policy_of(seated: Seated) -> Policy | None:
    try:
        return Policy(Access(seated.access), Lifetime(seated.lifetime), seated.durable)
    except ValueError:
        return None  # of a later version
