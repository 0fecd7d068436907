"""What every client state promises, sentence by sentence of ``ocm/store/base.py``."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocm.errors import StateFailed, StateLocked
from ocm.protocol.memory import Entered, Left, Memo, Memory, Named, Posted, Read, Renumbered, RoomMemory, Sent, Settled
from ocm.store.base import ClientState
from ocm.store.client_memory import MemoryState
from ocm.store.client_sqlite import SqliteState
from ocm.store.worker import InlineWorker
from tests.store.scratch import new_path, opened

MakeState = Callable[[], ClientState]
Reopen = Callable[[Path], ClientState]


def inline(path: Path) -> ClientState:
    return opened(SqliteState(path, worker=InlineWorker()))


def threaded(path: Path) -> ClientState:
    return opened(SqliteState(path))


STATES: dict[str, MakeState] = {
    "memory": MemoryState,
    "sqlite": lambda: inline(new_path("state.db")),
    "sqlite in a thread": lambda: threaded(new_path("state.db")),
}
ON_DISK: dict[str, Reopen] = {"sqlite": inline, "sqlite in a thread": threaded}
every_state = pytest.mark.parametrize("make", STATES.values(), ids=STATES.keys())
every_disk = pytest.mark.parametrize("reopen", ON_DISK.values(), ids=ON_DISK.keys())


class Writer:
    """Submits to a state and keeps what became of each batch, in the order of being told."""

    def __init__(self, state: ClientState) -> None:
        self.state = state
        self.told: list[tuple[int, StateFailed | None]] = []
        self._submitted = 0
        self._change = asyncio.Event()

    def submit(self, memos: Sequence[Memo]) -> None:
        number, self._submitted = self._submitted, self._submitted + 1

        def stored(error: StateFailed | None) -> None:
            asyncio.get_running_loop()  # raises where there is none
            self.told.append((number, error))
            self._change.set()

        self.state.submit(memos, stored)

    async def outcomes(self) -> list[bool]:
        """Wait for all that was submitted; say of each batch, in order of submission, whether it was stored."""
        async with asyncio.timeout(10):
            while len(self.told) < self._submitted:
                self._change.clear()
                await self._change.wait()
        return [error is None for _, error in sorted(self.told, key=lambda one: one[0])]

    async def write(self, memos: Sequence[Memo]) -> bool:
        self.submit(memos)
        return (await self.outcomes())[-1]


def fold(batches: Iterable[Sequence[Memo]]) -> Memory:
    memory = Memory()
    for batch in batches:
        for memo in batch:
            memory.apply(memo)
    return memory


STORY: list[list[Memo]] = [
    [Named(b"c" * 16, b"s" * 32, b"k" * 32)],
    [Entered("部屋", b"l" * 16, 7, 3)],
    [Posted("部屋", 4, 0, "はい".encode()), Posted("部屋", 5, 0, b"")],
    [Sent("部屋", 5), Settled("部屋", 4), Read("部屋", 8)],
    [Entered("b", b"m" * 16, 0, 0), Left("b"), Named(b"c" * 16, b"t" * 32, b"k" * 32)],
]


@every_state
async def test_what_was_stored_is_loaded(make: MakeState) -> None:
    writer = Writer(make())
    for number, memos in enumerate(STORY, 1):
        assert await writer.write(memos)
        assert writer.state.load() == fold(STORY[:number])
    assert writer.state.load() == Memory(
        Named(b"c" * 16, b"t" * 32, b"k" * 32),
        {"部屋": RoomMemory(b"l" * 16, 8, 5, 5, {5: Posted("部屋", 5, 0, b"")})},
    )


@every_state
async def test_messages_get_other_ids_all_at_once(make: MakeState) -> None:
    writer = Writer(make())
    said: list[Memo] = [Posted("room", number, 0, b"%d" % number) for number in range(1, 6)]
    assert await writer.write([*said, Posted("other", 4, 0, b"there"), Renumbered("room", 3, 5, 2)])
    rooms = writer.state.load().rooms
    assert {one.message_id: one.body for one in rooms["room"].posted.values()} == {
        1: b"1",
        2: b"2",
        5: b"3",
        6: b"4",
        7: b"5",
    }
    assert (rooms["room"].mark, rooms["other"].mark, list(rooms["other"].posted)) == (7, 4, [4])


@every_state
async def test_a_new_state_remembers_nothing(make: MakeState) -> None:
    assert make().load() == Memory()


@every_state
async def test_what_is_loaded_is_the_callers_own(make: MakeState) -> None:
    writer = Writer(make())
    await writer.write(STORY[1])
    writer.state.load().apply(Left("部屋"))
    assert writer.state.load() == fold(STORY[1:2])


@every_state
async def test_stored_is_called_once_on_the_loop_and_in_the_order_of_submission(make: MakeState) -> None:
    writer, thread = Writer(make()), threading.get_ident()
    threads: list[int] = []
    writer.state.submit(STORY[0], lambda _: threads.append(threading.get_ident()))
    for memos in (*STORY, []):
        writer.submit(memos)
    assert all(await writer.outcomes())
    writer.state.close()
    assert [number for number, _ in writer.told] == [0, 1, 2, 3, 4, 5]
    assert threads == [thread]


@every_state
async def test_closing_finishes_what_was_submitted_and_takes_no_more(make: MakeState) -> None:
    writer = Writer(make())
    for memos in STORY:
        writer.submit(memos)
    writer.state.close()
    writer.state.close()
    writer.submit(STORY[0])
    assert [error is None for _, error in writer.told] == [True] * 5 + [False]
    with pytest.raises(StateFailed, match="closed"):
        writer.state.load()


# --- on a disk ----------------------------------------------------------------------------------------


@every_disk
async def test_a_batch_with_what_cannot_be_stored_is_not_stored_at_all(reopen: Reopen) -> None:
    writer = Writer(reopen(new_path("state.db")))
    assert not await writer.write([Read("a", 1), Read("b", 2**63)])
    assert not await writer.write([Read("a", 1), Read("\ud800", 1)])
    assert writer.state.load() == Memory()
    assert await writer.write([Read("a", 1)])


@every_disk
async def test_a_second_process_is_told_that_the_state_is_in_use(reopen: Reopen) -> None:
    path = new_path("state.db")
    first = reopen(path)
    with pytest.raises(StateLocked, match="another process is using it"):
        reopen(path)
    first.close()
    reopen(path)


@every_disk
async def test_nobody_else_may_read_it(reopen: Reopen) -> None:
    path = new_path("state.db").parent / "deep" / "down" / "state.db"
    writer = Writer(reopen(path))
    await writer.write(STORY[0])
    files = list(path.parent.iterdir())
    assert {file.suffix for file in files} >= {".db", ".lock", ".db-wal"}
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert path.parent.stat().st_mode & 0o777 == path.parents[1].stat().st_mode & 0o777 == 0o700


@every_disk
async def test_no_error_and_no_repr_shows_a_secret(reopen: Reopen) -> None:
    path, secret = new_path("state.db"), b"5ec2e7c0ffee"
    writer = Writer(reopen(path))
    assert not await writer.write([Named(b"c" * 16, secret, b"k" * 32), Read("b", 2**63)])
    assert await writer.write([Named(b"c" * 16, secret, b"k" * 32)])
    shown = f"{writer.told} {writer.state.load()} {writer.state!r}"
    assert secret.decode() not in shown


@every_disk
async def test_what_is_left_and_replaced_is_not_in_the_file_any_more(reopen: Reopen) -> None:
    path = new_path("state.db")
    writer = Writer(reopen(path))
    await writer.write([Named(b"c" * 16, b"a former secret", b"k" * 32), Posted("room", 1, 0, b"a former word")])
    await writer.write([Named(b"c" * 16, b"newest", b"k" * 32), Settled("room", 1), Left("room")])
    writer.state.close()
    assert [part for part in (b"former secret", b"former word") if part in path.read_bytes()] == []


rooms = st.sampled_from(["a", "b", "\0", "部屋"])
ids = st.integers(0, 9)
memos = st.one_of(
    st.builds(Named, *[st.binary(min_size=1, max_size=3)] * 3),
    st.builds(Entered, rooms, st.sampled_from([b"1", b"2", b""]), ids, ids),
    st.builds(Posted, rooms, ids, st.integers(0, 255), st.binary(max_size=3)),
    st.builds(Renumbered, rooms, ids, ids, ids),
    st.builds(Sent, rooms, ids),
    st.builds(Settled, rooms, ids),
    st.builds(Read, rooms, ids),
    st.builds(Left, rooms),
)


@every_disk
@settings(max_examples=40)
@given(st.lists(st.lists(memos, max_size=6), max_size=12))
def test_what_is_loaded_is_the_fold_of_all_memos(reopen: Reopen, batches: list[list[Memo]]) -> None:
    path = new_path("state.db")

    async def story() -> None:
        writer = Writer(reopen(path))
        for batch in batches:
            writer.submit(batch)
        assert all(await writer.outcomes())
        writer.state.close()
        again = reopen(path)
        assert again.load() == fold(batches)
        again.close()

    asyncio.run(story())
