"""Getting a member's messages into a room's log, each once and in order: both ends.

The client's ``Publisher`` numbers messages and sends them until it knows what became of them; the server's ``Intake``
takes each number once, whatever is sent again, and remembers what it answered.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NamedTuple

from ocm.errors import LocalProtocolError
from ocm.protocol.entry import Answer
from ocm.protocol.limits import ANSWER_WAIT_MAX_S
from ocm.protocol.wire.frames import MESSAGE_ID_MAX, Message, Publish, Published

UNSETTLED_MAX: Final = 64
"""Messages of one member and room that may be under way, and that a server keeps to put them into order."""
HELD_BYTES_MAX: Final = 256 * 1024
"""Bytes of bodies that a server keeps to put them into order."""
ANSWERS_KEPT: Final = 64
"""Answers a server remembers for each member, apart from the log's retention."""
SILENCE_S: Final = 5.0
"""A message is sent again when nothing was heard of it for so long, though no packet of it was lost."""


class Status(IntEnum):
    """What became of a message: below 16 it may be tried again, from 16 on never."""

    ACCEPTED = 0
    """It stands in the room's log."""
    RATE_LIMITED = 1
    """The member says more than it may."""
    STORAGE = 2
    """The log could not be written."""
    UNAVAILABLE = 3
    """Too much waits to be written."""
    TOO_LARGE = 16
    """The body is larger than the server takes, or, in a mixed room, than classic members can be told."""
    INVALID = 17
    """Not a text: another kind, empty, or not UTF-8."""
    FORBIDDEN = 18
    """The member may not say this."""
    CLOSED = 19
    """The member is not in the room any more, or the room is closed."""
    ID_REUSED = 20
    """Another message had this id."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What a message's author is told, in the order of posting."""

    message_id: int
    status: int | None
    """0: in the room; None: nobody can say any more; else why it was refused for good."""
    seq: int
    """Its place in the room's log; 0 when it is not known to stand there."""


class _Fate(NamedTuple):
    status: int | None
    seq: int


@dataclass(slots=True)
class _Posted:
    kind: int
    body: bytes = field(repr=False)
    sent_s: float | None = None
    fate: _Fate | None = None


