"""The classic door: datagrams of the three forms in, entries out as each form words them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol, assert_never

from ocm.errors import LocalProtocolError
from ocm.protocol.address import V4_SIZE, V6_SIZE, Address, host_key, peer_of
from ocm.protocol.control.packets import Form
from ocm.protocol.entry import Entry, Kind
from ocm.protocol.limits import DATAGRAM_SIZE_MAX
from ocm.protocol.link.base import Addressing, Audience, Author
from ocm.protocol.link.notices import farewell_of, notice_of, slowed_notice
from ocm.protocol.room import Intent, Member
from ocm.protocol.wire.classic import read_datagram, write_datagram

_HEADS_MAX: Final = 1024
"""Names of one room whose beginning of a datagram is kept ready."""
_MEMO: Final = b"1"
"""Begins the memo of a classic door."""
_MEMO_SIZES: Final = (34 + V4_SIZE, 34 + V6_SIZE)
"""Mark, form, SHA-256 of the token, address."""
REFERENCE_TOKEN_SIZE: Final = 36
"""Bytes of a token in the reference form: a UUID's text."""


@dataclass(frozen=True, slots=True)
class OcmForm:
    """Our own form: ``room | sender's name | text``; what the server says has an empty name."""

    room: bytes
    addressing: Addressing = Addressing.GROUP
    echoes: bool = False
    _heads: dict[str, bytes] = field(default_factory=dict[str, bytes], init=False, repr=False, compare=False)

    def encode(self, entry: Entry) -> bytes | None:
        """Word an entry; everything has words."""
        if entry.kind is Kind.TEXT:
            head = self._heads.get(entry.name)
            return (head or self._head(entry.name)) + entry.body
        return self.encode_notice(notice_of(entry))

    def encode_farewell(self, entry: Entry) -> bytes | None:
        """Tell a member why it was removed."""
        return self.encode_notice(farewell_of(entry))

    def _head(self, name: str) -> bytes:
        """Return, and keep for the next time, what stands before the text of ``name``."""
        if len(self._heads) >= _HEADS_MAX:
            self._heads.clear()
        head = self._heads[name] = write_datagram(self.room, name.encode(), b"")
        return head

    def encode_notice(self, text: str | None) -> bytes | None:
        """Word what the server says."""
        return None if text is None else write_datagram(self.room, b"", text.encode())


@dataclass(frozen=True, slots=True)
class PlainForm:
    """What most independent programs read: ``name: text``, bare. Joins and leaves have no words in it."""

    addressing: Addressing = Addressing.GROUP
    echoes: bool = False

    def encode(self, entry: Entry) -> bytes | None:
        """Word a message or the end of the room."""
        if entry.kind is Kind.TEXT:
            return entry.name.encode() + b": " + entry.body
        return self.encode_notice(notice_of(entry)) if entry.kind is Kind.CLOSED else None

    def encode_farewell(self, entry: Entry) -> bytes | None:
        """Tell a member why it was removed."""
        return self.encode_notice(farewell_of(entry))

    def encode_notice(self, text: str | None) -> bytes | None:
        """Word what the server says: without ``": "``, which stands in every message, so none can imitate it."""
        return None if text is None else b"* " + text.replace(": ", ", ").encode()


@dataclass(frozen=True, slots=True)
class ReferenceForm:
    """What the reference program reads: ``room | the receiver's own token | text``, to its sender too.

    Its messages name nobody. Classic senders' text goes out bare, as its own server does it, unless
    ``names``; a sender of another profile is named in the text.
    """

    room: bytes
    names: bool = False
    addressing: Addressing = Addressing.EACH
    echoes: bool = True

    def encode(self, entry: Entry) -> bytes | None:
        """Word a message or the end of the room: the text alone, to which each link adds its token."""
        if entry.kind is Kind.TEXT:
            return entry.body if entry.plaintext and not self.names else entry.name.encode() + b": " + entry.body
        return self.encode_notice(notice_of(entry)) if entry.kind is Kind.CLOSED else None

    def encode_farewell(self, entry: Entry) -> bytes | None:
        """Tell a member why it was removed."""
        return self.encode_notice(farewell_of(entry))

    def encode_notice(self, text: str | None) -> bytes | None:
        """Word what the server says. Nothing but the wording tells it from a member's text."""
        return None if text is None else b"* " + text.encode()


