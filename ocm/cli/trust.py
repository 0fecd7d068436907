"""Whether a server is the one it should be: pins in addresses, servers that are known, and asking a person."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import replace
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final

import ocm
from ocm.api import unvouched_key
from ocm.cli.faults import CommandFailed
from ocm.cli.lines import Stdin
from ocm.cli.screen import Screen
from ocm.cli.words import Words
from ocm.protocol.url import ServerUrl, parse_url

KNOWN_SERVERS: Final = "known_servers"
"""The file's name: a line for each server, ``host:port fingerprint``."""
KNOWN_MAX: Final = 10_000
"""Servers that are remembered; above it the one met first is forgotten."""
_KNOWN_SIZE_MAX: Final = 4 * 2**20
_LINE: Final = re.compile(r"(\S+:\d+) ([0-9a-f]{64})")
_GROUP: Final = 4
_GROUPS_ON_LINE: Final = 8
_YES: Final = frozenset({"yes", "はい"})
_NO: Final = frozenset({"no", "n", "いいえ"})
_TYPED: Final = re.compile("[0-9a-f]{64}")


class Untrusted(CommandFailed):
    """A server is not, or cannot be known to be, the one it should be."""


class KnownServers:
    """Fingerprints of servers that a person said yes to, by host and port."""

    def __init__(self, path: Path, words: Words) -> None:
        """Remember in the file ``path``, which need not be there."""
        self.path = path
        self._words = words

    def find(self, url: ServerUrl) -> str | None:
        """Return the fingerprint of the server at this address, if it is known. Raises ``CommandFailed``."""
        return self._read().get(name_of(url))

    def keep(self, url: ServerUrl, fingerprint: str) -> None:
        """Know a server from now on. Raises ``CommandFailed``."""
        known = self._read() | {name_of(url): fingerprint}
        lines = [f"{name} {kept}\n" for name, kept in known.items()]
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _replace(self.path, "".join(lines[-KNOWN_MAX:]))
        except OSError as error:
            raise self._failed(error.strerror or type(error).__name__) from None

    def _read(self) -> dict[str, str]:
        try:
            with self.path.open("rb") as file:
                data = file.read(_KNOWN_SIZE_MAX + 1)
            text = data.decode()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise self._failed(error.strerror or type(error).__name__) from None
        except UnicodeDecodeError:
            raise self._failed("UTF-8") from None
        if len(data) > _KNOWN_SIZE_MAX:
            raise self._failed(self._words("trust.too_large"))
        known: dict[str, str] = {}
        for number, line in enumerate(text.split("\n"), 1):
            read = _LINE.fullmatch(line.strip())
            if read is not None:
                known[read[1]] = read[2]
            elif line.strip():  # to pass over it could be to forget a pin
                raise self._failed(self._words("trust.bad_line", number=number))
        return known

    def _failed(self, detail: str) -> CommandFailed:
        return CommandFailed(self._words("trust.file", path=self.path, detail=detail))


class Trust:
    """Settles which key the server at an address must have, before anything is said to it."""

    def __init__(self, known: KnownServers, stdin: Stdin, screen: Screen, words: Words, *, asks: bool) -> None:
        """``asks``: whether a person is there to be asked."""
        self._known = known
        self._stdin = stdin
        self._screen = screen
        self._words = words
        self._asks = asks

    async def settle(self, text: str) -> str:
        """Return the address with its pin; without one where an authority vouches, or nothing is encrypted.

        A pin in the address counts most, then what a person said before; a server of which neither is there, and for
        which nobody vouches, is asked about.

        Raises:
            Untrusted: the person says no, or nobody is there to ask.
            CommandFailed: the known servers cannot be read, or this one not be kept.
            OcmError: there is no server to look at.
        """
        url = parse_url(text)
        if not url.secure or url.fingerprint is not None:
            return text
        known = self._known.find(url)
        if known is not None:
            return str(replace(url, fingerprint=known))
        shown = await unvouched_key(text)
        if shown is None:
            return text
        await self._ask(url, shown)
        self._known.keep(url, shown)
        return str(replace(url, fingerprint=shown))

    def changed(self, text: str, error: ocm.ServerUntrusted) -> Untrusted:
        """Say that the server at the address ``text``, as it was given, has another key than it must have."""
        url, key = parse_url(text), error.fingerprint or "?"
        words, server, path = self._words, ocm.safe_text(name_of(url)), self._known.path
        if url.fingerprint is not None:
            return Untrusted(words("trust.not_pinned", server=server, fingerprint=key))
        if self._known.find(url) is not None:
            return Untrusted(words("trust.changed", server=server, fingerprint=key, path=path))
        return Untrusted(words("trust.no_authority", server=server, fingerprint=key))

    async def _ask(self, url: ServerUrl, shown: str) -> None:
        words, server = self._words, ocm.safe_text(name_of(url))
        if not self._asks:
            pinned = ocm.safe_text(str(replace(url, fingerprint=shown)))
            raise Untrusted(words("trust.nobody_asks", server=server, url=pinned))
        self._screen.tell(f"* {words('trust.unknown', server=server)}")
        for line in grouped(shown).split("\n"):
            self._screen.line(f"    {line}")
        while True:
            self._screen.write(words("trust.ask"))
            answer = await self._stdin.line()
            said = "".join(answer.split()).lower() if isinstance(answer, str) else "no"
            if said == shown or said in _YES:
                return
            if said in _NO or _TYPED.fullmatch(said):
                raise Untrusted(words("trust.refused"))
            self._screen.tell(f"* {words('trust.again')}")  # "y" may be the first letter of a message


def grouped(fingerprint: str) -> str:
    """Return a fingerprint in groups that two people can compare aloud, on two lines."""
    groups = [fingerprint[at : at + _GROUP] for at in range(0, len(fingerprint), _GROUP)]
    lines = [groups[at : at + _GROUPS_ON_LINE] for at in range(0, len(groups), _GROUPS_ON_LINE)]
    return "\n".join(" ".join(line) for line in lines)


def name_of(url: ServerUrl) -> str:
    """Return what a server is known by: ``host:port``."""
    host = f"[{url.host}]" if ":" in url.host else url.host
    return f"{host}:{url.tcp_port}"


def _replace(path: Path, text: str) -> None:
    """Write a file that is there as a whole or not at all, for its owner only. Raises ``OSError``."""
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:  # has mode 0600
        try:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(file.name)
            raise
