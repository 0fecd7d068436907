"""The header of a sealed datagram."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocm.errors import LocalProtocolError
from ocm.protocol.wire.classic import read_datagram
from ocm.protocol.wire.sealed import PACKET_NUMBER_MAX, SealedDatagram, read_sealed, write_header

connection_ids = st.binary(min_size=8, max_size=8)
packet_numbers = st.integers(0, PACKET_NUMBER_MAX)


def test_golden_bytes() -> None:
    header = write_header(b"connect!", 258)
    assert header == b"\x00\x0econnect!\x00\x00\x00\x00\x01\x02"
    assert read_sealed(header + bytes(17)) == SealedDatagram(b"connect!", 258, header, bytes(17))


@given(connection_ids, packet_numbers, st.binary(min_size=17, max_size=1484))
def test_a_datagram_comes_back_as_it_went(connection_id: bytes, number: int, sealed: bytes) -> None:
    header = write_header(connection_id, number)
    assert read_sealed(header + sealed) == (connection_id, number, header, sealed)


@given(st.binary(max_size=40) | st.binary(max_size=40).map(lambda rest: b"\x00\x0e" + rest))
def test_any_bytes_are_none_or_have_one_spelling(data: bytes) -> None:
    parts = read_sealed(data)
    if parts is None:
        assert len(data) <= 32 or not data.startswith(b"\x00\x0e")
    else:
        assert write_header(parts.connection_id, parts.packet_number) + parts.sealed == data


@given(connection_ids, packet_numbers, st.binary(min_size=17, max_size=100))
def test_a_classic_reader_sees_an_empty_room_and_a_token(connection_id: bytes, number: int, sealed: bytes) -> None:
    data = write_header(connection_id, number) + sealed
    assert read_datagram(data) == (b"", data[2:16], sealed)


@pytest.mark.parametrize("size", [0, 1, 2, 15, 16, 17, 32, 1501])
def test_sizes_that_cannot_be_are_none(size: int) -> None:
    assert read_sealed((b"\x00\x0e" + bytes(1500))[:size]) is None


@pytest.mark.parametrize(("connection_id", "number"), [(b"short", 0), (bytes(8), -1), (bytes(8), 2**48)])
def test_what_does_not_fit_is_our_own_fault(connection_id: bytes, number: int) -> None:
    with pytest.raises(LocalProtocolError):
        write_header(connection_id, number)
