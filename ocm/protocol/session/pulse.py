"""Whether a TLS connection still carries anything, as the client knows it (TCRP/2 section 5).

TCP notices a dead path after minutes. So the client asks after 15 seconds of silence, or a second after it sent
something that nothing came back for. Where no answer comes for 1.5 seconds it dials another connection, and where none
comes for 5 it gives this one up: an answer that is only late costs nothing, and one that never comes little time.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, assert_never

SILENCE_S: Final = 15.0
UNANSWERED_S: Final = 1.0
LATE_S: Final = 1.5
LATE_FACTOR: Final = 3
"""So many round trips an answer is given, where ``LATE_S`` is less."""
PONG_S: Final = 5.0


class Beat(Enum):
    """What is due."""

    PING = "ask for a sign of life"
    LATE = "nothing came yet: dial another"
    DEAD = "nothing came: give it up"


class Pulse:
    """One connection's signs of life."""

    def __init__(self, *, now_s: float, round_trip_s: float = 0.0) -> None:
        """Begin with a connection that has just shown that it lives; ``round_trip_s``: how long that took."""
        self._late_s = min(max(LATE_S, LATE_FACTOR * round_trip_s), PONG_S)
        self._next = Beat.PING
        self._due_s: float | None = now_s + SILENCE_S
        self._unanswered = False

    @property
    def is_late(self) -> bool:
        """Whether an answer is awaited for so long that another connection is to be dialled."""
        return self._next is Beat.DEAD

    def hear(self, *, now_s: float) -> None:
        """Note that something came."""
        self._next, self._due_s = Beat.PING, now_s + SILENCE_S
        self._unanswered = False

    def say(self, *, now_s: float) -> None:
        """Note that something was sent."""
        if self._due_s is not None and self._next is Beat.PING and not self._unanswered:
            self._unanswered = True
            self._due_s = min(self._due_s, now_s + UNANSWERED_S)

    def wait(self, *, now_s: float) -> bool:
        """Note that somebody waits for what comes; return whether to ask at once: it was not asked yet."""
        if self._next is Beat.PING:
            self.ask(now_s=now_s)
            return self.beat(now_s=now_s) is Beat.PING
        return False

    def ask(self, *, now_s: float) -> None:
        """Ask at once, and again if it was asked before: the machine slept, or its network changed."""
        if self._due_s is not None:
            self._next, self._due_s = Beat.PING, now_s

    def next_timeout_s(self) -> float | None:
        """When ``beat`` has something to say; None: it has said that the connection is dead."""
        return self._due_s

    def beat(self, *, now_s: float) -> Beat | None:
        """Return what is due."""
        if self._due_s is None or now_s < self._due_s:
            return None
        beat = self._next
        match beat:
            case Beat.PING:
                self._next, self._due_s = Beat.LATE, now_s + self._late_s
            case Beat.LATE:
                self._next, self._due_s = Beat.DEAD, now_s + PONG_S - self._late_s
            case Beat.DEAD:
                self._due_s = None
            case _:
                assert_never(beat)
        return beat
