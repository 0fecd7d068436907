"""A server and its clients as pure machines on bad links: datagrams, TLS connections, crashes; no loop, no socket.

Everything is decided by the seed. What is asserted, while it runs and at the end, is in ``checks``.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from ocm.errors import SendRefused
from ocm.protocol.address import Address, make_address
from ocm.protocol.agent import Agent, AgentEvent, Session
from ocm.protocol.entry import KeptMember, KeptRoom, Policy
from ocm.protocol.events import Event
from ocm.protocol.hub import Hub, Release, Turn
from ocm.protocol.limits import Limits
from ocm.protocol.link.base import Link
from ocm.protocol.link.log import RoomLog
from ocm.protocol.link.modern_session import ModernSession
from ocm.protocol.memory import Memo, Memory, Posted
from ocm.protocol.reception import Reception
from ocm.transport.link_model import NS_PER_S, Draws, LinkModel, stream_key
from tests.campaign.ledger import Ledger

SERVER: Final = "server"
SERVER_KEY: Final = b"the server's public key, as DER"
UDP_PORT: Final = 9001
ROOM: Final = "room"
RESEND_S: Final = 0.2
RESEND_MAX_S: Final = 4.0
GIVE_UP_S: Final = 30.0
EPOCH_S: Final = 1_700_000_000.0
STREAM_SPACE: Final = 65_536


class Crash(Exception):
    """The server is killed here and now."""


class Pipe:
    """One TLS connection: bytes in order, both ways, late where packets are lost; or it breaks."""

    def __init__(self, world: World, client: str) -> None:
        self._world = world
        self._ends = (client, SERVER)
        self._waiting: dict[str, deque[list[object]]] = {client: deque(), SERVER: deque()}
        self.handlers: dict[str, Callable[[bytes | None], None]] = {}
        self.broken = False
        self.clogged = False
        """Whether nothing gets through, and who writes is told to wait."""
        self.severed = False
        """Whether one end is gone or elsewhere: nothing gets through any more, and no end is told."""

    def send(self, source: str, data: bytes) -> None:
        if self.broken or not data:
            return
        segment: list[object] = [data, False]
        self._waiting[source].append(segment)
        self._try(source, segment, 0)

    def close(self, source: str) -> None:
        """Say that nothing more comes."""
        if not self.broken:
            segment: list[object] = [None, False]
            self._waiting[source].append(segment)
            self._try(source, segment, 0)

    def unclog(self) -> None:
        self.clogged = False
        self._world.people[self._ends[0]].settle()
        if self._world.server.alive:
            self._world.server.stir_all()

    def break_up(self) -> None:
        """Both ends hear of it, each when a packet could have told them."""
        if self.broken:
            return
        self.broken = True
        for name, handler in self.handlers.items():
            self._world.at(self._world.now_s + 0.001, partial(handler, None))
            self._waiting[name].clear()

    def _try(self, source: str, segment: list[object], tries: int) -> None:
        if self.broken or segment[1]:
            return
        world = self._world
        other = self._ends[1] if source == self._ends[0] else self._ends[0]
        data = segment[0]
        size = len(data) if isinstance(data, bytes) else 1
        _, arrivals = world.links.send(
            world.host_of(source), world.host_of(other), size, now_ns=world.now_ns, kind="tcp"
        )
        if arrivals and not (self.clogged or self.severed):
            world.at_ns(arrivals[0], partial(self._arrive, source, segment))
            return
        if tries * RESEND_S > GIVE_UP_S:
            self.break_up()
            return
        wait_s = min(RESEND_S * 2**tries, RESEND_MAX_S)
        world.at(world.now_s + wait_s, partial(self._try, source, segment, tries + 1))

    def _arrive(self, source: str, segment: list[object]) -> None:
        if self.broken or (self.severed and source == SERVER):
            return
        segment[1] = True
        waiting = self._waiting[source]
        other = self._ends[1] if source == self._ends[0] else self._ends[0]
        while waiting and waiting[0][1] and not self.broken:
            data = waiting.popleft()[0]
            self.handlers[other](data if isinstance(data, bytes) else None)
            if data is None:
                self.broken = True


class Server:
    """The server's process: everything in it is gone when it is killed, but for the ledger."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.alive = True
        self.limits = world.limits
        self._pipes: dict[ModernSession, Pipe] = {}
        self._pending: deque[tuple[Turn, float]] = deque()
        self._draws = Draws(stream_key(world.seed, "server", str(number)))
        self.hub = Hub(self.limits, epoch_s=world.epoch_s, read=world.ledger.read)
        self.reception = Reception(
            self.hub,
            self.limits,
            server_key=SERVER_KEY,
            durability="disk",
            randomness=self._draws.data,
            submit=self._submit,
            epoch_s=world.epoch_s,
        )
        self.reception.udp_port = UDP_PORT
        kept = world.ledger.load()
        self.reception.restore(kept, now_s=world.now_s)
        self._submit(self.hub.restore(kept, self._restore, now_s=world.now_s))
        self._hub_s: float | None = None
        self._rearm()

    @property
    def sessions(self) -> list[ModernSession]:
        """Those that are there."""
        return list(self._pipes)

    def _restore(self, room: KeptRoom, member: KeptMember, log: RoomLog) -> Link | None:
        return self.reception.restore_link(room, member, log)

    def connect(self, pipe: Pipe, peer: Address) -> None:
        session = self.reception.open(peer, now_s=self.world.now_s)
        self._pipes[session] = pipe
        pipe.handlers[SERVER] = partial(self._on_stream, session)

    def _on_stream(self, session: ModernSession, data: bytes | None) -> None:
        if not self.alive:
            return
        with self.world.crash_of(self):
            if data is None:
                self.reception.stream_lost(session, now_s=self.world.now_s)
            else:
                self.world.step("receive")
                for knocking in self.reception.receive_data(session, data, now_s=self.world.now_s):
                    self.reception.let_in(knocking, knocking.request.user, now_s=self.world.now_s)
            self.flush()

    def receive_datagram(self, data: bytes, source: Address) -> None:
        if not self.alive:
            return
        with self.world.crash_of(self):
            self.world.step("receive")
            self.reception.receive_batch([(data, source)], now_s=self.world.now_s)
            self.flush()

    def _submit(self, turn: Turn) -> None:
        if not turn.records:
            return
        self.world.step("append")
        delay_s = 0.0005 + 0.004 * self._draws.fraction()
        due_s = max(self.world.now_s + delay_s, self._pending[-1][1] if self._pending else 0.0)
        self._pending.append((turn, due_s))
        self.world.at(due_s, self._commit)

    def _commit(self) -> None:
        if not self.alive or not self._pending:
            return
        turn, due_s = self._pending[0]
        if due_s > self.world.now_s:
            return
        self._pending.popleft()
        with self.world.crash_of(self):
            if self.world.journal_fails():
                self._pending.clear()
                self.reception.failed(self.hub.failed(turn.up_to), now_s=self.world.now_s)
                self.flush()
                return
            self.world.step("before the commit")
            self.world.ledger.commit(turn.records)
            self.world.step("after the commit")
            self.hub.committed(turn.up_to, self._release)
            self.reception.committed(turn.up_to)
            self.flush()

    def _release(self, release: Release) -> None:
        self.world.step("release")
        self.reception.release(release, now_s=self.world.now_s)

    def flush(self) -> None:
        now_s = self.world.now_s
        while stirred := self.reception.stirred():
            for session in stirred:
                pipe = self._pipes.get(session)
                if pipe is None:
                    continue
                for address, datagram in session.datagrams_to_send(now_s=now_s):
                    self.world.step("send")
                    self.world.send_datagram(SERVER, address, datagram)
                data = session.data_to_send(space=0 if pipe.clogged else STREAM_SPACE, now_s=now_s)
                if data:
                    self.world.step("send")
                    pipe.send(SERVER, data)
                if session.is_over:
                    pipe.close(SERVER)
                    self._pipes.pop(session)
                else:
                    self._arm(session)
        self._rearm()

    def _arm(self, session: ModernSession) -> None:
        at_s = session.next_timeout_s()
        if at_s is not None:
            self.world.arm((id(self), id(session)), at_s, partial(self._on_timer, session))

    def _on_timer(self, session: ModernSession) -> None:
        if self.alive:
            with self.world.crash_of(self):
                self.reception.handle_timeout(session, now_s=self.world.now_s)
                self.flush()

    def _rearm(self) -> None:
        at_s = self.hub.next_timeout_s()
        if at_s is not None and at_s < math.inf:
            self.world.arm((id(self), 0), at_s, self._on_hub_timer)

    def _on_hub_timer(self) -> None:
        if self.alive:
            with self.world.crash_of(self):
                self._submit(self.hub.handle_timeout(now_s=self.world.now_s))
                self.flush()

    def stir_all(self) -> None:
        for session in self._pipes:
            self.reception.stir(session)
        with self.world.crash_of(self):
            self.flush()

    def unplug(self) -> None:
        """The same with its whole machine, which cannot say so."""
        self.alive = False
        for pipe in self._pipes.values():
            pipe.severed = True

    def kill(self) -> None:
        """Nothing of it runs any more; what it has sent is under way all the same."""
        self.alive = False
        for pipe in self._pipes.values():
            pipe.break_up()


