"""The size field means one number in one spelling, whoever wrote it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocm.errors import LocalProtocolError
from ocm.protocol.wire.size import SIZE_FIELD, Spelling, read_size, write_size

DIGITS = b"0123456789 \0"
FILLS = [b"\0", b" ", b"0"]


def filled(head: bytes, fill: bytes, in_front: bool) -> bytes:
    return head[:29].rjust(29, fill) if in_front else head[:29].ljust(29, fill)


fields = st.one_of(
    st.binary(min_size=29, max_size=29),
    st.lists(st.sampled_from(DIGITS), min_size=29, max_size=29).map(bytes),
    st.builds(filled, st.binary(max_size=6), st.sampled_from(FILLS), st.booleans()),
    st.builds(filled, st.integers(0, 10**30).map(str).map(str.encode), st.sampled_from(FILLS), st.booleans()),
)
ANY = st.sampled_from(Spelling)


def is_misread(size: int, spelling: Spelling) -> bool:
    """What a program may not write if it wants to be understood: see the table below."""
    if spelling is Spelling.BIG_ENDIAN:
        return size >= 2**32
    return spelling is Spelling.LITTLE_ENDIAN and (size == 0 or size in range(48, 58))


@given(fields)
def test_any_field_has_one_spelling(raw: bytes) -> None:
    assert write_size(*read_size(raw)) == raw


@given(size=st.one_of(st.integers(0, 70), st.integers(0, 2**32 - 1)), spelling=ANY)
def test_what_is_spelled_is_read_back(size: int, spelling: Spelling) -> None:
    raw = write_size(size, spelling)
    assert len(raw) == SIZE_FIELD
    if not is_misread(size, spelling):
        assert read_size(raw) == (size, spelling)


@given(size=st.integers(0, 10**28 - 1), spelling=st.sampled_from([s for s in Spelling if s.name.startswith("DIGITS")]))
def test_digits_go_further_than_any_limit(size: int, spelling: Spelling) -> None:
    assert read_size(write_size(size, spelling)) == (size, spelling)


@pytest.mark.parametrize(
    ("raw", "size", "spelling"),
    [
        (bytes(29), 0, Spelling.BIG_ENDIAN),
        (bytes(28) + b"\x05", 5, Spelling.BIG_ENDIAN),
        (bytes(25) + b"\xff\xff\xff\xff", 2**32 - 1, Spelling.BIG_ENDIAN),
        (bytes(25) + b"5   ", 0x35202020, Spelling.BIG_ENDIAN),
        (b"\xff" * 29, 2**232 - 1, Spelling.BIG_ENDIAN),
        # digits win over little-endian
        (b"5" + bytes(28), 5, Spelling.DIGITS_NUL),
        (b"0" + bytes(28), 0, Spelling.DIGITS_NUL),
        (b"12" + bytes(27), 12, Spelling.DIGITS_NUL),
        (b"5" + b" " * 28, 5, Spelling.DIGITS_SPACE),
        (b" " * 28 + b"5", 5, Spelling.DIGITS_RIGHT),
        (b"0" * 28 + b"5", 5, Spelling.DIGITS_ZERO),
        (b"0" * 29, 0, Spelling.DIGITS_ZERO),
        (b"1" * 29, int("1" * 29), Spelling.DIGITS_ZERO),
        # digits that are not canonical are not digits
        (b"05" + bytes(27), 0x3530, Spelling.LITTLE_ENDIAN),
        (b"+5" + bytes(27), 0x352B, Spelling.LITTLE_ENDIAN),
        (b"5 " + bytes(27), 0x2035, Spelling.LITTLE_ENDIAN),
        (b"05" + b" " * 27, int.from_bytes(b"05" + b" " * 27, "big"), Spelling.BIG_ENDIAN),
        (b" 5" + b" " * 27, int.from_bytes(b" 5" + b" " * 27, "big"), Spelling.BIG_ENDIAN),
        (b"\0" + b"5" * 27 + b"\0", int.from_bytes(b"\0" + b"5" * 27 + b"\0", "big"), Spelling.BIG_ENDIAN),
        (b" " * 29, int.from_bytes(b" " * 29, "big"), Spelling.BIG_ENDIAN),
        # little-endian, or the first byte alone
        (b"\x05" + bytes(28), 5, Spelling.LITTLE_ENDIAN),
        (b"\x2f" + bytes(28), 47, Spelling.LITTLE_ENDIAN),
        (b"\x3a" + bytes(28), 58, Spelling.LITTLE_ENDIAN),
        (b"\xff\xff\xff\xff" + bytes(25), 2**32 - 1, Spelling.LITTLE_ENDIAN),
        (b"\x01\x01\x01\x01\x01" + bytes(24), 0x0101010101 << 192, Spelling.BIG_ENDIAN),
        # Arabic-Indic digits are not ASCII
        ("٣".encode() + bytes(27), 0xA3D9, Spelling.LITTLE_ENDIAN),
    ],
)
def test_an_ambiguous_field_means_what_the_table_says(raw: bytes, size: int, spelling: Spelling) -> None:
    assert read_size(raw) == (size, spelling)
    assert write_size(size, spelling) == raw


@pytest.mark.parametrize("size", range(48, 58))
def test_a_little_endian_size_that_looks_like_a_digit_is_read_as_one(size: int) -> None:
    assert read_size(write_size(size, Spelling.LITTLE_ENDIAN)) == (size - 48, Spelling.DIGITS_NUL)


@pytest.mark.parametrize(
    ("spelling", "limit"),
    [
        (Spelling.BIG_ENDIAN, 2**232),
        (Spelling.LITTLE_ENDIAN, 2**32),
        (Spelling.DIGITS_NUL, 10**29),
        (Spelling.DIGITS_SPACE, 10**29),
        (Spelling.DIGITS_ZERO, 10**29),
        (Spelling.DIGITS_RIGHT, 10**29),
    ],
)
def test_a_size_that_does_not_fit_its_spelling_is_our_mistake(spelling: Spelling, limit: int) -> None:
    assert len(write_size(limit - 1, spelling)) == SIZE_FIELD
    for size in (-1, limit, 10**5000):
        with pytest.raises(LocalProtocolError):
            write_size(size, spelling)
