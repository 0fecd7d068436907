"""``import ocm`` without ``async``: each class here waits for the object of ``ocm`` that it has the name of."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import ocm.api
from ocm.api import Reach
from ocm.blocking.background import Block, Ended
from ocm.client.room import Room as AsyncRoom
from ocm.inbox import InboxReader
from ocm.protocol.control.packets import Form
from ocm.protocol.entry import Policy
from ocm.protocol.events import Connection, Event, Message, PathState, Receipt
from ocm.protocol.limits import Limits
from ocm.server.gatekeeper import Authorize
from ocm.server.local import LocalMember as AsyncLocalMember
from ocm.server.server import Admits, Status
from ocm.store.base import Journal
from ocm.transport.base import Network
from ocm.transport.certificate import Certificate

Result = TypeVar("Result")


class _Seat:
    """What rooms of clients and of servers share: hearing."""

    def __init__(self, block: Block[Any], reader: InboxReader) -> None:
        self._block = block
        self._reader = reader
        self._heard: deque[Event] = deque()
        """Events that nobody has returned yet: an interrupted ``receive`` may leave one."""

    def receive(self, timeout_s: float | None = None) -> Event | None:
        """Return the next event, or None when the room has ended and all that happened in it was told.

        Threads that receive at the same time each get other events. A wait that ends early (time-out, Ctrl-C)
        loses none.

        Args:
            timeout_s: seconds to wait at most; 0 returns what is there already; None waits for ever.

        Raises:
            TimeoutError: nothing happened in that time.
            OcmError: the connection was lost, and finding it again was given up. Told once; then comes None.
            LocalProtocolError: the ``with`` block has ended.
        """
        self._block.check()
        due_s = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            with contextlib.suppress(IndexError):  # else another thread was faster
                return self._heard.popleft()
            if not self._block.call(lambda: _within(self._hear, due_s, "nothing happened")):
                return None

    def __iter__(self) -> Iterator[Event]:
        """Iterate over the room's events, as ``receive`` returns them, until the room ends or the block is left."""
        self._block.check()
        return iter(self._follow, None)

    def _follow(self) -> Event | None:
        try:
            return self.receive()
        except Ended:
            return None

    async def _hear(self) -> bool:
        try:
            self._heard.append(await anext(self._reader))
        except StopAsyncIteration:
            return False
        return True


class Room(_Seat):
    """A seat in a room: ``with client.join("lobby") as room``.

    A lost connection is an event, and the room is joined again by itself. All methods may be called from any
    thread; they raise ``LocalProtocolError`` once the block has ended.
    """

    def __init__(self, block: Block[Room], room: AsyncRoom) -> None:
        """Made by ``Client``."""
        super().__init__(block, aiter(room))
        self._room = room

    @property
    def name(self) -> str:
        """The room's name."""
        return self._room.name

    @property
    def user(self) -> str:
        """Our own name in it."""
        return self._room.user

    @property
    def connection(self) -> Connection:
        """Whether the room is reached just now."""
        return self._room.connection

    @property
    def encrypted(self) -> bool:
        """Whether what we say and hear is sealed between us and the server; of others ``plaintext_members`` tells."""
        return self._room.encrypted

    @property
    def returned(self) -> bool:
        """Whether this is the seat of before the program ended: its ``state`` remembers the room (TCRP/2)."""
        return self._room.returned

    @property
    def form(self) -> Form | None:
        """The form of the classic profile that the server speaks; None in TCRP/2."""
        return self._room.form

    @property
    def policy(self) -> Policy | None:
        """What kind of room it is; None where the profile does not say."""
        return self._block.ask(lambda: self._room.policy)

    @property
    def plaintext_members(self) -> int | None:
        """How many members speak the classic profile, unencrypted, as far as the room's events were read.

        None where the profile does not say.
        """
        return self._block.ask(lambda: self._room.plaintext_members)

    @property
    def path(self) -> PathState:
        """Which way messages travel just now, and how well."""
        return self._block.ask(lambda: self._room.path)

    def post(self, text: str) -> int:
        """Say ``text``, without waiting for it to leave. Return the message id that its ``Receipt`` event will carry.

        Raises ``SendRefused``: ``empty``, ``too_large``, ``not_text``, ``closed``, or ``rate`` with ``retry_after_s``.
        """
        return self._block.ask(lambda: self._room.post(text))

    def send(self, text: str, timeout_s: float | None = None) -> Receipt:
        """Say ``text``; return when it has come as far as the profile can tell.

        Raises:
            SendRefused: as ``post`` does, and with ``closed`` when the room ends first.
            TimeoutError: ``timeout_s`` seconds went by. The waiting ends, not the sending.
        """
        return self._call(lambda: self._room.send(text), timeout_s, "the message is still on its way")

    def drain(self, timeout_s: float | None = None) -> None:
        """Wait until all that was said has come as far as it will, or the room has ended.

        Raises ``TimeoutError`` when that took more than ``timeout_s`` seconds.
        """
        self._call(self._room.drain, timeout_s, "messages are still on their way")

    def members(self) -> Sequence[str]:
        """Return the names of those in the room, as far as known: first who was here before us, then who came."""
        return self._block.ask(self._room.members)

    def fetch_members(self) -> Sequence[str]:
        """Ask the server who is in the room; where it cannot be asked, return what is known."""
        return self._block.call(self._room.fetch_members)

    def history(self, count: int = 50, *, before: int | None = None) -> Sequence[Message]:
        """Return messages that were said before: the last ``count`` (1 to 256), or the last before entry ``before``.

        Raises:
            LocalProtocolError: the classic profile keeps no history.
            TransportClosed: the room is not reached just now.
            RoomRefused: the server said no.
        """
        return self._block.call(lambda: self._room.history(count, before=before))

    def kick(self, user: str) -> None:
        """Remove a member; the host's right.

        Raises as ``history`` does, and ``RoomRefused`` where we may not, or nobody has this name.
        """
        self._block.call(lambda: self._room.kick(user))

    def close(self) -> None:
        """Close the room for everybody; the host's right. Raises as ``kick`` does."""
        self._block.call(self._room.close)

    def require_encryption(self) -> None:
        """Close the room to the classic profile for good; the host's right. Raises as ``kick`` does."""
        self._block.call(self._room.require_encryption)

    def leave(self, *, drain: bool = True) -> None:
        """Say what is left to say (unless ``drain`` is False), then leave; a host takes the room along. Idempotent."""
        self._block.call(lambda: self._room.leave(drain=drain))

    def _call(self, work: Callable[[], Coroutine[Any, Any, Result]], timeout_s: float | None, late: str) -> Result:
        due_s = None if timeout_s is None else time.monotonic() + timeout_s
        return self._block.call(lambda: _within(work, due_s, late))