@dataclass
class Said:
    """A message, as its author knows it."""

    text: str
    posted_s: float
    receipt: object | None = None


@dataclass
class Person:
    """A client's process, and what its user has seen, which outlives it."""

    name: str
    number: int
    world: World
    creates: bool
    reads: bool = True
    memory: Memory = field(default_factory=Memory)
    events: list[tuple[float, Event]] = field(default_factory=list[tuple[float, Event]])
    happenings: list[AgentEvent] = field(default_factory=list[AgentEvent])
    said: dict[str, Said] = field(default_factory=dict[str, Said])
    stored: set[str] = field(default_factory=set[str])
    """Texts that were stored before they could leave."""
    agent: Agent | None = None
    starts: int = 0
    policy: Policy = field(default_factory=Policy)
    user: str = ""
    """What it is called in the room, if not by its name."""

    @property
    def address(self) -> Address:
        return self.world.address_of(self.name)

    def start(self) -> None:
        self.starts += 1
        draws = Draws(stream_key(self.world.seed, self.name, str(self.starts)))
        self._stored: deque[tuple[list[Memo], int, float]] = deque()
        self._handed = 0
        self._pipes: dict[Session, Pipe] = {}
        self.agent = Agent(
            self.memory.copy(),
            user=self.user or self.name,
            limits=self.world.limits,
            randomness=draws.data,
            jitter=draws.fraction,
        )
        self._draws = draws
        self.agent.enter(ROOM, create=self.creates, policy=self.policy if self.creates else None, now_s=self.now_s)
        self.settle()

    @property
    def now_s(self) -> float:
        return self.world.now_s

    def post(self, text: str) -> bool:
        if self.agent is None:
            return False
        try:
            self.agent.post(ROOM, text.encode(), now_s=self.now_s)
        except SendRefused:
            return False
        self.said[text] = Said(text, self.now_s)
        self.settle()
        return True

    def pipes(self) -> list[Pipe]:
        return [] if self.agent is None else list(self._pipes.values())

    def crash(self) -> None:
        """Its process is killed; what is stored is what it will know."""
        pipes = self.pipes()
        self.agent = None
        for pipe in pipes:
            pipe.break_up()

    def restart(self) -> None:
        if self.agent is None:
            self.start()

    def said_now(self, text: str) -> Said:
        return Said(text, self.now_s)

    def suspend(self) -> Agent | None:
        """Its machine stops: nothing is heard, said or timed. Its connections go stale."""
        for pipe in self.pipes():
            pipe.clogged = True
        agent, self.agent = self.agent, None
        return agent

    def resume(self, agent: Agent | None) -> None:
        """Its machine goes on where it stopped, and hears of connections that were given up."""
        self.agent = agent
        for session, pipe in list(self._pipes.items()):
            if pipe.broken:
                del self._pipes[session]
                session.lost(now_s=self.now_s)
            else:
                pipe.clogged = False
        self.settle()

    def wake(self) -> None:
        """The machine says that it slept."""
        if self.agent is not None:
            self.agent.woke(now_s=self.now_s)
            self.settle()

    def notice(self) -> None:
        """Its driver sees that the machine has another address."""
        if self.agent is not None:
            self.agent.moved(now_s=self.now_s)
            self.settle()

    def read_on(self) -> None:
        self.reads = True
        self.settle()

    def receive_datagram(self, data: bytes, source: Address) -> None:
        if self.agent is not None:
            self.agent.receive_datagram(data, source, now_s=self.now_s)
            self.settle()

    def read_all(self) -> None:
        if self.agent is None:
            return
        while self.agent.is_in(ROOM) and (event := self.agent.read(ROOM, now_s=self.now_s)) is not None:
            self.events.append((self.now_s, event))
            self.world.on_event(self, event)

    def settle(self) -> None:
        """Do everything that a driver does after every call."""
        agent = self.agent
        if agent is None:
            return
        if self.reads:
            self.read_all()
        self._store(agent)
        for address, datagram in agent.datagrams_to_send(now_s=self.now_s):
            self.world.send_datagram(self.name, address, datagram)
        for session, pipe in list(self._pipes.items()):
            space = 0 if pipe.clogged else STREAM_SPACE
            pipe.send(self.name, session.data_to_send(space=space, now_s=self.now_s))
            if session.gave_up:
                pipe.break_up()
            if session.is_over:
                pipe.close(self.name)
                del self._pipes[session]
        self.happenings += agent.events()
        dial_s = agent.next_dial_s()
        if dial_s is not None:
            self.world.arm((id(agent), "dial"), dial_s, partial(self._dial, agent))
        at_s = agent.next_timeout_s()
        if at_s is not None:
            self.world.arm((id(agent), "timer"), at_s, partial(self._on_timer, agent))
        if self.reads:
            self.read_all()

    def _store(self, agent: Agent) -> None:
        memos = agent.memos_to_store()
        if memos:
            self._handed += len(memos)
            due_s = self.now_s + 0.001 + 0.005 * self._draws.fraction()
            if self._stored:
                due_s = max(due_s, self._stored[-1][2])
            self._stored.append((memos, self._handed, due_s))
            self.world.at(due_s, partial(self._on_stored, agent))

    def _on_stored(self, agent: Agent) -> None:
        if self.agent is not agent or not self._stored:
            return
        memos, up_to, _ = self._stored.popleft()
        for memo in memos:
            self.memory.apply(memo)
            if isinstance(memo, Posted):
                self.stored.add(memo.body.decode(errors="replace"))
        agent.stored(up_to, now_s=self.now_s)
        self.settle()

    def _on_timer(self, agent: Agent) -> None:
        if self.agent is agent:
            agent.handle_timeout(now_s=self.now_s)
            self.settle()

    def _dial(self, agent: Agent) -> None:
        if self.agent is not agent:
            return
        dial_s = agent.next_dial_s()
        if dial_s is None or dial_s > self.now_s:
            self.settle()
            return
        agent.dialling(now_s=self.now_s)
        self.world.open_pipe(self, partial(self._opened, agent))
        self.settle()

    def _opened(self, agent: Agent, pipe: Pipe | None) -> None:
        if self.agent is not agent:
            if pipe is not None:
                pipe.break_up()
            return
        if pipe is None:
            agent.dial_failed(now_s=self.now_s)
        else:
            session = agent.opened(
                server_key=SERVER_KEY,
                server_address=lambda port: self.world.address_of(SERVER, port),
                now_s=self.now_s,
            )
            self._pipes[session] = pipe
            pipe.handlers[self.name] = partial(self._on_stream, agent, session)
        self.settle()

    def _on_stream(self, agent: Agent, session: Session, data: bytes | None) -> None:
        if self.agent is not agent:
            return
        if data is None:
            self._pipes.pop(session, None)
            session.lost(now_s=self.now_s)
        else:
            session.receive_data(data, now_s=self.now_s)
        self.settle()


