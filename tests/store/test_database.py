"""A file that is ours, its versions, and what is true of it after the disk has failed."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import pytest

from ocm.store.database import WAL_PAGES, Database
from ocm.store.schema import FAULTS, Schema
from tests.store.faults import Disk, disk_error

LEDGER = (
    "CREATE TABLE ledger (one INTEGER PRIMARY KEY, commits INTEGER NOT NULL)",
    "INSERT INTO ledger (one, commits) VALUES (1, 0)",
)
FIRST = (*LEDGER, "CREATE TABLE word (text TEXT)", "PRAGMA application_id = 77", "PRAGMA user_version = 1")
SECOND = (
    "ALTER TABLE word ADD COLUMN language TEXT",
    "UPDATE word SET language = 'en'",
    "PRAGMA user_version = 2",
)


def schema(*migrations: Sequence[str], application_id: int = 77) -> Schema:
    return Schema("the dictionary", application_id, migrations)


def add(text: str) -> Callable[[sqlite3.Connection], None]:
    def change(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO word (text) VALUES (?)", (text,))

    return change


def words(database: Database) -> list[str]:
    with database.reading() as connection:
        return [text for (text,) in connection.execute("SELECT text FROM word")]


@contextlib.contextmanager
def dictionary(path: Path, disk: Disk | None = None) -> Generator[Database]:
    database = Database(path, schema(FIRST), connect=(disk or Disk()).connect)
    try:
        yield database
    finally:
        database.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "words.db"


# --- versions ---------------------------------------------------------------------------------------------


def test_an_older_file_is_brought_up_to_date_and_keeps_what_it_holds(path: Path) -> None:
    with dictionary(path) as old:
        old.write(add("hello"))
    new = Database(path, schema(FIRST, SECOND))
    with new.reading() as connection:
        assert connection.execute("SELECT text, language FROM word").fetchall() == [("hello", "en")]
        assert connection.execute("PRAGMA user_version").fetchall() == [(2,)]
    new.close()


def test_a_file_of_a_version_before_the_first_is_brought_up_to_date_too(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as made_up:
        made_up.execute("CREATE TABLE words (text TEXT)")
        made_up.execute("INSERT INTO words (text) VALUES ('hello')")
        made_up.execute("PRAGMA application_id = 77")
    from_nothing = (
        *LEDGER,
        "CREATE TABLE word (text TEXT)",
        "INSERT INTO word (text) SELECT text FROM words",
        "DROP TABLE words",
        "PRAGMA user_version = 1",
    )
    database = Database(path, schema(from_nothing))
    assert words(database) == ["hello"]
    database.close()


@pytest.mark.parametrize("broken", [1, 2, 3])
def test_a_step_that_fails_leaves_the_file_as_it_was(path: Path, broken: int) -> None:
    with dictionary(path) as old:
        old.write(add("hello"))
    second = [*SECOND[: broken - 1], "INSERT INTO nothing VALUES (1)", *SECOND[broken - 1 :]]
    with pytest.raises(sqlite3.OperationalError):
        Database(path, schema(FIRST, second))
    with dictionary(path) as old:
        assert words(old) == ["hello"]
    database = Database(path, schema(FIRST, SECOND))
    assert words(database) == ["hello"]
    database.close()


def test_a_file_of_a_newer_version_is_refused_and_not_touched(path: Path) -> None:
    Database(path, schema(FIRST, SECOND)).close()
    before = path.read_bytes()
    with pytest.raises(sqlite3.DatabaseError, match=r"newer ocm \(version 2 of the file, this one knows 1\); upgrade"):
        Database(path, schema(FIRST))
    assert path.read_bytes() == before


def test_a_file_of_another_program_is_refused_and_not_touched(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as foreign:
        foreign.execute("CREATE TABLE photo (name TEXT)")
    before = path.read_bytes()
    with pytest.raises(sqlite3.DatabaseError, match="another program"):
        Database(path, schema(FIRST))
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused_and_not_touched(path: Path) -> None:
    path.write_bytes(b"Dear diary, " * 400)
    with pytest.raises(sqlite3.DatabaseError) as refused:
        Database(path, schema(FIRST))
    assert "is no database; put a backup in its place" in schema().explain(path, refused.value)
    assert path.read_bytes() == b"Dear diary, " * 400


def test_a_file_that_was_refused_is_not_locked(path: Path) -> None:
    Database(path, schema(FIRST, SECOND)).close()
    for _ in range(2):
        with pytest.raises(sqlite3.DatabaseError, match="newer"):
            Database(path, schema(FIRST))
    Database(path, schema(FIRST, SECOND)).close()


# --- writing and reading ------------------------------------------------------------------------------------


def test_what_raises_is_undone_and_goes_on_its_way(path: Path) -> None:
    with dictionary(path) as database:

        def change(connection: sqlite3.Connection) -> None:
            add("hello")(connection)
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            database.write(change)
        database.write(add("again"))
        assert words(database) == ["again"]


def test_what_changes_nothing_is_not_committed(path: Path) -> None:
    disk = Disk()
    with dictionary(path, disk) as database:
        disk.statements.clear()
        assert database.write(lambda connection: connection.execute("SELECT 5").fetchone()) == (5,)
        assert disk.statements[-1] == "ROLLBACK"


def test_who_reads_may_not_write(path: Path) -> None:
    with dictionary(path) as database:
        with pytest.raises(sqlite3.OperationalError, match="readonly"), database.reading() as connection:
            add("hello")(connection)
        assert words(database) == []


def test_after_closing_nothing_is_read_or_written(path: Path) -> None:
    with dictionary(path) as database:
        database.close()
        database.close()
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            database.write(add("hello"))
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            words(database)


# --- when the disk fails --------------------------------------------------------------------------------------


def begins(*starts: str) -> Callable[[str], bool]:
    return lambda sql: sql.startswith(starts)


@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "INSERT INTO word", "UPDATE ledger", "COMMIT"])
def test_what_fails_is_not_there_and_the_file_is_opened_again_before_the_next(path: Path, statement: str) -> None:
    disk = Disk()
    with dictionary(path, disk) as database:
        database.write(add("one"))
        opened = disk.opened
        disk.fails = begins(statement)
        with pytest.raises(sqlite3.OperationalError, match="disk I/O error"):
            database.write(add("two"))
        disk.fails = begins("nothing")
        assert disk.opened == opened + 1
        assert "PRAGMA quick_check(1)" in disk.statements
        assert words(database) == ["one"]
        database.write(add("three"))
        assert words(database) == ["one", "three"]
    with dictionary(path) as again:
        assert words(again) == ["one", "three"]


def test_a_commit_that_failed_and_is_there_has_succeeded(path: Path) -> None:
    disk = Disk()
    with dictionary(path, disk) as database:
        database.write(add("one"))
        disk.fails, disk.does_it_all_the_same = begins("COMMIT"), True
        database.write(add("two"))
        disk.fails = begins("nothing")
        database.write(add("three"))
        assert words(database) == ["one", "two", "three"]


def test_nothing_is_written_until_the_file_can_be_opened_again(path: Path) -> None:
    disk = Disk()
    with dictionary(path, disk) as database:
        database.write(add("one"))
        disk.fails, disk.is_gone = begins("COMMIT"), True
        for _ in range(3):
            with pytest.raises(sqlite3.OperationalError, match="disk I/O error"):
                database.write(add("two"))
        disk.fails = begins("nothing")
        with pytest.raises(sqlite3.OperationalError):
            database.write(add("three"))
        disk.is_gone = False
        database.write(add("four"))
        assert words(database) == ["one", "four"]


def test_a_file_that_can_be_opened_but_not_written_to_the_end_is_not_written(path: Path) -> None:
    disk = Disk()
    with dictionary(path, disk) as database:
        disk.fails = begins("COMMIT", "PRAGMA wal_checkpoint")
        for _ in range(2):
            with pytest.raises(sqlite3.OperationalError, match="disk I/O error"):
                database.write(add("two"))
        disk.fails = begins("nothing")
        database.write(add("three"))
        assert words(database) == ["three"]


def test_what_was_said_to_have_failed_and_is_there_ends_all_writing(path: Path) -> None:
    """Whoever was told has gone on from another state than the file's; a new start reads what is true."""
    disk = Disk()
    with dictionary(path, disk) as database:
        database.write(add("one"))

        def fail_for_good(sql: str) -> bool:
            disk.is_gone = disk.is_gone or sql == "COMMIT"
            return sql == "COMMIT"

        disk.fails, disk.does_it_all_the_same = fail_for_good, True
        with pytest.raises(sqlite3.OperationalError, match="disk I/O error"):
            database.write(add("two"))
        disk.fails, disk.is_gone = begins("nothing"), False
        for _ in range(2):
            with pytest.raises(sqlite3.DatabaseError, match="holds what was said to be lost; start again"):
                database.write(add("three"))
        assert words(database) == ["one", "two"]
    with dictionary(path) as again:
        again.write(add("three"))
        assert words(again) == ["one", "two", "three"]


