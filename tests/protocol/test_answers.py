"""Reading back and asking who is there: bounded, by right, and no more than there is room for."""

from __future__ import annotations

import pytest

from ocm.protocol.answers import HISTORY_SIZE_MAX
from ocm.protocol.limits import Limits
from ocm.protocol.link.log import HISTORY_FLAG, PLAINTEXT_FLAG
from ocm.protocol.wire.classic import Stage
from ocm.protocol.wire.frames import Message, Publish
from ocm.protocol.wire.records import (
    CloseCode,
    Denied,
    History,
    Kick,
    MemberPage,
    Members,
    Op,
    Pages,
    Payload,
    RoomRequest,
    write_record,
)
from tests.protocol.desk import Client, Desk, known, seat

LIMITS = Limits(burst_max=10_000, bytes_per_s=10**9)


def talk(client: Client, count: int, size: int = 5) -> None:
    mark = client.session.links[client.handles["lobby"]].mark
    for number in range(mark + 1, mark + count + 1):
        client.say(Publish(client.handles["lobby"], number, 0, b"x" * size))


def read_back(client: Client, first: int, count: int = 256) -> Pages:
    client.frames.clear()
    answer = client.ask(Op.HISTORY, History, handle=client.handles["lobby"], first=first, count=count)
    assert isinstance(answer, Pages)
    return answer


def history(client: Client) -> list[int]:
    return [one.seq for one in client.frames if isinstance(one, Message) and one.flags & HISTORY_FLAG]


def ask(op: Op, payload: Payload) -> bytes:
    return write_record(op, Stage.REQUEST, payload)


# --- history ----------------------------------------------------------------------------------------------


def test_who_comes_late_reads_back_what_was_said_before() -> None:
    desk = Desk(LIMITS)
    [alice] = seat(desk, "lobby", "alice")
    talk(alice, 5)
    bob = known(desk, "bobby")
    bob.join("lobby")
    assert bob.heard() == []
    pages = read_back(bob, 1)
    assert history(bob) == list(range(1, 8))
    assert (pages.count, pages.oldest, pages.head, pages.handle) == (7, 1, 7, bob.handles["lobby"])


def test_reading_back_moves_no_cursor_and_costs_no_credit() -> None:
    desk = Desk(LIMITS)
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    talk(alice, 300)
    edge = bob.seqs()[-1]
    assert edge == 2 + 256
    for first in (1, 100, 200):
        read_back(bob, first)
    assert bob.heard() == [], "nothing new goes out for it"
    [link] = bob.session.links.values()
    assert link._cursor is not None
    assert link._cursor.up_to == 2


def test_reading_back_is_bounded_in_entries_and_bytes() -> None:
    desk = Desk(LIMITS)
    [alice] = seat(desk, "lobby", "alice")
    talk(alice, 300)
    assert read_back(alice, 10, 256).count == 256
    assert history(alice) == list(range(10, 266))
    talk(alice, 8, size=60_000)
    pages = read_back(alice, 302, 256)
    assert pages.count == 4
    sizes = [len(one.body) for one in alice.frames if isinstance(one, Message)]
    assert sum(sizes) <= HISTORY_SIZE_MAX
    assert read_back(alice, history(alice)[-1] + 1, 256).count == 4


def test_one_entry_is_told_whatever_its_size() -> None:
    desk = Desk(LIMITS)
    [alice] = seat(desk, "lobby", "alice")
    talk(alice, 1, size=60_000)
    assert read_back(alice, 2, 1).count == 1


@pytest.mark.parametrize(("first", "count", "seqs"), [(0, 2, [1, 2]), (6, 9, [6]), (7, 9, []), (2**53 - 1, 1, [])])
def test_reading_back_beyond_the_log_gives_what_there_is(first: int, count: int, seqs: list[int]) -> None:
    desk = Desk(LIMITS)
    [alice] = seat(desk, "lobby", "alice")
    talk(alice, 5)
    assert read_back(alice, first, count).count == len(seqs)
    assert history(alice) == seqs


def test_what_is_kept_no_longer_is_left_out() -> None:
    desk = Desk(Limits(burst_max=10_000, room_log_messages_max=4))
    [alice] = seat(desk, "lobby", "alice")
    talk(alice, 49)
    desk.oldest_kept = 31
    read_back(alice, 1, 25)
    assert history(alice) == list(range(31, 51))
    read_back(alice, 1, 3)
    assert history(alice) == [31, 32, 33]


