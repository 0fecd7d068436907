"""The composition root: the one place that turns a URL into sockets, clocks and randomness."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, TypeAlias

from ocm.client.classic import ClassicRoom, Entrance
from ocm.client.modern import Agency
from ocm.client.modern_dial import Dialler
from ocm.client.room import Room
from ocm.environment import SIMULATION, Environment
from ocm.errors import ConnectFailed, LocalProtocolError, RemoteProtocolError, ServerUntrusted
from ocm.protocol.address import Address, is_local_network, is_loopback, make_address
from ocm.protocol.entry import CLASSIC_POLICY, Policy
from ocm.protocol.limits import Limits
from ocm.protocol.names import room_name, user_name
from ocm.protocol.reception import ROOM_SIZE_MAX
from ocm.protocol.url import ServerUrl, parse_url
from ocm.server.connection import NOBODY
from ocm.server.gatekeeper import Authorize
from ocm.server.local import LocalMember
from ocm.server.server import Admits, Server, Status
from ocm.store.base import ClientState, Journal
from ocm.store.client_memory import MemoryState
from ocm.store.client_sqlite import SqliteState
from ocm.store.memory import MemoryJournal
from ocm.store.sqlite import SqliteJournal
from ocm.store.worker import ThreadWorker
from ocm.transport.base import Network, SecureStream, ServerSecurity, StreamHandler
from ocm.transport.certificate import Certificate, fingerprint, keep_certificate, make_certificate
from ocm.transport.sockets import SocketNetwork
from ocm.transport.tls import TlsClient, TlsServer

Reach: TypeAlias = Literal["off", "loopback", "lan", "on"]
"""From where programs of the classic profile may connect."""
MakeRoom: TypeAlias = Callable[[str, bool, Policy | None], Room]
"""Prepares a room by its name: whether it is to be made, and as what."""
JOURNAL_FILE: Final = "rooms.db"


def _nobody(_: object) -> bool:
    return False


REACHES: Final[Mapping[Reach, Admits | None]] = {
    "off": _nobody,
    "loopback": is_loopback,
    "lan": is_local_network,
    "on": None,
}
"""Which addresses each ``Reach`` admits; None: all."""
_WILDCARDS: Final = frozenset({"::", "*"})
_SERVER_HOST: Final = "server"
"""Where servers live in a simulation; a client lives on a host of its user's name."""
_jitter: Final[Callable[[], float]] = random.SystemRandom().random


class EmbeddedServer:
    """A running server: what ``async with ocm.serve(...) as server`` gives."""

    def __init__(self, server: Server, where: ServerUrl, *, pin: str | None, classic: bool) -> None:
        """Made by ``serve``."""
        self._server = server
        self._host = "localhost" if where.host in _WILDCARDS else where.host
        self._secure = where.secure
        self._pin = pin
        self._classic = classic

    @property
    def url(self) -> str:
        """How to reach the server from this machine, for ``ocm.connect`` and ``ocm chat``; with its pin, if secure."""
        if not self._secure:
            return str(ServerUrl(self._host, self.tcp_port, self.udp_port))
        return str(ServerUrl(self._host, self.tcp_port, self.udp_port, secure=True, fingerprint=self._pin))

    @property
    def classic_url(self) -> str | None:
        """The same for programs of the classic profile, unencrypted; None where none may connect."""
        return str(ServerUrl(self._host, self.tcp_port, self.udp_port)) if self._classic else None

    @property
    def fingerprint(self) -> str | None:
        """SHA-256 of the server's public key (SubjectPublicKeyInfo), in lowercase hex; None: it speaks classic only."""
        return self._pin

    @property
    def tcp_port(self) -> int:
        """The port of connections."""
        return self._server.tcp_port

    @property
    def udp_port(self) -> int:
        """The port of datagrams."""
        return self._server.udp_port

    def status(self) -> Status:
        """Count what the server is doing."""
        return self._server.status()

    async def create(self, room: str, user: str, *, policy: Policy | None = None) -> LocalMember:
        """Make ``room`` and sit in it as its host, without a socket. Raises ``RoomRefused``.

        Without a ``policy`` the room takes TCRP/2 only where the server speaks it, and everybody else where not.
        """
        policy = policy or (Policy() if self._secure else CLASSIC_POLICY)
        return await self._server.enter(room, user, create=True, policy=policy)

    async def join(self, room: str, user: str) -> LocalMember:
        """Sit in ``room`` without a socket. Raises ``RoomRefused``."""
        return await self._server.enter(room, user, create=False)

    def kick(self, room: str, user: str) -> bool:
        """Remove a member, who is told; say whether there was one of this name."""
        return self._server.kick(room, user)


