"""Where a server is: ``tcrp://host:port/room?udp=9001&form=plain``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, quote, unquote, urlsplit

from ocm.errors import LocalProtocolError
from ocm.protocol.control.packets import Form
from ocm.protocol.text import safe_text

TCP_PORT: Final = 12345
"""The reference program's control port, and ours."""
UDP_PORT: Final = 9001
"""The reference program's datagram port, and ours."""


@dataclass(frozen=True, slots=True)
class ServerUrl:
    """A classic server's address, as people pass it around."""

    host: str
    tcp_port: int = TCP_PORT
    udp_port: int = UDP_PORT
    room: str | None = None
    form: Form = Form.OCM

    def __str__(self) -> str:
        """Return the URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        path = "" if self.room is None else f"/{quote(self.room, safe='')}"
        form = "" if self.form is Form.OCM else f"&form={self.form.value}"
        return f"tcrp://{host}:{self.tcp_port}{path}?udp={self.udp_port}{form}"


def parse_url(text: str) -> ServerUrl:
    """Read a URL. ``tcrp://`` may be left out; ports, room and form have defaults.

    Port 0 is for servers that are to take a free one; with TCP port 0 the UDP port is 0 too, unless given.
    Raises ``LocalProtocolError`` that says what is wrong with it.
    """
    text = text.strip()
    if "://" not in text:
        text = f"tcrp://{text}"
    try:
        text.encode()  # a shell hands on bytes that are no text as lone surrogates
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except UnicodeEncodeError:
        raise LocalProtocolError("a server address is Unicode text") from None
    except ValueError as error:
        raise LocalProtocolError(f"not a server address: {safe_text(str(error))}") from None
    if parts.scheme == "tcrps":
        raise LocalProtocolError("this version speaks the classic profile only: use tcrp://")
    if parts.scheme != "tcrp":
        raise LocalProtocolError("a server address begins with tcrp://")
    if not host:
        raise LocalProtocolError("a server address names a host: tcrp://host:12345")
    if parts.username is not None or parts.fragment:
        raise LocalProtocolError("a classic server address has no user and no #fragment")
    query = parse_qs(parts.query, keep_blank_values=True)
    unknown = sorted(set(query) - {"udp", "form"})
    if unknown:
        raise LocalProtocolError("a classic server address knows ?udp= and &form= only")
    tcp_port = TCP_PORT if port is None else port
    udp_port = _port(query["udp"][-1]) if "udp" in query else UDP_PORT if tcp_port else 0
    try:
        room = unquote(parts.path.removeprefix("/"), errors="strict") or None
    except UnicodeDecodeError:
        raise LocalProtocolError("a room in a server address is UTF-8") from None
    return ServerUrl(host, tcp_port, udp_port, room, _form(query.get("form", ["ocm"])[-1]))


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) < 65536):
        raise LocalProtocolError("a port is a number from 0 to 65535")
    return int(text)


def _form(text: str) -> Form:
    try:
        return Form(text)
    except ValueError:
        raise LocalProtocolError("form is one of: " + ", ".join(form.value for form in Form)) from None
