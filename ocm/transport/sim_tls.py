"""What stands for TLS in a simulation. It hides nothing and proves nothing: never let it near a real network.

It has the shape of TLS, one round trip and then records with an end of their own, and draws no random number, so that
a simulated timeline is the same byte for byte from one seed. Only ``ocm.testing`` may import it, which
import-linter holds, and it refuses a stream of a real socket.

A record is ``kind(1) | 0x03 | 0x01 | size(2) | content``, big-endian. Handshakes are kind 22: ``1 | protocol`` from
the client, ``2 | key size(2) | key | protocol | 0 | host | 0 ...`` from the server, ``20`` from the client. Data are
kind 23, and the end is an empty record of kind 21.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ocm.errors import HandshakeFailed, LocalProtocolError, ServerUntrusted, TransportClosed
from ocm.transport.base import Authorities, SecureAccept, Stream, StreamHandler, Trust
from ocm.transport.certificate import fingerprint
from ocm.transport.handshake import PROTOCOL, Handshake, check_key
from ocm.transport.secure import Channel
from ocm.transport.tcp import TcpStream

SEED_SIZE: Final = 32
"""Bytes that a simulated server's key is made from."""
_CONTENT_SIZE_MAX: Final = 16_384
_HEAD_SIZE: Final = 5
_VERSION: Final = b"\x03\x01"
_END, _HANDSHAKE, _DATA = 21, 22, 23
_HELLO, _SHOWN, _FINISHED = b"\x01", b"\x02", b"\x14"


class SimServerSecurity:
    """The server's side, for a simulation only (see ``ServerSecurity``)."""

    def __init__(self, key_seed: bytes, *, vouched_for: Iterable[str] = ()) -> None:
        """Make the key from a seed; a simulated authority vouches for the hosts named.

        Raises ``LocalProtocolError`` unless the seed has 32 bytes.
        """
        if len(key_seed) != SEED_SIZE:
            raise LocalProtocolError(f"a seed of a key has {SEED_SIZE} bytes")
        public_key = Ed25519PrivateKey.from_private_bytes(key_seed).public_key()
        self.key: bytes = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self._vouched_for = tuple(host.lower() for host in vouched_for)

    def begin(
        self, stream: Stream, accept: SecureAccept, on_failed: Callable[[HandshakeFailed], None]
    ) -> StreamHandler:
        """Return who is to hear what ``stream`` says (see ``ServerSecurity.begin``)."""
        _refuse_sockets(stream)
        return Handshake(stream, self._make_channel, accept, on_failed)

    def _make_channel(self) -> Channel:
        return _SimServerChannel(self.key, self._vouched_for)


class SimClientSecurity:
    """The client's side, for a simulation only (see ``ClientSecurity``)."""

    def begin(
        self, stream: Stream, trust: Trust, accept: SecureAccept, on_failed: Callable[[HandshakeFailed], None]
    ) -> StreamHandler:
        """Greet the server; return who is to hear what ``stream`` says (see ``ClientSecurity.begin``)."""
        _refuse_sockets(stream)
        handshake = Handshake(stream, lambda: _SimClientChannel(trust), accept, on_failed)
        handshake.greet()
        return handshake


class _SimChannel:
    """What both sides of a ``Channel`` have in common once the handshake is complete."""

    def __init__(self) -> None:
        self.server_key = b""
        self._fed = bytearray()
        self._said = b""

    def feed(self, data: bytes) -> None:
        """Take bytes from below."""
        self._fed += data

    def read(self) -> bytes | None:
        """Return the content of the peer's next record."""
        record = self._next_record()
        if record is None:
            return None
        kind, content = record
        if (kind == _DATA) != bool(content) or kind not in {_DATA, _END}:
            raise TransportClosed("connection lost (unexpected record)")
        return content

    def seal(self, data: bytes) -> bytes:
        """Return records."""
        starts = range(0, len(data), _CONTENT_SIZE_MAX)
        return b"".join(_record(_DATA, data[start : start + _CONTENT_SIZE_MAX]) for start in starts)

    def seal_end(self) -> bytes:
        """Return a record of the end."""
        return _record(_END, b"")

    def take(self) -> bytes:
        """Return what is to be said in the handshake."""
        said, self._said = self._said, b""
        return said

    def _next_record(self) -> tuple[int, bytes] | None:
        """Return a record's kind and content when it is complete. Raises ``TransportClosed``."""
        if len(self._fed) < _HEAD_SIZE:
            return None
        head = bytes(self._fed[:_HEAD_SIZE])
        size = int.from_bytes(head[3:], "big")
        if head[1:3] != _VERSION or size > _CONTENT_SIZE_MAX:
            raise TransportClosed("connection lost (not a record)")
        if len(self._fed) < (end := _HEAD_SIZE + size):
            return None
        content = bytes(self._fed[_HEAD_SIZE:end])
        del self._fed[:end]
        return head[0], content

    def _next_word(self, opening: bytes) -> bytes | None:
        """Return what a handshake record says behind its opening. Raises ``HandshakeFailed``."""
        try:
            record = self._next_record()
        except TransportClosed as error:
            raise HandshakeFailed("the other side does not speak simulated TLS") from error
        if record is None:
            return None
        kind, content = record
        if kind != _HANDSHAKE or not content.startswith(opening):
            raise HandshakeFailed("the other side does not speak simulated TLS")
        return content.removeprefix(opening)


class _SimServerChannel(_SimChannel):
    """A ``Channel`` of the server."""

    def __init__(self, key: bytes, vouched_for: tuple[str, ...]) -> None:
        super().__init__()
        self.server_key = key
        self._vouched_for = vouched_for
        self._greeted = False

    def shake(self) -> bool:
        """Show the key to who greets, then wait for his consent."""
        if not self._greeted:
            protocol = self._next_word(_HELLO)
            if protocol is None:
                return False
            _check_protocol(protocol)
            self._greeted = True
            names = (PROTOCOL, *self._vouched_for)
            shown = len(self.server_key).to_bytes(2, "big") + self.server_key + "\0".join(names).encode()
            self._said += _record(_HANDSHAKE, _SHOWN + shown)
        return self._next_word(_FINISHED) is not None


class _SimClientChannel(_SimChannel):
    """A ``Channel`` of the client."""

    def __init__(self, trust: Trust) -> None:
        super().__init__()
        self._trust = trust
        self._said = _record(_HANDSHAKE, _HELLO + PROTOCOL.encode())

    def shake(self) -> bool:
        """Look at the key that the server shows, and consent."""
        shown = self._next_word(_SHOWN)
        if shown is None:
            return False
        key_end = 2 + int.from_bytes(shown[:2], "big")
        self.server_key = shown[2:key_end]
        protocol, *vouched_for = shown[key_end:].split(b"\0")
        _check_protocol(protocol)
        if not isinstance(self._trust, Authorities):
            check_key(self.server_key, self._trust)
        elif self._trust.host.lower().encode() not in vouched_for:
            raise ServerUntrusted("nobody vouches for the server's key", fingerprint=fingerprint(self.server_key))
        self._said += _record(_HANDSHAKE, _FINISHED)
        return True


def _record(kind: int, content: bytes) -> bytes:
    return bytes((kind, *_VERSION)) + len(content).to_bytes(2, "big") + content


def _check_protocol(protocol: bytes) -> None:
    if protocol != PROTOCOL.encode():
        raise HandshakeFailed(f"the other side does not speak {PROTOCOL}")


def _refuse_sockets(stream: Stream) -> None:
    if isinstance(stream, TcpStream):
        raise LocalProtocolError("simulated TLS protects nothing: it is not for real networks")