@asynccontextmanager
async def serve(
    url: str = "tcrps://[::]",
    *,
    udp_port: int | None = None,
    data_dir: Path | str | None = None,
    certificate: Certificate | None = None,
    classic: Reach | None = None,
    authorize: Authorize | None = None,
    admits: Admits | None = None,
    limits: Limits | None = None,
    journal: Journal | None = None,
    network: Network | None = None,
    names_in_reference: bool = False,
) -> AsyncGenerator[EmbeddedServer]:
    """Run a server: ``async with ocm.serve("tcrps://127.0.0.1:0") as server``.

    Args:
        url: where to listen; ``[::]`` is every address, IPv4 too; port 0 takes a free one. ``tcrps://`` speaks TCRP/2,
            and the classic profile beside it as far as ``classic`` says; ``tcrp://`` the classic profile alone.
        udp_port: the port of datagrams, 0 for a free one; without it that of the URL.
        data_dir: a directory for this server alone, where rooms with a durable policy outlive it, and where its
            certificate is kept; without it, both are gone with the server.
        certificate: your own (``ocm.load_certificate``) instead of one that the server makes.
        classic: from where programs of the classic profile may connect to a ``tcrps://`` server. Without it: nowhere
            with a certificate of your own, else from this machine (``loopback``) where the server listens on
            loopback, and from the local network (``lan``) where not.
        authorize: asked for each who wants in: True, False, or the name to let them in under.
        admits: asked for the address (``ocm.protocol.address``) of every classic connection, instead of ``classic``;
            False hangs up at once.
        limits: what peers may cost.
        journal: where room logs are kept, instead of memory or ``data_dir``.
        network: instead of the real one, or of the simulation's (``ocm.testing``).
        names_in_reference: put the sender's name into the text for reference programs, whose protocol has no
            place for it.

    Raises:
        AddressInUse: a port is taken.
        TransportClosed: the address is not one of this machine.
        LocalProtocolError: the URL is not one.
        JournalFailed: ``data_dir`` cannot be used, or another server uses it.
        CertificateFailed: the certificate cannot be used.

    An exception inside the server (raised by ``authorize``, say) ends the block and is raised from it. At the
    end of the block rooms that do not outlive it are closed, members told, sockets closed: within about a second.
    """
    where = parse_url(url)
    limits = limits or Limits()
    environment = _environment(_SERVER_HOST, network)
    folder = None if data_dir is None else Path(data_dir)
    reach = _reach(where, classic, own=certificate is not None)
    async with AsyncExitStack() as stack:
        journal = journal or _journal(folder, limits, environment)
        stack.callback(journal.close)
        security = _server_security(where, certificate, folder, environment)
        server = Server(
            environment.network,
            journal,
            limits=limits,
            randomness=environment.randomness,
            epoch_s=environment.clock() - asyncio.get_running_loop().time(),
            authorize=authorize,
            security=security,
            admits=admits or (environment.is_here if reach == "loopback" else REACHES[reach]),
            names_in_reference=names_in_reference,
        )
        host = None if where.host in _WILDCARDS else where.host
        datagrams = where.udp_port if udp_port is None else udp_port
        await server.start(host, tcp_port=where.tcp_port, udp_port=datagrams)
        background = await stack.enter_async_context(_Background())
        watcher = background.spawn(_raise(server.failure))
        stack.push_async_callback(_stop, server, watcher)
        pin = None if security is None else fingerprint(security.key)
        yield EmbeddedServer(server, where, pin=pin, classic=admits is not None or reach != "off")


