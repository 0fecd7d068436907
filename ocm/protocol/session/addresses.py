"""Where a peer is: its address, and the candidates that have still to prove themselves (RFC 9000 sections 8 and 9).

The server's side of roaming. Nobody is sent more than three times what came from there before it has answered a
challenge, so a spoofed source is no way to flood a third party.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from ocm.protocol.address import Address
from ocm.protocol.session.keys import Randomness

AMPLIFICATION: Final = 3
"""Bytes to an address that has not answered, for each byte that came from it."""
UNPROVED_PACKETS_MAX: Final = 3
"""Datagrams to an address that has not answered."""
CANDIDATES_MAX: Final = 2
CHALLENGE_SIZE: Final = 8
CHALLENGES_MAX: Final = 3
"""Tries to challenge one candidate."""
CHALLENGE_AFTER_S: Final = 0.5
"""How long an answer may take before the next try."""
CHANGE_AFTER_S: Final = 1.0
"""The address changes at most this often. The first one is no change."""


@dataclass(slots=True)
class Candidate:
    """An address that has not answered a challenge."""

    address: Address
    challenge: bytes
    received: int = 0
    """Bytes that came from it."""
    sent: int = 0
    packets: int = 0
    tries: int = 0
    due_s: float = 0.0
    """When to challenge it, again or for the first time."""

    def budget(self) -> int:
        """Return how many bytes may be sent to it now."""
        return 0 if self.packets >= UNPROVED_PACKETS_MAX else max(0, AMPLIFICATION * self.received - self.sent)


class Addresses:
    """The address of one peer, and its candidates. Only packets that opened are told to it."""

    def __init__(self, *, randomness: Randomness) -> None:
        """Start without any address."""
        self.current: Address | None = None
        """Where the peer has proved to be."""
        self._candidates: dict[Address, Candidate] = {}
        self._randomness = randomness
        self._change_s = -math.inf
        """When the address may change again: sooner nobody is challenged, and no answer counts."""

    def receive(self, address: Address, size: int, *, newest: bool, now_s: float) -> None:
        """Note a packet of ``size`` bytes that opened; ``newest``: none has a higher number."""
        candidate = self._candidates.get(address)
        if candidate is not None:
            candidate.received += size
        if not newest or candidate is not None:
            return
        if address == self.current:
            self._candidates.clear()  # it is where it was: what came from elsewhere was older
            return
        if len(self._candidates) >= CANDIDATES_MAX:
            del self._candidates[next(iter(self._candidates))]
        challenge = self._randomness(CHALLENGE_SIZE)
        self._candidates[address] = Candidate(address, challenge, received=size, due_s=max(now_s, self._change_s))

    @property
    def is_asking(self) -> bool:
        """Whether the peer turned up at an address that may still prove to be its own."""
        return bool(self._candidates)

    def forget(self) -> None:
        """Hear that nothing gets through to the peer: wherever it turns up, it proves itself anew."""
        self.current = None

    def may_send(self, address: Address, size: int) -> bool:
        """Whether a datagram of ``size`` bytes may go to an address."""
        if address == self.current:
            return True
        candidate = self._candidates.get(address)
        return candidate is not None and size <= candidate.budget()

    def sent(self, address: Address, size: int) -> None:
        """Note that a datagram went out."""
        candidate = self._candidates.get(address)
        if candidate is not None:
            candidate.sent += size
            candidate.packets += 1

    def next_timeout_s(self) -> float | None:
        """When a candidate is to be challenged, or given up; None: there is none."""
        if not self._candidates:  # nearly always
            return None
        return min(candidate.due_s for candidate in self._candidates.values())

    def expire(self, *, now_s: float) -> None:
        """Give up the candidates that never answered."""
        for candidate in list(self._candidates.values()):
            if candidate.tries == CHALLENGES_MAX and candidate.due_s <= now_s:
                del self._candidates[candidate.address]

    def challenges(self, *, now_s: float) -> list[Candidate]:
        """Return the candidates to challenge now; each counts as tried. Those that never answered are given up."""
        self.expire(now_s=now_s)
        due = [candidate for candidate in self._candidates.values() if candidate.due_s <= now_s]
        for candidate in due:
            candidate.tries += 1
            candidate.due_s = now_s + CHALLENGE_AFTER_S
        return due

    def respond(self, address: Address, response: bytes, *, now_s: float) -> bool:
        """Take the answer to a challenge; return whether the peer's address is another one now."""
        candidate = self._candidates.get(address)
        if candidate is None or candidate.challenge != response or not candidate.tries:
            return False
        if self.current is not None:
            self._change_s = now_s + CHANGE_AFTER_S
        self.current = address
        self._candidates.clear()
        return True


class FixedAddress:
    """The client's side: the server is where it said, and its seal is its proof. Shaped like ``Addresses``."""

    def __init__(self, address: Address) -> None:
        """Send to ``address``, and take what opens from anywhere."""
        self.current: Address | None = address

    def receive(self, address: Address, size: int, *, newest: bool, now_s: float) -> None:
        """Note nothing."""

    @property
    def is_asking(self) -> bool:
        """Say no: there are no candidates."""
        return False

    def expire(self, *, now_s: float) -> None:
        """Do nothing: there are none."""

    def forget(self) -> None:
        """Do nothing: the server stays where it is."""

    def may_send(self, address: Address, size: int) -> bool:
        """Say yes."""
        return True

    def sent(self, address: Address, size: int) -> None:
        """Note nothing."""

    def next_timeout_s(self) -> float | None:
        """Return None: there are no candidates."""
        return None

    def challenges(self, *, now_s: float) -> list[Candidate]:
        """Return nobody."""
        return []

    def respond(self, address: Address, response: bytes, *, now_s: float) -> bool:
        """Say that this changes nothing."""
        return False
