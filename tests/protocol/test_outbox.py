"""What a member has said: in order, nothing lost or doubled, within the allowance, each with one receipt."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ocm.errors import SendRefused
from ocm.protocol.events import Delivery, Receipt
from ocm.protocol.limits import Limits
from ocm.protocol.outbox import ECHO_TIMEOUT_S, Outbox
from ocm.protocol.room import Member, Room


def outbox(limits: Limits | None = None, *, echoes: bool = False, waiting_max: int = 100) -> Outbox:
    box = Outbox(limits or Limits(), text_size_max=1000, waiting_max=waiting_max)
    box.connected, box.echoes = True, echoes
    return box


def texts(box: Outbox, now_s: float) -> list[str]:
    return [body.decode() for body, _ in box.bodies_to_send(now_s=now_s)]


class OutboxMachine(RuleBasedStateMachine):
    """An outbox against two lists, and against the allowance of the server's own rooms."""

    @initialize(burst=st.integers(1, 5), rate=st.sampled_from([0.5, 1.0, 7.0]), echoes=st.booleans())
    def start(self, burst: int, rate: float, echoes: bool) -> None:
        self.limits = Limits(burst_max=burst, rate_per_s=rate)
        self.box = outbox(self.limits, echoes=echoes, waiting_max=10)
        self.member = Member(Room("r", 1, self.limits), 1, "aiko", plaintext=True, now_s=0.0)
        self.now_s = 1000.0
        self.waiting: deque[tuple[int, str]] = deque()
        self.unechoed: deque[tuple[int, str]] = deque()
        self.last_id = 0

    @rule(text=st.sampled_from(["a", "b", "こ"]))
    def post(self, text: str) -> None:
        if len(self.waiting) == 10:
            with pytest.raises(SendRefused):
                self.box.post(text)
            return
        self.last_id += 1
        assert self.box.post(text) == self.last_id
        self.waiting.append((self.last_id, text))

    @rule(wait_s=st.sampled_from([0.0, 0.01, 1.0, 3.0, 100.0]))
    def pass_time(self, wait_s: float) -> None:
        self.now_s += wait_s

    @rule()
    def wait_until_due(self) -> None:
        at_s = self.box.next_timeout_s()
        if at_s is None:
            assert not self.unechoed
            assert not (self.waiting and self.box.connected)
            return
        self.now_s = max(self.now_s, at_s)
        receipts = self.check_receipts(self.box.handle_timeout(now_s=self.now_s))
        sent = self.check_sent()
        assert receipts + sent, "a timer that is due has something to do"

    @rule()
    def send(self) -> None:
        self.check_sent()

    def check_sent(self) -> int:
        due = self.box.bodies_to_send(now_s=self.now_s)
        for body, receipt in due:
            assert self.box.connected
            message = self.waiting.popleft()
            assert body.decode() == message[1]
            assert self.member.spend(self.limits, len(body), now_s=self.now_s) == 0, "the server would have dropped it"
            if self.box.echoes:
                assert receipt is None
                self.unechoed.append(message)
            else:
                assert receipt == Receipt(*message, Delivery.SENT)
        return len(due)

    def check_receipts(self, receipts: list[Receipt]) -> int:
        for receipt in receipts:
            assert receipt == Receipt(*self.unechoed.popleft(), Delivery.SENT)
        return len(receipts)

    @rule()
    def give_up_echoes(self) -> None:
        self.check_receipts(self.box.handle_timeout(now_s=self.now_s))

    @rule(text=st.sampled_from(["a", "b", "c"]))
    def hear(self, text: str) -> None:
        ours = next((message for message in self.unechoed if message[1] == text), None)
        receipt = self.box.hear(text)
        if ours is None:
            assert receipt is None
        else:
            assert receipt == Receipt(*ours, Delivery.IN_ROOM)
            self.unechoed.remove(ours)

    @precondition(lambda self: self.box.connected)
    @rule()
    def lose(self) -> None:
        self.box.connected = False

    @precondition(lambda self: not self.box.connected)
    @rule()
    def find(self) -> None:
        self.box.connected = True

    @invariant()
    def settled_when_nothing_is_open(self) -> None:
        if hasattr(self, "box"):
            assert self.box.is_settled == (not self.waiting and not self.unechoed)

    def teardown(self) -> None:
        if hasattr(self, "box"):
            assert self.box.close() == [text for _, text in self.waiting]
            assert self.box.is_settled
            assert self.box.next_timeout_s() is None


