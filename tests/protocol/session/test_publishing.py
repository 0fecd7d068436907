"""The two ends of publishing: each message in the log once and in order, and its author told once."""

from __future__ import annotations

import heapq
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocm.errors import LocalProtocolError
from ocm.protocol.limits import ANSWER_WAIT_MAX_S
from ocm.protocol.session.publishing import (
    ANSWERS_KEPT,
    HELD_BYTES_MAX,
    UNSETTLED_MAX,
    Intake,
    Publisher,
    Settled,
    Status,
)
from ocm.protocol.wire.frames import MESSAGE_ID_MAX, Message, Publish, Published

ROOM = 7


def attached(*texts: bytes, mark: int = 0) -> Publisher:
    publisher = Publisher(mark=mark)
    for text in texts:
        publisher.post(text)
    publisher.attach(ROOM, mark=mark)
    return publisher


def send(publisher: Publisher, now_s: float = 0.0) -> list[int]:
    sent: list[int] = []
    while (publish := publisher.next(now_s=now_s)) is not None:
        sent.append(publish.message_id)
    return sent


def said(message_id: int, body: bytes = b"text") -> Publish:
    return Publish(ROOM, message_id, 0, body)


def yes(message_id: int, seq: int) -> Published:
    return Published(ROOM, message_id, 0, seq, 0)


# --- the client's end -----------------------------------------------------------------------------------------


def test_nothing_is_sent_before_the_server_is_known() -> None:
    publisher = Publisher()
    assert publisher.post(b"one") == 1
    assert publisher.next(now_s=0.0) is None
    assert publisher.next_timeout_s() is None
    publisher.attach(ROOM, mark=0)
    assert publisher.next_timeout_s() == 0.0
    assert publisher.next(now_s=0.0) == said(1, b"one")
    assert publisher.next_timeout_s() == 5.0


def test_authors_are_told_once_and_in_the_order_of_posting() -> None:
    publisher = attached(b"a", b"b", b"c")
    assert send(publisher) == [1, 2, 3]
    assert publisher.answer(yes(2, 12), now_s=0.1) == []
    assert publisher.answer(yes(1, 11), now_s=0.1) == [Settled(1, 0, 11), Settled(2, 0, 12)]
    assert publisher.answer(yes(2, 12), now_s=0.1) == []
    assert publisher.answer(Published(ROOM, 3, 16, 0, 0), now_s=0.1) == [Settled(3, 16, 0)]
    assert publisher.is_settled
    assert publisher.next_timeout_s() is None


def test_our_own_message_in_the_log_settles_it_too() -> None:
    publisher = attached(b"a", b"b")
    send(publisher)
    own = Message(ROOM, 11, 3, 1, 0, 0, 0, b"a")
    assert publisher.hear(own) == [Settled(1, 0, 11)]
    assert publisher.hear(own) == []
    assert publisher.hear(own._replace(message_id=2, seq=12)) == [], "other words: those of a life we forgot"
    assert publisher.hear(own._replace(message_id=2, seq=12, body=b"b")) == [Settled(2, 0, 12)]


def test_what_is_given_up_is_told_as_unknown_and_never_sent_again() -> None:
    publisher = attached(b"a", b"b", b"c", b"d")
    publisher.stored_up_to = 3
    assert send(publisher) == [1, 2, 3]
    assert publisher.sent_up_to == 3
    assert publisher.answer(yes(2, 12), now_s=0.0) == []
    assert publisher.forget(publisher.sent_up_to) == [Settled(1, None, 0), Settled(2, 0, 12), Settled(3, None, 0)]
    assert publisher.lowest_id == 4
    publisher.stored_up_to = 4
    assert send(publisher, 99.0) == [4]
    assert publisher.forget(0) == []


def test_what_waited_for_a_message_that_is_given_up_is_told() -> None:
    publisher = attached(b"a", b"b", b"c")
    send(publisher)
    publisher.answer(yes(2, 12), now_s=0.0)
    assert publisher.forget(1) == [Settled(1, None, 0), Settled(2, 0, 12)]
    assert publisher.lowest_id == 3