def _reach(where: ServerUrl, classic: Reach | None, *, own: bool) -> Reach:
    if not where.secure:
        return classic or "on"
    if classic is not None:
        return classic
    if own:
        return "off"
    with contextlib.suppress(LocalProtocolError):
        if is_loopback(make_address(where.host, 0)):
            return "loopback"
    return "loopback" if where.host == "localhost" else "lan"


def _server_security(
    where: ServerUrl, certificate: Certificate | None, folder: Path | None, environment: Environment
) -> ServerSecurity | None:
    if not where.secure:
        return None
    if certificate is None and folder is not None:
        certificate = keep_certificate(folder, now_s=environment.clock())
    return environment.server_security(certificate)


def _journal(folder: Path | None, limits: Limits, environment: Environment) -> Journal:
    if folder is None:
        return MemoryJournal(limits)
    return SqliteJournal(
        folder / JOURNAL_FILE,
        limits,
        clock=environment.clock,
        monotonic=environment.monotonic,
        worker=environment.worker("ocm journal"),
    )


async def _raise(failure: asyncio.Future[None]) -> None:
    await asyncio.shield(failure)


async def _stop(server: Server, watcher: asyncio.Task[None]) -> None:
    unheard = watcher.cancel()
    await server.stop()
    if unheard and not server.failure.cancelled():
        await server.failure  # it failed while it stopped


class Client:
    """Who you are, and at which server: what ``async with ocm.connect(...) as client`` gives."""

    def __init__(self, make_room: MakeRoom, *, room: str | None, limits: Limits, room_size_max: int) -> None:
        """Made by ``connect``. ``room`` is the one that the URL names."""
        self._make_room = make_room
        self._default = room
        self._limits = limits
        self._room_size_max = room_size_max

    def create(self, room: str | None = None, *, policy: Policy | None = None) -> Membership:
        """Make a room and be its host: ``async with client.create("lobby") as room``.

        ``policy`` says what kind of room it is (TCRP/2 only); without it, one that is encrypted for everybody.
        """
        return self._membership(room, create=True, policy=policy)

    def join(self, room: str | None = None) -> Membership:
        """Enter a room: ``async with client.join("lobby") as room``. The URL's room is the default."""
        return self._membership(room, create=False, policy=None)

    def _membership(self, room: str | None, *, create: bool, policy: Policy | None) -> Membership:
        name = room if room is not None else self._default
        if name is None:
            raise LocalProtocolError("no room is named, neither here nor in the URL")
        _check_name(name, self._room_size_max)
        return Membership(self._make_room(name, create, policy))


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
    state: Path | str | None = None,
    limits: Limits | None = None,
    network: Network | None = None,
) -> AsyncGenerator[Client]:
    """Be ``user`` at a server: ``async with ocm.connect("tcrps://192.168.1.5#fp=...", user="aiko") as client``.

    Args:
        url: ``tcrps://host:port/room#fp=...`` for TCRP/2: the server is the one whose key has this fingerprint;
            without ``#fp=`` the one for which an authority of this system vouches. It never falls back to anything
            unencrypted. ``tcrp://host:port/room?udp=9001`` for the classic profile, which is not encrypted;
            ``&form=plain`` for programs that send bare names and tokens.
        user: your name, 1 to 32 characters.
        password: shown to the server when a room is entered, where the form has a place for it.
        state: a file in which a client of TCRP/2 remembers who it is, what it said and what it read, so that nothing is
            lost or said twice when the program ends or the machine fails. It belongs to one process at a time.
            Without it, that is kept in memory.
        limits: the allowance to keep to, and how much to keep for a slow reader.
        network: instead of the real one, or of the simulation's (``ocm.testing``).

    Nothing is sent before a room is entered. TCRP/2 has one connection for all rooms, the classic profile one for each.

    Raises:
        LocalProtocolError: the URL or the name cannot be one.
        StateLocked: another process uses ``state``.
        StateFailed: ``state`` cannot be read or written; from the block's end, too, where the last could not be.
    """
    where = parse_url(url)
    limits = limits or Limits()
    if not where.tcp_port or not where.udp_port:
        raise LocalProtocolError("a server to connect to has ports above 0")
    _check_user(user, limits)
    async with AsyncExitStack() as stack:
        background = await stack.enter_async_context(_Background())
        environment = _environment(user, network)
        spawn = background.spawn
        if where.secure:
            kept = _client_state(state, environment)
            stack.callback(kept.close)
            agency = Agency(
                environment.network,
                environment.client_security(),
                where,
                user=user,
                password=password,
                limits=limits,
                state=kept,
                randomness=environment.randomness,
                jitter=environment.jitter,
                clock=environment.clock,
                spawn=spawn,
            )
            stack.push_async_callback(agency.close)
            yield Client(agency.room, room=where.room, limits=limits, room_size_max=ROOM_SIZE_MAX)
            await agency.finish()
        else:
            if state is not None:
                raise LocalProtocolError("the classic profile has no state to keep")

            def make_room(room: str, create: bool, policy: Policy | None) -> Room:
                if policy not in {None, CLASSIC_POLICY}:
                    raise LocalProtocolError("a room of the classic profile has no policy to choose")
                entrance = Entrance(url=where, room=room, user=user, create=create, password=password)
                network, jitter = environment.network, environment.jitter
                return ClassicRoom(network, entrance, limits=limits, jitter=jitter, spawn=spawn)

            yield Client(make_room, room=where.room, limits=limits, room_size_max=limits.room_size_max)


