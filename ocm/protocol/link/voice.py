"""The client's end of a classic door: text to datagrams, datagrams to what was said."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, TypeAlias

from ocm.protocol.control.packets import Form
from ocm.protocol.link.classic import text_size_max
from ocm.protocol.link.notices import Notice, Removed, RoomClosed, Slowed, read_notice
from ocm.protocol.wire.classic import read_datagram, write_datagram


@dataclass(frozen=True, slots=True)
class Said:
    """Somebody said something; ``name`` is None where the form does not say who."""

    name: str | None
    text: str


Heard: TypeAlias = Said | Notice

_PLAIN_NOTICE: Final = "* "
"""Begins what our server says in the plain form, with the first ``": "`` worded as ``", "``."""


@dataclass(frozen=True, slots=True)
class Voice:
    """How one member speaks and hears, in one form."""

    form: Form
    room: str
    user: str
    token: bytes = field(repr=False)

    @property
    def echoes(self) -> bool:
        """Whether the server sends our own messages back."""
        return self.form is Form.REFERENCE

    @property
    def text_size_max(self) -> int:
        """Bytes of text that fit a datagram on the way up, and on the way down to every member."""
        up = 4094 - len(self.room.encode()) - len(self.token)
        return min(up, text_size_max(self.room, self.user))

    def encode(self, text: bytes) -> bytes:
        """Return the datagram that says ``text``; the caller keeps to ``text_size_max``."""
        return write_datagram(self.room.encode(), self.token, text)

    def decode(self, data: bytes) -> Heard | None:
        """Return what a datagram of the server says, or None when it is not meant for us. Never raises."""
        if self.form is Form.PLAIN:
            return _plain(data.decode(errors="replace"))
        values = read_datagram(data)
        if values is None:
            return None
        room, field_two, raw = values
        if room != self.room.encode():
            return None
        text = raw.decode(errors="replace")
        if self.form is Form.REFERENCE:
            return Said(None, text) if field_two == self.token else None
        if not field_two:
            return read_notice(text)
        return Said(field_two.decode(errors="replace"), text)


def _plain(line: str) -> Heard:
    if line.startswith(_PLAIN_NOTICE):
        notice = read_notice(line.removeprefix(_PLAIN_NOTICE).replace(", ", ": ", 1))
        if isinstance(notice, RoomClosed | Removed | Slowed):
            return notice
    name, colon, text = line.partition(": ")
    return Said(name, text) if colon else Said(None, line)
