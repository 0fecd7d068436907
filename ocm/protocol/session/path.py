"""Whether datagrams get through, as one sender knows it (TCRP/2 section 5).

```
 NONE -- begin --> PROBING -- answered --> UP -- suspect --> SUSPECT -- answered --> UP
                      | unanswered                              | 10 s unanswered
                      v                                         v
                    DOWN  <--------------------------------------
```

While a path is not UP everything travels over TLS. A client probes anew every 30 seconds; a server, which is called and
does not call, when it hears from the client. After a sleep probing begins again from the first probe on, whatever the
state: UP becomes SUSPECT and DOWN becomes PROBING. In another network DOWN does; UP is followed by the server.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from ocm.protocol.session.addresses import CHALLENGE_SIZE
from ocm.protocol.session.keys import Randomness

PROBES_S: Final = (0.0, 0.3, 0.7, 1.5, 2.5, 4.0, 6.0, 8.0)
"""When a path is probed, counted from the beginning of a round."""
PROBE_ANSWER_S: Final = 2.0
"""How long after the last probe of a round an answer may take."""
SUSPECT_PROBE_S: Final = 1.0
SUSPECT_MAX_S: Final = 10.0
"""How long a path may be SUSPECT before it is DOWN."""
PROBE_AGAIN_S: Final = 30.0
"""Between two rounds of a client whose path is DOWN."""


class PathState(StrEnum):
    """Where datagrams stand."""

    NONE = "none"
    PROBING = "probing"
    UP = "up"
    SUSPECT = "suspect"
    DOWN = "down"


class Cause(StrEnum):
    """What moves a path from one state to the next."""

    BEGIN = "begin"
    AGAIN = "again"
    ANSWERED = "answered"
    SUSPECT = "suspect"
    UNANSWERED = "unanswered"


STEPS: Final[Mapping[tuple[PathState, Cause], PathState]] = {
    (PathState.NONE, Cause.BEGIN): PathState.PROBING,
    (PathState.NONE, Cause.ANSWERED): PathState.UP,
    (PathState.PROBING, Cause.AGAIN): PathState.PROBING,
    (PathState.PROBING, Cause.ANSWERED): PathState.UP,
    (PathState.PROBING, Cause.UNANSWERED): PathState.DOWN,
    (PathState.UP, Cause.BEGIN): PathState.SUSPECT,
    (PathState.UP, Cause.AGAIN): PathState.SUSPECT,
    (PathState.UP, Cause.SUSPECT): PathState.SUSPECT,
    (PathState.SUSPECT, Cause.AGAIN): PathState.SUSPECT,
    (PathState.SUSPECT, Cause.ANSWERED): PathState.UP,
    (PathState.SUSPECT, Cause.UNANSWERED): PathState.DOWN,
    (PathState.DOWN, Cause.BEGIN): PathState.PROBING,
    (PathState.DOWN, Cause.AGAIN): PathState.PROBING,
    (PathState.DOWN, Cause.ANSWERED): PathState.UP,
}
"""Every step; what is not here changes nothing. The drawing in docs/ is made from it."""


class Path:
    """One direction of a session's way by datagram. It says when to challenge, and whether an answer is one."""

    def __init__(self, *, calls: bool, randomness: Randomness) -> None:
        """Start without a path. ``calls``: we are the client, who probes again by itself."""
        self.state = PathState.NONE
        self._calls = calls
        self._randomness = randomness
        self._challenge = b""
        self._began_s = self._until_s = 0.0
        self._probes = 0
        self._due_s: float | None = None

    def begin(self, *, now_s: float) -> None:
        """Probe from now on: the other side named a port, or is heard again, or our network has changed.

        Nothing changes where it is probed already.
        """
        self._step(Cause.BEGIN, now_s)

    def begin_again(self, *, now_s: float) -> None:
        """Probe as if for the first time: the machine slept, or what was DOWN is in another network.

        What was asked before is answered no more. Nothing changes where there is no path at all.
        """
        self._step(Cause.AGAIN, now_s)

    def suspect(self, *, now_s: float) -> None:
        """Hear that packets go unanswered."""
        self._step(Cause.SUSPECT, now_s)

    def prove(self, *, now_s: float) -> None:
        """Hear that the other side has proved its address to us in another way."""
        self._step(Cause.ANSWERED, now_s)

    def respond(self, response: bytes, *, now_s: float) -> bool:
        """Take an answer; return whether it is one to a challenge of ours."""
        if not self._challenge or response != self._challenge:
            return False
        self._step(Cause.ANSWERED, now_s)
        return True

    def next_timeout_s(self) -> float | None:
        """When ``probe`` has something to do."""
        return self._due_s

    def probe(self, *, now_s: float) -> bytes | None:
        """Return the challenge to send now, if one is due."""
        if self._due_s is None or now_s < self._due_s:
            return None
        match self.state:
            case PathState.PROBING:
                if self._probes == len(PROBES_S):
                    self._step(Cause.UNANSWERED, now_s)
                    return None
                while self._probes < len(PROBES_S) and self._probe_s() <= now_s:
                    self._probes += 1  # those whose time went by unnoticed are one with this
                last = self._probes == len(PROBES_S)
                self._due_s = now_s + PROBE_ANSWER_S if last else self._probe_s()
                return self._challenge
            case PathState.SUSPECT:
                if now_s >= self._until_s:
                    self._step(Cause.UNANSWERED, now_s)
                    return None
                self._due_s = min(now_s + SUSPECT_PROBE_S, self._until_s)
                return self._challenge
            case _:  # DOWN: the next round
                self._step(Cause.BEGIN, now_s)
                return self.probe(now_s=now_s)

    def _probe_s(self) -> float:
        """When the next probe of a round goes out."""
        return self._began_s + PROBES_S[self._probes]

    def _step(self, cause: Cause, now_s: float) -> None:
        state = STEPS.get((self.state, cause))
        if state is None:
            return
        self.state = state
        self._challenge = b""
        self._due_s = None
        if state in {PathState.PROBING, PathState.SUSPECT}:
            self._challenge = self._randomness(CHALLENGE_SIZE)
            self._began_s = self._due_s = now_s
            self._until_s = now_s + SUSPECT_MAX_S
            self._probes = 0
        elif state is PathState.DOWN and self._calls:
            self._due_s = now_s + PROBE_AGAIN_S
