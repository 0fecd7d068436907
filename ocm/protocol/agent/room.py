"""One room of a client: what it says and hears there, over all its sessions."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Annotated, Final

import msgspec

from ocm.errors import RemoteProtocolError, SendRefused
from ocm.protocol.entry import Access, Kind, Lifetime, Policy, Reason
from ocm.protocol.events import (
    Announcement,
    Delivery,
    Event,
    Gap,
    LogChanged,
    MemberJoined,
    MemberLeft,
    Message,
    Person,
    PolicyChanged,
    Receipt,
    Removed,
    RoomClosed,
)
from ocm.protocol.limits import Limits
from ocm.protocol.memory import Entered, Memo, Posted, Read, RoomMemory, Sent, Settled
from ocm.protocol.session.lane import Load
from ocm.protocol.session.publishing import ANSWERS_KEPT, UNSETTLED_MAX, Publisher, Status
from ocm.protocol.session.publishing import Settled as Fate
from ocm.protocol.session.receiving import Receiver
from ocm.protocol.wire import frames
from ocm.protocol.wire.frames import BODY_SIZE_MAX, Publish, Published, Received, write_frame
from ocm.protocol.wire.payload import read_object
from ocm.protocol.wire.records import PLAINTEXT_FLAG, MemberRow, Seated

WAITING_MAX: Final = 100_000
"""Messages that may wait to be sent."""
SHARE: Final = 0.8
"""How much of the allowance is used: the server's clock and ours are not one."""
READ_AFTER: Final = 64
"""Entries read before that is remembered."""
NAMES_MAX: Final = 4096
"""Names of members, here or gone, that are kept."""
_HISTORY: Final = 1
_PLAINTEXT: Final = 2
_CODES: Final = {
    Status.TOO_LARGE: "too_large",
    Status.INVALID: "invalid",
    Status.FORBIDDEN: "forbidden",
    Status.CLOSED: "closed",
    Status.ID_REUSED: "id_reused",
}