TestOutbox = OutboxMachine.TestCase
TestOutbox.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


@given(st.lists(st.text(min_size=1, max_size=5), max_size=40), st.integers(1, 5), st.floats(0.1, 100))
def test_everything_goes_out_once_in_order_at_the_times_it_asks_for(said: list[str], burst: int, rate: float) -> None:
    box = outbox(Limits(burst_max=burst, rate_per_s=rate))
    for text in said:
        box.post(text)
    now_s, sent = 5.0, texts(box, 5.0)
    while (at_s := box.next_timeout_s()) is not None:
        now_s = max(now_s, at_s)
        due = texts(box, now_s)
        assert due
        sent += due
    assert sent == said
    assert box.is_settled


def test_nothing_is_sent_while_the_way_is_lost() -> None:
    box = outbox()
    box.connected = False
    box.post("a")
    assert texts(box, 1000.0) == []
    assert box.next_timeout_s() is None
    box.connected = True
    assert texts(box, 1000.0) == ["a"]


def test_a_pause_does_not_save_up_more_than_the_burst() -> None:
    box = outbox(Limits(burst_max=5, rate_per_s=10))
    for number in range(30):
        box.post(str(number))
    first = texts(box, 1000.0)
    assert 1 <= len(first) <= 5
    later = texts(box, 100_000.0)
    assert 1 <= len(later) <= 5


@pytest.mark.parametrize(("text", "code"), [("", "empty"), ("x" * 1001, "too_large"), ("\ud800", "not_text")])
def test_what_cannot_be_said_is_refused_for_ever_and_takes_no_number(text: str, code: str) -> None:
    box = outbox()
    with pytest.raises(SendRefused) as refusal:
        box.post(text)
    assert (refusal.value.code, refusal.value.retry_after_s) == (code, None)
    assert box.post("x" * 1000) == 1


def test_what_piles_up_is_bounded_and_may_be_tried_again() -> None:
    box = outbox(waiting_max=2)
    box.post("a")
    box.post("b")
    with pytest.raises(SendRefused) as refusal:
        box.post("c")
    assert refusal.value.code == "rate"
    assert refusal.value.retry_after_s
    assert texts(box, 1000.0) == ["a", "b"]
    box.post("c")
    assert texts(box, 1000.0) == ["c"]


def test_an_echo_that_never_comes_is_waited_for_two_seconds() -> None:
    box = outbox(echoes=True)
    box.post("a")
    assert box.bodies_to_send(now_s=1000.0) == [(b"a", None)]
    assert box.next_timeout_s() == 1000.0 + ECHO_TIMEOUT_S
    assert box.handle_timeout(now_s=1001.9) == []
    assert box.handle_timeout(now_s=1002.0) == [Receipt(1, "a", Delivery.SENT)]
    assert box.hear("a") is None


def test_of_two_equal_messages_the_older_comes_back_first() -> None:
    box = outbox(echoes=True)
    for text in ("a", "b", "a"):
        box.post(text)
    texts(box, 1000.0)
    assert [box.hear(text) for text in ("a", "a", "a")] == [
        Receipt(1, "a", Delivery.IN_ROOM),
        Receipt(3, "a", Delivery.IN_ROOM),
        None,
    ]


def test_a_closed_outbox_takes_nothing_and_gives_back_what_it_had() -> None:
    box = outbox(Limits(burst_max=1, rate_per_s=1))
    for text in ("a", "b", "c"):
        box.post(text)
    assert texts(box, 1000.0) == ["a"]
    assert box.close() == ["b", "c"]
    assert box.close() == []
    assert texts(box, 2000.0) == []
    with pytest.raises(SendRefused) as refusal:
        box.post("d")
    assert refusal.value.code == "closed"
