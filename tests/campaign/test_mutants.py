"""Planted bugs that the stories and deliveries must find: a campaign that finds none proves nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from ocm.protocol.agent import AgentRoom, Session
from ocm.protocol.agent.memos import Memos
from ocm.protocol.agent.succession import Succession
from ocm.protocol.events import Message as EntryMessage
from ocm.protocol.hub import Turn
from ocm.protocol.link.modern import ModernLink
from ocm.protocol.link.modern_session import ModernSession
from ocm.protocol.memory import Memo
from ocm.protocol.session.channel import Channel
from ocm.protocol.session.lane import Lane, Load
from ocm.protocol.session.publishing import Publisher
from ocm.protocol.session.pulse import Pulse
from ocm.protocol.session.receiving import Receiver
from ocm.protocol.wire.frames import Message, Received
from tests.campaign import test_named as named
from tests.campaign.deliveries import TERRIBLE, deliver
from tests.campaign.scenarios import play
from tests.campaign.world import SERVER, Pipe, Server, World
from tests.protocol.test_reception_mutants import loses_the_dedupe_mark

STORIES = range(1, 80)
Plant = Callable[[pytest.MonkeyPatch], None]


def stories_find() -> bool:
    return any(_fails(partial(play, number)) for number in STORIES)


def deliveries_find() -> bool:
    return _fails(lambda: deliver(TERRIBLE, seed=1, deliveries=6000))


def _fails(run: Callable[[], object]) -> bool:
    try:
        run()
    except AssertionError:
        return True
    return False


# --- the bugs -----------------------------------------------------------------------------------------


def acknowledges_before_commit(patch: pytest.MonkeyPatch) -> None:
    submit = Server._submit

    def planted(self: Server, turn: Turn) -> None:
        submit(self, turn)
        self.hub.committed(turn.up_to, self._release)
        self.reception.committed(turn.up_to)

    patch.setattr(Server, "_submit", planted)


def resends_no_entry(patch: pytest.MonkeyPatch) -> None:
    def planted(self: ModernLink, load: Load) -> None: ...

    patch.setattr(ModernLink, "lost", planted)


def resends_no_message(patch: pytest.MonkeyPatch) -> None:
    def planted(self: Publisher, message_id: int) -> None: ...

    def rewind(self: Publisher) -> None: ...

    patch.setattr(Publisher, "lose", planted)
    patch.setattr(Publisher, "rewind", rewind)
    patch.setattr("ocm.protocol.session.publishing.SILENCE_S", 1e9)


def resends_no_received(patch: pytest.MonkeyPatch) -> None:
    """Minds neither a lost packet with it nor a probe that would bring it again."""
    send = Lane.send

    def planted(self: Lane, frames: bytes, loads: tuple[Load, ...], *, now_s: float) -> bytes:
        unminded = [load.data for load in loads if isinstance(load.key, Received)]
        minded = tuple(load for load in loads if not isinstance(load.key, Received))
        return send(self, frames + b"".join(unminded), minded, now_s=now_s)

    patch.setattr(Lane, "send", planted)


def delivers_out_of_order(patch: pytest.MonkeyPatch) -> None:
    receive = Receiver.receive

    def planted(self: Receiver, message: Message, *, now_s: float) -> bool:
        if message.seq > self._up_to + 1 and message.seq not in self._early:
            self._ready.append(message)
        return receive(self, message, now_s=now_s)

    patch.setattr(Receiver, "receive", planted)


def keeps_what_it_cannot_place(patch: pytest.MonkeyPatch) -> None:
    """Takes frames of a room whose handle it does not know yet, and forgets them."""
    from ocm.protocol.agent.session import Session

    receive = Session.receive

    def planted(self: Session, frame: Message, *, now_s: float) -> bool:
        receive(self, frame, now_s=now_s)
        return True

    patch.setattr(Session, "receive", planted)


def sends_before_it_is_stored(patch: pytest.MonkeyPatch) -> None:
    gather = AgentRoom.post

    def planted(self: AgentRoom, body: bytes, kind: int) -> int:
        message_id = gather(self, body, kind)
        self._publisher.stored_up_to = message_id
        return message_id

    def stored(self: AgentRoom, memo: Memo) -> None: ...

    patch.setattr(AgentRoom, "post", planted)
    patch.setattr(AgentRoom, "stored", stored)


def forgets_what_a_full_disk_did_not_take(patch: pytest.MonkeyPatch) -> None:
    def planted(self: Memos) -> None:
        self._handed_out.clear()

    patch.setattr(Memos, "take_back", planted)


def moves_a_seat_before_its_client_knows(patch: pytest.MonkeyPatch) -> None:
    seat = ModernSession.seat

    def planted(self: ModernSession, link: ModernLink, *, last: int, lowest_id: int) -> tuple[int, int]:
        if link.carrier is not None:
            link.carrier.unseat(link)
        return seat(self, link, last=last, lowest_id=lowest_id)

    patch.setattr(ModernSession, "seat", planted)


def drops_the_former_session_at_once(patch: pytest.MonkeyPatch) -> None:
    succeed = Succession.succeed

    def planted(self: Succession, session: Session, *, goes_on: bool) -> bool:
        return succeed(self, session, goes_on=False)

    patch.setattr(Succession, "succeed", planted)


def misses_nothing(patch: pytest.MonkeyPatch) -> None:
    def planted(self: AgentRoom, *, now_s: float) -> bool:
        return False

    patch.setattr(AgentRoom, "misses", planted)


def waits_for_the_connection_to_die(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Pulse, "is_late", False)


def hears_of_no_move(patch: pytest.MonkeyPatch) -> None:
    def planted(self: Channel, *, now_s: float) -> None: ...

    patch.setattr(Channel, "moved", planted)


FOUND_BY_STORIES: list[Plant] = [
    acknowledges_before_commit,
    loses_the_dedupe_mark,
    delivers_out_of_order,
    sends_before_it_is_stored,
    resends_no_entry,
    forgets_what_a_full_disk_did_not_take,
]
FOUND_BY_DELIVERIES: list[Plant] = [resends_no_entry, resends_no_message, delivers_out_of_order]


@pytest.mark.parametrize("plant", FOUND_BY_STORIES, ids=lambda plant: plant.__name__)
def test_the_stories_find(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    assert stories_find()


@pytest.mark.parametrize("plant", FOUND_BY_DELIVERIES, ids=lambda plant: plant.__name__)
def test_the_deliveries_find(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    assert deliveries_find()


FOUND_BY_NAME: list[tuple[Plant, Callable[[], None]]] = [
    (moves_a_seat_before_its_client_knows, named.test_a_seat_that_is_promised_and_never_heard_of_costs_no_time),
    (drops_the_former_session_at_once, named.test_a_seat_that_is_promised_and_never_heard_of_costs_no_time),
    (misses_nothing, named.test_what_is_too_large_for_a_datagram_comes_though_its_connection_seems_to_be_there),
    (
        waits_for_the_connection_to_die,
        named.test_what_is_too_large_for_a_datagram_comes_though_its_connection_seems_to_be_there,
    ),
    (hears_of_no_move, named.test_who_only_listens_and_moves_is_found),
]


@pytest.mark.parametrize(("plant", "check"), FOUND_BY_NAME, ids=lambda found: found.__name__)
def test_a_named_case_finds(plant: Plant, check: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    check()
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check()


@pytest.mark.parametrize("plant", [None, resends_no_received], ids=["nothing", "resends_no_received"])
def test_a_reader_that_paused_finds_credit_that_was_lost(plant: Plant | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one RECEIVED that says that there is room again is lost, and nothing else would bring it back."""
    if plant is not None:
        plant(monkeypatch)
    assert (_read_after_a_pause() == 300) is (plant is None)


