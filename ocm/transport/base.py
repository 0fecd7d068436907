"""The contracts of everything that moves bytes. Each sentence is a test in ``tests/contracts``.

Transports know no message and no room. They translate their library's errors at their own edge: above
them nobody catches ``OSError``. All callbacks run on the event loop's thread, never inside the call that
caused them unless said so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from ocm.errors import HandshakeFailed, LocalProtocolError
from ocm.protocol.address import Address

_FINGERPRINT: Final = re.compile("[0-9a-f]{64}")

Batch: TypeAlias = Sequence[tuple[bytes, Address]]
"""Datagrams that arrived together, oldest first, each with where it came from.

Valid during the call only: an implementation may reuse the sequence. Datagrams from port 0 and datagrams
larger than the port's ``size_max`` are dropped (and counted in ``PortCounters``) before this.
"""


class Slot(Protocol):
    """A lent buffer for one datagram: write into ``view``, then set ``size`` and ``to``."""

    view: memoryview
    """Writable, at least ``DATAGRAM_SIZE_MAX`` bytes."""
    size: int
    """How many bytes of ``view`` to send; 0 (the start value) sends nothing."""
    to: Address
    """Where it goes."""


class Group(Protocol):
    """A prebuilt set of addresses to which the same bytes go in one call."""

    def send(self, payload: bytes, skip: int | None = None) -> None:
        """Send ``payload`` to every address of the group but the one at index ``skip``.

        What the system does not take at once waits inside the port, in order (see ``DatagramPort``).
        """
        ...


class PortCounters(Protocol):
    """What a port did, since it opened. Plain counts: reading them costs nothing."""

    received: int
    """Datagrams handed to ``on_batch``."""
    oversized: int
    """Datagrams dropped because they were longer than ``size_max``."""
    from_port_0: int
    """Datagrams dropped because their source port was 0."""
    sent: int
    """Datagrams the system took."""
    dropped: int
    """Datagrams dropped because the waiting line was full or the system refused them for good."""


class DatagramPort(Protocol):
    """A pipe of whole datagrams that may lose, repeat or reorder them.

    What arrives is handed to the ``on_batch`` given at opening. Nothing is promised about arrival of what
    is sent. Datagrams that the system does not take at once wait in a line of bounded length and go out,
    in order, when it is writable again; above the bound the oldest are dropped and counted. A destination
    the system refuses (unreachable, invalid) costs that datagram only, never the port. After ``close``
    every call but ``close`` raises ``TransportClosed``.
    """

    local: Address
    """Where this port is bound; with port 0 asked, the real one."""
    counters: PortCounters
    """What it did so far."""

    def slots(self, count: int) -> Sequence[Slot]:
        """Lend up to ``count`` (at least 1) writable slots until the next ``flush``; they come with size 0.

        Asking while all of the port's slots are lent flushes first: fill what you hold before you ask for more.
        """
        ...

    def flush(self) -> int:
        """Send the filled slots in order; return how many datagrams wait because the system would not take them."""
        ...

    def group(self, addresses: Sequence[Address]) -> Group:
        """Prebuild a group of one or more addresses. It is immutable; build another when membership changes."""
        ...

    def close(self) -> None:
        """Close. Idempotent; ``on_batch`` is not called any more."""
        ...


class Stream(Protocol):
    """Bytes in order, both ways.

    Bytes written go out in order, each ``write`` in one segment where the network allows. After ``close``,
    ``abort`` or the handler's ``connection_lost``, ``write`` and ``write_eof`` do nothing; after ``write_eof``
    alone, ``write`` raises ``LocalProtocolError``.
    """

    local: Address
    """Our end."""
    remote: Address
    """The peer's end."""

    def write(self, data: bytes) -> None:
        """Queue bytes. Never blocks: watch ``pause_writing`` of the handler."""
        ...

    def write_eof(self) -> None:
        """Half-close: no more bytes from us; what the peer sends still arrives."""
        ...

    def pause_reading(self) -> None:
        """Ask for no more ``data_received`` until ``resume_reading``. Idempotent."""
        ...

    def resume_reading(self) -> None:
        """Undo ``pause_reading``. Idempotent."""
        ...

    def close(self) -> None:
        """Send what is queued, then close. Idempotent."""
        ...

    def abort(self) -> None:
        """Close at once and forget what is queued; the peer's handler hears an error. Idempotent."""
        ...


class StreamHandler(Protocol):
    """Who takes what happens on a stream. ``connection_lost`` is always the last call, and comes once."""

    def data_received(self, data: bytes) -> None:
        """Take bytes, at least one, in any cut."""
        ...

    def eof_received(self) -> None:
        """Hear that the peer will send no more; we may still write. The stream stays open until we close it."""
        ...

    def pause_writing(self) -> None:
        """Hear that over ``write_buffer_max`` bytes wait to be sent."""
        ...

    def resume_writing(self) -> None:
        """Hear that the queue has drained again."""
        ...

    def connection_lost(self, error: Exception | None) -> None:
        """Hear that the stream is gone: None after our close or the peer's, else a ``TransportClosed``."""
        ...


