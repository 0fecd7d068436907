"""What the hub asks of a member's door, whatever profile or dialect is spoken behind it."""

from __future__ import annotations

from collections.abc import Hashable
from enum import Enum
from typing import Any, Protocol

from ocm.protocol.address import Address
from ocm.protocol.entry import Entry
from ocm.protocol.room import Member


class Addressing(Enum):
    """How what a form encodes reaches the members that share the form."""

    GROUP = "the same bytes to all of them, in one call"
    EACH = "each link finishes its own copy"
    LOCAL = "no bytes: each link is handed the entry"


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


class Link(Protocol):
    """One member's door."""

    place: int
    """Where the audience keeps this link; the audience's own note."""
    audience: Audience | None
    """The audience the link is in, while its member is seated."""
    member: Member | None
    """Whose door this is, once the hub has reserved a place."""

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
