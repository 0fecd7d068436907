"""A transport of one's own in one file: real sockets, and a line for each stream and each datagram.

A server or client takes any object with these five methods as its ``network=``. This one passes all of them on to the
sockets of ocm and looks at what arrives: TLS and sealed datagrams, so there is nothing but sizes to be seen. Another
may use a radio, a tunnel or shared memory instead.

Run it: python examples/own_transport.py
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import ocm
from ocm.protocol.address import Address, address_text
from ocm.transport.base import Accept, Batch, DatagramPort, Network, Stream, StreamHandler, StreamListener
from ocm.transport.sockets import SocketNetwork


@dataclass
class Tracing:
    """A network that shows what arrives."""

    name: str
    below: Network

    async def listen(self, host: str | None, port: int, accept: Accept, *, write_buffer_max: int) -> StreamListener:
        return await self.below.listen(host, port, self._traced(accept), write_buffer_max=write_buffer_max)

    async def connect(
        self, host: str, port: int, accept: Accept, *, write_buffer_max: int, local: Address | None = None
    ) -> Stream:
        return await self.below.connect(
            host, port, self._traced(accept), write_buffer_max=write_buffer_max, local=local
        )

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
        def show(batch: Batch) -> None:
            for datagram, source in batch:
                print(f"{self.name}: {len(datagram)} bytes by UDP from {address_text(source)}")
            on_batch(batch)

        return await self.below.open_port(
            host, port, show, size_max=size_max, unsent_max=unsent_max, multihomed=multihomed
        )

    async def resolve(self, host: str, port: int) -> Sequence[Address]:
        return await self.below.resolve(host, port)

    def source(self, destination: Address) -> Address | None:
        return self.below.source(destination)

    def _traced(self, accept: Accept) -> Accept:
        def show(stream: Stream) -> StreamHandler:
            print(f"{self.name}: a TCP stream with {address_text(stream.remote)}")
            return accept(stream)

        return show


async def main() -> None:
    async with (
        ocm.serve("tcrps://127.0.0.1:0", network=Tracing("server", SocketNetwork())) as server,
        ocm.connect(server.url, user="aiko", network=Tracing("aiko", SocketNetwork())) as aiko,
        ocm.connect(server.url, user="ben") as ben,
        aiko.create("lobby") as hosted,
    ):
        async with ben.join("lobby") as room:
            await room.send("Hello!")
            await asyncio.sleep(1)  # at first TLS carries it all, until datagrams have shown that they get through
            await room.send("Hello again!")
        async for event in hosted:
            if isinstance(event, ocm.MemberLeft):
                break


if __name__ == "__main__":
    asyncio.run(main())
