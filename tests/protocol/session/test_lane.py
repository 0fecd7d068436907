"""Sealed packets both ways: what is opened, acknowledged, lost and blamed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocm.errors import LocalProtocolError, RemoteProtocolError
from ocm.protocol.session.acks import HOLD_S
from ocm.protocol.session.keys import Direction, SessionSecrets
from ocm.protocol.session.lane import TIMEOUTS_MAX, Lane, Load
from ocm.protocol.session.recovery import Outcome
from ocm.protocol.session.seal import SKIP_MIN
from ocm.protocol.wire.frames import Ack, Message, Ping, read_frames, write_frame
from tests.protocol.session.sessions import CLIENT_ID, SECRETS, SERVER_ID, parsed

PING = write_frame(Ping())


def lanes() -> tuple[Lane, Lane]:
    """A client's and a server's, which skip every 64th number."""
    return (
        Lane(Direction.TO_SERVER, SECRETS, peer_id=SERVER_ID, randomness=bytes),
        Lane(Direction.TO_CLIENT, SECRETS, peer_id=CLIENT_ID, randomness=bytes),
    )


def load(number: int) -> Load:
    return Load(write_frame(Message(1, number, 1, 0, 0, 0, 0, b"hello")), "owner", number)


def pass_on(one: Lane, other: Lane, numbers: range, *, now_s: float = 0.0) -> None:
    """Send packets of one load each, and let the other side take them."""
    for number in numbers:
        datagram = parsed(one.send(b"", (load(number),), now_s=now_s))
        assert other.open(datagram) == read_frames(load(number).data)
        other.took(datagram.packet_number, eliciting=True, now_s=now_s)


def ack_of(lane: Lane, *, now_s: float = 0.0) -> Ack:
    (ack,) = read_frames(lane.ack(now_s=now_s))
    assert isinstance(ack, Ack)
    return ack


def test_what_one_side_sends_the_other_opens_once_under_the_name_it_chose() -> None:
    client, server = lanes()
    datagram = parsed(client.send(PING, (load(1), load(2)), now_s=0.0))
    assert datagram.connection_id == SERVER_ID
    assert parsed(server.seal(PING)).connection_id == CLIENT_ID
    assert client.open(datagram) is None  # it is not for oneself
    assert server.largest == -1
    assert server.open(datagram) == read_frames(PING + load(1).data + load(2).data)
    assert server.open(datagram) is None
    assert server.largest == 0


def test_other_secrets_open_nothing() -> None:
    client, _ = lanes()
    stranger = Lane(Direction.TO_CLIENT, SessionSecrets(b"x" * 32, b"y" * 32), peer_id=CLIENT_ID, randomness=bytes)
    assert stranger.open(parsed(client.seal(PING))) is None


def test_what_opens_and_breaks_the_rules_is_the_peers_fault() -> None:
    client, server = lanes()
    with pytest.raises(RemoteProtocolError, match="unknown frame"):
        server.open(parsed(client.seal(b"\x7f")))


def test_an_acknowledgement_settles_what_it_names_and_is_owed_once() -> None:
    client, server = lanes()
    pass_on(client, server, range(2))
    assert server.next_ack_s() == 0.0
    outcome = client.acknowledge(ack_of(server), now_s=0.1)
    assert outcome == Outcome([(load(1),), (load(0),)])
    assert server.next_ack_s() is None
    assert server.ack(now_s=0.1) == b""
    assert client.next_timeout_s() is None
    assert client.recovery.round_trip.latest_s == 0.1


def test_one_packet_is_acknowledged_within_25_ms_and_that_is_no_part_of_the_round_trip() -> None:
    client, server = lanes()
    pass_on(client, server, range(2))
    client.acknowledge(ack_of(server), now_s=0.1)
    pass_on(client, server, range(2, 3), now_s=1.0)
    assert server.next_ack_s() == 1.0 + HOLD_S
    client.acknowledge(ack_of(server, now_s=1.02), now_s=1.12)
    assert client.recovery.round_trip.smoothed_s == pytest.approx(0.1)


def test_acks_overtaken_by_newer_ones_settle_what_only_they_name() -> None:
    client, server = lanes()
    pass_on(client, server, range(2))
    older = ack_of(server)
    pass_on(client, server, range(2, 4))
    newer = ack_of(server)
    only_newest = Ack(newer.largest, newer.delay)
    assert client.acknowledge(only_newest, now_s=0.1).acknowledged == [(load(3),)]
    assert client.acknowledge(older, now_s=0.1).acknowledged == [(load(1),)]  # 0 was lost by then
    assert client.acknowledge(newer, now_s=0.1).acknowledged == [(load(2),)]


@pytest.mark.parametrize("ack", [Ack(2, 0), Ack(2**48 - 1, 0), Ack(100, 0, b"\xff")], ids=str)
def test_who_acknowledges_what_was_never_sent_breaks_the_rules(ack: Ack) -> None:
    client, server = lanes()
    pass_on(client, server, range(2))
    with pytest.raises(RemoteProtocolError, match="never sent"):
        client.acknowledge(ack, now_s=0.1)


def test_who_acknowledges_a_number_that_was_skipped_breaks_the_rules() -> None:
    client, server = lanes()
    pass_on(client, server, range(2 * SKIP_MIN + 4))
    honest = ack_of(server)
    assert honest.largest == 2 * SKIP_MIN + 5
    client.acknowledge(honest, now_s=0.1)
    lies = (
        Ack(SKIP_MIN, 0),
        Ack(SKIP_MIN + 1, 0, b"\x01"),
        Ack(2 * SKIP_MIN + 1, 0),
        Ack(honest.largest, 0, b"\xff"),
        Ack(SKIP_MIN + 128, 0, (1 << 127).to_bytes(16, "little")),
    )
    for lie in lies:
        with pytest.raises(RemoteProtocolError, match="never sent"):
            client.acknowledge(lie, now_s=0.1)
    assert client.acknowledge(Ack(SKIP_MIN - 1, 0, b"\xff"), now_s=0.1) == Outcome()


@given(st.sets(st.integers(0, 199), min_size=1))
def test_an_acknowledgement_settles_exactly_what_came_of_the_newest_129(taken: set[int]) -> None:
    client, server = lanes()
    numbers: list[int] = []
    for number in range(200):
        datagram = parsed(client.send(b"", (load(number),), now_s=0.0))
        numbers.append(datagram.packet_number)
        if number in taken:
            server.took(datagram.packet_number, eliciting=True, now_s=0.0)
    largest = numbers[max(taken)]
    outcome = client.acknowledge(ack_of(server), now_s=0.0)
    settled = {one.key for loads in outcome.acknowledged for one in loads}
    assert settled == {number for number in taken if largest - numbers[number] <= 128}


def test_what_is_lost_is_given_back_and_counted() -> None:
    client, server = lanes()
    client.send(b"", (load(0),), now_s=0.0)
    pass_on(client, server, range(1, 4))
    outcome = client.acknowledge(ack_of(server), now_s=0.1)
    assert outcome.lost == [(load(0),)]
    assert client.loss == 1 / 64
    for number in range(1000):
        client.send(b"", (load(number),), now_s=1.0 + number)
        pass_on(client, server, range(3), now_s=1.0 + number)
        client.acknowledge(ack_of(server, now_s=1.0 + number), now_s=1.1 + number)
    assert client.loss == pytest.approx(0.25, abs=0.02)


def test_probes_that_stay_unanswered_make_it_suspect() -> None:
    client, _ = lanes()
    client.send(b"", (load(0),), now_s=0.0)
    for _ in range(TIMEOUTS_MAX):
        assert not client.is_suspect
        due_s = client.next_timeout_s()
        assert due_s is not None
        assert client.handle_timeout(now_s=due_s).probes == 2
        following_s = client.next_timeout_s()
        assert following_s is not None
        assert following_s > due_s
    assert client.is_suspect
    assert client.forget() == [(load(0),)]
    assert not client.is_suspect
    assert client.next_timeout_s() is None


def test_a_forked_lane_seals_nothing() -> None:
    client, _ = lanes()
    client.disown()
    assert client.is_blocked
    with pytest.raises(LocalProtocolError, match="just now"):
        client.seal(PING)


def test_loads_and_secrets_stay_out_of_sight() -> None:
    client, _ = lanes()
    assert b"hello" not in repr(client).encode()
    assert "s" * 32 not in repr(SECRETS)
