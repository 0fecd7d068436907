"""The client's side of a control conversation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, TypeAlias

from ocm.errors import LocalProtocolError, RemoteProtocolError
from ocm.protocol.control.packets import ACCEPTED, CLASSIC_OPERATIONS, Form, PacketReader, Violation
from ocm.protocol.names import room_name
from ocm.protocol.wire.classic import FIELD_SIZE_MAX, ControlPacket, Operation, Stage
from ocm.protocol.wire.payload import StatusPayload, read_object, write_object
from ocm.protocol.wire.size import Spelling

REPLY_SIZE_MAX: Final = 65_536
"""Bytes of the largest reply a client takes."""


@dataclass(frozen=True, slots=True)
class Seated:
    """The server gave us a seat."""

    form: Form
    token: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """The server said no; another request may follow."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class MembersListed:
    """Who is in the room: as many names as fit a reply, and how many there are."""

    members: tuple[str, ...]
    count: int


@dataclass(frozen=True, slots=True)
class Unseated:
    """The server confirms that we have left."""


ClientEvent: TypeAlias = Seated | Refused | MembersListed | Unseated | Violation


class ClientState(Enum):
    """Where a client's side of one control connection stands."""

    IDLE = auto()
    REQUESTED = auto()
    ACCEPTED = auto()
    SEATED = auto()
    ASKING = auto()
    ANSWERED = auto()
    LEFT = auto()
    FAILED = auto()


class Heard(Enum):
    """What moves a client's side on."""

    ASK = "send create, join"
    ASK_MORE = "send leave, members"
    YES = "status: yes"
    NO = "refusal"
    TOKEN = "complete: token"  # noqa: S105 - a word of the table
    DONE = "complete: members"
    GONE = "complete: left"


CLIENT_STEPS: Final[Mapping[tuple[ClientState, Heard], ClientState]] = {
    (ClientState.IDLE, Heard.ASK): ClientState.REQUESTED,
    (ClientState.REQUESTED, Heard.YES): ClientState.ACCEPTED,
    (ClientState.REQUESTED, Heard.NO): ClientState.IDLE,
    (ClientState.ACCEPTED, Heard.NO): ClientState.IDLE,
    (ClientState.ACCEPTED, Heard.TOKEN): ClientState.SEATED,
    (ClientState.SEATED, Heard.ASK_MORE): ClientState.ASKING,
    (ClientState.ASKING, Heard.YES): ClientState.ANSWERED,
    (ClientState.ASKING, Heard.NO): ClientState.SEATED,
    (ClientState.ANSWERED, Heard.DONE): ClientState.SEATED,
    (ClientState.ANSWERED, Heard.GONE): ClientState.LEFT,
}
"""Every legal step; the diagram in docs/ is drawn from this table."""