class Randomness(Protocol):
    """Where tokens come from."""

    def __call__(self, size: int, /) -> bytes:
        """Return ``size`` unpredictable bytes."""
        ...


def make_token(form: Form, randomness: Randomness) -> bytes:
    """Return a new token as the form spells it: 32 or 16 random bytes in hex, or a UUID (RFC 9562 section 5.4)."""
    match form:
        case Form.OCM:
            return randomness(32).hex().encode()
        case Form.PLAIN:
            return randomness(16).hex().encode()
        case Form.REFERENCE:
            digits = bytearray(randomness(16))
            digits[6] = digits[6] & 0x0F | 0x40  # version 4
            digits[8] = digits[8] & 0x3F | 0x80
            text = digits.hex()
            return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:])).encode()
        case _:
            assert_never(form)


class ClassicLink:
    """The door of one classic member.

    Its address is taken to be that of the TCP connection. The first valid datagram from the same host
    replaces it, then it is frozen: a right token from another port or host is dropped and counted.
    """

    __slots__ = (
        "address",
        "audience",
        "author",
        "bound",
        "dropped",
        "form",
        "is_kept",
        "kind",
        "member",
        "place",
        "plaintext",
        "room",
        "text_size_max",
        "token",
    )

    def __init__(
        self, kind: Form, *, room: str, user: str, token: bytes, address: Address, names: bool = False
    ) -> None:
        """Make the door of ``user`` in ``room``; ``address`` is the TCP peer's. See ``ReferenceForm`` for ``names``."""
        self.kind = kind
        self.room = room.encode()
        self.token = token
        self.form = _form_of(kind, self.room, names=names)
        self.address = address
        self.bound = False
        self.member: Member | None = None
        self.audience: Audience | None = None
        self.author: Author | None = None
        self.plaintext = True
        self.is_kept = False
        self.place = -1
        self.dropped = 0
        """Messages over the allowance since the last notice."""
        self.text_size_max = text_size_max(room, user, names=names)

    def bind(self, address: Address) -> bool:
        """Take ``address`` for this member's if it may still be taken; say whether it is the member's now."""
        if self.bound or host_key(address) != host_key(self.address):
            return False
        self.bound = True
        if address != self.address:
            self.address = address
            if self.audience is not None:
                self.audience.prepared = None
        return True

    def memo(self) -> bytes:
        """Return form, hash of the token and host: a token itself is kept nowhere but in memory."""
        kind = list(Form).index(self.kind)
        return _MEMO + bytes([kind]) + hashlib.sha256(self.token).digest() + peer_of(self.address)

    def finish(self, payload: bytes) -> bytes:
        """Add the receiver's own token, as the reference form wants it."""
        return write_datagram(self.room, self.token, payload)

    def notice(self, text: str) -> bytes:
        """Return the datagram that tells this member alone something."""
        payload = self.form.encode_notice(text) or b""
        return self.finish(payload) if self.form.addressing is Addressing.EACH else payload

    def take(self, entry: Entry) -> None:
        """Refuse: a classic member is spoken to in bytes."""
        raise LocalProtocolError("a classic link takes no entries")


def restore_link(memo: bytes, *, room: str, user: str, names: bool) -> tuple[bytes, ClassicLink] | None:
    """Make a door again from its ``memo``; return it and the hash of its token, which its member has to show.

    None: the memo is that of another kind of door.
    """
    if memo[:1] != _MEMO or len(memo) not in _MEMO_SIZES or memo[1] >= len(Form):
        return None
    kind, digest, address = list(Form)[memo[1]], memo[2:34], memo[34:]
    return digest, ClassicLink(kind, room=room, user=user, token=b"", address=address, names=names)


