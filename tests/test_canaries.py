"""Secrets and texts stay where they belong: nothing of them is in a log, on a screen, in an error or in a ``repr``."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import ocm
from ocm.testing import Network
from ocm.transport.link_model import Draws
from tests import canaries
from tests.canaries import MARK, traces

WORD = "canary-word-5fd31c"
TEXT = "canary-text-8a02e7"
URL = "tcrps://[::]:12345"


@pytest.fixture
def marked(monkeypatch: pytest.MonkeyPatch) -> None:
    counter = itertools.count(1)

    def data(self: Draws, size: int) -> bytes:
        unique = next(counter).to_bytes(4, "big")
        return (unique + MARK * 6)[:size] if size == 32 else (unique * 4)[:size]  # others are ids and challenges

    monkeypatch.setattr(Draws, "data", data)


def found(text: str) -> list[str]:
    """Return what is to be seen of secrets, or of what is said."""
    return [*traces(text), *(word for word in (WORD,) if word in text)]


def reprs() -> str:
    """Return how every object of ours shows itself."""
    ours = [one for one in gc.get_objects() if type(one).__module__.startswith("ocm.")]
    return "\n".join(repr(one) for one in ours if not isinstance(one, Callable))  # type: ignore[arg-type]


async def _live(seen: list[str]) -> None:
    """A life with everything that makes programs talk: refusals, lost connections, junk, a kick, a failing program."""

    def authorize(knock: ocm.Knock) -> bool:
        return knock.password == WORD or knock.creates

    async with ocm.serve(URL, classic="on", authorize=authorize) as server:
        assert server.classic_url is not None
        policy = ocm.Policy(ocm.Access.MIXED)
        async with (
            ocm.connect(server.url, user="aiko", password=WORD) as aiko,
            ocm.connect(server.url, user="bob", password=WORD) as bob,
            ocm.connect(server.classic_url, user="carl", password=WORD) as carl,
            aiko.create("lobby", policy=policy) as hosted,
            bob.join("lobby") as room,
            carl.join("lobby") as plain,
        ):
            for one in (hosted, room, plain):
                await one.send(TEXT)
            seen.append(reprs())
            for url, user in ((server.url, "dora"), (server.url, "aiko"), (server.classic_url, "aiko")):
                try:
                    async with ocm.connect(url, user=user, password="no" + WORD) as other, other.join("lobby"):
                        pass
                except ocm.OcmError as error:
                    seen.append(f"{error!r} {error}")
            pinned = server.url.replace(server.fingerprint or "", "00" * 32)
            try:
                async with ocm.connect(pinned, user="eve", password=WORD) as eve, eve.join("lobby"):
                    pass
            except ocm.ServerUntrusted as error:
                seen.append(f"{error!r} {error}".replace(error.fingerprint, ""))
            await hosted.kick("bob")
            with contextlib.suppress(ocm.SendRefused):
                await room.send(TEXT)
            await asyncio.sleep(1)
            seen.append(reprs())


@pytest.mark.usefixtures("marked")
def test_secrets_and_texts_stay_in(
    network: Network, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    seen: list[str] = []
    network.at(0.5, network.move, "bob")
    network.run(_live(seen))
    written = capfd.readouterr()
    output = "\n".join([caplog.text, written.out, written.err, str(network.timeline)])
    assert found(output) == []
    assert TEXT not in output
    assert [trace for text in seen for trace in found(text)] == []


@pytest.mark.usefixtures("marked")
def test_the_search_finds_what_it_looks_for() -> None:
    secret = Draws(1).data(32)
    for spelled in (secret.hex(), secret.hex().upper(), repr(secret), f"password {WORD}"):
        assert found(spelled)


def test_the_search_of_the_suite_counts_what_it_finds() -> None:
    search = canaries.Search()
    secret = canaries.marked(bytes(range(32)))
    assert secret[:4] + secret[22:] == bytes([*range(4), *range(22, 32)])
    for text in (f"token {secret.hex()}", f"got {secret!r}", secret.decode("utf-8", "replace"), "-BEGIN PRIVATE KEY-"):
        before = len(search.hits)
        search.look("here", text)
        assert search.hits[before:] != [], text
    search.look("here", f"an id {canaries.marked(bytes(16)).hex()}")
    assert len(search.hits) == 4


@canaries.needs_unmarked
def test_programs_that_the_suite_starts_mark_their_secrets() -> None:
    planted = Path(__file__).with_name("planted")
    command = [
        sys.executable,
        "-c",
        "import secrets; print(secrets.token_bytes(32).hex(), secrets.token_bytes(16).hex())",
    ]
    for given, count in (({canaries.VARIABLE: "1"}, 1), ({}, 0)):
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(planted), **given}
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert len(traces(run.stdout)) == count
