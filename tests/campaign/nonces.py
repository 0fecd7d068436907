"""Every nonce under every key: none is used twice, by whole stories with crashes, by many packets, or behind a fork."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from typing import Final
from unittest import mock

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ocm import forks
from ocm.errors import LocalProtocolError
from ocm.protocol.session.keys import session_secrets
from ocm.protocol.session.seal import Sealer
from ocm.transport.link_model import Draws, stream_key
from tests.campaign.scenarios import play

_PLACES: Final = 1 << 20
"""Nonces of one key that are remembered as bits: those that differ from its first in no higher bit."""


@dataclass
class Used:
    """The nonces of one key."""

    first: int = -1
    bits: bytearray = field(default_factory=bytearray)
    others: set[int] = field(default_factory=set[int])

    def note(self, nonce: int) -> bool:
        """Take down a nonce; return whether it is new."""
        if self.first < 0:
            self.first = nonce
        place = nonce ^ self.first
        if place >= _PLACES:
            is_new = place not in self.others
            self.others.add(place)
            return is_new
        byte, bit = place >> 3, 1 << (place & 7)
        if byte >= len(self.bits):
            self.bits.extend(bytes(max(64, byte)))
        is_new = not self.bits[byte] & bit
        self.bits[byte] |= bit
        return is_new


@dataclass
class Nonces:
    """What anybody in this process has sealed."""

    sealed: int = 0
    twice: int = 0
    by_key: dict[bytes, Used] = field(default_factory=dict[bytes, Used])

    def note(self, used: Used, nonce: bytes) -> None:
        self.sealed += 1
        self.twice += not used.note(int.from_bytes(nonce, "big"))

    @contextlib.contextmanager
    def watching(self) -> Generator[None]:
        """Stand between ocm and its cipher."""
        nonces = self

        class Watched:
            def __init__(self, key: bytes) -> None:
                self._cipher = AESGCM(key)
                self._used = nonces.by_key.setdefault(key, Used())
                self.decrypt = self._cipher.decrypt

            def encrypt(self, nonce: bytes, data: bytes, header: bytes) -> bytes:
                nonces.note(self._used, nonce)
                return self._cipher.encrypt(nonce, data, header)

        with mock.patch("ocm.protocol.session.keys.AESGCM", Watched):
            yield


def seal_many(count: int, *, lives: int = 4, forks_per_life: int = 2) -> tuple[Nonces, int]:
    """Seal so many packets in some lives of a server and its client, and let children of a fork try to seal, too.

    Returns what was sealed, and how much of it children sealed.
    """
    nonces = Nonces()
    behind_forks = 0
    with nonces.watching():
        for life in range(lives):
            sealers = _sealers(life)
            for share in _shares(count // (lives * len(sealers)), forks_per_life + 1):
                for sealer in sealers:
                    _seal(sealer, share)
                behind_forks += _seal_in_a_child(sealers)
    return nonces, behind_forks


def seal_in_stories(numbers: Iterable[int]) -> Nonces:
    """Play stories in which servers and clients are killed and come back with what they have stored."""
    nonces = Nonces()
    with nonces.watching():
        for number in numbers:
            play(number)
    return nonces


def _sealers(life: int) -> list[Sealer]:
    """Return both ends of a session: all that stays the same from life to life is the server's key."""
    draws = Draws(stream_key(life, "life"))
    secrets = session_secrets(
        hello=draws.data(100),
        answer=draws.data(100),
        server_key=b"the server's public key, as DER",
        client_secret=draws.data(32),
        server_secret=draws.data(32),
    )
    made = [Sealer(secret, draws.data(8), randomness=draws.data) for secret in (secrets.to_server, secrets.to_client)]
    for sealer in made:
        forks.watch(sealer)
    return made


def _shares(count: int, parts: int) -> list[int]:
    return [count // parts + (part < count % parts) for part in range(parts)]


def _seal(sealer: Sealer, count: int) -> None:
    for place in range(count):
        number, _ = sealer.seal(b"\x01")
        if not place & 1023:
            assert sealer.acknowledge(number)


def _seal_in_a_child(sealers: list[Sealer]) -> int:
    """Return how many packets a forked child could seal."""
    child = os.fork()
    if child == 0:
        sealed = 0
        for sealer in sealers:
            with contextlib.suppress(LocalProtocolError):
                sealer.seal(b"\x01")
                sealed += 1
        os._exit(sealed)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)
