"""The modern door: each message in the log once, in order, answered when it is written; the log read at one's pace."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocm.errors import LocalProtocolError
from ocm.protocol.control.packets import Form
from ocm.protocol.entry import Answer, Entry, Kind, Policy, Refused
from ocm.protocol.limits import Limits
from ocm.protocol.link.classic import ClassicLink, text_size_max
from ocm.protocol.link.log import RoomLog
from ocm.protocol.link.modern import ANSWERS_MAX, ANSWERS_TOGETHER, MODERN_FORM, ModernLink, client_of
from ocm.protocol.session.lane import Load
from ocm.protocol.session.publishing import ANSWERS_KEPT, UNSETTLED_MAX, Status, digest_of
from ocm.protocol.session.receiving import ENTRIES_MAX
from ocm.protocol.wire.frames import (
    BODY_SIZE_MAX,
    Frame,
    Gap,
    Head,
    Message,
    Publish,
    Published,
    Received,
    read_frames,
    write_frame,
)
from ocm.protocol.wire.records import CloseCode, Kick, Op, Raise, RoomRequest, Seated
from tests.protocol.desk import Client, Desk, known, seat

CLIENT = bytes(16)
PATIENT = Limits(burst_max=10_000)


def publish(client: Client, *texts: str, first: int = 1, room: str = "lobby") -> None:
    handle = client.handles[room]
    client.say(*(Publish(handle, first + number, 0, text.encode()) for number, text in enumerate(texts)))


def back(desk: Desk, client: Client, last: int, *, lowest: int = 1, room: str = "lobby") -> Client:
    """The same client in another session, which has taken its seat again."""
    other = Client(desk, client.name).authenticate(client)
    other.join(room, log=client.all(Seated)[-1].log, last=last, lowest=lowest)
    return other


def logged(desk: Desk, room: str = "lobby") -> list[str]:
    log = next(log for log in desk.ledger.logs.values() if log.name == room)
    return [entry.body.decode() for entry in log.entries if entry.kind is Kind.TEXT]


# --- publishing: commit, then answer, then fan out --------------------------------------------------------


def test_an_author_is_answered_when_it_is_written_and_before_it_is_told_to_all() -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    alice.frames.clear()
    desk.patient = True
    publish(alice, "hello")
    assert alice.frames == bob.frames == []
    desk.commit()
    published, message = alice.frames
    assert isinstance(published, Published)
    assert isinstance(message, Message)
    assert (published.message_id, published.status, published.seq) == (1, Status.ACCEPTED, 3)
    assert published.time_ms == message.time_ms == 1_700_001_000_000
    assert [(one.seq, one.sender, one.message_id, one.flags) for one in bob.heard()] == [(3, 1, 1, 0)]


def test_a_journal_that_fails_says_so_and_the_same_id_comes_again() -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    desk.patient = True
    publish(alice, "one", "two")
    desk.fail()
    assert alice.published() == [(1, Status.STORAGE), (2, Status.STORAGE)]
    desk.patient = False
    publish(alice, "two", first=2)
    assert alice.published()[2:] == [(2, Status.STORAGE)], "not before the first one"
    publish(alice, "one", "two")
    assert alice.published()[3:] == [(1, 0), (2, 0)]
    assert bob.texts() == logged(desk) == ["one", "two"]


@given(st.permutations(range(1, 9)))
def test_messages_are_taken_in_the_order_of_their_ids(order: list[int]) -> None:
    desk = Desk(PATIENT)
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    for number in order:
        publish(alice, str(number), first=number)
    assert bob.texts() == [str(number) for number in range(1, 9)]


def test_what_comes_again_is_answered_again_and_not_said_twice() -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    publish(alice, "hello")
    publish(alice, "hello")
    assert alice.published() == [(1, 0), (1, 0)]
    desk.patient = True
    publish(alice, "again", first=2)
    publish(alice, "again", first=2)
    desk.commit()
    assert alice.published()[2:] == [(2, 0)], "its answer was under way"
    assert bob.texts() == ["hello", "again"]


@pytest.mark.parametrize("when", ["settled", "under way"])
def test_another_message_under_the_same_id_is_told_so(when: str) -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    desk.patient = when == "under way"
    publish(alice, "hello")
    publish(alice, "something else")
    desk.commit()
    assert sorted(alice.published()) == [(1, 0), (1, Status.ID_REUSED)]
    assert bob.texts() == ["hello"]


def test_answers_are_remembered_apart_from_the_log_and_only_so_many() -> None:
    desk = Desk(PATIENT)
    [alice] = seat(desk, "lobby", "alice")
    for number in range(1, ANSWERS_KEPT + 3):
        publish(alice, f"{number}", first=number)
    alice.frames.clear()
    publish(alice, "1", "2", "3")
    assert alice.published() == [(3, 0)]


def test_what_is_settled_is_remembered_over_a_crash_of_the_server() -> None:
    desk = Desk()
    alice, _ = seat(desk, "lobby", "alice", "bobby")
    publish(alice, "one", "", "three")
    assert alice.published() == [(1, 0), (2, Status.INVALID), (3, 0)]
    desk.crash()
    other = back(desk, alice, last=2)
    assert other.last(Seated).mark == 3
    publish(other, "one", "", "three")
    publish(other, "other", first=2)
    assert other.published() == [(1, 0), (2, Status.INVALID), (3, 0), (2, Status.ID_REUSED)]
    assert logged(desk) == ["one", "three"]


def test_what_was_not_written_before_a_crash_is_said_again() -> None:
    desk = Desk()
    alice, _ = seat(desk, "lobby", "alice", "bobby")
    publish(alice, "one")
    desk.patient = True
    publish(alice, "two", first=2)
    desk.crash()
    desk.patient = False
    other = back(desk, alice, last=3, lowest=2)
    assert other.last(Seated).mark == 1
    publish(other, "two", first=2)
    assert logged(desk) == ["one", "two"]


# --- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "status"),
    [
        (Publish(1, 1, 0, b""), Status.INVALID),
        (Publish(1, 1, 0, b"\xff"), Status.INVALID),
        (Publish(1, 1, 1, b"{}"), Status.INVALID),
        (Publish(1, 1, 200, b"?"), Status.INVALID),
        (Publish(1, 1, 0, bytes(BODY_SIZE_MAX)), Status.ACCEPTED),
    ],
)
def test_what_is_no_text_is_refused_for_good_and_uses_its_id_up(frame: Publish, status: int) -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    alice.say(frame)
    assert alice.published() == [(1, status)]
    refused = next(one for one in alice.frames if isinstance(one, Published))
    assert (refused.seq == 0) is bool(status)
    publish(alice, "next", first=2)
    assert alice.published()[1:] == [(2, 0)]
    assert bob.texts()[-1] == "next"
    desk.crash()
    other = back(desk, alice, last=2)
    other.say(frame)
    assert other.published() == [(1, status)], "the answer outlives a crash"


def test_a_final_refusal_is_answered_when_it_is_written() -> None:
    desk = Desk()
    [alice] = seat(desk, "lobby", "alice")
    desk.patient = True
    publish(alice, "")
    assert alice.published() == []
    desk.fail()
    assert alice.published() == [(1, Status.STORAGE)]
    publish(alice, "")
    desk.commit()
    assert alice.published() == [(1, Status.STORAGE), (1, Status.INVALID)]


def test_beyond_the_allowance_it_is_refused_for_now_with_the_wait_and_all_behind_it_too() -> None:
    desk = Desk(Limits(burst_max=2, rate_per_s=1.0))
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    publish(alice, "1", "2", "3", "4")
    assert sorted(alice.published()) == [(1, 0), (2, 0), (3, Status.RATE_LIMITED), (4, Status.RATE_LIMITED)]
    waits = [one.time_ms for one in alice.frames if isinstance(one, Published) and one.status]
    assert waits == [1000, 1000]
    desk.now_s += 1.0
    publish(alice, "4", first=4)
    assert alice.published()[4:] == [(4, Status.RATE_LIMITED)], "it is not its turn"
    publish(alice, "3", first=3)
    publish(alice, "4", first=4)
    assert alice.published()[5:] == [(3, 0), (4, Status.RATE_LIMITED)]
    assert bob.texts() == ["1", "2", "3"]


def test_too_much_that_waits_for_the_journal_is_refused_for_now() -> None:
    desk = Desk(Limits(pending_max=2))
    [alice] = seat(desk, "lobby", "alice")
    desk.patient = True
    publish(alice, "1", "2", "3")
    assert alice.published() == [(3, Status.UNAVAILABLE)]
    desk.commit()
    publish(alice, "3", first=3)
    desk.commit()
    assert alice.published() == [(3, Status.UNAVAILABLE), (1, 0), (2, 0), (3, 0)]


def test_whether_a_member_may_speak_that_is_being_kicked_is_not_said_before_it_is_written() -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    desk.patient = True
    alice.ask(Op.KICK, Kick, handle=alice.handles["lobby"], member=2)
    publish(bob, "wait!")
    [answer] = [one for one in bob.frames if isinstance(one, Published)]
    assert (answer.status, answer.time_ms) == (Status.UNAVAILABLE, 1000)
    desk.fail()
    publish(bob, "I am here still")
    desk.commit()
    assert bob.published()[1:] == [(1, 0)]
    alice.ask(Op.KICK, Kick, handle=alice.handles["lobby"], member=2)
    desk.commit()
    publish(bob, "hello?", first=2)
    publish(bob, "I am here still")
    assert bob.published()[2:] == [(2, Status.CLOSED), (1, 0)], "what is in the log is in the log"


def test_answers_to_one_who_is_gone_are_only_so_many() -> None:
    desk = Desk(PATIENT)
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    alice.ask(Op.KICK, Kick, handle=alice.handles["lobby"], member=2)
    desk.space = 0
    for number in range(1, 200):
        publish(bob, "hello?", first=number)
    [link] = bob.session.links.values()
    assert len(link._answers) == UNSETTLED_MAX


def test_answers_that_nobody_fetches_are_only_so_many() -> None:
    desk = Desk(PATIENT)
    [alice] = seat(desk, "lobby", "alice")
    desk.space = 0
    for number in range(1, ANSWERS_MAX + 20):
        publish(alice, "x", first=number)
    [link] = alice.session.links.values()
    assert list(link._answers) == list(range(20, ANSWERS_MAX + 20)), "the latest count"


def test_ids_far_ahead_are_not_kept_and_not_answered() -> None:
    desk = Desk(Limits(burst_max=1, rate_per_s=0.001))
    [alice] = seat(desk, "lobby", "alice")
    publish(alice, "1", "2")
    alice.frames.clear()
    publish(alice, "far", first=UNSETTLED_MAX + 2)
    assert alice.frames == []
    publish(alice, "near", first=UNSETTLED_MAX + 1)
    assert alice.published() == [(UNSETTLED_MAX + 1, Status.RATE_LIMITED)]


def test_ten_times_more_than_is_granted_for_ten_seconds_ends_the_session() -> None:
    desk = Desk(Limits(burst_max=10, rate_per_s=1.0))
    [alice] = seat(desk, "lobby", "alice")
    for number in range(1, 200):
        publish(alice, "x", first=number)
    assert alice.closed is None
    publish(alice, "x", first=1)
    desk.now_s += 11.0
    for _ in range(200):
        publish(alice, "x", first=1)
    assert alice.closed is None, "that was another ten seconds"
    alice.say(*[Publish(alice.handles["lobby"], 1, 0, b"x")] * 20)
    assert alice.closed == CloseCode.FLOOD
    assert len(desk.hub.members("lobby")) == 1


def test_a_flood_of_bytes_is_a_flood() -> None:
    desk = Desk(Limits(burst_max=10, rate_per_s=1.0, bytes_per_s=1000))
    [alice] = seat(desk, "lobby", "alice")
    for _ in range(4):
        alice.say(Publish(alice.handles["lobby"], 1, 0, bytes(60_000)))
    assert alice.closed == CloseCode.FLOOD


# --- ids over sessions --------------------------------------------------------------------------------------


def test_ids_that_will_never_come_are_not_waited_for() -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    publish(alice, "1")
    other = back(desk, alice, last=3, lowest=10)
    assert other.last(Seated).mark == 9
    publish(other, "10", first=10)
    assert other.published() == [(10, 0)]
    assert bob.texts() == ["1", "10"]


@pytest.mark.parametrize("fails", [False, True])
def test_nor_are_they_when_one_is_on_its_way_into_the_journal(fails: bool) -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    desk.patient = True
    publish(alice, "1")
    alice.write(alice.join_record("lobby", lowest=10))
    if fails:
        desk.fail()
    else:
        desk.commit()
    desk.patient = False
    fresh = back(desk, alice, last=2, lowest=2)
    publish(fresh, "10", first=10)
    assert fresh.published() == [(10, 0)]
    assert bob.texts() == ([] if fails else ["1"]) + ["10"]


def test_a_new_member_may_begin_with_any_id() -> None:
    desk = Desk()
    seat(desk, "lobby", "alice")
    bob = known(desk, "bobby")
    bob.join("lobby", lowest=100)
    assert bob.last(Seated).mark == 99
    publish(bob, "x", first=100)
    assert bob.published() == [(100, 0)]
    carol = known(desk, "carol")
    carol.join("lobby", lowest=1)
    assert carol.last(Seated).mark == 0
    publish(carol, "x")
    assert carol.published() == [(1, 0)]


def test_an_answer_that_comes_when_its_author_is_away_is_asked_again() -> None:
    desk = Desk()
    alice, _ = seat(desk, "lobby", "alice", "bobby")
    desk.patient = True
    publish(alice, "hello")
    alice.lose_stream()
    desk.commit()
    desk.patient = False
    other = back(desk, alice, last=2)
    assert other.published() == []
    assert other.last(Seated).mark == 1
    publish(other, "hello")
    assert other.published() == [(1, 0)]


# --- reading at one's own pace --------------------------------------------------------------------------------


def test_no_more_goes_out_than_there_is_credit_for() -> None:
    desk = Desk(PATIENT)
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    for number in range(1, 700):
        publish(alice, "x", first=number)
    assert len(bob.heard()) == ENTRIES_MAX
    bob.say(Received(bob.handles["lobby"], 102, ENTRIES_MAX))
    assert len(bob.heard()) == 100 + ENTRIES_MAX
    bob.say(Received(bob.handles["lobby"], 102, 65_535))
    assert len(bob.heard()) == 100 + ENTRIES_MAX, "credit without end is not used"
    bob.say(Received(bob.handles["lobby"], bob.seqs()[-1], 65_535))
    assert len(bob.heard()) == 100 + 2 * ENTRIES_MAX
    assert bob.seqs() == list(range(3, 3 + 100 + 2 * ENTRIES_MAX))


def test_swapped_words_of_the_reader_take_no_credit_back() -> None:
    desk = Desk(PATIENT)
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    for number in range(1, 600):
        publish(alice, "x", first=number)
    handle = bob.handles["lobby"]
    bob.say(Received(handle, 202, 256))
    heard = len(bob.heard())
    bob.say(Received(handle, 102, 100))
    bob.say(Received(handle, 202, 0))
    assert len(bob.heard()) == heard == 200 + ENTRIES_MAX


def test_bytes_under_way_are_bounded_too() -> None:
    desk = Desk(Limits(burst_max=10_000, bytes_per_s=10**9, room_log_size_max=10**9))
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    for number in range(1, 20):
        publish(alice, "x" * 60_000, first=number)
    assert len(bob.heard()) == 5
    bob.say(Received(bob.handles["lobby"], 4, 256))
    assert len(bob.heard()) == 7


def test_to_have_read_what_was_never_sent_breaks_the_rules() -> None:
    desk = Desk()
    _, bob = seat(desk, "lobby", "alice", "bobby")
    bob.say(Received(bob.handles["lobby"], 3, 256))
    assert bob.closed == CloseCode.PROTOCOL


def test_who_falls_behind_retention_is_told_what_is_missing() -> None:
    desk = Desk(Limits(burst_max=10_000, room_log_messages_max=10))
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    bob.lose_stream()
    for number in range(1, 51):
        publish(alice, f"{number}", first=number)
    desk.oldest_kept = 31
    other = back(desk, bob, last=2)
    gap, *messages = other.frames
    assert gap == Gap(other.handles["lobby"], 3, 30, 1)
    assert [one.seq for one in messages if isinstance(one, Message)] == list(range(31, 53))
    other.say(Received(other.handles["lobby"], 52, 256))
    assert other.closed is None


def test_the_end_of_the_log_is_shown_a_second_after_the_last_entry() -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    publish(alice, "hello")
    desk.wait(0.999)
    assert not [one for one in bob.frames if isinstance(one, Head)]
    desk.wait(0.002)
    assert [one for one in bob.frames if isinstance(one, Head)] == [Head(bob.handles["lobby"], 3, 1)]
    desk.wait(30.0)
    assert len([one for one in bob.frames if isinstance(one, Head)]) == 1


def test_rooms_of_one_session_take_turns() -> None:
    desk = Desk(PATIENT)
    alice, bob = seat(desk, "one", "alice", "bobby")
    alice.create("two")
    bob.join("two")
    bob.frames.clear()
    desk.space = 0
    for number in range(1, 5):
        publish(alice, f"one {number}".ljust(400), first=number, room="one")
        publish(alice, f"two {number}".ljust(400), first=number, room="two")
    desk.space = 65_536
    desk.reception.stir(bob.session)
    desk.flush()
    rooms = [one.room for one in bob.heard()]
    assert rooms == [bob.handles["one"], bob.handles["two"]] * 4


# --- datagrams -----------------------------------------------------------------------------------------------


def test_what_was_lost_goes_again() -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    bob.use_datagrams()
    handle = bob.handles["lobby"]
    for number in range(1, 13):
        publish(alice, f"{number}", first=number)
        if number == 3:
            bob.arriving.clear()  # lost
        bob.pump()
    for _ in range(10):
        desk.wait(0.05)
        bob.pump()
    assert set(bob.texts()) == {f"{number}" for number in range(1, 13)}
    bob.seal(Received(handle, 14, 256))
    [link] = bob.session.links.values()
    assert not link._cursor or link._cursor.up_to == 14


def test_a_message_that_cannot_be_kept_yet_is_not_acknowledged() -> None:
    desk = Desk(PATIENT)
    [alice] = seat(desk, "lobby", "alice")
    alice.use_datagrams()
    handle = alice.handles["lobby"]
    alice.seal(Publish(handle, UNSETTLED_MAX + 1, 0, b"far"))
    alice.seal(Publish(handle, 1, 0, b"1"))
    for _ in range(60):
        desk.wait(0.05)
        alice.pump()
    assert (1, 0) in alice.published()
    for number in range(2, UNSETTLED_MAX + 1):
        alice.seal(Publish(handle, number, 0, b"x"))
    for _ in range(60):
        desk.wait(0.05)
        alice.pump()
    assert (UNSETTLED_MAX + 1, 0) in alice.published(), "it came again"


@pytest.mark.parametrize("is_told", [False, True])
def test_what_went_over_tls_goes_again_when_datagrams_get_through_and_when_tls_is_lost(is_told: bool) -> None:
    """Where a client's network has changed, TLS seems to be there for long, and nothing comes over it."""
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    publish(alice, "hello")  # over TLS; say that it is lost
    bob.frames.clear()
    bob.use_datagrams()
    if is_told:
        bob.sealed.clear()
        bob.lose_stream()
        bob.pump()
    assert bob.session in desk.clients
    assert not bob.session.is_over
    assert bob.texts() == ["hello"]


