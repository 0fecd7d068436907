"""The server's side of a control conversation."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, TypeAlias, assert_never

from ocm.errors import LocalProtocolError, RemoteProtocolError
from ocm.protocol.control.packets import ACCEPTED, CLASSIC_OPERATIONS, Form, PacketReader, Violation
from ocm.protocol.entry import Refusal
from ocm.protocol.limits import Limits
from ocm.protocol.names import room_name, user_name
from ocm.protocol.wire.classic import FIELD_SIZE_MAX, ControlPacket, Operation, Stage
from ocm.protocol.wire.payload import RequestPayload, read_object, write_object

MEMBERS_SIZE_MAX: Final = 60_000
"""Bytes of names in one MEMBERS reply; further names are counted, not listed."""
_REFERENCE_ACK: Final = ControlPacket(Operation.CREATE, Stage.STATUS, payload=bytes([ACCEPTED])).encode()
"""The reference server's first reply: always operation 1, also to a join, also before a refusal."""


@dataclass(frozen=True, slots=True)
class Request:
    """A peer asks something. Names are checked; whether the answer is yes is for the hub to say."""

    operation: Operation
    form: Form
    room: str
    user: str
    password: str | None = field(default=None, repr=False)
    token: bytes | None = field(default=None, repr=False)
    """Of a seat the peer has: to leave it, to ask about its room, to take it again."""


ServerEvent: TypeAlias = Request | Violation


class ServerState(Enum):
    """Where a server's side of one control connection stands."""

    IDLE = auto()
    ASKED = auto()
    SEATED = auto()
    SEATED_ASKED = auto()
    FAILED = auto()


class Step(Enum):
    """What moves a server's side on."""

    REQUEST = "request"
    SEAT = "accept create, join"
    ANSWER = "answer members"
    UNSEAT = "accept leave"
    REFUSE = "refuse"


SERVER_STEPS: Final[Mapping[tuple[ServerState, Step], ServerState]] = {
    (ServerState.IDLE, Step.REQUEST): ServerState.ASKED,
    (ServerState.ASKED, Step.SEAT): ServerState.SEATED,
    (ServerState.ASKED, Step.ANSWER): ServerState.IDLE,
    (ServerState.ASKED, Step.UNSEAT): ServerState.IDLE,
    (ServerState.ASKED, Step.REFUSE): ServerState.IDLE,
    (ServerState.SEATED, Step.REQUEST): ServerState.SEATED_ASKED,
    (ServerState.SEATED_ASKED, Step.ANSWER): ServerState.SEATED,
    (ServerState.SEATED_ASKED, Step.UNSEAT): ServerState.IDLE,
    (ServerState.SEATED_ASKED, Step.REFUSE): ServerState.SEATED,
}
"""Every legal step; the diagram in docs/ is drawn from this table. A violation leads to FAILED from anywhere."""