class World:
    """Hosts, links, one server and its people."""

    def __init__(self, seed: int, *, limits: Limits | None = None) -> None:
        self.seed = seed
        self.limits = limits or Limits()
        self.links = LinkModel(seed)
        self.ledger = Ledger()
        self.epoch_s = EPOCH_S
        """What a server's wall clock adds to the running time."""
        self.draws = Draws(stream_key(seed, "world"))
        self.now_ns = 0
        self.people: dict[str, Person] = {}
        self.crash_in: int | None = None
        self.crashes = 0
        self.failing = 0
        self.steps: dict[str, int] = {}
        self.captured: deque[tuple[str, Address, bytes]] = deque(maxlen=64)
        self.udp_blocked: set[str] = set()
        self.is_silent = False
        """Whether whoever calls the server gets no answer, and is not told that nobody is there."""
        self.datagrams = 0
        self.watchers: list[Callable[[Person, Event], None]] = []
        self._moves: dict[str, int] = {}
        self._hosts: dict[bytes, str] = {}
        self._due: list[tuple[int, int, Callable[[], object]]] = []
        self._armed: dict[object, int] = {}
        self._count = 0
        self._server_number = 0
        self.server = self._start_server()

    @property
    def now_s(self) -> float:
        return self.now_ns / NS_PER_S

    # --- time -------------------------------------------------------------------------------------------

    def at(self, at_s: float, action: Callable[[], object]) -> None:
        at_ns = round(at_s * NS_PER_S)
        while at_ns / NS_PER_S < at_s:
            at_ns += 1
        self.at_ns(at_ns, action)

    def at_ns(self, at_ns: int, action: Callable[[], object]) -> None:
        self._count += 1
        heapq.heappush(self._due, (max(at_ns, self.now_ns), self._count, action))

    def arm(self, key: object, at_s: float, action: Callable[[], object]) -> None:
        """Call ``action`` at a time; one that is armed for sooner is kept, and asks again then."""
        at_ns = round(at_s * NS_PER_S)
        while at_ns / NS_PER_S < at_s:
            at_ns += 1
        at_ns = max(at_ns, self.now_ns)
        armed_ns = self._armed.get(key)
        if armed_ns is not None and armed_ns <= at_ns:
            return
        self._armed[key] = at_ns

        def fire() -> None:
            if self._armed.get(key) == at_ns:
                del self._armed[key]
                action()

        self.at_ns(at_ns, fire)

    def run(self, *, until_s: float) -> None:
        until_ns = round(until_s * NS_PER_S)
        due = self._due
        turns = 0
        while due and due[0][0] <= until_ns:
            at_ns, _, action = heapq.heappop(due)
            if at_ns > self.now_ns:
                self.now_ns, turns = at_ns, 0
            turns += 1
            assert turns < 100_000, f"no time passes at second {self.now_s}"
            action()
        self.now_ns = max(self.now_ns, until_ns)

    # --- hosts and datagrams ------------------------------------------------------------------------------

    def host_of(self, name: str) -> str:
        return name

    def address_of(self, name: str, port: int = UDP_PORT) -> Address:
        move = self._moves.get(name, 0)
        number = 1 if name == SERVER else 2 + list(self.people).index(name)
        address = make_address(f"10.{move // 250}.{move % 250}.{number}", port)
        self._hosts[address] = name
        return address

    def move(self, name: str, *, told: bool = True, noticed: bool = False) -> None:
        """Give a host another address.

        Args:
            name: whose.
            told: whether its TLS connections break; else they only seem to be there.
            noticed: whether its client looks for its address once a second.
        """
        self._moves[name] = self._moves.get(name, 0) + 1
        for pipe in self.people[name].pipes():
            if told:
                pipe.break_up()
            else:
                pipe.severed = True
        if noticed:
            self.at(self.now_s + self.draws.fraction(), self.people[name].notice)

    def send_datagram(
        self, source: str, destination: Address, data: bytes, *, sent_from: Address | None = None
    ) -> None:
        name = self._hosts.get(destination)
        if name is None or name in self.udp_blocked or source in self.udp_blocked:
            return
        address = sent_from or self.address_of(source)
        self.captured.append((name, address, data))
        self.datagrams += 1
        _, arrivals = self.links.send(source, name, len(data), now_ns=self.now_ns)
        for at_ns in arrivals:
            self.at_ns(at_ns, partial(self._deliver, name, destination, data, address))

    def _deliver(self, name: str, destination: Address, data: bytes, source: Address) -> None:
        if self.address_of(name) != destination:
            return  # it has moved
        if name == SERVER:
            self.server.receive_datagram(data, source)
        else:
            self.people[name].receive_datagram(data, source)

    def replay(self) -> None:
        """Send again something that was seen on the way, perhaps from elsewhere."""
        if not self.captured:
            return
        name, source, data = self.captured[self.draws.bits() % len(self.captured)]
        if self.draws.bits() % 2:
            source = make_address("10.200.0.9", 4000)
        self._deliver(name, self.address_of(name), data, source)

    def open_pipe(self, person: Person, opened: Callable[[Pipe | None], None]) -> None:
        """Three round trips, with what is lost sent again; None where nobody answers, or not where it was asked."""
        move = self._moves.get(person.name, 0)
        assert person.agent is not None, "it dials"
        give_up_s = self.now_s + person.agent.patience_s

        def attempt(left: int, tries: int) -> None:
            if self.now_s > give_up_s:
                opened(None)
                return
            if self._moves.get(person.name, 0) != move:
                self.at(give_up_s + 0.001, partial(attempt, left, tries))
                return
            _, there = self.links.send(person.name, SERVER, 200, now_ns=self.now_ns, kind="tcp")
            _, back = self.links.send(SERVER, person.name, 200, now_ns=self.now_ns, kind="tcp")
            if not there or not back or self.is_silent:
                self.at(self.now_s + RESEND_S * 2**tries, partial(attempt, left, tries + 1))
                return
            trip_ns = there[0] + back[0] - 2 * self.now_ns
            if left > 1:
                self.at_ns(self.now_ns + trip_ns, partial(attempt, left - 1, 0))
            elif self.server.alive:
                self.at_ns(self.now_ns + trip_ns, done)
            else:
                opened(None)

        def done() -> None:
            if self._moves.get(person.name, 0) != move:
                self.at(give_up_s, partial(opened, None))
                return
            if not self.server.alive:
                opened(None)
                return
            pipe = Pipe(self, person.name)
            self.server.connect(pipe, self.address_of(person.name))
            opened(pipe)

        attempt(3, 0)

    # --- faults -----------------------------------------------------------------------------------------

    def step(self, name: str) -> None:
        """One of the places between which the server may be killed."""
        self.steps[name] = self.steps.get(name, 0) + 1
        if self.crash_in is not None:
            self.crash_in -= 1
            if self.crash_in <= 0:
                self.crash_in = None
                raise Crash(name)

    def crash_of(self, server: Server) -> _CrashOf:
        return _CrashOf(self, server)

    def crash_server(self, down_s: float = 0.5) -> None:
        if self.server.alive:
            self.server.kill()
            self.crashes += 1
            self.at(self.now_s + down_s, self._restart_server)

    def unplug_server(self, down_s: float) -> None:
        """Let the server's machine lose its power: nobody hears of it, and TCP goes on trying."""
        self.server.unplug()
        self.is_silent = True
        self.at(self.now_s + down_s, self._restart_server)

    def _restart_server(self) -> None:
        self.is_silent = False
        self.server = self._start_server()

    def _start_server(self) -> Server:
        self._server_number += 1
        return Server(self, self._server_number)

    def journal_fails(self) -> bool:
        if self.failing:
            self.failing -= 1
            return True
        return False

    # --- people -----------------------------------------------------------------------------------------

    def add(self, name: str, *, creates: bool = False) -> Person:
        person = self.people[name] = Person(name, len(self.people), self, creates)
        return person

    def on_event(self, person: Person, event: Event) -> None:
        for watch in self.watchers:
            watch(person, event)


class _CrashOf:
    """Turns a ``Crash`` inside the block into the end of that server."""

    def __init__(self, world: World, server: Server) -> None:
        self._world = world
        self._server = server

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, Crash):
            if self._server.alive:
                self._world.crash_server()
            return True
        return False
