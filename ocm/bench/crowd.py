"""Many members of TCRP/2 at once, as cheap as can be: for load, not for talking.

Each enters its room as any client does, over TLS of its own. Behind that, its datagrams, which share one UDP port with
those of all others, are taken by little more than the lane that opens, seals and acknowledges them. It keeps to the
protocol as long as nothing is lost, and says nothing again.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from functools import partial
from random import random
from typing import Final

from ocm.protocol.address import Address, make_address
from ocm.protocol.agent import Agent, Session
from ocm.protocol.entry import Kind, Policy
from ocm.protocol.limits import Limits
from ocm.protocol.memory import Memory
from ocm.protocol.session.lane import Lane
from ocm.protocol.session.receiving import ENTRIES_MAX, TELL_AFTER, TELL_AFTER_S
from ocm.protocol.url import ServerUrl
from ocm.protocol.wire.frames import Ack, Message, Publish, Received, write_frame
from ocm.protocol.wire.sealed import CONNECTION_ID_SIZE, ESCAPE, FRAMES_SIZE_MAX, SEALED_ACCEPTED_MAX, read_sealed
from ocm.transport.base import Batch, DatagramPort, Pinned, SecureStream, Stream, StreamHandler
from ocm.transport.batch import send_all
from ocm.transport.sockets import SocketNetwork
from ocm.transport.tls import TlsClient

_HOST: Final = "127.0.0.1"
_ID_END: Final = len(ESCAPE) + CONNECTION_ID_SIZE
_TICK_S: Final = 0.005
"""How often it is looked at what is due: an ACK is held back for longer."""
_STAMP_SIZE: Final = 16
_READY_S: Final = 60.0
"""How long it may take until all are in and hear datagrams."""
_QUIET_S: Final = 0.3
"""How long to let their machines finish then."""


class CrowdMember:
    """One client in one room (a ``StreamHandler`` of what TLS opened)."""

    def __init__(self, crowd: Crowd, room: str, user: str, *, creates: bool, limits: Limits) -> None:
        """Want to be in ``room``."""
        self.room = room
        self._crowd = crowd
        self._agent = Agent(Memory(), user=user, limits=limits, randomness=secrets.token_bytes, jitter=random)
        self._agent.enter(room, create=creates, policy=Policy() if creates else None, now_s=crowd.now_s())
        self._agent.dialling(now_s=crowd.now_s())
        self._session: Session | None = None
        self._stream: SecureStream | None = None
        self._stored = 0
        self._lane: Lane | None = None
        self._server: Address = b""
        self._handle = 0
        self._waiting: list[bytes] = []
        self._up_to = 0
        self._early: set[int] = set()
        self._told = 0
        self._told_s = 0.0
        self._said = 0

    # --- entering: what a client's driver does ------------------------------------------------------------

    @property
    def is_seated(self) -> bool:
        """Whether it is in its room."""
        return self._session is not None and bool(self._session.rooms)

    @property
    def is_in(self) -> bool:
        """Whether it is in its room, and datagrams get through both ways."""
        channel = None if self._session is None else self._session.channel
        return self.is_seated and channel is not None and channel.carries

    def begin(self, stream: SecureStream) -> StreamHandler:
        """Hear that the connection is secure."""
        now_s, server_address = self._crowd.now_s(), partial(make_address, _HOST)
        self._stream = stream
        self._session = self._agent.opened(server_key=stream.server_key, server_address=server_address, now_s=now_s)
        self._crowd.members[self._session.connection_id] = self
        self.settle()
        return self

    def settle(self) -> None:
        """Send, store and read what is due."""
        agent, session, stream, now_s = self._agent, self._session, self._stream, self._crowd.now_s()
        if session is None or stream is None:
            return
        agent.handle_timeout(now_s=now_s)
        while agent.is_in(self.room) and agent.read(self.room, now_s=now_s) is not None:
            pass
        self._stored += len(agent.memos_to_store())
        agent.stored(self._stored, now_s=now_s)
        self._crowd.out += agent.datagrams_to_send(now_s=now_s)
        stream.write(session.data_to_send(space=65_536, now_s=now_s))

    def data_received(self, data: bytes) -> None:
        """Take bytes."""
        if self._session is not None:
            self._session.receive_data(data, now_s=self._crowd.now_s())
            self.settle()

    def eof_received(self) -> None:
        """Hear that it is over: so is the load."""

    def pause_writing(self) -> None:
        """Write on: it is little."""

    def resume_writing(self) -> None:
        """Write on."""

    def connection_lost(self, error: Exception | None) -> None:
        """Hear that it is over: so is the load."""

    # --- talking ----------------------------------------------------------------------------------------

    def take_over(self) -> None:
        """Leave the machine alone: from now on the lane is ours."""
        assert self._session is not None, "it is in its room"
        channel = self._session.channel
        assert channel is not None, "it is in its room"
        address = channel.whereabouts.current
        assert address is not None, "a client knows where its server is"
        self._lane, self._server = channel.lane, address
        [(self._handle, room)] = self._session.rooms.items()
        self._up_to = self._told = room.up_to

    def say(self, size: int) -> None:
        """Say something of ``size`` bytes, with the next datagram; its first bytes tell when."""
        self._said += 1
        body = f"{time.perf_counter_ns():0{_STAMP_SIZE}x}".encode().ljust(size, b"x")
        self._waiting.append(write_frame(Publish(self._handle, self._said, Kind.TEXT, body)))
        self._crowd.stirred[self] = None

    def take(self, data: bytes, source: Address, now_s: float) -> None:
        """Take a datagram."""
        if self._lane is None:
            self._agent.receive_datagram(data, source, now_s=now_s)
            self.settle()
            return
        datagram = read_sealed(data)
        frames = None if datagram is None else self._lane.open(datagram)
        if datagram is None or frames is None:
            return
        for frame in frames:
            if isinstance(frame, Message):
                self._hear(frame)
        eliciting = any(not isinstance(frame, Ack) for frame in frames)
        self._lane.took(datagram.packet_number, eliciting=eliciting, now_s=now_s)
        self._crowd.stirred[self] = None

    def flush(self, now_s: float) -> None:
        """Send what is due."""
        lane = self._lane
        if lane is None:
            return
        unsaid = self._up_to - self._told
        if unsaid >= TELL_AFTER or (unsaid and now_s - self._told_s > TELL_AFTER_S):
            self._told, self._told_s = self._up_to, now_s
            self._waiting.append(write_frame(Received(self._handle, self._up_to, ENTRIES_MAX)))
        due_s = lane.next_ack_s()
        if not self._waiting and (due_s is None or due_s > now_s):
            return
        frames = lane.ack(now_s=now_s)
        for frame in self._waiting:
            if len(frames) + len(frame) > FRAMES_SIZE_MAX:
                self._crowd.out.append((self._server, lane.seal(frames)))
                frames = b""
            frames += frame
        self._waiting.clear()
        self._crowd.out.append((self._server, lane.seal(frames)))

    def _hear(self, message: Message) -> None:
        if message.seq <= self._up_to or message.seq in self._early:
            self._crowd.doubled += 1
            return
        self._early.add(message.seq)
        while self._up_to + 1 in self._early:
            self._up_to += 1
            self._early.discard(self._up_to)
        if message.kind == Kind.TEXT:
            self._crowd.heard += 1
            self._crowd.sample(message.body)


class Crowd:
    """Rooms full of members at one server on loopback."""

    def __init__(self) -> None:
        """Begin without any."""
        self.members: dict[bytes, CrowdMember] = {}
        """By what their datagrams are called by."""
        self.seats: list[CrowdMember] = []
        """Room by room in turn: the first of each, the second of each ..."""
        self.stirred: dict[CrowdMember, None] = {}
        """Who may have something to send."""
        self.out: list[tuple[Address, bytes]] = []
        self.heard = 0
        """Messages that were heard, by their authors too."""
        self.doubled = 0
        """Entries that came again: the server took them for lost."""
        self.latencies_ns: list[int] = []
        """From saying to hearing, of every so many messages."""
        self.sample_every = 10
        self.on_turn: Callable[[], None] = lambda: None
        """Called when datagrams came, before anything is sent: who has more to say says it."""
        self.now_s = asyncio.get_running_loop().time
        self._count = 0
        self._port: DatagramPort

    async def enter(self, url: ServerUrl, *, rooms: int, each: int, limits: Limits) -> None:
        """Fill ``rooms`` rooms with ``each`` members. Raises ``TimeoutError`` when they do not get in."""
        network, security = SocketNetwork(), TlsClient()
        self._port = await network.open_port(_HOST, 0, self._on_batch, size_max=SEALED_ACCEPTED_MAX, unsent_max=10_000)
        trust = Pinned(url.fingerprint or "")

        async def dial(member: CrowdMember) -> None:
            def accept(stream: Stream) -> StreamHandler:
                return security.begin(stream, trust, member.begin, _fail)

            await network.connect(_HOST, url.tcp_port, accept, write_buffer_max=65_536)

        for place in range(each):
            for number in range(rooms):
                user = f"member {number}-{place}"
                member = CrowdMember(self, f"room-{number}", user, creates=not place, limits=limits)
                self.seats.append(member)
                await dial(member)
            await self._until(self._are_seated)
        await self._until(lambda: all(one.is_in for one in self.seats))
        until_s = self.now_s() + _QUIET_S
        await self._until(lambda: self.now_s() > until_s)
        for member in self.seats:
            member.take_over()
        self._tick()

    def sample(self, body: bytes) -> None:
        """Note how long a message took, now and then."""
        self._count += 1
        if not self._count % self.sample_every:
            self.latencies_ns.append(time.perf_counter_ns() - int(body[:_STAMP_SIZE], 16))

    def turn(self) -> None:
        """Send what is due of those who heard or said something."""
        now_s = self.now_s()
        stirred, self.stirred = self.stirred, {}
        for member in stirred:
            member.flush(now_s)
        if self.out:
            send_all(self._port, self.out)
            self.out = []

    def _are_seated(self) -> bool:
        return all(one.is_seated for one in self.seats)

    async def _until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(_READY_S):
            while not is_so():
                for member in self.seats:
                    member.settle()
                self.turn()
                await asyncio.sleep(_TICK_S)

    def _on_batch(self, batch: Batch) -> None:
        now_s, members = self.now_s(), self.members
        for data, source in batch:
            member = members.get(data[len(ESCAPE) : _ID_END])
            if member is not None:
                member.take(data, source, now_s)
        self.on_turn()
        self.turn()

    def _tick(self) -> None:
        self.stirred |= dict.fromkeys(self.seats)
        self.turn()
        asyncio.get_running_loop().call_later(_TICK_S, self._tick)


def _fail(error: Exception) -> None:
    raise error
