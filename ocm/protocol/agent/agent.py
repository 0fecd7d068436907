"""The client's machine of TCRP/2: who the user is, the rooms, a session at a time. The twin of the server's reception.

It dials nothing and stores nothing: a driver does, and says when it is done. What is to be remembered is handed out as
memos, and acted on when they are stored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, assert_never

from ocm.errors import LocalProtocolError, SendRefused, StateFailed
from ocm.protocol.address import Address
from ocm.protocol.agent.dialling import Dialler
from ocm.protocol.agent.happenings import AgentEvent, Answered, Ended, EntryRefused, Replaced, Seating, Settled
from ocm.protocol.agent.memos import Memos
from ocm.protocol.agent.questions import Question, Questions
from ocm.protocol.agent.room import AgentRoom
from ocm.protocol.agent.session import Answer, ReadBack, Recognized, Session, SessionEvent, Told
from ocm.protocol.agent.succession import Succession
from ocm.protocol.agent.wish import Verdict, Wish
from ocm.protocol.entry import Policy, Reason, Refusal
from ocm.protocol.events import (
    Connection,
    ConnectionChanged,
    Event,
    PathChanged,
    PathKind,
    PathState,
    Removed,
    RoomClosed,
    StateChanged,
)
from ocm.protocol.limits import Limits
from ocm.protocol.memory import Left, Memo, Memory, Named, RoomMemory
from ocm.protocol.session.channel import Channel
from ocm.protocol.session.keys import Randomness
from ocm.protocol.session.path import PathState as Path
from ocm.protocol.wire.classic import Stage
from ocm.protocol.wire.records import (
    CloseCode,
    Denied,
    History,
    Kick,
    MemberPage,
    Members,
    Op,
    Payload,
    Raise,
    RoomRequest,
    Seated,
    write_record,
)
from ocm.protocol.wire.sealed import read_sealed

PATIENCE_S: Final = (2.0, 3.0, 5.0, 10.0)
"""How long an attempt may take to connect, and as long again until the server knows us: the first, the second, and all
others. A connection whose network has changed says nothing any more: to wait long for it at first is to be silent."""


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
        self._named = memory.named
        self._kept = memory.named
        """What is stored of that."""
        self._remembered = dict(memory.rooms)
        self._wishes: dict[str, Wish] = {}
        self.state_failure: str | None = None
        """Why nothing can be stored; None: it can, as far as is known."""
        self._memos = Memos()
        self._events: list[AgentEvent] = []
        self._questions = Questions()
        self._abandoned: dict[int, Wish] = {}
        """Requests to enter rooms that are not wanted any more, by number."""
        self._sessions = Succession()
        self._dialler = Dialler(jitter=jitter)
        self._attempts = 0
        """How many failed before the server was last reached."""
        self._was_connected = False
        self._may_have_replaced = False
        """Whether a session that came to nothing may have ended the current one: then nobody else did."""
        self._path = PathKind.NONE

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
        """Want to be in a room.

        Raises ``LocalProtocolError`` when that is so already, or for a name or a password that no record can hold.
        """
        before = self._wishes.get(room)
        if before is not None and before.room.over is None and not before.leaving:
            raise LocalProtocolError("a room is entered once")
        memory = self._remembered.get(room) or RoomMemory()
        if before is not None and before.leaving:  # the server may go on with us as it knows us
            memory = RoomMemory(mark=before.room.last_id)
        one = AgentRoom(room, memory, self._limits)
        wish = Wish(one, user=self.user, create=create, policy=policy, password=password)
        op, request = wish.request(1)
        write_record(op, Stage.REQUEST, request)  # now, since nobody hears of it when it is asked
        if before is not None and before.room.over is None:
            self._forget(before)
        self._remembered.pop(room, None)
        self._wishes[room] = wish
        if self._sessions.open is not None:
            self._ask(self._sessions.open, wish)
        elif self._sessions.current is None:
            self._dialler.want(now_s=now_s)

    def leave(self, room: str, *, now_s: float) -> None:
        """Want to be out of a room. ``Ended`` says when it is so; nothing happens where we are not in.

        Where the server has us, or may have, it is told as soon as it can be.
        """
        wish = self._wishes.get(room)
        if wish is None or wish.room.over is not None or wish.leaving:
            return
        wish.leaving = True
        session = self._sessions.open
        if session is not None and session.speaks_for(wish.room) and not wish.asked:
            self._leave(session, wish, wish.room.handle)
        elif not (wish.was_in or wish.asked):
            self._left(wish)

    @property
    def is_leaving(self) -> bool:
        """Whether the server is still to hear that we are out of a room."""
        return any(wish.leaving for wish in self._live_wishes())

    def post(self, room: str, body: bytes, *, kind: int = 0, now_s: float) -> int:
        """Say something; return its message id. It leaves when it is stored.

        Raises ``SendRefused``: ``empty``, ``too_large``, ``closed`` or ``rate``; ``LocalProtocolError`` for a kind
        above 255; ``StateFailed`` while it could not be stored.
        """
        wish = self._wish(room)
        if wish.leaving:
            raise SendRefused("closed")
        if self.state_failure is not None:
            raise StateFailed(self.state_failure)
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
        """Return what is to be stored, in order, whole or not at all; each is handed out once, unless that fails."""
        return self._memos.hand_out()

    def stored(self, count: int, *, now_s: float) -> None:
        """Hear that ``count`` memos are stored by now, since ever: only now are they acted on."""
        if self.state_failure is not None:
            self.state_failure = None
            self._note_all(StateChanged(None))
        for memo, room in self._memos.stored(count):
            if room is not None:
                room.stored(memo)
            elif isinstance(memo, Named):
                self._kept = memo
                if memo is self._named and self._sessions.open is not None:
                    self._sessions.open.say_stored()

    def store_failed(self, why: str) -> None:
        """Hear that nothing of what is not said to be stored is: all that is handed out once more."""
        self._memos.take_back()
        if self.state_failure is None:
            self.state_failure = why
            self._note_all(StateChanged(why))

    # --- connections ------------------------------------------------------------------------------------

    def next_dial_s(self) -> float | None:
        """When to dial; None: not just now."""
        return self._dialler.due_s

    @property
    def patience_s(self) -> float:
        """How long the attempt to connect that is being made, or the next one, may take."""
        return PATIENCE_S[min(self._dialler.attempt, len(PATIENCE_S) - 1)]

    def dialling(self, *, now_s: float) -> None:
        """Hear that a connection is being made."""
        self._dialler.begin()

    def dial_failed(self, *, now_s: float) -> None:
        """Hear that none could be made."""
        self._dial_later(now_s)

    def opened(self, *, server_key: bytes, server_address: Callable[[int], Address], now_s: float) -> Session:
        """Begin a session on a TLS connection that has just been set up (see ``Session``)."""
        session = Session(
            server_key=server_key,
            server_address=server_address,
            named=self._to_show(),
            randomness=self._randomness,
            on_event=self._on_event,
            on_change=self._on_change,
            now_s=now_s,
        )
        if self._dialler.is_stopped:
            session.drop()
        else:
            self._dialler.begin()
            self._sessions.coming = session
        return session

    def woke(self, *, now_s: float) -> None:
        """Hear that the machine slept."""
        for session in self._sessions.known:
            _channel_of(session).woke(now_s=now_s)
        self._dialler.hurry(now_s=now_s)

    def moved(self, *, now_s: float) -> None:
        """Hear that the machine has another address: a server cannot know that of who only listens."""
        for session in self._sessions.known:
            _channel_of(session).moved(now_s=now_s)
        self._dialler.hurry(now_s=now_s)

    def close(self, *, now_s: float) -> None:
        """End the session without leaving any room: whoever has our memory may go on."""
        self.flush_reads()
        self._dialler.stop()
        for session in self._sessions:
            session.close(CloseCode.BYE, "")

    def disown(self) -> None:
        """Seal nothing any more: another process has the same keys."""
        for session in self._sessions:
            session.disown()

    # --- datagrams --------------------------------------------------------------------------------------

    def receive_datagram(self, data: bytes, address: Address, *, now_s: float) -> None:
        """Take a datagram. Never raises for what it reads."""
        datagram = read_sealed(data)
        if datagram is None:
            return
        for session in self._sessions:
            if session.connection_id == datagram.connection_id:
                session.receive_datagram(datagram, address, len(data), now_s=now_s)
                return

    def datagrams_to_send(self, *, now_s: float) -> list[tuple[Address, bytes]]:
        """Return what is to be sent by datagram now."""
        return [one for session in self._sessions for one in session.datagrams_to_send(now_s=now_s)]

    # --- time -------------------------------------------------------------------------------------------

    def next_timeout_s(self) -> float | None:
        """When ``handle_timeout`` has something to do, or there is something to send."""
        times = [session.next_timeout_s() for session in self._sessions]
        if self._sessions.current is not None:
            times += [wish.ask_s for wish in self._wishes.values()]
        if self._sessions.coming is not None:
            times.append(self._sessions.coming.began_s + self.patience_s)
        return min((at_s for at_s in times if at_s is not None), default=None)

    def handle_timeout(self, *, now_s: float) -> None:
        """Do what is due."""
        coming = self._sessions.coming
        if coming is not None and coming.began_s + self.patience_s <= now_s:
            coming.drop()
            coming.look(now_s=now_s)
        for each in self._sessions:
            each.handle_timeout(now_s=now_s)
        session = self._sessions.open
        if session is not None:
            for wish in list(self._wishes.values()):
                if wish.ask_s is not None and wish.ask_s <= now_s:
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
        return Connection.RECONNECTING if self._sessions.open is None else Connection.CONNECTED

    def path(self) -> PathState:
        """Return which way messages travel just now."""
        session = self._sessions.open
        if session is None:
            return PathState(PathKind.NONE)
        channel = _channel_of(session)
        return PathState(_kind_of(channel), channel.lane.recovery.round_trip.smoothed_s, channel.lane.loss)

    # --- what sessions say --------------------------------------------------------------------------------

    def _on_event(self, session: Session, event: SessionEvent, now_s: float) -> None:
        if session is self._sessions.former:
            return  # nobody waits for its answers any more
        match event:
            case Recognized():
                self._recognized(session, event, now_s)
            case Told(op, answer):
                self._told(session, op, answer, now_s)
            case ReadBack(room, message):
                self._questions.read_back(room, message)
            case _:
                assert_never(event)

    def _recognized(self, session: Session, event: Recognized, now_s: float) -> None:
        answer = event.answer
        self._path = PathKind.NONE
        if self._sessions.succeed(session, goes_on=answer.resumed):
            self._forget_questions()
        self._may_have_replaced = False
        known = self._named is not None and self._named.server == session.server
        self._named = Named(bytes.fromhex(answer.client), bytes.fromhex(answer.secret), session.server)
        self._memos.add(self._named, None)
        self._attempts = self._dialler.reach(now_s=now_s)
        for wish in self._live_wishes():
            wish.unasked()
            if not self._sessions.speaks_for(wish.room):
                wish.room.detach()
            if known and not answer.resumed:
                wish.room.forget_sent()
                self._gather(wish.room)
            self._ask(session, wish)
        self._was_connected = True

    def _on_change(self, session: Session, now_s: float) -> None:
        if session is self._sessions.coming:
            if session.is_over:
                self._sessions.coming = None
                # The server may have taken our AUTH, though its answer is lost.
                self._may_have_replaced = self._may_have_replaced or session.has_shown_name
                self._dial_later(now_s)
        elif session is self._sessions.current:
            if session.is_over:
                self._lost(session, now_s)
            else:
                channel = _channel_of(session)
                if not channel.stream_up or channel.is_stream_late:
                    self._dialler.want(now_s=now_s)
                self._look_at_path(session)
        elif session is self._sessions.former:
            for room in session.rooms.values():
                self._gather(room)
            if session.is_over:
                self._sessions.drop_former()

    def _lost(self, session: Session, now_s: float) -> None:
        """The session is over: what was under way waits for the next one, but for what the former still carries."""
        by_others = not self._may_have_replaced and not self._dialler.is_busy
        is_replaced = session.closing is CloseCode.REPLACED and by_others
        if is_replaced:
            self._sessions.drop_former()
        self._sessions.fall_back()
        self._path = PathKind.NONE
        self._forget_questions()
        for wish in self._live_wishes():
            wish.unasked()
            if not self._sessions.speaks_for(wish.room):
                wish.room.detach()
            self._gather(wish.room)
            if wish.leaving and not wish.was_in:
                self._left(wish)
        if self._dialler.is_stopped:
            return
        if is_replaced:
            self._dialler.stop()
            self._events.append(Replaced())
            return
        if self._sessions.current is None:
            self._tell_lost(0)
        if session.closing in {CloseCode.PROTOCOL, CloseCode.FLOOD, CloseCode.KICKED}:
            self._dialler.slow_down(now_s=now_s)
        else:
            self._dialler.want(now_s=now_s)

    def _dial_later(self, now_s: float) -> None:
        self._dialler.fail(now_s=now_s)
        if self._was_connected and self._sessions.open is None and not self._dialler.is_stopped:
            self._tell_lost(self._dialler.attempt)

    # --- entering and leaving ---------------------------------------------------------------------------

    def _ask(self, session: Session, wish: Wish) -> None:
        """Ask to enter a room; where it is being left, when that is done: LEAVE would overtake the answer."""
        wish.ask_s = None
        if self._questions.is_leaving(wish.name):
            return
        wish.asked = self._questions.next_number()
        wish.room.ask()
        session.request(*wish.request(wish.asked))

    def _entry_answered(self, session: Session, answer: Answer, now_s: float) -> None:
        wish = next((one for one in self._live_wishes() if one.asked and one.asked == answer.id), None)
        if wish is None:
            abandoned = self._abandoned.pop(answer.id, None)
            if isinstance(answer, Seated) and abandoned is not None and not self._is_wanted(abandoned.name):
                self._leave(session, abandoned, answer.handle)
            return
        wish.asked = 0
        if isinstance(answer, Seated):
            self._seated(session, wish, answer, now_s)
        else:
            assert isinstance(answer, Denied), "there are no other answers"
            self._denied(session, wish, answer, now_s)

    def _seated(self, session: Session, wish: Wish, seated: Seated, now_s: float) -> None:
        greeting = session.greeting
        assert greeting is not None, "HELLO comes first"
        room, again = wish.room, wish.was_in
        asks_again = room.seat(seated, burst=greeting.burst, rate=greeting.rate, now_s=now_s)
        session.seat(room)
        self._sessions.vacate(room)
        self._dialler.be_of_use()
        wish.seated()
        self._gather(room)
        if wish.leaving:
            self._leave(session, wish, room.handle)
            return
        if asks_again:
            self._ask(session, wish)
            return
        if seated.more and seated.members:
            number = self._questions.next_number()
            page = Members(id=number, handle=room.handle, after=seated.members[-1].id)
            self._question(session, Op.MEMBERS, wish, number, page)
        if wish.is_lost_told:  # not before: it could be asked nothing
            wish.is_lost_told = False
            room.note(ConnectionChanged(Connection.CONNECTED, self._attempts))
        self._events.append(Seating(room.name, again))
        self._look_at_path(session)

    def _denied(self, session: Session, wish: Wish, denied: Denied, now_s: float) -> None:
        if wish.leaving:
            self._left(wish)
            return
        verdict = wish.denied(denied, now_s=now_s)
        match verdict:
            case Verdict.WAIT:
                pass
            case Verdict.MAKE:
                self._ask(session, wish)
            case Verdict.REFUSED:
                self._forget(wish)
                self._events.append(EntryRefused(wish.name, denied.code, denied.message))
            case Verdict.GONE:
                is_missing = denied.code == Refusal.NOT_FOUND
                wish.room.end(RoomClosed(Reason.GONE) if is_missing else Removed(Reason.GONE))
                self._over(wish, refusal=denied)
            case _:
                assert_never(verdict)

    def _over(self, wish: Wish, *, refusal: Denied | None = None) -> None:
        """A room is none of ours any more: forget it. Its events can still be read. Idempotent."""
        self._abandon(wish)
        self._gather(wish.room)
        if wish.was_in:
            wish.was_in = False
            self._memos.add(Left(wish.name), None)
            self._events.append(Ended(wish.name, wish.room.over, refusal))

    def _leave(self, session: Session, wish: Wish, handle: int) -> None:
        """Say that we leave a room that the server calls ``handle``."""
        number = self._questions.next_number()
        self._question(session, Op.LEAVE, wish, number, RoomRequest(id=number, handle=handle))

    def _left(self, wish: Wish) -> None:
        """We are out of a room by our own words. Nothing happens where we were out of it already."""
        if self._wishes.get(wish.name) is wish and wish.room.over is None:
            self._forget(wish)
            self._events.append(Ended(wish.name, None))

    def _forget(self, wish: Wish) -> None:
        self._abandon(wish)
        wish.room.end(None)
        self._gather(wish.room)
        del self._wishes[wish.name]
        self._memos.add(Left(wish.name), None)

    def _abandon(self, wish: Wish) -> None:
        """Speak for a room no more; should the server still let us in, we leave at once."""
        if wish.asked:
            self._abandoned[wish.asked] = wish
        wish.unasked()
        self._sessions.unseat(wish.room)

    # --- requests ---------------------------------------------------------------------------------------

    def _request(self, room: str, op: Op, make: Callable[[int, int], Payload]) -> int | None:
        wish = self._wish(room)
        session = self._sessions.open
        if session is None or not session.speaks_for(wish.room) or self._questions.is_full:
            return None
        number = self._questions.next_number()
        self._question(session, op, wish, number, make(number, wish.room.handle))
        return number

    def _question(self, session: Session, op: Op, wish: Wish, number: int, payload: Payload) -> None:
        self._questions.add(number, Question(op, wish, payload))
        session.request(op, payload)

    def _told(self, session: Session, op: Op, answer: Answer, now_s: float) -> None:
        if op in {Op.CREATE, Op.JOIN}:
            self._entry_answered(session, answer, now_s)
            return
        question = self._questions.pop(answer.id, op)
        if question is None:
            return  # nobody waits for it any more
        wish = question.wish
        if isinstance(answer, MemberPage):
            wish.room.add_members(answer.members)
            following = question.turn(answer)
            if following is not None:
                self._questions.add(answer.id, question)
                session.request(op, following)
                return
        elif op is Op.LEAVE:
            self._left(wish)
            heir = self._wishes.get(wish.name)
            if heir is not None and heir.room.over is None and not heir.asked:
                self._ask(session, heir)
        refusal = answer if isinstance(answer, Denied) else None
        told = tuple(question.messages), tuple(question.members)
        self._events.append(Answered(answer.id, *told, refusal=refusal))

    def _forget_questions(self) -> None:
        self._abandoned.clear()
        self._events += [Answered(number, lost=True) for number in self._questions.forget()]

    # --- helpers ----------------------------------------------------------------------------------------

    def _to_show(self) -> Named | None:
        """Return who we say we are.

        A secret that is shown ends those before it: while nothing can be stored, it is the one that a crash leaves us.
        """
        named, kept = self._named, self._kept
        if named is None or kept is None or self.state_failure is None:
            return named
        return kept if (kept.client, kept.server) == (named.client, named.server) else named

    def _wish(self, room: str) -> Wish:
        wish = self._wishes.get(room)
        if wish is None:
            raise LocalProtocolError("a room that was not entered")
        return wish

    def _live_wishes(self) -> list[Wish]:
        """The rooms that are not over."""
        return [wish for wish in self._wishes.values() if wish.room.over is None]

    def _is_wanted(self, room: str) -> bool:
        wish = self._wishes.get(room)
        return wish is not None and wish.room.over is None

    def _gather(self, room: AgentRoom) -> None:
        memos, room.memos = room.memos, []
        for memo in memos:
            self._memos.add(memo, room)
        receipts, room.receipts = room.receipts, []
        self._events += [Settled(room.name, receipt) for receipt in receipts]

    def _tell_lost(self, attempt: int) -> None:
        self._note_all(ConnectionChanged(Connection.RECONNECTING, attempt))
        for wish in self._live_wishes():
            wish.is_lost_told = wish.is_lost_told or wish.was_in

    def _note_all(self, event: ConnectionChanged | PathChanged | StateChanged) -> None:
        for wish in self._live_wishes():
            if wish.was_in:
                wish.room.note(event)

    def _look_at_path(self, session: Session) -> None:
        """Tell the rooms when messages go another way; TLS while UDP is being tried is how it begins, no change."""
        for room in session.rooms.values():
            self._gather(room)
        channel = _channel_of(session)
        kind = _kind_of(channel)
        is_trying = channel.path.state in {Path.NONE, Path.PROBING}
        if kind is self._path or (kind is PathKind.TLS and is_trying and self._path is PathKind.NONE):
            return
        self._path = kind
        self._note_all(PathChanged(self.path()))


def _channel_of(session: Session) -> Channel:
    assert session.channel is not None, "a session that was current has one"
    return session.channel


def _kind_of(channel: Channel) -> PathKind:
    if channel.carries and channel.path.state is Path.UP:  # else it is all that is left, and nobody answers
        return PathKind.UDP
    return PathKind.TLS if channel.stream_up else PathKind.NONE
