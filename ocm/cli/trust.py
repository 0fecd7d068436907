"""Whether a server is the one it should be: pins in addresses, servers that are known, and asking a person."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import replace
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final, cast

import ocm
from ocm.cli.faults import CommandFailed
from ocm.cli.lines import Stdin
from ocm.cli.screen import Screen
from ocm.cli.words import Words
from ocm.protocol.url import ServerUrl, parse_url

KNOWN_SERVERS: Final = "known_servers.json"
KNOWN_MAX: Final = 10_000
"""Servers that are remembered; above it the one met first is forgotten."""
_GROUP: Final = 4
_YES: Final = frozenset({"yes", "y", "はい"})


def state_home() -> Path:
    """Return this user's folder for what ocm remembers: in ``$XDG_STATE_HOME``, else ``~/.local/state`` (XDG 0.8)."""
    named = Path(os.environ.get("XDG_STATE_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".local" / "state") / "ocm"


class KnownServers:
    """Fingerprints of servers that a person said yes to, by host and port."""

    def __init__(self, path: Path, words: Words) -> None:
        """Remember in the file ``path``, which need not be there."""
        self._path = path
        self._words = words

    def find(self, url: ServerUrl) -> str | None:
        """Return the fingerprint of the server at this address, if it is known. Raises ``CommandFailed``."""
        return self._read().get(_name_of(url))

    def keep(self, url: ServerUrl, fingerprint: str) -> None:
        """Know a server from now on. Raises ``CommandFailed``."""
        known = self._read()
        known[_name_of(url)] = fingerprint
        while len(known) > KNOWN_MAX:
            del known[next(iter(known))]
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with NamedTemporaryFile("w", dir=self._path.parent, delete=False, encoding="utf-8") as file:  # mode 0600
                json.dump(known, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            os.replace(file.name, self._path)
        except OSError as error:
            raise self._failed(error.strerror) from None

    def _read(self) -> dict[str, str]:
        try:
            read: object = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise self._failed(error.strerror) from None
        except ValueError:
            raise self._failed("JSON") from None
        if not isinstance(read, dict):
            raise self._failed("JSON")
        known = cast("dict[str, object]", read)  # what JSON calls its keys is always text
        if not all(isinstance(fingerprint, str) for fingerprint in known.values()):
            raise self._failed("JSON")
        return cast("dict[str, str]", known)

    def _failed(self, detail: str | None) -> CommandFailed:
        return CommandFailed(self._words("trust.file", path=self._path, detail=detail or ""))


class Trust:
    """Settles which key the server at an address must have, before anything is said to it."""

    def __init__(self, known: KnownServers, stdin: Stdin, screen: Screen, words: Words, *, asks: bool) -> None:
        """``asks``: whether a person is there to be asked."""
        self._known = known
        self._stdin = stdin
        self._screen = screen
        self._words = words
        self._asks = asks

    def pin(self, text: str) -> str:
        """Return an address with the pin of the server that is known to be there, if any and if it has none."""
        url = parse_url(text)
        if not url.secure or url.fingerprint is not None:
            return text
        known = self._known.find(url)
        return text if known is None else str(replace(url, fingerprint=known))

    async def decide(self, text: str, error: ocm.ServerUntrusted) -> str:
        """Ask about a server that nobody vouches for; return its address with its pin.

        Raises ``CommandFailed``: it was known by another key, the person says no, or there is nobody to ask.
        """
        url, words = parse_url(text), self._words
        shown = error.fingerprint
        if url.fingerprint is not None or not shown:
            raise CommandFailed(words("trust.changed", server=_name_of(url), fingerprint=grouped(shown)))
        pinned = str(replace(url, fingerprint=shown))
        if not self._asks:
            raise CommandFailed(words("trust.nobody_asks", server=_name_of(url), url=pinned))
        self._screen.line(f"* {words('trust.unknown', server=_name_of(url))}")
        self._screen.line(f"*   {grouped(shown)}")
        self._screen.write(words("trust.ask"))
        answer = await self._stdin.line()
        if not isinstance(answer, str) or answer.strip().lower() not in _YES:
            raise CommandFailed(words("trust.refused"))
        self._known.keep(url, shown)
        return pinned


def grouped(fingerprint: str) -> str:
    """Return a fingerprint in groups that one can compare aloud."""
    return " ".join(fingerprint[at : at + _GROUP] for at in range(0, len(fingerprint), _GROUP))


def _name_of(url: ServerUrl) -> str:
    host = f"[{url.host}]" if ":" in url.host else url.host
    return f"{host}:{url.tcp_port}"


def make_private(folder: Path) -> None:
    """Make a folder for this user alone, if it can be made; who writes into it says what is wrong."""
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
