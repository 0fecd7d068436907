"""Loss recovery: the rules of RFC 9002 and 6298 one by one, then whole transfers over a bad link."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocm.protocol.session.acks import HOLD_S, Acknowledger, delay_s
from ocm.protocol.session.recovery import (
    ACK_DELAY_MAX_S,
    BURST_SIZE,
    FIRST_WINDOW,
    LEAST_WINDOW,
    PROBES,
    Outcome,
    Recovery,
    RoundTrip,
)
from ocm.protocol.wire.frames import ACK_BITMAP_MAX, Ack, acked

SIZE = 1200


def named(ack: Ack | None) -> list[int]:
    """All that an ACK names."""
    assert ack is not None
    return acked(ack, range(ack.largest, max(-1, ack.largest - 8 * ACK_BITMAP_MAX - 1), -1))


def sending(count: int, *, now_s: float = 0.0, apart_s: float = 0.0) -> Recovery[int]:
    recovery = Recovery[int]()
    for number in range(count):
        recovery.send(number, SIZE, number, now_s=now_s + number * apart_s)
    return recovery


# --- the round trip -------------------------------------------------------------------------------------------


def test_the_first_sample_sets_both_estimates() -> None:
    round_trip = RoundTrip()
    assert round_trip.timeout_s == 1.0
    round_trip.measure(0.1, delay_s=0.02)
    assert (round_trip.smoothed_s, round_trip.variation_s) == (0.1, 0.05)
    assert round_trip.timeout_s == pytest.approx(0.1 + 0.2 + 0.025)


def test_later_samples_are_smoothed_less_the_peers_delay() -> None:
    round_trip = RoundTrip()
    round_trip.measure(0.1, delay_s=0.0)
    round_trip.measure(0.2, delay_s=0.02)
    assert round_trip.variation_s == pytest.approx(0.75 * 0.05 + 0.25 * 0.08)
    assert round_trip.smoothed_s == pytest.approx(0.1 * 7 / 8 + 0.18 / 8)


def test_a_peer_cannot_claim_more_delay_than_it_may_or_than_fits() -> None:
    round_trip = RoundTrip()
    round_trip.measure(0.1, delay_s=0.0)
    round_trip.measure(0.2, delay_s=9.0)
    assert round_trip.smoothed_s == pytest.approx(0.1 * 7 / 8 + 0.175 / 8)
    round_trip.measure(0.11, delay_s=0.025)
    assert round_trip.smoothed_s == pytest.approx((0.1 * 7 / 8 + 0.175 / 8) * 7 / 8 + 0.11 / 8)


# --- loss -----------------------------------------------------------------------------------------------------


def test_a_packet_is_lost_when_one_three_later_came() -> None:
    recovery = sending(4)
    assert recovery.acknowledge([2, 1], delay_s=0, now_s=0.05) == Outcome([2, 1], [])
    assert recovery.acknowledge([3], delay_s=0, now_s=0.05) == Outcome([3], [0])
    assert recovery._under_way == 0
    assert recovery.next_timeout_s() is None


def test_a_packet_is_lost_when_a_later_one_came_and_time_has_passed() -> None:
    recovery = sending(2)
    assert recovery.acknowledge([1], delay_s=0, now_s=0.08) == Outcome([1], [])
    assert recovery.next_timeout_s() == pytest.approx(0.09)
    assert recovery.handle_timeout(now_s=0.0899) == Outcome()
    assert recovery.handle_timeout(now_s=recovery.next_timeout_s() or 0) == Outcome(lost=[0])
    assert recovery.next_timeout_s() is None


def test_the_last_packets_are_probed_for_twice_as_late_each_time_but_never_over_two_seconds() -> None:
    recovery = sending(2)
    assert recovery.oldest() == 0
    waits: list[float] = []
    now_s = 0.0
    for _ in range(4):
        due_s = recovery.next_timeout_s()
        assert due_s is not None
        waits.append(due_s - now_s)
        assert recovery.handle_timeout(now_s=due_s - 0.001) == Outcome()
        now_s = due_s
        assert recovery.handle_timeout(now_s=now_s) == Outcome(probes=PROBES)
    assert waits == pytest.approx([1.0, 2.0, 2.0, 2.0])
    assert recovery.timeouts_in_a_row == 4
    recovery.acknowledge([1], delay_s=0, now_s=now_s)
    assert recovery.timeouts_in_a_row == 0


def test_who_says_a_little_all_the_time_does_not_put_the_probe_off() -> None:
    recovery = sending(20, apart_s=0.1)
    assert recovery.next_timeout_s() == 1.0
    recovery.acknowledge([0], delay_s=0, now_s=1.95)
    assert recovery.next_timeout_s() == pytest.approx(1.95 + 2.0)  # counted from what was heard


def test_an_acknowledgement_of_nothing_new_changes_nothing() -> None:
    recovery = sending(1)
    assert recovery.acknowledge([], delay_s=0, now_s=0.1) == Outcome()
    assert recovery.acknowledge([0], delay_s=0, now_s=0.1) == Outcome([0])
    assert recovery.acknowledge([0], delay_s=0, now_s=5.0) == Outcome()
    assert recovery.round_trip.latest_s == 0.1
    assert recovery.oldest() is None


def test_another_way_gives_everything_back() -> None:
    recovery = sending(3)
    assert recovery.under_way_up_to(1) == [1, 0]
    assert recovery.forget() == [0, 1, 2]
    assert (recovery._under_way, recovery.next_timeout_s(), recovery.oldest()) == (0, None, None)
    assert recovery.under_way_up_to(9) == []


def test_another_path_is_learned_anew_from_packets_that_went_by_it() -> None:
    recovery = sending(10)
    recovery.acknowledge([0], delay_s=0, now_s=0.3)
    assert recovery.window.size > FIRST_WINDOW
    recovery.handle_timeout(now_s=2.0)
    assert recovery.timeouts_in_a_row == 1
    recovery.renew()
    assert recovery.timeouts_in_a_row == 0
    assert recovery.acknowledge([9], delay_s=0, now_s=2.1) == Outcome([9], [1, 2, 3, 4, 5, 6, 7, 8])
    assert recovery.round_trip.smoothed_s is None
    assert recovery.window.size == FIRST_WINDOW
    for number in range(10, 14):
        recovery.send(number, SIZE, number, now_s=3.0)
    assert recovery.acknowledge([13], delay_s=0, now_s=3.1).lost == [10]
    assert recovery.round_trip.smoothed_s == pytest.approx(0.1)
    assert recovery.window.size == FIRST_WINDOW // 2


def test_without_a_timeout_due_nothing_happens() -> None:
    assert Recovery[int]().handle_timeout(now_s=9.0) == Outcome()


# --- the window -----------------------------------------------------------------------------------------------


def test_ten_datagrams_may_leave_at_first_and_twice_as_many_a_round_trip_later() -> None:
    recovery = sending(10)
    assert not recovery.may_send(SIZE)
    recovery.acknowledge(range(9, -1, -1), delay_s=0, now_s=0.1)
    assert recovery.window.size == 2 * FIRST_WINDOW
    assert recovery.may_send(SIZE)


def test_a_window_that_is_not_used_does_not_grow() -> None:
    recovery = sending(2)
    recovery.acknowledge([1, 0], delay_s=0, now_s=0.1)
    assert recovery.window.size == FIRST_WINDOW


def test_losses_of_one_flight_halve_it_once() -> None:
    recovery = sending(10)
    assert recovery.acknowledge([9], delay_s=0, now_s=0.1).lost == [0, 1, 2, 3, 4, 5, 6]
    halved = (FIRST_WINDOW + SIZE) // 2  # after the 9th had made it grow
    assert recovery.window.size == halved
    recovery.acknowledge([8, 7], delay_s=0, now_s=0.1)
    assert recovery.window.size == halved


def test_it_never_shrinks_below_four_datagrams_and_then_grows_slowly() -> None:
    recovery = Recovery[int]()
    now_s, number = 0.0, 0
    for _ in range(6):
        for _ in range(4):
            recovery.send(number, SIZE, number, now_s=now_s)
            number += 1
        now_s += 0.1
        recovery.acknowledge([number - 1], delay_s=0, now_s=now_s)
        now_s += 0.1
    assert recovery.window.size == LEAST_WINDOW
    recovery.forget()
    for _ in range(4):
        recovery.send(number, SIZE, number, now_s=now_s)
        number += 1
    recovery.acknowledge(range(number - 1, number - 5, -1), delay_s=0, now_s=now_s + 0.1)
    assert LEAST_WINDOW < recovery.window.size < LEAST_WINDOW + 2 * SIZE


def test_datagrams_leave_in_bursts_of_ten_then_at_the_pace_of_the_window() -> None:
    recovery = Recovery[int]()
    recovery.round_trip.measure(0.1, delay_s=0)
    for number in range(10):
        assert recovery.window.wait_s(0.1, now_s=0.0) == 0
        recovery.send(number, SIZE, number, now_s=0.0)
    wait_s = recovery.window.wait_s(0.1, now_s=0.0)
    assert 0 < wait_s < 0.001
    recovery.send(10, SIZE, 10, now_s=0.0)
    paced_s = recovery.window.wait_s(0.1, now_s=0.0)
    assert paced_s == pytest.approx(SIZE * 0.1 / (1.25 * FIRST_WINDOW), rel=0.01)
    assert recovery.window.wait_s(0.1, now_s=paced_s * 1.001) == 0
    assert recovery.window.wait_s(0.1, now_s=99.0) == 0
    assert BURST_SIZE == 10 * SIZE


# --- acknowledgements -----------------------------------------------------------------------------------------


def test_every_second_packet_is_acknowledged_at_once_a_single_one_within_25_ms() -> None:
    owed = Acknowledger()
    owed.receive(0, eliciting=True, now_s=1.0)
    assert owed.next_timeout_s() == pytest.approx(1.015)
    owed.receive(1, eliciting=True, now_s=1.01)
    assert owed.next_timeout_s() == 1.01
    ack = owed.ack(now_s=1.02)
    assert ack is not None
    assert named(ack) == [1, 0]
    assert delay_s(ack) == pytest.approx(0.01)
    assert owed.next_timeout_s() is None
    assert owed.ack(now_s=1.02) is None


def acknowledged_at_once(owed: Acknowledger, numbers: Iterable[int]) -> list[int]:
    """Receive packets, a millisecond apart; return those behind which an ACK was sent at once."""
    told: list[int] = []
    for number in numbers:
        owed.receive(number, eliciting=True, now_s=number / 1000)
        if owed.next_timeout_s() == number / 1000:
            assert owed.ack(now_s=number / 1000) is not None
            told.append(number)
    return told


def test_on_a_calm_path_every_eighth_packet_is_acknowledged_at_once() -> None:
    owed = Acknowledger()
    assert acknowledged_at_once(owed, range(40)) == [1, 3, 5, 7, 9, 11, 13, 21, 29, 37]
    assert owed.next_timeout_s() == pytest.approx(0.038 + HOLD_S), "what waits longest says when"
    assert acknowledged_at_once(owed, range(41, 48)) == [41, 43, 45, 47], "one is missing: no calm"
    assert acknowledged_at_once(owed, (40, *range(48, 71))) == [40, 49, 51, 53, 55, 57, 59, 61, 69]
    assert HOLD_S < ACK_DELAY_MAX_S


def test_what_came_out_of_order_is_acknowledged_at_once() -> None:
    owed = Acknowledger()
    owed.receive(0, eliciting=True, now_s=1.0)
    owed.ack(now_s=1.0)
    owed.receive(2, eliciting=True, now_s=1.1)
    assert owed.next_timeout_s() == 1.1
    owed.ack(now_s=1.1)
    owed.receive(1, eliciting=True, now_s=1.2)
    assert owed.next_timeout_s() == 1.2
    ack = owed.ack(now_s=1.2)
    assert ack is not None
    assert named(ack) == [2, 1, 0]


def test_an_acknowledgement_alone_owes_none() -> None:
    owed = Acknowledger()
    owed.receive(0, eliciting=False, now_s=1.0)
    assert owed.next_timeout_s() is None
    assert owed.ack(now_s=1.0) is None


def test_what_comes_too_late_to_be_named_is_forgotten() -> None:
    owed = Acknowledger()
    for number in (0, 200, 72, 71):
        owed.receive(number, eliciting=True, now_s=1.0)
    assert named(owed.ack(now_s=1.0)) == [200, 72]
    owed.receive(10**9, eliciting=True, now_s=1.0)
    assert named(owed.ack(now_s=1.0)) == [10**9]


@given(st.lists(st.integers(0, 300), min_size=1, max_size=60, unique=True))
def test_an_acknowledgement_names_whatever_came_of_the_newest_129(came: list[int]) -> None:
    owed = Acknowledger()
    for number in came:
        owed.receive(number, eliciting=True, now_s=1.0)
    places = sorted(range(len(came)), key=lambda place: came[place], reverse=True)
    kept = [came[place] for place in places if came[place] > max(came[: place + 1]) - 129]
    assert named(owed.ack(now_s=1.0)) == [number for number in kept if number > max(came) - 129]


def test_an_acknowledgement_names_the_newest_129() -> None:
    owed = Acknowledger()
    for number in range(1000):
        owed.receive(number, eliciting=True, now_s=1.0)
    ack = owed.ack(now_s=100.0)
    assert ack is not None
    assert named(ack) == list(range(999, 870, -1))
    assert ack.delay == 65_535


# --- whole transfers ------------------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 2**32),
    loss=st.sampled_from([0.0, 0.01, 0.1, 0.3, 0.5]),
    count=st.integers(1, 80),
    jitter_s=st.sampled_from([0.0, 0.05, 0.2]),
)
def test_everything_arrives_over_a_bad_link(seed: int, loss: float, count: int, jitter_s: float) -> None:
    """One side sends ``count`` things, and again what was lost; packets and ACKs vanish and overtake each other."""
    chance = Random(seed)
    recovery, owed = Recovery[int](), Acknowledger()
    waiting, arrived, settled = list(range(count)), set[int](), set[int]()
    flying: list[tuple[float, int, tuple[int, int] | list[int]]] = []
    now_s, number, order = 0.0, 0, 0

    def fly(what: tuple[int, int] | list[int]) -> None:
        """Send a packet's number and content, or the numbers of an ACK."""
        nonlocal order
        if chance.random() >= loss:
            order += 1
            heapq.heappush(flying, (now_s + 0.02 + chance.random() * jitter_s, order, what))

    def send(content: int) -> None:
        nonlocal number
        recovery.send(number, SIZE, content, now_s=now_s)
        fly((number, content))
        number += 1

    def settle(outcome: Outcome[int]) -> None:
        settled.update(outcome.acknowledged)
        waiting.extend(content for content in outcome.lost if content not in settled)
        oldest = recovery.oldest()
        for _ in range(outcome.probes):
            send(waiting.pop(0) if waiting else oldest if oldest is not None else 0)

    for _ in range(100_000):
        while waiting and recovery.may_send(SIZE):
            send(waiting.pop(0))
        assert recovery.window.size >= LEAST_WINDOW
        if len(settled) == count:
            break
        timers = (recovery.next_timeout_s(), owed.next_timeout_s(), flying[0][0] if flying else None)
        now_s = max(now_s, min(at_s for at_s in timers if at_s is not None))
        while flying and flying[0][0] <= now_s:
            _, _, what = heapq.heappop(flying)
            if isinstance(what, tuple):
                arrived.add(what[1])
                owed.receive(what[0], eliciting=True, now_s=now_s)
            else:
                settle(recovery.acknowledge(what, delay_s=0.0, now_s=now_s))
        due_s = owed.next_timeout_s()
        if due_s is not None and due_s <= now_s and (ack := owed.ack(now_s=now_s)) is not None:
            fly(named(ack))
        due_s = recovery.next_timeout_s()
        if due_s is not None and due_s <= now_s:
            settle(recovery.handle_timeout(now_s=now_s))
    assert settled == set(range(count)) <= arrived
    assert recovery._under_way >= 0
