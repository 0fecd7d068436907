"""The outbox: what a member has said and how far it has come; the client's twin of the hub.

It keeps to the allowance that servers grant, so a file piped into a chat loses nothing to flood control.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Final

from ocm.errors import SendRefused
from ocm.protocol.events import Delivery, Receipt
from ocm.protocol.limits import Limits

ECHO_TIMEOUT_S: Final = 2.0
"""How long a message may take to come back, where the server sends messages back."""
_SHARE: Final = 0.8
"""How much of a member's allowance is used: the server's clock and ours are not one."""


@dataclass(slots=True)
class _Posted:
    message_id: int
    text: str
    body: bytes = field(repr=False)
    sent_s: float = 0.0


class Outbox:
    """Messages of one member in one room, in order. Synchronous and without a clock.

    A driver calls ``bodies_to_send`` while it is connected, and ``handle_timeout`` when due; both return what
    to do or to tell.
    """

    def __init__(self, limits: Limits, *, text_size_max: int, waiting_max: int = 100_000) -> None:
        """Start empty and unconnected; ``waiting_max`` bounds what an offline user can pile up."""
        self._limits = limits
        self.text_size_max = text_size_max
        self._waiting_max = waiting_max
        self._waiting: deque[_Posted] = deque()
        self._unechoed: OrderedDict[int, _Posted] = OrderedDict()
        self._last_id = 0
        self._next_send_s = 0.0
        self.connected = False
        self.echoes = False
        """Whether the server sends messages back, so that more is known of them than that they left."""
        self.closed = False

    @property
    def is_settled(self) -> bool:
        """Whether every message has come as far as it will."""
        return not self._waiting and not self._unechoed

    def post(self, text: str) -> int:
        """Take a message; return its id.

        Raises ``SendRefused``: ``empty``, ``too_large``, ``not_text``, ``rate`` or ``closed``.
        """
        if self.closed:
            raise SendRefused("closed")
        try:
            body = text.encode()
        except UnicodeEncodeError:
            raise SendRefused("not_text") from None
        if not body:
            raise SendRefused("empty")
        if len(body) > self.text_size_max:
            raise SendRefused("too_large")
        if len(self._waiting) >= self._waiting_max:
            raise SendRefused("rate", retry_after_s=1.0)
        self._last_id += 1
        self._waiting.append(_Posted(self._last_id, text, body))
        return self._last_id

    def bodies_to_send(self, *, now_s: float) -> list[tuple[bytes, Receipt | None]]:
        """Return the texts whose time has come, each with the receipt it makes, to be sent at once."""
        due: list[tuple[bytes, Receipt | None]] = []
        ahead_s = (self._limits.burst_max - 1) / self._limits.rate_per_s * _SHARE
        while self.connected and self._waiting and self._next_send_s - ahead_s <= now_s:
            posted = self._waiting.popleft()
            self._next_send_s = max(self._next_send_s, now_s) + 1 / (self._limits.rate_per_s * _SHARE)
            posted.sent_s = now_s
            if self.echoes:
                self._unechoed[posted.message_id] = posted
                due.append((posted.body, None))
            else:
                due.append((posted.body, Receipt(posted.message_id, posted.text, Delivery.SENT)))
        return due

    def hear(self, text: str) -> Receipt | None:
        """Take a message that came from nobody in particular: if it is one of ours coming back, return its receipt."""
        for posted in self._unechoed.values():
            if posted.text == text:
                del self._unechoed[posted.message_id]
                return Receipt(posted.message_id, text, Delivery.IN_ROOM)
        return None

    def next_timeout_s(self) -> float | None:
        """When ``bodies_to_send`` or ``handle_timeout`` has something to do; None: never."""
        times: list[float] = []
        if self.connected and self._waiting:
            times.append(self._next_send_s - (self._limits.burst_max - 1) / self._limits.rate_per_s * _SHARE)
        if self._unechoed:
            times.append(next(iter(self._unechoed.values())).sent_s + ECHO_TIMEOUT_S)
        return min(times, default=None)

    def handle_timeout(self, *, now_s: float) -> list[Receipt]:
        """Give up waiting for messages to come back: all that is known of them is that they left."""
        receipts: list[Receipt] = []
        while self._unechoed:
            posted = next(iter(self._unechoed.values()))
            if posted.sent_s + ECHO_TIMEOUT_S > now_s:
                break
            del self._unechoed[posted.message_id]
            receipts.append(Receipt(posted.message_id, posted.text, Delivery.SENT))
        return receipts

    def close(self) -> list[str]:
        """Take nothing more; return the texts that were never sent."""
        self.closed = True
        unsent = [posted.text for posted in self._waiting]
        self._waiting.clear()
        self._unechoed.clear()
        return unsent
