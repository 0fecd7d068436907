"""Frames of TCRP/2: round trips both ways, one spelling, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocm.errors import LocalProtocolError, RemoteProtocolError
from ocm.protocol.wire.frames import (
    ACK_BITMAP_MAX,
    FRAME_TYPES,
    MESSAGE_ID_MAX,
    Ack,
    Challenge,
    Close,
    Frame,
    FrameType,
    Gap,
    Head,
    Message,
    Padding,
    Ping,
    Pong,
    Publish,
    Published,
    Received,
    Response,
    Signal,
    ack_of,
    acked,
    read_frames,
    write_frame,
    write_frames,
)


def uint(size: int) -> st.SearchStrategy[int]:
    return st.integers(0, 256**size - 1)


ids = st.integers(0, MESSAGE_ID_MAX)
bodies = st.binary(max_size=60)
numbers = st.lists(st.integers(0, 2**48 - 1) | st.integers(0, 300), min_size=1, max_size=40, unique=True)


def make_ack(these: list[int], delay: int) -> Frame:
    """The ACK of the largest, and of those of the others that it has room for."""
    largest = max(these)
    places = {largest - 1 - number for number in these if 0 < largest - number <= 8 * ACK_BITMAP_MAX}
    return ack_of(largest, sum(1 << place for place in places), delay=delay)


def make_gap(room: int, one: int, other: int, reason: int) -> Frame:
    return Gap(room, min(one, other), max(one, other), reason)


def pad(several: list[Frame], size: int) -> list[Frame]:
    return [*several, Padding(size)] if size else several


def cut_off(several: list[Frame], size: int) -> bytes:
    return write_frames(several)[:size]


frames: st.SearchStrategy[Frame] = st.one_of(
    st.just(Ping()),
    st.just(Pong()),
    st.builds(make_ack, numbers, uint(2)),
    st.builds(Publish, uint(4), ids, uint(1), bodies),
    st.builds(Published, uint(4), ids, uint(1), uint(8), uint(8)),
    st.builds(Message, uint(4), uint(8), uint(4), ids, uint(8), uint(1), uint(1), bodies),
    st.builds(Received, uint(4), uint(8), uint(2)),
    st.builds(make_gap, uint(4), uint(8), uint(8), uint(1)),
    st.builds(Head, uint(4), uint(8), uint(8)),
    st.builds(Challenge, st.binary(min_size=8, max_size=8)),
    st.builds(Response, st.binary(min_size=8, max_size=8)),
    st.builds(Close, uint(2), st.binary(max_size=255)),
    st.builds(Signal, uint(4), uint(4), uint(4), uint(8), bodies),
)
payloads = st.builds(pad, st.lists(frames, max_size=8), st.integers(0, 50))


@given(payloads)
def test_frames_come_back_as_they_went(several: list[Frame]) -> None:
    assert read_frames(write_frames(several)) == several


@given(st.binary(max_size=200) | st.builds(cut_off, payloads, st.integers(0, 200)))
def test_any_bytes_are_refused_or_have_one_spelling(data: bytes) -> None:
    try:
        several = read_frames(data)
    except RemoteProtocolError:
        return
    assert write_frames(several) == data


@pytest.mark.parametrize("kind", FRAME_TYPES, ids=[kind.layout.title for kind in FRAME_TYPES])
def test_a_view_names_the_values_of_its_layout(kind: FrameType) -> None:
    assert kind.view._fields == kind.layout.names


@given(frames)
def test_a_frame_is_what_its_layout_builds(frame: Frame) -> None:
    (kind,) = (kind for kind in FRAME_TYPES if kind.view is type(frame))
    assert write_frame(frame) == bytes([kind.code]) + kind.layout.build(*frame)
    assert kind.layout.parse(write_frame(frame)[1:]) == tuple(frame)


GOLDEN: dict[str, tuple[Frame, str]] = {
    "ping": (Ping(), "01"),
    "ack": (ack_of(9, 0b101, delay=250), "02 000000000009 00fa 01 05"),
    "publish": (Publish(1, 7, 0, b"hi"), "03 00000001 0000000000000007 00 0002 6869"),
    "published": (Published(1, 7, 0, 42, 5), "04 00000001 0000000000000007 00 000000000000002a 0000000000000005"),
    "message": (
        Message(1, 42, 3, 7, 5, 0, 2, b"hi"),
        "05 00000001 000000000000002a 00000003 0000000000000007 0000000000000005 00 02 0002 6869",
    ),
    "received": (Received(1, 42, 256), "06 00000001 000000000000002a 0100"),
    "gap": (Gap(1, 2, 3, 1), "08 00000001 0000000000000002 0000000000000003 01"),
    "head": (Head(1, 42, 2), "09 00000001 000000000000002a 0000000000000002"),
    "challenge": (Challenge(b"8 bytes!"), "0a 3820627974657321"),
    "response": (Response(b"8 bytes!"), "0b 3820627974657321"),
    "close": (Close(1, b"away"), "0d 0001 04 61776179"),
    "signal": (Signal(1, 3, 9, 4, b"x"), "0e 00000001 00000003 00000009 0000000000000004 0001 78"),
    "pong": (Pong(), "0f"),
    "padding": (Padding(3), "00 0000"),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_bytes(name: str) -> None:
    frame, spelled = GOLDEN[name]
    assert write_frame(frame) == bytes.fromhex(spelled)
    assert read_frames(bytes.fromhex(spelled)) == [frame]


@pytest.mark.parametrize(
    ("spelled", "why"),
    [
        ("07", "unknown frame 0x07"),
        ("0c", "unknown frame 0x0c"),
        ("10", "unknown frame 0x10"),
        ("0102", "a frame 0x02 is cut short"),
        ("03 00000001 0000000000000007 00 0003 6869", "a frame 0x03 is cut short"),
        ("01 00 00 01", "padding that is not zeros"),
        ("01" * 65, "more than 64 frames"),
        ("03 00000001 0020000000000000 00 0000", "over its limit"),
        ("04 00000001 0020000000000000 00 000000000000002a 0000000000000005", "over its limit"),
        ("05 00000001 000000000000002a 00000003 0020000000000000 0000000000000005 00 02 0000", "over its limit"),
        ("02 000000000009 00fa 02 0500", "no byte too many"),
        ("02 0000000000ff 00fa 11" + "01" * 17, "no byte too many"),
        ("02 000000000002 00fa 01 05", "below 0"),
        ("08 00000001 0000000000000004 0000000000000003 01", "ends before it begins"),
    ],
)
def test_what_is_refused_says_why(spelled: str, why: str) -> None:
    with pytest.raises(RemoteProtocolError, match=why):
        read_frames(bytes.fromhex(spelled))


def test_a_body_has_60_kib_at_most() -> None:
    whole = write_frame(Publish(1, 1, 0, bytes(61_440)))
    assert read_frames(whole) == [Publish(1, 1, 0, bytes(61_440))]
    with pytest.raises(LocalProtocolError, match="over its limit"):
        write_frame(Publish(1, 1, 0, bytes(61_441)))
    larger = whole[:14] + (61_441).to_bytes(2, "big") + bytes(61_441)
    with pytest.raises(RemoteProtocolError, match="over its limit"):
        read_frames(larger)


@pytest.mark.parametrize("frame", [Padding(0), Received(1, 2, 65_536), Challenge(b"short"), Gap(1, 3, 2, 1)])
def test_what_does_not_fit_is_our_own_fault(frame: Frame) -> None:
    with pytest.raises(LocalProtocolError):
        write_frame(frame)


def test_nothing_follows_padding() -> None:
    with pytest.raises(LocalProtocolError, match="nothing can follow padding"):
        write_frames([Padding(1), Ping()])


def test_more_frames_are_read_where_more_are_allowed() -> None:
    assert read_frames(b"\x01" * 65, frames_max=65) == [Ping()] * 65


@given(numbers, numbers)
def test_an_ack_names_the_newest_numbers_and_no_others(these: list[int], others: list[int]) -> None:
    ack = make_ack(these, 0)
    assert isinstance(ack, Ack)
    asked = sorted({number for number in (*these, *others) if number <= max(these)}, reverse=True)
    assert acked(ack, asked) == [number for number in asked if number in these and max(these) - number <= 128]
