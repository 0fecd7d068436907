"""What the server says can be read back, whatever its members are called."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocm.protocol.entry import Entry, Kind, Reason
from ocm.protocol.link.notices import (
    Announcement,
    MemberJoined,
    MemberLeft,
    Notice,
    Removed,
    RoomClosed,
    Slowed,
    farewell_of,
    notice_of,
    read_notice,
    slowed_notice,
)

HOSTILE = [
    "room closed:",
    "you were removed:",
    "room closed: the host has gone",
    "you were removed: silent too long",
    "x left",
    "x left:",
    "x joined",
    "bob left: silent too long",
    "bob left: silent too long left",
    "you send too fast: 3 messages were dropped",
    "* room closed, the host has gone",
    "left",
    "joined",
    "",
]
names = st.one_of(st.sampled_from(HOSTILE), st.text(), st.lists(st.sampled_from(HOSTILE), max_size=3).map(" ".join))
removals = st.sampled_from([reason for reason in Reason if reason is not Reason.BYE])


def entry_of(kind: Kind, name: str, body: str = "") -> Entry:
    return Entry(1, 1, name, kind, body.encode(), 0)


def read(sentence: str | None) -> Notice:
    assert sentence is not None
    return read_notice(sentence)


@given(names)
def test_a_join_is_read_back(name: str) -> None:
    assert read(notice_of(entry_of(Kind.JOIN, name))) == MemberJoined(name)


@given(names, st.sampled_from(Reason))
def test_a_leave_is_read_back_with_its_reason(name: str, reason: Reason) -> None:
    assert read(notice_of(entry_of(Kind.LEAVE, name, reason))) == MemberLeft(name, reason)


@given(removals)
def test_the_end_of_a_room_is_read_back(reason: Reason) -> None:
    assert read(notice_of(entry_of(Kind.CLOSED, "", reason))) == RoomClosed(reason)


@given(names, removals)
def test_a_removal_is_read_back_by_its_member(name: str, reason: Reason) -> None:
    assert read(farewell_of(entry_of(Kind.LEAVE, name, reason))) == Removed(reason)


@given(st.integers(0, 10**9 - 1))
def test_a_count_of_dropped_messages_is_read_back(dropped: int) -> None:
    assert read(slowed_notice(dropped)) == Slowed(dropped)


@given(names)
def test_who_leaves_by_its_own_words_needs_no_farewell(name: str) -> None:
    assert farewell_of(entry_of(Kind.LEAVE, name, Reason.BYE)) is None


@given(names, st.text())
def test_what_members_say_is_no_notice(name: str, text: str) -> None:
    assert notice_of(entry_of(Kind.TEXT, name, text)) is None


@given(st.one_of(st.text(), names))
def test_any_text_has_a_meaning(text: str) -> None:
    assert isinstance(read_notice(text), Notice)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("the server will restart at noon", Announcement("the server will restart at noon")),
        ("", Announcement("")),
        ("room closed", Announcement("room closed")),
        ("room closed: for ever", Announcement("room closed: for ever")),
        ("room closed: left", MemberLeft("room closed:", Reason.BYE)),
        ("you were removed: left", MemberLeft("you were removed:", Reason.BYE)),
        (slowed_notice(10**9), Announcement(slowed_notice(10**9))),
        (slowed_notice(3) + "\n", Announcement(slowed_notice(3) + "\n")),
    ],
)
def test_a_sentence_has_one_meaning(text: str, meaning: Notice) -> None:
    assert read_notice(text) == meaning


def test_the_sentences_are_these() -> None:
    assert notice_of(entry_of(Kind.JOIN, "bob")) == "bob joined"
    assert notice_of(entry_of(Kind.LEAVE, "bob", Reason.BYE)) == "bob left"
    assert notice_of(entry_of(Kind.LEAVE, "bob", Reason.IDLE)) == "bob left: silent too long"
    assert notice_of(entry_of(Kind.CLOSED, "", Reason.HOST_LEFT)) == "room closed: the host has gone"
    assert farewell_of(entry_of(Kind.LEAVE, "bob", Reason.KICKED)) == "you were removed: removed by the server"
    assert slowed_notice(3) == "you send too fast: 3 messages were dropped"
