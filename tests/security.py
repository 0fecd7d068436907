"""Secure streams for tests: authorities that vouch, networks made secure, and a stream below in the test's hands."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from ocm.errors import HandshakeFailed, TransportClosed
from ocm.protocol.address import Address, make_address
from ocm.transport.base import (
    Accept,
    Batch,
    ClientSecurity,
    DatagramPort,
    Network,
    Pinned,
    SecureStream,
    ServerSecurity,
    Stream,
    StreamHandler,
    StreamListener,
)
from ocm.transport.certificate import Certificate, fingerprint, make_certificate
from ocm.transport.sim_tls import SimClientSecurity, SimServerSecurity
from ocm.transport.tls import TlsClient, TlsServer

SPARE = 4096
"""What a handshake, and the heads of records, may add to what waits below."""


@functools.cache
def a_certificate() -> Certificate:
    """Return one that nobody vouches for; making keys takes time."""
    return make_certificate(now_s=datetime.now(UTC).timestamp())


class Authority:
    """Vouches for hosts."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority")])
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        self.certificate = (
            self._build(self._name, self._key.public_key())
            .add_extension(constraints, critical=True)
            .sign(self._key, SHA256())
        )

    def keep(self, path: Path) -> Path:
        path.write_bytes(self.certificate.public_bytes(Encoding.PEM))
        return path

    def vouch_for(self, *hosts: str) -> Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a server")])
        issued = self._build(name, key.public_key()).add_extension(names, critical=False).sign(self._key, SHA256())
        return Certificate(
            key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            issued.public_bytes(Encoding.PEM) + self.certificate.public_bytes(Encoding.PEM),
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        )

    def _build(self, name: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
        )


class SecureNetwork:
    """A network whose streams are all secure: what runs over ``below`` runs over this."""

    def __init__(self, below: Network, server: ServerSecurity, client: ClientSecurity) -> None:
        self._below = below
        self._server = server
        self._client = client
        self.failures: list[HandshakeFailed] = []

    async def listen(self, host: str | None, port: int, accept: Accept, *, write_buffer_max: int) -> StreamListener:
        def begin(stream: Stream) -> StreamHandler:
            return self._server.begin(stream, accept, self.failures.append)

        return await self._below.listen(host, port, begin, write_buffer_max=write_buffer_max + SPARE)

    async def connect(
        self, host: str, port: int, accept: Accept, *, write_buffer_max: int, local: Address | None = None
    ) -> Stream:
        begun: asyncio.Future[Stream] = asyncio.get_running_loop().create_future()

        def take(stream: SecureStream) -> StreamHandler:
            if not begun.done():
                begun.set_result(stream)
            return accept(stream)

        def fail(failure: HandshakeFailed) -> None:
            if not begun.done():
                begun.set_exception(failure)

        def begin(stream: Stream) -> StreamHandler:
            return self._client.begin(stream, Pinned(fingerprint(self._server.key)), take, fail)

        below = await self._below.connect(host, port, begin, write_buffer_max=write_buffer_max + SPARE, local=local)
        try:
            return await begun
        except BaseException:
            below.abort()
            raise

    async def open_port(
        self,
        host: str | None,
        port: int,
        on_batch: Callable[[Batch], None],
        *,
        size_max: int,
        unsent_max: int,
        multihomed: bool = False,
    ) -> DatagramPort:
        return await self._below.open_port(
            host, port, on_batch, size_max=size_max, unsent_max=unsent_max, multihomed=multihomed
        )

    async def resolve(self, host: str, port: int) -> Sequence[Address]:
        return await self._below.resolve(host, port)

    def source(self, destination: Address) -> Address | None:
        return self._below.source(destination)


class Below:
    """A stream below in the test's hands: what is written waits until the test moves it."""

    def __init__(self) -> None:
        self.local = self.remote = make_address("127.0.0.1", 1)
        self.handler: StreamHandler
        self.sent = bytearray()
        self.reading = True
        self.ended = ""
        """How it was ended, if it was."""

    def write(self, data: bytes) -> None:
        if not self.ended:
            self.sent += data

    def write_eof(self) -> None:
        raise AssertionError("the stream below stays open")

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self) -> None:
        self.ended = self.ended or "closed"

    def abort(self) -> None:
        self.ended = "aborted"

    def take(self, size: int | None = None) -> bytes:
        """Return what was written, or the first of it, and forget it."""
        taken = bytes(self.sent[:size])
        del self.sent[:size]
        return taken


class Heard:
    """What one end heard: of its handshake, then of its stream."""

    def __init__(self) -> None:
        self.stream: SecureStream
        self.events: list[Any] = []
        self.data = b""
        self.on_secure: Callable[[SecureStream], object] = lambda _: None
        self.on_data: Callable[[], object] = lambda: None

    def accept(self, stream: SecureStream) -> StreamHandler:
        self.on_secure(stream)
        self.stream = stream
        self.events.append("secure")
        return self

    def fail(self, failure: HandshakeFailed) -> None:
        self.events.append(failure)

    def data_received(self, data: bytes) -> None:
        assert data
        self.data += data
        if self.events[-1] != "data":
            self.events.append("data")
        self.on_data()

    def eof_received(self) -> None:
        self.events.append("eof")

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    def connection_lost(self, error: Exception | None) -> None:
        self.events.append(error)


def make_server(kind: str) -> ServerSecurity:
    return TlsServer(a_certificate()) if kind == "tls" else SimServerSecurity(bytes(32))


def make_client(kind: str) -> ClientSecurity:
    return TlsClient() if kind == "tls" else SimClientSecurity()


def joined(kind: str, server: Heard, client: Heard) -> tuple[Below, Below]:
    """Return the streams below a client and a server, with nothing moved yet."""
    ours, theirs = Below(), Below()
    security = make_server(kind)
    theirs.handler = security.begin(theirs, server.accept, server.fail)
    ours.handler = make_client(kind).begin(ours, Pinned(fingerprint(security.key)), client.accept, client.fail)
    return ours, theirs


def move(ours: Below, theirs: Below, sizes: Iterator[int] | None = None) -> None:
    """Move what both have written, in pieces of these sizes, until nothing is left."""
    while ours.sent or theirs.sent:
        for source, destination in ((ours, theirs), (theirs, ours)):
            if source.sent:
                destination.handler.data_received(source.take(None if sizes is None else next(sizes)))


async def turns(count: int = 30) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def assert_failed(heard: Heard) -> HandshakeFailed:
    """Assert that the end heard of its failure, once, and of nothing else."""
    (failure,) = heard.events
    assert isinstance(failure, HandshakeFailed)
    return failure


def assert_broken(heard: Heard) -> None:
    assert isinstance(heard.events[-1], TransportClosed)
    assert "eof" not in heard.events
