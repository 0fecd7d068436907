"""The frames of one session over its two ways: sealed datagrams where they get through, else records over TLS.

Whoever owns the channel hands it ``Traffic``: what to say next, and what to do about what was lost or heard. The
channel decides which way it goes, and when. Receivers put things into order by themselves, so the two ways may mix.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol, assert_never

from ocm.errors import RemoteProtocolError
from ocm.protocol.address import Address, host_key
from ocm.protocol.session.addresses import Candidate
from ocm.protocol.session.deadlines import earliest
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
    Gap,
    Head,
    Message,
    Padding,
    Ping,
    Pong,
    Publish,
    Published,
    Received,
    Response,
    Signal,
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
LARGE_SIZE_MAX: Final = 64 * 1024
"""Bytes of large frames that wait for TLS while others go by datagram; with more of them all wait."""
_ACK_SIZE_MAX: Final = 10 + ACK_BITMAP_MAX
DATAGRAM_SPACE: Final = FRAMES_SIZE_MAX - _ACK_SIZE_MAX
"""Bytes of frames in a datagram beside an ACK; a frame that is larger goes over TLS."""
_PING: Final = write_frame(Ping())
_PONG: Final = write_frame(Pong())
_SILENT: Final = frozenset({Ack, Padding, Close})
"""Frames that want no acknowledgement."""


class Traffic(Protocol):
    """What a channel carries: the rooms of one session."""

    def peek(self, *, space: int, now_s: float) -> Load | None:
        """Return what is to be sent next, and the same again until it is taken.

        Frames that share a fate may come together, as many as ``space`` bytes have room for, and one at least.
        """
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

    @property
    def is_asking(self) -> bool:
        """Whether it turned up where it may still prove to be."""
        ...

    def receive(self, address: Address, size: int, *, newest: bool, now_s: float) -> None:
        """Note a packet that opened."""
        ...

    def forget(self) -> None:
        """Hear that nothing gets through to it."""
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

    def expire(self, *, now_s: float) -> None:
        """Give up whoever was challenged in vain."""
        ...

    def challenges(self, *, now_s: float) -> list[Candidate]:
        """Return whom to challenge now."""
        ...

    def respond(self, address: Address, response: bytes, *, now_s: float) -> bool:
        """Take an answer; return whether ``current`` is another one now."""
        ...


class Channel:
    """One side of a session.

    After every other call a driver sends ``datagrams_to_send`` and then ``records_to_send``, and asks for the
    ``next_timeout_s``. After a ``fault`` the channel is frozen: it takes nothing, sends nothing and waits for nothing.
    """

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
        round_trip_s: float = 0.0,
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
            round_trip_s: how long an answer over TLS took so far, where that was measured.
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
        self._pulse = Pulse(now_s=now_s, round_trip_s=round_trip_s) if calls else None
        self._responses: dict[Address, bytes] = {}
        self._large: deque[Load] = deque()
        self._large_size = 0
        self._is_stuffed = False
        self._urgent: list[bytes] = []
        self._probes = 0
        self._ping = False
        self._keepalive_s: float | None = None
        self._paced_s: float | None = None

    @property
    def is_dead(self) -> bool:
        """Whether no way is left on which anything could come or go."""
        if self.stream_up or self.whereabouts.is_asking:
            return False
        return self.path.state in {PathState.NONE, PathState.PROBING, PathState.DOWN}

    @property
    def is_stream_late(self) -> bool:
        """Whether the TLS connection has not answered for so long that another is to be dialled."""
        return self._pulse is not None and self._pulse.is_late

    @property
    def carries(self) -> bool:
        """Whether what is said goes in datagrams."""
        state = self.path.state
        if state is not PathState.UP and (state is not PathState.SUSPECT or self.stream_up):
            return False
        return self.whereabouts.current is not None and not self.lane.is_blocked

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
            kept = True
            for frame in frames:
                kept = self._take(frame, address, now_s) and kept
            if kept:
                eliciting = not _SILENT.issuperset(map(type, frames))
                self.lane.took(number, eliciting=eliciting, now_s=now_s)
        except RemoteProtocolError as error:
            self.fault = error
        return True

    def receive_frames(self, payload: bytes, *, now_s: float) -> None:
        """Take the payload of a FRAMES record."""
        if self.fault is not None:
            return
        self.heard_s = now_s
        try:
            for frame in read_frames(payload, frames_max=RECORD_FRAMES_MAX):
                match frame:
                    case Message() | Publish() | Published() | Received() | Signal() | Gap() | Head():
                        self._traffic.receive(frame, now_s=now_s)
                    case Ping():
                        if _PONG not in self._urgent:
                            self._urgent.append(_PONG)
                    case Pong():
                        pass
                    case Close():
                        self.farewell = frame
                    case Ack() | Challenge() | Response() | Padding():
                        raise RemoteProtocolError("a frame that belongs into datagrams came over TLS")
                    case _:
                        assert_never(frame)
        except RemoteProtocolError as error:
            self.fault = error

    def hear_stream(self, *, now_s: float) -> None:
        """Note that the TLS connection lives: something came over it."""
        if self._pulse is not None:
            self._pulse.hear(now_s=now_s)

    def await_stream(self, *, now_s: float) -> None:
        """Note that somebody waits for something that comes over the TLS connection alone: an answer, say."""
        if self._pulse is not None and self._pulse.wait(now_s=now_s):
            self._urgent.append(_PING)

    def stream_lost(self, *, now_s: float) -> None:
        """Hear that the TLS connection is gone: the session lives on datagrams, if it can."""
        if not self.stream_up:
            return
        self.stream_up = False
        large, self._large = self._large, deque()
        self._large_size = 0
        for load in large:
            self._traffic.lost(load, now_s=now_s)
        self._traffic.rewind(now_s=now_s)

    def woke(self, *, now_s: float) -> None:
        """Hear that the machine slept, or that its network changed: look at once whether both ways are still there."""
        self.path.begin_again(now_s=now_s)
        if not self.carries:
            self._give_back(now_s)
        if self._pulse is not None:
            self._pulse.ask(now_s=now_s)

    def moved(self, *, now_s: float) -> None:
        """Hear that our own address is another one: show it to the other side, look whether TLS is still there."""
        if self.path.state is PathState.UP:
            self._ping = True
        else:
            self.path.begin_again(now_s=now_s)
        if self._pulse is not None:
            self._pulse.ask(now_s=now_s)

    # --- what goes --------------------------------------------------------------------------------------

    def datagrams_to_send(self, *, now_s: float) -> list[tuple[Address, bytes]]:
        """Return what is to be sent by datagram now."""
        out: list[tuple[Address, bytes]] = []
        if self.fault is not None:
            return out
        prove_s = earliest(self.path.next_timeout_s(), self.whereabouts.next_timeout_s())
        if self._responses or (prove_s is not None and prove_s <= now_s):
            self._prove(out, now_s)
        if self.carries:
            self._fill(out, now_s)
        ack_s = self._next_ack_s()
        if ack_s is not None and ack_s <= now_s:
            self._acknowledge(out, now_s)
        return out

    def records_to_send(self, *, space: int, now_s: float) -> list[bytes]:
        """Return payloads of FRAMES records to be written now, of about ``space`` bytes; with none, nothing."""
        if not self.stream_up or self.fault is not None or space <= 0:
            return []
        if self.carries and not (self._large or self._urgent or self._is_stuffed):
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
        if self._is_stuffed and self._large_size < LARGE_SIZE_MAX:
            self._is_stuffed, self._paced_s = False, now_s  # what waits behind large frames can go on
        if payloads and self._pulse is not None:
            self._pulse.say(now_s=now_s)
        return payloads

    def close(self, code: int, reason: str) -> list[tuple[Address, bytes]]:
        """Return the datagram that says that the session ends, where one can be sent. The record is the owner's."""
        target = self.whereabouts.current
        if target is None or self.lane.is_blocked or self.path.state is PathState.NONE:
            return []
        return [(target, self.lane.seal(write_frame(Close(code, reason.encode()[:255]))))]

    # --- time -------------------------------------------------------------------------------------------

    def next_timeout_s(self) -> float | None:
        """When ``handle_timeout`` has something to do, or there is something to send; None: not by itself."""
        if self.fault is not None:
            return None
        pulse = self._pulse if self.stream_up else None
        return earliest(
            self.whereabouts.next_timeout_s(),
            self.path.next_timeout_s(),
            self.lane.next_timeout_s(),
            self._next_ack_s(),
            self._keepalive_s if self.path.state is PathState.UP else None,
            None if self._paced_s is None or not self.carries else self._paced_s,
            None if pulse is None else pulse.next_timeout_s(),
        )

    def handle_timeout(self, *, now_s: float) -> bool:
        """Do what is due; return whether the TLS connection is to be given up, since nothing comes over it."""
        if self.fault is not None:
            return False
        self.whereabouts.expire(now_s=now_s)
        outcome = self.lane.handle_timeout(now_s=now_s)
        self._settle(outcome, now_s)
        self._probes = max(self._probes, outcome.probes)
        if self._keepalive_s is not None and self._keepalive_s <= now_s:
            self._keepalive_s = None
            self._ping = True
        if (outcome.probes and self.lane.is_suspect) or self.lane.is_blocked:
            self.path.suspect(now_s=now_s)
        if not self.carries:
            self._give_back(now_s)
        if self._pulse is None or not self.stream_up:
            return False
        beat = self._pulse.beat(now_s=now_s)
        if beat is Beat.PING:
            self._urgent.append(_PING)
        return beat is Beat.DEAD

    # --- helpers ----------------------------------------------------------------------------------------

    def _take(self, frame: Frame, address: Address, now_s: float) -> bool:
        match frame:
            case Ack():  # each case costs those below it a little, and this comes most
                self._settle(self.lane.acknowledge(frame, now_s=now_s), now_s)
            case Message() | Publish() | Published() | Received() | Signal() | Gap() | Head():
                return self._traffic.receive(frame, now_s=now_s)
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
                assert_never(frame)
        return True

    def _hear_response(self, address: Address, data: bytes, now_s: float) -> None:
        before, was = self.whereabouts.current, self.path.state
        if self.whereabouts.respond(address, data, now_s=now_s):
            self.path.prove(now_s=now_s)
            if before is not None and host_key(before) != host_key(address):
                self.lane.recovery.renew()
        elif not self.path.respond(data, now_s=now_s):
            return
        if self.path.state is PathState.UP and was is not PathState.UP and self.stream_up:
            # A connection whose network has changed seems to be there for long: what it holds is not waited for.
            self._traffic.rewind(now_s=now_s)
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

    def _give_back(self, now_s: float) -> None:
        """Let whatever is under way in datagrams go another way."""
        self._probes = 0
        for loads in self.lane.forget():
            for load in loads:
                self._traffic.lost(load, now_s=now_s)

    def _next_ack_s(self) -> float | None:
        """When an ACK is to be sent by itself; one that is owed to nobody yet waits for a datagram to go with."""
        due_s = self.lane.next_ack_s()
        if due_s is None or self.whereabouts.current is None or self.lane.is_blocked:
            return None
        return due_s

    def _acknowledge(self, out: list[tuple[Address, bytes]], now_s: float) -> None:
        target = self.whereabouts.current
        assert target is not None, "nothing is due to somebody whose address is not known"
        out.append((target, self.lane.seal(self.lane.ack(now_s=now_s))))

    def _prove(self, out: list[tuple[Address, bytes]], now_s: float) -> None:
        """Answer challenges and send ours."""
        asked = {candidate.address: candidate.challenge for candidate in self.whereabouts.challenges(now_s=now_s)}
        challenge = self.path.probe(now_s=now_s)
        if self.path.state is PathState.DOWN:
            self.whereabouts.forget()  # else whoever has that address now would be probed whenever the peer speaks
        if challenge is not None and self.whereabouts.current is not None:
            asked.setdefault(self.whereabouts.current, challenge)
        responses, self._responses = self._responses, {}
        for address in dict.fromkeys((*responses, *asked)):
            frames = b""
            if address in responses:
                frames += write_frame(Response(responses[address]))
            if address in asked:
                frames += _PING + write_frame(Challenge(asked[address]))
            self._send(out, address, frames, is_probe=address in asked, now_s=now_s)

    def _send(
        self, out: list[tuple[Address, bytes]], address: Address, frames: bytes, *, is_probe: bool, now_s: float
    ) -> None:
        """Send frames of which nobody minds whether they come, as far as the address may be sent so much.

        A probe is made as large as a datagram can be: large ones are to get through too.
        """
        whereabouts = self.whereabouts
        size = HEADER_SIZE + len(frames) + TAG_SIZE
        if self.lane.is_blocked or not whereabouts.may_send(address, size):
            return
        if whereabouts.may_send(address, size + _ACK_SIZE_MAX):
            frames += self.lane.ack(now_s=now_s)
        if is_probe and whereabouts.may_send(address, SEALED_SIZE_MAX):
            frames += write_frame(Padding(FRAMES_SIZE_MAX - len(frames)))
        datagram = self.lane.seal(frames)
        whereabouts.sent(address, len(datagram))
        out.append((address, datagram))

    def _fill(self, out: list[tuple[Address, bytes]], now_s: float) -> None:
        """Send what waits, as far as window and pace allow, and what a probe timeout asked for."""
        target = self.whereabouts.current
        assert target is not None, "a channel that carries knows where to"
        lane = self.lane
        self._paced_s = None
        load = self._peek(now_s)
        while load is not None or self._ping or self._probes:
            if self._probes:
                self._probes -= 1
                loads = lane.recovery.oldest() or ()
            elif self._may_leave(now_s):
                loads = ()
            else:
                return
            if not loads:
                loads, load = self._gather(load, now_s)
            ack = lane.ack(now_s=now_s)
            out.append((target, lane.send(ack if loads else ack + _PING, loads, now_s=now_s)))
            self._ping = False
            self._keepalive_s = now_s + KEEPALIVE_S
            if lane.is_blocked:
                return

    def _may_leave(self, now_s: float) -> bool:
        """Whether window and pace let a datagram leave now; if it is the pace that does not, note when it will."""
        wait_s = self.lane.recovery.wait_s(now_s=now_s)
        if wait_s:
            self._paced_s = now_s + wait_s
        return wait_s == 0

    def _gather(self, load: Load | None, now_s: float) -> tuple[tuple[Load, ...], Load | None]:
        """Take the frames of one datagram, the first of which is ``load``; return them, and what comes next."""
        loads: list[Load] = []
        traffic = self._traffic
        space, count = DATAGRAM_SPACE, FRAMES_MAX - 1  # an ACK has its place
        while load is not None and (size := len(load.data)) <= space and load.frames <= count:
            traffic.pop()
            loads.append(load)
            space -= size
            count -= load.frames
            if space * load.frames < size:
                break  # what comes next is hardly smaller
            load = traffic.peek(space=space, now_s=now_s)
        return tuple(loads), None if load is None else self._peek(now_s)

    def _peek(self, now_s: float) -> Load | None:
        """Return the next frame that a datagram can hold; larger ones are put aside for TLS."""
        while (load := self._traffic.peek(space=DATAGRAM_SPACE, now_s=now_s)) is not None:
            if len(load.data) <= DATAGRAM_SPACE:
                return load
            if not self.stream_up:
                return None  # it waits, and all behind it, until there is TLS again
            if self._large_size >= LARGE_SIZE_MAX:
                self._is_stuffed = True
                return None
            self._traffic.pop()
            self._large.append(load)
            self._large_size += len(load.data)
        return None

    def _next_for_stream(self, now_s: float) -> Load | None:
        if self._large:
            load = self._large.popleft()
            self._large_size -= len(load.data)
            return load
        if self.carries:
            return None
        waiting = self._traffic.peek(space=DATAGRAM_SPACE, now_s=now_s)
        if waiting is not None:
            self._traffic.pop()
        return waiting
