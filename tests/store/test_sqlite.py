"""The journal on SQLite: what it forgets and when, what it refuses, and a server that stands on it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from ocm.errors import JournalFailed
from ocm.protocol.entry import Access, Entry, Identity, Kind, Opened, Policy, Reason, Record, Refused, Step
from ocm.protocol.limits import Limits
from ocm.store.database import Connect
from ocm.store.sqlite import SqliteJournal
from ocm.store.worker import InlineWorker
from tests.peers import CREATE, JOIN, refused, request, serving
from tests.store.faults import Disk
from tests.virtual import now_s, quiet, virtual

DAY_S = 86_400.0
YEAR_S = 365 * DAY_S
EPOCH_S = 1_700_000_000.0


@dataclass
class Clocks:
    """A time of day that can be set, and a clock that only runs."""

    day_s: float = EPOCH_S
    running_s: float = 1000.0

    def pass_s(self, seconds: float) -> None:
        self.day_s += seconds
        self.running_s += seconds


@dataclass
class Desk:
    """A journal that is told at once, and the clocks on its wall."""

    path: Path
    clocks: Clocks
    journal: SqliteJournal

    def submit(self, steps: Sequence[Step]) -> JournalFailed | None:
        outcome: list[JournalFailed | None] = []
        self.journal.submit(steps, outcome.append)
        (error,) = outcome
        return error

    def write(self, *steps: Step) -> None:
        assert self.submit(steps) is None

    def seqs(self, room: str = "a", incarnation: int = 1) -> list[int]:
        return [entry.seq for entry in self.journal.read(room, incarnation, from_seq=1, count=99_999)]

    def tidy(self, rounds: int = 30) -> None:
        """Let it go through all rooms, while hardly any time passes."""
        for _ in range(rounds):
            self.clocks.pass_s(61)
            self.write()


@contextlib.contextmanager
def desk(
    path: Path, limits: Limits | None = None, *, clocks: Clocks | None = None, connect: Connect | None = None
) -> Generator[Desk]:
    wall = clocks or Clocks()
    journal = SqliteJournal(
        path,
        limits or Limits(),
        clock=lambda: wall.day_s,
        monotonic=lambda: wall.running_s,
        worker=InlineWorker(),
        connect=connect,
    )
    try:
        yield Desk(path, wall, journal)
    finally:
        journal.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def opened(room: str = "a", incarnation: int = 1, *, durable: bool = True) -> Opened:
    return Opened(room, incarnation, b"%016d" % incarnation, Policy(durable=durable))


def joined(seq: int, sender: int = 1, *, room: str = "a", incarnation: int = 1, door: bytes = b"door") -> Record:
    return Record(room, incarnation, Entry(seq, sender, "alice", Kind.JOIN, b"", seq, False), door)


def removed(seq: int, sender: int) -> Record:
    entry = Entry(seq, sender, "alice", Kind.LEAVE, Reason.KICKED.encode(), seq, False)
    return Record("a", 1, entry, b"%d" % sender)


def text(seq: int, *, room: str = "a", incarnation: int = 1, body: bytes = b"hello", message_id: int = 0) -> Record:
    return Record(room, incarnation, Entry(seq, 1, "alice", Kind.TEXT, body, seq, False, message_id))


def texts(first: int, last: int, *, room: str = "a", incarnation: int = 1) -> list[Step]:
    return [text(seq, room=room, incarnation=incarnation) for seq in range(first, last + 1)]


def closed(seq: int, *, room: str = "a", incarnation: int = 1) -> Record:
    return Record(room, incarnation, Entry(seq, 0, "", Kind.CLOSED, Reason.HOST_LEFT.encode(), seq, False))


def rows(path: Path) -> dict[str, int]:
    """Count what is in the file."""
    tables = ("room", "entry", "member", "answer", "identity", "purged")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}


# --- what is kept -------------------------------------------------------------------------------------------


def test_the_oldest_entries_go_when_there_are_too_many(path: Path) -> None:
    with desk(path, Limits(room_kept_messages_max=3)) as at:
        at.write(opened(), *texts(1, 5))
        assert at.seqs() == [3, 4, 5]
        at.write(*texts(6, 6))
        assert at.seqs() == [4, 5, 6]
        (room,) = at.journal.load().rooms
        assert (room.oldest_seq, room.last_seq) == (4, 6)
        assert rows(path)["entry"] == 3
        at.write(*texts(1, 6))  # what was dropped is taken at its word
        assert at.submit([text(5, body=b"mine")]) is not None


def test_a_room_that_holds_much_more_than_it_may_shrinks_a_little_at_a_time(path: Path) -> None:
    with desk(path) as at:
        at.write(opened(), *texts(1, 2000))
    with desk(path, Limits(room_kept_messages_max=10)) as at:
        at.write(*texts(2001, 2001))
        first = len(at.seqs())
        assert 1000 < first < 2000
        at.tidy()
        assert at.seqs() == list(range(1992, 2002))


def test_entries_go_when_they_are_too_old_also_where_nothing_is_said(path: Path) -> None:
    with desk(path, Limits(room_kept_s=30 * DAY_S)) as at:
        at.write(opened(), *texts(1, 2))
        at.write(opened("b", 2), *texts(1, 1, room="b", incarnation=2))
        at.clocks.pass_s(20 * DAY_S)
        at.write(*texts(3, 4))
        at.tidy()
        assert at.seqs() == [1, 2, 3, 4]
        at.clocks.pass_s(10 * DAY_S)
        at.tidy()
        assert (at.seqs(), at.seqs("b", 2)) == ([3, 4], [])
        assert [(room.oldest_seq, room.last_seq) for room in at.journal.load().rooms] == [(3, 4), (2, 1)]
        at.write(text(5), text(2, room="b", incarnation=2))
        assert (at.seqs(), at.seqs("b", 2)) == ([3, 4, 5], [2])


def test_all_of_many_rooms_are_looked_at(path: Path) -> None:
    with desk(path) as at:
        for number in range(1, 201):
            at.write(opened(f"{number}", number), *texts(1, 3, room=f"{number}", incarnation=number))
        at.clocks.pass_s(31 * DAY_S)
        for _ in range(10):
            at.clocks.pass_s(0.2)
            at.write()
        assert rows(path)["entry"] == 0
        assert {room.oldest_seq for room in at.journal.load().rooms} == {4}


def test_a_clock_a_year_ahead_deletes_nothing_and_neither_do_years_without_a_server(path: Path) -> None:
    clocks = Clocks()
    with desk(path, clocks=clocks) as at:
        at.write(opened(), *texts(1, 2), Identity(b"c" * 16, (b"s" * 32,), int((EPOCH_S + DAY_S) * 1000)))
        at.write(opened("b", 2), closed(1, room="b", incarnation=2))
        clocks.day_s += YEAR_S
        at.tidy()
        before = at.journal.load()
    clocks.day_s += YEAR_S
    with desk(path, clocks=clocks) as at:
        at.tidy()
        assert at.seqs() == [1, 2]
        assert at.journal.load() == before
        clocks.day_s -= 3 * YEAR_S
        at.tidy()
        assert at.journal.load() == before


def test_age_is_kept_when_it_is_closed_and_now_and_then(path: Path) -> None:
    clocks = Clocks()
    for _ in range(3):
        with desk(path, clocks=clocks) as at:
            if not at.seqs():
                at.write(opened(), *texts(1, 1))
            clocks.pass_s(11 * DAY_S)
    with desk(path, clocks=clocks) as at:
        at.tidy()
        assert at.seqs() == []


def test_an_identity_is_forgotten_at_its_time(path: Path) -> None:
    with desk(path) as at:
        for number in range(3):
            until_ms = int((EPOCH_S + (1 + number) * DAY_S) * 1000)
            at.write(Identity(b"%016d" % number, (b"s" * 32, b"t" * 32)[: 1 + number % 2], until_ms))
        at.clocks.pass_s(1.5 * DAY_S)
        at.tidy()
        assert [one.client[-1:] for one in at.journal.load().identities] == [b"1", b"2"]
        at.write(Identity(b"%016d" % 1, (), 0))
        assert [one.client[-1:] for one in at.journal.load().identities] == [b"2"]


def test_a_member_that_was_removed_is_kept_for_a_day_and_of_too_many_the_oldest_go(path: Path) -> None:
    with desk(path, Limits(rooms_max=3)) as at:
        at.write(opened())
        for sender in range(1, 6):
            at.write(joined(2 * sender - 1, sender, door=b"%d" % sender), removed(2 * sender, sender))
        at.write(joined(11, 6, door=b"4"), text(12, message_id=1))
        at.tidy(3)
        [room] = at.journal.load().rooms
        assert [(one.id, one.left_seq) for one in room.former] == [(2, 4), (3, 6), (5, 10)]
        assert [one.id for one in room.members] == [6]
        at.write(joined(13, 7, door=b"x"), removed(14, 7))
        at.tidy(3)
        assert [one.id for one in at.journal.load().rooms[0].former] == [3, 5, 7]
        at.clocks.pass_s(1.1 * DAY_S)
        at.tidy(3)
        assert at.journal.load().rooms[0].former == ()
        assert rows(path)["member"] == 1


def test_a_member_of_a_file_of_version_1_is_none_that_was_removed(path: Path) -> None:
    with desk(path) as at:
        at.write(opened(), joined(1))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for undo in (
            "DROP INDEX member_left",
            "ALTER TABLE member DROP COLUMN left_seq",
            "ALTER TABLE member DROP COLUMN left_s",
            "PRAGMA user_version = 1",
        ):
            connection.execute(undo)
    with desk(path) as at:
        [room] = at.journal.load().rooms
        assert ([one.id for one in room.members], room.former) == ([1], ())


# --- closed rooms ---------------------------------------------------------------------------------------------


def test_a_closed_room_can_be_read_for_a_day_and_leaves_nothing(path: Path) -> None:
    with desk(path) as at:
        at.write(opened(), joined(1), text(2, message_id=1), closed(3))
        at.write(opened("a", 2), joined(1, incarnation=2))
        at.clocks.pass_s(0.9 * DAY_S)
        at.tidy()
        assert (at.seqs(), at.seqs("a", 2)) == ([1, 2, 3], [1])
        assert [(room.closed, len(room.members)) for room in at.journal.load().rooms] == [(True, 1), (False, 1)]
        at.clocks.pass_s(0.1 * DAY_S)
        at.tidy()
        assert (at.seqs(), at.seqs("a", 2)) == ([], [1])
        assert rows(path) == {"room": 1, "entry": 1, "member": 1, "answer": 0, "identity": 0, "purged": 0}


def test_of_closed_rooms_the_oldest_go_when_there_are_too_many(path: Path) -> None:
    with desk(path, Limits(rooms_max=2)) as at:
        for number in range(1, 6):
            at.write(opened(f"room {number}", number), closed(1, room=f"room {number}", incarnation=number))
        at.tidy(3)
        kept = at.journal.load()
        assert [room.name for room in kept.rooms] == ["room 4", "room 5"]
        assert kept.last_incarnation == 5


def test_a_large_closed_room_goes_at_once_and_its_rows_little_by_little(path: Path) -> None:
    with desk(path) as at:
        at.write(opened(), *[joined(seq, seq) for seq in range(1, 301)])
        at.write(*texts(301, 3000), closed(3001))
        at.clocks.pass_s(1.1 * DAY_S)
        at.write()
        at.clocks.pass_s(1)
        at.write()
        assert at.seqs() == []
        assert at.journal.load().rooms == ()
        assert rows(path)["entry"] > 1000
        at.write(opened("a", 1), *texts(1, 2))  # another room, though it bears the same name and number
        at.tidy()
        assert rows(path) == {"room": 1, "entry": 2, "member": 0, "answer": 0, "identity": 0, "purged": 0}
        assert at.seqs() == [1, 2]


def test_many_things_to_forget_are_all_forgotten_in_the_end(path: Path) -> None:
    with desk(path) as at:
        for number in range(1, 201):
            at.write(opened(f"{number}", number), closed(1, room=f"{number}", incarnation=number))
        at.write(*[Identity(b"%016d" % n, (b"s",), int(EPOCH_S * 1000)) for n in range(1500)])
        at.clocks.pass_s(1.1 * DAY_S)
        for _ in range(100):
            at.clocks.pass_s(0.2)  # steps of one round, not of many
            at.write()
        assert set(rows(path).values()) == {0}


# --- what is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "steps",
    [
        [Opened("a", 1, b"y" * 16, Policy())],
        [opened("a", 0)],
        [text(1, incarnation=0)],
        [text(2, body=b"mine")],
        [text(4)],
        [Record("a", 1, Entry(3, 0, "", Kind.POLICY, b"everybody", 3))],
        [Record("a", 1, Entry(3, 0, "", Kind.POLICY, b"\xff", 3))],
        [text(3, message_id=2**63)],
        [text(3), Record("\ud800", 2, text(1).entry)],
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_of_it_is_kept(path: Path, steps: list[Step]) -> None:
    with desk(path) as at:
        at.write(opened(), *texts(1, 2))
        before = at.journal.load()
        error = at.submit([text(1, room="b", incarnation=2), *steps])
        assert isinstance(error, JournalFailed)
        assert "batch" in str(error)
        assert at.journal.load() == before
        at.write(text(3))


def test_a_misfit_in_the_middle_of_a_group_leaves_what_is_before_it(path: Path) -> None:
    with desk(path) as at:
        told: list[bool] = []

        def first(_: JournalFailed | None) -> None:
            misfit = [*texts(4, 4), text(1, room="b", incarnation=2), *texts(9, 9)]
            for steps in (texts(2, 2), texts(3, 3), misfit, texts(4, 4)):  # the last three are one group
                at.journal.submit(steps, lambda error: told.append(error is None))

        at.journal.submit(texts(1, 1), first)
        assert told == [True, True, False, False]
        assert (at.seqs(), at.seqs("b", 2)) == ([1, 2, 3], [])
        assert len(at.journal.load().rooms) == 1


def test_a_policy_is_raised_and_a_refusal_counts_for_those_who_are_there(path: Path) -> None:
    with desk(path) as at:
        at.write(Opened("a", 1, b"x" * 16, Policy(Access.MIXED)), joined(1))
        at.write(Refused("a", 1, 1, 5, 17, 1, b"d" * 32), Refused("a", 1, 2, 5, 17, 1, b"d" * 32))
        at.write(Record("a", 1, Entry(2, 0, "", Kind.POLICY, b"modern", 2, False)))
        (room,) = at.journal.load().rooms
        assert room.policy.access is Access.MODERN
        assert [(member.mark, len(member.answers)) for member in room.members] == [(5, 1)]
        at.write(Refused("b", 2, 1, 5, 17, 1, b"d" * 32))
        assert len(at.journal.load().rooms) == 1


def test_rooms_that_do_not_last_are_not_loaded_but_their_number_is(path: Path) -> None:
    with desk(path, Limits(rooms_max=2)) as at:
        for number in range(1, 9):
            name = f"room {number}"
            at.write(opened(name, number, durable=False), text(1, room=name, incarnation=number))
            at.write(closed(2, room=name, incarnation=number))
        assert at.seqs("room 8", 8) == [1, 2]
        assert at.seqs("room 1", 1) == []
        assert len(at.journal._ephemeral._rooms) == len(at.journal._ephemeral._closed) == 2
    with desk(path) as at:
        assert at.journal.load().rooms == ()
        assert at.journal.load().last_incarnation == 8
        assert at.seqs("room 8", 8) == []


# --- when it cannot -------------------------------------------------------------------------------------------


def test_a_file_of_a_newer_version_is_refused(path: Path) -> None:
    with desk(path):
        pass
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA user_version = 1000")
    with pytest.raises(JournalFailed, match=r"the room log .*journal\.db: it was written by a newer ocm"), desk(path):
        pass


def test_a_clients_state_is_no_journal(path: Path) -> None:
    from ocm.store.client_sqlite import SqliteState

    SqliteState(path, worker=InlineWorker()).close()
    with pytest.raises(JournalFailed, match="made by another program"), desk(path):
        pass


def test_a_folder_that_cannot_be_made_is_an_error_of_ours(path: Path) -> None:
    path.write_text("I am a file")
    with pytest.raises(JournalFailed, match=r"the room log .*: (Not a directory|File exists)"), desk(path / "deep.db"):
        pass


def test_a_damaged_file_is_told_as_such_and_never_a_traceback(path: Path) -> None:
    with desk(path) as at:
        at.write(opened(), *texts(1, 3000))
    whole = path.read_bytes()
    path.write_bytes(whole[:8192] + b"\xa5" * (len(whole) - 8192))
    with pytest.raises(JournalFailed, match="the file is damaged; put a backup in its place"), desk(path) as at:
        at.journal.read("a", 1, from_seq=1, count=9)
    with contextlib.suppress(JournalFailed), desk(path) as at:
        assert at.submit(texts(3001, 3001)) is not None


DAMAGE = {
    "a policy that there is not": "UPDATE room SET access = 'everybody'",
    "a lifetime that there is not": "UPDATE room SET lifetime = x'00'",
    "a kind that there is not": "UPDATE entry SET kind = 99",
    "a body that is a number": "UPDATE entry SET body = 7",
    "a join with words": "UPDATE entry SET body = x'ff' WHERE kind = 1",
    "a room that is closed for no reason": "UPDATE entry SET kind = 5 WHERE kind = 0",
    "a policy of words": "UPDATE entry SET kind = 6 WHERE kind = 0",
    "an entry of the future's clients": "UPDATE entry SET message_id = 9007199254740992 WHERE kind = 0",
    "an entry of too high a member": "UPDATE entry SET sender = 4294967296",
    "a time before there was any": "UPDATE entry SET time_ms = -1",
    "an answer of more than a byte": "UPDATE answer SET status = 256",
    "a member without a number": "UPDATE member SET id = 'one'",
    "a member's name that is no text": "UPDATE member SET name = x'00'",
    "a member that is neither sealed nor in plaintext": "UPDATE member SET plaintext = 2",
    "an answer that is a text": "UPDATE answer SET status = 'yes'",
    "a secret that is a text": "UPDATE identity SET newest = '0123'",
    "a count below zero": "UPDATE room SET last_seq = -1",
    "no ledger": "DELETE FROM ledger",
    "a ledger that counts in words": "UPDATE ledger SET commits = 'many'",
    "a ledger without an age": "UPDATE ledger SET aged_s = 'old'",
    "a ledger without rooms": "UPDATE ledger SET last_incarnation = x'00'",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_value_that_cannot_be_is_damage_and_never_a_traceback(path: Path, damage: str) -> None:
    with desk(path) as at:
        at.write(
            opened(), joined(1), text(2, message_id=1), Identity(b"c" * 16, (b"1" * 32,), int(1000 * (EPOCH_S + DAY_S)))
        )
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        assert connection.execute(DAMAGE[damage]).rowcount
    with pytest.raises(JournalFailed, match=r"the room log .*: the file is damaged"), desk(path) as at:
        assert not (at.journal.load(), at.seqs()), "read in spite of it"


def test_who_is_refused_a_file_does_not_keep_it(path: Path) -> None:
    with desk(path) as at:
        at.write(opened(), *texts(1, 2))
    set_age(path, "old")
    with pytest.raises(JournalFailed, match="damaged") as refused, desk(path):
        pass
    set_age(path, 0)
    with desk(path) as at:
        assert at.seqs() == [1, 2]
    assert refused.value.__traceback__ is not None, "which might hold on to it"


def set_age(path: Path, aged_s: object) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE ledger SET aged_s = ?", (aged_s,))


def test_a_table_that_is_declared_in_no_text_is_damage(path: Path) -> None:
    with desk(path):
        pass
    path.write_bytes(path.read_bytes().replace(b"KEY AUTOINCREMENT", b"\x80EY AUTOINCREMENT"))
    with pytest.raises(JournalFailed, match=r"the room log .*: the file is damaged"), desk(path):
        pass


def test_an_entry_that_is_missing_in_the_middle_is_damage(path: Path) -> None:
    with desk(path) as at:
        at.write(opened(), *texts(1, 3))
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("DELETE FROM entry WHERE seq = 2")
        assert "the file is damaged" in str(at.submit(texts(2, 2)))


def test_it_reads_nothing_after_it_was_closed(path: Path) -> None:
    with desk(path) as at:
        at.journal.close()
        for ask in (at.journal.load, at.seqs):
            with pytest.raises(JournalFailed, match="closed"):
                ask()


def test_tidying_on_a_broken_disk_waits_for_the_next_batch(path: Path) -> None:
    disk = Disk()
    with desk(path, connect=disk.connect) as at:
        at.write(opened(), *texts(1, 2))
        disk.fails = lambda sql: "BEGIN IMMEDIATE" in sql
        at.clocks.pass_s(100)
        at.journal._tidy()
        disk.is_gone = True
        assert "the disk does not work" in str(at.submit(texts(3, 3)))
        disk.fails, disk.is_gone = (lambda _: False), False
        at.write(*texts(3, 3))
        assert at.seqs() == [1, 2, 3]


# --- a server that stands on it ---------------------------------------------------------------------------------


def on_virtual_time(path: Path, *, connect: Connect | None = None) -> SqliteJournal:
    return SqliteJournal(
        path, Limits(), clock=lambda: EPOCH_S + now_s(), monotonic=now_s, worker=InlineWorker(), connect=connect
    )


@virtual
async def test_a_server_in_virtual_time_writes_what_is_said(path: Path) -> None:
    async with serving(journal=on_virtual_time(path)) as world:
        alice = await world.sit("ocm", CREATE, "r", "alice", host="10.0.0.1")
        bob = await world.sit("ocm", JOIN, "r", "bob", host="10.0.0.2")
        bob.say("hello")
        await quiet()
        assert len(alice.heard()) == 2
    again = on_virtual_time(path)
    kinds = [(entry.kind, entry.name) for entry in again.read("r", 1, from_seq=1, count=9)]
    assert kinds == [(Kind.JOIN, "alice"), (Kind.JOIN, "bob"), (Kind.TEXT, "bob")]
    assert [member.name for member in again.load().rooms[0].members] == ["alice", "bob"], "the room outlives the server"
    again.close()


@pytest.mark.parametrize("is_there", [False, True])
@virtual
async def test_a_server_whose_disk_fails_goes_on_when_it_works_again(path: Path, is_there: bool) -> None:
    disk = Disk()
    later = "the server cannot take this just now; try again later"
    async with serving(journal=on_virtual_time(path, connect=disk.connect)) as world:
        alice = await world.sit("ocm", CREATE, "r", "alice", host="10.0.0.1")
        disk.fails, disk.does_it_all_the_same = (lambda sql: sql == "COMMIT"), is_there
        peer = await world.dial("10.0.0.2")
        replies = await peer.ask(request("ocm", JOIN, "r", "bob"))
        assert (replies == [refused(JOIN, "r", 480, later)]) is not is_there
        disk.fails = lambda _: False
        if not is_there:
            await world.ask_seat(peer, "ocm", JOIN, "r", "bob")
        assert alice.notices() == ["bob joined"]
    again = on_virtual_time(path)
    assert [entry.name for entry in again.read("r", 1, from_seq=1, count=2)] == ["alice", "bob"]
    again.close()
