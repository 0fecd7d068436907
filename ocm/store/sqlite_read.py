"""Tables into rooms, members and entries: what a server reads of its journal."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

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
)

ENTRY_AT: Final = """
    SELECT seq, sender, name, kind, body, time_ms, plaintext, message_id FROM entry WHERE room = ? AND seq = ?
"""
"""Reads the row of one entry, for ``entry_of``."""

_ENTRIES: Final = """
    SELECT seq, sender, entry.name, kind, body, entry.time_ms, plaintext, message_id
    FROM room JOIN entry ON entry.room = room.id
    WHERE room.name = ? AND incarnation = ? AND seq >= max(?, oldest_seq) ORDER BY seq LIMIT ?
"""


def entry_of(row: Sequence[Any]) -> Entry:
    """Make an entry of its row."""
    seq, sender, name, kind, body, time_ms, plaintext, message_id = row
    return Entry(seq, sender, name, Kind(kind), body, time_ms, bool(plaintext), message_id)


def read_entries(
    connection: sqlite3.Connection, room: str, incarnation: int, *, from_seq: int, count: int
) -> list[Entry]:
    """Return what ``Journal.read`` does."""
    return [entry_of(row) for row in connection.execute(_ENTRIES, (room, incarnation, from_seq, max(0, count)))]


def read_kept(connection: sqlite3.Connection) -> Kept:
    """Return what ``Journal.load`` does, within a transaction."""
    answers: defaultdict[tuple[int, int], list[Answer]] = defaultdict(list)
    for room, member, *answer in connection.execute(
        "SELECT room, member, message_id, status, seq, time_ms, digest FROM answer ORDER BY room, member, message_id"
    ):
        answers[room, member].append(Answer(*answer))
    members: defaultdict[int, list[KeptMember]] = defaultdict(list)
    former: defaultdict[int, list[KeptMember]] = defaultdict(list)
    for room, number, name, plaintext, door, mark, joined_seq, left_seq in connection.execute(
        "SELECT room, id, name, plaintext, door, mark, joined_seq, left_seq FROM member"
        " ORDER BY room, left_seq, joined_seq"
    ):
        told = tuple(answers.pop((room, number), ()))
        member = KeptMember(number, name, bool(plaintext), door, mark, told, joined_seq, left_seq)
        (former if left_seq else members)[room].append(member)
    rooms = tuple(
        KeptRoom(
            name=name,
            incarnation=incarnation,
            log_id=log_id,
            policy=Policy(Access(access), Lifetime(lifetime)),
            last_seq=last_seq,
            oldest_seq=oldest_seq,
            next_member=next_member,
            time_ms=time_ms,
            closed=closed_s is not None,
            members=tuple(members.pop(room, ())),
            former=tuple(former.pop(room, ())),
        )
        for room, incarnation, name, log_id, access, lifetime, last_seq, oldest_seq, next_member, time_ms, closed_s in (
            connection.execute(
                "SELECT id, incarnation, name, log_id, access, lifetime, last_seq, oldest_seq, next_member, time_ms,"
                " closed_s FROM room ORDER BY incarnation, id"
            )
        )
    )
    identities = tuple(
        Identity(client, (newest,) if former is None else (newest, former), until_ms)
        for client, newest, former, until_ms in connection.execute(
            "SELECT client, newest, former, until_ms FROM identity ORDER BY client"
        )
    )
    [[last_incarnation]] = connection.execute("SELECT last_incarnation FROM ledger").fetchall()
    return Kept(rooms, identities, last_incarnation)