def test_what_is_written_ahead_goes_into_the_file_before_it_fills_a_small_disk(path: Path) -> None:
    ahead = path.with_name(path.name + "-wal")
    with dictionary(path) as database:
        for number in range(2 * WAL_PAGES):
            database.write(add(f"word {number}"))
            assert ahead.stat().st_size < 1.1 * 4096 * WAL_PAGES


def test_a_full_disk_leaves_no_doubt_about_what_is_in_the_file(path: Path) -> None:
    disk = Disk(error=lambda: disk_error(sqlite3.SQLITE_FULL))
    with dictionary(path, disk) as database:
        disk.statements.clear()
        disk.fails = begins("COMMIT")
        with pytest.raises(sqlite3.OperationalError) as full:
            database.write(add("one"))
        assert "PRAGMA quick_check(1)" not in disk.statements
        assert schema().explain(path, full.value).endswith(": the disk is full; make room on it (SQLITE_FULL)")


def test_a_commit_that_was_interrupted_ends_all_writing(path: Path) -> None:
    disk = Disk(error=KeyboardInterrupt)
    with dictionary(path, disk) as database:
        disk.fails = begins("COMMIT")
        with pytest.raises(KeyboardInterrupt):
            database.write(add("one"))
        disk.fails = begins("nothing")
        with pytest.raises(sqlite3.DatabaseError, match="start again"):
            database.write(add("two"))