class LocalMember(_Seat):
    """A seat in a room of the server this program runs: ``with server.create("lobby", "referee") as room``."""

    def __init__(self, block: Block[LocalMember], member: AsyncLocalMember) -> None:
        """Made by ``EmbeddedServer``."""
        super().__init__(block, aiter(member))
        self._member = member

    @property
    def name(self) -> str:
        """The room's name."""
        return self._member.name

    @property
    def user(self) -> str:
        """Our own name in it."""
        return self._member.user

    def send(self, text: str) -> None:
        """Say ``text`` to the room.

        Raises ``SendRefused``: ``empty``, ``too_large``, ``not_text``, ``closed``, or ``rate`` with ``retry_after_s``.
        """
        self._block.call(lambda: self._member.send(text))

    def members(self) -> Sequence[str]:
        """Return the names of those in the room, in the order of joining."""
        return self._block.ask(self._member.members)

    def leave(self) -> None:
        """Leave; a host takes the room along. Idempotent."""
        self._block.call(self._member.leave)


class Client:
    """Who you are, and at which server: what ``with ocm.blocking.connect(...) as client`` gives."""

    def __init__(self, block: Block[Client], client: ocm.api.Client) -> None:
        """Made by ``connect``."""
        self._block = block
        self._client = client

    def create(self, room: str | None = None, *, policy: Policy | None = None) -> AbstractContextManager[Room]:
        """Make a room and be its host: ``with client.create("lobby") as room``.

        ``policy`` says what kind of room it is (TCRP/2 only); without it, one that is encrypted for everybody.
        Entering raises as ``join`` does.
        """
        return self._enter(lambda: self._client.create(room, policy=policy))

    def join(self, room: str | None = None) -> AbstractContextManager[Room]:
        """Enter a room: ``with client.join("lobby") as room``. The URL's room is the default.

        At the end of the block what is left to say is said (unless it ends with an exception), then the room is
        left. Entering raises:
            RoomRefused: the server said no.
            ServerUntrusted: the server's key is not the one it should be.
            HandshakeFailed: what answers does not speak TCRP/2.
            ConnectFailed: nobody answers there.
            TransportClosed: the connection broke.
            RemoteProtocolError: the server does not speak this protocol.
            LocalProtocolError: the name cannot be one, or we are in the room already.
        """
        return self._enter(lambda: self._client.join(room))

    def _enter(self, membership: Callable[[], ocm.api.Membership]) -> AbstractContextManager[Room]:
        self._block.check()

        @asynccontextmanager
        async def seat(block: Block[Room]) -> AsyncGenerator[Room]:
            async with membership() as room:
                yield Room(block, room)

        return Block(seat, self._block)