Accept: TypeAlias = Callable[[Stream], StreamHandler]
"""Called for each new stream, before any byte of it is delivered; the answer hears what follows."""


class StreamListener(Protocol):
    """An open door for streams."""

    local: Address
    """Where it is open; with port 0 asked, the real one."""

    def close(self) -> None:
        """Accept no more; streams already accepted live on. Idempotent."""
        ...


class SecureStream(Stream, Protocol):
    """A ``Stream`` that nobody on the way can read or change.

    ``write_eof`` and ``close`` tell the peer that what it has is the whole. A peer that ends without saying so is
    heard as ``connection_lost`` with a ``TransportClosed``, never as ``eof_received``; so is one whose bytes are
    not what it wrote. What comes behind the peer's end is dropped. ``pause_writing`` counts bytes as they go over
    the stream below, where they are a little more.
    """

    server_key: bytes
    """The public key that the server proved to have, DER of its SubjectPublicKeyInfo: the same at both ends."""


SecureAccept: TypeAlias = Callable[[SecureStream], StreamHandler]
"""Called when a stream has become secure, before any byte of it is delivered; the answer hears what follows."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """Trust the server that has this key, whatever its certificate says.

    Raises ``LocalProtocolError`` for what cannot be a fingerprint.
    """

    fingerprint: str
    """SHA-256 of the key (SubjectPublicKeyInfo), in lowercase hex."""

    def __post_init__(self) -> None:
        if not _FINGERPRINT.fullmatch(self.fingerprint):
            raise LocalProtocolError("a fingerprint is 64 lowercase hex digits")


@dataclass(frozen=True, slots=True)
class Authorities:
    """Trust the server for which an authority vouches under this name.

    Raises ``LocalProtocolError`` for what cannot be the name of a host.
    """

    host: str
    """Host name or numeric address that the certificate must be for; a name is also told to the server."""

    def __post_init__(self) -> None:
        try:
            name = self.host.encode("idna")
        except UnicodeError:
            name = b""
        if not name or b"\0" in name:
            raise LocalProtocolError("not a host name")


@dataclass(frozen=True, slots=True)
class Unknown:
    """Trust nobody: the handshake ends with ``ServerUntrusted``, which tells the fingerprint of the server's key."""


Trust: TypeAlias = Pinned | Authorities | Unknown
"""What makes the key of a server acceptable."""


class ServerSecurity(Protocol):
    """Makes accepted streams secure.

    Of ``accept`` and ``on_failed`` one is called, once: ``accept`` when the handshake is complete and both sides
    chose TCRP/2; else ``on_failed``, and the stream below is closed. That is lost, or is closed by the caller,
    counts as failed too: so a caller gives up on a slow handshake, for nothing here knows the time.
    """

    key: bytes
    """Our public key, DER of its SubjectPublicKeyInfo: ``server_key`` of every stream."""

    def begin(
        self, stream: Stream, accept: SecureAccept, on_failed: Callable[[HandshakeFailed], None]
    ) -> StreamHandler:
        """Return who is to hear what ``stream`` says, from its first byte on. Nothing is spent before that byte."""
        ...


class ClientSecurity(Protocol):
    """Makes connected streams secure. ``accept`` and ``on_failed`` as in ``ServerSecurity``."""

    def begin(
        self, stream: Stream, trust: Trust, accept: SecureAccept, on_failed: Callable[[HandshakeFailed], None]
    ) -> StreamHandler:
        """Greet the server; return who is to hear what ``stream`` says.

        Not a byte of ours is sent to a server whose key is not acceptable: ``on_failed`` gets ``ServerUntrusted``.
        """
        ...


class Network(Protocol):
    """Where ports and streams come from: the real sockets, memory, later a simulation."""

    async def listen(self, host: str | None, port: int, accept: Accept, *, write_buffer_max: int) -> StreamListener:
        """Accept streams at ``host`` (None: every address, IPv4 and IPv6) and ``port`` (0: a free one).

        Raises:
            AddressInUse: another program has the port.
            TransportClosed: the address is not ours or cannot be listened on.
        """
        ...

    async def connect(
        self, host: str, port: int, accept: Accept, *, write_buffer_max: int, local: Address | None = None
    ) -> Stream:
        """Open a stream. ``local`` asks for a source address and port.

        Raises:
            ConnectFailed: nobody answered, or the name does not resolve.
            AddressInUse: ``local`` is taken.
        """
        ...

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
        """Open a datagram port at ``host`` (None: every address) and ``port`` (0: a free one).

        What is sent to an address that a ``multihomed`` port gave out leaves from the address of ours that was reached
        from there, where the system can do that; else from the one that the system's routes choose.

        Raises:
            AddressInUse: another program has the port.
            TransportClosed: the address is not ours.
        """
        ...

    async def resolve(self, host: str, port: int) -> Sequence[Address]:
        """Addresses of a host name, best first. Raises ``ConnectFailed`` when there is none."""
        ...

    def source(self, destination: Address) -> Address | None:
        """Return the address of ours, with port 0, from which what goes to ``destination`` leaves now.

        None: there is no way there. It sends nothing and waits for nothing.
        """
        ...
