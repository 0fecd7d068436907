"""The client's machine of TCRP/2: who the user is, the rooms, a session at a time. The twin of the server's reception.

It dials nothing and stores nothing: a driver does, and says when it is done. What is to be remembered is handed out as
memos, and acted on when they are stored.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from ocm.errors import LocalProtocolError
from ocm.protocol.address import Address
from ocm.protocol.agent.room import AgentRoom
from ocm.protocol.agent.session import Answer, ReadBack, Recognized, Session, SessionEvent, SessionState, Told
from ocm.protocol.entry import Policy, Reason, Refusal
from ocm.protocol.events import (
    Connection,
    ConnectionChanged,
    Event,
    Message,
    PathChanged,
    PathKind,
    PathState,
    Receipt,
    Removed,
    RoomClosed,
)
from ocm.protocol.limits import Limits
from ocm.protocol.memory import Left, Memo, Memory, Named, RoomMemory
from ocm.protocol.session.keys import Randomness
from ocm.protocol.session.path import PathState as Path
from ocm.protocol.wire import frames
from ocm.protocol.wire.records import (
    CloseCode,
    Create,
    Denied,
    Done,
    History,
    Join,
    Kick,
    MemberPage,
    MemberRow,
    Members,
    Op,
    Payload,
    Raise,
    RoomRequest,
    Seated,
)
from ocm.protocol.wire.sealed import read_sealed

DIAL_AFTER_S: Final = (0.0, 0.25, 0.25, 0.5, 0.5, 0.5, 1.0, 2.0, 4.0)
"""Waits before each attempt to connect; the last one repeats, each with up to a quarter of jitter."""
HELLO_TIMEOUT_S: Final = 10.0
"""How long a server may take to recognise us on a connection."""
GONE_AFTER_S: Final = 15.0
"""How long a room that its server no longer knows may take to come back: its host may make it again."""
ASK_AGAIN_S: Final = 1.0
"""How long to wait before a room is asked for again."""
REQUESTS_MAX: Final = 60
"""Requests that may wait for an answer: a few below what a server takes, for JOINs."""
_UINT32: Final = 2**32


@dataclass(frozen=True, slots=True)
class Seating:
    """We are in a room, for the first time or again."""

    room: str
    again: bool


@dataclass(frozen=True, slots=True)
class EntryRefused:
    """The server does not let us into a room that we were not in."""

    room: str
    code: int
    message: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A room is none of ours any more; what is left of its events can be read."""

    room: str
    why: RoomClosed | Removed | None
    """None: we have left."""
    refusal: Denied | None = None
    """What the server said to our coming back, where that is why."""


@dataclass(frozen=True, slots=True)
class Settled:
    """The fate of a message is known. The room's events tell it, too, in their turn."""

    room: str
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Answered:
    """A request has its answer: what was read back, the members, nothing; or why not."""

    number: int
    messages: tuple[Message, ...] = ()
    members: tuple[MemberRow, ...] = ()
    """Those in the room, as the server has them now; the log may not be read so far."""
    refusal: Denied | None = None
    lost: bool = False
    """Whether the session ended first."""


@dataclass(frozen=True, slots=True)
class Replaced:
    """Another program goes on in our place: this one is over."""


AgentEvent: TypeAlias = Seating | EntryRefused | Ended | Settled | Answered | Replaced


@dataclass(slots=True)
class _Wish:
    """A room that the user wants to be in, or to be out of."""

    room: AgentRoom
    create: bool
    policy: Policy
    password: str | None = field(repr=False)
    was_in: bool
    """Whether we are, or were, a member: as far back as our memory goes."""
    is_lost_told: bool = False
    """Whether the user knows that the way to the server is lost, and not yet that it is found."""
    leaving: bool = False
    asked: int = 0
    """The id of the request to enter that waits for an answer; 0: none does."""
    ask_s: float | None = None
    """When to ask again."""
    gone_s: float | None = None
    """When to give the room up."""
    tries_create: bool = False
    refusal: Denied | None = None
    """The last answer to our asking for it."""


@dataclass(slots=True)
class _Question:
    """A request that waits for its answer."""

    op: Op
    wish: _Wish
    messages: list[Message]
    members: list[MemberRow]