def frames_of(link: ModernLink) -> list[tuple[Load, Frame]]:
    sent: list[tuple[Load, Frame]] = []
    while (load := link.next(space=0)) is not None:
        [frame] = read_frames(load.data)
        sent.append((load, frame))
    return sent


class Listener:
    """A session that only listens."""

    def __init__(self) -> None:
        self.woken = 0

    def wake(self, link: ModernLink) -> None:
        self.woken += 1

    def unseat(self, link: ModernLink) -> None: ...


def door(entries: int, *, first: int = 1) -> tuple[ModernLink, RoomLog]:
    """A door into a room with so many entries, of which those before ``first`` are gone."""
    kept = [Entry(seq, 1, "alice", Kind.TEXT, b"x", 0, False, seq) for seq in range(first, entries + 1)]
    log = RoomLog(Limits(), lambda at, count: [one for one in kept if one.seq >= at][:count], head=entries)
    link = ModernLink(CLIENT, "lobby", "alice")
    link.settle_in(log, log_id=CLIENT, policy=Policy(), member_id=1, joined_seq=0)
    link.end(entries)  # nobody adds to it
    return link, log


def test_a_gap_that_is_lost_is_told_again_unless_the_reader_knows() -> None:
    link, _ = door(9, first=6)
    link.attach(Listener(), 7, last=0)
    (load, gap), *_ = frames_of(link)
    assert gap == Gap(7, 1, 5, 1)
    link.lost(load)
    assert [frame for _, frame in frames_of(link)] == [gap]
    link.receive(Received(7, 5, 256))
    link.lost(load)
    assert frames_of(link) == []


