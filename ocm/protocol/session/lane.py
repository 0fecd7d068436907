"""Sealed packets, one way and the other: sealing, opening, acknowledging, recovering. It does not read frames but ACK.

A packet carries ``Load``s: frames whose owner is told when the packet was acknowledged or lost.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ocm.errors import RemoteProtocolError
from ocm.protocol.session.acks import Acknowledger, delay_s
from ocm.protocol.session.keys import Direction, Randomness, SessionSecrets
from ocm.protocol.session.recovery import Outcome, Recovery
from ocm.protocol.session.seal import Opener, Sealer
from ocm.protocol.wire.frames import ACK_BITMAP_MAX, Ack, Frame, acked, read_frames, write_frame
from ocm.protocol.wire.sealed import SealedDatagram

TIMEOUTS_MAX: Final = 4
"""Probe timeouts in a row after which the path is suspect."""
_LOSS_WEIGHT: Final = 1 / 64
"""Of the newest packet in the smoothed share of packets lost."""


class Load(NamedTuple):
    """Frames on their way, which share one fate."""

    data: bytes
    """The frames, as they are written."""
    owner: object
    """Who sends them, and minds what becomes of them."""
    key: object = None
    """What the owner knows them by."""
    frames: int = 1
    """How many frames they are."""


class Lane:
    """The packets of one session, both directions."""

    def __init__(self, sends: Direction, secrets: SessionSecrets, *, peer_id: bytes, randomness: Randomness) -> None:
        """Start at packet 0. ``peer_id`` is the connection id that the other side chose."""
        ours, theirs = secrets.to_server, secrets.to_client
        if sends is Direction.TO_CLIENT:
            ours, theirs = theirs, ours
        self._sealer = Sealer(ours, peer_id, randomness=randomness)
        self._opener = Opener(theirs)
        self._acknowledger = Acknowledger()
        self.recovery: Recovery[tuple[Load, ...]] = Recovery()
        self.loss = 0.0
        """The share of our packets that is lost, smoothed."""

    # --- what comes -------------------------------------------------------------------------------------

    @property
    def largest(self) -> int:
        """The largest packet number that was opened."""
        return self._opener.window.largest

    def open(self, datagram: SealedDatagram) -> list[Frame] | None:
        """Return the frames of a packet, or None when it is not a new one of our peer.

        Raises ``RemoteProtocolError`` when it is, and its frames break the rules.
        """
        data = self._opener.open(datagram)
        return None if data is None else read_frames(data)

    def took(self, number: int, *, eliciting: bool, now_s: float) -> None:
        """Note that all frames of a packet were taken: it is acknowledged from now on."""
        self._acknowledger.receive(number, eliciting=eliciting, now_s=now_s)

    def acknowledge(self, ack: Ack, *, now_s: float) -> Outcome[tuple[Load, ...]]:
        """Take an acknowledgement; return what it settles.

        Raises ``RemoteProtocolError`` when it names a packet that was skipped or never sent.
        """
        largest, sealer = ack.largest, self._sealer
        skipped = sealer.skipped(largest - 8 * ACK_BITMAP_MAX, largest)
        if not sealer.acknowledge(largest) or (skipped and acked(ack, skipped)):
            raise RemoteProtocolError("an acknowledgement of what was never sent")
        # Nearly all that an ACK names was named before: look at what is still under way, not at its 129 numbers.
        news = acked(ack, self.recovery.under_way_up_to(largest))
        if news[:1] != [largest]:
            news.insert(0, largest)
        outcome = self.recovery.acknowledge(news, delay_s=delay_s(ack), now_s=now_s)
        self._count(outcome)
        return outcome

    # --- what goes --------------------------------------------------------------------------------------

    @property
    def is_blocked(self) -> bool:
        """Whether nothing can be sealed just now."""
        sealer = self._sealer
        return sealer.next_number >= sealer.end  # as it says itself: this is asked several times for each packet

    def ack(self, *, now_s: float) -> bytes:
        """Return the ACK that goes along with whatever is sent now; nothing where none is owed."""
        ack = self._acknowledger.ack(now_s=now_s)
        return b"" if ack is None else write_frame(ack)

    def seal(self, frames: bytes) -> bytes:
        """Return a packet of which nobody minds whether it comes."""
        return self._sealer.seal(frames)[1]

    def send(self, frames: bytes, loads: tuple[Load, ...], *, now_s: float) -> bytes:
        """Return a packet that wants an acknowledgement, of ``frames`` and behind them ``loads``."""
        for load in loads:
            frames += load.data
        number, datagram = self._sealer.seal(frames)
        self.recovery.send(number, len(datagram), loads, now_s=now_s)
        return datagram

    # --- time -------------------------------------------------------------------------------------------

    def next_timeout_s(self) -> float | None:
        """When ``handle_timeout`` has something to do, apart from acknowledgements."""
        return self.recovery.next_timeout_s()

    def next_ack_s(self) -> float | None:
        """When an acknowledgement is due by itself."""
        return self._acknowledger.next_timeout_s()

    def handle_timeout(self, *, now_s: float) -> Outcome[tuple[Load, ...]]:
        """Return what is lost by now, or ask for probes."""
        outcome = self.recovery.handle_timeout(now_s=now_s)
        self._count(outcome)
        return outcome

    @property
    def is_suspect(self) -> bool:
        """Whether too many probes in a row went unanswered."""
        return self.recovery.timeouts_in_a_row >= TIMEOUTS_MAX

    def forget(self) -> list[tuple[Load, ...]]:
        """Give back what is under way: it goes another way."""
        return self.recovery.forget()

    def disown(self) -> None:
        """Seal nothing any more: another process has the same keys."""
        self._sealer.disown()

    def _count(self, outcome: Outcome[tuple[Load, ...]]) -> None:
        for _ in outcome.acknowledged:
            self.loss -= self.loss * _LOSS_WEIGHT
        for _ in outcome.lost:
            self.loss += (1 - self.loss) * _LOSS_WEIGHT
