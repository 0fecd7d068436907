"""From a server's address to a seat in a room: one attempt, whole or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from ocm.errors import AddressInUse, ConnectFailed, OcmError, RoomRefused, TransportClosed
from ocm.protocol.address import V4_SIZE, Address, ip_of, make_address, port_of, split_address
from ocm.protocol.control.client import (
    ClientControl,
    ClientEvent,
    MembersListed,
    Refused,
    Seated,
    Unseated,
)
from ocm.protocol.control.packets import Form, Violation
from ocm.protocol.limits import DATAGRAM_SIZE_MAX, Limits
from ocm.protocol.url import ServerUrl
from ocm.protocol.wire.classic import Operation
from ocm.transport.base import Batch, DatagramPort, Network, Stream

ANSWER_TIMEOUT_S: Final = 15.0
"""How long a server may take to answer a request: it may delay a refusal, and a person may be asked."""
CONNECT_TIMEOUT_S: Final = 10.0
_PORT_TRIES: Final = 5
_DOWNLINK_SIZE_MAX: Final = DATAGRAM_SIZE_MAX + 512
"""A little more than servers may send: a long name in place of a short token."""


class Call:
    """One control connection (a ``StreamHandler``): requests go out one at a time, each with its answer."""

    def __init__(self, form: Form, on_lost: Callable[[], None]) -> None:
        """Ask in ``form``; ``on_lost`` is called once when the server ends the connection."""
        self.stream: Stream
        self.lost = False
        self._begun = False
        self._control = ClientControl(form=form)
        self._answer: asyncio.Future[ClientEvent | OcmError] | None = None
        self._on_lost = on_lost
        self._error: OcmError | None = None
        self._turn = asyncio.Lock()

    def begin(self, stream: Stream) -> Call:
        """Take the stream."""
        self.stream = stream
        self._begun = True
        return self

    async def enter(
        self, operation: Operation, *, room: str, user: str, password: str | None, token: bytes | None
    ) -> Seated:
        """Create or join. Raises ``RoomRefused``, ``RemoteProtocolError`` or ``TransportClosed``."""
        form_password = password if self._control.form is Form.OCM else None
        form_token = token if self._control.form is Form.OCM else None
        event = await self._ask(
            lambda: self._control.send_request(
                operation, room=room, user=user, password=form_password, token=form_token
            )
        )
        assert isinstance(event, Seated), "the machine answers what was asked"
        return event

    async def members(self) -> MembersListed:
        """Ask who is in the room. Raises as ``enter``."""
        event = await self._ask(self._control.send_members)
        assert isinstance(event, MembersListed), "the machine answers what was asked"
        return event

    async def leave(self) -> None:
        """Give the seat back. Raises as ``enter``."""
        event = await self._ask(self._control.send_leave)
        assert isinstance(event, Unseated), "the machine answers what was asked"

    def hang_up(self) -> None:
        """Close without a word. Idempotent."""
        self.lost = True
        if self._begun:
            self.stream.close()

    async def _ask(self, request: Callable[[], bytes]) -> ClientEvent:
        async with self._turn:
            if self._answer is not None:  # to somebody who no longer waits: it comes before ours
                await self._wait_for(self._answer)
            if self.lost:
                raise self._error or TransportClosed("the server ended the connection")
            packet = request()
            self._answer = asyncio.get_running_loop().create_future()
            self.stream.write(packet)
            answer = await self._wait_for(self._answer)
        if isinstance(answer, OcmError):
            raise answer
        if isinstance(answer, Refused):
            raise RoomRefused(answer.code, answer.reason)
        return answer

    async def _wait_for(self, answer: asyncio.Future[ClientEvent | OcmError]) -> ClientEvent | OcmError:
        """Return the answer; one that nobody waits for to the end is still to come."""
        await asyncio.wait([answer], timeout=ANSWER_TIMEOUT_S)
        self._answer = None
        if answer.done():
            return answer.result()
        self.stream.abort()  # and hear that it is lost
        return TransportClosed("the server does not answer")

    # --- what the stream says ---------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take bytes."""
        for event in self._control.receive_data(data):
            if isinstance(event, Violation):
                self._error = event.error
                self._settle(event.error)
                self.stream.abort()
            else:
                self._settle(event)

    def eof_received(self) -> None:
        """Close too: the server has nothing more to say."""
        self.stream.close()

    def pause_writing(self) -> None:
        """Go on: requests are small and few."""

    def resume_writing(self) -> None:
        """Go on."""

    def connection_lost(self, error: Exception | None) -> None:
        """Tell who waits for an answer, and who minds the connection."""
        was_lost, self.lost = self.lost, True
        self._settle(TransportClosed("the server ended the connection"))
        if not was_lost:
            self._on_lost()

    def _settle(self, answer: ClientEvent | OcmError) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)


