"""The cases that have names (TCRP/2 section 6): each a story of its own."""

from __future__ import annotations

from functools import partial
from typing import TypeVar

import pytest

from ocm.protocol.agent.room import MISSED_S
from ocm.protocol.entry import Kind, Lifetime, Policy
from ocm.protocol.events import (
    Delivery,
    LogChanged,
    Message,
    PathChanged,
    PathKind,
    Receipt,
    RoomClosed,
)
from ocm.protocol.limits import Limits
from ocm.protocol.link.modern_session import HEAD_AFTER_S
from ocm.protocol.session.channel import LARGE_SIZE_MAX
from ocm.protocol.session.publishing import Status
from ocm.protocol.session.pulse import LATE_S
from ocm.protocol.wire.frames import BODY_SIZE_MAX
from tests.campaign.checks import Checks
from tests.campaign.roaming import SILENCE_MAX_S, travel
from tests.campaign.world import ROOM, SERVER, Person, World

E = TypeVar("E")
HOUR_S = 3600.0


class Stage:
    """A world with a room that outlives its host, and two people in it."""

    def __init__(self, *, limits: Limits | None = None, lifetime: Lifetime = Lifetime.PERSIST) -> None:
        self.world = World(1, limits=limits)
        self.checks = Checks(self.world)
        self.aiko = self.world.add("aiko", creates=True)
        self.bob = self.world.add("bob")
        self.aiko.policy = Policy(lifetime=lifetime)
        self.aiko.start()
        self.pass_s(1.0)
        self.bob.start()
        self.pass_s(3.0)

    def pass_s(self, seconds: float) -> None:
        self.world.run(until_s=self.world.now_s + seconds)

    def texts(self) -> list[str]:
        logs = self.world.ledger.logs.values()
        return [entry.body.decode() for log in logs for entry in log.entries if entry.kind is Kind.TEXT]

    def receipts(self, person: Person) -> list[tuple[str, Delivery]]:
        return [(event.text, event.delivery) for event in events(person, Receipt)]


def events(person: Person, kind: type[E]) -> list[E]:
    return [event for _, event in person.events if isinstance(event, kind)]


def heard(person: Person) -> list[str]:
    return [message.text for message in events(person, Message)]


def test_udp_blocked_for_three_hours() -> None:
    stage = Stage()
    assert stage.bob.agent is not None
    stage.world.udp_blocked.add("bob")
    for hour in range(3):
        stage.aiko.post(f"hour {hour}")
        stage.bob.post(f"bob at hour {hour}")
        stage.pass_s(HOUR_S)
        assert stage.bob.agent.path().kind is PathKind.TLS
    stage.world.udp_blocked.clear()
    stage.pass_s(60.0)
    assert stage.bob.agent.path().kind is PathKind.UDP
    assert heard(stage.bob) == [f"hour {hour}" for hour in range(3)]
    assert heard(stage.aiko) == [f"bob at hour {hour}" for hour in range(3)]
    stage.checks.finish()


def test_udp_blocked_from_the_start_costs_no_time() -> None:
    world = World(1)
    checks = Checks(world)
    aiko, bob = world.add("aiko", creates=True), world.add("bob")
    world.udp_blocked |= {"aiko", "bob"}
    for person in (aiko, bob):
        person.start()
        world.run(until_s=world.now_s + 1.0)
    aiko.post("at once")
    world.run(until_s=world.now_s + 0.5)
    assert heard(bob) == ["at once"]
    checks.finish()


@pytest.mark.parametrize("answer", ["AUTH.2", "JOIN.2"])
def test_an_answer_that_is_lost_leaves_no_ghost(answer: str) -> None:
    """The connection breaks when the answer is on its way: the client asks again, and is who it was."""
    stage = Stage()
    carl = stage.world.add("carl")
    commits = stage.world.ledger.commits + (1 if answer == "AUTH.2" else 2)  # an identity, then an entry
    carl.start()
    while stage.world.ledger.commits < commits:
        stage.pass_s(0.0001)
    for pipe in carl.pipes():
        pipe.break_up()
    stage.pass_s(5.0)
    (log,) = stage.world.ledger.logs.values()
    assert [entry.name for entry in log.entries if entry.kind is Kind.JOIN] == ["aiko", "bob", "carl"]
    assert carl.post("here")
    stage.pass_s(2.0)
    assert heard(stage.bob) == ["here"]
    stage.checks.finish()


