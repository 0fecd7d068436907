"""What a typed line means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocm.cli.typed import Command, Kick, Say, Typed, Unknown, read_typed


@pytest.mark.parametrize(
    ("line", "typed"),
    [
        ("hello", Say("hello")),
        (" /who", Say(" /who")),
        ("/who", Command.WHO),
        ("/who  ", Command.WHO),
        ("/help", Command.HELP),
        ("/leave", Command.LEAVE),
        ("/quit", Command.LEAVE),
        ("/status", Command.STATUS),
        ("/close ", Command.CLOSE),
        ("/close it", Unknown("/close")),
        ("/kick bob", Kick("bob")),
        ("/kick  two words ", Kick("two words")),
        ("/kick", Unknown("/kick")),
        ("/who is there", Unknown("/who")),
        ("/etc/passwd", Unknown("/etc/passwd")),
        ("/", Unknown("/")),
        ("//leave", Say("/leave")),
        ("//", Say("/")),
        ("", None),
        (" \t ", None),
    ],
)
def test_a_slash_asks_and_two_slashes_say_one(line: str, typed: Typed | None) -> None:
    assert read_typed(line) == typed


@given(st.text())
def test_any_line_has_a_meaning_and_any_text_can_be_said(line: str) -> None:
    read_typed(line)
    if line.strip():
        assert read_typed(f"/{line}" if line.startswith("/") else line) == Say(line)
