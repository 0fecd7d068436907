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
from functools import partial
from typing import Final, NamedTuple, TypeAlias

from ocm.protocol.entry import (
    CLASSIC_POLICY,
    Entry,
    Identity,
    Kept,
    KeptMember,
    KeptRoom,
    Kind,
    Lifetime,
    Moved,
    Opened,
    Policy,
    Reason,
    Record,
    Refusal,
    Refused,
    Step,
)
from ocm.protocol.limits import Limits
from ocm.protocol.link.base import Addressing, Audience, Departed, Link, LinkForm
from ocm.protocol.link.log import RoomLog
from ocm.protocol.room import Intent, Member, Room
from ocm.protocol.session.publishing import Status

_TEXT: Final = Kind.TEXT  # looked up for every message
_SPARE_TIMERS: Final = 1024
"""Idle timers of members that are gone, above one for each that is here, before they are swept out."""


_UNDECIDED_S: Final = 1.0
"""When to ask again whether a member that is leaving has left: the journal has not said yet."""


class RefusedIntent(NamedTuple):
    """A message that was not taken."""

    member: Member
    wait_s: float
    """Seconds until another would be; 0 where waiting does not help."""


class Turn(NamedTuple):
    """What a batch came to. Nothing leaves for ``records`` before ``committed(up_to)``."""

    records: Sequence[Step]
    refusals: Sequence[RefusedIntent]
    up_to: int
    """The count of all steps handed out so far."""
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
    entry: Entry


class Farewell(NamedTuple):
    """A link's member is gone: send it ``payload``, where there is one, and close the door."""

    link: Link
    payload: bytes | None
    reason: Reason
    entry: Entry


class Reseating(NamedTuple):
    """A member has another door: tell it so there, and take the one it had out of use."""

    link: Link
    before: Link


class Recognized(NamedTuple):
    """A client is known by its new secret from now on."""

    identity: Identity


Release: TypeAlias = Delivery | Seating | Reseating | Farewell | Recognized
"""What a commit lets out."""

Read: TypeAlias = Callable[[str, int, int, int], Sequence[Entry]]
"""Reads a room's log in the journal: room, incarnation, first entry, count."""
Restore: TypeAlias = Callable[[KeptRoom, KeptMember, RoomLog], Link | None]
"""Makes a member's door again; None: it cannot be."""


def _read_nothing(_room: str, _incarnation: int, _first: int, _count: int) -> Sequence[Entry]:
    return ()


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

    __slots__ = ("audiences", "is_read", "links", "log", "moving", "room")

    def __init__(self, room: Room, log: RoomLog) -> None:
        self.room = room
        self.log = log
        self.links: dict[int, Link] = {}
        self.moving: deque[Link] = deque()
        """The doors of ``Moved`` that wait for the journal, oldest first."""
        self.audiences: dict[LinkForm, Audience] = {}
        self.is_read = False
        """Whether somebody reads the log; else it is not told of entries."""

    def seat(self, link: Link) -> None:
        audience = self.audiences.get(link.form)
        if audience is None:
            audience = self.audiences[link.form] = Audience(link.form)
            self._look()
        audience.add(link)

    def unseat(self, link: Link) -> None:
        audience = self.audiences[link.form]
        audience.discard(link)
        if not audience.links:
            del self.audiences[link.form]
            self._look()

    def _look(self) -> None:
        is_read = any(form.addressing is Addressing.PULL for form in self.audiences)
        if is_read and not self.is_read:
            self.log.begin_at(self.room.last_seq)
        self.is_read = is_read


