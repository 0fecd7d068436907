"""Both sides of a session: nothing is lost on whichever way, nobody is a reflector, who breaks the rules is left."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocm.errors import RemoteProtocolError
from ocm.protocol.address import make_address
from ocm.protocol.session import keys
from ocm.protocol.session.channel import (
    DATAGRAM_SPACE,
    KEEPALIVE_S,
    LARGE_SIZE_MAX,
    RECORD_FRAMES_MAX,
    RESPONSES_MAX,
)
from ocm.protocol.session.path import PathState
from ocm.protocol.session.recovery import PROBES
from ocm.protocol.session.seal import SKIP_MAX
from ocm.protocol.wire.frames import (
    Ack,
    Challenge,
    Close,
    Frame,
    Message,
    Padding,
    Ping,
    Pong,
    Publish,
    Response,
    read_frames,
    write_frame,
    write_frames,
)
from ocm.protocol.wire.sealed import SEALED_SIZE_MAX
from tests.protocol.session.sessions import BODY_SIZE, Session, Side, address_of, parsed

HEADER_OF_MESSAGE = 37
"""Bytes of a MESSAGE without its body."""


def terrible(seed: int, *, loss: float = 0.3) -> Session:
    session = Session(seed=seed)
    session.links.link("aiko", loss=loss, duplicate=0.1, reorder=0.2, jitter_s=0.1)
    return session


def sealed(side: Side, *frames: Frame) -> bytes:
    """A packet of that side, as if it had sent it."""
    return side.channel.lane.seal(write_frames(frames))


def opened(side: Side, datagram: bytes) -> list[Frame]:
    """What is in a packet for that side; it is not taken."""
    frames = side.channel.lane.open(parsed(datagram))
    assert frames is not None
    return frames


def receive(session: Session, side: Side, data: bytes, source: str) -> bool:
    was_opened = side.receive_datagram(data, source, now_s=session.now_s)
    session.wake()
    return was_opened


# --- nothing is lost --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_everything_arrives_over_a_terrible_network(seed: int) -> None:
    session = terrible(seed)
    session.up()
    session.say(200)
    session.finish(within_s=120.0)


@pytest.mark.parametrize("seed", range(20))
def test_everything_arrives_over_a_terrible_network_without_tls(seed: int) -> None:
    session = terrible(seed)
    session.up()
    session.lose_stream()
    session.say(200)
    session.finish(within_s=120.0)
    for side in session.sides:
        assert side.recorded == set()
        assert side.traffic.settled == set(range(1, 201))


def test_over_a_good_network_all_goes_by_datagram_and_once() -> None:
    session = Session()
    session.up()
    session.say(200)
    assert session.finish(within_s=5.0) <= 1.0
    for side in session.sides:
        assert side.recorded == set()
        assert set(side.traffic.taken.values()) == set(side.traffic.popped.values()) == {1}
        assert side.channel.lane.loss == 0


def test_frames_share_datagrams() -> None:
    session = Session(sizes=lambda _: 1)
    session.up()
    before = session.client.datagrams
    session.say(600)
    session.finish(within_s=5.0)
    assert session.client.datagrams - before <= 600 / 60 + 40  # 63 at most in each, and acknowledgements


def test_where_udp_is_blocked_all_goes_over_tls_from_the_start() -> None:
    session = Session()
    session.links.cut("aiko")
    session.begin()
    session.say(500)
    assert session.finish(within_s=2.0) <= 1.0
    session.run(600.0)
    assert session.server.datagrams == 0
    assert session.client.datagrams <= 8 * (1 + 600 / 40 + 1)  # a round each 40 seconds
    assert session.client.channel.path.state in {PathState.DOWN, PathState.PROBING}


def test_without_a_udp_port_there_are_no_datagrams() -> None:
    session = Session()
    session.say(10)
    session.client.channel.woke(now_s=session.now_s)
    session.finish(within_s=2.0)
    session.run(120.0)
    assert session.client.datagrams == session.server.datagrams == 0
    assert session.are(PathState.NONE)


@pytest.mark.parametrize("direction", ["both", "up", "down"])
@pytest.mark.parametrize("seed", range(4))
def test_where_udp_stops_all_moves_to_tls_within_ten_seconds_and_back_within_sixty(seed: int, direction: str) -> None:
    session = terrible(seed, loss=0.05)
    session.up()
    session.trickle(900, every_s=0.1)
    session.run(5.0)
    session.links.cut("aiko", direction="up" if direction == "up" else "down" if direction == "down" else "both")
    cut_s = session.now_s
    session.run(12.0)
    for side in session.sides:
        assert side.when_s(PathState.SUSPECT) - cut_s < 10.0
        assert side.traffic.peer.said - len(side.traffic.taken) < 10  # it is being said all the time
    session.run(40.0)
    assert session.client.channel.path.state in {PathState.DOWN, PathState.PROBING}
    session.links.heal("aiko")
    session.run_until(lambda: session.are(PathState.UP), within_s=60.0)
    session.run_until(session.is_done, within_s=60.0)
    assert not session.client.channel.is_dead


@pytest.mark.parametrize("seed", range(10))
def test_where_tls_is_lost_all_goes_on_by_datagram(seed: int) -> None:
    session = terrible(seed, loss=0.1)
    session.begin()
    session.say(100)  # over TLS, since there is no path yet
    session.run(0.04)
    session.up()
    session.say(50)
    session.run(0.01)
    assert not session.is_done()
    session.lose_stream()
    for side in session.sides:
        assert side.traffic.rewinds == 2, "when the path was up, and now"
        side.channel.stream_lost(now_s=session.now_s)
        assert side.traffic.rewinds == 2
    session.say(50)
    session.finish(within_s=60.0)
    assert not session.client.channel.is_dead


def test_a_path_without_tls_may_be_suspect_for_a_while() -> None:
    session = Session()
    session.up()
    session.lose_stream()
    session.trickle(150, every_s=0.1)
    session.run(2.0)
    session.links.cut("aiko")
    session.run(8.0)
    assert session.are(PathState.SUSPECT)
    assert not session.client.channel.is_dead
    session.links.heal("aiko")
    session.run_until(lambda: session.are(PathState.UP), within_s=2.5)
    session.run(10.0)
    session.finish(within_s=20.0)


def test_what_went_over_tls_while_the_path_was_suspect_goes_again_by_datagram_where_tls_is_lost() -> None:
    session = Session(stream_delay_s=3.0)
    session.up()
    session.run(10.0)
    session.links.cut("aiko")
    session.say(5)
    session.run_until(lambda: session.are(PathState.SUSPECT), within_s=10.0)
    session.say(5)
    session.run(0.5)
    assert session.client.recorded == session.server.recorded == set(range(1, 11))
    session.lose_stream()
    session.links.heal("aiko")
    session.run_until(session.is_done, within_s=5.0)
    assert session.are(PathState.UP)


def test_without_any_way_it_is_dead_and_all_under_way_is_told_lost() -> None:
    session = Session()
    session.up()
    session.say(30)
    session.lose_stream()
    session.links.cut("aiko")
    session.say(30)
    assert not session.client.channel.is_dead
    session.run(40.0)
    for side in session.sides:
        assert side.channel.is_dead
        assert side.channel.records_to_send(space=9999, now_s=session.now_s) == []
        assert side.accounts_for_all()


@pytest.mark.parametrize("gets_through", [True, False])
def test_who_turns_up_somewhere_while_tls_is_lost_is_waited_for(gets_through: bool) -> None:
    """Its address changes, its connection breaks, and its first datagram from there comes: it is about to be proved."""
    session = Session()
    receive(session, session.server, sealed(session.client, Ping()), "aiko")
    session.lose_stream()
    was_dead = session.server.channel.is_dead
    if not gets_through:
        session.links.cut("aiko")
    session.wake()
    session.run(3.0)
    assert (was_dead, session.server.channel.is_dead) == (False, not gets_through)
    assert session.server.channel.path.state is (PathState.UP if gets_through else PathState.NONE)


def test_a_path_that_never_was_leaves_nothing_but_tls() -> None:
    session = Session()
    session.begin()
    session.lose_stream()
    assert session.client.channel.is_dead
    assert session.server.channel.is_dead


@given(
    st.integers(0, 2**32),
    st.lists(
        st.tuples(
            st.sampled_from(["cut", "heal", "move", "woke", "say", "better", "worse", "without tls"]),
            st.floats(0.0, 8.0),
        ),
        max_size=12,
    ),
)
@settings(max_examples=200, deadline=None)
def test_whatever_befalls_the_network_nothing_is_lost(seed: int, happenings: list[tuple[str, float]]) -> None:
    session = Session(seed=seed)
    session.begin()
    session.say(20)
    for happening, for_s in happenings:
        match happening:
            case "cut":
                session.links.cut("aiko")
            case "heal":
                session.links.heal("aiko")
            case "move":
                session.exchange.move("aiko")
            case "woke":
                session.client.channel.woke(now_s=session.now_s)
            case "better":
                session.links.link("aiko", loss=0.0, reorder=0.0, jitter_s=0.0)
            case "worse":
                session.links.link("aiko", loss=0.4, duplicate=0.2, reorder=0.3, jitter_s=0.2)
            case "without tls":
                session.lose_stream()
            case _:
                session.say(20)
        session.wake()
        session.run(for_s)
    session.run(60.0)
    if not any(side.channel.is_dead for side in session.sides):
        session.finish(within_s=60.0)
    assert all(side.accounts_for_all() for side in session.sides)


# --- what does not fit ------------------------------------------------------------------------------------


def every_fifth_is_large(number: int) -> int:
    return 3000 if number % 5 == 0 else BODY_SIZE


def test_what_does_not_fit_a_datagram_goes_over_tls_and_keeps_nothing_else_from_going() -> None:
    session = Session(sizes=every_fifth_is_large)
    session.up()
    session.say(100)
    session.finish(within_s=5.0)
    large = set(range(5, 101, 5))
    for side in session.sides:
        assert side.recorded == large
        assert side.traffic.settled == set(range(1, 101)) - large


@pytest.mark.parametrize(("size", "is_large"), [(DATAGRAM_SPACE, False), (DATAGRAM_SPACE + 1, True)])
def test_a_datagram_holds_frames_of_its_space_beside_the_largest_ack(size: int, is_large: bool) -> None:
    session = Session(sizes=lambda _: size - HEADER_OF_MESSAGE)
    session.up()
    session.server.channel.lane.took(10**9, eliciting=True, now_s=session.now_s)
    for number in range(128):
        session.server.channel.lane.took(10**9 - 128 + number, eliciting=True, now_s=session.now_s)
    session.server.traffic.say(1)
    datagrams = session.server.datagrams_to_send(now_s=session.now_s)
    assert len(datagrams) == 1
    assert len(datagrams[0][1]) == SEALED_SIZE_MAX if not is_large else len(datagrams[0][1]) < 100
    assert session.server.recorded == ({1} if is_large else set())


def test_what_is_large_waits_where_tls_is_lost_and_all_behind_it() -> None:
    session = Session(sizes=lambda number: 3000 if number == 10 else BODY_SIZE)
    session.up()
    session.lose_stream()
    session.say(20)
    session.run(60.0)
    for side in session.sides:
        assert set(side.traffic.taken) == set(range(1, 10))
        assert not side.channel.is_dead


def test_what_is_large_and_under_way_when_tls_is_lost_is_told_lost() -> None:
    session = Session(sizes=lambda _: 30_000)
    session.up()
    for side in session.sides:
        side.pipe = None  # nothing is written any more
    session.say(2)
    for side in session.sides:
        assert set(side.traffic.popped) == {1, 2}
        side.channel.stream_lost(now_s=session.now_s)
        assert set(side.traffic.told_lost) == {1, 2}


def test_only_so_much_that_is_large_waits_for_tls_then_all_waits() -> None:
    session = Session(sizes=lambda number: 30_000 if number <= 10 else BODY_SIZE)
    session.up()
    pipes = [side.pipe for side in session.sides]
    for side in session.sides:
        side.pipe = None
    session.say(20)
    session.run(5.0)
    for side in session.sides:
        assert len(side.traffic.popped) == -(-LARGE_SIZE_MAX // 30_037)
    for side, pipe in zip(session.sides, pipes, strict=True):
        side.pipe = pipe
    session.wake()
    session.finish(within_s=5.0)


def test_no_more_is_written_than_there_is_space_and_one_frame() -> None:
    session = Session(sizes=lambda _: 10_000)
    channel, now_s = session.server.channel, session.now_s
    session.server.traffic.say(40)
    assert channel.records_to_send(space=0, now_s=now_s) == []
    assert channel.records_to_send(space=-5, now_s=now_s) == []
    payloads = channel.records_to_send(space=25_000, now_s=now_s)
    assert [len(read_frames(payload)) for payload in payloads] == [1, 1, 1]


# --- what cannot be kept ----------------------------------------------------------------------------------


def test_a_frame_that_cannot_be_kept_leaves_its_packet_unacknowledged_and_comes_again() -> None:
    session = Session()
    session.up()
    session.lose_stream()
    offered: Counter[int] = Counter()

    def keeps(number: int) -> bool:
        offered[number] += 1
        return offered[number] > 2

    session.server.traffic.keeps = keeps
    session.say(5)
    session.run(0.2)
    assert session.client.traffic.settled == set()
    assert session.server.traffic.settled == set(range(1, 6))
    session.finish(within_s=20.0)


def test_what_one_frame_of_a_packet_is_refused_for_does_not_keep_the_others_from_being_taken() -> None:
    session = Session()
    session.up()
    session.server.traffic.keeps = lambda number: number == 2
    data = sealed(session.client, Publish(1, 1, 0, b""), Publish(1, 2, 0, b""), Ping())
    assert receive(session, session.server, data, "aiko")
    assert set(session.server.traffic.taken) == {2}
    assert session.server.channel.lane.next_ack_s() is None


# --- who breaks the rules ---------------------------------------------------------------------------------

WRONG_IN_DATAGRAMS: dict[str, bytes] = {
    "an unknown frame": b"\x7f",
    "a frame cut short": b"\x03\x00",
    "a PONG": write_frame(Pong()),
    "an ACK of what was never sent": write_frame(Ack(10**6, 0)),
    "more than 64 frames": write_frame(Ping()) * 65,
}
WRONG_OVER_TLS: dict[str, bytes] = {
    "an unknown frame": b"\x7f",
    "an ACK": write_frame(Ack(0, 0)),
    "a CHALLENGE": write_frame(Challenge(bytes(8))),
    "a RESPONSE": write_frame(Response(bytes(8))),
    "padding": write_frame(Padding(1)),
    "too many frames": write_frame(Ping()) * (RECORD_FRAMES_MAX + 1),
}


def assert_frozen(session: Session, side: Side) -> None:
    """Nothing goes in or out of a channel with a fault, and it waits for nothing."""
    channel, now_s = side.channel, session.now_s
    assert isinstance(channel.fault, RemoteProtocolError)
    fault, heard_s, taken = channel.fault, channel.heard_s, side.traffic.taken.copy()
    side.traffic.say(5)
    other = session.server if side is session.client else session.client
    other.traffic.say(5)
    for _ in range(100):
        now_s += 1.0
        for name, data in other.datagrams_to_send(now_s=now_s):
            assert name != other.name
            assert not side.receive_datagram(data, other.name, now_s=now_s)
        channel.receive_frames(write_frame(Message(1, 1, 1, 1, 1, 0, 0, b"")), now_s=now_s)
        channel.receive_frames(write_frame(Ping()), now_s=now_s)
        assert channel.handle_timeout(now_s=now_s) is False
        assert channel.next_timeout_s() is None
        assert channel.datagrams_to_send(now_s=now_s) == []
        assert channel.records_to_send(space=9999, now_s=now_s) == []
    assert (channel.fault, channel.heard_s, side.traffic.taken) == (fault, heard_s, taken)
    assert channel.close(4, "protocol") != [] or channel.path.state is PathState.NONE


@pytest.mark.parametrize("what", WRONG_IN_DATAGRAMS)
def test_a_datagram_that_breaks_the_rules_freezes_the_channel(what: str) -> None:
    session = Session()
    session.up()
    data = session.client.channel.lane.seal(WRONG_IN_DATAGRAMS[what])
    assert session.server.receive_datagram(data, "aiko", now_s=session.now_s) is True
    assert_frozen(session, session.server)


@pytest.mark.parametrize("is_largest", [True, False])
def test_an_acknowledgement_of_a_number_that_was_skipped_freezes_the_channel(is_largest: bool) -> None:
    session = Session()
    session.up()
    lane = session.server.channel.lane
    for _ in range(SKIP_MAX + 1):
        lane.seal(write_frame(Ping()))
    skipped = lane._sealer._skipped[0]
    data = sealed(session.client, Ack(skipped, 0) if is_largest else Ack(skipped + 1, 0, b"\x01"))
    session.server.receive_datagram(data, "aiko", now_s=session.now_s)
    assert_frozen(session, session.server)


@pytest.mark.parametrize("what", WRONG_OVER_TLS)
def test_a_record_that_breaks_the_rules_freezes_the_channel(what: str) -> None:
    session = Session()
    session.client.channel.receive_frames(WRONG_OVER_TLS[what], now_s=0.0)
    assert_frozen(session, session.client)


def test_what_came_before_a_fault_was_taken() -> None:
    session = Session()
    session.server.channel.receive_frames(write_frames([Publish(1, 7, 0, b""), Ack(0, 0)]), now_s=0.0)
    assert set(session.server.traffic.taken) == {7}
    assert session.server.channel.fault is not None


def test_a_datagram_of_somebody_else_changes_nothing() -> None:
    session, other = Session(), Session(seed=1)
    session.up()
    other.up()
    data = bytearray(sealed(session.client, Publish(1, 7, 0, b"")))
    data[-1] ^= 1
    session.run(1.0)
    heard_s = session.server.channel.heard_s
    assert not receive(session, session.server, bytes(data), "aiko")
    assert session.server.channel.heard_s == heard_s
    assert session.server.traffic.taken == Counter()


def test_forged_datagrams_keep_nothing_from_coming() -> None:
    session = Session()
    session.up()
    session.run(1.0)
    session.say(5)
    genuine = sealed(session.client, Ping())
    for ahead in (0, 1, 500, 5000, 2**40):
        number = parsed(genuine).packet_number + ahead
        forged = genuine[:10] + number.to_bytes(6, "big") + bytes(len(genuine) - 16)
        assert not receive(session, session.server, forged, "mallory")
    assert receive(session, session.server, genuine, "aiko")
    session.say(50)
    session.finish(within_s=5.0)
    assert session.server.recorded == session.client.recorded == set()


def test_the_other_sides_farewell_is_heard_on_both_ways() -> None:
    for goes_by_datagram in (True, False):
        session = Session()
        session.up()
        client, server = session.client, session.server.channel
        if goes_by_datagram:
            ((to, data),) = client.channel.close(2, "ü" * 200)
            assert to == address_of("server")
            receive(session, session.server, data, "aiko")
            assert server.farewell == Close(2, ("ü" * 200).encode()[:255])
        else:
            server.receive_frames(write_frame(Close(0, b"bye")), now_s=session.now_s)
            assert server.farewell == Close(0, b"bye")
        assert server.fault is None


def test_a_farewell_goes_only_where_there_is_a_path() -> None:
    session = Session()
    assert session.client.channel.close(0, "") == []
    assert session.server.channel.close(0, "") == []
    session.up()
    session.client.channel.lane.disown()
    assert session.client.channel.close(0, "") == []


# --- addresses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_known", [True, False])
def test_a_spoofed_source_is_sent_three_packets_and_three_times_its_bytes_at_most(is_known: bool) -> None:
    session = Session()
    if is_known:
        session.up()
    victim, server = address_of("victim"), session.server
    for data in (sealed(session.client, Ping()), sealed(session.client, Challenge(bytes(8)), Padding(1000))):
        before = server.packets[victim]
        receive(session, server, data, "victim")
        session.run(0.2)
        assert server.packets[victim] - before <= 3
    session.server.traffic.say(100)
    session.wake()
    session.run(60.0)
    assert 0 < server.packets[victim] <= 3
    assert server.sent[victim] <= 3 * server.received[victim]
    assert server.channel.whereabouts.current == (address_of("aiko") if is_known else None)


def test_whoever_has_an_address_that_nothing_gets_through_to_is_no_target() -> None:
    session = Session()
    session.up()
    session.links.cut("aiko")
    session.say(1)
    session.run(30.0)
    server, home = session.server, address_of("aiko")
    assert server.channel.path.state is PathState.DOWN
    assert server.channel.whereabouts.current is None
    assert server.packets[home] > 0  # the challenge at the beginning
    before_packets, before_bytes = server.packets[home], server.sent[home]
    data = sealed(session.client, Ping())
    receive(session, server, data, "aiko")
    session.run(60.0)
    assert server.packets[home] - before_packets <= 3
    assert server.sent[home] - before_bytes <= 3 * len(data)


@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_who_moves_every_two_seconds_is_followed_and_nothing_is_lost(loss: float) -> None:
    session = Session(seed=3)
    session.links.link("aiko", loss=loss)
    session.up()
    session.lose_stream()
    session.trickle(650, every_s=0.1)
    for number in range(2, 32):
        session.exchange.move("aiko")
        session.run(2.0)
        if not loss:
            assert session.server.channel.whereabouts.current == address_of(f"aiko@{number}")
    session.run(5.0)
    session.finish(within_s=30.0)
    assert session.server.channel.whereabouts.current == address_of("aiko@31")
    if not loss:
        assert [state for _, state in session.server.states] == [PathState.NONE, PathState.UP]


def test_a_new_path_is_learned_anew_unless_only_the_port_is_another() -> None:
    session = Session()
    session.up()
    session.say(20)
    session.run(1.0)
    server, client = session.server.channel, session.client.channel
    for address, is_another in ((make_address("10.0.170.1", 4001), False), (make_address("10.0.170.2", 1), True)):
        learned = server.lane.recovery.round_trip
        session.run(2.0)
        now_s = session.now_s
        data = sealed(session.client, Ping())
        server.receive_datagram(parsed(data), address, len(data), now_s=now_s)
        for to, asked in server.datagrams_to_send(now_s=now_s):
            assert to == address
            client.receive_datagram(parsed(asked), address_of("server"), len(asked), now_s=now_s)
        for _, answer in client.datagrams_to_send(now_s=now_s):
            server.receive_datagram(parsed(answer), address, len(answer), now_s=now_s)
        assert server.whereabouts.current == address
        assert (server.lane.recovery.round_trip is not learned) == is_another


def test_a_datagram_that_comes_late_or_again_from_elsewhere_moves_nobody() -> None:
    session = Session()
    session.up()
    session.run(2.0)
    late = sealed(session.client, Ping())
    newer = sealed(session.client, Ping())
    assert receive(session, session.server, newer, "aiko")
    assert not receive(session, session.server, newer, "mallory")
    assert receive(session, session.server, late, "mallory")
    session.run(10.0)
    assert session.server.channel.whereabouts.current == address_of("aiko")
    assert session.server.packets[address_of("mallory")] == 0


def test_an_acknowledgement_is_kept_until_it_is_known_where_to_send_it() -> None:
    session = Session()
    server, channel = session.server, session.server.channel
    data = sealed(session.client, Publish(1, 1, 0, b""), Publish(1, 2, 0, b""))
    assert server.receive_datagram(data, "aiko", now_s=0.0)
    out = server.datagrams_to_send(now_s=0.0)
    assert len(out) == 1  # the challenge, and the acknowledgement with it
    data = sealed(session.client, Publish(1, 3, 0, b""))
    assert server.receive_datagram(data, "aiko", now_s=0.1)
    assert server.datagrams_to_send(now_s=0.2) == []
    assert channel.next_timeout_s() == 0.5  # the next challenge, not the acknowledgement
    assert channel.lane.next_ack_s() == pytest.approx(0.115)
    challenge = next(frame for frame in opened(session.client, out[0][1]) if isinstance(frame, Challenge))
    assert server.receive_datagram(sealed(session.client, Response(challenge.data)), "aiko", now_s=0.3)
    (acknowledgement,) = server.datagrams_to_send(now_s=0.3)
    assert isinstance(opened(session.client, acknowledgement[1])[0], Ack)


def test_only_the_latest_challenges_of_three_addresses_are_answered() -> None:
    session = Session()
    client, lane = session.client.channel, session.server.channel.lane
    addresses = [address_of(f"server@{number}") for number in range(1, 6)]
    for address in (*addresses, addresses[2]):
        data = lane.seal(write_frames([Challenge(address.rjust(8)), Challenge(address.ljust(8))]))
        assert client.receive_datagram(parsed(data), address, len(data), now_s=0.0)
    answers = {to: opened(session.server, data) for to, data in client.datagrams_to_send(now_s=0.0)}
    assert list(answers) == [addresses[3], addresses[4], addresses[2]]
    assert len(answers) == RESPONSES_MAX
    for to, frames in answers.items():
        assert frames[0] == Response(to.ljust(8))
    assert client.datagrams_to_send(now_s=0.0) == []


# --- time -------------------------------------------------------------------------------------------------


def test_a_quiet_path_is_used_every_twenty_seconds_and_no_more() -> None:
    session = Session()
    session.up()
    session.run(1.0)
    before = [side.datagrams for side in session.sides]
    session.run(600.0)
    assert session.are(PathState.UP)
    for side, count in zip(session.sides, before, strict=True):
        pings = 600 / KEEPALIVE_S
        assert pings <= side.datagrams - count <= 2 * pings + 4  # and as many acknowledgements
    assert session.client.gives_up_at_s is None


def test_whatever_goes_puts_the_keepalive_off() -> None:
    session = Session()
    session.up()
    session.run(10.0)
    session.say(1)
    session.run(0.5)
    before = [side.datagrams for side in session.sides]
    session.run(KEEPALIVE_S - 0.6)
    assert [side.datagrams for side in session.sides] == before
    session.run(0.2)
    assert [side.datagrams for side in session.sides] != before


def test_a_quiet_tls_connection_is_asked_for_a_sign_of_life_and_gives_one() -> None:
    session = Session()
    session.run(14.9)
    assert session.client.channel.heard_s == 0.0
    session.run(0.3)
    assert session.client.channel.heard_s == pytest.approx(15.1)
    session.run(600.0)
    assert session.client.gives_up_at_s is None


def test_a_tls_connection_that_answers_nothing_is_given_up() -> None:
    session = Session()
    session.links.cut("aiko")
    session.run(1.0)
    session.cut_stream()
    session.say(1)
    session.run(2.4)
    assert not session.client.channel.is_stream_late
    session.run(0.2)
    assert session.client.channel.is_stream_late
    session.run(3.3)
    assert session.client.gives_up_at_s is None
    session.run(0.2)
    assert session.client.gives_up_at_s == pytest.approx(1.0 + 1.0 + 5.0)
    assert not session.server.channel.is_stream_late
    assert session.server.gives_up_at_s is None  # that is the client's to do


def test_a_question_and_an_answer_over_tls_do_not_displace_each_other() -> None:
    session = Session()
    client = session.client.channel
    client.handle_timeout(now_s=15.0)  # it is to ask
    client.receive_frames(write_frame(Ping()) * 3, now_s=15.0)
    client.receive_frames(write_frame(Pong()), now_s=15.0)
    assert client.records_to_send(space=100, now_s=15.0) == [write_frames([Ping(), Pong()])]
    assert client.records_to_send(space=100, now_s=15.0) == []


def test_after_a_sleep_both_ways_are_looked_at_at_once() -> None:
    session = Session()
    session.up()
    session.say(10)
    session.client.channel.woke(now_s=session.now_s)
    session.wake()
    assert session.client.channel.path.state is PathState.SUSPECT
    assert session.client.recorded == set(range(1, 11))  # it goes the other way, too
    session.run_until(lambda: session.are(PathState.UP), within_s=0.2)
    session.finish(within_s=5.0)
    session.lose_stream()
    session.say(10)
    for side in session.sides:
        side.channel.woke(now_s=session.now_s)
    session.wake()
    assert session.client.traffic.told_lost.keys() <= set(range(1, 11))  # there is no other way
    session.run_until(lambda: session.are(PathState.UP), within_s=0.2)
    session.finish(within_s=5.0)


@pytest.mark.parametrize("is_up", [False, True])
def test_who_has_another_address_shows_it_and_asks_after_tls(is_up: bool) -> None:
    session = Session()
    if is_up:
        session.up()
    else:
        session.begin()
        session.links.cut("aiko")
        session.run(20.0)
        session.links.heal("aiko")
    client = session.client.channel
    for side in session.sides:
        side.channel.moved(now_s=session.now_s)
    assert client.path.state is (PathState.UP if is_up else PathState.PROBING)
    assert len(client.datagrams_to_send(now_s=session.now_s)) == 1
    client.handle_timeout(now_s=session.now_s)
    assert client.records_to_send(space=1, now_s=session.now_s) == [write_frame(Ping())]


def test_only_a_client_asks_after_tls_where_something_is_awaited() -> None:
    session = Session()
    for side, asked in ((session.client, [write_frame(Ping())]), (session.server, [])):
        side.channel.await_stream(now_s=session.now_s)
        assert side.channel.records_to_send(space=1, now_s=session.now_s) == asked


def test_a_sleep_of_hours_in_the_middle_of_a_suspicion_is_not_the_end() -> None:
    session = Session()
    session.up()
    session.lose_stream()
    session.links.cut("aiko")
    session.say(1)
    session.run(8.0)
    assert session.are(PathState.SUSPECT)
    client, now_s = session.client.channel, session.now_s + 8 * 3600.0
    client.woke(now_s=now_s)
    client.handle_timeout(now_s=now_s)
    assert len(client.datagrams_to_send(now_s=now_s)) >= 1
    assert not client.is_dead
    client.handle_timeout(now_s=now_s + 9.0)
    client.datagrams_to_send(now_s=now_s + 9.0)
    assert not client.is_dead


def test_where_the_owner_knows_that_the_network_changed_what_is_under_way_goes_over_tls() -> None:
    session = Session()
    session.up()
    session.links.cut("aiko")
    session.say(10)
    session.client.channel.path.begin(now_s=session.now_s)
    session.run_until(session.server.traffic.peer.is_done, within_s=1.5)
    session.run_until(session.is_done, within_s=10.0)


def test_much_leaves_in_bursts_of_ten_and_at_a_pace_while_the_window_lasts() -> None:
    session = Session(sizes=lambda _: 1000)
    session.links.link("aiko", delay_s=0.2)
    session.up()
    session.server.channel.lane.recovery.window.size = 60 * SEALED_SIZE_MAX
    session.server.traffic.say(100)
    server, recovery = session.server, session.server.channel.lane.recovery
    before, bursts = server.datagrams, list[int]()
    session.exchange.wake("server")
    while server.traffic.waiting:
        bursts.append(server.datagrams - before)
        before = server.datagrams
        due_s = server.channel.next_timeout_s()
        assert due_s is not None
        assert session.now_s < due_s < session.now_s + 0.05
        session.exchange.run(until_s=due_s + 1e-9)
    assert 10 <= bursts[0] <= 12  # they are smaller than 1200 bytes
    assert set(bursts[1:]) <= {1, 2}
    assert len(bursts) > 50
    assert recovery._under_way <= recovery.window.size
    session.finish(within_s=30.0)


def test_a_probe_goes_out_though_the_window_is_closed_and_carries_the_oldest() -> None:
    session = Session(sizes=lambda _: 1000)
    session.up()
    session.lose_stream()
    session.links.cut("aiko")
    server = session.server
    server.traffic.say(50)
    session.wake()
    session.run(0.5)
    assert not server.channel.lane.recovery.may_send(SEALED_SIZE_MAX)
    before = server.datagrams
    due_s = server.channel.lane.next_timeout_s()
    assert due_s is not None
    server.channel.handle_timeout(now_s=due_s)
    out = server.channel.datagrams_to_send(now_s=due_s)
    assert len(out) == PROBES
    for _, data in out:
        (message,) = opened(session.client, data)
        assert isinstance(message, Message)
        assert message.seq == 1
    assert server.datagrams == before


def test_a_keepalive_that_stays_unanswered_is_probed_for_with_what_waits_or_with_a_ping() -> None:
    session = Session()
    session.up()
    session.lose_stream()
    session.run(1.0)
    session.links.cut("aiko")
    session.run(19.5)  # the keepalives have gone out
    out: list[Frame] = []
    client = session.client.channel
    due_s = client.lane.next_timeout_s()
    assert due_s is not None
    client.handle_timeout(now_s=due_s)
    for _, data in client.datagrams_to_send(now_s=due_s):
        out += opened(session.server, data)
    assert [frame for frame in out if not isinstance(frame, Ack)] == [Ping()] * PROBES
    session.client.traffic.say(1)
    due_s = client.lane.next_timeout_s()
    assert due_s is not None
    client.handle_timeout(now_s=due_s)
    out = [frame for _, data in client.datagrams_to_send(now_s=due_s) for frame in opened(session.server, data)]
    assert Publish(1, 1, 0, bytes(BODY_SIZE)) in out


# --- epochs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_both_sides_cross_into_the_next_epoch(seed: int) -> None:
    session = terrible(seed, loss=0.2)
    session.up()
    session.lose_stream()
    for side in session.sides:
        side.channel.lane._sealer.next_number = 2**keys.EPOCH_BITS - 10
    session.say(300)
    session.finish(within_s=60.0)
    for side in session.sides:
        assert side.channel.lane.largest > 2**20 + 10
        assert side.channel.lane._opener._epoch == 1


@pytest.mark.parametrize("seed", range(5))
def test_epochs_may_follow_each_other_closely(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "EPOCH_BITS", 7)
    session = terrible(seed, loss=0.2)
    session.up()
    session.lose_stream()
    for _ in range(4):
        session.say(500)
        session.run_until(session.is_done, within_s=60.0)
    for side in session.sides:
        assert side.channel.lane._opener._epoch >= 3


def test_while_nothing_can_be_sealed_all_goes_over_tls_until_an_acknowledgement_comes() -> None:
    session = Session(sizes=lambda _: 1000)
    session.up()
    sealer = session.server.channel.lane._sealer
    sealer.next_number = 2**keys.EPOCH_BITS - 3
    sealer.end = 2**keys.EPOCH_BITS
    session.server.traffic.say(12)
    session.wake()
    assert session.server.channel.lane.is_blocked
    assert not session.server.channel.carries
    assert len(session.server.recorded) >= 9
    session.run(1.0)
    assert not session.server.channel.lane.is_blocked
    assert session.are(PathState.UP)
    session.finish(within_s=5.0)


@pytest.mark.parametrize("has_tls", [True, False])
def test_a_channel_that_may_seal_nothing_for_good_waits_without_spinning(has_tls: bool) -> None:
    session = Session()
    session.up()
    session.say(5)
    session.client.channel.lane.disown()
    if not has_tls:
        session.lose_stream()
    receive(session, session.client, sealed(session.server, Challenge(bytes(8)), Ping(), Ping()), "server")
    session.trickle(10, every_s=1.0)
    session.run(60.0)
    assert session.client.channel.is_dead is not has_tls
    if has_tls:
        session.run_until(session.is_done, within_s=5.0)


def test_nothing_of_a_channel_shows_what_it_carries() -> None:
    session = Session()
    session.up()
    session.say(5)
    shown = f"{session.client.channel!r} {session.client.channel.lane!r} {session.client.channel.path!r}"
    assert "ssss" not in shown
    assert "\\x00" not in shown


def test_a_server_asks_for_no_sign_of_life_over_tls() -> None:
    session = Session()
    channel = session.server.channel
    channel.await_stream(now_s=0.0)
    channel.hear_stream(now_s=0.0)
    assert channel.next_timeout_s() is None
    assert not channel.handle_timeout(now_s=1000.0)
    assert channel.records_to_send(space=65_536, now_s=1000.0) == []
