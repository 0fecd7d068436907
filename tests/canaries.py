"""Secrets that can be found wherever they get to, and the search for them in all that the suite writes.

``make canaries`` runs the suite with every secret of 32 bytes marked, in this process and in the programs that tests
start, and looks for the mark in everything that tests and programs print and log: see ``tests/conftest.py``.
"""

from __future__ import annotations

import asyncio.subprocess
import itertools
import os
import secrets
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from ocm.transport.link_model import Draws

MARK: Final = b"\xc4\x9a\x7e\x01\xca\xfe"
"""Begins every secret, three times over: in hex, too, it is found."""
VARIABLE: Final = "CANARIES"
"""Of the environment: where it is set, secrets are marked."""
SECRET_SIZE: Final = 32
_KEY: Final = "PRIVATE KEY"
"""Begins a key in PEM."""
_PLANTED: Final = Path(__file__).with_name("planted")
"""Holds the ``sitecustomize.py`` that marks the secrets of programs."""


needs_unmarked = pytest.mark.skipif(VARIABLE in os.environ, reason="it draws what is not marked, or prints marks")


def traces(text: str) -> list[str]:
    """Return what of secrets is to be seen in a text, spelled in any of these ways."""
    spelled = {MARK.hex(), MARK.hex().upper(), repr(MARK)[2:-1], MARK.decode("utf-8", "replace"), _KEY}
    return sorted(secret for secret in spelled if secret in text)


def marked(data: bytes) -> bytes:
    """Mark a secret, of which the beginning and the end stay as they were drawn; leave what is none."""
    return data[:4] + MARK * 3 + data[22:] if len(data) == SECRET_SIZE else data


@dataclass
class Search:
    """What was marked, and what was looked at."""

    made: int = 0
    looked_at: int = 0
    """Characters."""
    programs: int = 0
    """Pieces of what programs wrote."""
    hits: list[str] = field(default_factory=list[str])

    def look(self, where: str, text: str) -> None:
        """Look for secrets in a text."""
        self.looked_at += len(text)
        self.hits += [f"{where}: {trace}" for trace in traces(text)]

    def plant(self) -> None:
        """Mark the secrets of this process, and of the programs it starts, at whose output it looks."""
        draw, token_bytes = Draws.data, secrets.token_bytes

        def data(draws: Draws, size: int) -> bytes:
            self.made += size == SECRET_SIZE
            return marked(draw(draws, size))

        def random_bytes(size: int | None = None) -> bytes:
            self.made += size == SECRET_SIZE
            return marked(token_bytes(size))

        patch = pytest.MonkeyPatch()  # for good
        patch.setattr(Draws, "data", data)
        patch.setattr(secrets, "token_bytes", random_bytes)
        paths = [str(_PLANTED), str(_PLANTED.parent.parent), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
        self._watch_programs(patch)

    def _watch_programs(self, patch: pytest.MonkeyPatch) -> None:
        """Look at what comes through pipes, and from terminals."""
        pipe_data_received: Callable[..., None] = asyncio.subprocess.SubprocessStreamProtocol.pipe_data_received
        communicate: Callable[..., Sequence[Any]] = getattr(subprocess.Popen, "communicate")  # noqa: B009
        read = os.read

        def received(reader: Any, fd: int, data: bytes) -> None:
            self._look_at_program(data)
            pipe_data_received(reader, fd, data)

        def communicated(process: Any, *arguments: Any, **named: Any) -> Sequence[Any]:
            written = communicate(process, *arguments, **named)
            for one in written:
                self._look_at_program(one)
            return written

        def came(fd: int, size: int) -> bytes:
            data = read(fd, size)
            self._look_at_program(data)
            return data

        patch.setattr(asyncio.subprocess.SubprocessStreamProtocol, "pipe_data_received", received)
        patch.setattr(subprocess.Popen, "communicate", communicated)
        patch.setattr(os, "read", came)

    def _look_at_program(self, written: bytes | str | None) -> None:
        if written:
            self.programs += 1
            text = written if isinstance(written, str) else written.decode("utf-8", "replace")
            self.look("a program", text)


class Watch:
    """A pytest plugin: looks at all that is written for a test, and says at the end what was found."""

    def __init__(self) -> None:
        self.search = Search()
        self.search.plant()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for title, text in report.sections:
            self.search.look(f"{report.nodeid} ({title})", text)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        search = self.search
        terminalreporter.section("canaries")
        for hit in itertools.islice(search.hits, 50):
            terminalreporter.line(hit)
        terminalreporter.line(
            f"{search.made} secrets marked here, {search.looked_at} characters looked at, "
            f"{search.programs} pieces of them by programs: {len(search.hits)} hits"
        )

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.search.hits or not self.search.made or not self.search.programs:
            session.exitstatus = 3
