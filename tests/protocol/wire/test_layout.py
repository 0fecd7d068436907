"""A layout reads what it writes, and refuses the rest."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocm.errors import LocalProtocolError, RemoteProtocolError
from ocm.protocol.wire import layout
from ocm.protocol.wire.layout import Fixed, Layout, Rest, Sized, SizeOf, UInt, Value

LETTER = Layout(
    "Letter",
    SizeOf("name_size", of="name"),
    UInt("number", 3),
    Fixed("mark", 2),
    Sized("name", by="name_size"),
    Rest("text"),
)


def test_the_example_in_the_module_is_true() -> None:
    assert doctest.testmod(layout).failed == 0


def test_a_layout_knows_its_values_and_its_fields() -> None:
    assert LETTER.names == ("number", "mark", "name", "text")
    assert [part.name for part in LETTER.fields] == ["name_size", "number", "mark", "name", "text"]


def test_a_layout_is_these_bytes() -> None:
    assert LETTER.build(0x010203, b"!?", b"bob", b"hi") == b"\x03\x01\x02\x03!?bobhi"
    assert LETTER.parse(b"\x03\x01\x02\x03!?bobhi") == (0x010203, b"!?", b"bob", b"hi")


@given(
    number=st.integers(0, 2**24 - 1),
    mark=st.binary(min_size=2, max_size=2),
    name=st.binary(max_size=255),
    text=st.binary(),
)
def test_what_a_layout_builds_it_reads_back(number: int, mark: bytes, name: bytes, text: bytes) -> None:
    assert LETTER.parse(LETTER.build(number, mark, name, text)) == (number, mark, name, text)


@given(st.binary(max_size=40))
def test_any_bytes_are_refused_or_have_one_spelling(data: bytes) -> None:
    try:
        values = LETTER.parse(data)
    except RemoteProtocolError:
        return
    assert LETTER.build(*values) == data


@pytest.mark.parametrize("data", [b"", b"\x00\x00\x00\x00!", b"\x04\x00\x00\x00!?bob"])
def test_what_is_cut_off_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="malformed letter"):
        LETTER.parse(data)


def test_what_follows_the_last_field_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="malformed pair"):
        Layout("Pair", UInt("one"), UInt("two")).parse(b"abc")


@pytest.mark.parametrize(
    "values",
    [
        (2**24, b"!?", b"", b""),
        (-1, b"!?", b"", b""),
        (0, b"!", b"", b""),
        (0, b"!?!", b"", b""),
        (0, b"!?", bytes(256), b""),
        (0, b"!?", b""),
        (0, b"!?", b"", b"", b""),
        (0, b"!?", 7, b""),
        (b"000", b"!?", b"", b""),
    ],
)
def test_a_value_that_does_not_fit_is_our_mistake(values: tuple[Value, ...]) -> None:
    with pytest.raises(LocalProtocolError, match="does not fit its place in a letter"):
        LETTER.build(*values)


def test_a_field_may_be_named_end() -> None:
    assert Layout("Span", UInt("start"), UInt("end")).parse(b"\x01\x02") == (1, 2)