def test_entries_that_went_together_are_lost_together() -> None:
    link, _ = door(3)
    link.attach(Listener(), 7, last=0)
    load = link.next(space=1000)
    assert load is not None
    assert load.frames == 3
    assert [frame.seq for frame in read_frames(load.data) if isinstance(frame, Message)] == [1, 2, 3]
    assert link.next(space=1000) is None
    link.receive(Received(7, 1, 256))
    link.lost(load)
    assert [frame.seq for _, frame in frames_of(link) if isinstance(frame, Message)] == [2, 3]


def test_what_was_lost_of_another_session_is_of_no_interest() -> None:
    link, _ = door(3)
    link.attach(Listener(), 7, last=0)
    link._answer(Published(7, 1, 0, 1, 0))
    old = [load for load, _ in frames_of(link)]
    link.show_head()
    old += [load for load, _ in frames_of(link)]
    gone, _ = door(3, first=3)
    gone.attach(Listener(), 7, last=0)
    old += [load for load, _ in frames_of(gone)]
    listener = Listener()
    link.attach(listener, 8, last=2)
    assert [frame.seq for _, frame in frames_of(link) if isinstance(frame, Message)] == [3]
    listener.woken = 0
    for load in old:
        link.lost(load)
    assert frames_of(link) == []
    link.detach()
    for load in old:
        link.lost(load)
    assert listener.woken == 0


