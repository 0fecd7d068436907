"""The hub: rooms, the doors of their members, and the one order commit, acknowledge, fan out.

Whatever changes a room comes back to the driver as a ``Turn`` of records. The driver hands them to the
journal; when the journal has them it calls ``committed``, and only there does anything leave for anybody.
When the journal could not write, it calls ``failed``, and nothing has happened.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from ocm.protocol.entry import Entry, Kind, Reason, Record, Refusal
from ocm.protocol.limits import Limits
from ocm.protocol.link.base import Addressing, Audience, Link, LinkForm
from ocm.protocol.room import Intent, Member, Room

_SPARE_TIMERS: Final = 1024
"""Idle timers of members that are gone, above one for each that is here, before they are swept out."""


class RefusedIntent(NamedTuple):
    """A message that was not taken."""

    member: Member
    wait_s: float
    """Seconds until another would be; 0 where waiting does not help."""


class Turn(NamedTuple):
    """What a batch came to. Nothing leaves for ``records`` before ``committed(up_to)``."""

    records: Sequence[Record]
    refusals: Sequence[RefusedIntent]
    up_to: int
    """The count of all records handed out so far."""
    deadline_s: float | None
    """When ``handle_timeout`` is next due."""


class Delivery(NamedTuple):
    """One entry for the members of one room that share one form, but for its author where that form does not echo."""

    audience: Audience
    payload: bytes
    entry: Entry
    skip: Link | None


class Seating(NamedTuple):
    """A member is in the room: tell it so, before what follows in the release."""

    link: Link


class Farewell(NamedTuple):
    """A link's member is gone: send it ``payload``, where there is one, and close the door."""

    link: Link
    payload: bytes | None
    reason: Reason
    entry: Entry


Release: TypeAlias = Delivery | Seating | Farewell
"""What a commit lets out."""


@dataclass(frozen=True, slots=True)
class HubCounts:
    """How much there is."""

    rooms: int
    """Rooms that are open."""
    members: int
    """Members of all rooms."""
    pending: int
    """Records that wait for the journal."""


class _Hall:
    """A room and the doors that lead into it."""

    __slots__ = ("audiences", "links", "room")

    def __init__(self, room: Room) -> None:
        self.room = room
        self.links: dict[int, Link] = {}
        self.audiences: dict[LinkForm, Audience] = {}

    def seat(self, link: Link) -> None:
        audience = self.audiences.get(link.form)
        if audience is None:
            audience = self.audiences[link.form] = Audience(link.form)
        audience.add(link)

    def unseat(self, link: Link) -> None:
        audience = self.audiences[link.form]
        audience.discard(link)
        if not audience.links:
            del self.audiences[link.form]


