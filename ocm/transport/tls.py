"""TLS over any ``Stream``, by OpenSSL in memory: 1.3 only, ALPN ``tcrp/2``, no early data, no session tickets.

asyncio's own TLS of Python 3.11 reserves a quarter of a megabyte for each connection before its first byte. Here
nothing is made before that byte; an idle connection then costs about 20 KiB, and 40 KiB once much went over it.
"""

from __future__ import annotations

import ssl
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Final

from ocm.errors import CertificateFailed, HandshakeFailed, ServerUntrusted, TransportClosed
from ocm.transport.base import Authorities, Pinned, SecureAccept, Stream, StreamHandler, Trust, Unknown
from ocm.transport.certificate import Certificate, certified_key, fingerprint
from ocm.transport.handshake import PROTOCOL, Handshake, check_key
from ocm.transport.secure import Channel
from ocm.transport.tcp import reason

RECORD_SIZE_MAX: Final = 16_384
"""Bytes of ours in one record of TLS."""
_FEED_SIZE: Final = 16_384
"""Bytes given to OpenSSL at a time: its buffers grow to what they once held, and never shrink."""
_DER: Final = 2
"""``_ssl.ENCODING_DER``."""

_CheckServer = Callable[[ssl.SSLObject], bytes]
"""Returns the server's key, or raises ``HandshakeFailed`` if that is not acceptable."""


class TlsServer:
    """TLS as servers speak it (see ``ServerSecurity``)."""

    def __init__(self, certificate: Certificate) -> None:
        """Prepare to show this certificate. Raises ``CertificateFailed`` if OpenSSL does not take it."""
        self.key: bytes = certificate.key
        self._context = _context(ssl.PROTOCOL_TLS_SERVER)
        self._context.num_tickets = 0
        _load(self._context, certificate)

    def begin(
        self, stream: Stream, accept: SecureAccept, on_failed: Callable[[HandshakeFailed], None]
    ) -> StreamHandler:
        """Return who is to hear what ``stream`` says (see ``ServerSecurity.begin``)."""
        return Handshake(stream, self._make_channel, accept, on_failed)

    def _make_channel(self) -> Channel:
        return _TlsChannel(self._context, lambda _: self.key, server_side=True)


class TlsClient:
    """TLS as clients speak it (see ``ClientSecurity``). Only an authority is told the host's name."""

    def __init__(self, *, authorities: Path | None = None) -> None:
        """Prepare to connect.

        Args:
            authorities: certificates, in PEM, of authorities to trust beside those of the system.

        Raises:
            CertificateFailed: the file cannot be read or understood.
        """
        self._context = _context(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE  # `check_key` decides, by the key alone
        self._vouching: ssl.SSLContext | None = None if authorities is None else _vouching_context(authorities)

    def begin(
        self, stream: Stream, trust: Trust, accept: SecureAccept, on_failed: Callable[[HandshakeFailed], None]
    ) -> StreamHandler:
        """Greet the server; return who is to hear what ``stream`` says (see ``ClientSecurity.begin``)."""
        handshake = Handshake(stream, lambda: self._make_channel(trust), accept, on_failed)
        handshake.greet()
        return handshake

    def _make_channel(self, trust: Trust) -> Channel:
        if isinstance(trust, Authorities):
            if self._vouching is None:  # reads a few hundred certificates: not before it is needed
                self._vouching = _vouching_context(None)
            return _TlsChannel(self._vouching, _shown_key, server_side=False, host=trust.host)
        return _TlsChannel(self._context, lambda tls: _checked_key(tls, trust), server_side=False)


class _TlsChannel:
    """A ``Channel`` of OpenSSL."""

    __slots__ = ("_check", "_fed", "_incoming", "_outgoing", "_tls", "server_key")

    def __init__(
        self, context: ssl.SSLContext, check: _CheckServer, *, server_side: bool, host: str | None = None
    ) -> None:
        self.server_key = b""
        self._check = check
        self._fed = bytearray()
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side, server_hostname=host)

    def feed(self, data: bytes) -> None:
        """Take bytes from below."""
        self._fed += data

    def shake(self) -> bool:
        """Go on with the handshake."""
        try:
            while True:
                try:
                    self._tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    if not self._refill():
                        return False
        except ssl.SSLCertVerificationError as error:
            message = f"nobody vouches for the server's certificate ({error.verify_message})"
            raise ServerUntrusted(message, fingerprint=_refused_fingerprint(self._tls)) from error
        except ssl.SSLError as error:
            raise HandshakeFailed(f"TLS could not be set up ({_words(error)})") from error
        try:
            if self._tls.selected_alpn_protocol() != PROTOCOL:
                raise HandshakeFailed(f"the other side does not speak {PROTOCOL}")
            self.server_key = self._check(self._tls)
        except HandshakeFailed:
            self._outgoing.read()  # so that the server does not see a handshake completed
            raise
        return True

    def read(self) -> bytes | None:
        """Return the content of the peer's next record."""
        while True:
            try:
                return self._tls.read(RECORD_SIZE_MAX)
            except ssl.SSLWantReadError:
                if not self._refill():
                    return None
            except ssl.SSLZeroReturnError:  # the peer's end, when we have ended too
                return b""
            except ssl.SSLError as error:
                raise _broken(error) from error

    def seal(self, data: bytes) -> bytes:
        """Return records."""
        view, sealed = memoryview(data), list[bytes]()
        try:
            while view:
                view = view[self._tls.write(view[:RECORD_SIZE_MAX]) :]
                sealed.append(self._outgoing.read())
        except ssl.SSLError as error:
            raise _broken(error) from error
        return b"".join(sealed)

    def seal_end(self) -> bytes:
        """Return a ``close_notify``."""
        # OpenSSL looks for the peer's at once, and is lost if it finds data before it.
        unread = self._incoming.read()
        try:
            with suppress(ssl.SSLWantReadError):
                self._tls.unwrap()
        except ssl.SSLError as error:
            raise _broken(error) from error
        self._incoming.write(unread)
        return self._outgoing.read()

    def take(self) -> bytes:
        """Return what OpenSSL has to say by itself."""
        return self._outgoing.read()

    def _refill(self) -> bool:
        """Give OpenSSL more of what was fed; return whether there was any."""
        if not self._fed:
            return False
        self._incoming.write(self._fed[:_FEED_SIZE])
        del self._fed[:_FEED_SIZE]
        return True