def test_an_answer_that_is_lost_is_told_again() -> None:
    link, _ = door(0)
    link.attach(Listener(), 7, last=0)
    link._answer(Published(7, 1, 0, 1, 0))
    [(load, frame)] = frames_of(link)
    link.lost(load)
    assert [again for _, again in frames_of(link)] == [frame]


def test_answers_that_went_together_are_told_again_together() -> None:
    link, _ = door(0)
    link.attach(Listener(), 7, last=0)
    answers = [Published(7, number, 0, number, 0) for number in range(1, 50)]
    link._answer(*answers)
    load = link.next(space=10 * len(write_frame(answers[0])))
    assert load is not None
    assert (read_frames(load.data), load.frames) == (answers[:10], 10)
    load = link.next(space=10**6)
    assert load is not None
    assert read_frames(load.data) == answers[10 : 10 + ANSWERS_TOGETHER]
    link.lost(load)
    link._answer(Published(7, 60, 0, 60, 0))
    assert link.has_news
    told = [frame for _, frame in frames_of(link)]
    assert sorted(told) == [*answers[10:], Published(7, 60, 0, 60, 0)]
    assert not link.has_news
    link.attach(Listener(), 8, last=0)
    link.lost(load)
    assert not frames_of(link), "another session asked"


def test_a_door_without_a_session_says_nothing_and_hears_nothing() -> None:
    link, log = door(3)
    link.grow(4)
    link.show_head()
    link.rewind()
    link.receive(Received(7, 99, 1))
    link._answer(Published(7, 1, 0, 1, 0))
    assert link.next(space=1000) is None
    assert link.carrier is None
    assert (link.head, log.head) == (3, 3)
    assert ModernLink(CLIENT, "lobby", "alice").next(space=1000) is None
    fresh = ModernLink(CLIENT, "lobby", "alice")
    fresh._head_due = True
    assert fresh.next(space=1000) is None