def test_what_never_left_is_numbered_above_what_the_server_took() -> None:
    publisher = attached(b"a", b"b", b"c", b"d", mark=4)
    publisher.stored_up_to = 6
    assert send(publisher) == [5, 6]
    publisher.detach()
    assert publisher.renumber(6) is None
    assert publisher.renumber(20) == (7, 8, 14)
    assert publisher.last_id == 22
    publisher.attach(ROOM, mark=20)
    assert publisher.post(b"e") == 23
    publisher.stored_up_to = 23
    assert send(publisher) == [5, 6, 21, 22, 23]
    publisher.answer(yes(21, 9), now_s=0.0)
    assert publisher.forget(6) == [Settled(5, None, 0), Settled(6, None, 0), Settled(21, 0, 9)]
    assert Publisher(mark=3).renumber(9) is None


def test_new_numbers_may_be_old_ones_of_others() -> None:
    publisher = Publisher(mark=4)
    for text in (b"a", b"b", b"c", b"d"):
        publisher.post(text)
    publisher.answer(yes(7, 9), now_s=0.0)
    assert publisher.renumber(5) == (5, 8, 1)
    publisher.attach(ROOM, mark=5)
    assert [(one.message_id, one.body) for one in iter(lambda: publisher.next(now_s=0.0), None)] == [
        (6, b"a"),
        (7, b"b"),
        (9, b"d"),
    ]
    assert publisher.forget(7) == [Settled(6, None, 0), Settled(7, None, 0), Settled(8, 0, 9)]


def test_messages_from_before_are_taken_up_and_leave_when_they_are_stored() -> None:
    publisher = Publisher(mark=4)
    publisher.recall(3, 0, b"three")
    publisher.recall(5, 0, b"five")
    publisher.stored_up_to = 4
    publisher.attach(ROOM, mark=0)
    assert publisher.post(b"six") == 6
    assert send(publisher) == [3]
    publisher.stored_up_to = 6
    assert send(publisher) == [5, 6]


def test_what_went_over_a_lost_connection_goes_again() -> None:
    publisher = attached(b"a", b"b")
    send(publisher)
    publisher.rewind()
    assert send(publisher, 0.1) == [1, 2]


def test_what_was_lost_goes_again_and_what_is_silent_after_5_seconds() -> None:
    publisher = attached(b"a", b"b")
    assert send(publisher) == [1, 2]
    publisher.lose(2)
    publisher.lose(9)
    assert send(publisher, 1.0) == [2]
    assert send(publisher, 4.9) == []
    assert send(publisher, 5.0) == [1]
    publisher.answer(yes(2, 1), now_s=5.0)
    assert send(publisher, 99.0) == [1]


def test_64_are_under_way() -> None:
    publisher = attached(*[b"x"] * 100)
    assert send(publisher) == list(range(1, UNSETTLED_MAX + 1))
    publisher.answer(yes(2, 2), now_s=0.0)
    assert send(publisher) == []
    publisher.answer(yes(1, 1), now_s=0.0)
    assert send(publisher) == [65, 66]


def test_no_server_holds_a_message_up_for_more_than_a_minute_by_one_answer() -> None:
    publisher = attached(b"a")
    assert send(publisher) == [1]
    publisher.answer(Published(ROOM, 1, Status.RATE_LIMITED, 0, 2**64 - 1), now_s=10.0)
    assert publisher.next_timeout_s() == 10.0 + ANSWER_WAIT_MAX_S
    assert send(publisher, 10.0 + ANSWER_WAIT_MAX_S) == [1]


def test_a_temporary_refusal_holds_that_one_and_all_behind_it() -> None:
    publisher = attached(b"a", b"b", b"c")
    send(publisher)
    assert publisher.answer(Published(ROOM, 2, Status.RATE_LIMITED, 0, 1500), now_s=10.0) == []
    assert publisher.answer(Published(ROOM, 3, Status.RATE_LIMITED, 0, 500), now_s=10.0) == []
    assert publisher.next_timeout_s() == 11.5
    assert send(publisher, 11.4) == []
    assert send(publisher, 11.5) == [1, 2, 3]  # the first has been silent for long


def test_a_lost_connection_sends_everything_again_and_new_ids_lie_above_the_mark() -> None:
    publisher = attached(b"a", b"b")
    send(publisher)
    publisher.answer(yes(1, 1), now_s=0.0)
    publisher.detach()
    assert publisher.lowest_id == 2
    assert send(publisher) == []
    publisher.attach(8, mark=40)
    assert publisher.next(now_s=0.0) == Publish(8, 2, 0, b"b")
    assert publisher.post(b"c") == 41
    assert publisher.lowest_id == 2
    publisher.answer(yes(2, 2), now_s=0.0)
    publisher.answer(yes(41, 3), now_s=0.0)
    assert publisher.lowest_id == 42