def test_a_final_refusal_then_a_crash() -> None:
    """The refusal uses its id up, also for a server that starts anew: what comes behind it is taken."""
    stage = Stage()
    assert stage.bob.agent is not None
    stage.bob.agent.post(ROOM, b"\xff\xfe", now_s=stage.world.now_s)
    stage.bob.settle()
    stage.world.at(stage.world.now_s + 0.02, lambda: stage.world.crash_server(0.3))
    stage.bob.said["\ufffd\ufffd"] = stage.bob.said_now("\ufffd\ufffd")
    stage.bob.post("behind it")
    stage.pass_s(8.0)
    assert stage.receipts(stage.bob) == [("\ufffd\ufffd", Delivery.REFUSED), ("behind it", Delivery.IN_ROOM)]
    assert stage.texts() == ["behind it"]


def test_a_temporary_refusal_in_mid_pipeline() -> None:
    """The journal fails once with several messages under way: all come again, in order, each once."""
    stage = Stage()
    stage.bob.post("first")
    stage.world.failing = 2
    for number in range(20):
        stage.bob.post(f"message {number}")
    stage.pass_s(10.0)
    assert stage.texts() == ["first", *(f"message {number}" for number in range(20))]
    stage.checks.finish()


def test_more_than_the_allowance_is_only_later() -> None:
    stage = Stage(limits=Limits(burst_max=5, rate_per_s=20.0))
    said = [f"line {number}" for number in range(100)]
    for text in said:
        stage.aiko.post(text)
    stage.pass_s(15.0)
    assert heard(stage.bob) == said
    assert stage.world.server.hub.counts().pending == 0
    stage.checks.finish()


def test_two_received_swapped() -> None:
    """The older one comes last: the credit does not fall, and nothing is sent again or left out."""
    stage = Stage()
    stage.world.links.link("bob", reorder=0.9, jitter_s=0.1)
    for number in range(600):
        stage.world.at(stage.world.now_s + number * 0.03, partial(stage.aiko.post, f"{number}"))
    stage.pass_s(30.0)
    assert heard(stage.bob) == [f"{number}" for number in range(600)]
    stage.checks.finish()


def test_a_room_made_again_under_its_name() -> None:
    stage = Stage(lifetime=Lifetime.CLOSE)
    stage.aiko.post("in the old room")
    stage.pass_s(1.0)
    stage.checks.crash(stage.bob)
    assert stage.aiko.agent is not None
    stage.aiko.agent.leave(ROOM, now_s=stage.world.now_s)
    stage.aiko.settle()
    stage.pass_s(1.0)
    stage.aiko.agent.enter(ROOM, create=True, policy=Policy(), now_s=stage.world.now_s)
    stage.aiko.settle()
    stage.pass_s(2.0)
    stage.aiko.post("in the new room")
    stage.pass_s(1.0)
    stage.bob.restart()
    stage.pass_s(20.0)
    assert len(stage.world.ledger.logs) == 2
    ends = events(stage.bob, RoomClosed) + events(stage.bob, LogChanged)
    assert ends, "bob is told that it is another room"
    assert "in the old room" in heard(stage.bob)


@pytest.mark.parametrize("difference", [-40, -1, 0, 1, 40])
@pytest.mark.parametrize("limit", [LARGE_SIZE_MAX, 1168, BODY_SIZE_MAX], ids=["large", "datagram", "body"])
def test_a_body_at_a_limit(limit: int, difference: int) -> None:
    stage = Stage()
    size = limit + difference
    if size > BODY_SIZE_MAX:
        assert not stage.aiko.post("x" * size)
        return
    stage.aiko.post("before")
    stage.aiko.post("x" * size)
    stage.aiko.post("behind")
    stage.pass_s(5.0)
    assert heard(stage.bob) == ["before", "x" * size, "behind"]
    stage.checks.finish()


def test_two_processes_with_one_home() -> None:
    """The second is who the first was: the first ends, and dials no more."""
    stage = Stage()
    twin = stage.world.add("twin")
    twin.memory = stage.bob.memory.copy()
    twin.user = "bob"
    twin.start()
    stage.pass_s(60.0)
    assert any(type(event).__name__ == "Replaced" for event in stage.bob.happenings)
    assert stage.bob.agent is not None
    assert stage.bob.agent.next_dial_s() is None
    stage.aiko.post("who is there")
    stage.pass_s(2.0)
    assert heard(twin) == ["who is there"]
    assert heard(stage.bob) == []


def test_suspended_for_eight_hours() -> None:
    stage = Stage()
    suspended = stage.bob.suspend()
    stage.aiko.post("while you slept")
    stage.pass_s(8 * HOUR_S)
    stage.bob.resume(suspended)
    stage.bob.wake()
    stage.pass_s(20.0)
    stage.bob.post("good morning")
    stage.pass_s(2.0)
    assert heard(stage.bob) == ["while you slept"]
    assert heard(stage.aiko) == ["good morning"]
    stage.checks.finish()


