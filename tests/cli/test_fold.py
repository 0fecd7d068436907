"""Lines are broken between words, and nothing of them is lost."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocm.cli.fold import fold, width

texts = st.text(st.sampled_from("ab é語👩\u0301\u200d "), max_size=200)


@given(texts, st.integers(0, 100))
def test_spaces_become_line_feeds_and_nothing_else_changes(text: str, columns: int) -> None:
    folded = fold(text, columns)
    assert folded.replace("\n", "").replace(" ", "") == text.replace(" ", "")
    assert re.sub(" +", " ", folded.replace("\n", " ")).strip() == re.sub(" +", " ", text).strip()


@given(texts, st.integers(20, 100))
def test_a_line_is_too_long_only_for_a_word_that_is(text: str, columns: int) -> None:
    for line in [] if text.startswith(" ") else fold(text, columns).split("\n"):
        assert width(line) <= columns or max(map(width, line.split(" "))) > columns - 2


@given(texts, st.integers(20, 100))
def test_what_fits_or_is_to_be_typed_stays_as_it_is(text: str, columns: int) -> None:
    assert fold(f" {text}", columns) == f" {text}"
    if width(text) <= columns:
        assert fold(text, columns) == text


@given(texts, st.integers(20, 100))
def test_what_goes_on_never_begins_as_a_line_does(text: str, columns: int) -> None:
    assert all(line.startswith("  ") for line in fold(text, columns).split("\n")[1:])


def test_a_sentence_is_broken_where_one_would_break_it() -> None:
    assert fold("* The server is not known here yet, and no authority vouches for it.", 40) == (
        "* The server is not known here yet, and\n  no authority vouches for it."
    )
    address = "tcrps://localhost:12345#fp=" + "0" * 64
    assert fold(f"Go to {address} and say so", 40) == f"Go to {address} and say so"


@pytest.mark.parametrize(("text", "columns"), [("ascii", 5), ("日本語", 6), ("e\u0301", 1), ("ｱ", 1), ("Ａ", 2)])
def test_columns_are_counted_as_terminals_do(text: str, columns: int) -> None:
    assert width(text) == columns
