"""Headers, control packets and datagrams: what we build we read back, and any bytes have one meaning or none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocm.errors import LocalProtocolError, RemoteProtocolError
from ocm.protocol.control.packets import PacketReader
from ocm.protocol.limits import DATAGRAM_SIZE_MAX
from ocm.protocol.wire.classic import (
    FIELD_SIZE_MAX,
    HEADER_SIZE,
    ControlPacket,
    Datagram,
    Header,
    Operation,
    Stage,
)
from ocm.protocol.wire.size import Spelling, write_size

byte = st.integers(0, 255)
headers = st.builds(Header, byte, byte, byte, st.integers(0, 2**32 - 1))
# 63 code points of 4 bytes still fit the size byte
datagrams = st.builds(Datagram, room=st.text(max_size=63), token=st.binary(max_size=255), text=st.binary(max_size=1024))


@given(headers)
def test_a_header_that_we_build_we_read_back(header: Header) -> None:
    data = header.encode()
    assert len(data) == HEADER_SIZE
    assert Header.decode(data) == header


@given(st.one_of(st.binary(min_size=32, max_size=32), st.binary(max_size=40)))
def test_any_bytes_are_a_header_with_one_spelling_or_refused(data: bytes) -> None:
    try:
        header = Header.decode(data)
    except RemoteProtocolError:
        assert len(data) != HEADER_SIZE
    else:
        assert header.encode() == data


@given(header=headers, spelling=st.sampled_from([s for s in Spelling if s is not Spelling.LITTLE_ENDIAN]))
def test_a_header_means_the_same_in_every_spelling(header: Header, spelling: Spelling) -> None:
    front = header.encode()[:3]
    spelled = Header.decode(front + write_size(header.payload_size, spelling))
    assert (spelled.room_size, spelled.operation, spelled.stage) == (header.room_size, header.operation, header.stage)
    assert (spelled.payload_size, spelled.spelling) == (header.payload_size, spelling)
    assert spelled.encode() == front + write_size(header.payload_size, spelling)


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("value", [-1, 256, 2**232])
def test_a_header_field_that_does_not_fit_is_our_mistake(place: int, value: int) -> None:
    fields = [1, 1, 1, 1]
    fields[place] = value if place < 3 or value != 256 else 2**232
    room_size, operation, stage, payload_size = fields
    with pytest.raises(LocalProtocolError):
        Header(room_size, operation, stage, payload_size).encode()


@given(
    operation=byte,
    stage=byte,
    room=st.binary(max_size=255),
    payload=st.binary(max_size=300),
    spelling=st.sampled_from(Spelling),
)
def test_a_packet_that_we_build_we_read_back_spelled_as_it_was(
    operation: int, stage: int, room: bytes, payload: bytes, spelling: Spelling
) -> None:
    if spelling is Spelling.LITTLE_ENDIAN and (not payload or len(payload) in range(48, 58)):
        payload = b"x"
    packet = ControlPacket(operation, stage, room, payload, spelling)
    data = packet.encode()
    assert len(data) == HEADER_SIZE + len(room) + len(payload)
    reader = PacketReader(300)
    reader.feed(data)
    assert reader.next_packet() == packet
    assert reader.waiting == 0


def test_a_packet_with_a_room_of_256_bytes_is_our_mistake() -> None:
    assert len(ControlPacket(1, 0, bytes(FIELD_SIZE_MAX)).encode()) == HEADER_SIZE + 255
    with pytest.raises(LocalProtocolError, match="header"):
        ControlPacket(1, 0, bytes(FIELD_SIZE_MAX + 1)).encode()


@given(datagrams)
def test_a_datagram_that_we_build_we_read_back(datagram: Datagram) -> None:
    assert Datagram.decode(datagram.encode()) == datagram


@given(st.one_of(st.binary(max_size=300), datagrams.map(Datagram.encode)), st.binary(max_size=3))
def test_any_bytes_are_a_datagram_with_one_spelling_or_refused(data: bytes, more: bytes) -> None:
    try:
        datagram = Datagram.decode(data + more)
    except RemoteProtocolError:
        return
    assert datagram.encode() == data + more


@given(datagrams, st.data())
def test_a_datagram_cut_inside_room_or_token_is_refused(datagram: Datagram, data: st.DataObject) -> None:
    whole = datagram.encode()
    size = data.draw(st.integers(0, len(whole) - len(datagram.text) - 1))
    with pytest.raises(RemoteProtocolError):
        Datagram.decode(whole[:size])


def test_the_largest_datagram_has_4096_bytes() -> None:
    largest = Datagram("r", b"t", bytes(DATAGRAM_SIZE_MAX - 4))
    assert Datagram.decode(largest.encode()) == largest
    with pytest.raises(RemoteProtocolError, match="4097 bytes"):
        Datagram.decode(largest.encode() + b"!")
    with pytest.raises(LocalProtocolError, match="4097 bytes"):
        Datagram("r", b"t", largest.text + b"!").encode()


@pytest.mark.parametrize(
    "datagram",
    [
        Datagram("r" * 256, b"", b""),
        Datagram("あ" * 86, b"", b""),
        Datagram("", bytes(256), b""),
        Datagram("\ud800", b"", b""),
    ],
    ids=["long room", "long Japanese room", "long token", "surrogate"],
)
def test_a_datagram_that_does_not_fit_is_our_mistake(datagram: Datagram) -> None:
    with pytest.raises(LocalProtocolError):
        datagram.encode()


@pytest.mark.parametrize("room", [b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\xe3\x81"])
def test_a_room_that_is_not_utf_8_is_refused(room: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="not UTF-8"):
        Datagram.decode(bytes([len(room), 0]) + room)


def test_the_numbers_are_those_of_the_assignment() -> None:
    assert [Operation.CREATE, Operation.JOIN] == [1, 2]
    assert list(Stage) == [0, 1, 2]
