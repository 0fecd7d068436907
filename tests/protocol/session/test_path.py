"""Whether datagrams get through: every step of the table, every time in it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocm.protocol.session.path import (
    PROBE_AGAIN_S,
    PROBE_ANSWER_S,
    PROBES_S,
    STEPS,
    SUSPECT_MAX_S,
    Cause,
    Path,
    PathState,
)

START_S = 100.0


class Counting:
    """Challenges that tell each other apart."""

    def __init__(self) -> None:
        self.drawn = 0

    def __call__(self, size: int) -> bytes:
        self.drawn += 1
        return self.drawn.to_bytes(size, "big")


def path_of(*, calls: bool = True) -> Path:
    return Path(calls=calls, randomness=Counting())


def let_it_be_unanswered(path: Path, now_s: float) -> None:
    """Let time pass until nobody answers any more."""
    while path.state in {PathState.PROBING, PathState.SUSPECT}:
        due_s = path.next_timeout_s()
        assert due_s is not None
        path.probe(now_s=due_s)


CAUSES: dict[Cause, Callable[[Path, float], object]] = {
    Cause.BEGIN: lambda path, now_s: path.begin(now_s=now_s),
    Cause.AGAIN: lambda path, now_s: path.begin_again(now_s=now_s),
    Cause.ANSWERED: lambda path, now_s: path.prove(now_s=now_s),
    Cause.SUSPECT: lambda path, now_s: path.suspect(now_s=now_s),
    Cause.UNANSWERED: let_it_be_unanswered,
}
WAYS: dict[PathState, tuple[Cause, ...]] = {
    PathState.NONE: (),
    PathState.PROBING: (Cause.BEGIN,),
    PathState.UP: (Cause.BEGIN, Cause.ANSWERED),
    PathState.SUSPECT: (Cause.BEGIN, Cause.ANSWERED, Cause.SUSPECT),
    PathState.DOWN: (Cause.BEGIN, Cause.UNANSWERED),
}


def path_in(state: PathState, *, calls: bool = True) -> Path:
    path = path_of(calls=calls)
    for cause in WAYS[state]:
        CAUSES[cause](path, START_S)
    assert path.state is state
    return path


def probes_of(path: Path, *, until_s: float) -> list[float]:
    """Let time pass; return when it was probed."""
    times: list[float] = []
    while (due_s := path.next_timeout_s()) is not None and due_s <= until_s:
        assert path.probe(now_s=due_s - 0.001) is None
        if path.probe(now_s=due_s) is not None:
            times.append(due_s)
        following_s = path.next_timeout_s()
        assert following_s is None or following_s > due_s
    return times


@pytest.mark.parametrize(("state", "cause"), [*product(PathState, Cause)], ids=str)
def test_every_step_is_that_of_the_table_and_no_other(state: PathState, cause: Cause) -> None:
    path = path_in(state)
    if cause is Cause.UNANSWERED and state not in {PathState.PROBING, PathState.SUSPECT}:
        assert (state, cause) not in STEPS
        return
    CAUSES[cause](path, START_S + 50.0)
    assert path.state is STEPS.get((state, cause), state)


def test_a_round_of_probes_goes_out_at_its_times_and_ends_two_seconds_after_the_last() -> None:
    path = path_of()
    path.begin(now_s=START_S)
    times = probes_of(path, until_s=START_S + 9.999)
    assert times == [START_S + probe_s for probe_s in PROBES_S]
    assert path.next_timeout_s() == times[-1] + PROBE_ANSWER_S
    assert path.probe(now_s=START_S + 10.0) is None
    assert path.state is PathState.DOWN


def test_a_client_probes_anew_thirty_seconds_later_a_server_never() -> None:
    client, server = path_in(PathState.DOWN), path_in(PathState.DOWN, calls=False)
    assert client.next_timeout_s() == START_S + 10.0 + PROBE_AGAIN_S
    assert client.probe(now_s=START_S + 40.0) is not None
    assert client.state is PathState.PROBING
    assert client.next_timeout_s() == START_S + 40.0 + PROBES_S[1]
    assert server.next_timeout_s() is None
    server.begin(now_s=START_S + 99.0)
    assert server.probe(now_s=START_S + 99.0) is not None


def test_probes_that_were_slept_through_are_one() -> None:
    path = path_of()
    path.begin(now_s=START_S)
    assert path.probe(now_s=START_S + 3.0) is not None  # those of 0, 0.3, 0.7, 1.5 and 2.5
    assert path.next_timeout_s() == START_S + 4.0
    assert path.probe(now_s=START_S + 3.999) is None
    assert path.probe(now_s=START_S + 8 * 3600.0) is not None
    assert path.next_timeout_s() == START_S + 8 * 3600.0 + PROBE_ANSWER_S


def test_a_suspect_path_is_probed_each_second_for_ten() -> None:
    path = path_in(PathState.SUSPECT)
    assert probes_of(path, until_s=START_S + 9.5) == [START_S + second for second in range(10)]
    assert path.next_timeout_s() == START_S + SUSPECT_MAX_S
    assert path.probe(now_s=START_S + SUSPECT_MAX_S) is None
    assert path.state is PathState.DOWN


def test_a_suspect_path_is_given_up_after_ten_seconds_however_late_its_probes_were() -> None:
    path = path_in(PathState.SUSPECT)
    path.probe(now_s=START_S)
    assert path.probe(now_s=START_S + 9.5) is not None
    assert path.next_timeout_s() == START_S + SUSPECT_MAX_S


@pytest.mark.parametrize("state", [PathState.PROBING, PathState.SUSPECT])
def test_only_the_answer_to_this_rounds_challenge_counts(state: PathState) -> None:
    path = path_in(state)
    challenge = path.probe(now_s=START_S)
    assert challenge is not None
    assert path.respond(b"guessed!", now_s=START_S) is False
    assert path.respond(b"", now_s=START_S) is False
    assert path.state is state
    assert path.respond(challenge, now_s=START_S + 0.1) is True
    assert path.state is PathState.UP
    assert path.next_timeout_s() is None
    assert path.probe(now_s=START_S + 99.0) is None
    assert path.respond(challenge, now_s=START_S + 0.1) is False  # it was answered


def test_beginning_again_asks_anew_and_starts_every_time_anew() -> None:
    path = path_in(PathState.SUSPECT)
    before = path.probe(now_s=START_S)
    assert before is not None
    path.begin_again(now_s=START_S + 3600.0)
    after = path.probe(now_s=START_S + 3600.0)
    assert after not in {None, before}
    assert path.respond(before, now_s=START_S + 3600.1) is False
    assert probes_of(path, until_s=START_S + 3609.5) == [START_S + 3600.0 + second for second in range(1, 10)]


steps = st.lists(st.tuples(st.sampled_from([*Cause]), st.floats(0.0, 40.0)), max_size=30)


@given(steps, st.booleans())
def test_whatever_happens_the_next_time_lies_ahead_once_the_last_was_attended_to(
    happenings: list[tuple[Cause, float]], calls: bool
) -> None:
    path = path_of(calls=calls)
    now_s = 0.0
    for cause, wait_s in happenings:
        now_s += wait_s
        if cause is not Cause.UNANSWERED:
            CAUSES[cause](path, now_s)
        path.probe(now_s=now_s)
        due_s = path.next_timeout_s()
        assert due_s is None or due_s > now_s
        assert (due_s is None) == (
            path.state in {PathState.NONE, PathState.UP} or (path.state is PathState.DOWN and not calls)
        )
