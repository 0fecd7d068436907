"""Planted bugs that the checks of ``test_hub_machine`` must find: a check that finds none proves nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from operator import attrgetter

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test as run_machine

from ocm.errors import LocalProtocolError
from ocm.protocol import hub as hub_module
from ocm.protocol.address import Address, host_key
from ocm.protocol.entry import Access, Entry, Kept, KeptMember, KeptRoom, Kind, Reason, Record, Refusal, Refused
from ocm.protocol.hub import Delivery, Hub, Release, Restore, Turn, _Hall
from ocm.protocol.limits import Limits
from ocm.protocol.link.base import Link
from ocm.protocol.link.classic import ClassicDoor, ClassicLink
from ocm.protocol.link.log import RoomLog
from ocm.protocol.link.modern import ModernLink
from ocm.protocol.room import Intent, Member, Room
from ocm.protocol.wire.classic import read_datagram, write_datagram
from tests.protocol import test_hub
from tests.protocol.test_hub_machine import LIMITS, HubMachine

HUNT = settings(
    max_examples=1000,  # the first find ends the hunt; what is drawn depends on the modules that are loaded
    stateful_step_count=40,
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # found is enough: no shrinking
    suppress_health_check=[HealthCheck.too_slow],
)

# --- the hub ------------------------------------------------------------------------------------------


class AcksBeforeCommit(Hub):
    """Lets out at once what it should keep until the journal has it."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self.release: Callable[[Release], None] = lambda what: None

    def take(self, intents: Iterable[Intent], *, now_s: float) -> Turn:
        turn = super().take(intents, now_s=now_s)
        self.committed(turn.up_to, self.release)
        return turn


class FansOutToTheSender(Hub):
    def committed(self, up_to: int, release: Callable[[Release], None]) -> None:
        def to_all(what: Release) -> None:
            release(what._replace(skip=None) if isinstance(what, Delivery) else what)

        super().committed(up_to, to_all)


class FansOutToNoSender(Hub):
    """Skips the sender even in the form that wants its echo."""

    def committed(self, up_to: int, release: Callable[[Release], None]) -> None:
        def to_others(what: Release) -> None:
            if isinstance(what, Delivery):
                authors = [link for link in what.audience.links if link.member and link.member.id == what.entry.sender]
                what = what._replace(skip=authors[0] if authors else None)
            release(what)

        super().committed(up_to, to_others)


class AcceptsALeaveTwice(Hub):
    def leave(self, member: Member, reason: Reason, *, now_s: float) -> Turn:
        member.leaving = False
        return super().leave(member, reason, now_s=now_s)


class TakesWordsOfThoseWhoLeave(Hub):
    def take(self, intents: Iterable[Intent], *, now_s: float) -> Turn:
        intents = list(intents)
        leaving = {intent.member for intent in intents if intent.member.leaving and intent.member.seated}
        for member in leaving:
            member.leaving = False
        turn = super().take(intents, now_s=now_s)
        for member in leaving:
            member.leaving = True
        return turn


class TellsTheJoinerOfItself(Hub):
    """Fans out to who is there when it is done, not to who was there at the entry's place."""

    def committed(self, up_to: int, release: Callable[[Release], None]) -> None:
        kept: list[Release] = []
        super().committed(up_to, kept.append)
        for what in kept:
            release(what)


class CountsTimeOutsTwice(Hub):
    """What ``handle_timeout`` did once: the batch in front of it was never let out."""

    def handle_timeout(self, *, now_s: float) -> Turn:
        turn = super().handle_timeout(now_s=now_s)
        self._handed_out += len(turn.records)
        return turn._replace(up_to=self._handed_out)


class FailsWhatCameLater(Hub):
    """Takes an old failure, told once more, for one of what is pending now."""

    def failed(self, up_to: int) -> list[Link]:
        return super().failed(max(up_to, self._handed_out + 1))


class LeavesAHoleInTheOrder(Hub):
    def failed(self, up_to: int) -> list[Link]:
        seqs = {hall.room: hall.room._next_seq for hall in self._halls.values()}
        turned_away = super().failed(up_to)
        for room, seq in seqs.items():
            room._next_seq = seq
        return turned_away


class ForgetsTheTimeAfterAFailure(Hub):
    """Those whose time-out was decided and taken back stay for good."""

    def _arm_again(self, members: Iterable[Member]) -> None:
        pass


class FindsTheRoomThatIsClosing(Hub):
    def join(self, link: Link, *, room: str, user: str, now_s: float) -> Turn | Refusal:
        if (hall := self._halls.get(room)) is not None:
            hall.room.is_open = True
        return super().join(link, room=room, user=user, now_s=now_s)


class ForgetsWhatIsSettledOverARestart(Hub):
    """Lost dedupe mark: what comes again after a restart is said again."""

    def restore(self, kept: Kept, restore: Restore, *, now_s: float) -> Turn:
        rooms = [
            replace(room, members=tuple(replace(member, mark=0, answers=()) for member in room.members))
            for room in kept.rooms
        ]
        return super().restore(replace(kept, rooms=tuple(rooms)), restore, now_s=now_s)


