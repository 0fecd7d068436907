"""One room of a client: what it says and hears there, over all its sessions."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from ocm.errors import LocalProtocolError, RemoteProtocolError, SendRefused
from ocm.protocol.agent.roster import Roster
from ocm.protocol.entry import Kind, Policy
from ocm.protocol.events import Delivery, Event, Gap, LogChanged, Message, Receipt, Removed, RoomClosed
from ocm.protocol.limits import Limits
from ocm.protocol.memory import Entered, Memo, Posted, Read, Renumbered, RoomMemory, Sent, Settled
from ocm.protocol.session.lane import Load
from ocm.protocol.session.publishing import ANSWERS_KEPT, Publisher, Status
from ocm.protocol.session.publishing import Settled as Fate
from ocm.protocol.session.receiving import ENTRIES_MAX, SEQ_MAX, Receiver
from ocm.protocol.wire import frames
from ocm.protocol.wire.frames import BODY_SIZE_MAX, Publish, Published, Received, write_frame
from ocm.protocol.wire.records import MemberRow, Seated

WAITING_MAX: Final = 100_000
"""Messages that may wait to be sent."""
SHARE: Final = 0.8
"""How much of the allowance is used: the server's clock and ours are not one."""
RATE_MIN: Final = 1 / 3600
"""Messages per second of the least allowance that is believed."""
READ_AFTER: Final = 64
"""Entries read before that is remembered."""
MISSED_S: Final = 1.0
"""How long an entry that is known of may not come before somebody asks where it is."""
MARK_MAX: Final = 2**52
"""No client ever used so many message ids; a mark above would leave us none."""
_KIND_MAX: Final = 255
_CODES: Final[Mapping[int, str]] = {
    Status.TOO_LARGE: "too_large",
    Status.INVALID: "invalid",
    Status.FORBIDDEN: "forbidden",
    Status.CLOSED: "closed",
    Status.ID_REUSED: "id_reused",
}


class _Said(NamedTuple):
    """A message of the user's."""

    posted_as: int
    """Its id when it was posted: what receipts call it, whatever it is called to the server."""
    text: str


