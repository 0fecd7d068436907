"""Events as lines: whatever peers write, a line is a line and nothing in it acts on a screen."""

import json
from collections.abc import Mapping
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ocm
from ocm.cli.jsonl import event_values, json_line
from ocm.cli.show import show_event
from ocm.cli.words import LANGUAGES, Words
from tests.cli.hostile import HOSTILE, controls

ENGLISH = Words("en")
KINDS: Mapping[type[ocm.Event], ocm.Event] = {
    type(event): event
    for event in (
        ocm.Message(ocm.Person("aiko"), "hello"),
        ocm.Receipt(1, "hello", ocm.Delivery.SENT),
        ocm.MemberJoined(ocm.Person("aiko")),
        ocm.MemberLeft(ocm.Person("aiko"), ocm.Reason.BYE),
        ocm.RoomClosed(ocm.Reason.HOST_LEFT),
        ocm.Removed(ocm.Reason.IDLE),
        ocm.Gap(1),
        ocm.Slowed(1),
        ocm.Announcement("hello"),
        ocm.ConnectionChanged(ocm.Connection.CONNECTED, 1),
        ocm.PathChanged(ocm.PathState(ocm.PathKind.UDP)),
        ocm.PolicyChanged(ocm.Access.MODERN),
        ocm.LogChanged(rewound=True),
        ocm.StateChanged("full"),
    )
}
anything = st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(codec=None)))
people = st.builds(ocm.Person, st.none() | anything)
reasons = st.sampled_from(list(ocm.Reason))
counts = st.integers(0, 10**6)
events: st.SearchStrategy[ocm.Event] = st.one_of(
    st.builds(ocm.Message, people, anything, st.none() | counts, counts, st.booleans(), st.booleans()),
    st.builds(ocm.Receipt, counts, anything, st.sampled_from(list(ocm.Delivery)), code=st.none() | anything),
    st.builds(ocm.MemberJoined, people),
    st.builds(ocm.MemberLeft, people, reasons),
    st.builds(ocm.RoomClosed, reasons),
    st.builds(ocm.Removed, reasons),
    st.builds(ocm.Gap, counts),
    st.builds(ocm.Slowed, counts),
    st.builds(ocm.Announcement, anything),
    st.builds(ocm.PathChanged, st.builds(ocm.PathState, st.sampled_from(list(ocm.PathKind)))),
    st.builds(ocm.PolicyChanged, st.sampled_from(list(ocm.Access))),
    st.builds(ocm.LogChanged, st.booleans()),
    st.builds(ocm.StateChanged, st.none() | anything),
    st.builds(ocm.ConnectionChanged, st.sampled_from(list(ocm.Connection)), counts),
)


@given(events, st.sampled_from(LANGUAGES))
def test_no_event_brings_a_control_character_or_a_second_line(event: ocm.Event, language: str) -> None:
    line = show_event(event, Words(language))
    if not isinstance(event, ocm.Receipt | ocm.ConnectionChanged):
        assert line
    assert controls(line or "") == []
    (line or "").encode()


@given(events)
def test_json_is_one_line_without_control_characters_and_keeps_the_text(event: ocm.Event) -> None:
    values = event_values(event)
    line = json_line(values)
    assert len(line.splitlines()) == 1
    assert line.isprintable()
    assert json.loads(line) == values


def test_every_event_has_a_name_of_its_own_in_json() -> None:
    assert set(get_args(ocm.Event)) == set(KINDS)
    names = {event_values(event)["event"] for event in KINDS.values()}
    assert len(names) == len(KINDS)
    line = json_line({"event": "message", "text": 'こんにちは\x7f\x9b\u2028"\\'})
    assert line == '{"event": "message", "text": "こんにちは\\u007f\\u009b\\u2028\\"\\\\"}'


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (ocm.Message(ocm.Person("aiko"), "hello"), "aiko: hello"),
        (ocm.Message(ocm.Person(None), "hello"), "somebody: hello"),
        (ocm.Message(ocm.Person("bob"), "one\naiko: two"), "bob: one \u23ce aiko: two"),
        (ocm.Message(ocm.Person("* bob"), "hi"), '"* bob": hi'),
        (ocm.Message(ocm.Person("aiko: hi"), "x"), '"aiko: hi": x'),
        (ocm.Message(ocm.Person("aiko"), "hello", 1, history=True), "~ aiko: hello"),
        (ocm.Message(ocm.Person("aiko"), "hello", 1, plaintext=True), "! aiko: hello"),
        (ocm.Message(ocm.Person("~ aiko"), "hello"), '"~ aiko": hello'),
        (ocm.Message(ocm.Person("! aiko"), "hello"), '"! aiko": hello'),
        (ocm.PathChanged(ocm.PathState(ocm.PathKind.UDP)), "* Messages travel by UDP."),
        (ocm.PolicyChanged(ocm.Access.MODERN), "* The room takes encrypted connections only from now on."),
        (ocm.LogChanged(rewound=False), "* The room was made anew. What was said before is gone."),
        (
            ocm.StateChanged("the disk is full"),
            (
                "* What you type cannot be kept on this machine, so none of it is sent for now: the disk is full. "
                "What others say still comes."
            ),
        ),
        (ocm.StateChanged(None), "* What you type is kept again, and sent."),
        (ocm.MemberJoined(ocm.Person("花子")), "* 花子 has joined."),
        (ocm.MemberLeft(ocm.Person("bob"), ocm.Reason.LOST), "* bob is gone: connection lost."),
        (ocm.RoomClosed(ocm.Reason.HOST_LEFT), "* The room is closed: the host has gone."),
        (ocm.Removed(ocm.Reason.IDLE), "* You are out of the room: silent too long."),
        (ocm.Receipt(1, "hello", ocm.Delivery.SENT), None),
        (ocm.ConnectionChanged(ocm.Connection.RECONNECTING, 0), "* The connection is lost; reconnecting ..."),
        (ocm.ConnectionChanged(ocm.Connection.RECONNECTING, 1), None),
        (ocm.ConnectionChanged(ocm.Connection.CONNECTED, 2), "* Connected again."),
    ],
)
def test_lines_people_read(event: ocm.Event, line: str | None) -> None:
    assert show_event(event, ENGLISH) == line