def test_the_wall_clock_a_year_ahead_and_back() -> None:
    stage = Stage()
    for years in (1, -1):
        stage.world.epoch_s += years * 365 * 86_400.0
        stage.world.crash_server(0.2)
        stage.pass_s(5.0)
        stage.bob.post(f"after {years}")
        stage.pass_s(3.0)
    assert heard(stage.aiko) == ["after 1", "after -1"]
    (log,) = stage.world.ledger.logs.values()
    times = [entry.time_ms for entry in log.entries]
    assert times == sorted(times)
    stage.checks.finish()


def test_a_clients_disk_restored_from_a_backup() -> None:
    """Ids that were used since are not used again, and nothing is in the room twice."""
    stage = Stage()
    restore_a_backup(stage)
    stage.bob.restart()
    stage.pass_s(3.0)
    stage.bob.post("four")
    stage.pass_s(2.0)
    assert stage.texts() == ["one", "two", "three", "four"]
    assert heard(stage.aiko) == ["one", "two", "three", "four"]


def restore_a_backup(stage: Stage) -> None:
    """Bob says three things, crashes, and has the disk of when he had said one."""
    stage.bob.post("one")
    stage.pass_s(1.0)
    backup = stage.bob.memory.copy()
    for said in ("two", "three"):
        stage.bob.post(said)
    stage.pass_s(1.0)
    stage.checks.crash(stage.bob)
    stage.bob.memory = backup


@pytest.mark.parametrize("text", ["two", "quite another"])
def test_a_clients_disk_restored_from_a_backup_and_messages_before_it_is_let_in(text: str) -> None:
    """They get the ids of others, and say so as little as those: also where they say the same."""
    stage = Stage()
    restore_a_backup(stage)
    stage.bob.restart()
    stage.bob.said.clear()
    told = len(stage.receipts(stage.bob))
    new = [text, "four", "five"]
    for said in new:
        assert stage.bob.post(said)
    stage.pass_s(3.0)
    assert stage.receipts(stage.bob)[told:] == [(said, Delivery.IN_ROOM) for said in new]
    assert stage.texts() == heard(stage.aiko) == ["one", "two", "three", *new]


@pytest.mark.parametrize("after_ms", range(0, 60, 3))
def test_a_client_with_a_restored_disk_that_crashes_while_it_is_let_in(after_ms: int) -> None:
    """At whatever moment: what was stored is said once, though its id is that of something else."""
    stage = Stage()
    restore_a_backup(stage)
    stage.world.crash_server(2.0)
    stage.bob.restart()
    stage.bob.said.clear()
    new = [f"new {number}" for number in range(5)]
    for text in new:
        stage.bob.post(text)
    while not stage.bob.pipes():
        stage.pass_s(0.01)
    stage.pass_s(after_ms / 1000)
    stage.checks.crash(stage.bob)
    stage.bob.restart()
    stage.pass_s(5.0)
    stage.bob.post("six")
    stage.pass_s(5.0)
    assert stage.texts() == heard(stage.aiko) == ["one", "two", "three", *new, "six"]
    assert all(said.receipt is not None for said in stage.bob.said.values())


@pytest.mark.parametrize("unread", [0, 100, 250])
def test_who_reads_slowly_over_tls_and_loses_the_connection_misses_nothing(unread: int) -> None:
    """The server goes on behind what was read, not behind what came: else it sends more than can be kept."""
    stage = Stage()
    stage.world.udp_blocked.add("bob")
    for pipe in stage.bob.pipes():
        pipe.break_up()
    stage.pass_s(20.0)
    stage.bob.reads = False
    for number in range(unread):
        stage.aiko.post(f"while he does something else {number}")
    stage.pass_s(20.0)
    for pipe in stage.bob.pipes():
        pipe.break_up()
    stage.pass_s(5.0)
    for number in range(400):
        stage.aiko.post(f"still {number}")
    stage.pass_s(30.0)
    stage.bob.read_on()
    stage.pass_s(30.0)
    assert heard(stage.bob) == stage.texts()
    assert len(stage.texts()) == unread + 400
    stage.checks.finish()


def test_udp_cut_in_the_middle_and_back_again() -> None:
    stage = Stage()
    stage.world.udp_blocked.add(SERVER)
    stage.aiko.post("over which way")
    stage.pass_s(10.0)
    assert heard(stage.bob) == ["over which way"]
    stage.world.udp_blocked.clear()
    stage.pass_s(60.0)
    kinds = [event.path.kind for event in events(stage.aiko, PathChanged)]
    assert kinds[-2:] == [PathKind.TLS, PathKind.UDP]
    stage.checks.finish()


