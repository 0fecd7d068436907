"""What a client is about to remember: memos that wait for its store, and are told of when they are in it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from ocm.protocol.agent.room import AgentRoom
from ocm.protocol.memory import Entered, Left, Memo, Named, Posted, Read, Sent

Owned: TypeAlias = tuple[Memo, AgentRoom | None]


class Memos:
    """In order, each told as stored once. A store that takes nothing for long has no more waiting than there is to say.

    Where a memo says what an earlier one did, only newer, it takes its place.
    """

    def __init__(self) -> None:
        """Begin with nothing to remember."""
        self._waiting: dict[int, Owned] = {}
        self._places: dict[tuple[type[Memo], str], int] = {}
        self._next_place = 0
        self._handed_out: deque[Owned] = deque()
        self._stored = 0

    def __bool__(self) -> bool:
        """Whether something waits to be handed out."""
        return bool(self._waiting)

    def add(self, memo: Memo, room: AgentRoom | None) -> None:
        """Have it remembered."""
        place = self._place_of(memo)
        if place is None:
            place, self._next_place = self._next_place, self._next_place + 1
        else:
            memo = _newer(self._waiting[place][0], memo)
        self._waiting[place] = (memo, room)
        self._note(memo, place)

    def hand_out(self) -> list[Memo]:
        """Return what waits, to be stored whole or not at all."""
        handed_out = list(self._waiting.values())
        self._waiting.clear()
        self._places.clear()
        self._handed_out += handed_out
        return [memo for memo, _ in handed_out]

    def stored(self, count: int) -> list[Owned]:
        """Hear that ``count`` memos are stored, since ever; return those of which that is news."""
        news: list[Owned] = []
        while self._handed_out and self._stored < count:
            news.append(self._handed_out.popleft())
            self._stored += 1
        return news

    def take_back(self) -> None:
        """Hear that nothing of what is not known to be stored is: it is handed out again, before what came since."""
        again, self._handed_out = [*self._handed_out, *self._waiting.values()], deque()
        self._waiting.clear()
        self._places.clear()
        for memo, room in again:
            self.add(memo, room)

    def _place_of(self, memo: Memo) -> int | None:
        return self._places.get((type(memo), _room_of(memo)))

    def _note(self, memo: Memo, place: int) -> None:
        """Know where a newer one would go, and that none may pass a memo that it cannot be swapped with."""
        room = _room_of(memo)
        if isinstance(memo, Entered) and (read := self._places.pop((Read, room), None)) is not None:
            del self._waiting[read]  # of what was read before nothing counts
        for kind in _BARRED_BY.get(type(memo), ()):
            self._places.pop((kind, room), None)
        if isinstance(memo, Named | Entered | Sent | Read):
            self._places[type(memo), room] = place


_BARRED_BY: Final[Mapping[type[Memo], Sequence[type[Memo]]]] = {
    Left: (Entered, Sent, Read),
    Posted: (Entered,),
}
"""What cannot be put in front of a memo by what it did."""


def _room_of(memo: Memo) -> str:
    return "" if isinstance(memo, Named) else memo.room


def _newer(before: Memo, memo: Memo) -> Memo:
    match before, memo:
        case Entered(), Entered():
            return memo._replace(mark=max(before.mark, memo.mark))
        case Sent(), Sent():
            return memo._replace(message_id=max(before.message_id, memo.message_id))
        case Read(), Read():
            return memo._replace(seq=max(before.seq, memo.seq))
        case _:
            return memo