class ForgetsWhoIsKeptOverARestart(Hub):
    """Members that may be away for long have little time after a restart."""

    def restore(self, kept: Kept, restore: Restore, *, now_s: float) -> Turn:
        def restore_for_short(room: KeptRoom, member: KeptMember, log: RoomLog) -> Link | None:
            link = restore(room, member, log)
            if isinstance(link, ModernLink):
                link.is_kept = False
            return link

        return super().restore(kept, restore_for_short, now_s=now_s)


class SettlesWhatItOnlyTook(Hub):
    """PUBLISHED before the commit."""

    def take(self, intents: Iterable[Intent], *, now_s: float) -> Turn:
        turn = super().take(intents, now_s=now_s)
        for step in turn.records:
            if isinstance(step, Refused):
                super()._tell_author(self._halls[step.room], step)
            elif isinstance(step, Record) and step.entry.message_id:
                super()._tell_author(self._halls[step.room], step.entry)
        return turn

    def _tell_author(self, hall: _Hall, what: Entry | Refused) -> None: ...


class UsesUpNoIdOfWhatItRefuses(Hub):
    """A final refusal leaves no step in the journal."""

    def take(self, intents: Iterable[Intent], *, now_s: float) -> Turn:
        turn = super().take(intents, now_s=now_s)
        return turn._replace(records=[step for step in turn.records if not isinstance(step, Refused)])


class LetsAHostLeaveByADatagram(Hub):
    """Takes the words of some dialects for what they mean there."""

    def take(self, intents: Iterable[Intent], *, now_s: float) -> Turn:
        intents = list(intents)
        leaving = [intent.member for intent in intents if intent.body == b"exit" and not intent.message_id]
        turn = super().take([intent for intent in intents if intent.member not in leaving], now_s=now_s)
        gone = [step for member in leaving for step in self.leave(member, Reason.BYE, now_s=now_s).records]
        return turn._replace(records=[*turn.records, *gone], up_to=self._handed_out)


class LosesARoomThatIsEmpty(Hub):
    """A room that persists goes with a JOIN that failed."""

    def failed(self, up_to: int) -> list[Link]:
        turned_away = super().failed(up_to)
        for name, hall in list(self._halls.items()):
            if hall.room.is_empty:
                del self._halls[name]
        return turned_away


class GivesANewHostNoTime(Hub):
    """Who is away and becomes the host had its time before."""

    def _part(self, hall: _Hall, entries: list[Entry], heir: Member | None, now_s: float) -> Turn:
        return super()._part(hall, entries, hall.room.heir, now_s)


# --- the room -----------------------------------------------------------------------------------------


class LetsInWhomItWillShutOut(Room):
    """Asks of a raised room only what is written."""

    @property
    def is_modern(self) -> bool:
        return self.policy.access is Access.MODERN


class RaisesOverTheHeadsOfThoseWhoArrive(Room):
    def raise_access(self, *, time_ms: int) -> list[Entry]:
        arriving, self._arriving = self._arriving, {}
        entries = super().raise_access(time_ms=time_ms)
        self._arriving = arriving
        return entries


class HandsOverToNobody(Room):
    def apply(self, entry: Entry) -> Member | None:
        host = self.host_id
        member = super().apply(entry)
        if host in self.members or not self.members:
            return member
        self.host_id = host
        return member


class ClosesWithItsHostWhateverWasAgreed(Room):
    @property
    def is_ending(self) -> bool:
        host = self.members.get(self.host_id)
        return host is not None and host.leaving


class TakesEverybodyForConnected(Room):
    """After a restart, too."""

    def restore(self, kept: KeptRoom, *, now_s: float) -> list[Member]:
        members = super().restore(kept, now_s=now_s)
        for member in members:
            member.lost_s = None
        return members


class KeepsTheNameOfWhoNeverCame(Room):
    def forget_pending(self) -> list[Member]:
        names = dict(self._names)
        arriving = super().forget_pending()
        self._names = names
        return arriving


class KeepsTheNameOfWhoLeft(Room):
    def apply(self, entry: Entry) -> Member | None:
        names = dict(self._names)
        member = super().apply(entry)
        self._names = names
        return member


class ReservesNoName(Room):
    """Takes a name only when its JOIN is in the log, so two can ask for it in between."""

    def admit(self, name: str, *, plaintext: bool, now_s: float, is_kept: bool = False) -> Member | Refusal:
        names = self._names
        self._names = {shape: member for shape, member in names.items() if member.seated}
        member = super().admit(name, plaintext=plaintext, now_s=now_s, is_kept=is_kept)
        self._names = names | self._names
        return member


class StaysClosedAfterAFailure(Room):
    def forget_pending(self) -> list[Member]:
        is_open = self.is_open
        arriving = super().forget_pending()
        self.is_open = is_open
        return arriving


class MakesTheNewestMemberItsHost(Room):
    def apply(self, entry: Entry) -> Member | None:
        member = super().apply(entry)
        if entry.kind is Kind.JOIN:
            self.host_id = entry.sender
        return member