class ServerControl:
    """Server side of one control connection.

    After every call the driver writes what ``packets_to_send`` gives, one packet per write, and re-arms its
    timer from ``next_timeout_s``. While a request waits for its answer nothing more is read: the driver
    pauses reading when ``asked`` is true.
    """

    def __init__(self, limits: Limits, *, quiet_until_s: float) -> None:
        """Start. ``quiet_until_s`` is when a peer that sends nothing at all has waited too long."""
        self._limits = limits
        self._reader = PacketReader(limits.payload_size_max)
        self._state = ServerState.IDLE
        self._quiet_until_s = quiet_until_s
        self._first_byte_s: float | None = None
        self._outgoing: deque[tuple[float, bytes]] = deque()
        self._last_sent_s = -limits.reply_pause_s
        self._packet = ControlPacket(0, 0)
        self._form = Form.PLAIN
        self._refusals = 0

    @property
    def state(self) -> ServerState:
        """Where the conversation stands."""
        return self._state

    @property
    def asked(self) -> bool:
        """Whether a request waits for ``accept``, ``answer`` or ``refuse``."""
        return self._state in (ServerState.ASKED, ServerState.SEATED_ASKED)

    @property
    def silent(self) -> bool:
        """Whether the peer has a seat in no room and is not in the middle of asking for one."""
        return self._state is ServerState.IDLE and self._first_byte_s is None

    def receive_data(self, data: bytes, *, now_s: float) -> list[ServerEvent]:
        """Take bytes from the peer; return what they mean: at most one request, or the violation that ends it."""
        if self._state is ServerState.FAILED:
            return []
        if self._first_byte_s is None:
            self._first_byte_s = now_s
        self._reader.feed(data)
        if self.asked and self._reader.waiting > 2 * self._limits.send_buffer_max:
            return [self._fail(RemoteProtocolError("asks faster than it is answered"))]
        return self._next_events(now_s)

    def receive_eof(self) -> list[ServerEvent]:
        """Hear that the peer will send no more. In the middle of a packet that is a violation."""
        if self._state is not ServerState.FAILED and self._reader.waiting and not self.asked:
            return [self._fail(RemoteProtocolError("the stream ended inside a packet"))]
        return []

    def accept(self, token: bytes, *, now_s: float) -> list[ServerEvent]:
        """Say yes to CREATE or JOIN and hand over the member's token; return what the peer had already asked next.

        Raises ``LocalProtocolError`` when the token is not 1 to 255 bytes of ASCII: JSON and datagram carry it.
        """
        if not (token.isascii() and 0 < len(token) <= FIELD_SIZE_MAX):
            raise LocalProtocolError(f"a token has 1 to {FIELD_SIZE_MAX} bytes of ASCII")
        self._step(Step.SEAT)
        packet, ok = self._packet, {"status_code": ACCEPTED}
        match self._form:
            case Form.OCM:
                self._reply(Stage.STATUS, write_object(**ok), now_s=now_s)
                self._reply(Stage.COMPLETE, write_object(**ok, user_token=token.decode()), now_s=now_s)
            case Form.PLAIN:
                self._reply(Stage.STATUS, b"OK", now_s=now_s)
                self._reply(Stage.COMPLETE, token, now_s=now_s)
            case Form.REFERENCE:
                self._send(_REFERENCE_ACK, now_s=now_s)
                payload = write_object(**ok, user_token=token.decode())
                self._send(ControlPacket(packet.operation, Stage.COMPLETE, packet.room, payload).encode(), now_s=now_s)
            case _:
                assert_never(self._form)
        return self._go_on(now_s)

    def answer(self, members: list[str] | None = None, *, now_s: float) -> list[ServerEvent]:
        """Say yes to LEAVE (no ``members``) or MEMBERS; return what the peer had already asked next."""
        self._step(Step.UNSEAT if members is None else Step.ANSWER)
        self._reply(Stage.STATUS, write_object(status_code=ACCEPTED), now_s=now_s)
        if members is None:
            payload = write_object(status_code=ACCEPTED)
        else:
            payload = write_object(status_code=ACCEPTED, members=_listed(members), count=len(members))
        self._reply(Stage.COMPLETE, payload, now_s=now_s)
        self._sit_from(now_s)
        return self._go_on(now_s)

    def refuse(self, why: Refusal, reason: str, *, now_s: float, delay_s: float = 0.0) -> list[ServerEvent]:
        """Say no, ``delay_s`` late; the peer may ask again. Return what it had already asked next."""
        self._step(Step.REFUSE)
        self._refusals += 1
        match self._form:
            case Form.OCM:
                payload = write_object(status_code=int(why), message=reason)
                self._reply(Stage.STATUS, payload, now_s=now_s + delay_s)
            case Form.PLAIN:
                self._reply(Stage.STATUS, reason.encode(), now_s=now_s + delay_s)
            case Form.REFERENCE:
                self._send(_REFERENCE_ACK, now_s=now_s + delay_s)
                operation = self._packet.operation
                code = 400 if operation == Operation.CREATE else 404  # the two its programs know
                payload = write_object(status_code=code, user_token=None)
                self._send(ControlPacket(operation, Stage.COMPLETE, b"", payload).encode(), now_s=now_s + delay_s)
            case _:
                assert_never(self._form)
        if self._refusals >= self._limits.refusals_max:
            return [self._fail(RemoteProtocolError("refused too often"))]
        self._sit_from(now_s + delay_s)
        return self._go_on(now_s)

    def packets_to_send(self, *, now_s: float) -> list[bytes]:
        """Return the packet that is due, if one is: at most one per ``reply_pause_s``, to be written in one piece."""
        if not self._outgoing or self._due_s() > now_s:
            return []
        self._last_sent_s = now_s
        return [self._outgoing.popleft()[1]]

    @property
    def has_more_to_send(self) -> bool:
        """Whether packets wait for their time."""
        return bool(self._outgoing)

    def next_timeout_s(self) -> float | None:
        """When ``packets_to_send`` or ``handle_timeout`` has something to do; None: never."""
        deadline = self._deadline_s()
        if self._outgoing:
            due = self._due_s()
            return due if deadline is None else min(due, deadline)
        return deadline

    def handle_timeout(self, *, now_s: float) -> list[ServerEvent]:
        """Return the violation of a peer that has waited too long, if it has."""
        deadline = self._deadline_s()
        if deadline is None or now_s < deadline:
            return []
        return [self._fail(RemoteProtocolError("too slow"))]

    def _due_s(self) -> float:
        """When the next packet goes: a pause behind the one before it, since many peers read one per ``recv``."""
        return max(self._outgoing[0][0], self._last_sent_s + self._limits.reply_pause_s)

    def _deadline_s(self) -> float | None:
        if self._state in (ServerState.FAILED, ServerState.ASKED, ServerState.SEATED_ASKED):
            return None
        if self._first_byte_s is not None:
            wait = self._limits.body_timeout_s if self._reader.has_header else self._limits.header_timeout_s
            return self._first_byte_s + wait
        return self._quiet_until_s if self._state is ServerState.IDLE else None

    def _go_on(self, now_s: float) -> list[ServerEvent]:
        """Read on after an answer. What came meanwhile is timed from now: we did not want it sooner."""
        if self._first_byte_s is not None:
            self._first_byte_s = now_s
        return self._next_events(now_s)

    def _next_events(self, now_s: float) -> list[ServerEvent]:
        if self.asked:
            return []
        try:
            packet = self._reader.next_packet()
        except RemoteProtocolError as error:
            return [self._fail(error)]
        if packet is None:
            if not self._reader.waiting:
                self._first_byte_s = None
            return []
        self._first_byte_s = now_s if self._reader.waiting else None
        self._packet = packet
        self._form = _form_of(packet)
        was_seated = self._state is ServerState.SEATED
        self._step(Step.REQUEST)
        try:
            request = self._request(packet)
            if was_seated and request.operation in CLASSIC_OPERATIONS:
                raise _Refused(Refusal.MALFORMED, "this connection has a seat already")
        except _Refused as refused:
            return self.refuse(refused.why, refused.reason, now_s=now_s)
        return [request]

    def _request(self, packet: ControlPacket) -> Request:
        """Read a packet's meaning. Raises ``_Refused`` with what to answer."""
        if packet.stage not in (Stage.REQUEST, Stage.STATUS):
            raise _Refused(Refusal.MALFORMED, "a request has stage 0")
        if packet.operation not in _OPERATIONS[self._form]:
            raise _Refused(Refusal.MALFORMED, "unknown operation")
        try:
            room = room_name(packet.room, size_max=self._limits.room_size_max)
            if self._form is Form.OCM:
                said = read_object(packet.payload, RequestPayload)
            else:
                said = RequestPayload(packet.payload.decode())
        except RemoteProtocolError as error:
            raise _Refused(Refusal.MALFORMED, str(error)) from None
        except UnicodeDecodeError:
            raise _Refused(Refusal.MALFORMED, "user name is not UTF-8") from None
        try:
            user = user_name(said.user.encode(), code_points_max=self._limits.user_code_points_max)
        except RemoteProtocolError as error:
            raise _Refused(Refusal.NAME_NOT_ALLOWED, str(error)) from None
        token = None if said.user_token is None else said.user_token.encode()
        return Request(Operation(packet.operation), self._form, room, user, said.password, token)

    def _step(self, step: Step) -> None:
        if (self._state, step) not in SERVER_STEPS:
            raise LocalProtocolError(f"cannot {step.value} in state {self._state.name}")
        self._state = SERVER_STEPS[self._state, step]

    def _sit_from(self, now_s: float) -> None:
        """Let a peer that was answered sit at its prompt again."""
        self._quiet_until_s = max(self._quiet_until_s, now_s + self._limits.silent_timeout_s)

    def _fail(self, error: RemoteProtocolError) -> Violation:
        self._state = ServerState.FAILED
        return Violation(error)

    def _reply(self, stage: Stage, payload: bytes, *, now_s: float) -> None:
        asked = self._packet
        packet = ControlPacket(asked.operation, stage, asked.room, payload, asked.spelling)
        self._send(packet.encode(), now_s=now_s)

    def _send(self, packet: bytes, *, now_s: float) -> None:
        """Queue a packet, not to go before ``now_s``."""
        self._outgoing.append((now_s, packet))


class _Refused(Exception):
    def __init__(self, why: Refusal, reason: str) -> None:
        super().__init__(reason)
        self.why = why
        self.reason = reason


_OPERATIONS: Final[Mapping[Form, frozenset[Operation]]] = {
    Form.OCM: frozenset(Operation),
    Form.PLAIN: CLASSIC_OPERATIONS,
    Form.REFERENCE: CLASSIC_OPERATIONS,
}


def _form_of(packet: ControlPacket) -> Form:
    if packet.stage == Stage.STATUS:
        return Form.REFERENCE
    return Form.OCM if packet.payload.startswith(b"{") else Form.PLAIN


def _listed(members: list[str]) -> list[str]:
    """Return as many names as one reply holds."""
    listed: list[str] = []
    room = MEMBERS_SIZE_MAX
    for name in members:
        room -= len(write_object(name=name))
        if room < 0:
            break
        listed.append(name)
    return listed
