"""A room: who is in it, who is its host, in which order things happened. It knows no wire and no session.

What is true of a room is the fold of its log (``apply``). What was decided and waits for the journal is kept
beside it, as reservations: names of members on their way in, members on their way out, sequence numbers
given. So a journal that fails takes back nothing but reservations (``forget_pending``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, NamedTuple

from ocm.errors import LocalProtocolError
from ocm.protocol.entry import CLASSIC_POLICY, Access, Entry, KeptRoom, Kind, Lifetime, Policy, Reason, Refusal
from ocm.protocol.limits import Limits
from ocm.protocol.names import skeleton

SERVER_ID: Final = 0
"""Sender of what the server itself says."""
_CLOCK_STEP_S: Final = 1e-6
"""Waits shorter than this are none: rounding leaves them, and added to a large ``now_s`` they are lost."""


_TEXT: Final = Kind.TEXT  # looked up for every message


class Member:
    """One member's place in one room. Its id is never used again in this room."""

    __slots__ = ("_heard_s", "_spent_s", "id", "is_kept", "leaving", "lost_s", "name", "plaintext", "room", "seated")

    def __init__(
        self, room: Room, number: int, name: str, *, plaintext: bool, now_s: float, is_kept: bool = False
    ) -> None:
        """Start on the way in: ``seated`` turns true when the room's log says so."""
        self.room = room
        self.id = number
        self.name = name
        self.plaintext = plaintext
        self.is_kept = is_kept
        """Whether it may be away for long and come back (TCRP/2 section 1)."""
        self.seated = False
        self.leaving = False
        self.lost_s: float | None = None
        self._heard_s = now_s
        self._spent_s = 0.0

    def hear(self, now_s: float) -> None:
        """Note that the member is alive."""
        self._heard_s = now_s
        self.lost_s = None

    @property
    def heard_s(self) -> float:
        """When the member was last heard of."""
        return self._heard_s

    def deadline_s(self, limits: Limits) -> float:
        """When the member will have been silent, or away, for too long."""
        idle_s = self._heard_s + limits.idle_timeout_s
        if self.lost_s is None:
            return idle_s
        if not self.is_kept:
            return min(idle_s, self.lost_s + limits.lost_timeout_s)
        is_host = self.id == self.room.host_id and self.room.policy.lifetime is not Lifetime.PERSIST
        return self.lost_s + (limits.host_grace_s if is_host else limits.detached_timeout_s)

    def spend(self, limits: Limits, size: int, *, now_s: float) -> float:
        """Take a message of ``size`` bytes from the member's allowance; return 0, or the seconds to wait for it.

        A token bucket of ``burst_max`` messages refilled by ``rate_per_s``, kept as the one moment up to
        which it is spent (the generic cell rate algorithm, ITU-T I.371). A large message counts as several.
        """
        spent_s = self._spent_s
        if spent_s < now_s:
            spent_s = now_s
        elif (wait_s := spent_s - now_s - limits.burst_s) > _CLOCK_STEP_S:
            return wait_s
        if size < limits.message_share:
            self._spent_s = spent_s + limits.send_interval_s
        else:
            self._spent_s = spent_s + limits.send_interval_s * (1 + size // limits.message_share)
        return 0.0


class Intent(NamedTuple):
    """A member wants to say something."""

    member: Member
    body: bytes
    kind: Kind = Kind.TEXT
    message_id: int = 0
    """Chosen by the member, above 0; 0 where the profile has none (classic)."""
    status: int = 0
    """Above 0: it is refused for good, and why (``session.publishing.Status``); its id is used up all the same."""
    digest: bytes = b""
    """Of what is refused so: as in ``entry.Refused``."""


class Room:
    """One room under one name. See the module for what is folded and what is reserved."""

    def __init__(
        self, name: str, incarnation: int, limits: Limits, *, policy: Policy = CLASSIC_POLICY, log_id: bytes = b""
    ) -> None:
        """Start empty; the first member to be admitted is its host. ``log_id`` names the log to modern members."""
        self.name = name
        self.incarnation = incarnation
        self.log_id = log_id
        self.policy = policy
        self.members: dict[int, Member] = {}
        """Those seated, by id, in the order of their joining."""
        self.host_id = SERVER_ID
        """Who has been here longest; ``SERVER_ID`` where nobody is. What its leaving means is the policy's to say."""
        self.closed = False
        self.is_open = True
        """Whether the room takes anything still: false as soon as it was decided to close it."""
        self._raising = False
        self._limits = limits
        self._last_seq = 0
        self._next_seq = 1
        self._next_id = 1
        self._time_ms = 0
        self._names: dict[str, Member] = {}
        self._arriving: dict[int, Member] = {}

    @property
    def is_empty(self) -> bool:
        """Whether nobody is in the room or on the way in."""
        return not self._names

    @property
    def is_modern(self) -> bool:
        """Whether the classic profile is shut out: true as soon as that was decided."""
        return self._raising or self.policy.access is Access.MODERN

    @property
    def heir(self) -> Member | None:
        """Who has been here longest, or will have, when those who are leaving have left."""
        return next((one for one in (*self.members.values(), *self._arriving.values()) if not one.leaving), None)

    @property
    def last_seq(self) -> int:
        """The newest entry that is true."""
        return self._last_seq

    def restore(self, kept: KeptRoom, *, now_s: float) -> list[Member]:
        """Be as a journal remembers it; return the members, in its order. Only once, before anything else."""
        self._last_seq = kept.last_seq
        self._next_seq = kept.last_seq + 1
        self._next_id = kept.next_member
        self._time_ms = kept.time_ms
        for one in kept.members:
            member = Member(self, one.id, one.name, plaintext=one.plaintext, now_s=now_s)
            member.seated = True
            member.lost_s = now_s
            self._names[skeleton(one.name)] = self.members[one.id] = member
        self.host_id = next(iter(self.members), SERVER_ID)
        return list(self.members.values())

    def admit(self, name: str, *, plaintext: bool, now_s: float, is_kept: bool = False) -> Member | Refusal:
        """Reserve a place, or say why not. The place is taken when the JOIN entry is applied."""
        if not self.is_open:
            return Refusal.NOT_FOUND
        shape = skeleton(name)
        if shape in self._names:
            return Refusal.NAME_TAKEN
        if len(self._names) >= self._limits.members_per_room_max:
            return Refusal.ROOM_FULL
        member = Member(self, self._next_id, name, plaintext=plaintext, now_s=now_s, is_kept=is_kept)
        self._next_id += 1
        self._names[shape] = self._arriving[member.id] = member
        return member

    def named(self, name: str) -> Member | None:
        """Return who has this name, or one that looks like it."""
        return self._names.get(skeleton(name))

    def say(self, member: Member, kind: Kind, body: bytes, *, time_ms: int, message_id: int = 0) -> Entry:
        """Give the next place in the room's order to what ``member`` says. The caller has checked its right to."""
        time_ms = max(time_ms, self._time_ms)
        self._time_ms = time_ms
        seq = self._next_seq
        self._next_seq = seq + 1
        return Entry(seq, member.id, member.name, kind, body, time_ms, member.plaintext, message_id)

    def dismiss(self, member: Member, reason: Reason, *, time_ms: int) -> Entry:
        """Let ``member`` go; it has no rights from now on. Raises ``LocalProtocolError`` when it is going already."""
        if member.leaving or not member.seated:
            raise LocalProtocolError("not a member that can leave")
        return self._dismiss(member, reason, time_ms)

    def close(self, reason: Reason, *, time_ms: int) -> Entry:
        """Close the room; it takes nothing from now on. Raises ``LocalProtocolError`` when it is closing already."""
        if not self.is_open:
            raise LocalProtocolError("the room is closing already")
        self.is_open = False
        return self._announce(Kind.CLOSED, reason.value, time_ms)

    def raise_access(self, *, time_ms: int) -> list[Entry]:
        """Let nobody in any more who speaks the classic profile; who does and is here, or on the way in, has to go.

        Raises ``LocalProtocolError`` when that was decided already.
        """
        if self.is_modern:
            raise LocalProtocolError("the room is raised already")
        self._raising = True
        raised = self._announce(Kind.POLICY, Access.MODERN.value, time_ms)
        everybody = (*self.members.values(), *self._arriving.values())
        leaving = [member for member in everybody if member.plaintext and not member.leaving]
        return [raised, *(self._dismiss(member, Reason.UNENCRYPTED, time_ms) for member in leaving)]

    @property
    def is_ending(self) -> bool:
        """Whether the room closes when those who are leaving have left."""
        if self.policy.lifetime is Lifetime.CLOSE:
            host = self.members.get(self.host_id) or next(iter(self._arriving.values()), None)
            return host is not None and host.leaving
        return self.policy.lifetime is Lifetime.HAND_OVER and self.heir is None

    def apply(self, entry: Entry) -> Member | None:
        """Make a committed entry true; return the member whom a JOIN or LEAVE is about."""
        self._last_seq = entry.seq
        kind = entry.kind
        if kind is _TEXT:  # words change nothing
            return None
        match kind:
            case Kind.JOIN:
                member = self.members[entry.sender] = self._arriving.pop(entry.sender)
                member.seated = True
                if self.host_id == SERVER_ID:
                    self.host_id = member.id
                return member
            case Kind.LEAVE:
                member = self.members.pop(entry.sender)
                member.seated = False
                del self._names[skeleton(member.name)]
                if member.id == self.host_id and self.policy.lifetime is not Lifetime.CLOSE:
                    self.host_id = next(iter(self.members), SERVER_ID)
                return member
            case Kind.POLICY:
                self.policy = replace(self.policy, access=Access(entry.body.decode()))
                return None
            case _:
                self.closed = True
                for member in self.members.values():
                    member.seated = False
                self.members.clear()
                return None

    def forget_pending(self) -> list[Member]:
        """Take back all that was decided since the last applied entry; return who was on the way in."""
        arriving = list(self._arriving.values())
        for member in arriving:
            del self._names[skeleton(member.name)]
        self._arriving.clear()
        for member in self.members.values():
            member.leaving = False
        self.is_open = not self.closed
        self._raising = False
        self._next_seq = self._last_seq + 1
        return arriving

    def _dismiss(self, member: Member, reason: Reason, time_ms: int) -> Entry:
        member.leaving = True
        return self.say(member, Kind.LEAVE, reason.value.encode(), time_ms=time_ms)

    def _announce(self, kind: Kind, body: str, time_ms: int) -> Entry:
        """Give the next place to what the server itself says."""
        self._time_ms = max(self._time_ms, time_ms)
        seq = self._next_seq
        self._next_seq = seq + 1
        return Entry(seq, SERVER_ID, "", kind, body.encode(), self._time_ms, plaintext=False)
