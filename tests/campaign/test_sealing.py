"""Datagrams on their way: whatever somebody who sees them all does, nothing is taken that is not genuine and new."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR

from ocm.protocol.session import keys, seal
from ocm.protocol.session.addresses import Addresses, Candidate
from ocm.protocol.session.keys import EpochKey, SessionSecrets
from ocm.protocol.session.seal import Sealer
from ocm.protocol.session.window import ReplayWindow
from ocm.protocol.wire.sealed import SEALED_SIZE_MAX
from tests.campaign.nonces import seal_in_stories, seal_many
from tests.campaign.sealing import Count, cross, flip_bits, replay
from tests.campaign.spoofing import Audit, spoof

SIZES = (60, 61, 200, SEALED_SIZE_MAX)
CROSSED = {"connection", "direction", "epoch", "member"}
forking = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
quiet_fork = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


def is_kept(audit: Audit) -> bool:
    return audit.bytes_ratio <= 3 and audit.packets <= 3


def test_no_bit_of_a_datagram_may_change_on_its_way() -> None:
    count = flip_bits(SIZES)
    assert (count.taken, count.thrown > 2 * 8 * sum(SIZES[:3])) == (0, True)


def test_what_came_does_not_come_again() -> None:
    count = replay(5000)
    assert (count.taken, count.thrown) == (0, 5000)


def test_what_was_sealed_for_one_place_opens_at_no_other() -> None:
    count = cross(4)
    assert count.taken == 0
    assert set(count.kinds) == CROSSED


@forking
@quiet_fork
def test_no_nonce_is_used_twice_and_none_behind_a_fork() -> None:
    nonces, behind_forks = seal_many(50_000)
    assert (nonces.sealed, nonces.twice, behind_forks) == (50_000, 0, 0)
    assert len(nonces.by_key) == 8


def test_no_nonce_is_used_twice_by_those_who_crash_and_come_back() -> None:
    nonces = seal_in_stories(range(1, 4))
    assert nonces.sealed > 1000
    assert nonces.twice == 0


def test_nobody_is_flooded_in_whose_name_somebody_sends() -> None:
    audit = spoof(600, seed=1)
    assert audit.taken > 100
    assert audit.sent > 100
    assert is_kept(audit), audit


# --- in full -----------------------------------------------------------------------------------------------


@pytest.mark.campaign
def test_every_bit_of_datagrams_of_many_sizes() -> None:
    count = flip_bits([*range(60, SEALED_SIZE_MAX, 19), SEALED_SIZE_MAX])
    print(f"{count.thrown} datagrams with a changed bit, {count.taken} taken")
    assert count.taken == 0


@pytest.mark.campaign
def test_a_hundred_thousand_replays() -> None:
    count = replay(100_000)
    print(f"{count.thrown} replays, {count.taken} taken")
    assert (count.taken, count.thrown) == (0, 100_000)


@pytest.mark.campaign
def test_packets_of_other_places() -> None:
    count = cross(200)
    print(f"{count.thrown} packets of other places ({count.kinds}), {count.taken} taken")
    assert count.taken == 0


@forking
@quiet_fork
@pytest.mark.campaign
def test_ten_million_nonces() -> None:
    nonces, behind_forks = seal_many(10_000_000)
    print(
        f"{nonces.sealed} packets under {len(nonces.by_key)} keys, {nonces.twice} nonces twice, {behind_forks} forked"
    )
    assert (nonces.sealed, nonces.twice, behind_forks) == (10_000_000, 0, 0)


@pytest.mark.campaign
def test_nonces_of_a_hundred_stories() -> None:
    nonces = seal_in_stories(range(1, 101))
    print(f"{nonces.sealed} packets under {len(nonces.by_key)} keys, {nonces.twice} nonces twice")
    assert nonces.twice == 0


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(1, 11))
def test_a_long_audit_of_spoofed_sources(seed: int) -> None:
    audit = spoof(5000, seed=seed)
    print(audit.taken, audit.dropped, audit.sent, audit.bytes_ratio, audit.packets)
    assert is_kept(audit), audit


# --- the tests can fail ------------------------------------------------------------------------------------

Plant = Callable[[pytest.MonkeyPatch], None]


def opens_without_a_look_at_the_tag(patch: pytest.MonkeyPatch) -> None:
    real = EpochKey.__init__
    secrets: dict[int, bytes] = {}

    def remember(self: EpochKey, secret: bytes) -> None:
        real(self, secret)
        secrets[id(self)] = secret

    def planted(self: EpochKey, packet_number: int, sealed: bytes, header: bytes) -> bytes:
        secret = secrets[id(self)]
        nonce = (int.from_bytes(keys.iv_of(secret), "big") ^ packet_number).to_bytes(12, "big")
        cipher = Cipher(AES256(keys.key_of(secret)), CTR(nonce + (2).to_bytes(4, "big"))).decryptor()
        return cipher.update(sealed[:-16])

    patch.setattr(EpochKey, "__init__", remember)
    patch.setattr(EpochKey, "open", planted)


def marks_nothing(patch: pytest.MonkeyPatch) -> None:
    def planted(self: ReplayWindow, number: int) -> None:
        self.largest = max(self.largest, number)

    patch.setattr(ReplayWindow, "mark", planted)


def minds_no_header(patch: pytest.MonkeyPatch) -> None:
    sealing, opening = EpochKey.seal, EpochKey.open

    def sealed(self: EpochKey, packet_number: int, frames: bytes, header: bytes) -> bytes:
        return sealing(self, packet_number, frames, b"")

    def opened(self: EpochKey, packet_number: int, data: bytes, header: bytes) -> bytes:
        return opening(self, packet_number, data, b"")

    patch.setattr(EpochKey, "seal", sealed)
    patch.setattr(EpochKey, "open", opened)


def has_one_secret_for_everybody(patch: pytest.MonkeyPatch) -> None:
    def planted(**said: bytes) -> SessionSecrets:
        return SessionSecrets(bytes(32), bytes(31) + b"1")

    minds_no_header(patch)  # which holds the name of the connection
    patch.setattr("ocm.protocol.link.modern_session.session_secrets", planted)
    patch.setattr("tests.protocol.desk.session_secrets", planted)


def has_one_secret_for_both_directions(patch: pytest.MonkeyPatch) -> None:
    minds_no_header(patch)
    derive = keys.session_secrets

    def planted(**said: bytes) -> SessionSecrets:
        secrets = derive(**said)
        return SessionSecrets(secrets.to_server, secrets.to_server)

    patch.setattr("ocm.protocol.link.modern_session.session_secrets", planted)
    patch.setattr("tests.protocol.desk.session_secrets", planted)


def never_changes_its_key(patch: pytest.MonkeyPatch) -> None:
    def planted(secret: bytes) -> bytes:
        return secret

    patch.setattr(seal, "next_secret", planted)
    patch.setattr("tests.campaign.sealing.next_secret", planted)


def seals_again_what_was_not_sent(patch: pytest.MonkeyPatch) -> None:
    """Takes a number back now and then, as if the system had not taken the datagram."""
    sealing = Sealer.seal

    def planted(self: Sealer, frames: bytes) -> tuple[int, bytes]:
        number, data = sealing(self, frames)
        if number % 1000 == 999 and self.next_number == number + 1:
            self.next_number = number
            sealing(self, frames)
        return number, data

    patch.setattr(Sealer, "seal", planted)


def seals_behind_a_fork(patch: pytest.MonkeyPatch) -> None:
    def planted(self: Sealer) -> None: ...

    patch.setattr(Sealer, "disown", planted)


def has_the_same_keys_after_a_crash(patch: pytest.MonkeyPatch) -> None:
    def planted(**said: bytes) -> SessionSecrets:
        return SessionSecrets(bytes(32), bytes(31) + b"1")

    patch.setattr("ocm.protocol.link.modern_session.session_secrets", planted)
    patch.setattr("ocm.protocol.agent.session.session_secrets", planted)


def minds_no_bytes(patch: pytest.MonkeyPatch) -> None:
    def planted(self: Candidate) -> int:
        return 0 if self.packets >= 3 else 10**9

    patch.setattr(Candidate, "budget", planted)


def minds_no_packets(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("ocm.protocol.session.addresses.UNPROVED_PACKETS_MAX", 1000)
    patch.setattr("ocm.protocol.session.addresses.CHALLENGES_MAX", 1000)


def follows_at_once(patch: pytest.MonkeyPatch) -> None:
    """Takes whoever sends the newest packet for proved."""
    receive = Addresses.receive

    def planted(self: Addresses, address: bytes, size: int, *, newest: bool, now_s: float) -> None:
        receive(self, address, size, newest=newest, now_s=now_s)
        if newest:
            self.current = address

    patch.setattr(Addresses, "receive", planted)


def taken(run: Callable[[], Count]) -> Callable[[], bool]:
    return lambda: run().taken > 0


PLANTED: list[tuple[Plant, Callable[[], bool]]] = [
    (opens_without_a_look_at_the_tag, taken(lambda: flip_bits([60]))),
    (marks_nothing, taken(lambda: replay(500))),
    (has_one_secret_for_everybody, taken(lambda: cross(2))),
    (has_one_secret_for_both_directions, taken(lambda: cross(2))),
    (never_changes_its_key, taken(lambda: cross(2))),
    (seals_again_what_was_not_sent, lambda: seal_many(20_000)[0].twice > 0),
    (seals_behind_a_fork, lambda: seal_many(1000)[1] > 0),
    (has_the_same_keys_after_a_crash, lambda: seal_in_stories(range(1, 3)).twice > 0),
    (minds_no_bytes, lambda: not is_kept(spoof(300, seed=1))),
    (minds_no_packets, lambda: not is_kept(spoof(300, seed=1))),
    (follows_at_once, lambda: not is_kept(spoof(300, seed=1))),
]


@forking
@quiet_fork
@pytest.mark.parametrize(("plant", "finds"), PLANTED, ids=[plant.__name__ for plant, _ in PLANTED])
def test_a_planted_bug_is_found(plant: Plant, finds: Callable[[], bool], monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    assert finds()