class Hub:
    """Every room of one server. Synchronous and without a clock: every call says what time it is.

    Args:
        limits: what peers may cost.
        epoch_s: what to add to ``now_s`` for the time of day, for display only.
        read: where entries come from that are too old to be kept in memory.
    """

    def __init__(self, limits: Limits, *, epoch_s: float = 0.0, read: Read = _read_nothing) -> None:
        """Start without rooms."""
        self._limits = limits
        self._epoch_s = epoch_s
        self._read = read
        self._halls: dict[str, _Hall] = {}
        self._pending: deque[tuple[_Hall | None, Step]] = deque()
        self._handed_out = 0
        self._incarnations = 0
        self._timers: list[tuple[float, int, Member]] = []
        self._timer_count = 0
        self._seated = 0
        self._logs_size = 0

    # --- beginning ------------------------------------------------------------------------------------

    def restore(self, kept: Kept, restore: Restore, *, now_s: float) -> Turn:
        """Be as a journal remembers it; to be called once, first. Members whose door cannot be made again leave.

        Everybody starts without a connection, and every clock anew.
        """
        self._incarnations = kept.last_incarnation
        leaving: list[Member] = []
        for one in kept.rooms:
            if one.closed:
                continue
            opened = Opened(one.name, one.incarnation, one.log_id, one.policy)
            hall = self._halls[one.name] = self._hall(opened, head=one.last_seq, oldest=one.oldest_seq)
            for member, known in zip(hall.room.restore(one, now_s=now_s), one.members, strict=True):
                link = restore(one, known, hall.log)
                if link is None:
                    leaving.append(member)
                    link = Departed()
                link.member = member
                member.is_kept = link.is_kept
                hall.links[member.id] = link
                hall.seat(link)
                self._seated += 1
                self._arm(member)
        steps = [step for member in leaving for step in self.leave(member, Reason.LOST, now_s=now_s).records]
        return self._turn(steps)

    # --- asking ---------------------------------------------------------------------------------------

    def create(
        self,
        link: Link,
        *,
        room: str,
        user: str,
        now_s: float,
        policy: Policy = CLASSIC_POLICY,
        log_id: bytes = b"",
    ) -> Turn | Refusal:
        """Make ``room`` with ``user`` as its host, or say why not. ``log_id`` is random, 16 bytes."""
        if self._is_full():
            return Refusal.UNAVAILABLE
        if room in self._halls:
            return Refusal.ROOM_EXISTS
        if len(self._halls) >= self._limits.rooms_max:
            return Refusal.SERVER_FULL
        self._incarnations += 1
        opened = Opened(room, self._incarnations, log_id, policy)
        hall = self._halls[room] = self._hall(opened)
        self._pending.append((hall, opened))
        self._handed_out += 1
        turn = self._admit(hall, link, user, now_s)
        assert isinstance(turn, Turn), "an empty room has a place"
        return turn._replace(records=[opened, *turn.records])

    def join(self, link: Link, *, room: str, user: str, now_s: float) -> Turn | Refusal:
        """Let ``user`` into ``room``, or say why not."""
        if self._is_full():
            return Refusal.UNAVAILABLE
        hall = self._halls.get(room)
        if hall is None or (link.plaintext and hall.room.is_modern):
            return Refusal.NOT_FOUND
        return self._admit(hall, link, user, now_s)

    def take(self, intents: Iterable[Intent], *, now_s: float) -> Turn:
        """Take what members want to say, in order. An author is told of each before the next is asked for."""
        records: list[Step] = []
        refusals: list[RefusedIntent] = []
        limits, halls, pending = self._limits, self._halls, self._pending
        space = limits.pending_max - len(pending)
        time_ms = self._time_ms(now_s)
        for intent in intents:
            member, body, kind, message_id, _, _ = intent
            room = member.room
            if member.leaving or not member.seated or not room.is_open:
                wait_s, why = 0.0, Status.UNAVAILABLE  # for an author: whether it stays is not written yet
            elif len(records) >= space:
                wait_s, why = 1.0, Status.UNAVAILABLE
            elif wait_s := member.spend(limits, len(body), now_s=now_s):
                why = Status.RATE_LIMITED
            else:
                hall = halls[room.name]
                step: Step
                if message_id:
                    step = _numbered(hall, intent, time_ms)
                else:
                    step = Record(room.name, room.incarnation, room.say(member, kind, body, time_ms=time_ms))
                records.append(step)
                pending.append((hall, step))
                continue
            refusals.append(RefusedIntent(member, wait_s))
            if message_id and (link := self.link_of(member)) is not None and link.author is not None:
                link.author.deferred(intent, why, wait_s or _UNDECIDED_S)
        self._handed_out += len(records)
        return self._turn(records, refusals)

    def remember(self, identity: Identity) -> Turn:
        """Write down what a client is known by."""
        self._pending.append((None, identity))
        self._handed_out += 1
        return self._turn([identity])

    def leave(self, member: Member, reason: Reason, *, now_s: float) -> Turn:
        """Let ``member`` go; a host takes the room along. Nothing happens when it is going already."""
        room = member.room
        if member.leaving or not member.seated or not room.is_open:
            return self._turn([])
        time_ms = self._time_ms(now_s)
        heir = room.heir
        entries = [room.dismiss(member, reason, time_ms=time_ms)]
        return self._part(self._halls[room.name], entries, heir, now_s)

    def raise_access(self, room: str, *, now_s: float) -> Turn:
        """Close ``room`` to the classic profile: its members who speak it are removed, and told.

        Nothing happens when there is no such room, or it is so already.
        """
        hall = self._halls.get(room)
        if hall is None or not hall.room.is_open or hall.room.is_modern:
            return self._turn([])
        heir = hall.room.heir
        return self._part(hall, hall.room.raise_access(time_ms=self._time_ms(now_s)), heir, now_s)

    def close(self, room: str, reason: Reason, *, now_s: float) -> Turn:
        """Close ``room``. Nothing happens when there is none, or it is closing already."""
        hall = self._halls.get(room)
        if hall is None or not hall.room.is_open:
            return self._turn([])
        return self._hand_out(hall, [hall.room.close(reason, time_ms=self._time_ms(now_s))])

    def move(self, member: Member, link: Link) -> Turn | Refusal | None:
        """Give a seated ``member`` another door (it asked again, with its token), or say why not.

        None when it is no longer a member, or is going.
        """
        if self._is_full():
            return Refusal.UNAVAILABLE
        room = member.room
        if member.leaving or not member.seated or not room.is_open:
            return None
        hall = self._halls[room.name]
        step = Moved(room.name, room.incarnation, member.id, link.memo())
        hall.moving.append(link)
        self._pending.append((hall, step))
        self._handed_out += 1
        return self._turn([step])

    def lose(self, member: Member, *, now_s: float) -> None:
        """Note that a member's control connection broke: unless it is heard of again, it has not long to stay."""
        if member.lost_s is None:
            member.lost_s = now_s
            self._arm(member)

    def reader(self, room: KeptRoom) -> Callable[[int, int], Sequence[Entry]]:
        """Return how the log of a room that is closed is read."""
        return partial(self._read, room.name, room.incarnation)

    def room(self, name: str) -> Room | None:
        """Return the room of this name."""
        hall = self._halls.get(name)
        return None if hall is None else hall.room

    def log(self, name: str) -> RoomLog | None:
        """Return the log of the room of this name. While nobody reads it, it does not know of the newest entries."""
        hall = self._halls.get(name)
        return None if hall is None else hall.log

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
        records: list[Step] = []
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
            hall, step = pending.popleft()
            if hall is None:
                assert isinstance(step, Identity), "all else is about a room"
                release(Recognized(step))
            elif isinstance(step, Record):
                entry = step.entry
                if hall.is_read:
                    self._log(hall.log, entry)
                if entry.kind is _TEXT:
                    hall.room.apply(entry)
                    if entry.message_id:
                        self._tell_author(hall, entry)
                    self._fan_out(hall, entry, release)
                else:
                    self._change(hall, entry, release)
            elif isinstance(step, Refused):
                self._tell_author(hall, step)
            elif isinstance(step, Moved):
                self._move(hall, step, release)

    def failed(self, up_to: int) -> list[Link]:
        """The journal does not have the records up to ``up_to``: take back all that wait, since they stand on these.

        Returns the links that were to let somebody in, and do not. Nothing happens when these records were taken back
        before.
        """
        turned_away: list[Link] = []
        if self._handed_out - len(self._pending) >= up_to:
            return turned_away
        for hall in dict.fromkeys(hall for hall, _ in self._pending if hall is not None):
            for member in hall.room.forget_pending():
                link = hall.links.pop(member.id)
                link.member = None
                turned_away.append(link)
            turned_away += hall.moving
            hall.moving.clear()
            for link in hall.links.values():
                if link.author is not None:
                    link.author.failed()
            if hall.room.is_empty and not hall.room.last_seq:  # it was never written; one that persists may be empty
                del self._halls[hall.room.name]
        self._pending.clear()
        self._arm_again(member for hall in self._halls.values() for member in hall.room.members.values())
        return turned_away

    # --- helpers --------------------------------------------------------------------------------------

    def _hall(self, opened: Opened, *, head: int = 0, oldest: int = 1) -> _Hall:
        name, incarnation, log_id, policy = opened
        room = Room(name, incarnation, self._limits, policy=policy, log_id=log_id)
        log = RoomLog(self._limits, partial(self._read, name, incarnation), head=head, oldest=oldest)
        return _Hall(room, log)

    def _admit(self, hall: _Hall, link: Link, user: str, now_s: float) -> Turn | Refusal:
        member = hall.room.admit(user, plaintext=link.plaintext, now_s=now_s, is_kept=link.is_kept)
        if isinstance(member, Refusal):
            return member
        link.member = member
        hall.links[member.id] = link
        joined = hall.room.say(member, Kind.JOIN, b"", time_ms=self._time_ms(now_s))
        return self._hand_out(hall, [joined], door=link.memo())

    def _hand_out(self, hall: _Hall, entries: list[Entry], *, door: bytes = b"") -> Turn:
        room = hall.room
        records = [Record(room.name, room.incarnation, entry, door or _news_for(hall, entry)) for entry in entries]
        self._pending += [(hall, record) for record in records]
        self._handed_out += len(records)
        return self._turn(records)

    def _part(self, hall: _Hall, entries: list[Entry], heir: Member | None, now_s: float) -> Turn:
        """Hand out that members leave, and the room's end where it ends with them."""
        room = hall.room
        if room.is_ending:
            entries.append(room.close(Reason.HOST_LEFT, time_ms=self._time_ms(now_s)))
            return self._hand_out(hall, entries)
        host = room.heir
        changes = host is not heir and room.policy.lifetime is Lifetime.HAND_OVER
        if changes and host is not None and host.lost_s is not None:
            host.lost_s = now_s  # away, and not the host until now: it has all the time of one to come back
        return self._hand_out(hall, entries)

    def _turn(self, records: Sequence[Step], refusals: Sequence[RefusedIntent] = ()) -> Turn:
        return Turn(records, refusals, self._handed_out, self.next_timeout_s())

    def _tell_author(self, hall: _Hall, what: Entry | Refused) -> None:
        author = hall.links[what.sender].author
        if author is not None:
            author.settled(what)

    def _change(self, hall: _Hall, entry: Entry, release: Callable[[Release], None]) -> None:
        """Apply an entry that changes the room, or who is in it."""
        member = hall.room.apply(entry)
        if entry.kind is Kind.POLICY:
            self._fan_out(hall, entry, release)
            return
        if member is None:
            self._fan_out(hall, entry, release)
            del self._halls[hall.room.name]
            self._logs_size -= hall.log.shed(0)
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
            release(Seating(link, entry))
        else:
            self._seated -= 1
            del hall.links[member.id]
            hall.unseat(link)
            link.member = None
            if not hall.is_read:
                self._logs_size -= hall.log.shed(0)
            if (host := hall.room.members.get(hall.room.host_id)) is not None and host.lost_s is not None:
                self._arm(host)  # it may be the host from now on, with less time to be away
            release(Farewell(link, link.form.encode_farewell(entry), _reason(entry), entry))
            self._fan_out(hall, entry, release)

    def _move(self, hall: _Hall, moved: Moved, release: Callable[[Release], None]) -> None:
        """Let a member speak through its new door."""
        link, before = hall.moving.popleft(), hall.links[moved.member]
        hall.unseat(before)
        link.member, before.member = before.member, None
        hall.links[moved.member] = link
        hall.seat(link)
        release(Reseating(link, before))

    def _log(self, log: RoomLog, entry: Entry) -> None:
        """Keep an entry for those who read; what all logs hold together has a limit."""
        before = log.size
        log.append(entry)
        self._logs_size += log.size - before
        if self._logs_size > self._limits.room_logs_size_max:
            share = self._limits.room_logs_size_max // (2 * len(self._halls))
            for hall in self._halls.values():
                self._logs_size -= hall.log.shed(share)

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


def _numbered(hall: _Hall, intent: Intent, time_ms: int) -> Step:
    """Take a message that has an id, or its refusal for good, and tell its author that it is taken."""
    member, body, kind, message_id, status, digest = intent
    room = hall.room
    step: Step
    if status:
        step = Refused(room.name, room.incarnation, member.id, message_id, status, time_ms, digest)
    else:
        entry = room.say(member, kind, body, time_ms=time_ms, message_id=message_id)
        step = Record(room.name, room.incarnation, entry)
    if (author := hall.links[member.id].author) is not None:
        author.taken(intent)
    return step


def _news_for(hall: _Hall, entry: Entry) -> bytes:
    """Return the memo of a member that is removed, where it may come back and read so."""
    if entry.kind is not Kind.LEAVE or _reason(entry) is Reason.BYE:  # who left by its own words knows
        return b""
    link = hall.links[entry.sender]
    return link.memo() if link.is_kept else b""


def _reason(entry: Entry) -> Reason:
    return Reason(entry.body.decode())
