"""One session after another: the one that counts, the one that comes, the one before that still speaks for rooms."""

from __future__ import annotations

from collections.abc import Iterator

from ocm.protocol.agent.room import AgentRoom
from ocm.protocol.agent.session import Session, SessionState


class Succession:
    """A client's sessions with its server, at most three."""

    def __init__(self) -> None:
        """Begin without any."""
        self.current: Session | None = None
        """The last one in which the server knew us."""
        self.coming: Session | None = None
        """One in which it does not know us yet."""
        self.former: Session | None = None
        """The one before the current one: it speaks for the rooms that have no seat there yet."""

    def __iter__(self) -> Iterator[Session]:
        """Give everything that may say or hear something."""
        return (one for one in (self.current, self.former, self.coming) if one is not None)

    @property
    def known(self) -> list[Session]:
        """Those in which the server knows us."""
        return [one for one in (self.current, self.former) if one is not None]

    @property
    def open(self) -> Session | None:
        """The current one, while requests can be made in it."""
        session = self.current
        return session if session is not None and session.state is SessionState.OPEN else None

    def speaks_for(self, room: AgentRoom) -> bool:
        """Say whether a room has a seat in any of them."""
        return any(one.speaks_for(room) for one in self.known)

    def succeed(self, session: Session, *, goes_on: bool) -> bool:
        """Hear that the server knows us in the one that came; return whether there was one before.

        Where the server ``goes_on`` with us as it knew us, the one before speaks for its rooms until they have a seat
        in the new one. Where it came to nothing before any had one, it is still the one before that.
        """
        before, self.current, self.coming = self.current, session, None
        if before is None:
            return False
        if before.rooms or not goes_on:
            self.drop_former()
        if before.rooms and goes_on:
            self.former = before
        else:
            before.drop()
        return True

    def fall_back(self) -> None:
        """Hear that the current one is over: the one before counts again, where there is one."""
        self.current, self.former = self.former, None

    def vacate(self, room: AgentRoom) -> None:
        """Hear that a room needs the one before no more."""
        if self.former is not None:
            self.former.unseat(room)
            if not self.former.rooms:
                self.drop_former()

    def unseat(self, room: AgentRoom) -> None:
        """Speak for a room no more."""
        if self.current is not None:
            self.current.unseat(room)
        self.vacate(room)

    def drop_former(self) -> None:
        """Let go of the one before."""
        former, self.former = self.former, None
        if former is not None:
            for room in former.rooms.values():
                room.detach()
            former.drop()
