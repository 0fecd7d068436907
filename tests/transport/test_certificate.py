"""Certificates: made, kept, loaded, and what is wrong with them said in words that quote nothing."""

from __future__ import annotations

import hashlib
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from ocm.errors import CertificateFailed
from ocm.transport.certificate import (
    VALID_S,
    Certificate,
    certified_key,
    fingerprint,
    keep_certificate,
    load_certificate,
    make_certificate,
)
from tests.security import Authority

NOW_S = 1_800_000_000.0


def parsed(certificate: Certificate) -> x509.Certificate:
    (one,) = x509.load_pem_x509_certificates(certificate.chain)
    return one


def keep(folder: Path, certificate: Certificate) -> tuple[Path, Path]:
    paths = folder / "own.crt", folder / "own.key"
    paths[0].write_bytes(certificate.chain)
    paths[1].write_bytes(certificate.private_key)
    return paths


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_one_that_we_make_is_for_localhost_on_p_256_and_valid_for_a_hundred_years() -> None:
    made = parsed(make_certificate(now_s=NOW_S))
    key = made.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    now = datetime.fromtimestamp(NOW_S, UTC)
    assert made.not_valid_before_utc == now - timedelta(days=1)
    assert made.not_valid_after_utc == now + timedelta(seconds=VALID_S)
    made.verify_directly_issued_by(made)


def test_it_is_valid_for_as_long_as_asked() -> None:
    made = parsed(make_certificate(now_s=NOW_S, valid_s=60.0))
    assert made.not_valid_after_utc == datetime.fromtimestamp(NOW_S + 60, UTC)


def test_a_fingerprint_is_the_sha_256_of_the_public_key_and_not_of_the_certificate() -> None:
    made = make_certificate(now_s=NOW_S)
    key = parsed(made).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert made.key == key == certified_key(parsed(made).public_bytes(Encoding.DER))
    assert fingerprint(made.key) == hashlib.sha256(key).hexdigest()


@pytest.mark.parametrize("certificate", [b"", b"0", bytes(100), b"\x30\x03\x02\x01\x01"])
def test_what_is_no_certificate_has_no_key(certificate: bytes) -> None:
    assert certified_key(certificate) is None


def test_its_repr_is_the_fingerprint_and_nothing_else() -> None:
    made = make_certificate(now_s=NOW_S)
    assert repr(made) == str(made) == f"Certificate({fingerprint(made.key)})"


def test_what_is_kept_comes_back_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there"
    kept = keep_certificate(folder, now_s=NOW_S)
    assert keep_certificate(folder, now_s=NOW_S + 1) == kept
    assert sorted(path.name for path in folder.iterdir()) == ["server.crt", "server.key"]


def test_what_is_kept_is_for_its_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    keep_certificate(folder, now_s=NOW_S)
    assert mode_of(folder) == 0o700
    assert mode_of(folder / "server.key") == 0o600


def test_a_key_without_a_certificate_gets_a_new_one_and_the_pin_holds(tmp_path: Path) -> None:
    kept = keep_certificate(tmp_path, now_s=NOW_S)
    (tmp_path / "server.crt").unlink()
    again = keep_certificate(tmp_path, now_s=NOW_S + 1)
    assert again.key == kept.key
    assert again.chain != kept.chain
    assert keep_certificate(tmp_path, now_s=NOW_S + 2) == again


def test_a_certificate_without_its_key_is_not_replaced(tmp_path: Path) -> None:
    keep_certificate(tmp_path, now_s=NOW_S)
    (tmp_path / "server.key").unlink()
    with pytest.raises(CertificateFailed, match=r"server\.key: cannot be read \(no such file or directory\)$"):
        keep_certificate(tmp_path, now_s=NOW_S)


def test_a_key_that_ocm_did_not_make_gets_no_certificate_of_ours(tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    data = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "server.key").write_bytes(data)
    with pytest.raises(CertificateFailed, match=r"server\.crt: is missing, and server\.key is not a key that ocm made"):
        keep_certificate(tmp_path, now_s=NOW_S)
    assert (tmp_path / "server.key").read_bytes() == data


