"""The tables of a server's journal."""

from __future__ import annotations

from typing import Final

from ocm.store.schema import Schema

JOURNAL_SCHEMA: Final = Schema(
    what="the room log",
    application_id=0x6F636D4A,  # "ocmJ"
    migrations=(
        (
            # aged_s: the age of everything is told by this clock, which runs only while a server does (see ages.py)
            """
            CREATE TABLE ledger (
                one INTEGER PRIMARY KEY CHECK (one = 1),
                commits INTEGER NOT NULL,
                last_incarnation INTEGER NOT NULL,
                aged_s REAL NOT NULL
            )
            """,
            "INSERT INTO ledger (one, commits, last_incarnation, aged_s) VALUES (1, 0, 0, 0)",
            # id: never used again, so that rows which a room leaves belong to no other
            # closed_s: when it was closed, on the clock of ages
            """
            CREATE TABLE room (
                id INTEGER PRIMARY KEY AUTOINCREMENT,
                name TEXT NOT NULL,
                incarnation INTEGER NOT NULL,
                log_id BLOB NOT NULL,
                access TEXT NOT NULL,
                lifetime TEXT NOT NULL,
                last_seq INTEGER NOT NULL DEFAULT 0,
                oldest_seq INTEGER NOT NULL DEFAULT 1,
                next_member INTEGER NOT NULL DEFAULT 1,
                time_ms INTEGER NOT NULL DEFAULT 0,
                closed_s REAL,
                UNIQUE (name, incarnation)
            )
            """,
            "CREATE INDEX room_closed ON room (closed_s) WHERE closed_s IS NOT NULL",
            """
            CREATE TABLE entry (
                room INTEGER NOT NULL,
                seq INTEGER NOT NULL,
                sender INTEGER NOT NULL,
                name TEXT NOT NULL,
                kind INTEGER NOT NULL,
                body BLOB NOT NULL,
                time_ms INTEGER NOT NULL,
                plaintext INTEGER NOT NULL,
                message_id INTEGER NOT NULL,
                aged_s REAL NOT NULL,
                PRIMARY KEY (room, seq)
            ) WITHOUT ROWID
            """,
            # settled: how many answers there ever were; the next one goes into the slot settled % ANSWERS_KEPT
            """
            CREATE TABLE member (
                room INTEGER NOT NULL,
                id INTEGER NOT NULL,
                joined_seq INTEGER NOT NULL,
                name TEXT NOT NULL,
                plaintext INTEGER NOT NULL,
                door BLOB NOT NULL,
                mark INTEGER NOT NULL DEFAULT 0,
                settled INTEGER NOT NULL DEFAULT 0,
                PRIMARY KEY (room, id)
            ) WITHOUT ROWID
            """,
            """
            CREATE TABLE answer (
                room INTEGER NOT NULL,
                member INTEGER NOT NULL,
                slot INTEGER NOT NULL,
                message_id INTEGER NOT NULL,
                status INTEGER NOT NULL,
                seq INTEGER NOT NULL,
                time_ms INTEGER NOT NULL,
                digest BLOB NOT NULL,
                PRIMARY KEY (room, member, slot)
            ) WITHOUT ROWID
            """,
            # forget_s: on the clock of ages, unlike until_ms
            """
            CREATE TABLE identity (
                client BLOB PRIMARY KEY,
                newest BLOB NOT NULL,
                former BLOB,
                until_ms INTEGER NOT NULL,
                forget_s REAL NOT NULL
            ) WITHOUT ROWID
            """,
            "CREATE INDEX identity_by_age ON identity (forget_s)",
            # rooms that are gone, while what they leave is deleted bit by bit
            "CREATE TABLE purged (room INTEGER PRIMARY KEY)",
            "PRAGMA application_id = 0x6F636D4A",
            "PRAGMA user_version = 1",
        ),
        (
            # of a member that was removed and is to hear of it still: the entry that says so, and when (see aged_s)
            "ALTER TABLE member ADD COLUMN left_seq INTEGER NOT NULL DEFAULT 0",
            "ALTER TABLE member ADD COLUMN left_s REAL",
            "CREATE INDEX member_left ON member (left_s) WHERE left_s IS NOT NULL",
            "PRAGMA user_version = 2",
        ),
    ),
)
"""What ``SqliteJournal`` keeps."""