def test_ids_end() -> None:
    publisher = Publisher(mark=MESSAGE_ID_MAX)
    with pytest.raises(LocalProtocolError, match="no message id"):
        publisher.post(b"x")


# --- the server's end -----------------------------------------------------------------------------------------


def take_all(intake: Intake) -> list[int]:
    taken: list[int] = []
    while (publish := intake.next()) is not None:
        intake.take(publish)
        taken.append(publish.message_id)
    return taken


def test_messages_are_taken_once_and_in_order() -> None:
    intake = Intake()
    for message_id in (2, 3, 2):
        assert intake.offer(said(message_id)) is None
    assert take_all(intake) == []
    intake.offer(said(1))
    assert take_all(intake) == [1, 2, 3]
    assert intake.offer(said(2)) is None
    assert take_all(intake) == []


def test_what_is_on_its_way_into_the_journal_takes_no_room_when_it_comes_again() -> None:
    intake = Intake()
    large = bytes(HELD_BYTES_MAX // 2)
    intake.offer(said(1, large))
    assert take_all(intake) == [1]
    for _ in range(2):
        intake.offer(said(1, large))
    intake.offer(said(3, large))
    intake.offer(said(2))
    assert take_all(intake) == [2, 3]


def test_what_is_sent_again_is_answered_from_memory() -> None:
    intake = Intake()
    for message_id in range(1, ANSWERS_KEPT + 2):
        intake.offer(said(message_id))
        assert take_all(intake) == [message_id]
        assert intake.settle(ROOM, message_id, 0, seq=message_id + 5, time_ms=9).seq == message_id + 5
    assert intake.offer(said(2)) == Published(ROOM, 2, 0, 7, 9)
    assert intake.offer(said(2, b"other words")) == Published(ROOM, 2, Status.ID_REUSED, 0, 0)
    assert intake.offer(said(1)) is None


def test_messages_are_settled_in_order() -> None:
    intake = Intake()
    intake.offer(said(1))
    intake.offer(said(2))
    take_all(intake)
    with pytest.raises(LocalProtocolError, match="order"):
        intake.settle(ROOM, 2, 0, seq=1, time_ms=0)
    with pytest.raises(LocalProtocolError, match="order"):
        Intake().settle(ROOM, 1, 0, seq=1, time_ms=0)


def test_a_deferred_message_holds_back_all_behind_it_until_it_comes_again() -> None:
    intake = Intake()
    for message_id in (1, 2, 3):
        intake.offer(said(message_id))
    first = intake.next()
    assert first is not None
    later = [Published(ROOM, message_id, Status.RATE_LIMITED, 0, 200) for message_id in (1, 2, 3)]
    assert intake.defer(first, Status.RATE_LIMITED, wait_ms=200) == later
    assert intake.next() is None
    assert intake.offer(said(2)) == later[1]
    assert intake.offer(said(1)) is None
    assert intake.offer(said(2)) is None
    assert take_all(intake) == [1, 2]


def test_what_the_journal_does_not_have_may_come_again() -> None:
    intake = Intake()
    for message_id in (1, 2, 4):
        intake.offer(said(message_id))
    take_all(intake)
    answers = intake.fail(ROOM, wait_ms=500)
    assert answers == [Published(ROOM, message_id, Status.STORAGE, 0, 500) for message_id in (1, 2, 4)]
    assert intake.offer(said(2)) == Published(ROOM, 2, Status.STORAGE, 0, 500)
    assert intake.offer(said(1)) is None
    assert take_all(intake) == [1]
    assert intake.fail(ROOM, wait_ms=1) == [Published(ROOM, 1, Status.STORAGE, 0, 1)]
    assert Intake().fail(ROOM, wait_ms=1) == []


def test_what_is_held_is_bounded() -> None:
    intake = Intake()
    intake.offer(said(UNSETTLED_MAX + 1))
    for message_id in range(2, 10):
        intake.offer(said(message_id, bytes(HELD_BYTES_MAX // 4)))
    intake.offer(said(1, b""))
    assert take_all(intake) == [1, 2, 3, 4, 5]
    intake.offer(said(6, bytes(HELD_BYTES_MAX)))
    assert take_all(intake) == [6]


def test_what_is_kept_or_settled_need_not_come_again() -> None:
    intake = Intake()
    intake.offer(said(1))
    intake.offer(said(3))
    assert [intake.keeps(message_id) for message_id in (1, 2, 3)] == [True, False, True]
    assert take_all(intake) == [1]
    assert intake.keeps(1)


def test_ids_that_will_never_come_are_not_waited_for() -> None:
    intake = Intake()
    for message_id in (5, 9):
        intake.offer(said(message_id))
    intake.raise_to(8)
    assert intake.mark == 7
    intake.offer(said(8))
    assert take_all(intake) == [8, 9]
    intake.raise_to(20)
    assert intake.mark == 7  # not while some are on their way into the journal
    intake.raise_to(2)
    assert intake.mark == 7


# --- both -----------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    loss=st.sampled_from([0.0, 0.1, 0.3, 0.6]),
    count=st.integers(1, 80),
    trouble=st.sampled_from([0.0, 0.05, 0.2]),
)
def test_each_message_is_in_the_log_once_and_in_order(seed: int, loss: float, count: int, trouble: float) -> None:
    """Frames vanish, come twice and overtake each other; the server defers, refuses and fails; connections break."""
    chance = Random(seed)
    publisher, intake = Publisher(), Intake()
    publisher.attach(ROOM, mark=0)
    log: list[int] = []
    refused: list[int] = []
    told: list[Settled] = []
    taken: list[tuple[int, bool]] = []
    flying: list[tuple[float, int, bool, Publish | Published | Message]] = []
    order, posted, now_s = 0, 0, 0.0

    def fly(frame: Publish | Published | Message) -> None:
        nonlocal order
        for _ in range(2 if chance.random() < 0.1 else 1):
            order += 1
            heapq.heappush(flying, (now_s + chance.random(), order, chance.random() < loss, frame))

    def arrive(frame: Publish | Published | Message, *, is_lost: bool) -> None:
        match frame:
            case Publish() if is_lost:
                publisher.lose(frame.message_id)
            case Publish():
                answer = intake.offer(frame)
                if answer is not None:
                    fly(answer)
            case Published() if is_lost:
                pass  # silence makes the message go again
            case Published():
                told.extend(publisher.answer(frame, now_s=now_s))
            case Message():
                told.extend([] if is_lost else publisher.hear(frame))

    def serve() -> None:
        """Take what is in order, and let the journal catch up or fail."""
        while (publish := intake.next()) is not None:
            if chance.random() < trouble:
                for answer in intake.defer(publish, Status.RATE_LIMITED, wait_ms=chance.randrange(1000)):
                    fly(answer)
            else:
                intake.take(publish)
                taken.append((publish.message_id, chance.random() < trouble))
        if taken and chance.random() < trouble:
            taken.clear()
            for answer in intake.fail(ROOM, wait_ms=chance.randrange(1000)):
                fly(answer)
        while taken and chance.random() < 0.7:
            message_id, is_refused = taken.pop(0)
            (refused if is_refused else log).append(message_id)
            seq = 0 if is_refused else len(log)
            status = Status.TOO_LARGE if is_refused else Status.ACCEPTED
            fly(intake.settle(ROOM, message_id, status, seq=seq, time_ms=0))
            if not is_refused:
                fly(Message(ROOM, seq, 1, message_id, 0, 0, 0, b"text %d" % message_id))

    for _ in range(200_000):
        now_s += 0.1
        while posted < count and chance.random() < 0.5:
            posted += 1
            assert publisher.post(b"text %d" % posted) > posted - 1
        if chance.random() < trouble / 5:  # the connection breaks, and what is on the way with it
            flying.clear()
            lowest = publisher.lowest_id
            intake.raise_to(lowest)
            publisher.attach(ROOM, mark=intake.mark)
        while (publish := publisher.next(now_s=now_s)) is not None:
            fly(publish)
        while flying and flying[0][0] <= now_s:
            _, _, is_lost, frame = heapq.heappop(flying)
            arrive(frame, is_lost=is_lost)
        serve()
        if posted == count and publisher.is_settled:
            break
    assert publisher.is_settled
    assert len(told) == count == len(log) + len(refused)
    assert log == sorted(set(log))
    assert [one.message_id for one in told] == sorted(log + refused)
    assert [one.seq for one in told if not one.status] == list(range(1, len(log) + 1))
    assert [one.message_id for one in told if one.status] == refused
