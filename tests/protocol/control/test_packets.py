"""Packets come out of a stream however it is cut, and a promise is refused before it is kept."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocm.errors import LimitExceeded, RemoteProtocolError
from ocm.protocol.control.packets import ACCEPTED, CLASSIC_OPERATIONS, PacketReader, Violation
from ocm.protocol.wire.classic import HEADER_SIZE, ControlPacket, Header, Operation
from ocm.protocol.wire.size import Spelling

byte = st.integers(0, 255)
packets = st.builds(
    ControlPacket,
    byte,
    byte,
    st.binary(max_size=20),
    st.binary(min_size=1, max_size=40),
    st.sampled_from(Spelling),
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def read_all(reader: PacketReader, chunks: list[bytes]) -> list[ControlPacket]:
    found: list[ControlPacket] = []
    for chunk in chunks:
        reader.feed(chunk)
        while (packet := reader.next_packet()) is not None:
            found.append(packet)
    return found


@given(sent=st.lists(packets, max_size=4), data=st.data())
def test_a_stream_gives_the_same_packets_however_it_is_cut(sent: list[ControlPacket], data: st.DataObject) -> None:
    stream = b"".join(packet.encode() for packet in sent)
    reader = PacketReader(40)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8))
    assert read_all(reader, pieces(stream, cuts)) == sent
    assert reader.waiting == 0
    assert not reader.has_header


@given(packet=packets, data=st.data())
def test_a_packet_that_is_cut_off_waits(packet: ControlPacket, data: st.DataObject) -> None:
    stream = packet.encode()
    size = data.draw(st.integers(0, len(stream) - 1))
    reader = PacketReader(40)
    reader.feed(stream[:size])
    assert reader.next_packet() is None
    assert reader.waiting == size
    assert reader.has_header == (size >= HEADER_SIZE)


@given(st.lists(st.binary(max_size=64), max_size=6))
def test_any_stream_is_packets_or_refused(chunks: list[bytes]) -> None:
    reader = PacketReader(64)
    try:
        found = read_all(reader, chunks)
    except RemoteProtocolError:
        return
    written = b"".join(packet.encode() for packet in found)
    assert b"".join(chunks)[: len(written)] == written
    assert reader.waiting == len(b"".join(chunks)) - len(written)


@pytest.mark.parametrize("size", [4097, 2**31, 2**232 - 1])
@pytest.mark.parametrize("behind", [b"", b"room1alice"])
def test_a_promise_over_the_limit_is_refused_on_the_header(size: int, behind: bytes) -> None:
    reader = PacketReader(4096)
    reader.feed(Header(5, 1, 0, size).encode()[:31])
    assert reader.next_packet() is None
    reader.feed(Header(5, 1, 0, size).encode()[31:] + behind)
    with pytest.raises(LimitExceeded) as refused:
        reader.next_packet()
    assert (refused.value.what, refused.value.asked, refused.value.limit) == ("payload_size", size, 4096)


def test_a_promise_at_the_limit_is_taken() -> None:
    packet = ControlPacket(1, 0, b"r" * 255, bytes(4096))
    assert read_all(PacketReader(4096), [packet.encode()]) == [packet]


def test_the_words_both_sides_share() -> None:
    assert ACCEPTED == 200
    assert frozenset({Operation.CREATE, Operation.JOIN}) == CLASSIC_OPERATIONS
    error = RemoteProtocolError("why")
    assert Violation(error).error is error
