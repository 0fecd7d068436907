"""What a client remembers: the fold of its memos, and of no secret any trace in a text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ocm.protocol.memory import Entered, Left, Memo, Memory, Named, Posted, Read, RoomMemory, Sent, Settled

NAMED = Named(b"c" * 16, b"a resume secret", b"k" * 32)
LOG, OTHER = b"l" * 16, b"m" * 16

rooms = st.sampled_from(["a", "b"])
ids = st.integers(0, 9)
memos = st.one_of(
    st.builds(Entered, rooms, st.sampled_from([LOG, OTHER]), ids, ids),
    st.builds(Posted, rooms, ids, st.just(0), st.binary(max_size=2)),
    st.builds(Sent, rooms, ids),
    st.builds(Settled, rooms, ids),
    st.builds(Read, rooms, ids),
    st.builds(Left, rooms),
    st.just(NAMED),
)


def fold(*several: Memo) -> Memory:
    memory = Memory()
    for memo in several:
        memory.apply(memo)
    return memory


def test_a_membership_is_remembered_until_it_ends() -> None:
    story: list[Memo] = [
        NAMED,
        Entered("room", LOG, 7, 3),
        Posted("room", 4, 0, b"yes"),
        Posted("room", 5, 0, b"no"),
        Sent("room", 68),
        Read("room", 9),
        Settled("room", 4),
    ]
    memory = fold(*story)
    assert memory == Memory(NAMED, {"room": RoomMemory(LOG, 9, 5, 68, {5: Posted("room", 5, 0, b"no")})})
    memory.apply(Left("room"))
    memory.apply(Left("room"))
    assert memory == Memory(NAMED)


def test_where_a_log_was_read_to_counts_for_that_log_only() -> None:
    assert fold(Entered("room", LOG, 7, 3), Read("room", 20), Entered("room", OTHER, 2, 1)).rooms == {
        "room": RoomMemory(OTHER, 2, 3)
    }


def test_a_log_that_lost_its_newest_entries_is_read_on_from_where_it_ends() -> None:
    """Else the entries that come anew up to there would be taken for read ones after a crash."""
    assert fold(Entered("room", LOG, 50, 0), Entered("room", LOG, 40, 0), Read("room", 41)).rooms["room"].last == 41


def test_what_is_behind_is_not_moved_back() -> None:
    memory = fold(Entered("room", LOG, 7, 30), Sent("room", 90), Read("room", 20))
    for memo in (Read("room", 8), Sent("room", 70), Posted("room", 29, 0, b"of a life before"), Settled("room", 99)):
        memory.apply(memo)
    assert memory.rooms == {"room": RoomMemory(LOG, 20, 30, 90)}


@given(st.lists(memos, max_size=20))
def test_a_copy_is_a_copy(several: list[Memo]) -> None:
    memory = fold(*several[:10])
    copy = memory.copy()
    assert copy == memory
    for memo in several[10:]:
        memory.apply(memo)
    assert copy == fold(*several[:10])


@given(st.lists(memos, max_size=20))
def test_ids_of_posts_rise_and_lie_below_the_mark(several: list[Memo]) -> None:
    for room in fold(*several).rooms.values():
        assert list(room.posted) == sorted(room.posted)
        assert all(message_id <= room.mark for message_id in room.posted)


@given(st.lists(memos, max_size=20))
def test_what_was_left_is_gone_whatever_was_before(several: list[Memo]) -> None:
    assert "a" not in fold(*several, Left("a")).rooms


def test_neither_secrets_nor_words_show() -> None:
    memory = fold(NAMED, Posted("room", 1, 0, b"my very words"))
    for shown in (repr(memory), str(memory), repr(NAMED), f"{NAMED}"):
        assert "secret" not in shown
        assert "words" not in shown
