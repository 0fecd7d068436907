"""Whether a TLS connection still carries anything, as the client knows it (TCRP/2 section 5).

TCP notices a dead path after minutes. So the client asks after 15 seconds of silence, or 2 seconds after it sent
something that nothing came back for; 5 seconds without an answer and it dials anew.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

SILENCE_S: Final = 15.0
UNANSWERED_S: Final = 2.0
PONG_S: Final = 5.0


class Beat(Enum):
    """What is due."""

    PING = "ask for a sign of life"
    DEAD = "nothing came: dial anew"


class Pulse:
    """One connection's signs of life."""

    def __init__(self, *, now_s: float) -> None:
        """Begin with a connection that has just shown that it lives."""
        self._ask_s: float | None = now_s + SILENCE_S
        self._dead_s: float | None = None
        self._unanswered = False

    def hear(self, *, now_s: float) -> None:
        """Note that something came."""
        self._ask_s = now_s + SILENCE_S
        self._dead_s = None
        self._unanswered = False

    def say(self, *, now_s: float) -> None:
        """Note that something was sent."""
        if not self._unanswered and self._ask_s is not None:
            self._unanswered = True
            self._ask_s = min(self._ask_s, now_s + UNANSWERED_S)

    def ask(self, *, now_s: float) -> None:
        """Ask at once, and again if it was asked before: the machine slept, or its network changed."""
        if self._ask_s is not None:
            self._ask_s, self._dead_s = now_s, None

    def next_timeout_s(self) -> float | None:
        """When ``beat`` has something to say; None: it has said that the connection is dead."""
        return self._ask_s if self._dead_s is None else self._dead_s

    def beat(self, *, now_s: float) -> Beat | None:
        """Return what is due."""
        if self._dead_s is not None:
            if now_s < self._dead_s:
                return None
            self._ask_s = self._dead_s = None
            return Beat.DEAD
        if self._ask_s is None or now_s < self._ask_s:
            return None
        self._dead_s = now_s + PONG_S
        return Beat.PING
