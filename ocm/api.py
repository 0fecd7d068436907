"""The composition root: the one place that turns a URL into sockets, clocks and randomness."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, Final

from ocm.client.classic import ClassicRoom, Entrance
from ocm.client.room import Room, Spawn
from ocm.environment import SIMULATION, Environment
from ocm.errors import LocalProtocolError, RemoteProtocolError
from ocm.protocol.limits import Limits
from ocm.protocol.names import room_name, user_name
from ocm.protocol.url import ServerUrl, parse_url
from ocm.server.gatekeeper import Authorize
from ocm.server.local import LocalMember
from ocm.server.server import Admits, Server, Status
from ocm.store.base import Journal
from ocm.store.memory import MemoryJournal
from ocm.transport.base import Network
from ocm.transport.sockets import SocketNetwork

_WILDCARDS: Final = frozenset({"::", "*"})
_SERVER_HOST: Final = "server"
"""Where servers live in a simulation; a client lives on a host of its user's name."""
_jitter: Final[Callable[[], float]] = random.SystemRandom().random


class EmbeddedServer:
    """A running server: what ``async with ocm.serve(...) as server`` gives."""

    def __init__(self, server: Server, host: str | None) -> None:
        """Made by ``serve``."""
        self._server = server
        self._host = host

    @property
    def url(self) -> str:
        """How to reach the server from this machine, for ``ocm.connect`` and ``ocm chat``."""
        return str(ServerUrl(self._host or "localhost", self.tcp_port, self.udp_port))

    @property
    def tcp_port(self) -> int:
        """The port of control connections."""
        return self._server.tcp_port

    @property
    def udp_port(self) -> int:
        """The port of datagrams."""
        return self._server.udp_port

    def status(self) -> Status:
        """Count what the server is doing."""
        return self._server.status()

    async def create(self, room: str, user: str) -> LocalMember:
        """Make ``room`` and sit in it as its host, without a socket. Raises ``RoomRefused``."""
        return await self._server.enter(room, user, create=True)

    async def join(self, room: str, user: str) -> LocalMember:
        """Sit in ``room`` without a socket. Raises ``RoomRefused``."""
        return await self._server.enter(room, user, create=False)

    def kick(self, room: str, user: str) -> bool:
        """Remove a member, who is told; say whether there was one of this name."""
        return self._server.kick(room, user)


@asynccontextmanager
async def serve(
    url: str = "tcrp://[::]",
    *,
    authorize: Authorize | None = None,
    admits: Admits | None = None,
    limits: Limits | None = None,
    journal: Journal | None = None,
    network: Network | None = None,
    names_in_reference: bool = False,
) -> AsyncGenerator[EmbeddedServer]:
    """Run a server: ``async with ocm.serve("tcrp://127.0.0.1:0") as server``.

    Args:
        url: where to listen; ``[::]`` is every address, IPv4 too; port 0 takes a free one.
        authorize: asked for each who wants in: True, False, or the name to let them in under.
        admits: asked for the address (``ocm.protocol.address``) of every connection; False hangs up at once.
        limits: what peers may cost.
        journal: where room logs are kept; in memory by default.
        network: instead of the real one, or of the simulation's (``ocm.testing``).
        names_in_reference: put the sender's name into the text for reference programs, whose protocol has no
            place for it.

    Raises:
        AddressInUse: a port is taken.
        TransportClosed: the address is not one of this machine.
        LocalProtocolError: the URL is not one.

    An exception inside the server (raised by ``authorize``, say) ends the block and is raised from it. At the
    end of the block rooms are closed, members told, sockets closed: within about a second.
    """
    where = parse_url(url)
    limits = limits or Limits()
    environment = _environment(_SERVER_HOST, network)
    server = Server(
        environment.network,
        journal or MemoryJournal(limits),
        limits=limits,
        randomness=environment.randomness,
        epoch_s=environment.clock() - asyncio.get_running_loop().time(),
        authorize=authorize,
        admits=admits,
        names_in_reference=names_in_reference,
    )
    host = None if where.host in _WILDCARDS else where.host
    await server.start(host, tcp_port=where.tcp_port, udp_port=where.udp_port)
    async with AsyncExitStack() as stack:
        background = await stack.enter_async_context(_Background())
        watcher = background.spawn(_raise(server.failure))
        stack.push_async_callback(_stop, server, watcher)
        yield EmbeddedServer(server, host)


async def _raise(failure: asyncio.Future[None]) -> None:
    await asyncio.shield(failure)


async def _stop(server: Server, watcher: asyncio.Task[None]) -> None:
    unheard = watcher.cancel()
    await server.stop()
    if unheard and not server.failure.cancelled():
        await server.failure  # it failed while it stopped