def write_from_outside(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE ledger SET commits = commits + 1")


@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "COMMIT"])
def test_a_file_that_somebody_else_wrote_into_meanwhile_is_not_written(path: Path, statement: str) -> None:
    def fail() -> BaseException:
        write_from_outside(path)
        return disk_error()

    disk = Disk(error=fail, does_it_all_the_same=statement == "COMMIT")
    with dictionary(path, disk) as database:
        disk.fails = begins(statement)
        with pytest.raises(sqlite3.DatabaseError, match="start again"):
            database.write(add("one"))
        disk.fails = begins("nothing")
        with pytest.raises(sqlite3.DatabaseError, match="start again"):
            database.write(add("two"))


def test_a_file_that_another_program_reads_cannot_be_checked(path: Path) -> None:
    disk = Disk()
    with dictionary(path, disk) as database, contextlib.closing(sqlite3.connect(path)) as other:
        database.write(add("one"))
        other.execute("BEGIN")
        assert other.execute("SELECT text FROM word").fetchall() == [("one",)]
        database.write(add("two"))
        disk.fails = begins("COMMIT")
        for _ in range(2):
            with pytest.raises(sqlite3.DatabaseError):
                database.write(add("three"))
        disk.fails = begins("nothing")
        with pytest.raises(sqlite3.DatabaseError, match="another program is reading it; end that program"):
            database.write(add("four"))
        other.rollback()
        database.write(add("five"))
        assert words(database) == ["one", "two", "five"]


def test_a_file_that_is_damaged_is_not_written_any_more(path: Path) -> None:
    disk = Disk()
    with dictionary(path, disk) as database:
        database.write(lambda connection: [add(f"{n} some words that fill the file")(connection) for n in range(2000)])
        disk.fails = begins("BEGIN IMMEDIATE")

        def damaged() -> BaseException:
            damage(path)
            return disk_error()

        disk.error = damaged
        with pytest.raises(sqlite3.OperationalError, match="disk I/O error"):
            database.write(add("one"))
        disk.fails = begins("nothing")
        with pytest.raises(sqlite3.DatabaseError, match=r"malformed|the file is damaged"):
            database.write(add("two"))


def damage(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = path.read_bytes()
    path.write_bytes(whole[:20_000] + b"\xa5" * 4096 + whole[24_096:])


def test_a_place_that_cannot_be_written_ahead_is_refused(path: Path) -> None:
    with pytest.raises(sqlite3.DatabaseError, match="put it on a disk of this machine"):
        Database(path, schema(FIRST), connect=lambda _: sqlite3.connect(":memory:", isolation_level=None))


def test_a_reader_that_failed_is_opened_again(path: Path) -> None:
    disk = Disk()
    with dictionary(path, disk) as database:
        database.write(add("one"))
        disk.fails = begins("SELECT text")
        with pytest.raises(sqlite3.OperationalError):
            words(database)
        disk.fails = begins("nothing")
        assert words(database) == ["one"]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (BlockingIOError(11, "temporarily"), "another process is using it; end that process, or name another file"),
        (PermissionError(13, "Permission denied"), "Permission denied"),
        (OSError("what"), "what"),
        (MemoryError(), "there is not enough memory"),
        (disk_error(), "the disk does not work; look into the system's log (SQLITE_IOERR_FSYNC)"),
        (sqlite3.DatabaseError("it is closed"), "it is closed"),
    ],
)
def test_each_error_is_a_sentence(error: BaseException, says: str) -> None:
    assert isinstance(error, FAULTS)
    assert schema().explain(Path("/x/words.db"), error) == f"the dictionary /x/words.db: {says}"


def test_an_error_that_nobody_foresaw_is_what_sqlite_says(path: Path) -> None:
    with dictionary(path) as database:
        with pytest.raises(sqlite3.OperationalError) as wrong:
            database.write(lambda connection: connection.execute("SELECT 1 FROM nowhere"))
        assert schema().explain(path, wrong.value).endswith(": no such table: nowhere (SQLITE_ERROR)")
