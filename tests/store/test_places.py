"""Where clients keep their state: in the right folder, under a name that says nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocm.store.places import state_path

HOME = Path("/home/aiko")
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)


def place(fingerprint: str = "ab" * 32, room: str = "lobby", user: str = "aiko", *, xdg: str | None = None) -> Path:
    environment = {} if xdg is None else {"XDG_STATE_HOME": xdg}
    return state_path(fingerprint, room, user, environment=environment, home=HOME)


@pytest.mark.parametrize(
    ("xdg", "folder"),
    [
        (None, "/home/aiko/.local/state/ocm"),
        ("", "/home/aiko/.local/state/ocm"),
        ("relative/path", "/home/aiko/.local/state/ocm"),
        ("/var/state", "/var/state/ocm"),
    ],
)
def test_the_folder_is_the_one_of_the_system(xdg: str | None, folder: str) -> None:
    assert place(xdg=xdg).parent == Path(folder)


def test_the_environment_of_the_process_will_do() -> None:
    assert state_path("ab", "lobby", "aiko", environment=os.environ, home=HOME).parent.name == "ocm"


@given(names, names)
def test_names_lead_nowhere_and_are_not_shown(room: str, user: str) -> None:
    path = place(room=f"../{room}", user=f"/{user}")
    assert path.parent == place().parent
    assert path.suffix == ".db"
    assert set(path.stem) <= set("0123456789abcdef")
    assert len(path.stem) == 64


@given(st.tuples(names, names, names), st.tuples(names, names, names))
def test_each_three_have_a_file_of_their_own(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    same = (one[0].lower(), *one[1:]) == (other[0].lower(), *other[1:])
    assert (place(*one) == place(*other)) is same


def test_what_runs_into_each_other_does_not_meet() -> None:
    assert place(room="ab", user="c") != place(room="a", user="bc")


def test_the_name_stays_the_same_for_ever() -> None:
    assert place().name == "aa23a5cdf024e89eb1d65c0eab20082dafbe3090da54dac63f61f20c637c2e7d.db"
