"""Planted bugs of the client's machine that its tests must find."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from ocm.protocol.address import Address
from ocm.protocol.agent import Agent, AgentRoom, Session
from ocm.protocol.agent.dialling import Dialler
from ocm.protocol.agent.questions import Question, Questions
from ocm.protocol.agent.wish import Wish
from ocm.protocol.memory import Memo, Named
from ocm.protocol.session.publishing import Publisher, Settled
from ocm.protocol.wire.frames import Frame, Message, Published
from tests.protocol.agent import test_connections as connections
from tests.protocol.agent import test_entering as entering
from tests.protocol.agent import test_rooms as rooms
from tests.protocol.agent import test_sessions as sessions

Plant = Callable[[pytest.MonkeyPatch], None]


def says_stored_before_it_is(patch: pytest.MonkeyPatch) -> None:
    hand_out = Agent.memos_to_store

    def planted(self: Agent) -> list[Memo]:
        memos = hand_out(self)
        for memo in memos:
            if isinstance(memo, Named) and self._sessions.open is not None:
                self._sessions.open.say_stored()
        return memos

    patch.setattr(Agent, "memos_to_store", planted)


def says_stored_of_a_former_secret(patch: pytest.MonkeyPatch) -> None:
    stored = Agent.stored

    def planted(self: Agent, count: int, *, now_s: float) -> None:
        handed_out = self._memos._handed_out
        if handed_out and isinstance(handed_out[0][0], Named):
            self._named = handed_out[0][0]
        stored(self, count, now_s=now_s)

    patch.setattr(Agent, "stored", planted)


def publishes_before_it_is_stored(patch: pytest.MonkeyPatch) -> None:
    post = AgentRoom.post

    def planted(self: AgentRoom, body: bytes, kind: int) -> int:
        message_id = post(self, body, kind)
        self._publisher.stored_up_to = message_id
        return message_id

    patch.setattr(AgentRoom, "post", planted)


def publishes_before_it_may_have_left(patch: pytest.MonkeyPatch) -> None:
    """Minds that the message is stored, and not that it may have left."""
    stored = AgentRoom.stored

    def planted(self: AgentRoom, memo: Memo) -> None:
        stored(self, memo)
        self._publisher.stored_up_to = self._posted_up_to

    patch.setattr(AgentRoom, "stored", planted)


def keeps_ids_that_are_taken(patch: pytest.MonkeyPatch) -> None:
    def planted(self: Publisher, mark: int) -> None: ...

    patch.setattr(Publisher, "renumber", planted)


def publishes_under_an_id_before_it_is_stored(patch: pytest.MonkeyPatch) -> None:
    renumber = AgentRoom._renumber

    def planted(self: AgentRoom, mark: int) -> None:
        before = self._posted_up_to
        renumber(self, mark)
        self._posted_up_to = max(before, self.last_id)
        self._renumbering = 0

    patch.setattr(AgentRoom, "_renumber", planted)


def tells_receipts_as_they_come(patch: pytest.MonkeyPatch) -> None:
    def planted(self: Publisher, published: Published, *, now_s: float) -> list[Settled]:
        posted = self._posted.pop(published.message_id, None)
        return [] if posted is None else [Settled(published.message_id, published.status, published.seq)]

    patch.setattr(Publisher, "answer", planted)


def resends_what_is_unknown(patch: pytest.MonkeyPatch) -> None:
    def planted(self: Publisher, up_to: int) -> list[Settled]:
        return [Settled(message_id, None, 0) for message_id in self._posted if message_id <= up_to]

    patch.setattr(Publisher, "forget", planted)


def forgets_what_waited_behind(patch: pytest.MonkeyPatch) -> None:
    forget = Publisher.forget

    def planted(self: Publisher, up_to: int) -> list[Settled]:
        return [fate for fate in forget(self, up_to) if fate.message_id <= up_to]

    patch.setattr(Publisher, "forget", planted)


def shows_a_secret_that_a_crash_would_lose(patch: pytest.MonkeyPatch) -> None:
    def planted(self: Agent) -> Named | None:
        return self._named

    patch.setattr(Agent, "_to_show", planted)


def shows_the_secret_to_any_server(patch: pytest.MonkeyPatch) -> None:
    opened = Agent.opened

    def planted(self: Agent, *, server_key: bytes, server_address: Callable[[int], Address], now_s: float) -> Session:
        session = opened(self, server_key=server_key, server_address=server_address, now_s=now_s)
        session._named = self._named
        return session

    patch.setattr(Agent, "opened", planted)


def keeps_what_it_cannot_place(patch: pytest.MonkeyPatch) -> None:
    """Takes frames of a room whose handle it does not know yet, and forgets them."""
    receive = Session.receive

    def planted(self: Session, frame: Frame, *, now_s: float) -> bool:
        receive(self, frame, now_s=now_s)
        return True

    patch.setattr(Session, "receive", planted)


def keeps_a_seat_that_nobody_wants(patch: pytest.MonkeyPatch) -> None:
    def planted(self: Agent, session: Session, wish: Wish, handle: int) -> None:
        pass

    patch.setattr(Agent, "_leave", planted)


def joins_while_it_leaves(patch: pytest.MonkeyPatch) -> None:
    def planted(self: Questions, name: str) -> bool:
        return False

    patch.setattr(Questions, "is_leaving", planted)


def believes_every_page(patch: pytest.MonkeyPatch) -> None:
    def planted(self: Question, message: Message) -> None:
        self.entries.append(message)

    patch.setattr(Question, "read_back", planted)


def believes_any_words_to_be_ours(patch: pytest.MonkeyPatch) -> None:
    def planted(self: Publisher, message: Message) -> list[Settled]:
        return self.answer(Published(1, message.message_id, 0, message.seq, 0), now_s=0.0)

    patch.setattr(Publisher, "hear", planted)


def dials_at_once_for_ever(patch: pytest.MonkeyPatch) -> None:
    def planted(self: Dialler, *, now_s: float) -> None:
        if self._due_s is None and not self.is_busy:
            self._plan(0, now_s)

    patch.setattr(Dialler, "want", planted)


def takes_itself_for_another(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Session, "has_shown_name", False)


MUTANTS: list[tuple[Plant, Callable[[], None]]] = [
    (says_stored_before_it_is, connections.test_the_secret_is_said_to_be_stored_when_it_is),
    (says_stored_of_a_former_secret, connections.test_of_two_secrets_the_one_of_this_session_counts),
    (publishes_before_it_is_stored, rooms.test_a_message_leaves_when_it_is_stored),
    (publishes_before_it_may_have_left, rooms.test_a_message_leaves_when_it_is_stored),
    (keeps_ids_that_are_taken, rooms.test_what_was_posted_before_we_were_let_in_is_numbered_above_what_the_server_took),
    (
        publishes_under_an_id_before_it_is_stored,
        rooms.test_what_gets_other_ids_before_the_first_ones_are_stored_waits_for_both,
    ),
    (tells_receipts_as_they_come, rooms.test_receipts_come_once_and_in_the_order_of_posting),
    (resends_what_is_unknown, rooms.test_what_the_server_has_forgotten_is_unknown_and_never_sent_again),
    (forgets_what_waited_behind, rooms.test_what_is_known_behind_what_is_not_is_told),
    (
        shows_a_secret_that_a_crash_would_lose,
        connections.test_while_nothing_can_be_stored_the_secret_that_is_stored_is_shown,
    ),
    (shows_the_secret_to_any_server, connections.test_the_secret_goes_to_the_server_that_gave_it_and_to_no_other),
    (keeps_what_it_cannot_place, sessions.test_what_comes_before_its_seat_comes_again),
    (keeps_a_seat_that_nobody_wants, entering.test_a_seat_in_a_room_that_was_left_meanwhile_is_given_back),
    (joins_while_it_leaves, entering.test_who_enters_again_while_leaving_waits_until_that_is_done),
    (believes_every_page, rooms.test_history_is_what_was_asked_for_and_no_more),
    (believes_any_words_to_be_ours, rooms.test_our_own_words_of_a_life_that_we_forgot_settle_nothing),
    (dials_at_once_for_ever, connections.test_a_server_that_hangs_up_at_once_is_not_dialled_at_once_for_ever),
    (takes_itself_for_another, partial(connections.test_who_has_replaced_itself_goes_on, "AUTH.2 is lost")),
]


@pytest.mark.parametrize(("plant", "check"), MUTANTS, ids=[plant.__name__ for plant, _ in MUTANTS])
def test_it_is_found(plant: Plant, check: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    check()
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check()