def test_who_has_left_may_read_nothing() -> None:
    link, _ = door(3)
    link.end_seq = 0
    assert link.head == 0
    assert ModernLink(CLIENT, "lobby", "alice").head == 0


def test_what_is_lost_on_its_way_to_who_has_left_does_not_go_again() -> None:
    desk = Desk(PATIENT)
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    bob.use_datagrams()
    for number in range(1, 9):
        publish(alice, f"{number}", first=number)
    bob.arriving.clear()  # lost
    bob.ask(Op.LEAVE, RoomRequest, handle=bob.handles["lobby"])
    publish(alice, "not to you", first=9)
    for _ in range(20):
        desk.wait(0.1)
        bob.pump()
    assert len(bob.texts()) < 8, "but for what a probe carried"
    assert "not to you" not in bob.texts()
    assert bob.closed is None


# --- what the hub asks of it ------------------------------------------------------------------------------------


def test_it_is_spoken_to_by_the_log_and_by_nothing_else() -> None:
    link, _ = door(1)
    entry = Entry(1, 1, "alice", Kind.LEAVE, b"left", 0)
    assert link.form is MODERN_FORM
    assert MODERN_FORM.encode(entry) == b""
    assert MODERN_FORM.encode_farewell(entry) is None
    for ask in (lambda: link.finish(b""), lambda: link.take(entry)):
        with pytest.raises(LocalProtocolError):
            ask()


