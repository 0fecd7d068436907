"""Members without a socket: the server, or the program it is embedded in, sits in a room itself."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ocm.errors import LocalProtocolError, OcmError, RoomRefused, SendRefused
from ocm.inbox import Inbox, InboxReader
from ocm.protocol.address import Address
from ocm.protocol.entry import Access, Entry, Kind, Policy, Reason, Refusal
from ocm.protocol.events import Event, MemberJoined, MemberLeft, Message, Person, PolicyChanged, Removed, RoomClosed
from ocm.protocol.hub import Farewell, Hub, Release, Seating, Turn
from ocm.protocol.limits import Limits
from ocm.protocol.link.base import Addressing, Audience, Author, Link
from ocm.protocol.link.classic import REFERENCE_TOKEN_SIZE, Randomness, text_size_max
from ocm.protocol.names import room_name
from ocm.protocol.reception import LOG_ID_SIZE, REASONS
from ocm.protocol.room import Intent, Member
from ocm.server.gatekeeper import Gatekeeper, why_not


@dataclass(frozen=True, slots=True)
class LocalForm:
    """No bytes at all: entries are handed over as they are."""

    addressing: Addressing = Addressing.LOCAL
    echoes: bool = False

    def encode(self, entry: Entry) -> bytes | None:
        """Say that every entry is of interest."""
        return b""

    def encode_farewell(self, entry: Entry) -> bytes | None:
        """Say nothing: the link hears of its end by ``LocalLink.end``."""
        return None


class LocalLink:
    """The door of a member without a socket: entries become events of its inbox."""

    def __init__(self, inbox: Inbox) -> None:
        """Hand entries to ``inbox``."""
        self.form = LocalForm()
        self.address: Address = b""
        self.place = -1
        self.audience: Audience | None = None
        self.member: Member | None = None
        self.author: Author | None = None
        self.plaintext = False
        self.is_kept = False
        self._inbox = inbox

    def memo(self) -> bytes:
        """Return nothing: the program that sits here begins anew when it does."""
        return b""

    def finish(self, payload: bytes) -> bytes:
        """Refuse: there are no bytes."""
        raise LocalProtocolError("a local link sends no bytes")

    def take(self, entry: Entry) -> None:
        """Turn an entry into an event."""
        event = _event_of(entry)
        if event is not None:
            self._inbox.put(event)

    def end(self, entry: Entry) -> None:
        """Hear that the member is gone."""
        reason = Reason(entry.body.decode())
        if entry.kind is Kind.CLOSED:
            self._inbox.close(RoomClosed(reason))
        else:
            self._inbox.close(None if reason is Reason.BYE else Removed(reason))


class LocalMember:
    """A seat in a room of the server this program runs: ``async with server.create(...) as room``.

    It hears and says what every member does, never goes idle, and is a person like any other to the rest.
    """

    def __init__(
        self,
        room: str,
        user: str,
        link: LocalLink,
        inbox: Inbox,
        *,
        say: Callable[[Intent], float | None],
        leave: Callable[[Member], None],
        members: Callable[[str], list[str]],
    ) -> None:
        """Made by ``Server.enter``: the callables are the server's."""
        self.name = room
        """The room's name."""
        self.user = user
        """Our own name in it."""
        self._link = link
        self._inbox = inbox
        self._say = say
        self._leave = leave
        self._members = members
        names = text_size_max(room, user, names=True)
        self._text_size_max = names - max(0, 64 - REFERENCE_TOKEN_SIZE)

    async def send(self, text: str) -> None:
        """Say ``text`` to the room.

        Raises:
            SendRefused: ``empty``, ``too_large``, ``not_text``, ``closed``, or ``rate`` with ``retry_after_s``.
        """
        try:
            body = text.encode()
        except UnicodeEncodeError:
            raise SendRefused("not_text") from None
        if not body:
            raise SendRefused("empty")
        if len(body) > self._text_size_max:
            raise SendRefused("too_large")
        member = self._link.member
        if member is None:
            raise SendRefused("closed")
        wait_s = self._say(Intent(member, body))
        if wait_s is not None:
            raise SendRefused("rate", retry_after_s=wait_s) if wait_s else SendRefused("closed")

    def members(self) -> list[str]:
        """Return the names of those in the room, in the order of joining."""
        return self._members(self.name)

    async def leave(self) -> None:
        """Leave; a host takes the room along. Idempotent."""
        if self._link.member is not None:
            self._leave(self._link.member)
        self._inbox.close()

    def __aiter__(self) -> InboxReader:
        """Iterate over the room's events; one iterator at a time."""
        return self._inbox.read()

    async def __aenter__(self) -> LocalMember:
        """Be in the room."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave."""
        await self.leave()