class Publisher:
    """A client's end for one room. ``detach`` and ``attach`` carry it over lost connections."""

    def __init__(self, *, mark: int = 0) -> None:
        """Number messages from ``mark`` + 1 on. Nothing is sent before ``attach``."""
        self._room: int | None = None
        self._last_id = mark
        self._posted: OrderedDict[int, _Posted] = OrderedDict()
        self._not_before_s: float | None = None
        self.stored_up_to = MESSAGE_ID_MAX
        """Messages above are not stored yet, and do not leave."""
        self.sent_up_to = 0
        """Messages above never left: no server can have them."""

    @property
    def last_id(self) -> int:
        """The highest id that was ever used."""
        return self._last_id

    @property
    def lowest_id(self) -> int:
        """The lowest id still to come: what a JOIN tells the server."""
        return next(iter(self._posted), self._last_id + 1)

    @property
    def is_settled(self) -> bool:
        """Whether everything posted is in the room or refused, and its author told."""
        return not self._posted

    def post(self, body: bytes, kind: int = 0) -> int:
        """Take a message; return its id.

        Raises ``LocalProtocolError`` when all ids are used up.
        """
        if self._last_id >= MESSAGE_ID_MAX:
            raise LocalProtocolError("no message id is left in this room")
        self._last_id += 1
        self._posted[self._last_id] = _Posted(kind, body)
        return self._last_id

    def recall(self, message_id: int, kind: int, body: bytes) -> None:
        """Take up a message from before; ids rise."""
        self._posted[message_id] = _Posted(kind, body)
        self._last_id = max(self._last_id, message_id)

    def forget(self, up_to: int) -> list[Settled]:
        """Give up the messages up to ``up_to`` whose fate is not known; return what there is to tell the author now.

        Those are never sent again. What was known already of others is told, too, where it waited for them.
        """
        for message_id, posted in self._posted.items():
            if message_id <= up_to and posted.fate is None:
                posted.fate = _Fate(None, 0)
        return self._tell()

    def renumber(self, mark: int) -> tuple[int, int, int] | None:
        """Number what never left above ``mark``: up to there a server has other messages of ours.

        They keep their order, and no number is left out between the mark and them: a server waits for each.

        Returns:
            The first and the last of the old numbers and by how much the new ones are higher; None: all stay.
        """
        unsent = [message_id for message_id in self._posted if message_id > self.sent_up_to]
        if not unsent or unsent[0] > mark:
            return None
        first, last, by = unsent[0], unsent[-1], mark + 1 - unsent[0]
        self._posted = OrderedDict(
            (message_id + by if message_id >= first else message_id, posted)
            for message_id, posted in self._posted.items()
        )
        self._last_id = last + by
        return first, last, by

    def rewind(self) -> None:
        """Hear that whatever was sent and not answered may be lost."""
        for posted in self._posted.values():
            posted.sent_s = None

    def attach(self, room: int, *, mark: int) -> None:
        """Speak to a server that knows the room by handle ``room`` and has taken ids up to ``mark``.

        What it has taken and not told us is sent again, and answered from what it remembers. New messages are
        numbered above the mark.
        """
        self.detach()
        self._room = room
        self._last_id = max(self._last_id, mark)

    def detach(self) -> None:
        """Hear that the connection is lost: what was sent waits to be sent again."""
        self._room = None
        self._not_before_s = None
        self.rewind()

    def next(self, *, now_s: float) -> Publish | None:
        """Return the message to send now, or None. It counts as sent."""
        if self._room is None or (self._not_before_s is not None and now_s < self._not_before_s):
            return None
        for message_id, posted in self._under_way():
            is_due = posted.sent_s is None or posted.sent_s + SILENCE_S <= now_s
            if posted.fate is None and is_due:
                posted.sent_s = now_s
                self.sent_up_to = max(self.sent_up_to, message_id)
                return Publish(self._room, message_id, posted.kind, posted.body)
        return None

    def next_timeout_s(self) -> float | None:
        """When ``next`` has something that it does not have yet; None: not before something else happens."""
        if self._room is None:
            return None
        sent = [posted.sent_s for _, posted in self._under_way() if posted.fate is None]
        if not sent:
            return None
        due_s = min(0.0 if sent_s is None else sent_s + SILENCE_S for sent_s in sent)
        return due_s if self._not_before_s is None else max(due_s, self._not_before_s)

    def lose(self, message_id: int) -> None:
        """Hear that the packet with a message was lost: it goes again, unless its fate is known."""
        posted = self._posted.get(message_id)
        if posted is not None:
            posted.sent_s = None

    def answer(self, published: Published, *, now_s: float) -> list[Settled]:
        """Take the server's answer; return what there is to tell the author now, in the order of posting."""
        posted = self._posted.get(published.message_id)
        if posted is None or posted.fate is not None:
            return []
        if 0 < published.status < Status.TOO_LARGE:  # this one waits, and all behind it with it
            wait_s = min(published.time_ms / 1000, ANSWER_WAIT_MAX_S)
            self._not_before_s = max(self._not_before_s or 0.0, now_s + wait_s)
            for message_id, later in self._posted.items():
                if message_id >= published.message_id:
                    later.sent_s = None
            return []
        posted.fate = _Fate(published.status, published.seq)
        return self._tell()

    def hear(self, message: Message) -> list[Settled]:
        """Take our own message as it came back with the log: that settles it, too.

        One with other words is of a life that we do not remember: what became of ours is the server's to say.
        """
        posted = self._posted.get(message.message_id)
        if posted is None or posted.fate is not None or (posted.kind, posted.body) != (message.kind, message.body):
            return []
        posted.fate = _Fate(Status.ACCEPTED, message.seq)
        return self._tell()

    def _under_way(self) -> Iterator[tuple[int, _Posted]]:
        """The oldest messages, as many as may be under way."""
        lowest = self.lowest_id
        for message_id, posted in self._posted.items():
            if message_id >= lowest + UNSETTLED_MAX or message_id > self.stored_up_to:
                return
            yield message_id, posted

    def _tell(self) -> list[Settled]:
        told: list[Settled] = []
        while self._posted:
            message_id, posted = next(iter(self._posted.items()))
            if posted.fate is None:
                break
            told.append(Settled(message_id, *posted.fate))
            del self._posted[message_id]
        return told


class _Answer(NamedTuple):
    status: int
    seq: int
    time_ms: int
    digest: bytes


