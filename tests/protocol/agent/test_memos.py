"""What waits for a store: in order, and no more than there is to remember."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ocm.protocol.agent.memos import Memos
from ocm.protocol.memory import Entered, Left, Memo, Memory, Named, Posted, Read, Renumbered, Sent, Settled

rooms = st.sampled_from(["a", "b"])
ids = st.integers(0, 9)
memos = st.one_of(
    st.builds(Named, *[st.binary(min_size=1, max_size=2)] * 3),
    st.builds(Entered, rooms, st.sampled_from([b"1", b"2"]), ids, ids),
    st.builds(Posted, rooms, ids, st.just(0), st.binary(max_size=2)),
    st.builds(Renumbered, rooms, ids, ids, ids),
    st.builds(Sent, rooms, ids),
    st.builds(Settled, rooms, ids),
    st.builds(Read, rooms, ids),
    st.builds(Left, rooms),
)


def remember(memory: Memory, said: list[Memo]) -> Memory:
    for memo in said:
        memory.apply(memo)
    return memory


@given(st.lists(st.one_of(memos, st.sampled_from(["stored", "failed", "handed out"])), max_size=40))
def test_whatever_fails_and_whenever_what_is_stored_is_what_was_said(story: list[Memo | str]) -> None:
    """Each batch is stored whole or not at all, and what waited meanwhile comes behind it."""
    waiting, stored = Memos(), Memory()
    said: list[Memo] = []
    under_way: list[Memo] = []
    count = 0
    for step in [*story, "failed", "handed out", "stored"]:
        match step:
            case "handed out":
                under_way += waiting.hand_out()
                assert not waiting
            case "stored":
                count += len(under_way)
                assert [memo for memo, _ in waiting.stored(count)] == under_way
                remember(stored, under_way)
                under_way = []
            case "failed":
                under_way = []
                waiting.take_back()
            case str():
                raise AssertionError(step)
            case memo:
                said.append(memo)
                waiting.add(memo, None)
    assert waiting.stored(count) == []
    assert stored == remember(Memory(), said)


def test_what_waits_for_days_is_no_more_than_there_is_to_remember() -> None:
    waiting = Memos()
    for number in range(1000):
        waiting.add(Named(b"c", b"%d" % number, b"k"), None)
        waiting.add(Entered("a", b"1", number, 0), None)
        waiting.add(Sent("a", number), None)
        waiting.add(Read("a", number), None)
        waiting.add(Read("b", number), None)
    assert waiting.hand_out() == [
        Named(b"c", b"999", b"k"),
        Entered("a", b"1", 999, 0),
        Sent("a", 999),
        Read("b", 999),
        Read("a", 999),
    ]
