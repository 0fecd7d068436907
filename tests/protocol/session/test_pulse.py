"""Whether TLS still carries anything: when to ask, when to give up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocm.protocol.session.pulse import LATE_S, PONG_S, SILENCE_S, UNANSWERED_S, Beat, Pulse


def test_after_fifteen_seconds_of_silence_it_asks_soon_wants_another_and_five_later_it_gives_up() -> None:
    pulse = Pulse(now_s=100.0)
    assert pulse.next_timeout_s() == 100.0 + SILENCE_S
    assert pulse.beat(now_s=114.999) is None
    assert pulse.beat(now_s=115.0) is Beat.PING
    assert pulse.next_timeout_s() == 115.0 + LATE_S
    assert pulse.beat(now_s=116.499) is None
    assert not pulse.is_late
    assert pulse.beat(now_s=116.5) is Beat.LATE
    assert pulse.is_late
    assert pulse.next_timeout_s() == 115.0 + PONG_S
    assert pulse.beat(now_s=119.999) is None
    assert pulse.beat(now_s=120.0) is Beat.DEAD
    assert pulse.next_timeout_s() is None
    assert pulse.beat(now_s=999.0) is None


@pytest.mark.parametrize(("round_trip_s", "late_s"), [(0.05, LATE_S), (0.5, LATE_S), (1.0, 3.0), (4.0, PONG_S)])
def test_an_answer_is_late_after_three_round_trips(round_trip_s: float, late_s: float) -> None:
    pulse = Pulse(now_s=0.0, round_trip_s=round_trip_s)
    pulse.ask(now_s=1.0)
    pulse.beat(now_s=1.0)
    assert pulse.next_timeout_s() == 1.0 + late_s


def test_a_second_after_something_that_nothing_came_back_for_it_asks() -> None:
    pulse = Pulse(now_s=100.0)
    pulse.say(now_s=103.0)
    pulse.say(now_s=103.5)  # counted from the first
    assert pulse.next_timeout_s() == 103.0 + UNANSWERED_S
    assert pulse.beat(now_s=104.0) is Beat.PING


def test_where_somebody_waits_it_asks_at_once_and_once() -> None:
    pulse = Pulse(now_s=100.0)
    assert pulse.wait(now_s=103.0)
    assert not pulse.wait(now_s=104.0)
    assert pulse.next_timeout_s() == 103.0 + LATE_S
    assert not pulse.wait(now_s=104.5), "what is due stays due"
    assert pulse.beat(now_s=104.5) is Beat.LATE
    assert not pulse.wait(now_s=108.0)
    assert pulse.beat(now_s=108.0) is Beat.DEAD
    pulse.hear(now_s=108.1)
    assert not pulse.is_late
    assert pulse.wait(now_s=108.2)


def test_what_was_sent_near_the_end_of_a_silence_puts_nothing_off() -> None:
    pulse = Pulse(now_s=100.0)
    pulse.say(now_s=114.0)
    assert pulse.next_timeout_s() == 115.0


def test_whatever_comes_starts_the_silence_anew() -> None:
    pulse = Pulse(now_s=100.0)
    pulse.say(now_s=101.0)
    pulse.hear(now_s=102.0)
    assert pulse.next_timeout_s() == 117.0
    assert pulse.beat(now_s=117.0) is Beat.PING
    pulse.hear(now_s=118.0)
    assert pulse.next_timeout_s() == 133.0
    pulse.say(now_s=120.0)
    assert pulse.next_timeout_s() == 121.0


def test_after_a_sleep_it_asks_at_once_and_waits_for_the_answer_to_that() -> None:
    pulse = Pulse(now_s=100.0)
    pulse.ask(now_s=101.0)
    assert pulse.beat(now_s=101.0) is Beat.PING
    pulse.ask(now_s=9000.0)  # it slept with a question open
    assert pulse.beat(now_s=9000.0) is Beat.PING
    assert pulse.next_timeout_s() == 9000.0 + LATE_S


def test_a_connection_given_up_asks_for_nothing_unless_it_is_heard_after_all() -> None:
    pulse = Pulse(now_s=100.0)
    for at_s in (115.0, 116.5, 120.0):
        pulse.beat(now_s=at_s)
    pulse.say(now_s=121.0)
    pulse.ask(now_s=121.0)
    pulse.wait(now_s=121.0)
    assert pulse.next_timeout_s() is None
    pulse.hear(now_s=122.0)
    assert pulse.next_timeout_s() == 137.0


@given(
    st.lists(st.tuples(st.sampled_from(["hear", "say", "ask", "wait", "nothing"]), st.floats(0.0, 20.0)), max_size=30)
)
def test_whatever_happens_the_next_time_lies_ahead_once_the_last_was_attended_to(
    happenings: list[tuple[str, float]],
) -> None:
    pulse = Pulse(now_s=0.0)
    now_s = 0.0
    for happening, wait_s in happenings:
        now_s += wait_s
        match happening:
            case "hear":
                pulse.hear(now_s=now_s)
            case "say":
                pulse.say(now_s=now_s)
            case "ask":
                pulse.ask(now_s=now_s)
            case "wait":
                pulse.wait(now_s=now_s)
            case _:
                pass
        pulse.beat(now_s=now_s)
        due_s = pulse.next_timeout_s()
        assert due_s is None or due_s > now_s