def _read_after_a_pause() -> int:
    world = World(1)
    aiko, bob = world.add("aiko", creates=True), world.add("bob")
    for person in (aiko, bob):
        person.start()
        world.run(until_s=world.now_s + 2.0)
    bob.reads = False
    for number in range(300):
        world.at(world.now_s + number * 0.03, partial(aiko.post, f"{number}"))
    world.run(until_s=world.now_s + 20.0)
    world.links.cut("bob", direction="up")
    world.at(world.now_s + 0.15, partial(world.links.heal, "bob"))  # too short for the path to be suspect
    bob.read_on()
    world.run(until_s=world.now_s + 20.0)
    return sum(isinstance(event, EntryMessage) for _, event in bob.events)


@pytest.mark.parametrize("plant", [None, keeps_what_it_cannot_place], ids=["nothing", "keeps_what_it_cannot_place"])
def test_entries_that_overtake_the_answer_to_join(plant: Plant | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Datagrams are quicker than a TLS connection that lost a packet: what comes before its handle comes again."""
    if plant is not None:
        plant(monkeypatch)
    world = World(1)
    aiko, bob = world.add("aiko", creates=True), world.add("bob")
    for person in (aiko, bob):
        person.start()
        world.run(until_s=world.now_s + 2.0)
    for pipe in bob.pipes():
        pipe.break_up()
    world.links.cut("bob")
    world.run(until_s=world.now_s + 40.0)
    world.links.heal("bob")
    send, answers = Pipe.send, 0

    def slow(self: Pipe, source: str, data: bytes) -> None:
        nonlocal answers
        answers += source == SERVER
        delay_s = 1.2 if source == SERVER and answers > 2 else 0.0  # HELLO.1 and AUTH.2 are in time
        world.at(world.now_s + delay_s, partial(send, self, source, data))

    monkeypatch.setattr(Pipe, "send", slow)
    for number in range(20):
        world.at(world.now_s + 0.5 * number, partial(aiko.post, f"{number}"))
    world.run(until_s=world.now_s + 30.0)
    heard = [event.text for _, event in bob.events if isinstance(event, EntryMessage)]
    assert (heard == [f"{number}" for number in range(20)]) is (plant is None)