def test_its_memo_is_the_client_and_no_secret() -> None:
    link, _ = door(1)
    assert client_of(link.memo()) == CLIENT
    classic = ClassicLink(Form.OCM, room="lobby", user="alice", token=b"x" * 36, address=bytes(6))
    assert client_of(classic.memo()) is None
    assert client_of(b"2" + bytes(15)) is None
    assert client_of(b"") is None


def test_it_answers_from_what_a_journal_remembers() -> None:
    answers = (
        Answer(4, 0, 17, 5, digest_of(0, b"four")),
        Answer(5, Status.INVALID, 0, 6, digest_of(3, b"five")),
    )
    link = ModernLink(CLIENT, "lobby", "alice", mark=5, answers=answers)
    log = RoomLog(Limits(), lambda _first, _count: [])
    link.settle_in(log, log_id=CLIENT, policy=Policy(), member_id=1, joined_seq=0)
    link.end(1)
    link.attach(Listener(), 7, last=1)
    for frame in (Publish(7, 4, 0, b"four"), Publish(7, 5, 3, b"five"), Publish(7, 3, 0, b"three")):
        assert link.publish(frame)
    assert [frame for _, frame in frames_of(link)] == [Published(7, 4, 0, 17, 5), Published(7, 5, 17, 0, 6)]