class Intake:
    """The server's end for one member of a room.

    ``offer`` what came; then, while there is a ``next``, ``take`` it into the journal or ``defer`` it; tell ``settle``
    what the journal has, or ``fail`` that it has nothing.
    """

    def __init__(self, *, mark: int = 0, answers: Iterable[Answer] = ()) -> None:
        """Take ids from ``mark`` + 1 on; ``answers`` are what a journal remembers of those before."""
        self.mark = mark
        """The highest id that is settled: all below are too."""
        self._taken_up_to = mark
        self._floor = mark
        self._held: dict[int, Publish] = {}
        self._held_bytes = 0
        self._taken: OrderedDict[int, bytes] = OrderedDict()
        self._answers: OrderedDict[int, _Answer] = OrderedDict(
            (one.message_id, _Answer(one.status, one.seq, one.time_ms, one.digest)) for one in answers
        )
        self._deferred: tuple[int, int, int] | None = None

    def raise_to(self, lowest_id: int) -> None:
        """Hear the lowest id still to come: those below will never come, and are not waited for."""
        self._floor = max(self._floor, lowest_id - 1)
        self._raise()

    def offer(self, publish: Publish) -> Published | None:
        """Take what came; return the answer where there is one at once."""
        message_id = publish.message_id
        if message_id <= self.mark:
            return self._answer_again(publish)
        if message_id <= self._taken_up_to:  # its answer is under way
            is_same = self._taken[message_id] == _digest(publish)
            return None if is_same else Published(publish.room, message_id, Status.ID_REUSED, 0, 0)
        if message_id > self.mark + UNSETTLED_MAX:
            return None  # sent again when those before it are settled
        if self._deferred is not None:
            deferred_id, status, wait_ms = self._deferred
            if message_id != deferred_id:
                return Published(publish.room, message_id, status, 0, wait_ms)
            self._deferred = None
        if self._held_bytes + len(publish.body) > HELD_BYTES_MAX:
            return None  # likewise
        if message_id not in self._held:
            self._held[message_id] = publish
            self._held_bytes += len(publish.body)
        return None

    def keeps(self, message_id: int) -> bool:
        """Whether a message that was offered is kept, or was settled: it need not come again."""
        return message_id <= self._taken_up_to or message_id in self._held

    def next(self) -> Publish | None:
        """Return the next message in order, if it came."""
        return self._held.get(self._taken_up_to + 1)

    def take(self, publish: Publish) -> None:
        """Note that what ``next`` returned is on its way into the journal, as a message or a final refusal."""
        del self._held[publish.message_id]
        self._held_bytes -= len(publish.body)
        self._taken_up_to = publish.message_id
        self._taken[publish.message_id] = _digest(publish)

    def defer(self, publish: Publish, status: Status, *, wait_ms: int) -> list[Published]:
        """Refuse what ``next`` returned for now: it and all behind it are refused until it comes again."""
        self._deferred = (publish.message_id, status, wait_ms)
        refused = [Published(publish.room, message_id, status, 0, wait_ms) for message_id in sorted(self._held)]
        self._held.clear()
        self._held_bytes = 0
        return refused

    def settle(self, room: int, message_id: int, status: int, *, seq: int, time_ms: int) -> Published:
        """Note that the journal has the oldest taken message; return its answer.

        Raises ``LocalProtocolError`` when it is not the oldest.
        """
        if next(iter(self._taken), None) != message_id:
            raise LocalProtocolError("messages are settled in the order they were taken")
        answer = _Answer(status, seq, time_ms, self._taken.pop(message_id))
        self.mark = message_id
        self._answers[message_id] = answer
        if len(self._answers) > ANSWERS_KEPT:
            self._answers.popitem(last=False)
        self._raise()
        return Published(room, message_id, status, seq, time_ms)

    def fail(self, room: int, *, wait_ms: int) -> list[Published]:
        """Hear that the journal has nothing of what was taken since the last ``settle``: it may come again."""
        taken = list(self._taken)
        self._taken.clear()
        self._taken_up_to = self.mark
        if taken:
            self._deferred = (taken[0], Status.STORAGE, wait_ms)
        held = sorted(self._held)
        self._held.clear()
        self._held_bytes = 0
        self._raise()
        return [Published(room, message_id, Status.STORAGE, 0, wait_ms) for message_id in (*taken, *held)]

    def _raise(self) -> None:
        """Go on above the ids that will never come; not while one is on its way into the journal."""
        if self._taken or self._floor <= self.mark:
            return
        self.mark = self._taken_up_to = self._floor
        self._deferred = None
        for message_id in [message_id for message_id in self._held if message_id <= self.mark]:
            self._held_bytes -= len(self._held.pop(message_id).body)

    def _answer_again(self, publish: Publish) -> Published | None:
        known = self._answers.get(publish.message_id)
        if known is None:
            return None  # settled so long ago that its author has been told
        if known.digest != _digest(publish):
            return Published(publish.room, publish.message_id, Status.ID_REUSED, 0, 0)
        return Published(publish.room, publish.message_id, known.status, known.seq, known.time_ms)


def digest_of(kind: int, body: bytes) -> bytes:
    """Return what tells a message that comes again from another one: SHA-256 of its kind and its body."""
    return hashlib.sha256(bytes([kind]) + body).digest()


def _digest(publish: Publish) -> bytes:
    return digest_of(publish.kind, publish.body)