def test_what_came_in_plaintext_says_so_in_history_as_well() -> None:
    desk = Desk(LIMITS)
    [alice] = seat(desk, "lobby", "alice", access="mixed")
    link = desk.classic_member("lobby", "bobby")
    assert not isinstance(link, int)
    desk.say_classic(link, "hello")
    read_back(alice, 3)
    assert [one.flags for one in alice.frames if isinstance(one, Message)] == [HISTORY_FLAG | PLAINTEXT_FLAG]


def test_a_long_answer_is_made_as_there_is_room_for_it() -> None:
    desk = Desk(LIMITS)
    [alice] = seat(desk, "lobby", "alice")
    talk(alice, 8, size=30_000)
    alice.frames.clear()
    desk.space = 0
    handle = alice.handles["lobby"]
    alice.write(*(ask(Op.HISTORY, History(id=100 + n, handle=handle, first=1, count=256)) for n in range(60)))
    assert alice.frames == []
    assert alice.session.requests == 60
    assert len(alice.session.data_to_send(space=1, now_s=desk.now_s)) < 31_000, "one piece, and no more"
    desk.space = 40_000
    desk.reception.stir(alice.session)
    desk.flush()
    assert [pages.id for pages in alice.all(Pages)] == [100 + n for n in range(60)]
    assert alice.session.requests == 0


def test_who_asks_for_more_than_it_reads_is_closed_and_costs_little() -> None:
    desk = Desk(LIMITS)
    [alice] = seat(desk, "lobby", "alice")
    talk(alice, 8, size=30_000)
    desk.space = 0
    handle = alice.handles["lobby"]
    alice.write(*(ask(Op.HISTORY, History(id=n, handle=handle, first=1, count=256)) for n in range(100)))
    assert alice.closed == CloseCode.PROTOCOL


def test_frames_wait_behind_long_answers() -> None:
    desk = Desk(LIMITS)
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    desk.space = 0
    talk(alice, 3)
    bob.write(ask(Op.HISTORY, History(id=9, handle=bob.handles["lobby"], first=1, count=256)))
    desk.space = 65_536
    desk.reception.stir(bob.session)
    desk.flush()
    flags = [one.flags for one in bob.frames if isinstance(one, Message)]
    assert flags == [HISTORY_FLAG] * 5 + [0] * 3


@pytest.mark.parametrize("op", [Op.KICK, Op.LEAVE])
def test_rights_are_looked_at_again_when_it_is_told(op: Op) -> None:
    desk = Desk(LIMITS)
    alice, bob = seat(desk, "lobby", "alice", "bobby")
    talk(alice, 2)
    handle = bob.handles["lobby"]
    bob.frames.clear()
    desk.space = 0
    bob.write(ask(Op.HISTORY, History(id=101, handle=handle, first=1, count=256)))
    bob.write(ask(Op.MEMBERS, Members(id=102, handle=handle)))
    if op is Op.KICK:
        alice.ask(Op.KICK, Kick, handle=alice.handles["lobby"], member=2)
    else:
        bob.ask(Op.LEAVE, RoomRequest, handle=handle)
    talk(alice, 2)
    desk.space = 65_536
    desk.reception.stir(bob.session)
    desk.flush()
    assert history(bob) == ([1, 2, 3, 4, 5] if op is Op.KICK else [])
    [pages] = bob.all(Pages)
    assert pages.head == (5 if op is Op.KICK else 0)
    [page] = bob.all(MemberPage)
    assert page.members == []


def test_a_log_that_cannot_be_read_is_a_refusal_for_now() -> None:
    desk = Desk(LIMITS)
    [alice] = seat(desk, "lobby", "alice")
    talk(alice, 3)
    desk.crash()
    back = Client(desk, "alice").authenticate(alice)
    back.join("lobby")
    desk.unreadable = True
    refused = back.ask(Op.HISTORY, History, handle=back.handles["lobby"], first=1, count=10)
    assert isinstance(refused, Denied)
    assert (refused.code, refused.wait_ms) == (480, 1000)
    desk.unreadable = False
    assert read_back(back, 1).count == 4
    assert back.closed is None


# --- members ------------------------------------------------------------------------------------------------


def test_members_are_told_in_the_order_of_their_coming_behind_one() -> None:
    desk = Desk(LIMITS)
    alice, *_ = seat(desk, "lobby", "alice", "bobby", "carol")
    for after, names in ((0, ["alice", "bobby", "carol"]), (1, ["bobby", "carol"]), (3, []), (99, [])):
        page = alice.ask(Op.MEMBERS, Members, handle=alice.handles["lobby"], after=after)
        assert isinstance(page, MemberPage)
        assert [row.name for row in page.members] == names
        assert not page.more
