"""Which profile a new connection speaks, by its first bytes (TCRP/2 section 1)."""

from __future__ import annotations

from enum import Enum
from typing import Final

_HANDSHAKE: Final = b"\x16\x03"
"""TLS begins with a record of type handshake and version 3 (RFC 8446 section 5.1)."""
_CLIENT_HELLO: Final = 1
DECIDED: Final = 6
"""So many bytes always decide."""


class Profile(Enum):
    """What a connection speaks."""

    CLASSIC = "classic"
    TLS = "tls"


def sniff(data: bytes) -> Profile | None:
    """Return what a connection that begins with ``data`` speaks; None: so few bytes do not say.

    A classic header with a room name of 22 bytes begins like TLS, but its operation would have to be 3 and its size
    field begin with a 1 in the third byte: no operation 3 and no such size exist.
    """
    if not _HANDSHAKE.startswith(data[:2]) or not data:
        return Profile.CLASSIC if data else None
    if len(data) < DECIDED:
        return None
    is_tls = data[3:5] != b"\0\0" and data[5] == _CLIENT_HELLO
    return Profile.TLS if is_tls else Profile.CLASSIC