def test_a_folder_that_cannot_be_is_said_and_nothing_is_left_behind(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CertificateFailed, match="cannot be kept") as caught:
        keep_certificate(tmp_path / "file", now_s=NOW_S)
    assert caught.value.path == str(tmp_path / "file" / "server.key")
    with pytest.raises(CertificateFailed, match=r"server\.key: cannot be kept \(file name too long\)$"):
        keep_certificate(tmp_path / ("a" * 300), now_s=NOW_S)
    folder = tmp_path / "folder"
    (folder / "server.key").mkdir(parents=True)
    with pytest.raises(CertificateFailed, match=r"server\.key: cannot be read \(is a directory\)$"):
        keep_certificate(folder, now_s=NOW_S)


def test_what_cannot_be_put_in_its_place_is_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "as told")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(CertificateFailed, match=r"cannot be kept \(no space left on device\)$"):
        keep_certificate(tmp_path, now_s=NOW_S)
    assert list(tmp_path.iterdir()) == []


def test_the_operators_own_is_loaded_with_all_that_lead_to_its_authority(tmp_path: Path) -> None:
    own = Authority().vouch_for("chat.example")
    assert load_certificate(*keep(tmp_path, own)) == own
    assert len(x509.load_pem_x509_certificates(own.chain)) == 2


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_a_key_may_have_any_form_that_openssl_writes(tmp_path: Path, form: PrivateFormat) -> None:
    made = make_certificate(now_s=NOW_S)
    certificate_path, key_path = keep(tmp_path, made)
    key = load_pem_private_key(made.private_key, None)
    key_path.write_bytes(key.private_bytes(Encoding.PEM, form, NoEncryption()))
    assert load_certificate(certificate_path, key_path) == made


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    certificate_path, key_path = keep(tmp_path, make_certificate(now_s=NOW_S))
    key_path.write_bytes(make_certificate(now_s=NOW_S).private_key)
    with pytest.raises(CertificateFailed, match=r"own\.key: is not the key of the certificate in .*own\.crt$"):
        load_certificate(certificate_path, key_path)


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_an_encrypted_key_is_refused_in_plain_words(tmp_path: Path, form: PrivateFormat) -> None:
    made = make_certificate(now_s=NOW_S)
    certificate_path, key_path = keep(tmp_path, made)
    key = load_pem_private_key(made.private_key, None)
    key_path.write_bytes(key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"secret")))
    with pytest.raises(CertificateFailed, match="is encrypted"):
        load_certificate(certificate_path, key_path)


@pytest.mark.parametrize("data", [b"", b"5ec2e7", b"-----BEGIN PRIVATE KEY-----\n5ec2e7\n-----END PRIVATE KEY-----\n"])
def test_files_that_are_something_else_are_refused_and_not_quoted(tmp_path: Path, data: bytes) -> None:
    certificate_path, key_path = keep(tmp_path, make_certificate(now_s=NOW_S))
    key_path.write_bytes(data)
    with pytest.raises(CertificateFailed, match=r"own\.key: is not a private key in PEM$") as no_key:
        load_certificate(certificate_path, key_path)
    assert no_key.value.__cause__ is None
    certificate_path.write_bytes(data)
    with pytest.raises(CertificateFailed, match=r"own\.crt: is not a certificate in PEM$") as no_certificate:
        load_certificate(certificate_path, key_path)
    assert "5ec2e7" not in f"{no_key.value!r} {no_certificate.value!r}"


@pytest.mark.parametrize("missing", ["own.crt", "own.key"])
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    paths = keep(tmp_path, make_certificate(now_s=NOW_S))
    (tmp_path / missing).unlink()
    with pytest.raises(CertificateFailed, match="no such file") as caught:
        load_certificate(*paths)
    assert caught.value.path == str(tmp_path / missing)


def test_openssl_takes_what_we_make(tmp_path: Path) -> None:
    paths = keep(tmp_path, make_certificate(now_s=NOW_S))
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*paths)
