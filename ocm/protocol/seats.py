"""Who sits where: the doors of a server's modern members, by client and room, whether a session is there or not."""

from __future__ import annotations

from collections import OrderedDict

from ocm.protocol.limits import Limits
from ocm.protocol.link.modern import ModernLink


class Seats:
    """A client has one door into a room. That of a member that is gone stays for a while, so that it can read why."""

    def __init__(self, limits: Limits) -> None:
        """Begin without any."""
        self._limits = limits
        self._doors: dict[bytes, dict[str, ModernLink]] = {}
        self._ended: OrderedDict[ModernLink, float] = OrderedDict()

    def find(self, client: bytes, room: str) -> ModernLink | None:
        """Return the door that a client has into a room."""
        return self._doors.get(client, {}).get(room)

    def add(self, link: ModernLink) -> None:
        """Take in a door; it is the client's into that room from now on."""
        self._doors.setdefault(link.client, {})[link.room] = link

    def count(self, client: bytes) -> int:
        """Count the rooms that a client is in, or on its way into."""
        return sum(not link.end_seq for link in self._doors.get(client, {}).values())

    def let_read_on(self, link: ModernLink, seq: int, *, now_s: float) -> None:
        """The member is gone: what it may read ends with the entry ``seq``, which says so."""
        link.end(seq)
        self._ended[link] = now_s + self._limits.detached_timeout_s
        if len(self._ended) > self._limits.rooms_max:
            self.forget(next((one for one in self._ended if one.carrier is None), next(iter(self._ended))))

    def forget(self, link: ModernLink) -> None:
        """Let go of a door that leads nowhere any more."""
        if link.carrier is not None:
            link.carrier.unseat(link)
        self._ended.pop(link, None)
        doors = self._doors.get(link.client, {})
        if doors.get(link.room) is link:
            del doors[link.room]
            if not doors:
                del self._doors[link.client]

    def expire(self, *, now_s: float) -> None:
        """Forget those that could be read for long enough."""
        while self._ended and next(iter(self._ended.values())) <= now_s:
            self.forget(next(iter(self._ended)))
