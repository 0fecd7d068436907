"""Members without a socket: the server, or the program it is embedded in, sits in a room itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ocm.errors import LocalProtocolError, SendRefused
from ocm.inbox import Inbox, InboxReader
from ocm.protocol.address import Address
from ocm.protocol.entry import Entry, Kind, Reason
from ocm.protocol.events import Event, MemberJoined, MemberLeft, Message, Person, Removed, RoomClosed
from ocm.protocol.link.base import Addressing, Audience
from ocm.protocol.link.classic import REFERENCE_TOKEN_SIZE, text_size_max
from ocm.protocol.room import Intent, Member


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
        self._inbox = inbox

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


def _event_of(entry: Entry) -> Event | None:
    person = Person(entry.name)
    match entry.kind:
        case Kind.TEXT:
            return Message(person, entry.body.decode(), entry.seq)
        case Kind.JOIN:
            return MemberJoined(person)
        case Kind.LEAVE:
            return MemberLeft(person, Reason(entry.body.decode()))
        case Kind.CLOSED:
            return None  # told by ``end``
