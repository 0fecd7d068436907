"""The modern door: what one member of TCRP/2 publishes and is sent. It outlives the member's sessions.

While a session is there, the door reads the room's log for it at the member's own pace; without one it only remembers
what was taken of its messages, so that whatever comes again is answered and not said twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple, Protocol

from ocm.errors import LocalProtocolError
from ocm.protocol.address import Address
from ocm.protocol.entry import Access, Answer, Entry, Kind, Policy, Refused
from ocm.protocol.limits import Limits
from ocm.protocol.link.base import Addressing, Audience, Author
from ocm.protocol.link.classic import text_size_max
from ocm.protocol.link.log import RoomLog
from ocm.protocol.room import Intent, Member
from ocm.protocol.session.lane import Load
from ocm.protocol.session.publishing import UNSETTLED_MAX, Intake, Status, digest_of
from ocm.protocol.session.receiving import Cursor
from ocm.protocol.wire.frames import Gap, Head, Publish, Published, Received, write_frame

CLIENT_ID_SIZE: Final = 16
ANSWERS_MAX: Final = 4 * UNSETTLED_MAX
"""Answers that wait to be sent; the latest count."""
ANSWERS_TOGETHER: Final = 32
"""Answers that go together at most: a datagram has room for as many."""
FLOOD_FACTOR: Final = 10
"""So many times what is granted, for ``FLOOD_S``, is a flood."""
FLOOD_S: Final = 10.0
MESSAGE: Final = b"\x05"
"""The type byte of a MESSAGE frame."""
_ANSWER_SIZE: Final = len(write_frame(Published(0, 0, 0, 0, 0)))
_MEMO: Final = b"2"
"""Begins the memo of a modern door."""


@dataclass(frozen=True, slots=True)
class ModernForm:
    """Nothing is encoded for all: each member reads the log at its own pace, its own messages too."""

    addressing: Addressing = Addressing.PULL
    echoes: bool = True

    def encode(self, entry: Entry) -> bytes | None:
        """Say that every entry is of interest."""
        return b""

    def encode_farewell(self, entry: Entry) -> bytes | None:
        """Say nothing: the log says it."""
        return None


MODERN_FORM: Final = ModernForm()


class _Answers(NamedTuple):
    """What a load of answers is known by."""

    published: tuple[Published, ...]


class Carrier(Protocol):
    """The session that a door speaks through."""

    def wake(self, link: ModernLink) -> None:
        """Hear that a door has something to send."""
        ...

    def unseat(self, link: ModernLink) -> None:
        """Hear that a door speaks through it no more."""
        ...


class ModernLink:
    """The door of one member: (client id, room)."""

    __slots__ = (
        "_answers",
        "_counted",
        "_counted_s",
        "_cursor",
        "_gaps",
        "_handle",
        "_head_due",
        "_intake",
        "_prefix",
        "_read_up_to",
        "address",
        "audience",
        "author",
        "carrier",
        "client",
        "end_seq",
        "form",
        "is_kept",
        "joined_seq",
        "log",
        "log_id",
        "member",
        "member_id",
        "place",
        "plaintext",
        "policy",
        "room",
        "user",
    )

    def __init__(self, client: bytes, room: str, user: str, *, mark: int = 0, answers: tuple[Answer, ...] = ()) -> None:
        """Make a door without a session. ``mark`` and ``answers`` are what a journal remembers."""
        self.client = client
        self.room = room
        self.user = user
        self.form = MODERN_FORM
        self.plaintext = False
        self.is_kept = True
        self.address: Address = b""
        self.place = -1
        self.audience: Audience | None = None
        self.member: Member | None = None
        self.author: Author | None = self
        self.log: RoomLog | None = None
        """The room's log, from the member's seating on; it stays readable when the member is gone."""
        self.log_id = b""
        self.policy = Policy()
        """The room's, as it was when the member was seated; what it is now is the room's to say."""
        self.member_id = 0
        self.joined_seq = 0
        """The entry that says that the member came: it reads what comes behind."""
        self.end_seq = 0
        """Above 0: the member is gone, and may read up to this entry, which says so."""
        self._intake = Intake(mark=mark, answers=answers)
        self.carrier: Carrier | None = None
        """The session that is spoken through; None: the member is detached."""
        self._cursor: Cursor | None = None
        self._handle = 0
        self._prefix = b""
        self._read_up_to = 0
        self._answers: dict[int, Published] = {}
        self._gaps: list[Gap] = []
        self._head_due = False
        self._counted = 0
        self._counted_s = -math.inf

    # --- what the hub asks of a door ----------------------------------------------------------------------

    def memo(self) -> bytes:
        """Return the client id, marked as one."""
        return _MEMO + self.client

    def finish(self, payload: bytes) -> bytes:
        """Refuse: a modern member reads the log."""
        raise LocalProtocolError("a modern link reads the log")

    def take(self, entry: Entry) -> None:
        """Refuse, likewise."""
        raise LocalProtocolError("a modern link reads the log")

    def taken(self, intent: Intent) -> None:
        """Hear that what ``intents`` gave is on its way into the journal."""
        publish = self._intake.next()
        assert publish is not None, "it was the next one"
        self._intake.take(publish)

    def deferred(self, intent: Intent, status: int, wait_s: float) -> None:
        """Hear that it is not taken: it and all behind it may come again later, or never."""
        publish = self._intake.next()
        assert publish is not None, "it was the next one"
        self._answer(*self._intake.defer(publish, Status(status), wait_ms=math.ceil(wait_s * 1000)))

    def settled(self, what: Entry | Refused) -> None:
        """Hear that the journal has it: now, and not sooner, it is answered."""
        status, seq = (what.status, 0) if isinstance(what, Refused) else (Status.ACCEPTED, what.seq)
        self._answer(self._intake.settle(self._handle, what.message_id, status, seq=seq, time_ms=what.time_ms))

    def failed(self) -> None:
        """Hear that the journal has nothing of what was taken."""
        self._answer(*self._intake.fail(self._handle, wait_ms=1000))

    # --- what the session asks of it ------------------------------------------------------------------------

    @property
    def handle(self) -> int:
        """What the session's frames call the room."""
        return self._handle

    @property
    def mark(self) -> int:
        """The highest message id that is settled."""
        return self._intake.mark

    @property
    def head(self) -> int:
        """The newest entry that the member may read; 0: none, since it has left."""
        if self.end_seq or self.log is None:
            return self.end_seq
        return 0 if self.member is None else self.log.head

    @property
    def read_up_to(self) -> int:
        """The entry up to which the member is known to have read: its JOIN at first."""
        return self._read_up_to if self._cursor is None else max(self._read_up_to, self._cursor.up_to)

    @property
    def is_done(self) -> bool:
        """Whether the member is gone and knows it."""
        return bool(self.end_seq) and self._cursor is not None and self._cursor.up_to >= self.end_seq

    def settle_in(self, log: RoomLog, *, log_id: bytes, policy: Policy, member_id: int, joined_seq: int) -> None:
        """Hear that the member is in the room."""
        self.log = log
        self.log_id = log_id
        self.policy = policy
        self.member_id = member_id
        self.joined_seq = self._read_up_to = joined_seq

    def skip_to(self, lowest_id: int) -> None:
        """Hear the lowest message id that may still come."""
        self._intake.raise_to(lowest_id)

    def attach(self, carrier: Carrier, handle: int, *, last: int) -> int:
        """Speak through a session from now on; return the entry behind which it goes on.

        Args:
            carrier: the session.
            handle: what its frames call the room.
            last: the entry up to which the member has the log; beyond its end, the end counts.
        """
        log = self.log
        assert log is not None, "the member is seated"
        self.detach()
        head = self.head
        start = min(last, head)
        self.carrier = carrier
        self._handle = handle
        self._prefix = MESSAGE + handle.to_bytes(4, "big")
        self._cursor = Cursor(handle, last=start, head=head, oldest=log.oldest)
        carrier.wake(self)
        return start

    def detach(self) -> None:
        """Speak through no session. Idempotent."""
        self._read_up_to = self.read_up_to
        self.carrier = None
        self._cursor = None
        self._answers.clear()
        self._gaps.clear()

    def grow(self, seq: int) -> None:
        """Hear that the log goes up to entry ``seq`` now."""
        if self._cursor is not None and self.carrier is not None:
            self._cursor.grow(seq)
            self.carrier.wake(self)

    def end(self, seq: int) -> None:
        """Hear that the member is gone: entry ``seq`` says so, and is the last it may read."""
        self.end_seq = seq
        self.grow(seq)

    def show_head(self) -> None:
        """Tell the member where the log ends, with the next datagram."""
        if self.carrier is not None:
            self._head_due = True
            self.carrier.wake(self)

    def publish(self, publish: Publish) -> bool:
        """Take a message; return False when it could not be kept and must come again."""
        message_id = publish.message_id
        if self.end_seq and message_id > self.mark:
            if len(self._answers) >= UNSETTLED_MAX:
                return False
            self._answer(Published(self._handle, message_id, Status.CLOSED, 0, 0))
            return True
        answer = self._intake.offer(publish)
        if answer is not None:
            self._answer(answer)
            return True
        return self._intake.keeps(message_id)

    def floods(self, publish: Publish, limits: Limits, *, now_s: float) -> bool:
        """Count a message, whatever becomes of it; say whether they are far more than is granted, for long."""
        if now_s - self._counted_s > FLOOD_S:
            self._counted_s, self._counted = now_s, 0
        self._counted += 1 + len(publish.body) // limits.message_share
        return self._counted > FLOOD_FACTOR * (limits.burst_max + limits.rate_per_s * FLOOD_S)

    def intents(self) -> Iterator[Intent]:
        """Give what was published, in order, each when what became of the one before is known."""
        last = -1
        while self.member is not None and (publish := self._intake.next()) is not None and publish.message_id != last:
            last = publish.message_id
            why = self._refusal(self.member, publish)
            digest = digest_of(publish.kind, publish.body) if why else b""
            yield Intent(self.member, publish.body, Kind.TEXT, publish.message_id, why, digest)

    def receive(self, received: Received) -> None:
        """Take what the member has read. Raises ``RemoteProtocolError`` when it cannot have."""
        if self._cursor is not None and self.carrier is not None:
            self._cursor.receive(received)
            self.carrier.wake(self)

    @property
    def has_news(self) -> bool:
        """Whether something waits to be sent, now or when there is credit."""
        if self._answers or self._gaps or self._head_due:
            return True
        return self._cursor is not None and self._cursor.is_behind

    def next(self, *, space: int) -> Load | None:
        """Return what is to be sent next; it counts as sent. None: there is nothing, or no credit.

        Of entries as many go together as ``space`` bytes have room for, and one at least.
        """
        if self._answers:
            return self._next_answers(space)
        if self._gaps:
            gap = self._gaps.pop()
            return Load(write_frame(gap), self, gap)
        return self._next_entries(space) or self._next_head()

    def lost(self, load: Load) -> None:
        """Hear that a frame was lost: what is still wanted of it goes again."""
        cursor, carrier = self._cursor, self.carrier
        if cursor is None or carrier is None:
            return
        match load.key:
            case range() as seqs if load.data.startswith(self._prefix):
                for seq in seqs:
                    cursor.lose(seq)
            case _Answers(answers) if answers[0].room == self._handle:
                for published in answers:
                    self._answers.setdefault(published.message_id, published)
            case Gap() as gap if gap.room == self._handle and gap.last > cursor.up_to:
                self._gaps.append(gap)
            case _:
                return
        carrier.wake(self)

    def rewind(self) -> None:
        """Hear that what went over TLS may be lost. What was answered is asked again by the member."""
        if self._cursor is not None and self.carrier is not None:
            self._cursor.rewind()
            self.carrier.wake(self)

    # --- helpers ----------------------------------------------------------------------------------------

    def _next_answers(self, space: int) -> Load:
        count = max(1, min(space // _ANSWER_SIZE, ANSWERS_TOGETHER))
        sent = tuple(islice(self._answers.values(), count))
        for published in sent:
            del self._answers[published.message_id]
        return Load(b"".join(map(write_frame, sent)), self, _Answers(sent), len(sent))

    def _next_entries(self, space: int) -> Load | None:
        cursor, log = self._cursor, self.log
        if cursor is None or log is None:
            return None
        while (what := cursor.next()) is not None:
            if isinstance(what, Gap):
                cursor.sent(what, 0)
                return Load(write_frame(what), self, what)
            cut = log.cut(self._prefix, what, space)
            if cut is not None:
                data, count = cut
                sent = what[:count]
                cursor.sent(sent, len(data))
                return Load(data, self, sent, count)
            cursor.forget(log.oldest)
        return None

    def _next_head(self) -> Load | None:
        if not self._head_due or self.log is None:
            return None
        self._head_due = False
        head = Head(self._handle, self.head, self.log.oldest)
        return Load(write_frame(head), self, None)

    def _refusal(self, member: Member, publish: Publish) -> int:
        """Return why a message is refused for good; 0: it is not."""
        if publish.kind != Kind.TEXT or not publish.body:
            return Status.INVALID
        try:
            publish.body.decode()
        except UnicodeDecodeError:
            return Status.INVALID
        is_mixed = member.room.policy.access is Access.MIXED  # what classic members cannot be told is not said there
        if is_mixed and len(publish.body) > text_size_max(self.room, self.user, names=True):
            return Status.TOO_LARGE
        return 0

    def _answer(self, *answers: Published) -> None:
        if self.carrier is None:
            return
        for published in answers:
            self._answers.pop(published.message_id, None)
            is_ours = published.room == self._handle  # else it was asked in another session
            self._answers[published.message_id] = published if is_ours else published._replace(room=self._handle)
        while len(self._answers) > ANSWERS_MAX:  # its author sends again what it hears nothing of
            del self._answers[next(iter(self._answers))]
        self.carrier.wake(self)


def client_of(memo: bytes) -> bytes | None:
    """Return the client id in the memo of a modern door; None: it is of another door."""
    return memo[1:] if memo[:1] == _MEMO and len(memo) == 1 + CLIENT_ID_SIZE else None