class _Change(msgspec.Struct, frozen=True):
    """The body of an entry that is no text."""

    member: Annotated[int, msgspec.Meta(ge=0, lt=2**32)] = 0
    name: str = ""
    flags: int = 0
    reason: str = ""
    access: str = ""


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
        self.policy: Policy | None = None
        self.member_id = 0
        self.host_id = 0
        self.head = 0
        """The newest entry that is known of."""
        self.members: dict[int, MemberRow] = {}
        """Those in the room, as far as the log was read."""
        self.log_id = memory.log_id
        self._limits = limits
        self._names: dict[int, str] = {}
        self._publisher = Publisher(mark=memory.mark)
        self._texts: dict[int, str] = {}
        for posted in memory.posted.values():
            self._publisher.recall(posted.message_id, posted.kind, posted.body)
            self._texts[posted.message_id] = posted.body.decode(errors="replace")
        self._last_id = memory.mark
        self._publisher.stored_up_to = min(memory.sent_up_to, memory.mark)
        self._posted_up_to = memory.mark
        self._reserved = memory.sent_up_to
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

    # --- the user ---------------------------------------------------------------------------------------

    def post(self, body: bytes, kind: int) -> int:
        """Take a message; return its id. Raises ``SendRefused``."""
        if self.over is not None:
            raise SendRefused("closed")
        if not body:
            raise SendRefused("empty")
        if len(body) > BODY_SIZE_MAX:
            raise SendRefused("too_large")
        if len(self._texts) >= WAITING_MAX:
            raise SendRefused("rate", retry_after_s=1.0)
        message_id = self._last_id = self._publisher.post(body, kind)
        self._texts[message_id] = body.decode(errors="replace")
        self.memos.append(Posted(self.name, message_id, kind, body))
        if message_id > self._reserved:
            self._reserved = message_id + UNSETTLED_MAX
            self.memos.append(Sent(self.name, self._reserved))
        return message_id

    @property
    def is_settled(self) -> bool:
        """Whether the fate of every message is known."""
        return not self._texts

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
            event = self._event_of(delivered)
            if event is not None:
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
        """Have it remembered up to where the user has read."""
        if self._unremembered:
            self._unremembered = 0
            self.memos.append(Read(self.name, self._read_up_to))

    def end(self, why: RoomClosed | Removed | None) -> None:
        """Hear that this is no room of ours any more; what was not taken by now never will be."""
        if self.over is not None:
            return
        self.over = why
        self.detach()
        for message_id in list(self._texts):
            self._settle(Fate(message_id, Status.CLOSED, 0))
        self._last_word = why

    # --- the store --------------------------------------------------------------------------------------

    def stored(self, memo: Memo) -> None:
        """Hear that a memo is stored: only now may what it says be acted on."""
        match memo:
            case Posted(_, message_id, _, _):
                self._posted_up_to = max(self._posted_up_to, message_id)
            case Sent(_, message_id):
                self._sent_up_to = max(self._sent_up_to, message_id)
            case _:
                return
        self._publisher.stored_up_to = min(self._posted_up_to, self._sent_up_to)

    # --- sessions ---------------------------------------------------------------------------------------

    @property
    def up_to(self) -> int:
        """The entry up to which all came."""
        return self._receiver.up_to

    @property
    def lowest_id(self) -> int:
        """The lowest message id still to come."""
        return self._publisher.lowest_id

    @property
    def handle(self) -> int:
        """What the session calls the room."""
        return self._handle

    def forget_sent(self) -> bool:
        """Give up what may have reached a server that has forgotten us; return whether there was any of it."""
        return self._forget(self._sent_up_to)

    def seat(self, seated: Seated, *, burst: int, rate: float, now_s: float) -> bool:
        """Take a seat; return whether JOIN is to be said again, since the lowest id is another one now."""
        log_id = bytes.fromhex(seated.log)
        again = False
        if self.log_id and log_id != self.log_id:
            again = self.forget_sent()
            self._hand_out(now_s)
            self.note(LogChanged(rewound=False))
            self._start_at(seated.start)
        elif self.log_id and seated.head < self._receiver.up_to:
            self._hand_out(now_s)
            self.note(LogChanged(rewound=True))
            self._start_at(seated.head)
        elif not self.log_id:
            self._start_at(seated.start)
        elif not seated.resumed:
            again = self.forget_sent()
            if seated.start > self._receiver.up_to:  # we are new there: what was said meanwhile is history
                self.note(Gap(seated.start - self._receiver.up_to))
                self._start_at(seated.start)
        self._forget(seated.mark - ANSWERS_KEPT)
        self.log_id = log_id
        self.member_id, self.host_id, self.head = seated.member, seated.host, seated.head
        self.policy = _policy_of(seated)
        self.members = {row.id: row for row in seated.members[: self._limits.members_per_room_max]}
        for row in seated.members:
            self._know(row.id, row.name)
        self._interval_s = 1 / (rate * SHARE)
        self._burst_s = (burst - 1) / rate * SHARE
        self._handle = seated.handle
        self._publisher.attach(seated.handle, mark=seated.mark)
        self._receiver.attach(seated.handle, now_s=now_s)
        self._last_id = max(self._last_id, seated.mark)
        self.is_seated = True
        self.memos.append(Entered(self.name, log_id, self._read_up_to, self._last_id))
        return again

    def detach(self) -> None:
        """Hear that no session speaks for the room."""
        self.is_seated = False
        self._publisher.detach()

    def add_members(self, rows: Iterable[MemberRow]) -> None:
        """Take another page of members."""
        for row in rows:
            if len(self.members) < self._limits.members_per_room_max:
                self.members.setdefault(row.id, row)
            self._know(row.id, row.name)

    def receive(self, frame: Published | frames.Message | frames.Gap | frames.Head, *, now_s: float) -> bool:
        """Take a frame of the server; return False when it could not be kept."""
        match frame:
            case Published():
                for fate in self._publisher.answer(frame, now_s=now_s):
                    self._settle(fate)
            case frames.Message():
                if frame.sender == self.member_id and frame.message_id:
                    for fate in self._publisher.hear(frame):
                        self._settle(fate)
                self.head = max(self.head, frame.seq)
                return self._receiver.receive(frame, now_s=now_s)
            case frames.Gap():
                self._receiver.miss(frame, now_s=now_s)
            case frames.Head(head=head):
                self.head = max(self.head, head)
        return True

    def next_load(self, *, now_s: float) -> Load | None:
        """Return the next frame to send; it counts as sent."""
        due_s = self._receiver.next_timeout_s()
        if due_s is not None and due_s <= now_s:
            received = self._receiver.received()
            if received is not None:
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
        match load.key:
            case Received() as received:
                self._receiver.lose(received, now_s=now_s)
            case Publish(message_id=message_id):
                self._publisher.lose(message_id)
            case _:
                pass

    def rewind(self, *, now_s: float) -> None:
        """Hear that what went over TLS may be lost."""
        if self.is_seated:
            self._publisher.rewind()
            self._receiver.attach(self._handle, now_s=now_s)

    def next_timeout_s(self) -> float | None:
        """When there is something to send that there is not now."""
        if not self.is_seated:
            return None
        times = [self._receiver.next_timeout_s()]
        publish_s = self._publisher.next_timeout_s()
        if publish_s is not None:
            times.append(max(publish_s, self._spent_s - self._burst_s))
        return min((at_s for at_s in times if at_s is not None), default=None)

    # --- history ----------------------------------------------------------------------------------------

    def remember(self, message: frames.Message) -> Message | None:
        """Return what was said before, as it is read back; None for what is no text."""
        if message.kind != Kind.TEXT:
            return None
        return self._message(message, history=True)

    # --- helpers ----------------------------------------------------------------------------------------

    def _hand_out(self, now_s: float) -> None:
        """Let what was said in the log so far be read before anything of another one."""
        while (delivered := self._receiver.read(now_s=now_s)) is not None:
            if isinstance(delivered, frames.Message) and delivered.kind == Kind.TEXT:
                event = self._event_of(delivered)
                if event is not None:
                    self.note(event)

    def _start_at(self, seq: int) -> None:
        self._receiver = Receiver(0, last=seq)
        self._read_up_to = seq
        self._unremembered = 0

    def _note_read(self, seq: int) -> None:
        self._read_up_to = seq
        if self.over is not None:
            return  # there is nothing to be remembered of it any more
        self._unremembered += 1
        if self._unremembered >= READ_AFTER:
            self.flush_reads()

    def _forget(self, up_to: int) -> bool:
        forgotten = self._publisher.forget(up_to)
        for message_id in forgotten:
            self._tell(Receipt(message_id, self._texts.pop(message_id), Delivery.UNKNOWN))
        return bool(forgotten)

    def _settle(self, fate: Fate) -> None:
        text = self._texts.pop(fate.message_id, None)
        if text is None:
            return
        if fate.status == Status.ACCEPTED:
            self._tell(Receipt(fate.message_id, text, Delivery.IN_ROOM, fate.seq))
        else:
            code = _CODES.get(Status(fate.status), "invalid") if fate.status in _CODES else "invalid"
            self._tell(Receipt(fate.message_id, text, Delivery.REFUSED, None, code))

    def _tell(self, receipt: Receipt) -> None:
        self.memos.append(Settled(self.name, receipt.message_id))
        self.note(receipt)
        self.receipts.append(receipt)

    def _event_of(self, message: frames.Message) -> Event | None:
        if message.kind == Kind.TEXT:
            return None if message.sender == self.member_id else self._message(message, history=False)
        try:
            change = read_object(message.body, _Change)
            return self._change(message, change)
        except (RemoteProtocolError, ValueError):
            return Announcement(f"[kind {message.kind}]")

    def _change(self, message: frames.Message, change: _Change) -> Event | None:
        match message.kind:
            case Kind.JOIN:
                self.add_members([MemberRow(change.member, change.name, change.flags)])
                return None if change.member == self.member_id else MemberJoined(Person(change.name))
            case Kind.LEAVE:
                self.members.pop(change.member, None)
                if change.member == self.host_id:
                    self.host_id = next(iter(self.members), 0)
                reason = Reason(change.reason)
                if change.member == self.member_id:
                    self.end(Removed(reason))
                    return None
                return MemberLeft(Person(change.name), reason)
            case Kind.CLOSED:
                self.end(RoomClosed(Reason(change.reason)))
                return None
            case Kind.POLICY:
                access = Access(change.access)
                if self.policy is not None:
                    self.policy = Policy(access, self.policy.lifetime, self.policy.durable)
                return PolicyChanged(access)
            case _:
                return Announcement(f"[kind {message.kind}]")

    def _message(self, message: frames.Message, *, history: bool) -> Message:
        name = self._names.get(message.sender)
        return Message(
            Person(f"member {message.sender}" if name is None else name),
            message.body.decode(errors="replace"),
            message.seq,
            message.time_ms,
            history=history,
            plaintext=bool(message.flags & _PLAINTEXT),
            is_ours=message.sender == self.member_id,
        )

    def _know(self, member: int, name: str) -> None:
        self._names[member] = name
        if len(self._names) > NAMES_MAX:
            del self._names[next(iter(self._names))]

    @property
    def plaintext_members(self) -> int:
        """How many members speak the classic profile."""
        return sum(bool(row.flags & PLAINTEXT_FLAG) for row in self.members.values())


def is_history(message: frames.Message) -> bool:
    """Say whether an entry is read back, and not news."""
    return bool(message.flags & _HISTORY)


def _policy_of(seated: Seated) -> Policy | None:
    try:
        return Policy(Access(seated.access), Lifetime(seated.lifetime), seated.durable)
    except ValueError:
        return None  # of a later version