def _context(protocol: int) -> ssl.SSLContext:
    # Not `create_default_context`, which logs the keys of all connections where SSLKEYLOGFILE is set.
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols([PROTOCOL])
    return context


def _load(context: ssl.SSLContext, certificate: Certificate) -> None:
    """Give OpenSSL a certificate and its key, which it takes from files only."""
    try:
        with NamedTemporaryFile(prefix="ocm-", suffix=".pem") as file:  # has mode 0600
            file.write(certificate.chain + certificate.private_key)
            file.flush()
            context.load_cert_chain(file.name)
    except ssl.SSLError as error:
        raise CertificateFailed(f"the certificate cannot be used ({_words(error)})") from error
    except OSError as error:
        raise CertificateFailed(f"the certificate needs a temporary file ({reason(error)})") from error


def _vouching_context(authorities: Path | None) -> ssl.SSLContext:
    context = _context(ssl.PROTOCOL_TLS_CLIENT)  # which checks certificates and host names
    context.load_default_certs()
    if authorities is not None:
        try:
            context.load_verify_locations(authorities)
        except ssl.SSLError as error:
            raise CertificateFailed(f"holds no certificates in PEM ({_words(error)})", path=str(authorities)) from error
        except OSError as error:
            raise CertificateFailed(f"cannot be read ({reason(error)})", path=str(authorities)) from error
    return context


def _shown_key(tls: ssl.SSLObject) -> bytes:
    """Return the key of the server, which proved in the handshake that it has it."""
    key = certified_key(tls.getpeercert(binary_form=True) or b"")
    if key is None:
        raise HandshakeFailed("the server's certificate cannot be read")
    return key


def _checked_key(tls: ssl.SSLObject, trust: Pinned | Unknown) -> bytes:
    key = _shown_key(tls)
    check_key(key, trust)
    return key


def _refused_fingerprint(tls: ssl.SSLObject) -> str:
    """Return the fingerprint of a server whose certificate was refused, or nothing where it cannot be read."""
    shown: list[bytes]
    if sys.version_info >= (3, 13):
        shown = tls.get_unverified_chain()
    else:
        inside: Any = tls
        shown = [each.public_bytes(_DER) for each in inside._sslobj.get_unverified_chain() or ()]
    key = certified_key(shown[0]) if shown else None
    return "" if key is None else fingerprint(key)


def _broken(error: ssl.SSLError) -> TransportClosed:
    return TransportClosed(f"connection lost ({_words(error)})")


def _words(error: ssl.SSLError) -> str:
    """Return OpenSSL's words for an error; they quote nothing."""
    return (error.reason or "unknown error").replace("_", " ").lower()
