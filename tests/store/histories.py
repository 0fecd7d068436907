"""Histories of a server's rooms as a hub would write them, and the fold of a history in a few lines of lists."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from hypothesis import strategies as st

from ocm.protocol.entry import (
    CLASSIC_POLICY,
    Access,
    Answer,
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
    Refused,
    Step,
)
from ocm.protocol.session.publishing import ANSWERS_KEPT

Batch = list[Step]

# --- the model ------------------------------------------------------------------------------------------


def fold(batches: Iterable[Sequence[Step]], *, messages_max: int = 10_000) -> Kept:
    """What ``load`` returns after ``batches``, each of them new and legal."""
    return list(folds(batches, messages_max=messages_max))[-1]


def folds(batches: Iterable[Sequence[Step]], *, messages_max: int = 10_000) -> Iterator[Kept]:
    """The same after none of the batches, after the first, and so on."""
    rooms: dict[int, KeptRoom] = {}
    ephemeral: set[int] = set()
    identities: dict[bytes, Identity] = {}
    last_incarnation = 0
    yield Kept()
    for batch in batches:
        for step in batch:
            if isinstance(step, Identity):
                identities.pop(step.client, None)
                if step.secrets:
                    identities[step.client] = step
                continue
            incarnation = step.incarnation
            last_incarnation = max(last_incarnation, incarnation)
            if isinstance(step, Opened) and not step.policy.durable:
                ephemeral.add(incarnation)
            if incarnation in ephemeral:
                continue
            if isinstance(step, Opened):
                rooms[incarnation] = _new(step)
            elif isinstance(step, Refused):
                _, _, sender, message_id, status, time_ms, digest = step
                told = Answer(message_id, status, 0, time_ms, digest)
                rooms[incarnation] = _answered(rooms[incarnation], sender, told)
            elif isinstance(step, Moved):
                rooms[incarnation] = _moved(rooms[incarnation], step)
            else:
                before = rooms.get(incarnation) or _new(Opened(step.room, incarnation, b"", CLASSIC_POLICY))
                rooms[incarnation] = _after(before, step)
        kept = tuple(
            replace(room, oldest_seq=max(1, room.last_seq - messages_max + 1)) for _, room in sorted(rooms.items())
        )
        yield Kept(kept, tuple(one for _, one in sorted(identities.items())), last_incarnation)


def _new(opened: Opened) -> KeptRoom:
    return KeptRoom(*opened, last_seq=0, oldest_seq=1, next_member=1, time_ms=0, closed=False, members=())


def _after(room: KeptRoom, record: Record) -> KeptRoom:
    entry = record.entry
    assert entry.seq == room.last_seq + 1, "the history is legal"
    members, former, policy, closed = room.members, room.former, room.policy, room.closed
    match entry.kind:
        case Kind.JOIN:
            former = tuple(one for one in former if one.door != record.door)
            members = (
                *members,
                KeptMember(entry.sender, entry.name, entry.plaintext, record.door, joined_seq=entry.seq),
            )
        case Kind.LEAVE:
            if record.door:
                former = (*former, *(replace(one, left_seq=entry.seq) for one in members if one.id == entry.sender))
            members = tuple(member for member in members if member.id != entry.sender)
        case Kind.CLOSED:
            closed = True
        case Kind.POLICY:
            policy = replace(policy, access=Access(entry.body.decode()))
        case Kind.TEXT:
            pass
    room = replace(
        room,
        policy=policy,
        last_seq=entry.seq,
        next_member=max(room.next_member, entry.sender + 1),
        time_ms=entry.time_ms,
        closed=closed,
        members=members,
        former=former,
    )
    if not entry.message_id:
        return room
    digest = hashlib.sha256(bytes([entry.kind]) + entry.body).digest()
    return _answered(room, entry.sender, Answer(entry.message_id, 0, entry.seq, entry.time_ms, digest))


def _moved(room: KeptRoom, step: Moved) -> KeptRoom:
    members = tuple(replace(one, door=step.door) if one.id == step.member else one for one in room.members)
    return replace(room, members=members)


def _answered(room: KeptRoom, member_id: int, told: Answer) -> KeptRoom:
    members = tuple(
        replace(member, mark=told.message_id, answers=(*member.answers, told)[-ANSWERS_KEPT:])
        if member.id == member_id
        else member
        for member in room.members
    )
    return replace(room, members=members)


# --- histories --------------------------------------------------------------------------------------------


@dataclass
class _Room:
    name: str
    incarnation: int
    seq: int = 0
    next_member: int = 1
    members: dict[int, tuple[str, bool, int]] = field(default_factory=dict[int, tuple[str, bool, int]])
    """Name, whether it is on plaintext, and the last message id, by member id."""


class Scribe:
    """Writes the history of a server, one legal step or more at a time."""

    def __init__(self, *, ephemeral: bool = True) -> None:
        self.batches: list[Batch] = []
        self._ephemeral = ephemeral
        self._rooms: list[_Room] = []
        self._incarnations = 0
        self._time_ms = 1_700_000_000_000
        self._clients: list[bytes] = []

    def write(self, deeds: Iterable[tuple[str, int, bool]]) -> list[Batch]:
        """Do each deed: what, to which room or member, and whether it begins a batch."""
        for what, which, begins in deeds:
            steps = list(self._do(what, which))
            if begins or not self.batches:
                self.batches.append([])
            self.batches[-1] += steps
        return self.batches

    def _do(self, what: str, which: int) -> Iterator[Step]:
        self._time_ms += which
        if what == "identify":
            yield self._identify(which)
            return
        if what == "open" or not self._rooms:
            yield from self._open(which)
            return
        room = self._rooms[which % len(self._rooms)]
        which //= len(self._rooms)
        if what == "join" or not room.members:
            yield self._join(room, which)
            return
        member_id = sorted(room.members)[which % len(room.members)]
        name, plaintext, mark = room.members[member_id]
        match what:
            case "say":
                mark = 0 if plaintext else mark + 1 + which % 2
                yield self._record(room, Kind.TEXT, b"word %d" % which, by=member_id, message_id=mark)
                if mark:
                    room.members[member_id] = (name, plaintext, mark)
            case "refuse" if not plaintext:
                room.members[member_id] = (name, plaintext, mark + 1)
                digest = hashlib.sha256(b"%d" % which).digest()
                yield Refused(room.name, room.incarnation, member_id, mark + 1, 16 + which % 5, self._time_ms, digest)
            case "move":
                yield Moved(room.name, room.incarnation, member_id, b"another door %d" % (which % 3))
            case "kick":
                yield self._record(room, Kind.LEAVE, Reason.KICKED.encode(), by=member_id, news=True)
                del room.members[member_id]
            case "leave":
                yield self._record(room, Kind.LEAVE, Reason.BYE.encode(), by=member_id)
                del room.members[member_id]
            case "close":
                self._rooms.remove(room)
                yield self._record(room, Kind.CLOSED, Reason.HOST_LEFT.encode())
            case "raise":
                yield self._record(room, Kind.POLICY, Access.MODERN.encode())
            case _:
                pass

    def _open(self, which: int) -> Iterator[Step]:
        taken = {room.name for room in self._rooms}
        free = [name for name in ("a", "b", "部屋", "d\0") if name not in taken]
        if not free:
            return
        self._incarnations += 1 + which % 2
        room = _Room(free[which % len(free)], self._incarnations)
        self._rooms.append(room)
        access = (Access.MODERN, Access.MIXED)[which % 2]
        lifetime = list(Lifetime)[which % 3]
        is_durable = not self._ephemeral or which % 4 != 3
        yield Opened(
            room.name, room.incarnation, b"%016d" % room.incarnation, Policy(access, lifetime, durable=is_durable)
        )
        yield self._join(room, which)

    def _join(self, room: _Room, which: int) -> Step:
        member_id, room.next_member = room.next_member, room.next_member + 1 + which % 2
        room.members[member_id] = (f"user {member_id}", which % 3 == 0, 0)
        return self._record(room, Kind.JOIN, b"", by=member_id)

    def _record(
        self, room: _Room, kind: Kind, body: bytes, *, by: int = 0, message_id: int = 0, news: bool = False
    ) -> Record:
        room.seq += 1
        name, plaintext, _ = room.members.get(by, ("", False, 0))
        door = b"door of %d" % (by % 5) if kind is Kind.JOIN or news else b""  # now and then somebody comes back
        entry = Entry(room.seq, by, name, kind, body, self._time_ms, plaintext, message_id)
        return Record(room.name, room.incarnation, entry, door)

    def _identify(self, which: int) -> Identity:
        client = b"%016d" % (which % 5)
        secrets = tuple(hashlib.sha256(b"%d %d" % (which, n)).digest() for n in range(which % 3))
        return Identity(client, secrets, self._time_ms + 86_400_000)


DEEDS = (
    "say",
    "say",
    "say",
    "say",
    "refuse",
    "refuse",
    "join",
    "move",
    "leave",
    "kick",
    "open",
    "close",
    "raise",
    "identify",
)

_deeds = st.lists(
    st.tuples(st.sampled_from(DEEDS), st.integers(0, 10_000), st.sampled_from([True, True, False])), max_size=60
)
histories = _deeds.map(lambda deeds: Scribe().write(deeds))
"""Batches that a hub could have written, in its order."""
durable_histories = _deeds.map(lambda deeds: Scribe(ephemeral=False).write(deeds))
"""The same, of rooms that all outlive the process."""


def long_history(seed: int, *, deeds: int, ephemeral: bool = False) -> list[Batch]:
    """The same, from a seed."""
    chance = random.Random(seed)
    return Scribe(ephemeral=ephemeral).write(
        (chance.choice(DEEDS), chance.randrange(10_000), chance.random() < 0.7) for _ in range(deeds)
    )