async def unvouched_key(url: str, *, network: Network | None = None) -> str | None:
    """Return the fingerprint of the key of a TCRP/2 server for which no authority vouches; None where one does.

    It connects, looks at the key and hangs up, without a word to the server: what the key is worth is for a person to
    say. The address then gets it as its pin.

    Raises:
        LocalProtocolError: this is no ``tcrps://`` URL.
        HandshakeFailed: what answers does not speak TCRP/2, or its key cannot be read.
        TransportClosed: nobody answers, or the connection broke.
    """
    where = parse_url(url)
    if not where.secure or not where.tcp_port:
        raise LocalProtocolError("only a server of TCRP/2 has a key to show")
    limits, environment = Limits(), _environment("", network)
    security = environment.client_security()
    where = replace(where, fingerprint=None)
    dialler = Dialler(environment.network, security, where, write_buffer_max=limits.send_buffer_max)
    try:
        await dialler.dial(prepare=_prepare_nothing, accept=_hang_up)
    except ServerUntrusted as error:
        if not error.fingerprint:
            raise
        return error.fingerprint
    except TimeoutError:
        raise ConnectFailed(f"no answer from {where.host} port {where.tcp_port}") from None
    return None


async def _prepare_nothing(_: Address) -> None:
    pass


def _hang_up(stream: SecureStream) -> StreamHandler:
    stream.close()
    return NOBODY


def _client_state(state: Path | str | None, environment: Environment) -> ClientState:
    if state is None:
        return MemoryState()
    return SqliteState(Path(state), worker=environment.worker("ocm state"))


def _environment(host: str, network: Network | None) -> Environment:
    """Return what the program's surroundings give: the simulation it is part of, else this machine."""
    simulation = SIMULATION.get()
    if simulation is not None:
        environment = simulation(host)
        return environment if network is None else replace(environment, network=network)
    return Environment(
        network=network or SocketNetwork(),
        is_here=is_loopback,
        randomness=secrets.token_bytes,
        jitter=_jitter,
        clock=time.time,
        monotonic=time.monotonic,
        server_security=lambda certificate: TlsServer(certificate or make_certificate(now_s=time.time())),
        client_security=TlsClient,
        worker=ThreadWorker,
    )


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


def _check_name(room: str, size_max: int) -> None:
    try:
        room_name(_text(room), size_max=size_max)
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