class EmbeddedServer:
    """A running server: what ``with ocm.blocking.serve(...) as server`` gives."""

    def __init__(self, block: Block[EmbeddedServer], server: ocm.api.EmbeddedServer) -> None:
        """Made by ``serve``."""
        self._block = block
        self._server = server

    @property
    def url(self) -> str:
        """How to reach the server from this machine, for ``connect`` and ``ocm chat``; with its pin, if secure."""
        return self._server.url

    @property
    def classic_url(self) -> str | None:
        """The same for programs of the classic profile, unencrypted; None where none may connect."""
        return self._server.classic_url

    @property
    def fingerprint(self) -> str | None:
        """SHA-256 of the server's public key (SubjectPublicKeyInfo), in lowercase hex; None: it speaks classic only."""
        return self._server.fingerprint

    @property
    def tcp_port(self) -> int:
        """The port of control connections."""
        return self._server.tcp_port

    @property
    def udp_port(self) -> int:
        """The port of datagrams."""
        return self._server.udp_port

    def status(self) -> Status:
        """Count what the server is doing. ``authorize`` may call it, too."""
        return self._block.ask(self._server.status)

    def create(self, room: str, user: str, *, policy: Policy | None = None) -> AbstractContextManager[LocalMember]:
        """Make ``room`` and sit in it as its host, without a socket. Entering raises ``RoomRefused``.

        Without a ``policy`` the room takes TCRP/2 only where the server speaks it, and everybody else where not.
        """
        return self._enter(lambda: self._server.create(room, user, policy=policy))

    def join(self, room: str, user: str) -> AbstractContextManager[LocalMember]:
        """Sit in ``room`` without a socket. Entering raises ``RoomRefused``."""
        return self._enter(lambda: self._server.join(room, user))

    def kick(self, room: str, user: str) -> bool:
        """Remove a member, who is told; say whether there was one of this name. ``authorize`` may call it, too."""
        return self._block.ask(lambda: self._server.kick(room, user))

    def _enter(
        self, membership: Callable[[], Coroutine[Any, Any, AsyncLocalMember]]
    ) -> AbstractContextManager[LocalMember]:
        self._block.check()

        @asynccontextmanager
        async def seat(block: Block[LocalMember]) -> AsyncGenerator[LocalMember]:
            async with await membership() as member:
                yield LocalMember(block, member)

        return Block(seat, self._block)


def serve(
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
) -> AbstractContextManager[EmbeddedServer]:
    """Run a server: ``with ocm.blocking.serve("tcrps://127.0.0.1:0") as server``.

    Arguments and errors are those of ``ocm.serve``; errors are raised on entering. ``authorize`` and ``admits``
    are called in ocm's own thread, where everybody waits for them.

    An exception inside the server (raised by ``authorize``, say) is raised by whatever the block waits for, and by
    the block. At its end rooms are closed, members told, sockets closed: within about a second.
    """

    @asynccontextmanager
    async def running(block: Block[EmbeddedServer]) -> AsyncGenerator[EmbeddedServer]:
        async with ocm.api.serve(
            url,
            udp_port=udp_port,
            data_dir=data_dir,
            certificate=certificate,
            classic=classic,
            authorize=authorize,
            admits=admits,
            limits=limits,
            journal=journal,
            network=network,
            names_in_reference=names_in_reference,
        ) as server:
            yield EmbeddedServer(block, server)

    return Block(running)


def connect(
    url: str,
    *,
    user: str,
    password: str | None = None,
    state: Path | str | None = None,
    limits: Limits | None = None,
    network: Network | None = None,
) -> AbstractContextManager[Client]:
    """Be ``user`` at a server: ``with ocm.blocking.connect("tcrps://192.168.1.5#fp=...", user="aiko") as client``.

    Arguments and errors are those of ``ocm.connect``; errors are raised on entering. A ``MemoryNetwork`` may be
    shared with other blocks: all of a program run on one event loop.
    """

    @asynccontextmanager
    async def connected(block: Block[Client]) -> AsyncGenerator[Client]:
        async with ocm.api.connect(
            url, user=user, password=password, state=state, limits=limits, network=network
        ) as client:
            yield Client(block, client)

    return Block(connected)


async def _within(work: Callable[[], Coroutine[Any, Any, Result]], due_s: float | None, late: str) -> Result:
    """Do ``work`` until ``due_s``, on the clock of the loop. Raises ``TimeoutError``, which says what is ``late``."""
    try:
        async with asyncio.timeout_at(due_s):
            return await work()
    except TimeoutError:
        raise TimeoutError(late) from None
