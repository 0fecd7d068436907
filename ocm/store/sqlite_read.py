"""Tables into rooms, members and entries: what a server reads of its journal."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from typing import Annotated, Final, NamedTuple, TypeAlias

import msgspec

from ocm.protocol.entry import (
    Access,
    Answer,
    Entry,
    Identity,
    Kept,
    KeptMember,
    KeptRoom,
    Kind,
    Lifetime,
    Policy,
    Reason,
)
from ocm.protocol.wire.records import UInt32, UInt53
from ocm.store.schema import Natural, damaged, number_of, row_as

_Status: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=256)]
_Flag: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=1)]

ENTRY_AT: Final = """
    SELECT seq, sender, name, kind, body, time_ms, plaintext, message_id FROM entry WHERE room = ? AND seq = ?
"""
"""Reads the row of one entry, for ``entry_of``."""

_ENTRIES: Final = """
    SELECT seq, sender, entry.name, kind, body, entry.time_ms, plaintext, message_id
    FROM room JOIN entry ON entry.room = room.id
    WHERE room.name = ? AND incarnation = ? AND seq >= max(?, oldest_seq) ORDER BY seq LIMIT ?
"""


class _EntryRow(NamedTuple):
    seq: Natural
    sender: UInt32
    name: str
    kind: Kind
    body: bytes
    time_ms: Natural
    plaintext: _Flag
    message_id: UInt53


class _AnswerRow(NamedTuple):
    room: int
    member: UInt32
    message_id: UInt53
    status: _Status
    seq: Natural
    time_ms: Natural
    digest: bytes


class _MemberRow(NamedTuple):
    room: int
    id: UInt32
    name: str
    plaintext: _Flag
    door: bytes
    mark: UInt53
    joined_seq: Natural
    left_seq: Natural


class _RoomRow(NamedTuple):
    id: int
    incarnation: Natural
    name: str
    log_id: bytes
    access: Access
    lifetime: Lifetime
    last_seq: Natural
    oldest_seq: Natural
    next_member: Natural
    time_ms: Natural
    closed_s: float | None


class _IdentityRow(NamedTuple):
    client: bytes
    newest: bytes
    former: bytes | None
    until_ms: int


_REASONS: Final = frozenset(reason.encode() for reason in Reason)
_BODIES: Final = {
    Kind.JOIN: frozenset({b""}),
    Kind.LEAVE: _REASONS,
    Kind.CLOSED: _REASONS,
    Kind.POLICY: frozenset(access.encode() for access in Access),
}
"""What an entry that is no text may say."""


def entry_of(row: object) -> Entry:
    """Make an entry of its row. Raises ``sqlite3.DatabaseError`` where the row is none."""
    read = row_as(_EntryRow, row)
    if read.kind in _BODIES and read.body not in _BODIES[read.kind]:
        raise damaged("an entry that says nothing")
    return Entry(*read[:6], bool(read.plaintext), read.message_id)


def read_entries(
    connection: sqlite3.Connection, room: str, incarnation: int, *, from_seq: int, count: int
) -> list[Entry]:
    """Return what ``Journal.read`` does."""
    return [entry_of(row) for row in connection.execute(_ENTRIES, (room, incarnation, from_seq, max(0, count)))]


def read_kept(connection: sqlite3.Connection) -> Kept:
    """Return what ``Journal.load`` does, within a transaction."""
    answers: defaultdict[tuple[int, int], list[Answer]] = defaultdict(list)
    for row in connection.execute(
        "SELECT room, member, message_id, status, seq, time_ms, digest FROM answer ORDER BY room, member, message_id"
    ):
        answer = row_as(_AnswerRow, row)
        answers[answer.room, answer.member].append(Answer(*answer[2:]))
    members: defaultdict[int, list[KeptMember]] = defaultdict(list)
    former: defaultdict[int, list[KeptMember]] = defaultdict(list)
    for row in connection.execute(
        "SELECT room, id, name, plaintext, door, mark, joined_seq, left_seq FROM member"
        " ORDER BY room, left_seq, joined_seq"
    ):
        member = row_as(_MemberRow, row)
        told = tuple(answers.pop((member.room, member.id), ()))
        (former if member.left_seq else members)[member.room].append(_member_of(member, told))
    rooms = [
        row_as(_RoomRow, row)
        for row in connection.execute(
            "SELECT id, incarnation, name, log_id, access, lifetime, last_seq, oldest_seq, next_member, time_ms,"
            " closed_s FROM room ORDER BY incarnation, id"
        )
    ]
    identities = [
        row_as(_IdentityRow, row)
        for row in connection.execute("SELECT client, newest, former, until_ms FROM identity ORDER BY client")
    ]
    return Kept(
        tuple(_room_of(room, members.pop(room.id, []), former.pop(room.id, [])) for room in rooms),
        tuple(map(_identity_of, identities)),
        number_of(connection, "SELECT last_incarnation FROM ledger"),
    )


def _member_of(row: _MemberRow, answers: tuple[Answer, ...]) -> KeptMember:
    return KeptMember(row.id, row.name, bool(row.plaintext), row.door, row.mark, answers, row.joined_seq, row.left_seq)


def _room_of(row: _RoomRow, members: list[KeptMember], former: list[KeptMember]) -> KeptRoom:
    return KeptRoom(
        name=row.name,
        incarnation=row.incarnation,
        log_id=row.log_id,
        policy=Policy(row.access, row.lifetime),
        last_seq=row.last_seq,
        oldest_seq=row.oldest_seq,
        next_member=row.next_member,
        time_ms=row.time_ms,
        closed=row.closed_s is not None,
        members=tuple(members),
        former=tuple(former),
    )


def _identity_of(row: _IdentityRow) -> Identity:
    secrets = (row.newest,) if row.former is None else (row.newest, row.former)
    return Identity(row.client, secrets, row.until_ms)
