"""What the hub asks of a member's door, whatever profile or dialect is spoken behind it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from ocm.protocol.address import Address
from ocm.protocol.entry import Entry, Refused
from ocm.protocol.room import Intent, Member


class Addressing(Enum):
    """How what a form encodes reaches the members that share the form."""

    GROUP = "the same bytes to all of them, in one call"
    EACH = "each link finishes its own copy"
    LOCAL = "no bytes: each link is handed the entry"
    PULL = "no bytes yet: each link is told how far the log goes, and reads it at its own pace"


class LinkForm(Hashable, Protocol):
    """How a set of members is spoken to. Links with equal forms get what one ``encode`` made."""

    @property
    def addressing(self) -> Addressing:
        """How the encoded bytes reach the members."""
        ...

    @property
    def echoes(self) -> bool:
        """Whether members hear their own messages."""
        ...

    def encode(self, entry: Entry) -> bytes | None:
        """Return what members of this form are sent for ``entry``; None where the form has no words for it."""
        ...

    def encode_farewell(self, entry: Entry) -> bytes | None:
        """Return what a member is sent about its own removal, of which ``entry`` tells the others."""
        ...


class Author(Protocol):
    """A member whose messages have ids: it is told what becomes of each (TCRP/2 section 6)."""

    def taken(self, intent: Intent) -> None:
        """Hear that a message, or its refusal for good, is on its way into the journal."""
        ...

    def deferred(self, intent: Intent, status: int, wait_s: float) -> None:
        """Hear that a message is not taken: why (``session.publishing.Status``), and the seconds until it may be."""
        ...

    def settled(self, what: Entry | Refused) -> None:
        """Hear that the journal has it."""
        ...

    def failed(self) -> None:
        """Hear that the journal has nothing of what was taken and not settled."""
        ...


class Link(Protocol):
    """One member's door."""

    place: int
    """Where the audience keeps this link; the audience's own note."""
    audience: Audience | None
    """The audience the link is in, while its member is seated."""
    member: Member | None
    """Whose door this is, once the hub has reserved a place."""
    author: Author | None
    """Who is told of messages with ids; None where the profile has none."""

    @property
    def plaintext(self) -> bool:
        """Whether what is said through this door crosses the network unsealed."""
        ...

    @property
    def is_kept(self) -> bool:
        """Whether the member may be away for long and come back to this door."""
        ...

    def memo(self) -> bytes:
        """Return what is needed to make this door again after a restart; empty: it cannot be."""
        ...

    @property
    def form(self) -> LinkForm:
        """How this member is spoken to."""
        ...

    @property
    def address(self) -> Address:
        """Where datagrams go; empty for a member without a socket."""
        ...

    def finish(self, payload: bytes) -> bytes:
        """Make this member's own copy of what its form encoded (``Addressing.EACH``)."""
        ...

    def take(self, entry: Entry) -> None:
        """Take an entry as it is (``Addressing.LOCAL``)."""
        ...


@dataclass(frozen=True, slots=True)
class SilentForm:
    """No words for anything."""

    addressing: Addressing = Addressing.LOCAL
    echoes: bool = False

    def encode(self, entry: Entry) -> bytes | None:
        """Say nothing."""
        return None

    def encode_farewell(self, entry: Entry) -> bytes | None:
        """Say nothing."""
        return None


class Departed:
    """The door of a member that is gone and cannot come back: it leads nowhere until the room's log says so."""

    plaintext = False
    is_kept = False

    def __init__(self) -> None:
        """Lead nowhere."""
        self.form = SilentForm()
        self.address: Address = b""
        self.place = -1
        self.audience: Audience | None = None
        self.member: Member | None = None
        self.author: Author | None = None

    def memo(self) -> bytes:
        """Return nothing: it cannot be made again."""
        return b""

    def finish(self, payload: bytes) -> bytes:
        """Return what it was given."""
        return payload

    def take(self, entry: Entry) -> None:
        """Hear nothing."""


class Audience:
    """The members of one room that share one form: those to whom the same encoded bytes go.

    ``prepared`` belongs to the driver: what it made of the addresses, forgotten whenever they change.
    """

    __slots__ = ("form", "links", "prepared")

    def __init__(self, form: LinkForm) -> None:
        """Start empty."""
        self.form = form
        self.links: list[Link] = []
        self.prepared: Any = None

    def add(self, link: Link) -> None:
        """Let a link in."""
        link.audience = self
        link.place = len(self.links)
        self.links.append(link)
        self.prepared = None

    def discard(self, link: Link) -> None:
        """Let a link go; the last one takes its place."""
        last = self.links.pop()
        if last is not link:
            self.links[link.place] = last
            last.place = link.place
        link.audience = None
        self.prepared = None