@pytest.mark.parametrize("down_s", [0.5, 4.0, 9.0, 14.0, 40.0])
@pytest.mark.parametrize("by_udp", [True, False], ids=["udp", "tls"])
def test_a_server_that_loses_its_power_says_nothing(by_udp: bool, down_s: float) -> None:
    """No reset, no ICMP: who waits for an answer looks for the server within 8 s, and finds it within 10 s."""
    stage = Stage()
    if not by_udp:
        stage.world.udp_blocked |= {"aiko", "bob"}
        stage.pass_s(60.0)
    stage.world.unplug_server(down_s)
    stage.bob.post("is anybody there")
    stage.pass_s(min(down_s, 8.0))
    assert stage.bob.agent is not None
    assert down_s < 8.0 or stage.bob.agent.path().kind is PathKind.NONE
    stage.pass_s(max(0.0, down_s - 8.0))
    stage.checks.settle(within_s=10.0)
    stage.world.udp_blocked.clear()
    stage.pass_s(10.0)
    assert heard(stage.aiko) == ["is anybody there"]
    stage.checks.finish()


def test_roaming_every_two_seconds_for_a_minute() -> None:
    stage = Stage()
    for move in range(30):
        stage.world.at(stage.world.now_s + 2.0 * move, lambda: stage.world.move("bob"))
    for number in range(120):
        at_s = stage.world.now_s + number * 0.5
        stage.world.at(at_s, partial(stage.bob.post, f"from the train {number}"))
    stage.pass_s(60.0)
    stage.checks.settle(within_s=10.0)
    assert heard(stage.aiko) == [f"from the train {number}" for number in range(120)]
    stage.checks.finish()


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_roaming_every_two_seconds_keeps_talking(seed: int, told: bool) -> None:
    """Also where TCP connections of the old address break nothing and say nothing any more."""
    travelled = travel(seed, told=told)
    assert travelled.to_receipt_s < SILENCE_MAX_S
    assert travelled.to_arrival_s < SILENCE_MAX_S


def test_what_is_too_large_for_a_datagram_comes_though_its_connection_seems_to_be_there() -> None:
    """Nobody tells the client that TLS carries nothing any more: it misses an entry that others are behind."""
    stage = Stage()
    stage.world.move("bob", told=False)
    stage.bob.post("from elsewhere")
    stage.pass_s(0.5)
    stage.aiko.post("x" * 5000)
    stage.aiko.post("behind it")
    stage.pass_s(MISSED_S + LATE_S + 1.0)
    assert heard(stage.bob) == ["x" * 5000, "behind it"]
    stage.world.move("bob", told=False)
    stage.bob.post("from elsewhere again")
    stage.pass_s(0.5)
    stage.aiko.post("y" * 5000)
    stage.pass_s(HEAD_AFTER_S + MISSED_S + LATE_S + 1.5)
    assert heard(stage.bob)[2:] == ["y" * 5000], "where none is behind it, HEAD tells"
    stage.checks.finish()


def test_a_seat_that_is_promised_and_never_heard_of_costs_no_time() -> None:
    """TLS says nothing any more when JOIN.2 is on its way: the former session goes on in datagrams."""
    stage = Stage()
    before = stage.world.server.sessions
    for pipe in stage.bob.pipes():
        pipe.break_up()
    while not any(new.promised or new.links for new in stage.world.server.sessions if new not in before):
        stage.pass_s(0.0001)
    stage.world.move("bob", told=False)
    stage.aiko.post("are you there")
    stage.bob.post("I am")
    stage.pass_s(1.0)
    assert "are you there" in heard(stage.bob)
    assert "I am" in heard(stage.aiko)
    stage.pass_s(10.0)
    stage.checks.finish()


def test_who_only_listens_and_moves_is_found() -> None:
    """Nobody else can know of it: its client sees that the machine has another address, and shows it."""
    stage = Stage()
    for number in range(3):
        stage.world.move("bob", told=False, noticed=True)
        stage.pass_s(1.0)
        stage.aiko.post(f"{number}")
        stage.pass_s(1.0)
        assert heard(stage.bob)[-1:] == [f"{number}"]
    stage.checks.finish()


def test_statuses_below_16_may_be_tried_again() -> None:
    assert {status.name for status in Status if 0 < status < 16} == {"RATE_LIMITED", "STORAGE", "UNAVAILABLE"}
