"""Planted bugs of the modern door that a short story must find: a check that finds none proves nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ocm.errors import OcmError
from ocm.protocol import answers
from ocm.protocol.entry import Entry, Identity, KeptMember, KeptRoom, Refusal
from ocm.protocol.hub import Recognized, Release, Turn
from ocm.protocol.identities import Claim, Identities
from ocm.protocol.limits import Limits
from ocm.protocol.link.classic import ClassicLink
from ocm.protocol.link.log import RoomLog
from ocm.protocol.link.modern import ModernLink
from ocm.protocol.link.modern_session import Asking, Entering, ModernSession
from ocm.protocol.reception import Reception
from ocm.protocol.room import Intent, Member, Room
from ocm.protocol.seats import Seats
from ocm.protocol.session.publishing import Intake
from ocm.protocol.session.receiving import Cursor
from ocm.protocol.wire.frames import Publish, Received
from ocm.protocol.wire.records import (
    Authenticate,
    Authenticated,
    CloseCode,
    Done,
    History,
    Kick,
    MemberRow,
    Op,
    Pages,
    RoomRequest,
    Seated,
)
from tests.protocol.desk import Client, Desk, denied, known

# --- the story ------------------------------------------------------------------------------------------


def say(client: Client, number: int, text: str) -> None:
    client.say(Publish(client.handles["lobby"], number, 0, text.encode()))


def story() -> None:
    """One evening in a room, with a look at every promise; what is planted makes one of the looks fail."""
    desk = Desk(patient=True)
    alice, bob = Client(desk, "alice").authenticate(), Client(desk, "bobby").authenticate()
    assert alice.all(Authenticated) == [], "AUTH is answered before it is written"
    desk.commit()
    alice.write(alice.create_record("lobby", access="mixed"))
    assert alice.all(Seated) == [], "CREATE is answered before it is written"
    desk.commit()
    desk.patient = False
    bob.join("lobby")
    log = bob.last(Seated).log
    classic = desk.classic_member("lobby", "carol")
    assert isinstance(classic, ClassicLink)
    token = classic.token

    desk.patient = True
    say(alice, 1, "hello")
    say(alice, 1, "hello")
    assert not alice.published()
    assert not bob.texts(), "it is told before it is written"
    desk.commit()
    desk.patient = False
    assert alice.published() == [(1, 0)]
    assert bob.texts() == ["hello"]
    say(alice, 2, "")
    assert alice.published()[1:] == [(2, 17)]

    desk.crash()
    alice, bob = Client(desk, "alice").authenticate(alice), Client(desk, "bobby").authenticate(bob)
    assert alice.last(Authenticated).resumed
    alice.join("lobby", log=log, last=2)
    bob.join("lobby", log=log, last=4)
    assert alice.last(Seated).mark == 2
    say(alice, 1, "hello")
    say(alice, 2, "")
    assert alice.published() == [(1, 0), (2, 17)], "what was settled is not known any more"
    say(alice, 3, "again")
    assert bob.texts() == ["again"]

    before = bob
    bob.lose_stream()
    say(alice, 4, "while you were away")
    bob = Client(desk, "bobby").authenticate(before)
    answer = bob.join("lobby", log=log, last=5)
    assert isinstance(answer, Seated)
    assert (answer.resumed, answer.member, len(desk.hub.members("lobby"))) == (True, 2, 3)
    assert bob.texts() == ["while you were away"]
    other = Client(desk, "bobby").authenticate(bob)
    other.join("lobby", log=log, last=5)
    other.say(Received(other.handles["lobby"], 5, 256))
    assert bob.closed == CloseCode.REPLACED
    assert not Client(desk, "thief").authenticate(before).last(Authenticated).resumed, "a secret is good twice"
    bob = Client(desk, "bobby").authenticate(other)
    bob.join("lobby", log=log, last=6)
    assert denied(bob.ask(Op.KICK, Kick, handle=bob.handles["lobby"], member=1)) == 403

    dave = known(desk, "daved")
    dave.join("lobby")
    pages = dave.ask(Op.HISTORY, History, handle=dave.handles["lobby"], first=1, count=256)
    assert isinstance(pages, Pages)
    assert dave.heard() == []
    [link] = dave.session.links.values()
    assert link._cursor is not None
    assert link._cursor.up_to == dave.last(Pages).head, "reading back has moved the cursor"

    dave.lose_stream()
    alice.ask(Op.KICK, Kick, handle=alice.handles["lobby"], member=dave.all(Seated)[0].member)
    say(alice, 5, "he is gone")
    back = Client(desk, "daved").authenticate(dave)
    answer = back.join("lobby", log=log, last=7)
    assert isinstance(answer, Seated)
    assert (answer.resumed, answer.members) == (True, [])
    assert back.seqs() == [8], "it reads up to its end, and no further"
    back.say(Received(back.handles["lobby"], 8, 256))
    assert back.session.links == {}

    desk.patient = True
    bob.ask(Op.LEAVE, RoomRequest, handle=bob.handles["lobby"])
    assert bob.all(Done) == []
    desk.commit()
    desk.patient = False
    assert len(bob.all(Done)) == 1
    say(alice, 6, "who is here still?")
    assert "who is here still?" not in bob.texts()
    heard = [data for said in desk.classic.values() for data in said]
    assert not any(token in data for data in heard)
    say(alice, 7, "x" * 4080)
    assert alice.published()[-1] == (7, 16)
    alice.say(*[Publish(alice.handles["lobby"], 8, 0, b"flood")] * 2000)
    for _ in range(4):
        alice.say(*[Publish(alice.handles["lobby"], 8, 0, b"flood")] * 2000)
    assert alice.closed == CloseCode.FLOOD


def test_the_story_is_true_where_nothing_is_planted() -> None:
    story()


# --- the bugs ---------------------------------------------------------------------------------------------

Plant = Callable[[pytest.MonkeyPatch], None]


def answers_auth_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    remember = Reception._remember

    def planted(self: Reception, identity: Identity | None) -> None:
        remember(self, identity)
        if identity is not None:
            self.release(Recognized(identity), now_s=0.0)

    patch.setattr(Reception, "_remember", planted)


def answers_authors_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    taken = ModernLink.taken

    def planted(self: ModernLink, intent: Intent) -> None:
        taken(self, intent)
        assert intent.message_id
        self._answer(self._intake.settle(self._handle, intent.message_id, intent.status, seq=9, time_ms=0))

    patch.setattr(ModernLink, "taken", planted)
    patch.setattr(ModernLink, "settled", _ignore)


def tells_of_a_seat_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    take_in = Reception._take_in_new

    def planted(self: Reception, session: ModernSession, request: Entering, user: str, now_s: float) -> Refusal | None:
        def release(what: Release) -> None:
            self.release(what, now_s=now_s)

        why = take_in(self, session, request, user, now_s)
        self._hub.committed(self._hub._handed_out, release)
        return why

    patch.setattr(Reception, "_take_in_new", planted)


def loses_the_dedupe_mark(patch: pytest.MonkeyPatch) -> None:
    restore = Reception.restore_link

    def planted(self: Reception, room: KeptRoom, member: KeptMember, log: RoomLog) -> ModernLink | None:
        link = restore(self, room, member, log)
        if link is not None:
            link._intake = Intake()
        return link

    patch.setattr(Reception, "restore_link", planted)


def loses_the_answers(patch: pytest.MonkeyPatch) -> None:
    restore = Reception.restore_link

    def planted(self: Reception, room: KeptRoom, member: KeptMember, log: RoomLog) -> ModernLink | None:
        link = restore(self, room, member, log)
        if link is not None:
            link._intake = Intake(mark=member.mark)
        return link

    patch.setattr(Reception, "restore_link", planted)


def forgets_a_seat_with_its_session(patch: pytest.MonkeyPatch) -> None:
    unlist = Reception._unlist

    def planted(self: Reception, session: ModernSession, now_s: float) -> bool:
        links = list(session.links.values())
        was_listed = unlist(self, session, now_s)
        for link in links:
            self._seats.forget(link)
        return was_listed

    patch.setattr(Reception, "_unlist", planted)


def lets_a_secret_be_good_for_ever(patch: pytest.MonkeyPatch) -> None:
    claim = Identities.claim
    ever: dict[bytes, tuple[bytes, ...]] = {}

    def planted(self: Identities, session: ModernSession, request: Authenticate, *, now_s: float) -> Identity:
        identity = claim(self, session, request, now_s=now_s)
        ever[identity.client] = (*ever.get(identity.client, ()), *identity.secrets)
        return identity

    recognized = Identities.recognized

    def recognize(self: Identities, identity: Identity, *, now_s: float) -> Claim | None:
        claimed = recognized(self, identity, now_s=now_s)
        secrets = tuple(dict.fromkeys((*identity.secrets, *ever[identity.client])))
        self._known[identity.client] = identity._replace(secrets=secrets)
        return claimed

    patch.setattr(Identities, "claim", planted)
    patch.setattr(Identities, "recognized", recognize)


def leaves_the_first_session_open(patch: pytest.MonkeyPatch) -> None:
    close = ModernSession.close

    def planted(self: ModernSession, code: CloseCode, reason: str) -> None:
        if code is not CloseCode.REPLACED:
            close(self, code, reason)

    patch.setattr(ModernSession, "close", planted)


def asks_nobody_for_a_hosts_right(patch: pytest.MonkeyPatch) -> None:
    change = Reception._change

    def planted(self: Reception, op: Op, request: Asking, member: Member, now_s: float) -> Turn | Refusal:
        room = member.room
        host, room.host_id = room.host_id, member.id
        turn = change(self, op, request, member, now_s)
        room.host_id = host
        return turn

    patch.setattr(Reception, "_change", planted)


def lets_who_is_gone_read_on(patch: pytest.MonkeyPatch) -> None:
    """Rights are not looked at when it is delivered."""

    def planted(self: ModernLink) -> int:
        return 0 if self.log is None else self.log.head

    patch.setattr(ModernLink, "head", property(planted))


def shows_who_is_gone_who_is_here(patch: pytest.MonkeyPatch) -> None:
    page = answers._page
    rooms: list[Room] = []

    def planted(room: Room | None, after: int, *, rows_max: int) -> tuple[list[MemberRow], bool]:
        rooms.extend([] if room is None else [room])
        return page(room or rooms[-1], after, rows_max=rows_max)

    patch.setattr(answers, "_page", planted)


def never_lets_go_of_who_has_read_its_end(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ModernLink, "is_done", False)


def moves_the_cursor_by_reading_back(patch: pytest.MonkeyPatch) -> None:
    entries = RoomLog.entries

    def planted(self: RoomLog, first: int, count: int) -> list[Entry]:
        found = entries(self, first, count)
        for cursor in cursors:
            cursor._up_to = 0
        return found

    cursors: list[Cursor] = []
    begin = Cursor.__init__

    def init(self: Cursor, room: int, *, last: int, head: int, oldest: int = 1) -> None:
        begin(self, room, last=last, head=head, oldest=oldest)
        cursors.append(self)

    patch.setattr(RoomLog, "entries", planted)
    patch.setattr(Cursor, "__init__", init)


def answers_a_request_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    ask = Reception._ask

    def planted(self: Reception, session: ModernSession, op: Op, request: Asking, now_s: float) -> None:
        ask(self, session, op, request, now_s)
        self.committed(10**9)

    patch.setattr(Reception, "_ask", planted)


def keeps_telling_who_has_left(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Seats, "forget", _ignore)


def takes_whatever_size(patch: pytest.MonkeyPatch) -> None:
    def planted(room: str, user: str, *, names: bool) -> int:
        return 10**9

    patch.setattr("ocm.protocol.link.modern.text_size_max", planted)


def minds_no_flood(patch: pytest.MonkeyPatch) -> None:
    def planted(self: ModernLink, publish: Publish, limits: Limits, *, now_s: float) -> bool:
        return False

    patch.setattr(ModernLink, "floods", planted)


def hands_out_entries_of_another_place(patch: pytest.MonkeyPatch) -> None:
    tail = RoomLog.tail

    def planted(self: RoomLog, seq: int) -> bytes | None:
        return tail(self, max(1, seq - 1))

    patch.setattr(RoomLog, "tail", planted)


def tells_everybody_of_everything_again(patch: pytest.MonkeyPatch) -> None:
    """Where a member comes back, its cursor starts at the beginning."""
    attach = ModernLink.attach

    def planted(self: ModernLink, carrier: ModernSession, handle: int, *, last: int) -> int:
        return attach(self, carrier, handle, last=0)

    patch.setattr(ModernLink, "attach", planted)


def _ignore(_self: object, _what: object) -> None: ...


PLANTS: list[Plant] = [
    answers_auth_before_the_commit,
    answers_authors_before_the_commit,
    tells_of_a_seat_before_the_commit,
    loses_the_dedupe_mark,
    loses_the_answers,
    forgets_a_seat_with_its_session,
    lets_a_secret_be_good_for_ever,
    leaves_the_first_session_open,
    asks_nobody_for_a_hosts_right,
    lets_who_is_gone_read_on,
    shows_who_is_gone_who_is_here,
    never_lets_go_of_who_has_read_its_end,
    moves_the_cursor_by_reading_back,
    answers_a_request_before_the_commit,
    keeps_telling_who_has_left,
    takes_whatever_size,
    minds_no_flood,
    hands_out_entries_of_another_place,
    tells_everybody_of_everything_again,
]


def is_found(run: Callable[[], None]) -> bool:
    """Tell whether the story sees that something is wrong, or the core itself does."""
    try:
        run()
    except (AssertionError, OcmError):
        return True
    return False


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    assert is_found(story)