# --- the link and the door ----------------------------------------------------------------------------


class TakesTheAddressBeforeItAsksForTheHost(ClassicLink):
    def bind(self, address: Address) -> bool:
        if not self.bound:
            self.address = address
        return super().bind(address)


class NeverFreezesTheAddress(ClassicLink):
    def bind(self, address: Address) -> bool:
        self.bound = False
        return super().bind(address)


class NeverLearnsTheAddress(ClassicLink):
    def bind(self, address: Address) -> bool:
        self.bound = self.bound or host_key(address) == host_key(self.address)
        return self.bound


class TellsTheTokenOfAnother(ClassicLink):
    """Finishes one copy and sends it to all."""

    def finish(self, payload: bytes) -> bytes:
        first = self if self.audience is None else self.audience.links[0]
        return write_datagram(self.room, first.token if isinstance(first, ClassicLink) else b"", payload)


class LetsInForAnyRoom(ClassicDoor):
    def receive_batch(self, batch: Iterable[tuple[bytes, Address]], *, now_s: float) -> list[Intent]:
        def corrected() -> Iterator[tuple[bytes, Address]]:
            for data, address in batch:
                _, token, text = read_datagram(data) or (b"", b"", b"")
                link = self.links.get(token)
                yield (data if link is None else write_datagram(link.room, token, text)), address

        return super().receive_batch(corrected(), now_s=now_s)


# --- the hunt -----------------------------------------------------------------------------------------


class EarlyMachine(HubMachine):
    def __init__(self) -> None:
        super().__init__()
        self.hub = hub = AcksBeforeCommit(LIMITS)
        hub.release = self.release


HUBS = [
    FansOutToTheSender,
    FansOutToNoSender,
    AcceptsALeaveTwice,
    TakesWordsOfThoseWhoLeave,
    TellsTheJoinerOfItself,
    FailsWhatCameLater,
    LeavesAHoleInTheOrder,
    ForgetsTheTimeAfterAFailure,
    FindsTheRoomThatIsClosing,
    ForgetsWhatIsSettledOverARestart,
    ForgetsWhoIsKeptOverARestart,
    SettlesWhatItOnlyTook,
    UsesUpNoIdOfWhatItRefuses,
    LetsAHostLeaveByADatagram,
]
RARE: list[tuple[type[Hub], Callable[[], None]]] = [
    (CountsTimeOutsTwice, test_hub.test_a_batch_in_front_of_a_timeout_is_let_out_by_its_own_commit),
    (LosesARoomThatIsEmpty, test_hub.test_a_room_that_persists_stays_though_who_came_next_could_not_be_written_down),
    (GivesANewHostNoTime, test_hub.test_who_becomes_the_host_while_away_has_its_time_anew),
]
"""What chance meets too seldom, and the test that meets it each time."""
ROOMS = [
    KeepsTheNameOfWhoNeverCame,
    KeepsTheNameOfWhoLeft,
    ReservesNoName,
    StaysClosedAfterAFailure,
    MakesTheNewestMemberItsHost,
    LetsInWhomItWillShutOut,
    RaisesOverTheHeadsOfThoseWhoArrive,
    HandsOverToNobody,
    ClosesWithItsHostWhateverWasAgreed,
    TakesEverybodyForConnected,
]
LINKS = [
    TakesTheAddressBeforeItAsksForTheHost,
    NeverFreezesTheAddress,
    NeverLearnsTheAddress,
    TellsTheTokenOfAnother,
]
name_of = attrgetter("__name__")


def is_found(machine: type[HubMachine]) -> bool:
    """Tell whether the checks see that something is wrong, or the core itself does."""
    try:
        run_machine(machine, settings=HUNT)
    except (AssertionError, LookupError, LocalProtocolError):
        return True
    return False


def test_an_answer_before_the_commit_is_found() -> None:
    assert is_found(EarlyMachine)


@pytest.mark.parametrize("planted", HUBS, ids=name_of)
def test_a_bug_in_the_hub_is_found(planted: type[Hub]) -> None:
    class Machine(HubMachine):
        hub_class = planted

    assert is_found(Machine)


@pytest.mark.parametrize(("planted", "test"), RARE, ids=name_of)
def test_a_rare_bug_in_the_hub_is_found(
    planted: type[Hub], test: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    test()
    monkeypatch.setattr(test_hub, "Hub", planted)
    with pytest.raises(AssertionError):
        test()


@pytest.mark.parametrize("planted", ROOMS, ids=name_of)
def test_a_bug_in_the_room_is_found(planted: type[Room], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "Room", planted)
    assert is_found(HubMachine)


@pytest.mark.parametrize("planted", LINKS, ids=name_of)
def test_a_bug_in_the_link_is_found(planted: type[ClassicLink]) -> None:
    class Machine(HubMachine):
        link_class = planted

    assert is_found(Machine)


def test_a_bug_in_the_door_is_found() -> None:
    class Machine(HubMachine):
        door_class = LetsInForAnyRoom

    assert is_found(Machine)
