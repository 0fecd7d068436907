"""The replay window against a set that remembers everything."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ocm.protocol.session.window import WINDOW, ReplayWindow

near = st.integers(0, 40)
places = near | st.integers(WINDOW - 5, WINDOW + 5) | st.integers(0, 2**48 - 1)


@given(st.lists(st.tuples(st.booleans(), places), max_size=60))
def test_a_number_is_admitted_once_and_not_when_it_is_too_old(steps: list[tuple[bool, int]]) -> None:
    window = ReplayWindow()
    opened: set[int] = set()
    for below, place in steps:
        largest = max(opened, default=-1)
        number = max(0, largest - place) if below else largest + place
        number = max(0, min(number, 2**48 - 1))
        new = number not in opened and number > largest - WINDOW
        assert window.admits(number) is new
        if new:
            window.mark(number)
            opened.add(number)
        assert window.largest == max(opened, default=-1)
        assert not any(window.admits(one) for one in opened)


def test_looking_changes_nothing() -> None:
    window = ReplayWindow()
    assert window.admits(2**48 - 1)
    assert window.admits(0)
    assert window.largest == -1