class Client:
    """Who you are, and at which server: what ``async with ocm.connect(...) as client`` gives."""

    def __init__(
        self, environment: Environment, url: ServerUrl, user: str, *, password: str | None, limits: Limits, spawn: Spawn
    ) -> None:
        """Made by ``connect``."""
        self._environment = environment
        self._url = url
        self._user = user
        self._password = password
        self._limits = limits
        self._spawn = spawn

    def create(self, room: str | None = None) -> Membership:
        """Make a room and be its host: ``async with client.create("lobby") as room``."""
        return self._membership(room, create=True)

    def join(self, room: str | None = None) -> Membership:
        """Enter a room: ``async with client.join("lobby") as room``. The URL's room is the default."""
        return self._membership(room, create=False)

    def _membership(self, room: str | None, *, create: bool) -> Membership:
        name = room if room is not None else self._url.room
        if name is None:
            raise LocalProtocolError("no room is named, neither here nor in the URL")
        _check_name(name, self._limits)
        entrance = Entrance(url=self._url, room=name, user=self._user, create=create, password=self._password)
        network, jitter = self._environment.network, self._environment.jitter
        return Membership(ClassicRoom(network, entrance, limits=self._limits, jitter=jitter, spawn=self._spawn))


class Membership:
    """A room to be entered at ``async with``, and left at the end of the block."""

    def __init__(self, room: Room) -> None:
        """Made by ``Client``."""
        self._room = room
        self._entered = False

    async def __aenter__(self) -> Room:
        """Enter. Raises ``RoomRefused``, ``ConnectFailed``, ``TransportClosed`` or ``RemoteProtocolError``.

        A second time raises ``LocalProtocolError``.
        """
        if self._entered:
            raise LocalProtocolError("a membership is entered once; ask the client for another")
        self._entered = True
        await self._room.enter()
        return self._room

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave; say what is left to say first, unless the block ended with an exception."""
        await self._room.leave(drain=kind is None)


@asynccontextmanager
async def connect(
    url: str,
    *,
    user: str,
    password: str | None = None,
    limits: Limits | None = None,
    network: Network | None = None,
) -> AsyncGenerator[Client]:
    """Be ``user`` at a server: ``async with ocm.connect("tcrp://127.0.0.1:12345", user="aiko") as client``.

    Args:
        url: ``tcrp://host:port/room?udp=9001``; ``&form=plain`` for programs that send bare names and tokens.
        user: your name, 1 to 32 characters.
        password: shown to the server when a room is entered, where the form has a place for it.
        limits: the allowance to keep to, and how much to keep for a slow reader.
        network: instead of the real one, or of the simulation's (``ocm.testing``).

    Nothing is sent before a room is entered: classic TCRP has a connection for each room.

    Raises:
        LocalProtocolError: the URL or the name cannot be one.
    """
    where = parse_url(url)
    limits = limits or Limits()
    if not where.tcp_port or not where.udp_port:
        raise LocalProtocolError("a server to connect to has ports above 0")
    _check_user(user, limits)
    async with _Background() as background:
        environment = _environment(user, network)
        yield Client(environment, where, user, password=password, limits=limits, spawn=background.spawn)


def _environment(host: str, network: Network | None) -> Environment:
    """Return what the program's surroundings give: the simulation it is part of, else this machine."""
    simulation = SIMULATION.get()
    if simulation is not None:
        environment = simulation(host)
        return environment if network is None else replace(environment, network=network)
    return Environment(network or SocketNetwork(), secrets.token_bytes, _jitter, time.time)


class _Background:
    """Tasks of one ``async with``: a failure ends the block and is raised from it, as itself where it is alone."""

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()

    def spawn(self, work: Coroutine[Any, Any, None], /) -> asyncio.Task[None]:
        """Start ``work``. Raises ``LocalProtocolError`` when the block is over, or about to be."""
        try:
            return self._group.create_task(work)
        except RuntimeError:
            work.close()
            raise LocalProtocolError("the client's ``async with`` has ended") from None

    async def __aenter__(self) -> _Background:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._group.__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            first, *others = group.exceptions
            if others:
                raise
            if first is not error:  # else it goes on its way, its causes untouched
                raise first from None


def _check_name(room: str, limits: Limits) -> None:
    try:
        room_name(_text(room), size_max=limits.room_size_max)
    except RemoteProtocolError as error:
        raise LocalProtocolError(str(error)) from None


def _check_user(user: str, limits: Limits) -> None:
    try:
        user_name(_text(user), code_points_max=limits.user_code_points_max)
    except RemoteProtocolError as error:
        raise LocalProtocolError(str(error)) from None


def _text(name: str) -> bytes:
    try:
        return name.encode()
    except UnicodeEncodeError:
        raise LocalProtocolError("a name is Unicode text") from None
