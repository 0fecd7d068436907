"""The hub: commit, acknowledge, fan out, in that order; a failed journal means that nothing happened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from ocm.protocol.address import Address, make_address
from ocm.protocol.control.packets import Form
from ocm.protocol.entry import (
    CLASSIC_POLICY,
    Access,
    Entry,
    KeptRoom,
    Kind,
    Lifetime,
    Moved,
    Opened,
    Policy,
    Reason,
    Record,
    Refusal,
    Refused,
)
from ocm.protocol.hub import (
    Delivery,
    Farewell,
    Hub,
    HubCounts,
    Recognized,
    RefusedIntent,
    Release,
    Reseating,
    Seating,
    Turn,
)
from ocm.protocol.limits import Limits
from ocm.protocol.link.base import Addressing, Audience, Author, Link
from ocm.protocol.link.classic import ClassicLink
from ocm.protocol.room import Intent, Member
from ocm.protocol.session.publishing import Status

PATIENT = Limits(burst_max=10_000)


@dataclass(frozen=True)
class CountedForm:
    """A form whose work is counted; ``silent`` has no words for anything."""

    name: str
    calls: Counter[str] = field(compare=False)
    addressing: Addressing = Addressing.GROUP
    echoes: bool = False
    silent: bool = False

    def encode(self, entry: Entry) -> bytes | None:
        self.calls[self.name] += 1
        return None if self.silent else entry.body

    def encode_farewell(self, entry: Entry) -> bytes | None:
        return None if self.silent else b"you: " + entry.body


@dataclass(eq=False)
class FakeLink:
    """A door without a wire."""

    form: CountedForm
    place: int = -1
    audience: Audience | None = None
    member: Member | None = None
    address: Address = b""
    author: Author | None = None
    is_kept: bool = False

    @property
    def plaintext(self) -> bool:
        return self.form.addressing is not Addressing.LOCAL

    def memo(self) -> bytes:
        return b"door of " + self.form.name.encode()

    def finish(self, payload: bytes) -> bytes:
        return payload

    def take(self, entry: Entry) -> None:
        raise AssertionError("the hub hands entries to the driver only")


@dataclass
class Driver:
    """A hub whose journal answers when the test says so, and what was let out, as a test reads it best."""

    hub: Hub = field(default_factory=lambda: Hub(PATIENT))
    now_s: float = 0.0
    calls: Counter[str] = field(default_factory=Counter[str])
    links: dict[str, FakeLink] = field(default_factory=dict[str, FakeLink])
    out: list[str] = field(default_factory=list[str])
    up_to: int = 0

    def enter(
        self,
        user: str,
        room: str = "a",
        *,
        create: bool = False,
        form: str = "plain",
        echoes: bool = False,
        silent: bool = False,
        addressing: Addressing = Addressing.GROUP,
    ) -> Turn | Refusal:
        link = FakeLink(CountedForm(form, self.calls, addressing, echoes, silent))
        ask = self.hub.create if create else self.hub.join
        turn = ask(link, room=room, user=user, now_s=self.now_s)
        if isinstance(turn, Refusal):
            assert link.member is None
            return turn
        self.links[user] = link
        return self.note(turn)

    def found(self, user: str, lifetime: Lifetime) -> None:
        """Make a room that ends otherwise than with its host."""
        link = self.links[user] = FakeLink(CountedForm("plain", self.calls))
        policy = Policy(Access.MIXED, lifetime)
        turn = self.hub.create(link, room="a", user=user, now_s=self.now_s, policy=policy)
        assert isinstance(turn, Turn)
        self.note(turn)
        self.commit()

    def seat(self, *users: str, room: str = "a") -> None:
        for user in users:
            assert isinstance(self.enter(user, room, create=room not in self.hub.rooms()), Turn)
        self.commit()
        self.out.clear()

    def member(self, user: str) -> Member:
        member = self.links[user].member
        assert member is not None
        return member

    def say(self, user: str, *texts: str) -> Turn:
        intents = [Intent(self.member(user), text.encode()) for text in texts]
        return self.note(self.hub.take(intents, now_s=self.now_s))

    def leave(self, user: str, reason: Reason = Reason.BYE) -> Turn:
        return self.note(self.hub.leave(self.member(user), reason, now_s=self.now_s))

    def close(self, room: str = "a") -> Turn:
        return self.note(self.hub.close(room, Reason.SERVER_STOPPED, now_s=self.now_s))

    def move(self, user: str, link: FakeLink) -> None:
        turn = self.hub.move(self.member(user), link)
        assert isinstance(turn, Turn)
        assert turn.records == [Moved("a", 1, self.member(user).id, link.memo())]
        self.note(turn)

    def expire(self, now_s: float) -> Turn:
        self.now_s = now_s
        return self.note(self.hub.handle_timeout(now_s=now_s))

    def note(self, turn: Turn) -> Turn:
        self.up_to = turn.up_to
        return turn

    def commit(self, turn: Turn | None = None) -> list[str]:
        at = len(self.out)
        self.hub.committed(self.up_to if turn is None else turn.up_to, self.release)
        return self.out[at:]

    def fail(self, turn: Turn | None = None) -> list[Link]:
        return self.hub.failed(self.up_to if turn is None else turn.up_to)

    def release(self, what: Release) -> None:
        match what:
            case Delivery(audience, payload, entry, skip):
                hearers = sorted(self.name_of(link) for link in audience.links if link is not skip)
                if hearers:
                    said = f"{entry.kind.name} {entry.name}".strip()
                    self.out.append(f"{','.join(hearers)} < {said} {payload.decode()}".strip())
            case Seating(link):
                self.out.append(f"{self.name_of(link)} sits")
            case Reseating(link, before):
                name = self.name_of(before)
                assert isinstance(link, FakeLink)
                self.links[name] = link
                self.out.append(f"{name} is here now")
            case Recognized(identity):
                self.out.append(f"{identity.client.decode()} is known")
            case Farewell(link, payload, reason, _):
                self.out.append(f"{self.name_of(link)} goes ({reason}, {payload!r})")

    def name_of(self, link: Link) -> str:
        return next(name for name, one in self.links.items() if one is link)


def records(turn: Turn | Refusal) -> list[Record]:
    """What a turn adds to the logs of rooms."""
    assert isinstance(turn, Turn)
    return [step for step in turn.records if isinstance(step, Record)]


def seqs(turn: Turn | Refusal) -> list[int]:
    return [record.entry.seq for record in records(turn)]


# --- entering -----------------------------------------------------------------------------------------


def test_who_creates_a_room_is_its_host() -> None:
    driver = Driver()
    turn = driver.enter("alice", create=True)
    assert isinstance(turn, Turn)
    assert turn.records[0] == Opened("a", 1, b"", CLASSIC_POLICY)
    assert [(record.room, record.incarnation, record.entry.kind) for record in records(turn)] == [("a", 1, Kind.JOIN)]
    assert [record.door for record in records(turn)] == [b"door of plain"]
    assert driver.hub.members("a") == []
    assert driver.commit() == ["alice sits"]
    assert [member.name for member in driver.hub.members("a")] == ["alice"]
    assert driver.member("alice").room.host_id == driver.member("alice").id


def test_the_others_hear_of_a_join_and_the_joiner_does_not() -> None:
    driver = Driver()
    driver.seat("alice", "bob")
    driver.enter("carol")
    assert driver.commit() == ["alice,bob < JOIN carol", "carol sits"]


def test_what_is_refused_says_why() -> None:
    driver = Driver(Hub(Limits(members_per_room_max=2, rooms_max=2, pending_max=5)))
    assert driver.enter("alice", "a") is Refusal.NOT_FOUND
    driver.seat("alice")
    assert driver.enter("bob", create=True) is Refusal.ROOM_EXISTS
    assert driver.enter("aIice") is Refusal.NAME_TAKEN
    assert isinstance(driver.enter("bob"), Turn)
    assert driver.enter("carol") is Refusal.ROOM_FULL
    assert isinstance(driver.enter("dave", "b", create=True), Turn)
    assert driver.enter("eve", "c", create=True) is Refusal.SERVER_FULL
    assert [refused.wait_s for refused in driver.say("alice", "1", "2", "3").refusals] == [1.0]
    assert driver.enter("eve", "b") is Refusal.UNAVAILABLE
    driver.close("b")
    assert driver.enter("eve", "b", create=True) is Refusal.UNAVAILABLE
    driver.commit()
    assert isinstance(driver.enter("eve", "b", create=True), Turn)
    driver.close("b")
    assert driver.enter("eve", "b", create=True) is Refusal.ROOM_EXISTS


def test_a_full_journal_makes_no_rooms() -> None:
    driver = Driver(Hub(Limits(pending_max=2)))
    driver.enter("alice", create=True)
    assert driver.enter("bob", "b", create=True) is Refusal.UNAVAILABLE
    assert driver.hub.rooms() == ["a"]


def test_a_closing_room_looks_missing_to_those_who_would_join() -> None:
    driver = Driver()
    driver.seat("alice")
    driver.close()
    assert driver.enter("bob") is Refusal.NOT_FOUND


def test_names_are_reserved_while_the_journal_writes() -> None:
    driver = Driver()
    driver.seat("alice")
    driver.enter("bob")
    assert driver.enter("BOB") is Refusal.NAME_TAKEN
    assert driver.hub.named("a", "Bob") is driver.member("bob")
    assert driver.hub.named("a", "carol") is None
    assert driver.hub.named("b", "bob") is None


def test_a_local_member_is_not_a_plaintext_sender() -> None:
    driver = Driver()
    driver.seat("alice")
    driver.enter("bob", form="local", addressing=Addressing.LOCAL)
    driver.commit()
    assert not records(driver.say("bob", "hi"))[0].entry.plaintext
    assert records(driver.say("alice", "hi"))[0].entry.plaintext


# --- saying -------------------------------------------------------------------------------------------


def test_nothing_leaves_before_the_commit() -> None:
    driver = Driver()
    driver.seat("alice", "bob")
    turn = driver.say("alice", "hello")
    assert driver.out == []
    assert driver.commit(turn) == ["bob < TEXT alice hello"]
    assert driver.commit(turn) == []


def test_a_commit_lets_out_its_own_records_and_no_more() -> None:
    driver = Driver()
    driver.seat("alice", "bob")
    first, second = driver.say("alice", "1", "2"), driver.say("bob", "3")
    assert driver.commit(first) == ["bob < TEXT alice 1", "bob < TEXT alice 2"]
    assert driver.commit(second) == ["alice < TEXT bob 3"]


def test_a_form_that_echoes_reaches_its_sender_too() -> None:
    driver = Driver()
    driver.seat("alice", "bob")
    driver.enter("carol", form="echo", echoes=True)
    driver.commit()
    driver.out.clear()
    driver.say("carol", "hello")
    assert driver.commit() == ["alice,bob < TEXT carol hello", "carol < TEXT carol hello"]


def test_encoding_is_done_once_for_each_form_and_not_for_each_member() -> None:
    driver = Driver()
    driver.seat("u", *(f"u{number}x" for number in range(10)))
    for number in range(20, 30):
        driver.enter(f"v{number}x", form="other")
    driver.commit()
    driver.calls.clear()
    driver.say("u", "hello")
    driver.commit()
    assert driver.calls == {"plain": 1, "other": 1}


def test_a_form_that_nobody_uses_any_more_is_not_encoded() -> None:
    driver = Driver()
    driver.seat("alice", "bob")
    driver.enter("carol", form="other")
    driver.commit()
    driver.leave("carol")
    driver.commit()
    driver.calls.clear()
    driver.say("alice", "hello")
    driver.commit()
    assert driver.calls == {"plain": 1}


def test_a_form_without_words_for_an_entry_sends_nothing() -> None:
    driver = Driver()
    driver.seat("alice", "bob")
    driver.enter("carol", form="deaf", silent=True)
    driver.commit()
    driver.out.clear()
    driver.say("alice", "hello")
    driver.leave("carol", Reason.KICKED)
    assert driver.commit() == [
        "bob < TEXT alice hello",
        "carol goes (removed by the server, None)",
        "alice,bob < LEAVE carol removed by the server",
    ]


def test_a_message_decided_before_a_join_is_not_heard_by_the_joiner() -> None:
    driver = Driver()
    driver.seat("alice", "bob")
    driver.say("alice", "before")
    driver.enter("carol")
    driver.say("alice", "after")
    assert driver.commit() == [
        "bob < TEXT alice before",
        "alice,bob < JOIN carol",
        "carol sits",
        "bob,carol < TEXT alice after",
    ]


def test_a_message_decided_before_a_leave_is_still_heard_by_the_leaver() -> None:
    driver = Driver()
    driver.seat("alice", "bob")
    before, leave = driver.say("alice", "before"), driver.leave("bob")
    driver.say("alice", "after")
    assert driver.commit(before) == ["bob < TEXT alice before"]
    assert driver.commit(leave) == ["bob goes (left, b'you: left')", "alice < LEAVE bob left"]
    assert driver.commit() == []


def test_who_is_not_seated_yet_cannot_speak() -> None:
    driver = Driver()
    driver.enter("alice", create=True)
    assert driver.say("alice", "hello").refusals == [RefusedIntent(driver.member("alice"), 0.0)]
    driver.commit()
    assert driver.say("alice", "hello").refusals == []


def test_allowances_are_each_members_own() -> None:
    driver = Driver(Hub(Limits(burst_max=2, rate_per_s=1.0)))
    driver.seat("alice", "bob")
    turn = driver.say("alice", "1", "2", "3", "4")
    assert [record.entry.body for record in records(turn)] == [b"1", b"2"]
    assert [refused.wait_s for refused in turn.refusals] == [1.0, 1.0]
    assert len(driver.say("bob", "1").records) == 1
    driver.now_s = 1.0
    assert len(driver.say("alice", "5").records) == 1


def test_what_is_refused_for_a_full_journal_costs_no_allowance() -> None:
    driver = Driver(Hub(Limits(burst_max=2, rate_per_s=1.0, pending_max=1)))
    driver.seat("alice")
    assert [refused.wait_s for refused in driver.say("alice", "1", "2", "3").refusals] == [1.0, 1.0]
    driver.commit()
    assert len(driver.say("alice", "2").records) == 1


def test_entries_carry_the_time_of_day() -> None:
    driver = Driver(Hub(PATIENT, epoch_s=1_700_000_000.0))
    driver.seat("alice")
    driver.now_s = 2.5
    assert records(driver.say("alice", "hi"))[0].entry.time_ms == 1_700_000_002_500


# --- leaving ------------------------------------------------------------------------------------------


def test_after_a_leave_nothing_is_taken_or_delivered() -> None:
    driver = Driver()
    driver.seat("alice", "bob")
    bob = driver.member("bob")
    driver.leave("bob")
    for _ in range(2):
        turn = driver.hub.take([Intent(bob, b"hello")], now_s=0.0)
        assert (turn.records, turn.refusals) == ([], [RefusedIntent(bob, 0.0)])
        assert driver.hub.leave(bob, Reason.BYE, now_s=0.0).records == []
        driver.commit()
    assert driver.links["bob"].member is None
    assert driver.hub.link_of(bob) is None
    driver.say("alice", "anybody?")
    assert driver.commit() == []


def test_when_the_host_leaves_the_room_closes_and_everybody_is_told() -> None:
    driver = Driver()
    driver.seat("alice", "bob", "carol")
    turn = driver.leave("alice")
    assert [record.entry.kind for record in records(turn)] == [Kind.LEAVE, Kind.CLOSED]
    assert driver.hub.leave(driver.member("bob"), Reason.BYE, now_s=0.0).records == []
    assert driver.close().records == []
    assert driver.commit() == [
        "alice goes (left, b'you: left')",
        "bob,carol < LEAVE alice left",
        "bob,carol < CLOSED the host has gone",
        "bob goes (the host has gone, None)",
        "carol goes (the host has gone, None)",
    ]
    assert driver.hub.counts() == HubCounts(rooms=0, members=0, pending=0)
    assert driver.hub.rooms() == []
    assert driver.hub.members("a") == []
    assert all(link.member is None for link in driver.links.values())


def test_a_closed_room_and_its_next_of_that_name_are_two() -> None:
    driver = Driver()
    driver.seat("alice", "bob")
    bob = driver.member("bob")
    driver.close()
    driver.commit()
    driver.seat("carol", "dave")
    assert driver.say("carol", "hi").records[0][:2] == ("a", 2)
    assert driver.hub.take([Intent(bob, b"hi")], now_s=0.0).records == []
    assert driver.hub.leave(bob, Reason.BYE, now_s=0.0).records == []
    assert driver.hub.link_of(bob) is None
    assert driver.hub.move(bob, FakeLink(CountedForm("plain", driver.calls))) is None


def test_a_room_that_is_not_there_cannot_be_closed() -> None:
    driver = Driver()
    assert driver.close().records == []


# --- silence ------------------------------------------------------------------------------------------


def test_the_silent_are_removed_and_told() -> None:
    driver = Driver(Hub(Limits(idle_timeout_s=10.0)))
    assert driver.hub.next_timeout_s() is None
    driver.seat("alice", "bob")
    assert driver.hub.next_timeout_s() == 10.0
    driver.member("alice").hear(5.0)
    assert len(driver.expire(9.9).records) == 0
    turn = driver.expire(10.0)
    assert turn.deadline_s == 15.0
    assert driver.commit() == [
        "bob goes (silent too long, b'you: silent too long')",
        "alice < LEAVE bob silent too long",
    ]
    driver.expire(15.0)
    assert driver.commit() == [
        "alice goes (silent too long, b'you: silent too long')",
    ]
    assert driver.hub.next_timeout_s() is None


def test_a_host_that_expires_takes_the_room_and_the_other_silent_along() -> None:
    driver = Driver(Hub(Limits(idle_timeout_s=10.0)))
    driver.seat("alice", "bob")
    turn = driver.expire(99.0)
    assert [(record.entry.kind, record.entry.name) for record in records(turn)] == [
        (Kind.LEAVE, "alice"),
        (Kind.CLOSED, ""),
    ]
    assert seqs(turn) == [3, 4]


def test_a_batch_in_front_of_a_timeout_is_let_out_by_its_own_commit() -> None:
    driver = Driver(Hub(Limits(idle_timeout_s=10.0)))
    driver.seat("alice", "bob")
    driver.member("alice").hear(5.0)
    said = driver.say("alice", "hello")
    gone = driver.expire(10.0)
    assert gone.up_to == said.up_to + 1
    assert driver.commit(said) == ["bob < TEXT alice hello"]
    driver.fail(gone)
    assert driver.hub.counts().pending == 0


def test_the_lost_have_less_time_unless_they_are_heard_of() -> None:
    driver = Driver(Hub(Limits(idle_timeout_s=100.0, lost_timeout_s=10.0)))
    driver.seat("alice", "bob", "carol")
    driver.hub.lose(driver.member("bob"), now_s=1.0)
    driver.hub.lose(driver.member("bob"), now_s=5.0)
    driver.hub.lose(driver.member("carol"), now_s=1.0)
    driver.member("carol").hear(2.0)
    assert driver.hub.next_timeout_s() == 11.0
    driver.expire(11.0)
    assert driver.commit() == [
        "bob goes (connection lost, b'you: connection lost')",
        "alice,carol < LEAVE bob connection lost",
    ]


def test_who_expires_while_leaving_leaves_once() -> None:
    driver = Driver(Hub(Limits(idle_timeout_s=10.0)))
    driver.seat("alice", "bob")
    driver.member("alice").hear(5.0)
    driver.leave("bob")
    assert driver.expire(10.0).records == []


def test_who_becomes_the_host_while_away_has_its_time_anew() -> None:
    driver = Driver(Hub(Limits(idle_timeout_s=100.0, lost_timeout_s=5.0)))
    driver.found("alice", Lifetime.HAND_OVER)
    driver.seat("bob")
    driver.hub.lose(driver.member("bob"), now_s=0.0)
    driver.now_s = 4.0
    driver.leave("alice")
    driver.commit()
    assert driver.expire(8.9).records == []
    assert len(driver.expire(9.0).records) == 2, "bob goes, and the room with it"


def test_a_room_that_persists_stays_though_who_came_next_could_not_be_written_down() -> None:
    driver = Driver()
    driver.found("alice", Lifetime.PERSIST)
    driver.leave("alice")
    driver.commit()
    turn = driver.enter("bob")
    assert isinstance(turn, Turn)
    driver.fail(turn)
    assert driver.hub.rooms() == ["a"]
    assert isinstance(driver.enter("bob"), Turn)


def test_timers_of_those_who_are_gone_do_not_pile_up() -> None:
    driver = Driver()
    driver.seat("alice")
    for _ in range(5000):
        driver.enter("bob")
        driver.commit()
        driver.hub.lose(driver.member("bob"), now_s=0.0)
        driver.leave("bob")
        driver.commit()
        driver.out.clear()
        assert len(driver.hub._timers) <= 2 * 2 + 1024 + 1
    assert driver.hub.next_timeout_s() is not None


def test_timers_of_a_member_that_is_lost_and_found_do_not_pile_up() -> None:
    driver = Driver()
    driver.seat("alice", "bob")
    for number in range(5000):
        member = driver.member(("alice", "bob")[number % 2])
        driver.hub.lose(member, now_s=float(number) / 1000)
        member.hear(float(number) / 1000)
        assert len(driver.hub._timers) <= 2 * 2 + 1024 + 1
    assert {timer[2].name for timer in driver.hub._timers} == {"alice", "bob"}
    driver.expire(9999.0)
    assert driver.hub.counts().pending == 2


def test_timers_do_not_pile_up_when_the_journal_fails_again_and_again() -> None:
    driver = Driver()
    driver.seat("alice", *(f"u{number}x" for number in range(50)))
    for _ in range(100):
        driver.say("alice", "hello")
        driver.fail()
        assert len(driver.hub._timers) == 51


# --- failures -----------------------------------------------------------------------------------------


def test_after_a_failure_nothing_has_happened_and_the_order_goes_on_without_a_hole() -> None:
    driver = Driver()
    driver.seat("alice", "bob")
    turn = driver.say("alice", "lost")
    assert seqs(turn) == [3]
    driver.enter("carol")
    carol = driver.links["carol"]
    driver.leave("bob")
    assert seqs(driver.leave("alice")) == [6, 7]
    assert driver.fail(turn) == [carol]
    assert carol.member is None
    assert driver.hub.counts() == HubCounts(rooms=1, members=2, pending=0)
    assert driver.hub.named("a", "carol") is None
    assert seqs(driver.say("bob", "again")) == [3]
    assert seqs(driver.enter("carol")) == [4]
    assert driver.commit() == ["alice < TEXT bob again", "alice,bob < JOIN carol", "carol sits"]


def test_a_room_that_was_never_written_was_never_there() -> None:
    driver = Driver()
    driver.enter("alice", create=True)
    driver.enter("bob")
    assert driver.fail() == [driver.links["alice"], driver.links["bob"]]
    assert driver.hub.rooms() == []
    turn = driver.enter("alice", create=True)
    assert isinstance(turn, Turn)
    assert turn.records[0][:2] == ("a", 2)
    assert seqs(turn) == [1]


def test_a_later_failure_of_an_older_batch_leaves_newer_ones_alone() -> None:
    driver = Driver()
    driver.seat("alice", "bob")
    first, second = driver.say("alice", "1"), driver.say("alice", "2")
    driver.fail(first)
    third = driver.say("alice", "3")
    assert seqs(third) == [3]
    assert driver.fail(second) == []
    assert driver.commit(third) == ["bob < TEXT alice 3"]


def test_a_late_word_about_an_older_batch_lets_nothing_newer_out() -> None:
    driver = Driver()
    driver.seat("alice", "bob")
    first, second = driver.say("alice", "1"), driver.say("alice", "2")
    driver.fail(first)
    driver.say("alice", "3")
    assert driver.commit(second) == []


def test_what_was_committed_before_the_failure_stays() -> None:
    driver = Driver()
    driver.seat("alice", "bob")
    first, second = driver.leave("bob"), driver.say("alice", "2")
    driver.commit(first)
    driver.fail(second)
    assert [member.name for member in driver.hub.members("a")] == ["alice"]
    assert seqs(driver.say("alice", "again")) == [4]


def test_a_failure_takes_back_what_waits_in_other_rooms_and_spares_the_quiet_ones() -> None:
    driver = Driver()
    driver.seat("alice")
    driver.seat("bob", room="b")
    driver.seat("carol", room="c")
    turn = driver.say("alice", "1")
    driver.say("bob", "2")
    driver.fail(turn)
    assert [seqs(driver.say(user, "again")) for user in ("alice", "bob", "carol")] == [[2], [2], [2]]


def test_who_was_about_to_be_removed_is_removed_after_a_failure() -> None:
    driver = Driver(Hub(Limits(idle_timeout_s=10.0)))
    driver.seat("alice", "bob")
    driver.member("alice").hear(8.0)
    driver.expire(10.0)
    driver.fail()
    assert driver.hub.next_timeout_s() == 10.0
    assert [record.entry.name for record in records(driver.expire(10.5))] == ["bob"]


# --- another door -------------------------------------------------------------------------------------


def test_a_member_that_comes_back_hears_by_its_new_door_alone() -> None:
    driver = Driver()
    driver.seat("alice", "bob")
    member, old = driver.member("bob"), driver.links["bob"]
    new = FakeLink(CountedForm("other", driver.calls))
    driver.move("bob", new)
    assert driver.hub.link_of(member) is old
    assert driver.commit() == ["bob is here now"]
    assert (old.member, old.audience, new.member) == (None, None, member)
    assert driver.hub.link_of(member) is new
    driver.say("alice", "hello")
    assert driver.commit() == ["bob < TEXT alice hello"]
    driver.say("bob", "hello")
    assert driver.commit() == ["alice < TEXT bob hello"]
    driver.leave("bob")
    assert driver.hub.move(member, old) is None
    assert driver.commit() == ["bob goes (left, b'you: left')", "alice < LEAVE bob left"]


def test_a_door_that_was_not_written_is_none() -> None:
    driver = Driver()
    driver.seat("alice", "bob")
    member, old = driver.member("bob"), driver.links["bob"]
    new, newer = (FakeLink(CountedForm("other", driver.calls)) for _ in range(2))
    driver.move("bob", new)
    driver.move("bob", newer)
    driver.say("alice", "hello")
    assert driver.fail() == [new, newer]
    assert (old.member, new.member, newer.member) == (member, None, None)
    driver.say("alice", "hello")
    assert driver.commit() == ["bob < TEXT alice hello"]


def test_a_member_may_move_and_move_again_and_leave() -> None:
    driver = Driver()
    driver.seat("alice", "bob")
    doors = [driver.links["bob"], *(FakeLink(CountedForm("plain", driver.calls)) for _ in range(2))]
    for door in doors[1:]:
        driver.move("bob", door)
    driver.leave("bob")
    assert driver.commit() == [
        "bob is here now",
        "bob is here now",
        "bob goes (left, b'you: left')",
        "alice < LEAVE bob left",
    ]
    assert [door.member for door in doors] == [None, None, None]


def test_nobody_moves_in_a_room_that_is_closing_or_before_a_full_journal() -> None:
    driver = Driver(Hub(Limits(pending_max=3)))
    driver.seat("alice")
    link = FakeLink(CountedForm("plain", driver.calls))
    driver.say("alice", "1", "2", "3")
    assert driver.hub.move(driver.member("alice"), link) is Refusal.UNAVAILABLE
    driver.commit()
    driver.close()
    assert driver.hub.move(driver.member("alice"), link) is None


def test_who_is_not_seated_has_no_door_to_change() -> None:
    driver = Driver()
    driver.enter("alice", create=True)
    assert driver.hub.move(driver.member("alice"), FakeLink(CountedForm("plain", driver.calls))) is None


# --- any batches --------------------------------------------------------------------------------------

texts = st.lists(st.tuples(st.sampled_from(["alice", "bob", "carol"]), st.text(min_size=1, max_size=3)), max_size=12)


@given(texts, st.lists(st.integers(0, 4), max_size=12))
def test_it_makes_no_difference_how_words_are_batched(said: list[tuple[str, str]], sizes: list[int]) -> None:
    def run(batches: Sequence[Sequence[tuple[str, str]]]) -> list[str]:
        driver = Driver()
        driver.seat("alice", "bob", "carol")
        for batch in batches:
            intents = [Intent(driver.member(user), text.encode()) for user, text in batch]
            driver.note(driver.hub.take(intents, now_s=0.0))
        driver.commit()
        return driver.out

    rest, batches = list(said), list[list[tuple[str, str]]]()
    for size in sizes:
        batches.append(rest[:size])
        rest = rest[size:]
    assert run([*batches, rest]) == run([said])


def test_real_links_are_addressed_once_per_form() -> None:
    hub = Hub(PATIENT)
    out: list[Release] = []
    turn: Turn | Refusal | None = None
    for number, kind in enumerate((Form.OCM, Form.OCM, Form.PLAIN, Form.REFERENCE)):
        link = ClassicLink(
            kind, room="a", user=f"u{number}x", token=b"%d" % number, address=make_address("10.0.0.1", number)
        )
        ask: Callable[..., Turn | Refusal] = hub.create if number == 0 else hub.join
        turn = ask(link, room="a", user=f"u{number}x", now_s=0.0)
        assert isinstance(turn, Turn)
        hub.committed(turn.up_to, lambda _: None)
    turn = hub.take([Intent(hub.members("a")[0], b"hi")], now_s=0.0)
    hub.committed(turn.up_to, out.append)
    assert [one.payload for one in out if isinstance(one, Delivery)] == [b"\x01\x03au0xhi", b"u0x: hi", b"hi"]
    assert [one.skip is not None for one in out if isinstance(one, Delivery)] == [True, False, False]


# --- authors ------------------------------------------------------------------------------------------


@dataclass
class Listener:
    """An author that only listens."""

    heard: list[str] = field(default_factory=list[str])

    def taken(self, intent: Intent) -> None:
        self.heard.append(f"{intent.message_id} taken")

    def deferred(self, intent: Intent, status: int, wait_s: float) -> None:
        self.heard.append(f"{intent.message_id} deferred ({Status(status).name}, {wait_s} s)")

    def settled(self, what: Entry | Refused) -> None:
        self.heard.append(f"{what.message_id} settled")

    def failed(self) -> None:
        self.heard.append("failed")


def with_author(driver: Driver, user: str) -> list[str]:
    listener = Listener()
    driver.links[user].author = listener
    return listener.heard


def test_message_ids_reach_the_journal_and_their_author_hears_of_each() -> None:
    driver = Driver()
    driver.seat("alice", "bob")
    heard = with_author(driver, "alice")
    alice = driver.member("alice")
    turn = driver.note(
        driver.hub.take(
            [Intent(alice, b"yes", message_id=5), Intent(alice, b"no", message_id=6, status=17, digest=b"digest")],
            now_s=2.0,
        )
    )
    said, refused = turn.records
    assert isinstance(said, Record)
    assert said.entry.message_id == 5
    assert refused == Refused("a", 1, alice.id, 6, 17, 2000, b"digest")
    assert heard == ["5 taken", "6 taken"]
    assert driver.commit() == ["bob < TEXT alice yes"]
    assert heard[2:] == ["5 settled", "6 settled"]
    assert seqs(driver.say("bob", "next")) == [4], "a refusal has no place in the room's order"


def test_an_author_is_told_why_it_has_to_wait() -> None:
    driver = Driver(Hub(Limits(burst_max=1, rate_per_s=0.5, pending_max=2)))
    driver.seat("alice")
    heard = with_author(driver, "alice")
    alice = driver.member("alice")

    def say(number: int) -> None:
        driver.note(driver.hub.take([Intent(alice, b"x", message_id=number)], now_s=0.0))

    say(1)
    say(2)
    driver.enter("bob")
    say(3)
    driver.commit()
    driver.leave("alice")
    say(4)
    assert [one for one in heard if "deferred" in one] == [
        "2 deferred (RATE_LIMITED, 2.0 s)",
        "3 deferred (UNAVAILABLE, 1.0 s)",
        "4 deferred (UNAVAILABLE, 1.0 s)",
    ]
    driver.fail()
    assert heard[-1] == "failed"


def test_a_message_with_an_id_needs_no_author() -> None:
    driver = Driver()
    driver.seat("alice", "bob")
    alice = driver.member("alice")
    driver.note(
        driver.hub.take([Intent(alice, b"1", message_id=1), Intent(alice, b"", message_id=2, status=17)], now_s=0.0)
    )
    assert driver.commit() == ["bob < TEXT alice 1"]


def test_the_log_of_a_room_that_is_closed_is_read_in_the_journal() -> None:
    asked: list[tuple[str, int, int, int]] = []

    def read(room: str, incarnation: int, first: int, count: int) -> Sequence[Entry]:
        asked.append((room, incarnation, first, count))
        return ()

    closed = KeptRoom("a", 7, bytes(16), CLASSIC_POLICY, 40, 11, 9, 0, closed=True, members=())
    assert Hub(PATIENT, read=read).reader(closed)(12, 3) == ()
    assert asked == [("a", 7, 12, 3)]
    assert Hub(PATIENT).reader(closed)(12, 3) == ()


def test_an_author_that_is_gone_hears_nothing_any_more() -> None:
    driver = Driver()
    driver.seat("alice", "bob")
    heard = with_author(driver, "bob")
    bob = driver.member("bob")
    driver.leave("bob")
    driver.commit()
    driver.hub.take([Intent(bob, b"x", message_id=1)], now_s=0.0)
    assert heard == []


# --- memory -------------------------------------------------------------------------------------------


def with_reader(limits: Limits, *rooms: str) -> Driver:
    driver = Driver(Hub(limits))
    for room in rooms:
        driver.enter(f"reader of {room}", room, create=True, form="log", addressing=Addressing.PULL, echoes=True)
    driver.commit()
    return driver


def kept_sizes(driver: Driver, *rooms: str) -> list[int]:
    logs = [driver.hub.log(room) for room in rooms]
    return [0 if log is None else log.size for log in logs]


def test_entries_are_kept_in_memory_only_while_somebody_reads_the_log() -> None:
    driver = Driver()
    driver.seat("alice")
    driver.say("alice", "nobody reads this")
    driver.commit()
    assert kept_sizes(driver, "a") == [0]
    log = driver.hub.log("a")
    assert log is not None
    driver.enter("bob", form="log", addressing=Addressing.PULL)
    driver.commit()
    driver.say("alice", "but this")
    driver.commit()
    assert (kept_sizes(driver, "a"), log.head) == ([8 + 64], 4)
    driver.leave("bob")
    driver.commit()
    assert (kept_sizes(driver, "a"), log.head) == ([0], 5)
    assert driver.hub._logs_size == 0
    driver.say("alice", "nobody reads this")
    driver.enter("carol", form="log", addressing=Addressing.PULL)
    driver.commit()
    assert (kept_sizes(driver, "a"), log.head) == ([0], 7)


def test_all_logs_together_take_so_much_memory_and_no_more() -> None:
    limits = Limits(room_logs_size_max=4 * 1064, burst_max=999)
    driver = with_reader(limits, "a", "b")
    for _ in range(3):
        driver.say("reader of a", "x" * 1000)
    driver.say("reader of b", "x" * 1000)
    driver.commit()
    assert kept_sizes(driver, "a", "b") == [3 * 1064, 1064]
    driver.say("reader of b", "x" * 1000)
    driver.commit()
    assert kept_sizes(driver, "a", "b") == [1064, 1064]
    assert driver.hub._logs_size == 2 * 1064


def test_a_room_that_is_closed_gives_its_memory_back() -> None:
    driver = with_reader(PATIENT, "a")
    driver.say("reader of a", "x" * 1000)
    driver.commit()
    log = driver.hub.log("a")
    driver.close()
    driver.commit()
    assert log is not None
    assert log.size == driver.hub._logs_size == 0
    assert driver.hub.log("a") is None
    assert driver.hub.room("a") is None
