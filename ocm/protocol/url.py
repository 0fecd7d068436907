"""Where a server is: ``tcrps://host:port/room#fp=...``; unencrypted ``tcrp://host:port/room?udp=9001&form=plain``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlsplit

from ocm.errors import LocalProtocolError
from ocm.protocol.control.packets import Form
from ocm.protocol.text import safe_text

TCP_PORT: Final = 12345
"""The reference program's control port, and ours."""
UDP_PORT: Final = 9001
"""The reference program's datagram port, and ours."""
MODERN: Final = "tcrps"
CLASSIC: Final = "tcrp"
_FINGERPRINT: Final = re.compile("[0-9a-f]{64}")
_CONTROL: Final = re.compile("[\0-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class ServerUrl:
    """A server's address, as people pass it around."""

    host: str
    tcp_port: int = TCP_PORT
    udp_port: int = UDP_PORT
    """Of the classic profile; a modern server tells its own."""
    room: str | None = None
    form: Form = Form.OCM
    """Of the classic profile."""
    secure: bool = False
    """Whether it is TCRP/2, encrypted (``tcrps``), and nothing else."""
    fingerprint: str | None = None
    """SHA-256 of the server's public key, in lowercase hex, where the address pins it (``tcrps`` only)."""

    def __str__(self) -> str:
        """Return the URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        path = "" if self.room is None else f"/{quote(self.room, safe='')}"
        if self.secure:
            pin = "" if self.fingerprint is None else f"#fp={self.fingerprint}"
            return f"{MODERN}://{host}:{self.tcp_port}{path}{pin}"
        form = "" if self.form is Form.OCM else f"&form={self.form.value}"
        return f"{CLASSIC}://{host}:{self.tcp_port}{path}?udp={self.udp_port}{form}"


def parse_url(text: str) -> ServerUrl:
    """Read a URL. ``tcrps://`` may be left out; ports, room and form have defaults.

    Port 0 is for servers that are to take a free one; with TCP port 0 the UDP port is 0 too, unless given.
    Raises ``LocalProtocolError`` that says what is wrong with it.
    """
    text = text.strip()
    if _CONTROL.search(text):  # urlsplit passes over some of them
        raise LocalProtocolError("a server address has no control characters")
    if "://" not in text:
        text = f"{MODERN}://{text}"
    try:
        text.encode()  # a shell hands on bytes that are no text as lone surrogates
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except UnicodeEncodeError:
        raise LocalProtocolError("a server address is Unicode text") from None
    except ValueError as error:
        raise LocalProtocolError(f"not a server address: {safe_text(str(error))}") from None
    if parts.scheme not in {MODERN, CLASSIC}:
        raise LocalProtocolError("a server address begins with tcrps://, or tcrp:// if it is not encrypted")
    if not host:
        raise LocalProtocolError(f"a server address names a host: {parts.scheme}://host:12345")
    if parts.username is not None:
        raise LocalProtocolError("a server address has no user")
    tcp_port = TCP_PORT if port is None else port
    try:
        room = unquote(parts.path.removeprefix("/"), errors="strict") or None
    except UnicodeDecodeError:
        raise LocalProtocolError("a room in a server address is UTF-8") from None
    if parts.scheme == MODERN:
        if parts.query:
            raise LocalProtocolError("an encrypted server address has no ?...: that belongs to tcrp://")
        udp_port = UDP_PORT if tcp_port else 0
        return ServerUrl(host, tcp_port, udp_port, room, secure=True, fingerprint=_pin(parts.fragment))
    return _classic(parts, host, tcp_port, room)


def _classic(parts: SplitResult, host: str, tcp_port: int, room: str | None) -> ServerUrl:
    if parts.fragment:
        raise LocalProtocolError("an unencrypted server address has no #...: there is nothing to pin")
    query = parse_qs(parts.query, keep_blank_values=True)
    if set(query) - {"udp", "form"}:
        raise LocalProtocolError("an unencrypted server address knows ?udp= and &form= only")
    udp_port = _port(query["udp"][-1]) if "udp" in query else UDP_PORT if tcp_port else 0
    return ServerUrl(host, tcp_port, udp_port, room, _form(query.get("form", ["ocm"])[-1]))


def _pin(fragment: str) -> str | None:
    if not fragment:
        return None
    name, equals, value = fragment.partition("=")
    if name != "fp" or not equals or not _FINGERPRINT.fullmatch(value.lower()):
        raise LocalProtocolError("what follows # in a server address is fp= and 64 hex digits")
    return value.lower()


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) < 65536):
        raise LocalProtocolError("a port is a number from 0 to 65535")
    return int(text)


def _form(text: str) -> Form:
    try:
        return Form(text)
    except ValueError:
        raise LocalProtocolError("form is one of: " + ", ".join(form.value for form in Form)) from None
