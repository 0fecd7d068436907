"""The key schedule of TCRP/2: from what travelled inside TLS to the key of one packet number.

``HKDF`` is RFC 5869 with SHA-256. Nothing here is random: secrets are arguments.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

SECRET_SIZE: Final = 32
"""Bytes of each side's secret, and of every secret of the schedule."""
IV_SIZE: Final = 12
EPOCH_BITS: Final = 20
"""The epoch of a packet is its number without its last so many bits."""


class Direction(Enum):
    """Who seals."""

    TO_SERVER = "c2s"
    TO_CLIENT = "s2c"


@dataclass(frozen=True, slots=True)
class SessionSecrets:
    """The first secret of each direction."""

    to_server: bytes = field(repr=False)
    to_client: bytes = field(repr=False)


def session_secrets(
    *, hello: bytes, answer: bytes, server_key: bytes, client_secret: bytes, server_secret: bytes
) -> SessionSecrets:
    """Derive the secrets of a session.

    Args:
        hello: the HELLO.0 record as it was sent, header and all.
        answer: the HELLO.1 record as it was sent.
        server_key: the server's public key of the TLS certificate, as DER of its SubjectPublicKeyInfo.
        client_secret: 32 random bytes of the client, from HELLO.0.
        server_secret: 32 random bytes of the server, from HELLO.1.
    """
    said = transcript_hash(hello=hello, answer=answer, server_key=server_key)
    extracted = extract(said, client_secret, server_secret)
    return SessionSecrets(*(_expand(extracted, f"tcrp2 {way.value} secret", SECRET_SIZE) for way in Direction))


def transcript_hash(*, hello: bytes, answer: bytes, server_key: bytes) -> bytes:
    """Return what both sides saw, in 32 bytes: of another conversation, or with another server, nothing opens."""
    return hashlib.sha256(b"tcrp2" + hello + answer + hashlib.sha256(server_key).digest()).digest()


def extract(said: bytes, client_secret: bytes, server_secret: bytes) -> bytes:
    """Return what all secrets of a session are expanded from (HKDF-Extract, RFC 5869 section 2.2)."""
    return hmac.digest(said, client_secret + server_secret, "sha256")


class EpochKey:
    """The key of one direction and epoch: seals and opens single packets. Keeps its cipher."""

    __slots__ = ("_cipher", "_iv")

    def __init__(self, secret: bytes) -> None:
        """Derive from the epoch's secret."""
        self._cipher: Final = AESGCM(key_of(secret))
        self._iv: Final = int.from_bytes(iv_of(secret), "big")

    def seal(self, packet_number: int, frames: bytes, header: bytes) -> bytes:
        """Return the sealed frames and their tag. A number is sealed once and never again."""
        return self._cipher.encrypt((self._iv ^ packet_number).to_bytes(IV_SIZE, "big"), frames, header)

    def open(self, packet_number: int, sealed: bytes, header: bytes) -> bytes:
        """Return the frames. Raises ``cryptography.exceptions.InvalidTag``."""
        return self._cipher.decrypt((self._iv ^ packet_number).to_bytes(IV_SIZE, "big"), sealed, header)


def key_of(secret: bytes) -> bytes:
    """Return the cipher's key of the epoch with this secret."""
    return _expand(secret, "tcrp2 key", SECRET_SIZE)


def iv_of(secret: bytes) -> bytes:
    """Return what the nonces of the epoch with this secret are made of: each is this XOR the packet number."""
    return _expand(secret, "tcrp2 iv", IV_SIZE)


def next_secret(secret: bytes) -> bytes:
    """Return the secret of the next epoch: it says nothing about the one before."""
    return _expand(secret, "tcrp2 next", SECRET_SIZE)


def epoch_of(packet_number: int) -> int:
    """Return the epoch that a packet number lies in."""
    return packet_number >> EPOCH_BITS


def _expand(secret: bytes, label: str, size: int) -> bytes:
    return HKDFExpand(SHA256(), size, label.encode()).derive(secret)


Randomness = Callable[[int], bytes]
"""Returns that many unpredictable bytes."""