class ClientControl:
    """Client side of one control connection: request, status, token; then leave or ask who is there.

    Asked in our own form, a server that answers as the reference program does is taken at its word: the
    reference server looks at neither stage nor name, so the same request serves both.
    """

    def __init__(self, *, form: Form = Form.OCM, spelling: Spelling = Spelling.BIG_ENDIAN) -> None:
        """Choose the form to ask in."""
        self._reader = PacketReader(REPLY_SIZE_MAX)
        self._state = ClientState.IDLE
        self._asked = self._form = form
        self._spelling = spelling
        self._operation = Operation.CREATE
        self._room = ""
        self._user = ""
        self._token = b""

    @property
    def state(self) -> ClientState:
        """Where the conversation stands."""
        return self._state

    @property
    def form(self) -> Form:
        """The form that is spoken: the one to ask in, until the server has answered in another."""
        return self._form

    def send_request(
        self, operation: Operation, *, room: str, user: str, password: str | None = None, token: bytes | None = None
    ) -> bytes:
        """Ask to create or join ``room``; return the bytes to write in one piece.

        ``password`` and ``token`` (of a seat to take again) exist in our own form only.
        Raises ``LocalProtocolError`` when something is asked already or a name does not fit.
        """
        if operation not in CLASSIC_OPERATIONS:
            raise LocalProtocolError("a room is entered by create or join")
        try:
            room_name(room.encode(), size_max=FIELD_SIZE_MAX)
            bare = user.encode()
        except (RemoteProtocolError, UnicodeEncodeError) as error:
            raise LocalProtocolError(f"cannot ask for this room: {_plain(error)}") from None
        if len(bare) > FIELD_SIZE_MAX:
            raise LocalProtocolError(f"user name is longer than {FIELD_SIZE_MAX} bytes")
        payload = _request_payload(user, password=password, token=token) if self._asked is Form.OCM else bare
        stage = Stage.STATUS if self._asked is Form.REFERENCE else Stage.REQUEST
        packet = ControlPacket(operation, stage, room.encode(), payload, self._spelling).encode()
        self._step(Heard.ASK)
        self._operation, self._room, self._user, self._form = operation, room, user, self._asked
        return packet

    def send_leave(self) -> bytes:
        """Give the seat back; return the bytes to write. Our own form only; raises ``LocalProtocolError`` otherwise."""
        return self._ask_more(Operation.LEAVE)

    def send_members(self) -> bytes:
        """Ask who is in the room; return the bytes to write. As ``send_leave``."""
        return self._ask_more(Operation.MEMBERS)

    def receive_data(self, data: bytes) -> list[ClientEvent]:
        """Take bytes from the server; return what they mean, oldest first.

        A violation comes last, so nothing decoded before it is lost; after it the server is ignored.
        """
        events: list[ClientEvent] = []
        if self._state is ClientState.FAILED:
            return events
        self._reader.feed(data)
        try:
            while (packet := self._reader.next_packet()) is not None:
                if (event := self._on_packet(packet)) is not None:
                    events.append(event)
        except RemoteProtocolError as error:
            self._state = ClientState.FAILED
            events.append(Violation(error))
        return events

    def _on_packet(self, packet: ControlPacket) -> ClientEvent | None:
        match self._state, packet.stage:
            case ((ClientState.REQUESTED | ClientState.ASKING), Stage.STATUS):
                return self._on_status(packet.payload)
            case ClientState.ACCEPTED, Stage.COMPLETE:
                return self._on_token(packet.payload)
            case ClientState.ANSWERED, Stage.COMPLETE:
                return self._on_answer(packet.payload)
            case _:
                raise RemoteProtocolError("the server answered out of turn")

    def _on_status(self, payload: bytes) -> ClientEvent | None:
        if self._state is ClientState.REQUESTED and self._form is not Form.PLAIN and payload == bytes([ACCEPTED]):
            self._form = Form.REFERENCE
        elif self._form is Form.PLAIN:
            if payload != b"OK":
                return self._no(400, _sentence(payload))
        elif not payload.startswith(b"{"):
            raise RemoteProtocolError("the server does not speak this form; try form=plain")
        else:
            status = read_object(payload, StatusPayload)
            if status.status_code != ACCEPTED:
                return self._no(status.status_code, status.message)
        self._step(Heard.YES)
        return None

    def _on_token(self, payload: bytes) -> ClientEvent:
        token = payload
        if self._form is not Form.PLAIN:
            status = read_object(payload, StatusPayload)
            if status.status_code != ACCEPTED:
                return self._no(status.status_code, status.message)
            token = (status.user_token or "").encode()
        if not 0 < len(token) <= FIELD_SIZE_MAX:
            raise RemoteProtocolError("the server gave no token that fits a datagram")
        self._step(Heard.TOKEN)
        self._token = token
        return Seated(self._form, token)

    def _on_answer(self, payload: bytes) -> ClientEvent:
        status = read_object(payload, StatusPayload)
        if status.status_code != ACCEPTED:
            raise RemoteProtocolError("the server takes back its yes")
        if self._operation is Operation.LEAVE:
            self._step(Heard.GONE)
            return Unseated()
        members = tuple(status.members or ())
        self._step(Heard.DONE)
        return MembersListed(members, max(len(members), status.count or 0))

    def _no(self, code: int, reason: str | None) -> Refused:
        self._step(Heard.NO)
        fallback = "the room exists already" if self._operation is Operation.CREATE else "no such room"
        return Refused(code, reason or fallback)

    def _ask_more(self, operation: Operation) -> bytes:
        if self._form is not Form.OCM:
            raise LocalProtocolError(f"the {self._form.value} form has no {operation.name}")
        payload = _request_payload(self._user, token=self._token)
        packet = ControlPacket(operation, Stage.REQUEST, self._room.encode(), payload, self._spelling).encode()
        self._step(Heard.ASK_MORE)
        self._operation = operation
        return packet

    def _step(self, heard: Heard) -> None:
        if (self._state, heard) not in CLIENT_STEPS:
            raise LocalProtocolError(f"cannot {heard.value} in state {self._state.name}")
        self._state = CLIENT_STEPS[self._state, heard]


def _request_payload(user: str, *, password: str | None = None, token: bytes | None = None) -> bytes:
    items: dict[str, object] = {"user": user}
    if password is not None:
        items["password"] = password
    if token is not None:
        try:
            items["user_token"] = token.decode()
        except UnicodeDecodeError:
            raise LocalProtocolError("a token that JSON carries is UTF-8") from None
    return write_object(**items)


def _sentence(payload: bytes) -> str:
    return payload.decode(errors="replace")


def _plain(error: Exception) -> str:
    return "name is not Unicode text" if isinstance(error, UnicodeEncodeError) else str(error)