class AgentRoom:
    """A membership, or the wish for one. Whoever owns it gives it a session's handle and takes it away again."""

    def __init__(self, name: str, memory: RoomMemory, limits: Limits) -> None:
        """Be as is remembered; speak to nobody yet."""
        self.name = name
        self.memos: list[Memo] = []
        """What is to be stored."""
        self.receipts: list[Receipt] = []
        """Receipts that nobody was told of by ``read`` alone: whoever waits for one is not to depend on reading."""
        self.over: RoomClosed | Removed | None = None
        """Why it is no room of ours any more."""
        self.is_seated = False
        """Whether a session speaks for it."""
        self.head = 0
        """The newest entry that is known of."""
        self.log_id = memory.log_id
        self._limits = limits
        self._roster = Roster(members_max=limits.members_per_room_max)
        self._publisher = Publisher(mark=memory.mark)
        self._said: dict[int, _Said] = {}
        """Messages whose fate is not known, by id."""
        for posted in memory.posted.values():
            self._publisher.recall(posted.message_id, posted.kind, posted.body)
            self._said[posted.message_id] = _Said(posted.message_id, posted.body.decode(errors="replace"))
        self._publisher.stored_up_to = self._publisher.sent_up_to = min(memory.sent_up_to, memory.mark)
        self._posted_up_to = memory.mark
        self._renumbering = 0
        """Times that messages were given other ids, and this is not stored yet."""
        self._sent_up_to = memory.sent_up_to
        self._receiver = Receiver(0, last=memory.last)
        self._notes: deque[Event] = deque()
        self._missed = 0
        self._last_word: RoomClosed | Removed | None = None
        self._unremembered = 0
        self._read_up_to = memory.last
        self._burst_s = 0.0
        self._interval_s = 0.0
        self._spent_s = 0.0
        self._handle = 0
        self._came_up_to = 0
        self._missed_s: float | None = None
        self._missed_seq = 0

    # --- the user ---------------------------------------------------------------------------------------

    def post(self, body: bytes, kind: int) -> int:
        """Take a message; return its id. Raises ``SendRefused``, and ``LocalProtocolError`` for a kind above 255."""
        if not 0 <= kind <= _KIND_MAX:
            raise LocalProtocolError("a kind has one byte")
        if self.over is not None:
            raise SendRefused("closed")
        if not body:
            raise SendRefused("empty")
        if len(body) > BODY_SIZE_MAX:
            raise SendRefused("too_large")
        if len(self._said) >= WAITING_MAX:
            raise SendRefused("rate", retry_after_s=1.0)
        message_id = self._publisher.post(body, kind)
        self._said[message_id] = _Said(message_id, body.decode(errors="replace"))
        self.memos.append(Posted(self.name, message_id, kind, body))
        if self.is_seated:
            self.memos.append(Sent(self.name, message_id))
        return message_id

    @property
    def is_settled(self) -> bool:
        """Whether the fate of every message is known."""
        return not self._said

    def read(self, *, now_s: float) -> Event | None:
        """Return the next event. An entry that is read gives the server credit for another.

        Of a room that is over, what came before its end can still be read; why it ended comes last.
        """
        while True:
            if self._notes:
                return self._notes.popleft()
            if self._missed:
                missed, self._missed = self._missed, 0
                return Gap(missed)
            delivered = self._receiver.read(now_s=now_s)
            if delivered is None:
                last, self._last_word = self._last_word, None
                return last
            if isinstance(delivered, frames.Gap):
                self._note_read(delivered.last)
                return Gap(delivered.last - delivered.first + 1)
            self._note_read(delivered.seq)
            event = self._roster.event_of(delivered)
            if isinstance(event, RoomClosed | Removed):
                self.end(event, by_log=True)
            elif event is not None:
                return event

    @property
    def is_readable(self) -> bool:
        """Whether ``read`` may have something to return."""
        return bool(self._notes) or bool(self._missed) or self._receiver.is_readable or self._last_word is not None

    def note(self, event: Event) -> None:
        """Tell the user of something that is not in the log. Who does not read hears of too many as a gap."""
        if self._missed or len(self._notes) >= self._limits.events_max:
            self._missed += 1
        else:
            self._notes.append(event)

    def flush_reads(self) -> None:
        """Have it remembered up to where the user has read; of a room that is over nothing is."""
        if self._unremembered and self.over is None:
            self._unremembered = 0
            self.memos.append(Read(self.name, self._read_up_to))

    def end(self, why: RoomClosed | Removed | None, *, by_log: bool = False) -> None:
        """Hear that this is no room of ours any more; what was not taken by now never will be.

        ``by_log``: its log says so. We read it to the end then, and what is not in it was not taken. Otherwise nobody
        says what became of messages that are under way.
        """
        if self.over is not None:
            return
        self.over = why
        self.detach()
        if by_log:
            self._start_at(self._read_up_to)  # nothing behind its end is ours
        else:
            self.forget_sent()
        for fate in self._publisher.forget(self.last_id):
            self._settle(Fate(fate.message_id, Status.CLOSED, 0) if fate.status is None else fate)
        self._last_word = why

    # --- the store --------------------------------------------------------------------------------------

    def stored(self, memo: Memo) -> None:
        """Hear that a memo is stored: only now may what it says be acted on."""
        match memo:
            case Posted(_, message_id, _, _) if not self._renumbering:
                self._posted_up_to = message_id
            case Renumbered(_, _, last, by):
                self._renumbering -= 1
                if not self._renumbering:
                    self._posted_up_to = last + by
            case Sent(_, message_id):
                self._sent_up_to = max(self._sent_up_to, message_id)
            case _:
                return
        self._heed_stored()

    # --- sessions ---------------------------------------------------------------------------------------

    @property
    def up_to(self) -> int:
        """The entry up to which all was read: behind it the next session goes on.

        What waits to be read comes again, though we have it. A server that went on behind that would send 256 entries
        more than what was read leaves room for, and over TLS it does not send again what could not be kept.
        """
        return self._receiver.read_up_to

    def ask(self) -> None:
        """Hear that a seat is asked for: a log that ends before what came until now has been rewound."""
        self._came_up_to = self._receiver.up_to

    @property
    def lowest_id(self) -> int:
        """The lowest message id still to come."""
        return self._publisher.lowest_id

    @property
    def last_id(self) -> int:
        """The highest message id that was ever used."""
        return self._publisher.last_id

    @property
    def handle(self) -> int:
        """What the session calls the room."""
        return self._handle

    def forget_sent(self) -> bool:
        """Give up what may have reached a server that has forgotten us; return whether there was any of it."""
        return self._forget(self._publisher.sent_up_to)

    def seat(self, seated: Seated, *, burst: int, rate: float, now_s: float) -> bool:
        """Take a seat; return whether JOIN is to be said again, since the lowest id is another one now.

        Raises ``RemoteProtocolError`` for a mark that no client ever had.
        """
        if seated.mark > MARK_MAX:
            raise RemoteProtocolError("a mark above all message ids")
        log_id = bytes.fromhex(seated.log)
        again = False
        if self.log_id and log_id != self.log_id:
            again = self.forget_sent()
            self._start_again(seated.start, rewound=False)
        elif self.log_id and seated.head < self._came_up_to:
            self._start_again(seated.head, rewound=True)
        elif not self.log_id:
            self._start_at(seated.start)
        elif not seated.resumed:
            again = self.forget_sent()
            if seated.start > self._receiver.up_to:  # we are new there: what was said meanwhile is history
                missed = seated.start - self._receiver.up_to
                self._note_unread()
                self.note(Gap(missed))
                self._start_at(seated.start)
        self._renumber(seated.mark)
        self._forget(seated.mark - ANSWERS_KEPT)
        if log_id != self.log_id or seated.head >= self._read_up_to:  # else more was read in the former session since
            self.head = seated.head
            self._roster.seat(seated)
        self.log_id = log_id
        rate = max(rate, RATE_MIN)
        self._interval_s = 1 / (rate * SHARE)
        self._burst_s = (burst - 1) / rate * SHARE
        self._handle = seated.handle
        self._publisher.attach(seated.handle, mark=seated.mark)
        self._receiver.attach(seated.handle, start=seated.start, now_s=now_s)
        self.is_seated = True
        self.memos.append(Entered(self.name, log_id, self._read_up_to, self.last_id))
        if self._said:  # what waited may leave from now on
            self.memos.append(Sent(self.name, self.last_id))
        return again

    def detach(self) -> None:
        """Hear that no session speaks for the room."""
        self.is_seated = False
        self._publisher.detach()

    def add_members(self, rows: Iterable[MemberRow]) -> None:
        """Take another page of members."""
        self._roster.add(rows)

    def receive(self, frame: Published | frames.Message | frames.Gap | frames.Head, *, now_s: float) -> bool:
        """Take a frame of the server; return False when it could not be kept.

        Raises ``RemoteProtocolError`` for a place that no log has.
        """
        match frame:
            case Published():
                for fate in self._publisher.answer(frame, now_s=now_s):
                    self._settle(fate)
            case frames.Message():
                is_kept = self._receiver.receive(frame, now_s=now_s)
                self.head = max(self.head, frame.seq)
                if frame.sender == self.member_id and frame.message_id:
                    for fate in self._publisher.hear(frame):
                        self._settle(fate)
                self._look_for_missed(now_s)
                return is_kept
            case frames.Gap():
                self._receiver.miss(frame, now_s=now_s)
                self._look_for_missed(now_s)
            case _:
                if frame.head > SEQ_MAX:
                    raise RemoteProtocolError("a log longer than every log")
                self.head = max(self.head, frame.head)
                self._look_for_missed(now_s)
        return True

    @property
    def next_missed_s(self) -> float | None:
        """When ``misses`` may say yes."""
        return None if self._missed_s is None or not self.is_seated else self._missed_s + MISSED_S

    def misses(self, *, now_s: float) -> bool:
        """Say whether an entry that is known of does not come; again only after as long a time."""
        at_s = self.next_missed_s
        if at_s is None or now_s < at_s:
            return False
        self._missed_s = now_s
        return True

    def next_load(self, *, now_s: float) -> Load | None:
        """Return the next frame to send; it counts as sent."""
        due_s = self._receiver.next_timeout_s()
        if due_s is not None and due_s <= now_s and (received := self._receiver.received()) is not None:
            return Load(write_frame(received), self, received)
        if not self.is_seated or self._spent_s - self._burst_s > now_s:
            return None
        publish = self._publisher.next(now_s=now_s)
        if publish is None:
            return None
        weight = 1 + len(publish.body) // self._limits.message_share
        self._spent_s = max(self._spent_s, now_s) + self._interval_s * weight
        return Load(write_frame(publish), self, publish)

    def lost(self, load: Load, *, now_s: float) -> None:
        """Hear that a frame was lost."""
        if isinstance(load.key, Received):
            self._receiver.lose(load.key, now_s=now_s)
        else:
            assert isinstance(load.key, Publish), "a room says nothing else"
            self._publisher.lose(load.key.message_id)

    def rewind(self, *, now_s: float) -> None:
        """Hear that what went over TLS may be lost."""
        if self.is_seated:
            self._publisher.rewind()
            self._receiver.tell_again(now_s=now_s)

    def next_timeout_s(self) -> float | None:
        """When there is something to send that there is not now."""
        if not self.is_seated:
            return None
        times = [self._receiver.next_timeout_s()]
        publish_s = self._publisher.next_timeout_s()
        if publish_s is not None:
            times.append(max(publish_s, self._spent_s - self._burst_s))
        return min((at_s for at_s in times if at_s is not None), default=None)

    # --- what is known of it ------------------------------------------------------------------------------

    @property
    def policy(self) -> Policy | None:
        """What kind of room it is; None: not known, or of a later version."""
        return self._roster.policy

    @property
    def member_id(self) -> int:
        """What the log calls us."""
        return self._roster.member_id

    @property
    def host_id(self) -> int:
        """What the log calls the host; 0: nobody."""
        return self._roster.host_id

    @property
    def members(self) -> Mapping[int, MemberRow]:
        """Those in the room, as far as the log was read."""
        return self._roster.members

    @property
    def is_full(self) -> bool:
        """Whether no more members are told apart."""
        return self._roster.is_full

    @property
    def plaintext_members(self) -> int:
        """How many members speak the classic profile."""
        return self._roster.plaintext_members

    def remember(self, entries: Iterable[frames.Message]) -> list[Message]:
        """Return what was said in entries that are read back. Their comings and goings name those who are gone."""
        kept = list(entries)
        for entry in kept:
            self._roster.learn(entry)
        return [self._roster.text_of(entry, history=True) for entry in kept if entry.kind == Kind.TEXT]

    # --- helpers ----------------------------------------------------------------------------------------

    def _look_for_missed(self, now_s: float) -> None:
        """Note since when the next entry is awaited, where it is known of and there is room for it."""
        up_to = self._receiver.up_to
        if self.head <= up_to or up_to >= self._receiver.read_up_to + ENTRIES_MAX:
            self._missed_s = None
        elif self._missed_s is None or up_to != self._missed_seq:
            self._missed_s, self._missed_seq = now_s, up_to

    def _start_again(self, seq: int, *, rewound: bool) -> None:
        """Go on in another log, or in what is left of this one."""
        self._note_unread()
        self.note(LogChanged(rewound=rewound))
        self._start_at(seq)

    def _note_unread(self) -> None:
        """Keep what came of a log that is not read on: the next one is not read before it."""
        while (delivered := self._receiver.read(now_s=0.0)) is not None:
            if isinstance(delivered, frames.Gap):
                self.note(Gap(delivered.last - delivered.first + 1))
            elif delivered.kind == Kind.TEXT and (event := self._roster.event_of(delivered)) is not None:
                self.note(event)

    def _start_at(self, seq: int) -> None:
        self._receiver = Receiver(0, last=seq)
        self._read_up_to = seq
        self._unremembered = 0

    def _note_read(self, seq: int) -> None:
        self._read_up_to = seq
        self._unremembered += 1
        if self._unremembered >= READ_AFTER:
            self.flush_reads()

    def _forget(self, up_to: int) -> bool:
        lowest_id = self._publisher.lowest_id
        for fate in self._publisher.forget(up_to):
            self._settle(fate)
        return self._publisher.lowest_id != lowest_id

    def _renumber(self, mark: int) -> None:
        """Give what never left other ids than the server has taken: they are those of messages that we forgot."""
        renumbered = self._publisher.renumber(mark)
        if renumbered is None:
            return
        first, last, by = renumbered
        self._said = {one + by if one >= first else one: said for one, said in self._said.items()}
        self._renumbering += 1
        self._posted_up_to = first - 1
        self._heed_stored()
        self.memos.append(Renumbered(self.name, first, last, by))

    def _heed_stored(self) -> None:
        self._publisher.stored_up_to = min(self._posted_up_to, self._sent_up_to)

    def _settle(self, fate: Fate) -> None:
        posted_as, text = self._said.pop(fate.message_id)
        match fate.status:
            case Status.ACCEPTED:
                receipt = Receipt(posted_as, text, Delivery.IN_ROOM, fate.seq)
            case None:
                receipt = Receipt(posted_as, text, Delivery.UNKNOWN)
            case status:
                receipt = Receipt(posted_as, text, Delivery.REFUSED, None, _CODES.get(status, "invalid"))
        self.memos.append(Settled(self.name, fate.message_id))
        self.note(receipt)
        self.receipts.append(receipt)
