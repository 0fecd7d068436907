"""Certificates of servers: the operator's own, or one that a server makes for itself and keeps.

Where nobody vouches for a certificate it is trusted by its key alone (``ocm.transport.base.Pinned``). So it is the
key that must outlive restarts; the certificate around it can be made anew.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ocm.errors import CertificateFailed
from ocm.transport.tcp import reason

KEY_FILE: Final = "server.key"
CERTIFICATE_FILE: Final = "server.crt"
VALID_S: Final = 100 * 365.25 * 86_400.0
"""How long a certificate that we make is valid, in seconds: a pin has no date, and none is to lock anybody out."""
_CLOCK_SKEW_S: Final = 86_400.0
"""How long before now it begins to be valid, for clocks that are behind."""
_MALFORMED: Final = (ValueError, UnsupportedAlgorithm, x509.InvalidVersion)
"""What ``cryptography`` raises for a certificate or key that it cannot read."""


@dataclass(frozen=True, slots=True, repr=False)
class Certificate:
    """What a server shows, and the key with which it proves that it may. Its ``repr`` is the fingerprint."""

    key: bytes
    """The public key, DER of its SubjectPublicKeyInfo."""
    chain: bytes
    """The certificate and those that lead from it to an authority, in PEM."""
    private_key: bytes
    """The private key, in PEM, not encrypted."""

    def __repr__(self) -> str:
        return f"Certificate({fingerprint(self.key)})"


def fingerprint(key: bytes) -> str:
    """Return the SHA-256 of a public key (DER of its SubjectPublicKeyInfo), in lowercase hex: what a pin is."""
    return hashlib.sha256(key).hexdigest()


def certified_key(certificate: bytes) -> bytes | None:
    """Return the public key in a DER certificate, as DER of its SubjectPublicKeyInfo; None if it cannot be read."""
    try:
        return _key_of(x509.load_der_x509_certificate(certificate))
    except _MALFORMED:
        return None


def make_certificate(*, now_s: float, valid_s: float = VALID_S) -> Certificate:
    """Make a certificate for ``localhost`` that is its own authority, with a new ECDSA key on P-256.

    Args:
        now_s: the time of day, in seconds since 1970.
        valid_s: how long it is valid, in seconds from now.
    """
    return _certify(ec.generate_private_key(ec.SECP256R1()), now_s, valid_s)


def keep_certificate(folder: Path, *, now_s: float, valid_s: float = VALID_S) -> Certificate:
    """Return the certificate kept in ``folder``, or make one as ``make_certificate`` does, and keep it.

    The key is in ``server.key``, readable by its owner only, the certificate in ``server.crt``; both are replaced
    as a whole or not at all. Where only the key is there, it gets a new certificate. A folder that is not there is
    made, for its owner only. One process at a time may do this.

    Raises:
        CertificateFailed: what is there cannot be read or used, or nothing can be kept there.
    """
    key_path, certificate_path = folder / KEY_FILE, folder / CERTIFICATE_FILE
    if os.path.exists(certificate_path):  # Path.exists raises where it may not look
        return load_certificate(certificate_path, key_path)
    if os.path.exists(key_path):
        private_key = _load_key(key_path)
        if not isinstance(private_key, ec.EllipticCurvePrivateKey):
            raise CertificateFailed(
                f"is missing, and {KEY_FILE} is not a key that ocm made", path=str(certificate_path)
            )
        kept = _certify(private_key, now_s, valid_s)
    else:
        kept = make_certificate(now_s=now_s, valid_s=valid_s)
        _keep(key_path, kept.private_key)
    _keep(certificate_path, kept.chain)
    return kept


def load_certificate(certificate_path: Path, key_path: Path) -> Certificate:
    """Return the certificate, with those that follow it in its file, and its key, both PEM.

    Raises:
        CertificateFailed: a file cannot be read or understood, the key is encrypted, or it belongs to another
            certificate.
    """
    try:
        chain = x509.load_pem_x509_certificates(_read(certificate_path))
        key = _key_of(chain[0])
    except _MALFORMED as error:
        raise CertificateFailed("is not a certificate in PEM", path=str(certificate_path)) from error
    private_key = _load_key(key_path)
    if private_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != key:
        raise CertificateFailed(f"is not the key of the certificate in {certificate_path}", path=str(key_path))
    return Certificate(key, b"".join(each.public_bytes(Encoding.PEM) for each in chain), _pem(private_key))


def _certify(private_key: ec.EllipticCurvePrivateKey, now_s: float, valid_s: float) -> Certificate:
    public_key = private_key.public_key()
    now = datetime.fromtimestamp(now_s, UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ocm")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(seconds=_CLOCK_SKEW_S))
        .not_valid_after(now + timedelta(seconds=valid_s))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(private_key, SHA256())
    )
    return Certificate(_key_of(certificate), certificate.public_bytes(Encoding.PEM), _pem(private_key))


def _key_of(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _pem(private_key: PrivateKeyTypes) -> bytes:
    return private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _load_key(path: Path) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(_read(path), password=None)
    except TypeError as error:
        raise CertificateFailed("is encrypted; decrypt it first, ocm asks for no passphrase", path=str(path)) from error
    except _MALFORMED:
        raise CertificateFailed("is not a private key in PEM", path=str(path)) from None  # its cause might quote it


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateFailed(f"cannot be read ({reason(error)})", path=str(path)) from error


def _keep(path: Path, data: bytes) -> None:
    """Write a file that is there as a whole or not at all, also after a power cut, and is for its owner only."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:  # has mode 0600
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                os.replace(file.name, path)
            except BaseException:
                with suppress(OSError):
                    os.unlink(file.name)
                raise
    except OSError as error:
        raise CertificateFailed(f"cannot be kept ({reason(error)})", path=str(path)) from error