def text_size_max(room: str, user: str, *, names: bool = False) -> int:
    """Bytes of text that fit one datagram in every form: where the sender's name or any token stands in front."""
    name = len(user.encode()) + 2
    token = REFERENCE_TOKEN_SIZE
    return DATAGRAM_SIZE_MAX - 2 - len(room.encode()) - (token + name if names else max(token, name))


def _form_of(kind: Form, room: bytes, *, names: bool) -> OcmForm | PlainForm | ReferenceForm:
    if kind is Form.REFERENCE:
        return ReferenceForm(room, names)
    return OcmForm(room) if kind is Form.OCM else PlainForm()


@dataclass(slots=True)
class DoorCounters:
    """Datagrams that were not let in, and why. None of them was answered."""

    malformed: int = 0
    """Empty, or shorter than their sizes say."""
    unknown_token: int = 0
    """With a token of nobody, or none."""
    wrong_room: int = 0
    """With the token of a seat in another room."""
    wrong_address: int = 0
    """From an address that the token's seat does not have."""
    not_text: int = 0
    """With a text that is not UTF-8."""
    oversized: int = 0
    """With a text too long for a member of this name in this room."""


@dataclass(slots=True)
class ClassicDoor:
    """The classic reader of a datagram port: looks up tokens, checks addresses, hands on what members want.

    Tokens are 128 random bits or more, so a dictionary may look them up: how long a wrong one takes says
    nothing about a right one that could be used in a lifetime.
    """

    links: dict[bytes, ClassicLink] = field(default_factory=dict[bytes, ClassicLink], repr=False)
    restored: dict[bytes, ClassicLink] = field(default_factory=dict[bytes, ClassicLink], repr=False)
    """Links of members from before a restart, by the hash of a token that was not shown since."""
    counters: DoorCounters = field(default_factory=DoorCounters)

    def receive_batch(self, batch: Iterable[tuple[bytes, Address]], *, now_s: float) -> list[Intent]:
        """Return what the members that sent these datagrams want, in order. Never raises for what it reads.

        A datagram without text only shows where its sender is and that it lives.
        """
        intents: list[Intent] = []
        find, restored = self.links.get, self.restored
        for data, address in batch:
            values = read_datagram(data)
            if values is None:
                self.counters.malformed += 1
                continue
            room, token, text = values
            link = find(token)
            if link is None and restored:
                link = self.recall(token)
            if link is None:
                self.counters.unknown_token += 1
                continue
            if link.room != room:
                self.counters.wrong_room += 1
                continue
            if not (link.bound and address == link.address) and not link.bind(address):
                self.counters.wrong_address += 1
                continue
            member = link.member
            if member is None:
                self.counters.unknown_token += 1
                continue
            member.hear(now_s)
            if not text:
                continue
            if len(text) > link.text_size_max:
                self.counters.oversized += 1
                continue
            if not text.isascii():
                try:
                    text.decode()
                except UnicodeDecodeError:
                    self.counters.not_text += 1
                    continue
            intents.append(Intent(member, text))
        return intents

    def forget(self, link: ClassicLink) -> None:
        """Take a link's token out of use."""
        self.links.pop(link.token, None)
        for digest in [digest for digest, other in self.restored.items() if other is link]:
            del self.restored[digest]

    def recall(self, token: bytes) -> ClassicLink | None:
        """Return the link of a member from before a restart that shows its token for the first time since."""
        link = self.restored.pop(hashlib.sha256(token).digest(), None)
        if link is not None:
            link.token = token
            self.links[token] = link
        return link


def slowed(link: ClassicLink) -> bytes:
    """Return the notice of the messages dropped since the last one, and start counting anew."""
    dropped, link.dropped = link.dropped, 0
    return link.notice(slowed_notice(dropped))
