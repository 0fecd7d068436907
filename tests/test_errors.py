"""The drawing of the errors is true, and nothing that is shown of an object or an error holds a secret."""

from __future__ import annotations

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocm import errors
from ocm.errors import (
    AddressInUse,
    CertificateFailed,
    ConnectFailed,
    JournalFailed,
    LimitExceeded,
    LocalProtocolError,
    OcmError,
    RemoteProtocolError,
    RoomRefused,
    SendRefused,
    ServerUntrusted,
    TransportClosed,
)
from ocm.protocol.control.client import ClientControl, Seated
from ocm.protocol.control.packets import Form, PacketReader, Violation
from ocm.protocol.control.server import Request, ServerControl
from ocm.protocol.limits import Limits
from ocm.protocol.wire.classic import ControlPacket, Datagram, Header, Operation
from ocm.protocol.wire.payload import RequestPayload, StatusPayload, read_object

SECRET = "5ec2e7c0ffee"


def drawn() -> dict[str, str]:
    """Each error of the drawing with the one it is drawn under."""
    parents: dict[str, str] = {}
    above: list[tuple[int, str]] = [(-4, "Exception")]
    lines = (errors.__doc__ or "").split("\n\n", 1)[1].splitlines()
    for line in filter(str.strip, lines):
        indent, name = len(line) - len(line.lstrip()), line.split()[0]
        while above[-1][0] >= indent:
            above.pop()
        parents[name] = above[-1][1]
        above.append((indent, name))
    return parents


def test_the_drawing_shows_every_error_under_its_base() -> None:
    real: dict[str, str] = {}
    for name, value in vars(errors).items():
        if inspect.isclass(value) and value.__module__ == errors.__name__:
            (base,) = value.__bases__
            real[name] = base.__name__
    assert drawn() == real


@pytest.mark.parametrize(
    ("error", "text", "fields"),
    [
        (
            LimitExceeded("payload_size", asked=4097, limit=4096),
            "payload_size: asked for 4097, limit 4096",
            {"what": "payload_size", "asked": 4097, "limit": 4096},
        ),
        (
            LimitExceeded("payload_size", asked=2**232 - 1, limit=4096),
            "payload_size: asked for over 2**63, limit 4096",
            {"what": "payload_size", "asked": 2**232 - 1, "limit": 4096},
        ),
        (RoomRefused(404, "no such room"), "no such room (404)", {"code": 404, "reason": "no such room"}),
        (SendRefused("too_large"), "message refused: too large", {"code": "too_large", "retry_after_s": None}),
        (
            SendRefused("rate", retry_after_s=0.25),
            "message refused: rate; try again in 0.2 s",
            {"code": "rate", "retry_after_s": 0.25},
        ),
        (
            ServerUntrusted("the server's key is not the pinned one", fingerprint="5e"),
            "the server's key is not the pinned one",
            {"fingerprint": "5e"},
        ),
        (CertificateFailed("is encrypted", path="server.key"), "server.key: is encrypted", {"path": "server.key"}),
        (CertificateFailed("cannot be used"), "cannot be used", {"path": None}),
        (AddressInUse("UDP", 9001), "UDP port 9001 is already in use", {"kind": "UDP", "port": 9001}),
    ],
)
def test_an_error_has_fields_and_a_text(error: OcmError, text: str, fields: dict[str, object]) -> None:
    assert str(error) == text
    assert {name: getattr(error, name) for name in fields} == fields


@pytest.mark.parametrize("kind", [TransportClosed, ConnectFailed, JournalFailed, LocalProtocolError])
def test_a_plain_error_keeps_its_text(kind: type[OcmError]) -> None:
    assert str(kind("why")) == "why"


@pytest.mark.parametrize(
    "holder",
    [
        Datagram("room1", SECRET.encode(), SECRET.encode()),
        ControlPacket(1, 2, b"room1", SECRET.encode()),
        Request(Operation.JOIN, Form.OCM, "room1", "alice", password=SECRET, token=SECRET.encode()),
        Seated(Form.OCM, SECRET.encode()),
    ],
    ids=lambda holder: type(holder).__name__,
)
def test_the_repr_of_what_holds_a_secret_does_not(holder: object) -> None:
    assert SECRET not in repr(holder)
    assert SECRET not in str(holder)


@pytest.mark.parametrize(
    "holder", [RequestPayload(SECRET, SECRET, SECRET), StatusPayload(200, user_token=SECRET)], ids=["request", "status"]
)
def test_the_repr_of_a_payload_that_holds_a_secret_does_not(holder: object) -> None:
    assert SECRET not in repr(holder)


def shown(error: BaseException) -> str:
    return f"{error} {error!r} {error.args}"


@given(
    before=st.binary(max_size=20), after=st.binary(max_size=20), schema=st.sampled_from([StatusPayload, RequestPayload])
)
def test_no_error_about_bytes_quotes_them(before: bytes, after: bytes, schema: type[object]) -> None:
    data = before + SECRET.encode() + after
    with pytest.raises(RemoteProtocolError) as not_json:
        read_object(data, schema)
    with pytest.raises(RemoteProtocolError) as not_a_datagram:
        Datagram.decode(b"\xff" + data)
    with pytest.raises(RemoteProtocolError) as not_a_header:
        Header.decode(data[:31])
    for refused in (not_json, not_a_datagram, not_a_header):
        assert SECRET not in shown(refused.value)


@given(st.binary(max_size=60))
def test_no_violation_quotes_what_came(data: bytes) -> None:
    marked = data + SECRET.encode()
    client, server = ClientControl(), ServerControl(Limits(), quiet_until_s=120.0)
    client.send_request(Operation.JOIN, room="room1", user="alice", password=SECRET, token=SECRET.encode())
    events = [*client.receive_data(marked * 3), *server.receive_data(marked * 3, now_s=0.0), *server.receive_eof()]
    for event in events:
        assert SECRET not in repr(event)
        if isinstance(event, Violation):
            assert SECRET not in shown(event.error)
    for machine in (client, server, PacketReader(4096)):
        assert SECRET not in repr(machine)


def test_our_own_mistakes_do_not_quote_a_token() -> None:
    token = SECRET.encode() + b"\xff"
    client, server = ClientControl(), ServerControl(Limits(), quiet_until_s=120.0)
    server.receive_data(ControlPacket(1, 0, b"room1", b"alice").encode(), now_s=0.0)
    with pytest.raises(LocalProtocolError) as asking:
        client.send_request(Operation.JOIN, room="room1", user="alice", token=token)
    with pytest.raises(LocalProtocolError) as accepting:
        server.accept(token, now_s=0.0)
    with pytest.raises(LocalProtocolError) as building:
        Datagram("room1", token * 40, token).encode()
    for raised in (asking, accepting, building):
        assert SECRET not in shown(raised.value)
