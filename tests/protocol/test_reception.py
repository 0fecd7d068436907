"""Rooms of TCRP/2 at the server: making and joining them, seats that outlive sessions, what a host may."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from ocm.protocol.entry import Access, Kind, Lifetime, Policy, Reason, Refusal
from ocm.protocol.limits import Limits
from ocm.protocol.wire.classic import Stage
from ocm.protocol.wire.frames import Message, Publish, Received, write_frame
from ocm.protocol.wire.records import (
    CloseCode,
    Denied,
    Done,
    History,
    Kick,
    MemberPage,
    Members,
    Op,
    Payload,
    Raise,
    RoomRequest,
    Seated,
    write_frames_record,
    write_record,
)
from tests.protocol.desk import Client, Desk, denied, known, seat

DAY_S = 86_400.0


def again(desk: Desk, client: Client) -> Client:
    """The same client, in another session."""
    return Client(desk, client.name).authenticate(client)


def tell(client: Client, room: str, seq: int) -> None:
    """Say that the log was read up to an entry."""
    client.say(Received(client.handles[room], seq, 256))


def last_said(client: Client) -> tuple[Kind, dict[str, object]]:
    message = client.heard()[-1]
    return Kind(message.kind), json.loads(message.body)


# --- making and joining -----------------------------------------------------------------------------------


def test_who_makes_a_room_is_its_first_member_and_its_host() -> None:
    desk = Desk()
    alice = known(desk, "alice")
    seated = alice.create("lobby", lifetime="hand over", durable=False)
    assert isinstance(seated, Seated)
    assert (seated.member, seated.host, seated.head, seated.start, seated.mark) == (1, 1, 1, 1, 0)
    assert (seated.access, seated.lifetime, seated.durable) == ("modern", "hand over", False)
    assert not seated.resumed
    assert [(row.id, row.name, row.flags) for row in seated.members] == [(1, "alice", 0)]
    room = desk.hub.room("lobby")
    assert room is not None
    assert room.policy == Policy(Access.MODERN, Lifetime.HAND_OVER, durable=False)
    assert seated.log == room.log_id.hex()


def test_a_new_member_starts_behind_its_own_entry_and_hears_what_follows() -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    seated = bob.last(Seated)
    assert (seated.member, seated.start, seated.head) == (2, 2, 2)
    alice.say(Publish(alice.handles["lobby"], 1, 0, b"hello"))
    assert bob.seqs() == [3]
    assert alice.seqs() == [2, 3], "an author hears its own like everybody"


@pytest.mark.parametrize("op", [Op.CREATE, Op.JOIN])
def test_nobody_is_told_of_a_seat_before_the_journal_has_it(op: Op) -> None:
    desk = Desk()
    [alice] = seat(desk, "lobby", "alice")
    bob = known(desk, "bobby")
    desk.patient = True
    answers = len(bob.answers)
    bob.write(bob.create_record("other") if op is Op.CREATE else bob.join_record("lobby"))
    assert len(bob.answers) == answers
    assert alice.heard() == []
    desk.commit()
    assert isinstance(bob.answers[-1][1], Seated)


@pytest.mark.parametrize(
    ("room", "user", "code"),
    [
        ("", "alice", 400),
        ("x" * 65, "alice", 400),
        ("a\nb", "alice", 400),
        ("lobby", "", 432),
        ("lobby", "x" * 33, 432),
        ("lobby", "a\u202eb", 432),
        ("other", "bobby", 404),
        ("lobby", "aIice", 433),
    ],
)
def test_what_is_refused_says_why(room: str, user: str, code: int) -> None:
    desk = Desk()
    seat(desk, "lobby", "alice")
    assert denied(known(desk, "bobby").join(room, user)) == code


def test_names_are_bounded_in_bytes_and_not_in_letters() -> None:
    assert denied(known(Desk(), "alice").create("あ" * 22)) == 400
    assert isinstance(known(Desk(), "alice").create("あ" * 21), Seated)


def test_a_room_that_is_there_is_not_made_again() -> None:
    desk = Desk()
    seat(desk, "lobby", "alice")
    assert denied(known(desk, "bobby").create("lobby")) == 409


@pytest.mark.parametrize("other", [{"access": "secret"}, {"lifetime": "eternal"}])
def test_a_policy_that_there_is_not_is_refused(other: dict[str, str]) -> None:
    desk = Desk()
    assert denied(known(desk, "alice").create("lobby", **other)) == 400
    assert desk.hub.rooms() == []


def test_the_program_that_runs_the_server_may_refuse_and_rename() -> None:
    desk = Desk()
    seat(desk, "lobby", "alice")
    desk.decide = lambda knocking: Refusal.NOT_FOUND if knocking.request.password != "please" else "bob the polite"
    bob = known(desk, "bobby")
    answer = bob.join("lobby")
    assert denied(answer) == 404
    missing = bob.join("other")
    assert isinstance(answer, Denied)
    assert isinstance(missing, Denied)
    assert answer.message == missing.message, "what is forbidden is not told from what is not there"
    bob.join("lobby", password="please")
    assert bob.last(Seated).members[-1].name == "bob the polite"


def test_who_decides_is_told_whether_a_room_is_to_be_made() -> None:
    desk = Desk()
    desk.decide = lambda _: None
    alice = known(desk, "alice")
    alice.write(alice.create_record("lobby"), alice.join_record("lobby"))
    assert [knocking.creates for knocking in desk.knocking] == [True, False]
    assert "password" not in repr(desk.knocking)


def test_a_decision_for_a_session_that_is_over_is_of_no_use() -> None:
    desk = Desk()
    desk.decide = lambda _: None
    alice = known(desk, "alice")
    alice.write(alice.create_record("lobby"))
    alice.lose_stream()
    desk.reception.let_in(desk.knocking[0], "alice", now_s=desk.now_s)
    assert desk.hub.rooms() == []


def test_a_journal_that_fails_turns_away_who_was_on_the_way_in() -> None:
    desk = Desk(patient=True)
    alice = Client(desk, "alice").authenticate()
    desk.commit()
    alice.write(alice.create_record("lobby"))
    desk.fail()
    refused = alice.last(Denied)
    assert (refused.code, refused.wait_ms) == (480, 1000)
    assert desk.hub.rooms() == []
    alice.write(alice.create_record("lobby"))
    desk.commit()
    assert alice.last(Seated).head == 1


def test_a_failure_that_is_told_late_turns_nobody_away_who_came_after_it() -> None:
    desk = Desk()
    alice, bob = known(desk, "alice"), known(desk, "bobby")
    desk.patient = True
    alice.write(alice.create_record("one"))
    bob.write(bob.create_record("two"))
    first, second = desk.pending
    desk.pending.clear()
    desk.reception.failed(desk.hub.failed(first.up_to), now_s=desk.now_s)
    alice.write(alice.create_record("one"))
    desk.reception.failed(desk.hub.failed(second.up_to), now_s=desk.now_s)
    desk.commit()
    assert isinstance(alice.last(Seated), Seated)


def test_who_is_turned_away_beside_a_classic_program_is_told() -> None:
    desk = Desk()
    seat(desk, "lobby", "host", access="mixed")
    alice = known(desk, "alice")
    desk.patient = True
    desk.classic_member("lobby", "bobby")
    alice.write(alice.join_record("lobby"))
    desk.fail()
    assert denied(alice.answers[-1][1]) == 480
    assert len(desk.hub.members("lobby")) == 1


# --- asking again -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", [Op.CREATE, Op.JOIN])
def test_asking_again_is_answered_with_the_same_seat(op: Op) -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    client = alice if op is Op.CREATE else bob
    before = client.last(Seated)
    answer = client.create("lobby") if op is Op.CREATE else client.join("lobby")
    assert isinstance(answer, Seated)
    assert answer.resumed
    assert (answer.member, answer.log) == (before.member, before.log)
    assert answer.handle != before.handle
    assert len(desk.hub.members("lobby")) == 2
    client.say(Publish(before.handle, 1, 0, b"to a handle that is out of use"))
    assert client.published() == []
    client.say(Publish(answer.handle, 1, 0, b"hello"))
    assert client.published() == [(1, 0)]


@pytest.mark.parametrize("op", [Op.CREATE, Op.JOIN])
def test_asking_again_while_the_first_waits_for_its_commit_makes_no_second_member(op: Op) -> None:
    desk = Desk()
    seat(desk, "lobby", "host")
    alice = known(desk, "alice")
    desk.patient = True
    alice.write(alice.create_record("mine") if op is Op.CREATE else alice.join_record("lobby"))
    alice.write(alice.create_record("mine") if op is Op.CREATE else alice.join_record("lobby"))
    assert alice.session.requests == 2
    desk.commit()
    first, second = alice.all(Seated)
    assert (first.id, second.id) == (1, 2)
    assert (first.resumed, second.resumed) == (False, True)
    assert first.member == second.member
    assert first.start == second.start
    assert alice.session.requests == 0
    alice.say(Publish(second.handle, 1, 0, b"hello"))
    desk.commit()
    assert alice.published() == [(1, 0)]


def join_unheard(desk: Desk, name: str) -> Client:
    """Let somebody in whose connection breaks before the answer to JOIN."""
    client = known(desk, name)
    desk.patient = True
    client.write(client.join_record("lobby"))
    client.lose_stream()
    desk.commit()
    desk.patient = False
    return client


def test_a_seat_whose_answer_was_lost_is_taken_by_the_next_session() -> None:
    desk = Desk()
    seat(desk, "lobby", "host")
    alice = join_unheard(desk, "alice")
    assert len(desk.hub.members("lobby")) == 2
    back = again(desk, alice)
    answer = back.join("lobby")
    assert isinstance(answer, Seated)
    assert answer.resumed
    assert len(desk.hub.members("lobby")) == 2


@pytest.mark.parametrize("crashes", [False, True])
def test_what_was_said_since_a_join_whose_answer_was_lost_is_read(crashes: bool) -> None:
    desk = Desk()
    alice = seat(desk, "lobby", "alice")[0]
    bob = join_unheard(desk, "bobby")
    alice.say(Publish(alice.handles["lobby"], 1, 0, b"welcome"))
    if crashes:
        desk.crash()
    back = again(desk, bob)
    answer = back.join("lobby")
    assert isinstance(answer, Seated)
    assert (answer.start, answer.head) == (2, 3)
    assert back.texts() == ["welcome"]


def test_what_was_read_does_not_come_again_to_who_asks_again_without_knowing_the_log() -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    alice.say(Publish(alice.handles["lobby"], 1, 0, b"read"), Publish(alice.handles["lobby"], 2, 0, b"unread"))
    assert bob.texts() == ["read", "unread"]
    tell(bob, "lobby", 3)
    back = again(desk, bob)
    back.join("lobby")
    tell(back, "lobby", back.last(Seated).start)
    assert back.texts() == ["unread"]


def test_a_seat_that_nobody_comes_back_for_is_given_up() -> None:
    desk = Desk()
    seat(desk, "lobby", "host")
    join_unheard(desk, "alice")
    desk.wait(desk.limits.session_timeout_s - 2)  # the host, who is a script, would be found dead
    desk.hub.handle_timeout(now_s=desk.now_s + DAY_S)
    assert desk.hub.members("lobby")[-1].leaving


def test_asking_again_with_a_second_session_while_the_first_waits() -> None:
    desk = Desk()
    seat(desk, "lobby", "host")
    alice = known(desk, "alice")
    desk.patient = True
    alice.write(alice.join_record("lobby"))
    back = again(desk, alice)
    desk.commit()
    back.write(back.join_record("lobby"))
    desk.commit()
    assert alice.last(Seated).member == back.last(Seated).member
    assert back.last(Seated).resumed
    assert len(desk.hub.members("lobby")) == 2
    tell(back, "lobby", back.last(Seated).start)
    assert alice.closed == CloseCode.REPLACED


# --- one session after another ------------------------------------------------------------------------------


def hand_over(desk: Desk) -> tuple[Client, Client, Client]:
    """A host, and alice, who has been promised her seat in another session."""
    host, alice = seat(desk, "lobby", "host", "alice")
    back = again(desk, alice)
    seated = back.join("lobby", log=alice.all(Seated)[0].log, last=2)
    assert isinstance(seated, Seated)
    assert (seated.resumed, seated.start, seated.head) == (True, 2, 2)
    return host, alice, back


def test_a_seat_is_left_when_the_client_shows_that_it_knows_the_new_one() -> None:
    """Until then its former session speaks for it: the answer may never come."""
    desk = Desk()
    host, alice, back = hand_over(desk)
    host.say(Publish(host.handles["lobby"], 1, 0, b"who hears this?"))
    alice.say(Publish(alice.handles["lobby"], 1, 0, b"I do"))
    assert alice.closed is None
    assert alice.texts() == ["who hears this?", "I do"]
    assert back.texts() == []
    tell(back, "lobby", 2)
    assert alice.closed == CloseCode.REPLACED
    assert back.texts() == ["who hears this?", "I do"], "all behind what it asked for"
    back.say(Publish(back.handles["lobby"], 1, 0, b"I do"), Publish(back.handles["lobby"], 2, 0, b"still"))
    assert host.texts() == ["who hears this?", "I do", "still"]
    assert desk.hub.members("lobby")[-1].lost_s is None


@pytest.mark.parametrize("by_request", [False, True])
def test_a_message_or_a_request_shows_it_as_well(by_request: bool) -> None:
    desk = Desk()
    _, alice, back = hand_over(desk)
    if by_request:
        assert isinstance(back.ask(Op.MEMBERS, Members, handle=back.handles["lobby"]), MemberPage)
    else:
        back.say(Publish(back.handles["lobby"], 1, 0, b"me"))
    assert alice.closed == CloseCode.REPLACED


def test_a_seat_that_was_promised_is_taken_when_the_former_session_ends() -> None:
    desk = Desk()
    host, alice, back = hand_over(desk)
    alice.lose_stream()
    host.say(Publish(host.handles["lobby"], 1, 0, b"here"))
    assert back.texts() == ["here"]
    assert desk.hub.members("lobby")[-1].lost_s is None


def test_a_promise_ends_with_its_session() -> None:
    desk = Desk()
    host, alice, back = hand_over(desk)
    back.lose_stream()
    host.say(Publish(host.handles["lobby"], 1, 0, b"here"))
    assert alice.texts() == ["here"]
    third = again(desk, back)
    third.join("lobby", last=2)
    tell(third, "lobby", third.last(Seated).start)
    assert alice.closed == CloseCode.REPLACED


def test_who_asks_again_has_the_later_seat() -> None:
    desk = Desk()
    host, alice, back = hand_over(desk)
    first = back.handles["lobby"]
    back.join("lobby", last=2)
    back.say(Received(first, 2, 256))
    assert alice.closed is None, "that handle names nothing any more"
    tell(back, "lobby", 2)
    assert alice.closed == CloseCode.REPLACED
    host.say(Publish(host.handles["lobby"], 1, 0, b"here"))
    assert [one.room for one in back.heard()] == [back.handles["lobby"]]


def test_a_seat_in_a_room_that_ended_meanwhile_says_so() -> None:
    desk = Desk()
    host, alice, back = hand_over(desk)
    kicked = next(row.id for row in host.all(Seated)[0].members) + 1
    host.ask(Op.KICK, Kick, handle=host.handles["lobby"], member=kicked)
    assert last_said(alice)[0] is Kind.LEAVE
    tell(alice, "lobby", 3)
    tell(back, "lobby", 2)
    assert last_said(back)[0] is Kind.LEAVE


def test_a_member_has_one_name() -> None:
    desk = Desk()
    alice, _ = seat(desk, "lobby", "alice", "bobby")
    assert denied(alice.join("lobby", "somebody else")) == 433
    assert alice.published() == []


def test_a_client_is_in_so_many_rooms_and_no_more() -> None:
    desk = Desk(Limits(rooms_per_session_max=2))
    alice = known(desk, "alice")
    desk.patient = True
    alice.write(*(alice.create_record(room) for room in "abc"))
    assert denied(alice.answers[-1][1]) == 472
    desk.commit()
    assert len(alice.all(Seated)) == 2
    desk.patient = False
    back = again(desk, alice)
    assert denied(back.create("c")) == 472, "rooms count that it has not come back to"
    back.join("a")
    back.ask(Op.LEAVE, RoomRequest, handle=back.handles["a"])
    assert isinstance(back.create("c"), Seated)


def test_a_client_that_asks_too_much_at_once_is_closed() -> None:
    desk = Desk(Limits(requests_max=3))
    alice = known(desk, "alice")
    desk.decide = lambda _: None
    alice.write(*(alice.create_record(f"room {number}") for number in range(3)))
    assert alice.closed is None
    alice.write(alice.create_record("one more"))
    assert alice.closed == CloseCode.PROTOCOL


def test_answered_requests_do_not_count() -> None:
    desk = Desk(Limits(requests_max=2))
    [alice] = seat(desk, "lobby", "alice")
    handle = alice.handles["lobby"]
    for number in range(10):
        alice.ask(Op.MEMBERS, Members, handle=handle)
        alice.ask(Op.HISTORY, History, handle=handle, first=1, count=10)
        alice.ask(Op.KICK, Kick, handle=handle, member=99)
        alice.join("lobby", f"name {number}")
        alice.join("")
        alice.join("lobby", "")
        alice.ask(Op.RAISE, Raise, handle=handle, access="modern")
    assert (alice.session.requests, alice.closed) == (0, None)


# --- sessions come and go, seats stay ---------------------------------------------------------------------


def test_a_member_without_a_session_keeps_name_cursor_and_mark_for_a_day() -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    bob.say(Publish(bob.handles["lobby"], 1, 0, b"mine"))
    tell(bob, "lobby", 3)
    bob.lose_stream()
    alice.say(Publish(alice.handles["lobby"], 1, 0, b"while you were away"))
    desk.now_s += DAY_S - 1
    assert denied(known(desk, "other").join("lobby", "bobby")) == 433
    back = again(desk, bob)
    answer = back.join("lobby", log=bob.last(Seated).log, last=3)
    assert isinstance(answer, Seated)
    assert (answer.resumed, answer.start, answer.mark, answer.member) == (True, 3, 1, 2)
    assert back.texts() == ["while you were away"]


def test_a_member_that_is_away_for_a_day_is_gone() -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    bob.lose_stream()
    bob_s = desk.now_s
    desk.now_s += DAY_S
    desk.submit(desk.hub.handle_timeout(now_s=bob_s + DAY_S - 1))
    assert len(desk.hub.members("lobby")) == 2
    desk.submit(desk.hub.handle_timeout(now_s=desk.now_s))
    desk.flush()
    assert last_said(alice) == (Kind.LEAVE, {"member": 2, "name": "bobby", "reason": Reason.LOST.value})


def test_members_see_who_is_away() -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    bob.lose_stream()
    page = alice.ask(Op.MEMBERS, Members, handle=alice.handles["lobby"])
    assert isinstance(page, MemberPage)
    assert [(row.name, row.flags) for row in page.members] == [("alice", 0), ("bobby", 2)]
    again(desk, bob).join("lobby")
    page = alice.ask(Op.MEMBERS, Members, handle=alice.handles["lobby"])
    assert isinstance(page, MemberPage)
    assert [row.flags for row in page.members] == [0, 0]


def test_a_member_with_a_session_is_never_idle() -> None:
    desk = Desk(Limits(session_timeout_s=1e9))
    seat(desk, "lobby", "alice", "bobby")
    desk.wait(10 * DAY_S)
    assert len(desk.hub.members("lobby")) == 2


@pytest.mark.parametrize("lifetime", ["close", "hand over", "persist"])
def test_a_host_that_is_away_too_long_ends_the_room_as_was_agreed(lifetime: str) -> None:
    desk = Desk(Limits(session_timeout_s=1e9))
    alice, bob = seat(desk, "lobby", "alice", "bobby", lifetime=lifetime)
    alice.lose_stream()
    desk.wait(desk.limits.host_grace_s - 0.001)
    assert bob.heard() == []
    desk.wait(0.002)
    match lifetime:
        case "close":
            assert last_said(bob) == (Kind.CLOSED, {"reason": Reason.HOST_LEFT.value})
            assert desk.hub.rooms() == []
        case "hand over":
            assert last_said(bob) == (Kind.LEAVE, {"member": 1, "name": "alice", "reason": Reason.LOST.value})
            assert isinstance(bob.ask(Op.END, RoomRequest, handle=bob.handles["lobby"]), Done)
        case _:
            assert bob.heard() == []
            assert denied(bob.ask(Op.END, RoomRequest, handle=bob.handles["lobby"])) == 403


def test_a_host_that_comes_back_in_time_is_the_host_still() -> None:
    desk = Desk(Limits(session_timeout_s=1e9))
    alice, _ = seat(desk, "lobby", "alice", "bobby")
    alice.lose_stream()
    desk.wait(desk.limits.host_grace_s - 1)
    back = again(desk, alice)
    back.join("lobby")
    desk.wait(DAY_S)
    assert back.last(Seated).host == 1
    assert desk.hub.rooms() == ["lobby"]


def test_who_is_away_and_becomes_the_host_has_a_hosts_time_to_come_back() -> None:
    desk = Desk(Limits(session_timeout_s=1e9))
    alice, bob, carol = seat(desk, "lobby", "alice", "bobby", "carol", lifetime="hand over")
    bob.lose_stream()
    desk.wait(1000)
    alice.ask(Op.LEAVE, RoomRequest, handle=alice.handles["lobby"])
    desk.wait(desk.limits.host_grace_s - 1)
    assert [member.name for member in desk.hub.members("lobby")] == ["bobby", "carol"]
    desk.wait(2)
    assert [member.name for member in desk.hub.members("lobby")] == ["carol"]
    assert isinstance(carol.ask(Op.END, RoomRequest, handle=carol.handles["lobby"]), Done)


def test_after_a_restart_everybody_comes_back_to_its_seat() -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    alice.say(Publish(alice.handles["lobby"], 1, 0, b"before"))
    desk.crash()
    back = again(desk, alice)
    answer = back.join("lobby", log=alice.last(Seated).log, last=2)
    assert isinstance(answer, Seated)
    assert (answer.resumed, answer.member, answer.host, answer.mark) == (True, 1, 1, 1)
    assert back.texts() == ["before"]
    back.say(Publish(back.handles["lobby"], 1, 0, b"before"))
    assert back.published() == [(1, 0)], "it is answered from what the journal remembers"
    assert [row.flags for row in answer.members] == [0, 2]
    other = again(desk, bob)
    other.join("lobby", log=alice.last(Seated).log, last=3)
    back.say(Publish(back.handles["lobby"], 2, 0, b"after"))
    assert other.texts() == ["after"]


def test_after_a_restart_a_host_that_does_not_come_back_is_missed() -> None:
    desk = Desk()
    seat(desk, "lobby", "alice", "bobby")
    desk.crash()
    desk.wait(desk.limits.host_grace_s + 1)
    assert desk.hub.rooms() == []


# --- another log --------------------------------------------------------------------------------------------


def test_a_room_that_was_made_anew_has_another_log() -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    tell(bob, "lobby", 2)
    alice.ask(Op.END, RoomRequest, handle=alice.handles["lobby"])
    tell(alice, "lobby", 3)
    tell(bob, "lobby", 3)
    seated = alice.create("lobby")
    assert isinstance(seated, Seated)
    answer = bob.join("lobby", log=bob.last(Seated).log, last=3)
    assert isinstance(answer, Seated)
    assert answer.log == seated.log != bob.all(Seated)[0].log
    assert (answer.resumed, answer.start) == (False, 2)


def test_a_log_that_was_rewound_shows_in_its_head() -> None:
    desk = Desk()
    alice, _ = seat(desk, "lobby", "alice", "bobby")
    answer = alice.join("lobby", log=alice.last(Seated).log, last=1000)
    assert isinstance(answer, Seated)
    assert (answer.start, answer.head) == (2, 2)


def test_who_comes_back_as_somebody_new_reads_on_where_it_was() -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    log = bob.last(Seated).log
    bob.ask(Op.LEAVE, RoomRequest, handle=bob.handles["lobby"])
    alice.say(Publish(alice.handles["lobby"], 1, 0, b"meanwhile"))
    answer = bob.join("lobby", log=log, last=2)
    assert isinstance(answer, Seated)
    assert (answer.resumed, answer.start, answer.member) == (False, 2, 3)
    assert bob.texts() == ["meanwhile"]


# --- what a member and what a host may ----------------------------------------------------------------------


def test_who_leaves_is_told_when_it_is_written_and_nothing_else() -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    desk.patient = True
    bob.ask(Op.LEAVE, RoomRequest, handle=bob.handles["lobby"])
    assert isinstance(bob.answers[-1][1], Seated)
    desk.commit()
    assert bob.last(Done).id == bob.number
    assert bob.heard() == []
    assert last_said(alice) == (Kind.LEAVE, {"member": 2, "name": "bobby", "reason": "left"})
    assert denied(bob.ask(Op.LEAVE, RoomRequest, handle=bob.handles["lobby"])) == 404
    bob.say(Publish(bob.handles["lobby"], 1, 0, b"to nobody"), Received(bob.handles["lobby"], 99, 1))
    desk.commit()
    assert bob.closed is None
    assert bob.published() == []


def test_leaving_twice_is_answered_twice() -> None:
    desk = Desk()
    _, bob = seat(desk, "lobby", "alice", "bobby")
    desk.patient = True
    for _ in range(2):
        bob.ask(Op.LEAVE, RoomRequest, handle=bob.handles["lobby"])
    assert bob.all(Done) == []
    desk.commit()
    assert [done.id for done in bob.all(Done)] == [bob.number - 1, bob.number]


def test_what_was_said_before_leaving_is_said() -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    handle = bob.handles["lobby"]
    bye = write_frames_record(write_frame(Publish(handle, 1, 0, b"bye!")))
    late = write_frames_record(write_frame(Publish(handle, 2, 0, b"too late")))
    bob.write(bye, write_record(Op.LEAVE, Stage.REQUEST, RoomRequest(id=9, handle=handle)), late)
    assert alice.texts() == ["bye!"]


def test_a_host_that_leaves_closes_the_room_for_everybody() -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    alice.ask(Op.LEAVE, RoomRequest, handle=alice.handles["lobby"])
    assert isinstance(alice.last(Done), Done)
    assert [one.kind for one in bob.heard()] == [Kind.LEAVE, Kind.CLOSED]
    assert desk.hub.rooms() == []


Asked = tuple[Callable[..., Payload], dict[str, object]]
HOSTS: dict[Op, Asked] = {
    Op.KICK: (Kick, {"member": 3}),
    Op.END: (RoomRequest, {}),
    Op.RAISE: (Raise, {"access": "modern"}),
}


@pytest.mark.parametrize("op", list(HOSTS))
def test_what_is_the_hosts_right_is_nobody_elses(op: Op) -> None:
    desk = Desk()
    alice, bob, carol = seat(desk, "lobby", "alice", "bobby", "carol", access="mixed")
    make, fields = HOSTS[op]
    assert denied(bob.ask(op, make, handle=bob.handles["lobby"], **fields)) == 403
    assert [one.kind for one in carol.heard()] == []
    assert isinstance(alice.ask(op, make, handle=alice.handles["lobby"], **fields), Done)
    assert carol.heard()


@pytest.mark.parametrize("op", list(HOSTS))
def test_a_host_that_is_leaving_has_no_rights_any_more(op: Op) -> None:
    desk = Desk()
    alice, bob, _ = seat(desk, "lobby", "alice", "bobby", "carol", access="mixed", lifetime="hand over")
    desk.patient = True
    alice.ask(Op.LEAVE, RoomRequest, handle=alice.handles["lobby"])
    make, fields = HOSTS[op]
    assert denied(alice.ask(op, make, handle=alice.handles["lobby"], **fields)) == 403
    desk.commit()
    bob.ask(op, make, handle=bob.handles["lobby"], **fields)
    desk.commit()
    assert isinstance(bob.last(Done), Done)


@pytest.mark.parametrize("op", [Op.LEAVE, Op.KICK, Op.END, Op.RAISE])
def test_a_request_is_refused_when_the_journal_fails(op: Op) -> None:
    desk = Desk()
    alice, _, carol = seat(desk, "lobby", "alice", "bobby", "carol", access="mixed")
    desk.patient = True
    make, fields = HOSTS.get(op, (RoomRequest, {}))
    alice.ask(op, make, handle=alice.handles["lobby"], **fields)
    desk.fail()
    assert (alice.last(Denied).code, alice.last(Denied).wait_ms) == (480, 1000)
    assert carol.heard() == []
    desk.patient = False
    assert isinstance(alice.ask(op, make, handle=alice.handles["lobby"], **fields), Done)


def test_a_member_that_is_not_there_cannot_be_kicked() -> None:
    desk = Desk()
    alice, _ = seat(desk, "lobby", "alice", "bobby")
    assert denied(alice.ask(Op.KICK, Kick, handle=alice.handles["lobby"], member=9)) == 404


def test_a_room_cannot_be_lowered() -> None:
    desk = Desk()
    [alice] = seat(desk, "lobby", "alice")
    assert denied(alice.ask(Op.RAISE, Raise, handle=alice.handles["lobby"], access="mixed")) == 400
    assert isinstance(alice.ask(Op.RAISE, Raise, handle=alice.handles["lobby"], access="modern"), Done)
    assert alice.heard() == [], "it was modern before"


@pytest.mark.parametrize("op", [Op.LEAVE, Op.END, Op.KICK, Op.RAISE, Op.MEMBERS, Op.HISTORY])
def test_a_handle_that_is_not_in_use_is_of_no_room(op: Op) -> None:
    desk = Desk()
    [alice] = seat(desk, "lobby", "alice")
    more: dict[Op, Asked] = {Op.MEMBERS: (Members, {}), Op.HISTORY: (History, {"first": 1, "count": 1})}
    make, fields = (HOSTS | more).get(op, (RoomRequest, {}))
    assert denied(alice.ask(op, make, handle=99, **fields)) == 404


# --- those who are gone read on to the entry that says so ---------------------------------------------------


def test_who_is_kicked_reads_up_to_the_entry_that_says_so_and_no_further() -> None:
    desk = Desk()
    alice, bob, carol = seat(desk, "lobby", "alice", "bobby", "carol")
    alice.ask(Op.KICK, Kick, handle=alice.handles["lobby"], member=2)
    alice.say(Publish(alice.handles["lobby"], 1, 0, b"he is gone"))
    assert last_said(bob) == (Kind.LEAVE, {"member": 2, "name": "bobby", "reason": Reason.KICKED.value})
    assert "he is gone" in carol.texts()
    assert "he is gone" not in bob.texts()
    handle = bob.handles["lobby"]
    assert denied(bob.ask(Op.MEMBERS, Members, handle=handle)) == 404
    assert denied(bob.ask(Op.HISTORY, History, handle=handle, first=1, count=9)) == 404
    assert handle in bob.session.links
    tell(bob, "lobby", bob.heard()[-1].seq)
    assert bob.session.links == {}
    bob.say(Publish(handle, 1, 0, b"hello?"))
    assert bob.published() == []


@pytest.mark.parametrize("crashes", [False, True])
def test_who_was_away_when_it_was_kicked_comes_back_to_read_of_it(crashes: bool) -> None:
    desk = Desk()
    alice, bob, _ = seat(desk, "lobby", "alice", "bobby", "carol")
    log = bob.last(Seated).log
    bob.lose_stream()
    alice.say(Publish(alice.handles["lobby"], 1, 0, b"to you still"))
    alice.ask(Op.KICK, Kick, handle=alice.handles["lobby"], member=2)
    alice.say(Publish(alice.handles["lobby"], 2, 0, b"not to you"))
    if crashes:
        desk.crash()
    back = again(desk, bob)
    answer = back.join("lobby", log=log, last=2)
    assert isinstance(answer, Seated)
    assert (answer.resumed, answer.head, answer.start) == (True, 5, 2)
    assert (answer.members, answer.host, answer.more) == ([], 0, False), "who is there now is not its to know"
    assert back.seqs() == [3, 4, 5]
    assert back.texts() == ["to you still"]
    back.say(Publish(back.handles["lobby"], 1, 0, b"hello?"))
    assert back.published() == [(1, 19)]
    tell(back, "lobby", 5)
    fresh = back.join("lobby", log=log, last=5)
    assert isinstance(fresh, Seated)
    assert (fresh.resumed, fresh.member) == (False, 4), "a kick is no ban"


def test_who_was_removed_and_came_back_as_somebody_new_is_that_after_a_crash() -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    log = bob.last(Seated).log
    alice.ask(Op.KICK, Kick, handle=alice.handles["lobby"], member=2)
    tell(bob, "lobby", 3)
    assert isinstance(bob.join("lobby"), Seated)
    desk.crash()
    back = again(desk, bob)
    answer = back.join("lobby", log=log, last=4)
    assert isinstance(answer, Seated)
    assert (answer.resumed, answer.member, len(answer.members)) == (True, 3, 2)


def test_who_left_by_its_own_words_is_nobody_after_a_crash() -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    log = bob.last(Seated).log
    bob.ask(Op.LEAVE, RoomRequest, handle=bob.handles["lobby"])
    desk.crash()
    assert alice.desk.ledger.load().rooms[0].former == ()
    answer = again(desk, bob).join("lobby", log=log, last=2)
    assert isinstance(answer, Seated)
    assert not answer.resumed


def test_who_was_kicked_and_does_not_ask_to_read_on_is_somebody_new() -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    alice.ask(Op.KICK, Kick, handle=alice.handles["lobby"], member=2)
    answer = bob.join("lobby")
    assert isinstance(answer, Seated)
    assert (answer.resumed, answer.member, answer.start) == (False, 3, 4)


def test_the_log_of_a_closed_room_can_be_read_for_a_day_by_who_was_in_it() -> None:
    desk = Desk()
    alice, bob, carol = seat(desk, "lobby", "alice", "bobby", "carol")
    log = bob.last(Seated).log
    for client in (bob, carol):
        client.lose_stream()
    alice.say(Publish(alice.handles["lobby"], 1, 0, b"the end"))
    alice.ask(Op.END, RoomRequest, handle=alice.handles["lobby"])
    seat(desk, "lobby", "next")  # another room has the name by now
    back = again(desk, bob)
    answer = back.join("lobby", log=log, last=3)
    assert isinstance(answer, Seated)
    assert (answer.resumed, answer.head, answer.log) == (True, 5, log)
    assert back.texts() == ["the end"]
    assert last_said(back) == (Kind.CLOSED, {"reason": Reason.ENDED.value})
    tell(back, "lobby", 5)
    fresh = back.join("lobby", log=log, last=5)
    assert isinstance(fresh, Seated)
    assert (fresh.resumed, fresh.log != log) == (False, True)
    desk.now_s += DAY_S
    late = again(desk, carol)
    late_answer = late.join("lobby", log=log, last=3)
    assert isinstance(late_answer, Seated)
    assert not late_answer.resumed


def test_the_log_of_a_closed_room_can_be_read_over_a_restart() -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    log = bob.last(Seated).log
    bob.lose_stream()
    alice.say(Publish(alice.handles["lobby"], 1, 0, b"the end"))
    alice.ask(Op.END, RoomRequest, handle=alice.handles["lobby"])
    seat(desk, "lobby", "next")
    desk.crash()
    back = again(desk, bob)
    answer = back.join("lobby", log=log, last=2)
    assert isinstance(answer, Seated)
    assert (answer.resumed, answer.head) == (True, 4)
    assert back.texts() == ["the end"]
    stranger = known(desk, "mallory")
    assert isinstance(stranger.join("lobby", log=log, last=2), Seated)
    assert stranger.texts() == [], "of whom nobody knows cannot read it"


def test_who_reads_on_and_loses_its_session_can_come_back_for_the_rest() -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    alice.ask(Op.END, RoomRequest, handle=alice.handles["lobby"])
    log = bob.last(Seated).log
    bob.lose_stream()
    back = again(desk, bob)
    answer = back.join("lobby", log=log, last=2)
    assert isinstance(answer, Seated)
    assert answer.resumed
    assert last_said(back)[0] is Kind.CLOSED


def test_an_old_log_that_is_forgotten_takes_no_new_seat_along() -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    bob.lose_stream()
    alice.ask(Op.END, RoomRequest, handle=alice.handles["lobby"])
    [carol] = seat(desk, "lobby", "carol", lifetime="persist")
    back = again(desk, bob)
    back.join("lobby")
    desk.crash()
    desk.now_s += DAY_S - 1
    back = again(desk, back)
    assert isinstance(back.join("lobby"), Seated)
    desk.now_s += 2
    again(desk, carol)
    answer = back.join("lobby")
    assert isinstance(answer, Seated)
    assert (answer.resumed, answer.member) == (True, 2)


def test_classic_members_of_a_closed_room_are_not_kept() -> None:
    desk = Desk()
    [alice] = seat(desk, "lobby", "alice", access="mixed")
    desk.classic_member("lobby", "bobby")
    alice.ask(Op.END, RoomRequest, handle=alice.handles["lobby"])
    desk.crash()
    assert desk.door.restored == {}


def test_logs_of_those_who_are_gone_are_only_so_many_and_who_is_reading_is_last_to_lose_his() -> None:
    desk = Desk(Limits(rooms_max=2))
    reading, *away = seat(desk, "one", "reading", "away1", "away2")
    logs = {client.name: client.last(Seated).log for client in (reading, *away)}
    for client in away:
        client.lose_stream()
    desk.submit(desk.hub.close("one", Reason.SERVER_STOPPED, now_s=desk.now_s))
    desk.flush()
    assert reading.heard()[-1].kind == Kind.CLOSED
    assert denied(again(desk, away[0]).join("one", log=logs["away1"], last=1)) == 404
    assert isinstance(again(desk, away[1]).join("one", log=logs["away2"], last=1), Seated)
    assert reading.handles["one"] in reading.session.links


# --- what a session is told at once --------------------------------------------------------------------------


def test_many_members_are_told_in_pages() -> None:
    desk = Desk()
    seat(desk, "lobby", "alice")
    for number in range(250):
        known(desk, f"m{number:03d}x").join("lobby")
    bob = known(desk, "bobby")
    seated = bob.join("lobby")
    assert isinstance(seated, Seated)
    assert (len(seated.members), seated.more) == (200, True)
    page = bob.ask(Op.MEMBERS, Members, handle=bob.handles["lobby"], after=seated.members[-1].id)
    assert isinstance(page, MemberPage)
    assert (len(page.members), page.more) == (52, False)
    assert page.members[-1].name == "bobby"


def test_answers_are_short_while_much_waits_to_be_written() -> None:
    desk = Desk(Limits(send_buffer_max=1000))
    [alice] = seat(desk, "lobby", "alice")
    alice.write(*(alice.join_record("lobby") for _ in range(10)))
    answers = alice.all(Seated)[1:]
    assert answers[0].members
    assert not answers[-1].members
    assert all(answer.more for answer in answers if not answer.members)


def test_requests_that_are_not_answered_before_a_session_ends_hurt_nobody() -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    desk.patient = True
    bob.ask(Op.LEAVE, RoomRequest, handle=bob.handles["lobby"])
    bob.lose_stream()
    desk.commit()
    assert bob.all(Done) == []
    assert last_said(alice)[0] is Kind.LEAVE


def test_nobody_hears_what_was_said_before_it_came() -> None:
    desk = Desk()
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    alice.say(Publish(alice.handles["lobby"], 1, 0, b"before"))
    carol = known(desk, "carol")
    carol.join("lobby")
    alice.say(Publish(alice.handles["lobby"], 2, 0, b"after"))
    assert carol.texts() == ["after"]
    assert bob.texts() == ["before", "after"]
    assert all(isinstance(one, Message) for one in carol.frames)