def test_a_refusal_for_good_is_kept_with_what_it_was_about() -> None:
    desk = Desk()
    [alice] = seat(desk, "lobby", "alice")
    desk.patient = True
    alice.say(Publish(alice.handles["lobby"], 1, 77, b"what is this"))
    [turn] = desk.pending
    [step] = turn.records
    assert isinstance(step, Refused)
    assert step == Refused("lobby", 1, 1, 1, Status.INVALID, step.time_ms, digest_of(77, b"what is this"))


def test_what_classic_members_cannot_be_told_is_not_said_in_a_mixed_room() -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby", access="mixed")
    largest = text_size_max("lobby", "alice", names=True)
    publish(alice, "x" * (largest + 1), "x" * largest)
    assert alice.published() == [(1, Status.TOO_LARGE), (2, 0)]
    assert [len(text) for text in bob.texts()] == [largest]
    alice.ask(Op.RAISE, Raise, handle=alice.handles["lobby"], access="modern")
    publish(alice, "x" * (largest + 1), first=3)
    assert alice.published()[2:] == [(3, 0)]


def test_nobody_publishes_into_a_room_that_it_has_left() -> None:
    desk = Desk()
    _, bob = seat(desk, "lobby", "alice", "bobby")
    handle = bob.handles["lobby"]
    bob.ask(Op.LEAVE, RoomRequest, handle=handle)
    bob.say(Publish(handle, 1, 0, b"hello?"))
    assert logged(desk) == []