@dataclass(slots=True)
class Seat:
    """A place in a room: the connection it was given on, and the port its datagrams use."""

    call: Call
    port: DatagramPort
    server: Address
    """Where datagrams go."""
    form: Form
    token: bytes = field(repr=False)

    def close(self) -> None:
        """Let go of both."""
        self.call.hang_up()
        self.port.close()


async def take_seat(
    network: Network,
    url: ServerUrl,
    operation: Operation,
    *,
    room: str,
    user: str,
    password: str | None,
    token: bytes | None,
    limits: Limits,
    on_batch: Callable[[Batch], None],
    on_lost: Callable[[], None],
) -> Seat:
    """Connect, ask, and return the seat.

    Datagrams use the port number that the TCP connection has on our side: some servers send there and
    nowhere else, and ours takes it for our address until we have spoken.

    Raises:
        ConnectFailed: nobody answers.
        RoomRefused: the server said no.
        RemoteProtocolError: the server does not speak this protocol.
        TransportClosed: the connection broke.
    """
    addresses = await network.resolve(url.host, url.tcp_port)
    error: OcmError = ConnectFailed(f"no address for {url.host}")
    for address in addresses:
        try:
            call, port = await _dial(network, url, address, limits=limits, on_batch=on_batch, on_lost=on_lost)
        except TransportClosed as failed:
            error = failed
            continue
        try:
            seated = await call.enter(operation, room=room, user=user, password=password, token=token)
        except BaseException:
            call.hang_up()
            port.close()
            raise
        host, _ = split_address(call.stream.remote)
        return Seat(call, port, make_address(host, url.udp_port), seated.form, seated.token)
    raise error


async def _dial(
    network: Network,
    url: ServerUrl,
    address: Address,
    *,
    limits: Limits,
    on_batch: Callable[[Batch], None],
    on_lost: Callable[[], None],
) -> tuple[Call, DatagramPort]:
    """Open both pipes, with the same port number on our side if that can be had."""
    wildcard = "0.0.0.0" if len(ip_of(address)) == V4_SIZE - 2 else "::"
    host, tcp_port = split_address(address)
    for attempt in range(_PORT_TRIES):
        port = await network.open_port(
            wildcard, 0, on_batch, size_max=_DOWNLINK_SIZE_MAX, unsent_max=limits.unsent_datagrams_max
        )
        call = Call(url.form, on_lost)
        local = make_address(wildcard, port_of(port.local)) if attempt < _PORT_TRIES - 1 else None
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await network.connect(host, tcp_port, call.begin, write_buffer_max=limits.send_buffer_max, local=local)
        except BaseException as error:
            call.hang_up()  # cancelled or late, it may have begun all the same
            port.close()
            if isinstance(error, TimeoutError):
                raise ConnectFailed(f"no answer from {host} port {tcp_port}") from None
            if not isinstance(error, AddressInUse):
                raise
        else:
            return call, port
    raise ConnectFailed(f"no local port left to reach {host}")