class Hub:
    """Every room of one server. Synchronous and without a clock: every call says what time it is.

    Args:
        limits: what peers may cost.
        epoch_s: what to add to ``now_s`` for the time of day, for display only.
    """

    def __init__(self, limits: Limits, *, epoch_s: float = 0.0) -> None:
        """Start without rooms."""
        self._limits = limits
        self._epoch_s = epoch_s
        self._halls: dict[str, _Hall] = {}
        self._pending: deque[tuple[_Hall, Record]] = deque()
        self._handed_out = 0
        self._incarnations = 0
        self._timers: list[tuple[float, int, Member]] = []
        self._timer_count = 0
        self._seated = 0

    # --- asking ---------------------------------------------------------------------------------------

    def create(self, link: Link, *, room: str, user: str, now_s: float) -> Turn | Refusal:
        """Make ``room`` with ``user`` as its host, or say why not."""
        if self._is_full():
            return Refusal.UNAVAILABLE
        if room in self._halls:
            return Refusal.ROOM_EXISTS
        if len(self._halls) >= self._limits.rooms_max:
            return Refusal.SERVER_FULL
        self._incarnations += 1
        hall = self._halls[room] = _Hall(Room(room, self._incarnations, self._limits))
        return self._admit(hall, link, user, now_s)

    def join(self, link: Link, *, room: str, user: str, now_s: float) -> Turn | Refusal:
        """Let ``user`` into ``room``, or say why not."""
        if self._is_full():
            return Refusal.UNAVAILABLE
        hall = self._halls.get(room)
        if hall is None:
            return Refusal.NOT_FOUND
        return self._admit(hall, link, user, now_s)

    def take(self, intents: Iterable[Intent], *, now_s: float) -> Turn:
        """Take what members want to say, in order."""
        records: list[Record] = []
        refusals: list[RefusedIntent] = []
        limits, halls, pending = self._limits, self._halls, self._pending
        space = limits.pending_max - len(pending)
        time_ms = self._time_ms(now_s)
        for member, body, kind, _ in intents:
            room = member.room
            if member.leaving or not member.seated or not room.is_open:
                refusals.append(RefusedIntent(member, 0.0))
                continue
            if len(records) >= space:
                refusals.append(RefusedIntent(member, 1.0))
                continue
            wait_s = member.spend(limits, now_s=now_s)
            if wait_s:
                refusals.append(RefusedIntent(member, wait_s))
                continue
            record = Record(room.name, room.incarnation, room.say(member, kind, body, time_ms=time_ms))
            records.append(record)
            pending.append((halls[room.name], record))
        self._handed_out += len(records)
        return self._turn(records, refusals)

    def leave(self, member: Member, reason: Reason, *, now_s: float) -> Turn:
        """Let ``member`` go; a host takes the room along. Nothing happens when it is going already."""
        room = member.room
        if member.leaving or not member.seated or not room.is_open:
            return self._turn([])
        time_ms = self._time_ms(now_s)
        entries = [room.dismiss(member, reason, time_ms=time_ms)]
        if member.id == room.host_id:
            entries.append(room.close(Reason.HOST_LEFT, time_ms=time_ms))
        return self._hand_out(self._halls[room.name], entries)

    def close(self, room: str, reason: Reason, *, now_s: float) -> Turn:
        """Close ``room``. Nothing happens when there is none, or it is closing already."""
        hall = self._halls.get(room)
        if hall is None or not hall.room.is_open:
            return self._turn([])
        return self._hand_out(hall, [hall.room.close(reason, time_ms=self._time_ms(now_s))])

    def move(self, member: Member, link: Link) -> Link | None:
        """Give a seated ``member`` another door (it asked again, with its token); return the one it had.

        None when it is no longer a member, or is going.
        """
        if member.leaving or not member.seated:
            return None
        hall = self._halls[member.room.name]
        before = hall.links[member.id]
        hall.unseat(before)
        before.member = None
        link.member = member
        hall.links[member.id] = link
        hall.seat(link)
        return before

    def lose(self, member: Member, *, now_s: float) -> None:
        """Note that a member's control connection broke: unless it is heard of again, it has not long to stay."""
        if member.lost_s is None:
            member.lost_s = now_s
            self._arm(member)

    def members(self, room: str) -> list[Member]:
        """Return who is in ``room``, in the order of joining; empty when there is no such room."""
        hall = self._halls.get(room)
        return [] if hall is None else list(hall.room.members.values())

    def rooms(self) -> list[str]:
        """Return the names of the rooms, oldest first."""
        return list(self._halls)

    def link_of(self, member: Member) -> Link | None:
        """Return the door of a member that has one."""
        hall = self._halls.get(member.room.name)
        return None if hall is None or hall.room is not member.room else hall.links.get(member.id)

    def named(self, room: str, user: str) -> Member | None:
        """Return who has this name in ``room``, or one that looks like it."""
        hall = self._halls.get(room)
        return None if hall is None else hall.room.named(user)

    def counts(self) -> HubCounts:
        """Count what there is."""
        return HubCounts(len(self._halls), self._seated, len(self._pending))

    # --- time -----------------------------------------------------------------------------------------

    def next_timeout_s(self) -> float | None:
        """When the next member may have been silent for too long; None: there is nobody."""
        return self._timers[0][0] if self._timers else None

    def handle_timeout(self, *, now_s: float) -> Turn:
        """Remove the members that have been silent for too long."""
        records: list[Record] = []
        while self._timers and self._timers[0][0] <= now_s:
            _, _, member = heapq.heappop(self._timers)
            if not member.seated or member.leaving:
                continue
            if member.deadline_s(self._limits) > now_s:
                self._arm(member)
                continue
            reason = Reason.IDLE if member.lost_s is None else Reason.LOST
            records += self.leave(member, reason, now_s=now_s).records
        return self._turn([])._replace(records=records)

    # --- after the journal ----------------------------------------------------------------------------

    def committed(self, up_to: int, release: Callable[[Release], None]) -> None:
        """The journal has the first ``up_to`` records: make them true, in order, and let out what they cause.

        This alone releases anything. Rights are checked here again: a message goes to those who are members
        at its place in the order, neither sooner nor later. So ``release`` is called for each consequence
        while the audience is as it was at that place, and must not keep the audience for later.
        """
        pending = self._pending
        while pending and self._handed_out - len(pending) < up_to:
            hall, record = pending.popleft()
            if record.entry.kind is Kind.TEXT:
                hall.room.apply(record.entry)
                self._fan_out(hall, record.entry, release)
            else:
                self._change(hall, record.entry, release)

    def failed(self, up_to: int) -> list[Link]:
        """The journal does not have the records up to ``up_to``: take back all that wait, since they stand on these.

        Returns the links of those who were on the way in and are not. Nothing happens when these records were
        taken back before.
        """
        turned_away: list[Link] = []
        if self._handed_out - len(self._pending) >= up_to:
            return turned_away
        for hall in dict.fromkeys(hall for hall, _ in self._pending):
            for member in hall.room.forget_pending():
                link = hall.links.pop(member.id)
                link.member = None
                turned_away.append(link)
            if hall.room.is_empty:
                del self._halls[hall.room.name]
        self._pending.clear()
        self._arm_again(member for hall in self._halls.values() for member in hall.room.members.values())
        return turned_away

    # --- helpers --------------------------------------------------------------------------------------

    def _admit(self, hall: _Hall, link: Link, user: str, now_s: float) -> Turn | Refusal:
        plaintext = link.form.addressing is not Addressing.LOCAL
        member = hall.room.admit(user, plaintext=plaintext, now_s=now_s)
        if isinstance(member, Refusal):
            return member
        link.member = member
        hall.links[member.id] = link
        return self._hand_out(hall, [hall.room.say(member, Kind.JOIN, b"", time_ms=self._time_ms(now_s))])

    def _hand_out(self, hall: _Hall, entries: list[Entry]) -> Turn:
        room = hall.room
        records = [Record(room.name, room.incarnation, entry) for entry in entries]
        self._pending += [(hall, record) for record in records]
        self._handed_out += len(records)
        return self._turn(records)

    def _turn(self, records: list[Record], refusals: Sequence[RefusedIntent] = ()) -> Turn:
        return Turn(records, refusals, self._handed_out, self.next_timeout_s())

    def _change(self, hall: _Hall, entry: Entry, release: Callable[[Release], None]) -> None:
        """Apply an entry that changes who is in the room."""
        member = hall.room.apply(entry)
        if member is None:
            self._fan_out(hall, entry, release)
            del self._halls[hall.room.name]
            for link in hall.links.values():
                link.member = None
                release(Farewell(link, None, _reason(entry), entry))
            self._seated -= len(hall.links)
            return
        link = hall.links[member.id]
        if entry.kind is Kind.JOIN:
            self._fan_out(hall, entry, release)
            self._seated += 1
            hall.seat(link)
            self._arm(member)
            release(Seating(link))
        else:
            self._seated -= 1
            del hall.links[member.id]
            hall.unseat(link)
            link.member = None
            release(Farewell(link, link.form.encode_farewell(entry), _reason(entry), entry))
            self._fan_out(hall, entry, release)

    def _fan_out(self, hall: _Hall, entry: Entry, release: Callable[[Release], None]) -> None:
        author = hall.links.get(entry.sender)
        home = None if author is None or author.form.echoes else author.audience
        for form, audience in hall.audiences.items():
            payload = form.encode(entry)
            if payload is not None:
                release(Delivery(audience, payload, entry, author if audience is home else None))

    def _arm(self, member: Member) -> None:
        if len(self._timers) > 2 * self._seated + _SPARE_TIMERS:  # members that left long before their time
            self._arm_again(dict.fromkeys(timer[2] for timer in self._timers if timer[2].seated))
        self._timer_count += 1
        heapq.heappush(self._timers, (member.deadline_s(self._limits), self._timer_count, member))

    def _arm_again(self, members: Iterable[Member]) -> None:
        """Keep one timer for each of ``members`` and no other."""
        limits = self._limits
        self._timers = [(member.deadline_s(limits), number, member) for number, member in enumerate(members)]
        self._timer_count = len(self._timers)
        heapq.heapify(self._timers)

    def _is_full(self) -> bool:
        """Whether nobody can be let in just now: asked before a room is looked up, so that it says nothing about it."""
        return len(self._pending) >= self._limits.pending_max

    def _time_ms(self, now_s: float) -> int:
        return int((self._epoch_s + now_s) * 1000)


def _reason(entry: Entry) -> Reason:
    return Reason(entry.body.decode())
