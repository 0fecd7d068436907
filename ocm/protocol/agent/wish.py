"""A room that the user wants to be in: how it is asked for, and what a refusal means."""

from __future__ import annotations

from enum import Enum
from typing import Final

from ocm.protocol.agent.room import AgentRoom
from ocm.protocol.entry import Policy, Refusal
from ocm.protocol.limits import ANSWER_WAIT_MAX_S
from ocm.protocol.wire.records import Create, Denied, Join, Op

GONE_AFTER_S: Final = 15.0
"""How long a room that its server no longer knows may take to come back: its host may make it again."""
ASK_AGAIN_S: Final = 1.0
"""How long to wait before a room is asked for again."""


class Verdict(Enum):
    """What a refusal leads to."""

    WAIT = "ask again later"
    MAKE = "ask at once to make the room anew"
    REFUSED = "it was never ours, and will not be"
    GONE = "it was ours, and is none any more"


class Wish:
    """A room that the user wants to be in, or to be out of."""

    def __init__(
        self, room: AgentRoom, *, user: str, create: bool, policy: Policy | None, password: str | None
    ) -> None:
        """Wish for ``room``; ``create``: it is to be made."""
        self.room = room
        self.was_in = bool(room.log_id)
        """Whether we are a member, as far as we know."""
        self.is_lost_told = False
        """Whether the user knows that the way to the server is lost, and not yet that it is found."""
        self.leaving = False
        self.asked = 0
        """The number of the request to enter that waits for an answer; 0: none does."""
        self.ask_s: float | None = None
        """When to ask again."""
        self._user = user
        self._create = create
        self._policy = policy or Policy()
        self._password = password
        self._gone_s: float | None = None
        self._makes_anew = False

    @property
    def name(self) -> str:
        """The room's name."""
        return self.room.name

    def request(self, number: int) -> tuple[Op, Create | Join]:
        """Return what to ask: to CREATE, or to JOIN where we were in, or others made it."""
        room = self.room
        if not self._makes_anew and (self.was_in or not self._create):
            return Op.JOIN, Join(
                id=number,
                room=room.name,
                user=self._user,
                log=room.log_id.hex() or None,
                last=room.up_to,
                lowest=room.lowest_id,
                password=self._password,
            )
        return Op.CREATE, Create(
            id=number,
            room=room.name,
            user=self._user,
            access=self._policy.access.value,
            lifetime=self._policy.lifetime.value,
            durable=self._policy.durable,
            lowest=room.lowest_id,
            password=self._password,
        )

    def seated(self) -> None:
        """Hear that we are in."""
        self.was_in = True
        self._makes_anew = False
        self._gone_s = None

    def unasked(self) -> None:
        """Hear that another session begins, or none is left: it is asked from the beginning."""
        self.asked, self.ask_s, self._gone_s = 0, None, None

    def denied(self, denied: Denied, *, now_s: float) -> Verdict:
        """Take a refusal; return what it leads to."""
        is_temporary = denied.wait_ms > 0 or denied.code in {Refusal.UNAVAILABLE, Refusal.RATE_LIMITED}
        if is_temporary and (self.was_in or denied.wait_ms):
            self.ask_s = now_s + min(max(denied.wait_ms / 1000, ASK_AGAIN_S), ANSWER_WAIT_MAX_S)
            return Verdict.WAIT
        if not self.was_in:
            return Verdict.REFUSED
        if denied.code == Refusal.NOT_FOUND and self._create and not self._makes_anew:
            self._makes_anew = True
            return Verdict.MAKE
        self._makes_anew = False
        if self._gone_s is None:
            self._gone_s = now_s + GONE_AFTER_S
        if now_s < self._gone_s:
            self.ask_s = now_s + ASK_AGAIN_S
            return Verdict.WAIT
        return Verdict.GONE
