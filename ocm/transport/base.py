"""The contracts of everything that moves bytes. Each sentence is a test in ``tests/contracts``.

Transports know no message and no room. They translate their library's errors at their own edge: above
them nobody catches ``OSError``. All callbacks run on the event loop's thread, never inside the call that
caused them unless said so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from ocm.protocol.address import Address

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
        self, host: str | None, port: int, on_batch: Callable[[Batch], None], *, size_max: int, unsent_max: int
    ) -> DatagramPort:
        """Open a datagram port at ``host`` (None: every address) and ``port`` (0: a free one).

        Raises:
            AddressInUse: another program has the port.
            TransportClosed: the address is not ours.
        """
        ...

    async def resolve(self, host: str, port: int) -> Sequence[Address]:
        """Addresses of a host name, best first. Raises ``ConnectFailed`` when there is none."""
        ...