class LocalDesk:
    """Everybody without a socket."""

    def __init__(
        self,
        hub: Hub,
        limits: Limits,
        *,
        gatekeeper: Gatekeeper,
        randomness: Randomness,
        submit: Callable[[Turn], None],
    ) -> None:
        """Begin without anybody. ``submit`` takes each turn to the journal."""
        self._hub = hub
        self._limits = limits
        self._gatekeeper = gatekeeper
        self._randomness = randomness
        self._submit = submit
        self._entering: dict[Link, asyncio.Future[None]] = {}
        self._stopping = False
        self._loop = asyncio.get_running_loop()

    async def enter(self, room: str, user: str, *, create: bool, policy: Policy) -> LocalMember:
        """Sit in a room without a socket; ``policy`` is that of a room that is made.

        Raises:
            RoomRefused: as a client would be refused.
            LocalProtocolError: a name cannot be one.
        """
        try:
            room_name(room.encode(), size_max=self._limits.room_size_max)
        except (OcmError, UnicodeEncodeError) as error:
            raise LocalProtocolError(why_not(error)) from None
        self._gatekeeper.check_user(user)
        if self._stopping:
            raise _refused(Refusal.UNAVAILABLE)
        inbox = Inbox(self._limits.events_max)
        link = LocalLink(inbox)
        now_s = self._loop.time()
        if create:
            log_id = self._randomness(LOG_ID_SIZE)
            turn = self._hub.create(link, room=room, user=user, now_s=now_s, policy=policy, log_id=log_id)
        else:
            turn = self._hub.join(link, room=room, user=user, now_s=now_s)
        if isinstance(turn, Refusal):
            raise _refused(turn)
        if link.member is not None:
            link.member.hear(math.inf)
        seated = self._entering[link] = self._loop.create_future()
        self._submit(turn)
        await seated
        return LocalMember(room, user, link, inbox, say=self._say, leave=self._dismiss, members=self._members_of)

    def release(self, release: Release) -> None:
        """Take what the hub lets out for a member without a socket."""
        match release:
            case Seating(link, _):
                waiting = self._entering.pop(link)
                if not waiting.done():
                    waiting.set_result(None)
                elif link.member is not None:
                    self._loop.call_soon(self._dismiss, link.member)  # nobody waits for the seat any more
            case Farewell(link, _, _, entry) if isinstance(link, LocalLink):
                link.end(entry)
            case _:
                pass  # of one who departed before a restart

    def failed(self, turned_away: Iterable[Link]) -> None:
        """Hear that the journal failed, and whom the hub has turned away."""
        for link in turned_away:
            waiting = self._entering.pop(link, None)
            if waiting is not None:
                _turn_away(waiting)

    def stop(self) -> None:
        """Let nobody in any more; who waits already may still be."""
        self._stopping = True

    def abort(self) -> None:
        """Turn away who waits still."""
        for waiting in self._entering.values():
            _turn_away(waiting)
        self._entering.clear()

    def _say(self, intent: Intent) -> float | None:
        """Take what a local member says; return None, or the seconds to wait (0: waiting does not help)."""
        turn = self._hub.take([intent], now_s=self._loop.time())
        self._submit(turn)
        return turn.refusals[0].wait_s if turn.refusals else None

    def _dismiss(self, member: Member) -> None:
        self._submit(self._hub.leave(member, Reason.BYE, now_s=self._loop.time()))

    def _members_of(self, room: str) -> list[str]:
        return [member.name for member in self._hub.members(room)]


def _refused(why: Refusal) -> RoomRefused:
    return RoomRefused(int(why), REASONS[why])


def _turn_away(waiting: asyncio.Future[None]) -> None:
    """Tell who waits for a seat that there is none."""
    if not waiting.done():
        waiting.set_exception(_refused(Refusal.UNAVAILABLE))


def _event_of(entry: Entry) -> Event | None:
    person = Person(entry.name)
    match entry.kind:
        case Kind.TEXT:
            return Message(person, entry.body.decode(), entry.seq)
        case Kind.JOIN:
            return MemberJoined(person)
        case Kind.LEAVE:
            return MemberLeft(person, Reason(entry.body.decode()))
        case Kind.POLICY:
            return PolicyChanged(Access(entry.body.decode()))
        case Kind.CLOSED:
            return None  # told by ``end``
