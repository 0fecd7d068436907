"""The key schedule against a second one, written from the specification with nothing but HMAC and AES."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import GCM
from hypothesis import given
from hypothesis import strategies as st

from ocm.protocol.session.keys import EpochKey, SessionSecrets, epoch_of, next_secret, session_secrets

HELLO, ANSWER, SPKI = b"HELLO.0 record", b"HELLO.1 record", b"a public key"
CLIENT, SERVER = bytes(range(32)), bytes(range(32, 64))
secrets = st.binary(min_size=32, max_size=32)
numbers = st.integers(0, 2**48 - 1)


def expand(secret: bytes, label: bytes, size: int) -> bytes:
    """HKDF-Expand of RFC 5869 for one block."""
    return hmac.new(secret, label + b"\x01", hashlib.sha256).digest()[:size]


def of_session(**changes: bytes) -> SessionSecrets:
    said = {"hello": HELLO, "answer": ANSWER, "server_key": SPKI, "client_secret": CLIENT, "server_secret": SERVER}
    return session_secrets(**(said | changes))


def test_a_session_has_the_secrets_of_the_specification() -> None:
    th = hashlib.sha256(b"tcrp2" + HELLO + ANSWER + hashlib.sha256(SPKI).digest()).digest()
    prk = hmac.new(th, CLIENT + SERVER, hashlib.sha256).digest()
    made = of_session()
    assert made.to_server == expand(prk, b"tcrp2 c2s secret", 32)
    assert made.to_client == expand(prk, b"tcrp2 s2c secret", 32)
    assert made.to_server.hex() == "39b853f2fbe7ed96cecf62d7b234246f2557b1af8f07d8cc286369aa11ceef22"


@pytest.mark.parametrize("what", ["hello", "answer", "server_key", "client_secret", "server_secret"])
def test_whatever_was_said_differently_makes_other_secrets(what: str) -> None:
    changed = of_session(**{what: bytes(32)})
    assert changed.to_server != of_session().to_server
    assert changed.to_client != of_session().to_client


def test_secrets_are_not_shown() -> None:
    assert repr(of_session()) == "SessionSecrets()"


@given(secrets, numbers, st.binary(min_size=1, max_size=100), st.binary(min_size=16, max_size=16))
def test_a_packet_is_sealed_as_the_specification_says(secret: bytes, number: int, frames: bytes, header: bytes) -> None:
    key = EpochKey(secret)
    iv = int.from_bytes(expand(secret, b"tcrp2 iv", 12), "big")
    cipher = Cipher(AES256(expand(secret, b"tcrp2 key", 32)), GCM((iv ^ number).to_bytes(12, "big"))).encryptor()
    cipher.authenticate_additional_data(header)
    sealed = cipher.update(frames) + cipher.finalize() + cipher.tag
    assert key.seal(number, frames, header) == sealed
    assert key.open(number, sealed, header) == frames
    with pytest.raises(InvalidTag):
        key.open(number ^ 1, sealed, header)


@given(secrets)
def test_the_next_secret_is_of_the_specification(secret: bytes) -> None:
    assert next_secret(secret) == expand(secret, b"tcrp2 next", 32)


def test_an_epoch_has_two_to_the_twenty_packets() -> None:
    assert [epoch_of(number) for number in (0, 2**20 - 1, 2**20, 2**48 - 1)] == [0, 0, 1, 2**28 - 1]
