"""A derived codec and the construct of its layout accept, refuse and write the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ocm.errors import LocalProtocolError, RemoteProtocolError
from ocm.protocol.wire.classic import (
    DATAGRAM,
    HEADER,
    read_datagram,
    read_header,
    write_datagram,
    write_header,
)
from ocm.protocol.wire.derive import Reader, Writer, derive_reader, derive_scanner, derive_writer
from ocm.protocol.wire.layout import Field, Fixed, Layout, Rest, Sized, SizeOf, UInt, Value

# Names that derived code might use for itself, and some that it does not.
NAMES = ["size", "data", "len", "int", "end", "class", "Refused", "room", "end_room", "value_room", "value_size"]
MORE_NAMES = ["read", "write", "bytes", "raw", "room_size", "token", "text", "b"]


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    """A few fields, counted from anywhere before, once or twice, by a number of ours or by none."""
    names: Iterator[str] = iter(draw(st.permutations(NAMES + MORE_NAMES)))
    parts: list[Field] = []
    kinds = st.sampled_from(["uint", "fixed", "sized", "sized twice", "sized by a value"])
    for kind in draw(st.lists(kinds, max_size=4)):
        if kind == "uint":
            parts.append(UInt(next(names), draw(st.integers(1, 8))))
        elif kind == "fixed":
            parts.append(Fixed(next(names), draw(st.integers(0, 5))))
        else:
            number, counted = next(names), next(names)
            size = draw(st.integers(1, 8))
            counter = UInt(number, size) if kind == "sized by a value" else SizeOf(number, counted, size)
            parts.insert(draw(st.integers(0, len(parts))), counter)
            parts.append(Sized(counted, by=number))
            if kind == "sized twice":
                parts.append(Sized(next(names), by=number))
    if not parts or draw(st.booleans()):
        parts.append(Rest(next(names)))
    return Layout("Thing", *parts)


@st.composite
def values_of(draw: st.DrawFn, layout: Layout) -> list[Value]:
    """Values that mostly fit, sometimes by one too large, too small, too long or too short."""
    counters = {part.name for part in layout.fields if isinstance(part, Sized | SizeOf)}
    counters |= {part.by for part in layout.fields if isinstance(part, Sized)}
    lengths: dict[str, int] = {}
    values: list[Value] = []
    for part in layout.fields:
        match part:
            case UInt(name, size):
                number = draw(
                    st.integers(0, 5)
                    if name in counters
                    else st.one_of(st.integers(0, 256**size - 1), st.sampled_from([-1, 256**size]))
                )
                lengths[name] = number
                values.append(number)
            case Fixed(_, size):
                values.append(bytes(draw(st.one_of(st.just(size), st.sampled_from([size + 1, max(0, size - 1)])))))
            case Sized(_, by):
                length = lengths.setdefault(by, draw(st.one_of(st.integers(0, 5), st.sampled_from([255, 256]))))
                values.append(b"x" * draw(st.one_of(st.just(length), st.integers(0, 5))))
            case Rest():
                values.append(draw(st.binary(max_size=5)))
            case SizeOf():
                pass
    return values


@st.composite
def bytes_of(draw: st.DrawFn, layout: Layout) -> bytes:
    """Bytes of the layout, as they are, cut off, followed by others or with some byte changed; or any bytes."""
    try:
        data = layout.build(*draw(values_of(layout)))
    except LocalProtocolError:
        return draw(st.binary(max_size=40))
    match draw(st.sampled_from(["whole", "cut off", "longer", "changed"])):
        case "cut off":
            return data[: draw(st.integers(0, len(data)))]
        case "longer":
            return data + draw(st.binary(min_size=1, max_size=5))
        case "changed" if data:
            place = draw(st.integers(0, len(data) - 1))
            return data[:place] + draw(st.binary(min_size=1, max_size=1)) + data[place + 1 :]
        case _:
            return data


def same_reading(layout: Layout, read: Reader, data: bytes) -> None:
    try:
        slow = layout.parse(data)
    except RemoteProtocolError:
        slow = None
    assert read(data) == slow


def same_writing(layout: Layout, write: Writer, values: list[Value]) -> None:
    try:
        slow = layout.build(*values)
    except LocalProtocolError:
        with pytest.raises(LocalProtocolError, match=f"a field does not fit its place in a {layout.title.lower()}"):
            write(*values)
    else:
        assert write(*values) == slow


@given(layout=layouts(), data=st.data())
def test_a_derived_reader_is_its_construct(layout: Layout, data: st.DataObject) -> None:
    read = derive_reader(layout)
    for _ in range(4):
        same_reading(layout, read, data.draw(bytes_of(layout)))


@given(layout=layouts(), data=st.data(), front=st.binary(max_size=3), behind=st.binary(max_size=3))
def test_a_derived_scanner_takes_what_its_construct_would(
    layout: Layout, data: st.DataObject, front: bytes, behind: bytes
) -> None:
    assume(not isinstance(layout.fields[-1], Rest))
    scan = derive_scanner(layout)
    whole = front + data.draw(bytes_of(layout)) + behind
    scanned = scan(whole, len(front))
    if scanned is None:
        for end in range(len(front), len(whole) + 1):
            with pytest.raises(RemoteProtocolError):
                layout.parse(whole[len(front) : end])
    else:
        *values, end = scanned
        assert layout.parse(whole[len(front) : end]) == tuple(values)


def test_nothing_follows_a_field_that_goes_to_the_end() -> None:
    with pytest.raises(LocalProtocolError, match="nothing can follow"):
        derive_scanner(Layout("Thing", Rest("text")))
    with pytest.raises(LocalProtocolError, match="nothing can follow"):
        Layout("Thing", Rest("text"), UInt("number"))


@given(layout=layouts(), data=st.data())
def test_a_derived_writer_is_its_construct(layout: Layout, data: st.DataObject) -> None:
    write = derive_writer(layout)
    for _ in range(4):
        same_writing(layout, write, data.draw(values_of(layout)))


@given(layout=layouts(), data=st.data())
def test_derived_codecs_read_back_what_they_write(layout: Layout, data: st.DataObject) -> None:
    values = data.draw(values_of(layout))
    try:
        written = derive_writer(layout)(*values)
    except LocalProtocolError:
        assume(False)
    else:
        assert derive_reader(layout)(written) == tuple(values)


CLASSIC = pytest.mark.parametrize(
    ("layout", "read", "write"),
    [(HEADER, read_header, write_header), (DATAGRAM, read_datagram, write_datagram)],
    ids=["header", "datagram"],
)


@CLASSIC
@given(data=st.data())
def test_the_classic_codecs_are_their_constructs(
    layout: Layout, read: Reader, write: Writer, data: st.DataObject
) -> None:
    same_reading(layout, read, data.draw(bytes_of(layout)))
    same_reading(layout, read, data.draw(st.binary(max_size=80)))
    same_writing(layout, write, data.draw(values_of(layout)))


@CLASSIC
@pytest.mark.parametrize("size", range(70))
def test_the_classic_readers_refuse_at_the_same_length(layout: Layout, read: Reader, write: Writer, size: int) -> None:
    for fill in (b"\0", b"\x01", b"\x10", b"\xff"):
        same_reading(layout, read, fill * size)


def test_a_field_of_256_bytes_does_not_fit_a_size_of_one() -> None:
    with pytest.raises(LocalProtocolError, match="datagram"):
        write_datagram(bytes(256), b"", b"")
    with pytest.raises(LocalProtocolError, match="datagram"):
        write_datagram(b"", bytes(256), b"")


@pytest.mark.parametrize("sizes", [(1,), (2,), (3,), (8,), (2, 4), (1, 8), (3, 2)])
def test_integers_behind_a_field_of_open_length_are_looked_for(sizes: tuple[int, ...]) -> None:
    numbers = [UInt(f"number_{place}", size) for place, size in enumerate(sizes)]
    layout = Layout("Thing", SizeOf("size", "body"), Sized("body", "size"), *numbers)
    read = derive_reader(layout)
    values = (b"abc", *range(len(sizes)))
    whole = layout.build(*values)
    assert read(whole) == values
    for end in range(len(whole)):
        assert read(whole[:end]) is None
