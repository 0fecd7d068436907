"""Requests that wait for their answers, beside those to enter a room."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from ocm.protocol.agent.room import AgentRoom
from ocm.protocol.agent.wish import Wish
from ocm.protocol.events import Message
from ocm.protocol.wire import frames
from ocm.protocol.wire.records import History, MemberPage, MemberRow, Members, Op, Payload

REQUESTS_MAX: Final = 60
"""Requests that may wait for an answer: a few below what a server takes, for JOINs."""
_UINT32: Final = 2**32


@dataclass(slots=True)
class Question:
    """A request that waits for its answer."""

    op: Op
    wish: Wish
    payload: Payload = field(repr=False)
    entries: list[frames.Message] = field(default_factory=list[frames.Message], repr=False)
    members: list[MemberRow] = field(default_factory=list[MemberRow], repr=False)
    read_up_to: int = 0

    def read_back(self, message: frames.Message) -> None:
        """Take an entry that was asked for, in its order; others are nobody's."""
        asked = self.payload
        assert isinstance(asked, History), "only history is read back"
        if not max(asked.first, self.read_up_to + 1) <= message.seq < asked.first + asked.count:
            return
        self.read_up_to = message.seq
        self.entries.append(message)

    @property
    def messages(self) -> list[Message]:
        """What was said in the entries that were read back, oldest first."""
        return self.wish.room.remember(self.entries)

    def turn(self, page: MemberPage) -> Members | None:
        """Take a page of members; return the request for those behind it.

        None: there are none, or more than are told apart.
        """
        asked = self.payload
        assert isinstance(asked, Members), "a page of members answers MEMBERS"
        self.members += page.members
        if not page.more or not page.members or page.members[-1].id <= asked.after or self.wish.room.is_full:
            return None
        self.payload = Members(id=asked.id, handle=asked.handle, after=page.members[-1].id)
        return self.payload


class Questions:
    """Numbers requests, and keeps those that wait."""

    def __init__(self) -> None:
        """Begin with none."""
        self._waiting: dict[int, Question] = {}
        self._last_number = 0

    @property
    def is_full(self) -> bool:
        """Whether nothing more is to be asked just now."""
        return len(self._waiting) >= REQUESTS_MAX

    def next_number(self) -> int:
        """Return a number above 0 for a request."""
        self._last_number = self._last_number % (_UINT32 - 1) + 1
        return self._last_number

    def add(self, number: int, question: Question) -> None:
        """Let a request wait for its answer."""
        self._waiting[number] = question

    def pop(self, number: int, op: Op) -> Question | None:
        """Return what is answered, which waits no more; None: nobody asked that."""
        question = self._waiting.get(number)
        if question is None or question.op is not op:
            return None
        return self._waiting.pop(number)

    def read_back(self, room: AgentRoom, message: frames.Message) -> None:
        """Take an entry of history: it is for the oldest request, for they are answered in order."""
        for question in self._waiting.values():
            if question.op is Op.HISTORY and question.wish.room is room:
                question.read_back(message)
                return

    def is_leaving(self, name: str) -> bool:
        """Say whether a LEAVE of a room with this name waits."""
        return any(one.op is Op.LEAVE and one.wish.name == name for one in self._waiting.values())

    def forget(self) -> list[int]:
        """Hear that nothing is answered any more; return the numbers of those that somebody waits for."""
        waiting, self._waiting = self._waiting, {}
        return [number for number, question in waiting.items() if question.op is not Op.LEAVE]
