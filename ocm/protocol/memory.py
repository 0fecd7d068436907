"""What a client remembers over its own end: the vocabulary between its machine and its store. No bytes of any file.

The machine hands out ``Memo``s and waits until they are stored before it acts on them: a message is stored before
it is first sent, a resume secret before the server is told that we have it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeAlias, assert_never


class Named(NamedTuple):
    """The server knows us by ``client`` from now on, and will by ``secret`` the next time."""

    client: bytes
    """16 random bytes, of the server's choosing."""
    secret: bytes
    """The resume secret, 32 random bytes. It goes to the server with the key ``server`` and to no other."""
    server: bytes
    """SHA-256 of the server's public key (SubjectPublicKeyInfo)."""

    def __repr__(self) -> str:
        """Show nothing of the secret."""
        return "Named(...)"


class Entered(NamedTuple):
    """We are a member of ``room``, in the log that ``log_id`` names; what was read of another log counts no more."""

    room: str
    log_id: bytes
    """16 bytes (TCRP/2 section 6, incarnation)."""
    last: int
    """The entry behind which we start; below what was read where the log lost its newest entries."""
    mark: int
    """The highest message id that was ever used."""


class Posted(NamedTuple):
    """We say something in ``room``."""

    room: str
    message_id: int
    kind: int
    body: bytes


class Renumbered(NamedTuple):
    """What we say in ``room`` under the ids ``first`` to ``last`` never left, and has ids higher by ``by`` now."""

    room: str
    first: int
    last: int
    by: int


class Sent(NamedTuple):
    """Messages of ours up to ``message_id`` may have reached the server: their fate is the server's to tell."""

    room: str
    message_id: int


class Settled(NamedTuple):
    """The fate of one of our messages is known, and was told."""

    room: str
    message_id: int


class Read(NamedTuple):
    """Everything of the room's log up to entry ``seq`` was handed to the user."""

    room: str
    seq: int


class Left(NamedTuple):
    """We are no member of ``room`` any more: forget all about it."""

    room: str


Memo: TypeAlias = Named | Entered | Posted | Renumbered | Sent | Settled | Read | Left
"""A change of what is remembered."""


@dataclass(slots=True)
class RoomMemory:
    """What is remembered of one room."""

    log_id: bytes = b""
    """Empty before we were let in for the first time."""
    last: int = 0
    mark: int = 0
    sent_up_to: int = 0
    posted: dict[int, Posted] = field(default_factory=dict[int, Posted], repr=False)
    """Messages whose fate is not known, by id, rising."""


@dataclass(slots=True)
class Memory:
    """What is remembered: the fold of all memos."""

    named: Named | None = None
    rooms: dict[str, RoomMemory] = field(default_factory=dict[str, RoomMemory])

    def copy(self) -> Memory:
        """Return another that does not change with this one."""
        rooms = {name: replace(room, posted=dict(room.posted)) for name, room in self.rooms.items()}
        return Memory(self.named, rooms)

    def apply(self, memo: Memo) -> None:
        """Take a memo in."""
        match memo:
            case Named():
                self.named = memo
            case Left(room):
                self.rooms.pop(room, None)
            case Entered(room, log_id, last, mark):
                kept = self._of(room)
                kept.log_id, kept.last = log_id, last
                kept.mark = max(kept.mark, mark)
            case Posted(room, message_id):
                kept = self._of(room)
                if message_id > kept.mark or message_id in kept.posted:
                    kept.posted[message_id] = memo
                kept.mark = max(kept.mark, message_id)
            case Renumbered(room, first, last, by):
                kept = self._of(room)
                moving = [one for one in kept.posted if first <= one <= last]
                moved = [kept.posted.pop(one) for one in moving]
                kept.posted |= {one.message_id + by: one._replace(message_id=one.message_id + by) for one in moved}
                kept.posted = dict(sorted(kept.posted.items()))
                kept.mark = max(kept.mark, last + by)
            case Sent(room, message_id):
                kept = self._of(room)
                kept.sent_up_to = max(kept.sent_up_to, message_id)
            case Settled(room, message_id):
                self._of(room).posted.pop(message_id, None)
            case Read(room, seq):
                kept = self._of(room)
                kept.last = max(kept.last, seq)
            case _:
                assert_never(memo)

    def _of(self, room: str) -> RoomMemory:
        return self.rooms.setdefault(room, RoomMemory())
