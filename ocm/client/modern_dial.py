"""From a server's address to a secure connection: one attempt, whole or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from ocm.errors import HandshakeFailed, TransportClosed
from ocm.protocol.address import Address, split_address
from ocm.protocol.url import ServerUrl
from ocm.transport.base import (
    Authorities,
    ClientSecurity,
    Network,
    Pinned,
    SecureAccept,
    SecureStream,
    Stream,
    StreamHandler,
    Trust,
)

CONNECT_TIMEOUT_S: Final = 10.0
"""How long a connection and its handshake may take, where nobody says."""


@dataclass(frozen=True, slots=True)
class Dialler:
    """Knows where the server is and what makes it the right one."""

    network: Network
    security: ClientSecurity
    url: ServerUrl
    write_buffer_max: int
    """Unsent bytes above which the stream asks to wait."""

    @property
    def trust(self) -> Trust:
        """What makes the server's key acceptable: the pin, where the URL has one."""
        return Authorities(self.url.host) if self.url.fingerprint is None else Pinned(self.url.fingerprint)

    async def dial(
        self,
        *,
        prepare: Callable[[Address], Awaitable[None]],
        accept: SecureAccept,
        within_s: float = CONNECT_TIMEOUT_S,
    ) -> None:
        """Connect to one address after the other until one is the server's; ``accept`` gets the secure stream.

        Args:
            prepare: awaited before each address is tried.
            accept: called once the stream is secure, as ``ClientSecurity`` does. It may be called although this is
                cancelled at the same moment; the stream is then lost at once.
            within_s: how long a connection and its handshake may take, for each address of the server.

        Raises:
            ServerUntrusted: the server's key is not the one it should be.
            HandshakeFailed: what answers does not speak TCRP/2.
            ConnectFailed: nobody is there.
            TimeoutError: whoever is there does not answer, or not in time.
            TransportClosed: the connection broke, or this machine has no port left.
        """
        failure: TransportClosed | None = None
        for address in await self.network.resolve(self.url.host, self.url.tcp_port):
            try:
                async with asyncio.timeout(within_s):
                    await prepare(address)
                    await self._secure(address, accept)
                return
            except TimeoutError:
                continue
            except TransportClosed as error:
                if not isinstance(failure, HandshakeFailed):  # else somebody did answer, and that says more
                    failure = error
        raise failure or TimeoutError(f"no answer from {self.url.host} port {self.url.tcp_port}")

    async def _secure(self, address: Address, accept: SecureAccept) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.add_done_callback(_note_outcome)
        begun: list[Stream] = []

        def connected(stream: Stream) -> StreamHandler:
            begun.append(stream)
            return self.security.begin(stream, self.trust, accepted, failed)

        def accepted(stream: SecureStream) -> StreamHandler:
            if not done.done():
                done.set_result(None)
            return accept(stream)

        def failed(error: HandshakeFailed) -> None:
            if not done.done():
                done.set_exception(error)

        host, port = split_address(address)
        try:
            await self.network.connect(host, port, connected, write_buffer_max=self.write_buffer_max)
            await done
        except BaseException:
            done.cancel()
            for stream in begun:
                stream.abort()
            raise


def _note_outcome(done: asyncio.Future[None]) -> None:
    """Look at the outcome: where the wait was given up nobody else does, and the loop would complain."""
    if not done.cancelled():
        done.exception()