class Agent:
    """Synchronous and without a clock. After every call a driver sends, stores and dials what is due, and re-arms."""

    def __init__(
        self,
        memory: Memory,
        *,
        user: str,
        limits: Limits,
        randomness: Randomness,
        jitter: Callable[[], float],
    ) -> None:
        """Begin without a connection.

        Args:
            memory: what is remembered from before; it is not changed.
            user: the user's name.
            limits: how much to keep.
            randomness: for secrets, connection ids and challenges.
            jitter: draws from [0, 1).
        """
        self.user = user
        self._limits = limits
        self._randomness = randomness
        self._jitter = jitter
        self._named = memory.named
        self._memory = memory
        self._wishes: dict[str, _Wish] = {}
        self._memos: list[Memo] = []
        self._unstored: deque[Memo] = deque()
        self._handed_out = 0
        self._events: list[AgentEvent] = []
        self._questions: dict[int, _Question] = {}
        self._last_number = 0
        self._current: Session | None = None
        self._coming: Session | None = None
        self._dialling = False
        self._dial_s: float | None = None
        self._attempt = 0
        self._attempts = 0
        """How many it took to reach the server the last time."""
        self._was_connected = False
        self._replaced = False
        self._closed = False
        self._path = PathKind.NONE
        self._now_s = 0.0

    # --- rooms ------------------------------------------------------------------------------------------

    def enter(
        self,
        room: str,
        *,
        create: bool,
        policy: Policy | None = None,
        password: str | None = None,
        now_s: float,
    ) -> None:
        """Want to be in a room. Raises ``LocalProtocolError`` when that is so already."""
        before = self._wishes.get(room)
        if before is not None and before.room.over is None and not before.leaving:
            raise LocalProtocolError("a room is entered once")
        memory = self._memory.rooms.get(room) if before is None else None
        if before is not None and before.leaving:
            self._memos.append(Left(room))  # as it will be when the server has heard of it
        one = AgentRoom(room, memory or RoomMemory(), self._limits)
        wish = _Wish(one, create, policy or Policy(), password, was_in=bool(one.log_id))
        self._wishes[room] = wish
        if self._session is not None:
            self._ask(self._session, wish)
        elif self._dial_s is None:
            self._want_connection(now_s)

    def leave(self, room: str, *, now_s: float) -> None:
        """Want to be out of a room. ``Ended`` says when it is so; nothing happens where we are not in.

        Where the server has us, or may have, it is told as soon as it can be.
        """
        wish = self._wishes.get(room)
        if wish is None or wish.room.over is not None or wish.leaving:
            return
        wish.leaving = True
        session = self._session
        if session is not None and wish.room.is_seated:
            self._say_leave(session, wish)
        elif not (wish.was_in or wish.asked):
            self._left(wish)

    @property
    def is_leaving(self) -> bool:
        """Whether the server is still to hear that we are out of a room."""
        return any(wish.leaving for wish in self._wishes.values())

    def post(self, room: str, body: bytes, *, kind: int = 0, now_s: float) -> int:
        """Say something; return its message id. It leaves when it is stored.

        Raises ``SendRefused``: ``empty``, ``too_large``, ``closed`` or ``rate``.
        """
        wish = self._wish(room)
        message_id = wish.room.post(body, kind)
        self._gather(wish.room)
        return message_id

    def read(self, room: str, *, now_s: float) -> Event | None:
        """Return the next event of a room, or None: there is none now."""
        wish = self._wish(room)
        event = wish.room.read(now_s=now_s)
        if wish.room.over is not None:
            self._over(wish)
        self._gather(wish.room)
        return event

    def is_in(self, room: str) -> bool:
        """Say whether a room is one that the user wants to be in, or has events to be read."""
        return room in self._wishes

    def is_settled(self, room: str) -> bool:
        """Say whether the fate of every message in a room is known."""
        return self._wish(room).room.is_settled

    def room(self, room: str) -> AgentRoom:
        """Return what is known of a room. Raises ``LocalProtocolError`` for one that was never entered."""
        return self._wish(room).room

    def flush_reads(self) -> None:
        """Have it remembered up to where the user has read, everywhere."""
        for wish in list(self._wishes.values()):
            wish.room.flush_reads()
            self._gather(wish.room)

    # --- requests ---------------------------------------------------------------------------------------

    def history(self, room: str, *, first: int, count: int) -> int | None:
        """Ask for ``count`` (1 to 256) entries from ``first`` on; return the number that ``Answered`` will carry.

        None: there is no connection, or too much was asked already. So with all requests below.
        """
        return self._request(
            room, Op.HISTORY, lambda number, handle: History(id=number, handle=handle, first=first, count=count)
        )

    def fetch_members(self, room: str) -> int | None:
        """Ask who is in the room; when it is answered, ``room(...).members`` says so."""
        return self._request(room, Op.MEMBERS, lambda number, handle: Members(id=number, handle=handle))

    def kick(self, room: str, member: int) -> int | None:
        """Remove a member."""
        return self._request(room, Op.KICK, lambda number, handle: Kick(id=number, handle=handle, member=member))

    def end(self, room: str) -> int | None:
        """Close the room for everybody."""
        return self._request(room, Op.END, lambda number, handle: RoomRequest(id=number, handle=handle))

    def raise_access(self, room: str) -> int | None:
        """Close the room to the classic profile."""
        return self._request(room, Op.RAISE, lambda number, handle: Raise(id=number, handle=handle, access="modern"))

    # --- the store --------------------------------------------------------------------------------------

    def memos_to_store(self) -> list[Memo]:
        """Return what is to be stored, in order; each is handed out once."""
        memos, self._memos = self._memos, []
        self._handed_out += len(memos)
        self._unstored += memos
        return memos

    def stored(self, count: int, *, now_s: float) -> None:
        """Hear that the first ``count`` memos ever handed out are stored: only now are they acted on."""
        while self._unstored and self._handed_out - len(self._unstored) < count:
            memo = self._unstored.popleft()
            if isinstance(memo, Named):
                if memo is self._named and self._session is not None:
                    self._session.say_stored()
            else:
                wish = self._wishes.get(memo.room)
                if wish is not None:
                    wish.room.stored(memo)

    # --- connections ------------------------------------------------------------------------------------

    def next_dial_s(self) -> float | None:
        """When to dial; None: not just now."""
        return None if self._dialling or self._coming is not None else self._dial_s

    def dialling(self, *, now_s: float) -> None:
        """Hear that a connection is being made."""
        self._dialling = True
        self._dial_s = None

    def dial_failed(self, *, now_s: float) -> None:
        """Hear that none could be made."""
        self._dialling = False
        self._dial_later(now_s)

    def opened(self, *, server_key: bytes, server_address: Callable[[int], Address], now_s: float) -> Session:
        """Begin a session on a TLS connection that has just been set up (see ``Session``)."""
        self._dialling = False
        self._coming = Session(
            server_key=server_key,
            server_address=server_address,
            named=self._named,
            randomness=self._randomness,
            on_event=self._on_event,
            on_change=self._on_change,
            now_s=now_s,
        )
        if self._closed or self._replaced:
            self._coming.drop()
        return self._coming

    def woke(self, *, now_s: float) -> None:
        """Hear that the machine slept, or that its network changed."""
        if self._current is not None and self._current.channel is not None:
            self._current.channel.woke(now_s=now_s)
        elif self._dial_s is not None:
            self._dial_s = now_s

    def close(self, *, now_s: float) -> None:
        """End the session without leaving any room: whoever has our memory may go on."""
        self.flush_reads()
        self._closed = True
        self._dial_s = None
        for session in (self._current, self._coming):
            if session is not None:
                session.close(CloseCode.BYE, "")

    def disown(self) -> None:
        """Seal nothing any more: another process has the same keys."""
        for session in (self._current, self._coming):
            if session is not None:
                session.disown()

    # --- datagrams --------------------------------------------------------------------------------------

    def receive_datagram(self, data: bytes, address: Address, *, now_s: float) -> None:
        """Take a datagram. Never raises for what it reads."""
        datagram = read_sealed(data)
        if datagram is None:
            return
        for session in (self._current, self._coming):
            if session is not None and session.connection_id == datagram.connection_id:
                session.receive_datagram(datagram, address, len(data), now_s=now_s)
                return

    def datagrams_to_send(self, *, now_s: float) -> list[tuple[Address, bytes]]:
        """Return what is to be sent by datagram now."""
        return [] if self._current is None else self._current.datagrams_to_send(now_s=now_s)

    # --- time -------------------------------------------------------------------------------------------

    def next_timeout_s(self) -> float | None:
        """When ``handle_timeout`` has something to do, or there is something to send."""
        times: list[float | None] = []
        session = self._current
        if session is not None:
            times.append(session.next_timeout_s())
            times += [wish.ask_s for wish in self._wishes.values()]
        if self._coming is not None:
            times.append(self._coming.began_s + HELLO_TIMEOUT_S)
        return min((at_s for at_s in times if at_s is not None), default=None)

    def handle_timeout(self, *, now_s: float) -> None:
        """Do what is due."""
        coming = self._coming
        if coming is not None and coming.began_s + HELLO_TIMEOUT_S <= now_s:
            coming.drop()
            coming.look(now_s=now_s)
        session = self._current
        if session is None:
            return
        if session.handle_timeout(now_s=now_s) and not self._dialling and self._coming is None:
            self._dial_s = now_s  # without waiting for the old one's end
        if self._session is session:
            for wish in list(self._wishes.values()):
                if wish.ask_s is not None and wish.ask_s <= now_s:
                    wish.ask_s = None
                    self._ask(session, wish)

    # --- what a driver and its user want to know ------------------------------------------------------------

    def events(self) -> list[AgentEvent]:
        """Return what happened, oldest first, since this was last asked."""
        events, self._events = self._events, []
        return events

    @property
    def has_news(self) -> bool:
        """Whether there is something to store, or to be told."""
        return bool(self._memos or self._events)

    @property
    def connection(self) -> Connection:
        """Whether the server is reached."""
        return Connection.RECONNECTING if self._session is None else Connection.CONNECTED

    def path(self) -> PathState:
        """Return which way messages travel just now."""
        session = self._session
        if session is None or session.channel is None:
            return PathState(PathKind.NONE)
        lane = session.channel.lane
        kind = self._kind(session)
        return PathState(kind, lane.recovery.round_trip.smoothed_s, lane.loss)

    # --- what sessions say --------------------------------------------------------------------------------

    @property
    def _session(self) -> Session | None:
        """The session that is open."""
        session = self._current
        return session if session is not None and session.state is SessionState.OPEN else None

    def _on_event(self, session: Session, event: SessionEvent, now_s: float) -> None:
        match event:
            case Recognized():
                self._recognized(session, event, now_s)
            case Told(op, answer) if session is self._current:
                self._told(session, op, answer, now_s)
            case ReadBack(room, message) if session is self._current:
                self._read_back(room, message)
            case _:
                pass  # of a session that was replaced

    def _recognized(self, session: Session, event: Recognized, now_s: float) -> None:
        answer = event.answer
        before, self._current, self._coming = self._current, session, None
        self._path = PathKind.NONE
        if before is not None:
            before.drop()
            self._forget_questions()
        known = self._named is not None and self._named.server == session.server
        self._named = Named(bytes.fromhex(answer.client), bytes.fromhex(answer.secret), session.server)
        self._memos.append(self._named)
        self._attempts, self._attempt = self._attempt, 0
        for wish in list(self._wishes.values()):
            if wish.room.over is None:
                wish.room.detach()
                if known and not answer.resumed:
                    wish.room.forget_sent()
                    self._gather(wish.room)
                self._ask(session, wish)
        self._was_connected = True

    def _on_change(self, session: Session, now_s: float) -> None:
        self._now_s = now_s
        if session is self._coming and session.is_over:
            self._coming = None
            self._dial_later(now_s)
        elif session is self._current:
            if session.is_over:
                self._lost(session, now_s)
            else:
                channel = session.channel
                if channel is not None and not channel.stream_up and self._dial_s is None:
                    self._redial(now_s)
                self._look_at_path(session)

    def _lost(self, session: Session, now_s: float) -> None:
        """The session is over: what was under way waits for the next one."""
        self._current = None
        self._path = PathKind.NONE
        self._forget_questions()
        for wish in list(self._wishes.values()):
            wish.asked, wish.ask_s = 0, None
            if wish.room.over is None:
                wish.room.detach()
                if wish.leaving and not wish.was_in:
                    self._left(wish)
        if session.closing is CloseCode.REPLACED and self._coming is None and not self._dialling:
            self._replaced = True
            self._dial_s = None
            self._events.append(Replaced())
            return
        if self._closed:
            return
        self._tell_lost(0)
        if session.closing in {CloseCode.PROTOCOL, CloseCode.FLOOD, CloseCode.KICKED}:
            self._dial_slowly(now_s)  # what it did not like it may not like again
        else:
            self._redial(now_s)

    def _dial_slowly(self, now_s: float) -> None:
        if self._coming is None and not self._dialling:
            self._dial_s = now_s + DIAL_AFTER_S[-1] * (1 + self._jitter() / 4)

    def _redial(self, now_s: float) -> None:
        if self._closed or self._replaced or self._dialling or self._coming is not None or self._dial_s is not None:
            return
        self._dial_s = now_s + DIAL_AFTER_S[0]

    def _want_connection(self, now_s: float) -> None:
        if self._current is None:
            self._redial(now_s)

    def _dial_later(self, now_s: float) -> None:
        if self._closed or self._replaced:
            return
        self._attempt += 1
        wait_s = DIAL_AFTER_S[min(self._attempt, len(DIAL_AFTER_S) - 1)]
        self._dial_s = now_s + wait_s * (1 + self._jitter() / 4)
        if self._was_connected and self._session is None:
            self._tell_lost(self._attempt)

    # --- entering ---------------------------------------------------------------------------------------

    def _ask(self, session: Session, wish: _Wish) -> None:
        """Ask to enter a room, by JOIN where we were in it, or others made it."""
        room = wish.room
        number = wish.asked = self._next_number()
        if wish.tries_create or (wish.create and not wish.was_in):
            policy = wish.policy
            session.request(
                Op.CREATE,
                Create(
                    id=number,
                    room=room.name,
                    user=self.user,
                    access=policy.access.value,
                    lifetime=policy.lifetime.value,
                    durable=policy.durable,
                    lowest=room.lowest_id,
                    password=wish.password,
                ),
            )
            return
        session.request(
            Op.JOIN,
            Join(
                id=number,
                room=room.name,
                user=self.user,
                log=room.log_id.hex() or None,
                last=room.up_to,
                lowest=room.lowest_id,
                password=wish.password,
            ),
        )

    def _told(self, session: Session, op: Op, answer: Answer, now_s: float) -> None:
        wish = next((one for one in self._wishes.values() if one.asked == answer.id), None)
        if wish is not None and op in {Op.CREATE, Op.JOIN}:
            wish.asked = 0
            if isinstance(answer, Seated):
                self._seated(session, wish, answer, now_s)
            elif isinstance(answer, Denied):
                self._denied(session, wish, answer, now_s)
            return
        question = self._questions.pop(answer.id, None)
        if question is None:
            return  # nobody waits for it any more
        self._answer(question, answer)

    def _seated(self, session: Session, wish: _Wish, seated: Seated, now_s: float) -> None:
        greeting = session.greeting
        assert greeting is not None, "HELLO comes first"
        room, again = wish.room, wish.was_in
        asks_again = room.seat(seated, burst=greeting.burst, rate=greeting.rate, now_s=now_s)
        session.seat(room)
        wish.was_in, wish.tries_create, wish.gone_s = True, False, None
        self._gather(room)
        if wish.leaving:
            self._say_leave(session, wish)
            return
        if asks_again:
            self._ask(session, wish)
            return
        if seated.more:
            last = max(room.members, default=0)
            self._question(session, Op.MEMBERS, wish, Members(id=self._next_number(), handle=room.handle, after=last))
        if wish.is_lost_told:  # not before: it could be asked nothing
            wish.is_lost_told = False
            room.note(ConnectionChanged(Connection.CONNECTED, self._attempts))
        self._events.append(Seating(room.name, again))
        self._look_at_path(session)

    def _denied(self, session: Session, wish: _Wish, denied: Denied, now_s: float) -> None:
        if wish.leaving:
            self._left(wish)
            return
        is_temporary = denied.wait_ms > 0 or denied.code in {Refusal.UNAVAILABLE, Refusal.RATE_LIMITED}
        if is_temporary and (wish.was_in or denied.wait_ms):
            wish.ask_s = now_s + max(denied.wait_ms / 1000, ASK_AGAIN_S)
            return
        if not wish.was_in:
            wish.room.end(None)
            self._gather(wish.room)
            del self._wishes[wish.room.name]
            self._memos.append(Left(wish.room.name))
            self._events.append(EntryRefused(wish.room.name, denied.code, denied.message))
            return
        if denied.code == Refusal.NOT_FOUND and wish.create and not wish.tries_create:
            wish.tries_create = True
            self._ask(session, wish)
            return
        wish.tries_create = False
        if wish.gone_s is None:
            wish.gone_s = now_s + GONE_AFTER_S
        if now_s < wish.gone_s:
            wish.ask_s = now_s + ASK_AGAIN_S
            return
        why = RoomClosed(Reason.GONE) if denied.code == Refusal.NOT_FOUND else Removed(Reason.GONE)
        wish.room.end(why)
        wish.refusal = denied
        self._over(wish)

    def _over(self, wish: _Wish) -> None:
        """A room is none of ours any more: forget it. Its events can still be read. Idempotent."""
        name = wish.room.name
        if wish.leaving and wish.room.over is None:
            return
        if self._current is not None:
            self._current.unseat(wish.room)
        self._gather(wish.room)
        if wish.was_in:
            wish.was_in = False
            self._memos.append(Left(name))
            self._events.append(Ended(name, wish.room.over, wish.refusal))

    def _left(self, wish: _Wish) -> None:
        if self._current is not None:
            self._current.unseat(wish.room)
        wish.room.end(None)
        if self._wishes.get(wish.room.name) is not wish:
            return  # it was entered again since
        self._gather(wish.room)
        del self._wishes[wish.room.name]
        self._memos.append(Left(wish.room.name))
        self._events.append(Ended(wish.room.name, None))

    # --- requests ---------------------------------------------------------------------------------------

    def _request(self, room: str, op: Op, make: Callable[[int, int], Payload]) -> int | None:
        wish = self._wish(room)
        session = self._session
        if session is None or not wish.room.is_seated or len(self._questions) >= REQUESTS_MAX:
            return None
        number = self._next_number()
        self._question(session, op, wish, make(number, wish.room.handle))
        return number

    def _question(self, session: Session, op: Op, wish: _Wish, payload: Payload) -> None:
        self._questions[self._last_number] = _Question(op, wish, [], [])
        session.request(op, payload)

    def _say_leave(self, session: Session, wish: _Wish) -> None:
        self._question(session, Op.LEAVE, wish, RoomRequest(id=self._next_number(), handle=wish.room.handle))

    def _answer(self, question: _Question, answer: Answer) -> None:
        wish = question.wish
        match answer:
            case MemberPage(members=rows, more=more):
                wish.room.add_members(rows)
                question.members += rows
                session = self._session
                if more and rows and session is not None:
                    follow = Members(id=answer.id, handle=wish.room.handle, after=rows[-1].id)
                    self._questions[answer.id] = question
                    session.request(Op.MEMBERS, follow)
                    return
            case Done() if question.op is Op.LEAVE:
                self._left(wish)
            case Denied() if question.op is Op.LEAVE:
                self._left(wish)
            case _:
                pass
        refusal = answer if isinstance(answer, Denied) else None
        told = tuple(question.messages), tuple(question.members)
        self._events.append(Answered(answer.id, *told, refusal=refusal))

    def _read_back(self, room: AgentRoom, message: frames.Message) -> None:
        for question in self._questions.values():
            if question.op is Op.HISTORY and question.wish.room is room:
                told = room.remember(message)
                if told is not None:
                    question.messages.append(told)
                return

    def _forget_questions(self) -> None:
        questions, self._questions = self._questions, {}
        for number, question in questions.items():
            if question.op is not Op.LEAVE:
                self._events.append(Answered(number, lost=True))

    def _next_number(self) -> int:
        self._last_number = self._last_number % (_UINT32 - 1) + 1
        return self._last_number

    # --- helpers ----------------------------------------------------------------------------------------

    def _wish(self, room: str) -> _Wish:
        wish = self._wishes.get(room)
        if wish is None:
            raise LocalProtocolError("a room that was not entered")
        return wish

    def _gather(self, room: AgentRoom) -> None:
        memos, room.memos = room.memos, []
        self._memos += memos
        receipts, room.receipts = room.receipts, []
        self._events += [Settled(room.name, receipt) for receipt in receipts]

    def _tell_lost(self, attempt: int) -> None:
        self._note_all(ConnectionChanged(Connection.RECONNECTING, attempt))
        for wish in self._wishes.values():
            wish.is_lost_told = wish.is_lost_told or (wish.was_in and wish.room.over is None)

    def _note_all(self, event: ConnectionChanged | PathChanged) -> None:
        for wish in list(self._wishes.values()):
            if wish.was_in and wish.room.over is None:
                wish.room.note(event)

    def _kind(self, session: Session) -> PathKind:
        channel = session.channel
        if channel is None:
            return PathKind.NONE
        if channel.carries:
            return PathKind.UDP
        return PathKind.TLS if channel.stream_up else PathKind.NONE

    def _look_at_path(self, session: Session) -> None:
        """Tell the rooms when messages go another way; TLS while UDP is being tried is how it begins, no change."""
        for room in session.rooms.values():
            self._gather(room)
        kind = self._kind(session)
        channel = session.channel
        is_trying = channel is not None and channel.path.state in {Path.NONE, Path.PROBING}
        if kind is self._path or (kind is PathKind.TLS and is_trying and self._path is PathKind.NONE):
            return
        self._path = kind
        if kind is not PathKind.NONE:
            self._note_all(PathChanged(self.path()))
