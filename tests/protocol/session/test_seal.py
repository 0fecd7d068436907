"""Sealer and opener of one direction: each packet once, nothing forged, nothing twice."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocm.errors import LocalProtocolError
from ocm.protocol.session.seal import SKIP_MAX, SKIP_MIN, Opener, Sealer
from ocm.protocol.wire.sealed import SealedDatagram, read_sealed

SECRET, OTHER = b"s" * 32, b"t" * 32
CID = b"connect!"
EPOCH = 2**20


def steady(size: int) -> bytes:
    return bytes(size)


def sealer(secret: bytes = SECRET, connection_id: bytes = CID, randomness: Callable[[int], bytes] = steady) -> Sealer:
    return Sealer(secret, connection_id, randomness=randomness)


def parsed(data: bytes) -> SealedDatagram:
    datagram = read_sealed(data)
    assert datagram is not None
    return datagram


def jump(one: Sealer, number: int) -> None:
    """Let a sealer be at ``number``, as if all before had been sent and acknowledged."""
    one.end = (number | EPOCH - 1) + 1
    one.next_number = number


@given(st.lists(st.binary(min_size=1, max_size=1168), min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_what_was_sealed_opens_once_in_any_order(payloads: list[bytes], chance: Random) -> None:
    one, other = sealer(), Opener(SECRET)
    sent = [one.seal(payload)[1] for payload in payloads]
    order = list(range(len(sent)))
    chance.shuffle(order)
    for place in order:
        assert other.open(parsed(sent[place])) == payloads[place]
        assert other.open(parsed(sent[place])) is None
    assert [other.open(parsed(data)) for data in sent] == [None] * len(sent)


def test_no_bit_may_change() -> None:
    _, data = sealer().seal(b"\x01some frames")
    for place in range(len(data) * 8):
        forged = bytearray(data)
        forged[place // 8] ^= 1 << place % 8
        datagram = read_sealed(bytes(forged))
        opener = Opener(SECRET)
        assert datagram is None or opener.open(datagram) is None
        assert opener.window.largest == -1
        assert opener.open(parsed(data)) == b"\x01some frames"


def test_a_packet_of_another_direction_does_not_open() -> None:
    assert Opener(OTHER).open(parsed(sealer().seal(b"\x01")[1])) is None


@given(st.lists(st.integers(0, 65_535), min_size=8, max_size=8))
def test_numbers_rise_and_one_in_64_to_256_is_skipped(draws: list[int]) -> None:
    drawn = iter(draws)
    one = sealer(randomness=lambda size: next(drawn, 0).to_bytes(size, "big"))
    numbers = [one.seal(b"\x01")[0] for _ in range(1200)]
    assert numbers == sorted(set(numbers))
    missing = sorted(set(range(numbers[-1])) - set(numbers))
    runs = [later - sooner for sooner, later in zip([0, *missing], missing, strict=False)]
    assert missing
    assert all(SKIP_MIN <= run <= SKIP_MAX + 1 for run in runs)
    for number in missing:
        assert not one.acknowledge(number)
        assert one.skipped(number, number) == [number]
    assert one.skipped(0, one.next_number - 2) == missing[::-1]
    assert one.skipped(missing[0] + 1, missing[-1] - 1) == missing[-2:0:-1]
    assert all(one.acknowledge(number) for number in numbers)


def test_what_was_never_sent_cannot_be_acknowledged() -> None:
    one = sealer()
    one.seal(b"\x01")
    assert one.acknowledge(0)
    assert not one.acknowledge(1)
    assert not one.acknowledge(-1)


def test_an_epoch_begins_when_one_of_the_last_was_acknowledged() -> None:
    one, other = sealer(), Opener(SECRET)
    jump(one, EPOCH - 2)
    one.end = EPOCH
    assert other.open(parsed(one.seal(b"\x01last but one")[1])) == b"\x01last but one"
    _, late = one.seal(b"\x01last")
    assert one.is_blocked
    with pytest.raises(LocalProtocolError, match="just now"):
        one.seal(b"\x01")
    assert one.acknowledge(EPOCH - 2)
    number, first = one.seal(b"\x01next")
    assert number == EPOCH
    assert other.open(parsed(first)) == b"\x01next"
    assert other.open(parsed(late)) == b"\x01last"


def test_the_receivers_epoch_moves_by_what_opens_and_by_one() -> None:
    one, other = sealer(), Opener(SECRET)
    packets: list[bytes] = []
    for epoch in range(4):
        jump(one, epoch * EPOCH + 7)
        packets.append(one.seal(b"\x01" + bytes([epoch]))[1])
    assert other.open(parsed(packets[2])) is None  # two ahead
    forged = bytearray(packets[1])
    forged[-1] ^= 1
    assert other.open(parsed(bytes(forged))) is None
    assert other._epoch == 0
    assert other.open(parsed(packets[1])) == b"\x01\x01"
    assert other.open(parsed(packets[2])) == b"\x01\x02"
    assert other.open(parsed(packets[0])) is None  # two behind, and far below the window
    assert other._epoch == 2


def test_the_last_number_is_the_last() -> None:
    one = sealer()
    one.next_number = 2**48
    assert one.is_blocked


def test_a_forked_sealer_seals_nothing() -> None:
    one = sealer()
    one.disown()
    assert one.is_blocked
    with pytest.raises(LocalProtocolError, match="just now"):
        one.seal(b"\x01")


@pytest.mark.parametrize("size", [0, 1169])
def test_a_datagram_has_a_frame_and_fits(size: int) -> None:
    with pytest.raises(LocalProtocolError, match="1 to 1168 bytes"):
        sealer().seal(bytes(size))


def test_the_largest_datagram_has_1200_bytes() -> None:
    assert len(sealer().seal(bytes(1168))[1]) == 1200
