"""The frames of one session over its two ways: sealed datagrams where they get through, else records over TLS.

Whoever owns the channel hands it ``Traffic``: what to say next, and what to do about what was lost or heard. The
channel decides which way it goes, and when. Receivers put things into order by themselves, so the two ways may mix.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

from ocm.errors import RemoteProtocolError
from ocm.protocol.address import Address, host_key
from ocm.protocol.session.addresses import Candidate
from ocm.protocol.session.keys import Direction, Randomness, SessionSecrets
from ocm.protocol.session.lane import Lane, Load
from ocm.protocol.session.path import Path, PathState
from ocm.protocol.session.pulse import Beat, Pulse
from ocm.protocol.session.recovery import Outcome
from ocm.protocol.wire.frames import (
    ACK_BITMAP_MAX,
    FRAMES_MAX,
    Ack,
    Challenge,
    Close,
    Frame,
    Padding,
    Ping,
    Pong,
    Response,
    read_frames,
    write_frame,
)
from ocm.protocol.wire.records import FRAMES_RECORD_SIZE_MAX
from ocm.protocol.wire.sealed import FRAMES_SIZE_MAX, HEADER_SIZE, SEALED_SIZE_MAX, TAG_SIZE, SealedDatagram

KEEPALIVE_S: Final = 20.0
"""A path that is UP is used at least this often, so that it stays open in what lies between."""
RESPONSES_MAX: Final = 3
"""Addresses whose challenges wait for an answer; the latest wins."""
RECORD_FRAMES_MAX: Final = 4096
"""Frames of one record."""
_ACK_SIZE_MAX: Final = 10 + ACK_BITMAP_MAX
DATAGRAM_SPACE: Final = FRAMES_SIZE_MAX - _ACK_SIZE_MAX
"""Bytes of frames in a datagram beside an ACK; a frame that is larger goes over TLS."""
_PING: Final = write_frame(Ping())
_PONG: Final = write_frame(Pong())


class Traffic(Protocol):
    """What a channel carries: the rooms of one session."""

    def peek(self, *, now_s: float) -> Load | None:
        """Return the next frame to send, and the same one again until it is taken."""
        ...

    def pop(self) -> None:
        """Hear that what ``peek`` returned is on its way."""
        ...

    def acknowledged(self, load: Load) -> None:
        """Hear that the other side has a frame. It may be told more than once."""
        ...

    def lost(self, load: Load, *, now_s: float) -> None:
        """Hear that a frame is lost, or may be; what is still wanted of it is to be said again."""
        ...

    def rewind(self, *, now_s: float) -> None:
        """Hear that whatever went over TLS and was not answered may be lost."""
        ...

    def receive(self, frame: Frame, *, now_s: float) -> bool:
        """Take a frame; return False when it could not be kept, so that it must come again.

        Raises ``RemoteProtocolError`` when it breaks the rules.
        """
        ...


class Whereabouts(Protocol):
    """Where the other side is: ``Addresses`` or ``FixedAddress``."""

    current: Address | None
    """Where it has proved to be; None: nowhere yet."""

    def receive(self, address: Address, size: int, *, newest: bool, now_s: float) -> None:
        """Note a packet that opened."""
        ...

    def may_send(self, address: Address, size: int) -> bool:
        """Say whether a datagram of ``size`` bytes may go there."""
        ...

    def sent(self, address: Address, size: int) -> None:
        """Note that one went."""
        ...

    def next_timeout_s(self) -> float | None:
        """When somebody is to be challenged."""
        ...

    def challenges(self, *, now_s: float) -> list[Candidate]:
        """Return whom to challenge now."""
        ...

    def respond(self, address: Address, response: bytes, *, now_s: float) -> bool:
        """Take an answer; return whether ``current`` is another one now."""
        ...


class Channel:
    """One side of a session. A driver sends ``datagrams_to_send`` and ``records_to_send`` after every other call."""

    def __init__(
        self,
        sends: Direction,
        secrets: SessionSecrets,
        *,
        peer_id: bytes,
        whereabouts: Whereabouts,
        randomness: Randomness,
        traffic: Traffic,
        now_s: float,
    ) -> None:
        """Start over TLS, without a path.

        Args:
            sends: which of the two sides this is.
            secrets: what both derived from HELLO.
            peer_id: the connection id that the other side chose, 8 bytes.
            whereabouts: where its datagrams go.
            randomness: for challenges and for packet numbers to skip.
            traffic: what is carried.
            now_s: the time.
        """
        calls = sends is Direction.TO_SERVER
        self.lane = Lane(sends, secrets, peer_id=peer_id, randomness=randomness)
        self.path = Path(calls=calls, randomness=randomness)
        self.whereabouts = whereabouts
        self.stream_up = True
        """Whether the TLS connection is there."""
        self.fault: RemoteProtocolError | None = None
        """What the other side did against the rules; the session is to be closed."""
        self.farewell: Close | None = None
        """The other side's CLOSE."""
        self.heard_s = now_s
        """When anything of the other side last came."""
        self._traffic = traffic
        self._pulse = Pulse(now_s=now_s) if calls else None
        self._responses: dict[Address, bytes] = {}
        self._large: deque[Load] = deque()
        self._urgent: list[bytes] = []
        self._probes = 0
        self._ping = False
        self._keepalive_s: float | None = None
        self._paced_s: float | None = None

    @property
    def is_dead(self) -> bool:
        """Whether no way is left on which anything could come or go."""
        return not self.stream_up and self.path.state in {PathState.NONE, PathState.PROBING, PathState.DOWN}

    @property
    def carries(self) -> bool:
        """Whether what is said goes in datagrams."""
        if self.whereabouts.current is None or self.lane.is_blocked:
            return False
        return self.path.state is PathState.UP or (self.path.state is PathState.SUSPECT and not self.stream_up)

    # --- what comes -------------------------------------------------------------------------------------

    def receive_datagram(self, datagram: SealedDatagram, address: Address, size: int, *, now_s: float) -> bool:
        """Take a datagram with our connection id; return whether it opened. ``size`` is that of the whole."""
        if self.fault is not None:
            return False
        try:
            frames = self.lane.open(datagram)
            if frames is None:
                return False
            self.heard_s = now_s
            number = datagram.packet_number
            self.whereabouts.receive(address, size, newest=number == self.lane.largest, now_s=now_s)
            if self.path.state is PathState.DOWN and self.whereabouts.current is not None:
                self.path.begin(now_s=now_s)
            kept, eliciting = True, False
            for frame in frames:
                if not isinstance(frame, Ack | Padding | Close):
                    eliciting = True
                kept = self._take(frame, address, now_s) and kept
            if kept:
                self.lane.took(number, eliciting=eliciting, now_s=now_s)
        except RemoteProtocolError as error:
            self.fault = error
        return True

    def receive_frames(self, payload: bytes, *, now_s: float) -> None:
        """Take the payload of a FRAMES record."""
        self.heard_s = now_s
        if self.fault is not None:
            return
        try:
            for frame in read_frames(payload, frames_max=RECORD_FRAMES_MAX):
                match frame:
                    case Ping():
                        self._urgent = [_PONG]
                    case Pong():
                        pass
                    case Ack() | Challenge() | Response() | Padding():
                        raise RemoteProtocolError("a frame that belongs into datagrams came over TLS")
                    case Close():
                        self.farewell = frame
                    case _:
                        self._traffic.receive(frame, now_s=now_s)
        except RemoteProtocolError as error:
            self.fault = error

    def hear_stream(self, *, now_s: float) -> None:
        """Note that the TLS connection lives: something came over it."""
        if self._pulse is not None:
            self._pulse.hear(now_s=now_s)

    def stream_lost(self, *, now_s: float) -> None:
        """Hear that the TLS connection is gone: the session lives on datagrams, if it can."""
        if not self.stream_up:
            return
        self.stream_up = False
        large, self._large = self._large, deque()
        for load in large:
            self._traffic.lost(load, now_s=now_s)
        self._traffic.rewind(now_s=now_s)

    def woke(self, *, now_s: float) -> None:
        """Hear that the machine slept, or that its network changed: look at once whether both ways are still there."""
        self.path.begin(now_s=now_s)
        self._go_another_way(now_s)
        if self._pulse is not None:
            self._pulse.ask(now_s=now_s)

    # --- what goes --------------------------------------------------------------------------------------

    def datagrams_to_send(self, *, now_s: float) -> list[tuple[Address, bytes]]:
        """Return what is to be sent by datagram now."""
        out: list[tuple[Address, bytes]] = []
        if self.fault is not None or self.lane.is_blocked:
            return out
        self._prove(out, now_s)
        if self.carries:
            self._fill(out, now_s)
        due_s = self.lane.next_ack_s()
        if due_s is not None and due_s <= now_s:
            self._acknowledge(out, now_s)
        return out

    def records_to_send(self, *, space: int, now_s: float) -> list[bytes]:
        """Return payloads of FRAMES records to be written now, of about ``space`` bytes."""
        if not self.stream_up or self.fault is not None:
            return []
        payloads: list[bytes] = []
        waiting, self._urgent = self._urgent, []
        size = sum(map(len, waiting))
        while space > 0 and (load := self._next_for_stream(now_s)) is not None:
            if waiting and size + len(load.data) > FRAMES_RECORD_SIZE_MAX:
                payloads.append(b"".join(waiting))
                waiting, size = [], 0
            waiting.append(load.data)
            size += len(load.data)
            space -= len(load.data)
        if waiting:
            payloads.append(b"".join(waiting))
        if payloads and self._pulse is not None:
            self._pulse.say(now_s=now_s)
        return payloads

    def close(self, code: int, reason: str, *, now_s: float) -> list[tuple[Address, bytes]]:
        """Return the datagram that says that the session ends, where one can be sent. The record is the owner's."""
        target = self.whereabouts.current
        if target is None or self.lane.is_blocked or self.path.state is PathState.NONE:
            return []
        return [(target, self.lane.seal(write_frame(Close(code, reason.encode()[:255]))))]

    # --- time -------------------------------------------------------------------------------------------

    def next_timeout_s(self) -> float | None:
        """When ``handle_timeout`` has something to do, or there is something to send."""
        times = [self.whereabouts.next_timeout_s(), self.path.next_timeout_s(), self.lane.next_ack_s()]
        if self.carries:
            times += [self.lane.next_timeout_s(), self._keepalive_s, self._paced_s]
        if self._pulse is not None and self.stream_up:
            times.append(self._pulse.next_timeout_s())
        return min((at_s for at_s in times if at_s is not None), default=None)

    def handle_timeout(self, *, now_s: float) -> bool:
        """Do what is due; return whether the TLS connection is to be given up, since nothing comes over it."""
        if self.carries:
            due_s = self.lane.next_timeout_s()
            if due_s is not None and due_s <= now_s:
                outcome = self.lane.handle_timeout(now_s=now_s)
                self._settle(outcome, now_s)
                self._probes = max(self._probes, outcome.probes)
                if self.lane.is_suspect and self.path.state is PathState.UP:
                    self.path.suspect(now_s=now_s)
                    self._go_another_way(now_s)
            if self._keepalive_s is not None and self._keepalive_s <= now_s:
                self._keepalive_s = None
                self._ping = True
        if self._pulse is None or not self.stream_up:
            return False
        match self._pulse.beat(now_s=now_s):
            case Beat.PING:
                self._urgent.append(_PING)
            case Beat.DEAD:
                return True
            case None:
                pass
        return False

    # --- helpers ----------------------------------------------------------------------------------------

    def _take(self, frame: Frame, address: Address, now_s: float) -> bool:
        match frame:
            case Ack():
                self._settle(self.lane.acknowledge(frame, now_s=now_s), now_s)
            case Ping() | Padding():
                pass
            case Challenge(data):
                self._responses.pop(address, None)
                self._responses[address] = data
                if len(self._responses) > RESPONSES_MAX:
                    del self._responses[next(iter(self._responses))]
            case Response(data):
                self._hear_response(address, data, now_s)
            case Close():
                self.farewell = frame
            case Pong():
                raise RemoteProtocolError("a frame that belongs to TLS came in a datagram")
            case _:
                return self._traffic.receive(frame, now_s=now_s)
        return True

    def _hear_response(self, address: Address, data: bytes, now_s: float) -> None:
        before = self.whereabouts.current
        if self.whereabouts.respond(address, data, now_s=now_s):
            self.path.prove(now_s=now_s)
            if before is not None and host_key(before) != host_key(address):
                self.lane.recovery.renew()
        elif not self.path.respond(data, now_s=now_s):
            return
        if self._keepalive_s is None:
            self._keepalive_s = now_s + KEEPALIVE_S

    def _settle(self, outcome: Outcome[tuple[Load, ...]], now_s: float) -> None:
        traffic = self._traffic
        for loads in outcome.acknowledged:
            for load in loads:
                traffic.acknowledged(load)
        for loads in outcome.lost:
            for load in loads:
                traffic.lost(load, now_s=now_s)

    def _go_another_way(self, now_s: float) -> None:
        """Whatever is under way in datagrams goes over TLS, where there is one."""
        if not self.stream_up:
            return
        for loads in self.lane.forget():
            for load in loads:
                self._traffic.lost(load, now_s=now_s)

    def _prove(self, out: list[tuple[Address, bytes]], now_s: float) -> None:
        """Answer challenges and send ours."""
        asked: dict[Address, bytes] = {}
        for candidate in self.whereabouts.challenges(now_s=now_s):
            asked[candidate.address] = candidate.challenge
        challenge = self.path.probe(now_s=now_s)
        if challenge is not None and self.whereabouts.current is not None:
            asked.setdefault(self.whereabouts.current, challenge)
        responses, self._responses = self._responses, {}
        for address in dict.fromkeys((*responses, *asked)):
            frames = b""
            if address in responses:
                frames += write_frame(Response(responses[address]))
            if address in asked:
                frames += _PING + write_frame(Challenge(asked[address]))
            frames += self.lane.ack(now_s=now_s)
            if address in asked and self.whereabouts.may_send(address, SEALED_SIZE_MAX):
                frames += write_frame(Padding(FRAMES_SIZE_MAX - len(frames)))
            self._send(out, address, frames)

    def _send(self, out: list[tuple[Address, bytes]], address: Address, frames: bytes) -> None:
        """Send frames of which nobody minds whether they come, if the address may be sent so much."""
        size = HEADER_SIZE + len(frames) + TAG_SIZE
        if self.lane.is_blocked or not self.whereabouts.may_send(address, size):
            return
        self.whereabouts.sent(address, size)
        out.append((address, self.lane.seal(frames)))

    def _acknowledge(self, out: list[tuple[Address, bytes]], now_s: float) -> None:
        target = self.whereabouts.current
        ack = self.lane.ack(now_s=now_s)
        if target is not None and ack:
            self._send(out, target, ack)

    def _fill(self, out: list[tuple[Address, bytes]], now_s: float) -> None:
        """Send what waits, as far as window and pace allow, and what a probe timeout asked for."""
        target = self.whereabouts.current
        assert target is not None, "a channel that carries knows where to"
        recovery = self.lane.recovery
        self._paced_s = None
        while not self.lane.is_blocked:
            if self._probes:
                self._probes -= 1
                loads = recovery.oldest() or self._gather(now_s)
                ping = not loads
            else:
                if not self._ping and self._peek(now_s) is None:
                    break
                if not recovery.may_send(SEALED_SIZE_MAX):
                    break
                wait_s = recovery.window.wait_s(recovery.round_trip.smoothed_s, now_s=now_s)
                if wait_s > 0:
                    self._paced_s = now_s + wait_s
                    break
                loads, ping = self._gather(now_s), self._ping
                self._ping = False
            pieces = [self.lane.ack(now_s=now_s), _PING if ping else b""]
            datagram = self.lane.send(pieces, loads, now_s=now_s)
            self.whereabouts.sent(target, len(datagram))
            self._keepalive_s = now_s + KEEPALIVE_S
            out.append((target, datagram))

    def _gather(self, now_s: float) -> tuple[Load, ...]:
        """Take the frames of one datagram."""
        loads: list[Load] = []
        space = DATAGRAM_SPACE - len(_PING)
        while len(loads) < FRAMES_MAX - 2 and (load := self._peek(now_s)) is not None and len(load.data) <= space:
            self._traffic.pop()
            loads.append(load)
            space -= len(load.data)
        return tuple(loads)

    def _peek(self, now_s: float) -> Load | None:
        """Return the next frame that a datagram can hold; larger ones are put aside for TLS."""
        while (load := self._traffic.peek(now_s=now_s)) is not None:
            if len(load.data) <= DATAGRAM_SPACE - len(_PING):
                return load
            if not self.stream_up:
                return None  # it waits, and all behind it, until there is TLS again
            self._traffic.pop()
            self._large.append(load)
        return None

    def _next_for_stream(self, now_s: float) -> Load | None:
        if self._large:
            return self._large.popleft()
        if self.carries:
            return None
        load = self._traffic.peek(now_s=now_s)
        if load is not None:
            self._traffic.pop()
        return load
