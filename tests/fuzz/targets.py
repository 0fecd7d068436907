"""What is fuzzed: one function per reader of foreign bytes, each of which states what is true of any bytes.

A target returns for bytes that keep its property and raises for others. Errors of our tree that a reader is
documented to raise are caught where it is called, so whatever comes out is a bug. ``run.py`` feeds the
targets with libFuzzer, ``test_targets.py`` with a few inputs in every test run.
"""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, dataclass
from typing import Final

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from ocm.errors import LocalProtocolError, RemoteProtocolError
from ocm.protocol.address import V4_SIZE, V6_SIZE, host_key, make_address, split_address
from ocm.protocol.control.client import ClientControl, ClientEvent, ClientState, Seated
from ocm.protocol.control.packets import Form, PacketReader, Violation
from ocm.protocol.control.server import Request, ServerControl, ServerEvent, ServerState
from ocm.protocol.entry import Reason, Refusal
from ocm.protocol.limits import DATAGRAM_SIZE_MAX, Limits
from ocm.protocol.link.classic import ClassicDoor, ClassicLink, restore_link
from ocm.protocol.link.modern import ModernLink, client_of
from ocm.protocol.link.notices import (
    Announcement,
    MemberJoined,
    MemberLeft,
    Removed,
    RoomClosed,
    Slowed,
    read_notice,
    slowed_notice,
)
from ocm.protocol.link.voice import Said, Voice
from ocm.protocol.names import fold, room_name, skeleton, user_name
from ocm.protocol.room import Member, Room
from ocm.protocol.sniff import DECIDED, Profile, sniff
from ocm.protocol.text import MARKS_MAX, isolate, safe_text, shorten
from ocm.protocol.url import parse_url
from ocm.protocol.wire.classic import (
    DATAGRAM,
    HEADER,
    HEADER_SIZE,
    ControlPacket,
    Datagram,
    Header,
    Operation,
    read_datagram,
    read_header,
    write_datagram,
    write_header,
)
from ocm.protocol.wire.derive import Reader, Writer
from ocm.protocol.wire.frames import FRAME_TYPES, read_frames, write_frame, write_frames
from ocm.protocol.wire.layout import Layout, Value
from ocm.protocol.wire.payload import RequestPayload, StatusPayload, read_object, write_object
from ocm.protocol.wire.records import PAYLOAD_SIZE_MAX, SCHEMAS, ControlRecord, RecordReader, write_record
from ocm.protocol.wire.sealed import read_sealed
from ocm.protocol.wire.sealed import write_header as write_sealed_header
from ocm.protocol.wire.size import SIZE_FIELD, Spelling, read_size, write_size
from ocm.transport.certificate import certified_key
from tests.fuzz import files, sessions
from tests.fuzz.pieces import cut, object_of, values_in_json
from tests.vectors import classic, modern
from tests.vectors.certificate import DER

LIMITS: Final = Limits()
LAYOUTS: Final = {kind.view: kind.layout for kind in FRAME_TYPES}
FORMS: Final = (Form.OCM, Form.PLAIN, Form.REFERENCE)
TOKENS: Final = {
    Form.OCM: classic.TOKEN_OCM,
    Form.PLAIN: classic.TOKEN_PLAIN,
    Form.REFERENCE: classic.TOKEN_REFERENCE,
}

# --- derived codecs and the constructs they come from -------------------------------------------------


def derived_read_header(data: bytes) -> None:
    values = read_header(data)
    assert (values is None) == (len(data) != 32)
    if values is None:
        return
    room_size, operation, stage, raw_size = values
    assert bytes((room_size, operation, stage)) + raw_size == data


def derived_read_datagram(data: bytes) -> None:
    values = read_datagram(data)
    assert (values is None) == (len(data) < 2 or len(data) < 2 + data[0] + data[1])
    if values is None:
        return
    room, token, text = values
    assert bytes((len(room), len(token))) + room + token + text == data


def derived_write_header(data: bytes) -> None:
    room_size, operation, stage, raw_size = values = header_values(data)
    fits = len(raw_size) == 29 and min(values[:3]) >= 0 and max(values[:3]) <= 255
    try:
        written = write_header(*values)
    except LocalProtocolError:
        assert not fits
    else:
        assert fits
        assert written == bytes((room_size, operation, stage)) + raw_size


def derived_write_datagram(data: bytes) -> None:
    room, token, text = values = datagram_values(data)
    fits = len(room) < 256 and len(token) < 256
    try:
        written = write_datagram(*values)
    except LocalProtocolError:
        assert not fits
    else:
        assert fits
        assert written == bytes((len(room), len(token))) + room + token + text


def frames(data: bytes) -> None:
    """TCRP/2: the frames of a datagram are refused or have one spelling, and each is what its layout says."""
    try:
        several = read_frames(data)
    except RemoteProtocolError:
        return
    assert write_frames(several) == data
    at = 0
    for frame in several:
        size = len(write_frame(frame))
        layout = LAYOUTS.get(type(frame))
        assert layout is None or layout.parse(data[at + 1 : at + size]) == tuple(frame)
        at += size


def sealed(data: bytes) -> None:
    """TCRP/2: a sealed datagram is none or has one spelling, and a classic reader sees a token of 14 bytes."""
    parts = read_sealed(data)
    if parts is None:
        assert len(data) <= 32 or len(data) > 1500 or data[:2] != b"\0\x0e"
        return
    assert write_sealed_header(parts.connection_id, parts.packet_number) == parts.header
    assert parts.header + parts.sealed == data
    assert read_datagram(data) == (b"", data[2:16], parts.sealed)


def construct_header(data: bytes) -> None:
    same_reading(HEADER, read_header, data)


def construct_datagram(data: bytes) -> None:
    same_reading(DATAGRAM, read_datagram, data)


def construct_write_header(data: bytes) -> None:
    same_writing(HEADER, write_header, header_values(data))


def construct_write_datagram(data: bytes) -> None:
    same_writing(DATAGRAM, write_datagram, datagram_values(data))


def same_reading(layout: Layout, read: Reader, data: bytes) -> None:
    try:
        values = layout.parse(data)
    except RemoteProtocolError:
        assert read(data) is None
    else:
        assert read(data) == values
        assert layout.build(*values) == data


def same_writing(layout: Layout, write: Writer, values: tuple[Value, ...]) -> None:
    try:
        written = layout.build(*values)
    except LocalProtocolError:
        try:
            write(*values)
        except LocalProtocolError:
            return
        raise AssertionError("the derived writer takes what the construct refuses") from None
    assert write(*values) == written


def header_values(data: bytes) -> tuple[int, int, int, bytes]:
    """Three numbers from -64 to 446, and at most 31 bytes where 29 belong."""
    room_size, operation, stage = (2 * byte - 64 for byte in data[:3].ljust(3, b"\0"))
    return room_size, operation, stage, data[3:34]


def datagram_values(data: bytes) -> tuple[bytes, bytes, bytes]:
    """Two byte strings of 0 to 510 bytes, and the rest."""
    room_size, token_size = (2 * byte for byte in data[:2].ljust(2, b"\0"))
    room, token = data[2 : 2 + room_size], data[2 + room_size : 2 + room_size + token_size]
    return room.ljust(room_size, b"r"), token.ljust(token_size, b"t"), data[2 + room_size + token_size :]


# --- the wire -----------------------------------------------------------------------------------------


def header(data: bytes) -> None:
    try:
        decoded = Header.decode(data)
    except RemoteProtocolError:
        assert len(data) != 32
    else:
        assert decoded.encode() == data


def datagram(data: bytes) -> None:
    try:
        decoded = Datagram.decode(data)
    except RemoteProtocolError:
        return
    assert len(data) <= DATAGRAM_SIZE_MAX
    assert decoded.encode() == data
    shown = repr(decoded)
    assert "token" not in shown
    assert "text" not in shown.replace(repr(decoded.room), "")


def size(data: bytes) -> None:
    raw = data[:SIZE_FIELD].ljust(SIZE_FIELD, data[-1:] or b"\0")
    number, spelling = read_size(raw)
    assert 0 <= number < 256**SIZE_FIELD
    assert write_size(number, spelling) == raw
    for other in Spelling:
        try:
            written = write_size(number, other)
        except LocalProtocolError:
            continue
        if number <= LIMITS.payload_size_max and other is not Spelling.LITTLE_ENDIAN:
            assert read_size(written)[0] == number


def payload_request(data: bytes) -> None:
    same_object(data, RequestPayload)


def payload_status(data: bytes) -> None:
    same_object(data, StatusPayload)


def same_object(data: bytes, schema: type[RequestPayload] | type[StatusPayload]) -> None:
    try:
        said = read_object(data, schema)
    except RemoteProtocolError:
        return
    assert repr(said) == f"{schema.__name__}(...)"
    assert read_object(write_object(**msgspec.structs.asdict(said)), schema) == said


# --- records ------------------------------------------------------------------------------------------


def records(data: bytes) -> None:
    """TCRP/2: a stream means the same however it arrives, and whatever it does not refuse it gives back whole."""
    stream, chunks = cut(data)
    found, wrong = records_of([stream])
    assert records_of(chunks) == (found, wrong)
    whole = b"".join(record.whole for record in found)
    assert stream.startswith(whole)
    assert wrong or len(stream) - len(whole) < HEADER_SIZE + PAYLOAD_SIZE_MAX
    for record in found:
        assert len(record.payload) <= PAYLOAD_SIZE_MAX
        assert Header(0, record.operation, record.stage, len(record.payload)).encode() + record.payload == record.whole


def record_payload(data: bytes) -> None:
    """TCRP/2: one byte says which schema the rest is to be; what fits it is read again when it is written again."""
    operation, stage = SPOKEN[sum(data[:1]) % len(SPOKEN)]
    record = ControlRecord(operation, stage, data[1:], data)
    try:
        said = record.read()
    except RemoteProtocolError:
        return
    assert said is not None
    assert repr(said) == f"{type(said).__name__}(...)"
    ((again,), _) = records_of([write_record(operation, stage, said)])
    assert again.read() == said
    if "id" in said.__struct_fields__:
        assert record.request_id() == getattr(said, "id", None)


def record_object(data: bytes) -> None:
    """TCRP/2: the same, of JSON that is JSON."""
    record_payload(data[:1] + object_of(data[1:], _VALID_IN_JSON[sum(data[:1]) % len(SPOKEN)]))


SPOKEN: Final = [*SCHEMAS]
_VALID_FIELDS: Final[dict[str, object]] = msgspec.json.decode(
    b"""{
    "id": 1, "code": 404, "message": "no", "wait_ms": 10, "reason": "over", "resumed": true, "durable": true,
    "versions": [2], "suites": [1], "version": 2, "suite": 1, "durability": "disk", "burst": 2, "rate": 0.5,
    "room": "room", "user": "aiko", "access": "modern", "lifetime": "close", "password": null, "body_max": 9,
    "secret": "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", "connection": "0123456789abcdef",
    "client": "0123456789abcdef0123456789abcdef", "log": "0123456789abcdef0123456789abcdef", "udp_port": 9001,
    "member": 2, "handle": 1, "head": 9, "oldest": 1, "start": 3, "mark": 4, "host": 1, "last": 3, "lowest": 5,
    "members": [[1, "bob", 0], [2, "aiko", 2]], "more": false, "first": 1, "count": 5, "after": 1
    }"""
)
VALID: Final = [{name: _VALID_FIELDS[name] for name in SCHEMAS[spoken].__struct_fields__} for spoken in SPOKEN]
"""For each schema an object that fits it, with all keys."""
_VALID_IN_JSON: Final = [values_in_json(valid) for valid in VALID]


def records_of(chunks: Iterable[bytes]) -> tuple[list[ControlRecord], str]:
    """The records of a stream and the violation at which it ends, if it does."""
    reader = RecordReader()
    reader.payload_size_max = PAYLOAD_SIZE_MAX
    found: list[ControlRecord] = []
    for chunk in chunks:
        reader.feed(chunk)
        try:
            while (record := reader.next()) is not None:
                found.append(record)
        except RemoteProtocolError as error:
            return found, str(error)
    return found, ""


# --- who is there ---------------------------------------------------------------------------------------


def profile(data: bytes) -> None:
    """What a connection speaks is said once, by six bytes at most: TLS to what begins like a ClientHello."""
    said = [sniff(data[:end]) for end in (*range(min(len(data), DECIDED)), len(data))]
    decided = [one for one in said if one is not None]
    assert said == [None] * (len(said) - len(decided)) + decided
    assert len(set(decided)) <= 1
    assert decided or len(data) < DECIDED
    is_hello = data[:2] == b"\x16\x03" and data[3:5] != b"\0\0" and data[5:6] == b"\1"
    assert (Profile.TLS in decided) == is_hello


def door_memo(data: bytes) -> None:
    """What a journal kept of a member's door makes one door or none, of which the same would be kept."""
    client = client_of(data)
    if client is not None:
        assert ModernLink(client, "room1", "alice").memo() == data
    restored = restore_link(data, room="room1", user="alice", names=False)
    if restored is not None:
        assert client is None
        digest, link = restored
        assert link.memo()[:2] + digest + link.address == data
        assert link.token == b""
        host, port = split_address(link.address)
        assert host_key(make_address(host, port)) == host_key(link.address)


def certificate(data: bytes) -> None:
    """What a server shows has one public key, in one spelling, or none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library minds serial numbers, which say nothing to us
        key = certified_key(data)
    if key is not None:
        read = load_der_public_key(key)
        assert read.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == key


# --- the control conversation -------------------------------------------------------------------------


def packets(data: bytes) -> None:
    stream, chunks = cut(data)
    whole = packets_of([stream])
    assert packets_of(chunks) == whole
    written = b"".join(packet.encode() for packet in whole[0])
    assert stream.startswith(written)


def server_control(data: bytes) -> None:
    stream, chunks = cut(data)
    assert served(chunks) == served([stream])


def client_control(data: bytes) -> None:
    """A client that asks once: what the server's bytes mean does not depend on how they arrive."""
    form = form_of(data)
    stream, chunks = cut(data[1:])
    assert heard(form, chunks) == heard(form, [stream])


def client_dialogue(data: bytes) -> None:
    """A client that asks again whenever it may."""
    client = ClientControl(form=form_of(data))
    _, chunks = cut(data[1:])
    for number, chunk in enumerate(chunks):
        if client.state is ClientState.IDLE:
            client.send_request(Operation.CREATE if number % 2 else Operation.JOIN, room="room1", user="alice")
        elif client.state is ClientState.SEATED and client.form is Form.OCM:
            assert client.send_members() if number % 2 else client.send_leave()
        events = client.receive_data(chunk)
        failed = bool(events) and isinstance(events[-1], Violation)
        assert failed == (client.state is ClientState.FAILED and bool(events))
        assert not any(isinstance(event, Violation) for event in events[:-1])


def packets_of(chunks: Iterable[bytes]) -> tuple[list[ControlPacket], str]:
    """The packets of a stream and the violation at which it ends, if it does."""
    reader = PacketReader(LIMITS.payload_size_max)
    found: list[ControlPacket] = []
    for chunk in chunks:
        reader.feed(chunk)
        try:
            while (packet := reader.next_packet()) is not None:
                found.append(packet)
        except RemoteProtocolError as error:
            return found, str(error)
    return found, ""


def served(chunks: Iterable[bytes]) -> tuple[list[Request | str], list[bytes], list[Request | str], ServerState]:
    """What a server hears, what it writes, what it says to the end of stream and time, and where it stands then."""
    server = ServerControl(LIMITS, quiet_until_s=120.0)
    events: list[Request | str] = []
    for chunk in chunks:
        news = server.receive_data(chunk, now_s=0.0)
        while news:
            (event,) = news
            events += plain(news)
            news = answer(server, event)
    written: list[bytes] = []
    while server.has_more_to_send:
        due_s = server.next_timeout_s()
        assert due_s is not None
        written += server.packets_to_send(now_s=due_s)
    for packet in written:
        assert len(packets_of([packet])[0]) == 1
    return events, written, plain(server.receive_eof()) + plain(server.handle_timeout(now_s=1e6)), server.state


def answer(server: ServerControl, event: ServerEvent) -> list[ServerEvent]:
    """Say no to Bob."""
    if isinstance(event, Violation):
        assert server.state is ServerState.FAILED
        return []
    assert server.asked
    assert user_name(event.user.encode(), code_points_max=LIMITS.user_code_points_max) == event.user
    assert room_name(event.room.encode(), size_max=LIMITS.room_size_max) == event.room
    if event.user == "bob":
        return server.refuse(Refusal.NOT_FOUND, "no such room", now_s=0.0)
    match event.operation:
        case Operation.LEAVE:
            return server.answer(now_s=0.0)
        case Operation.MEMBERS:
            return server.answer([event.user, "bob"], now_s=0.0)
        case _:
            return server.accept(TOKENS[event.form], now_s=0.0)


def plain(events: Iterable[ServerEvent]) -> list[Request | str]:
    """Errors are equal to themselves only; their words compare."""
    return [str(event.error) if isinstance(event, Violation) else event for event in events]


def heard(form: Form, chunks: Iterable[bytes]) -> tuple[list[ClientEvent | str], ClientState]:
    client = ClientControl(form=form)
    client.send_request(Operation.JOIN, room="room1", user="alice")
    events = [event for chunk in chunks for event in client.receive_data(chunk)]
    assert all(0 < len(event.token) <= 255 for event in events if isinstance(event, Seated))
    return [str(event.error) if isinstance(event, Violation) else event for event in events], client.state


def form_of(data: bytes) -> Form:
    return FORMS[sum(data[:1]) % 3]


# --- text ---------------------------------------------------------------------------------------------


def names(data: bytes) -> None:
    try:
        room = room_name(data, size_max=255)
    except RemoteProtocolError:
        room = None
    try:
        user = user_name(data, code_points_max=32)
    except RemoteProtocolError:
        user = None
    for name in (room, user):
        if name is not None:
            assert name.encode() == data
            assert safe_text(name) == name
            assert fold(fold(name)) == fold(name)
            shape = skeleton(name)
            assert shape
            assert skeleton(shape) == shape == skeleton(fold(name))
    if user is not None:
        assert user == room  # what is a user's name could name a room
        assert len(fold(user)) <= 32


def text(data: bytes) -> None:
    said = data.decode(errors="surrogateescape")  # lone surrogates too
    for newlines in (False, True):
        safe = safe_text(said, newlines=newlines)
        assert safe_text(safe, newlines=newlines) == safe
        assert len(safe) <= len(said)
        assert not [char for char in safe.replace("\n", "" if newlines else "\n") if acts(char)]
        assert most_marks(safe) <= MARKS_MAX
        shown = isolate(safe)
        assert shown.replace("\u2068", "").replace("\u2069", "") == safe
        assert shown.count("\n") == safe.count("\n")
    short = shorten(said, limit=8)
    assert len(short) <= 8
    assert safe_text(short) == short


def acts(char: str) -> bool:
    return char not in "\u200c\u200d" and unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")


def most_marks(safe: str) -> int:
    """The longest run of combining marks; joiners and variation selectors do not break it."""
    longest = run = 0
    for char in safe:
        if char in "\u200c\u200d" or 0xFE00 <= ord(char) <= 0xFE0F or 0xE0100 <= ord(char) <= 0xE01EF:
            continue
        if char in "\u180b\u180c\u180d\u180f":
            continue
        run = run + 1 if unicodedata.category(char).startswith("M") else 0
        longest = max(longest, run)
    return longest


def url(data: bytes) -> None:
    """A link is refused or has one meaning, which can be written; unencrypted, or pinned, only where it says so."""
    said = data.decode(errors="surrogateescape")
    try:
        server = parse_url(said)
    except LocalProtocolError:
        return
    assert server.secure or said.strip().lower().startswith("tcrp://")
    if server.fingerprint is not None:
        assert server.secure
        assert len(bytes.fromhex(server.fingerprint)) == 32
        assert server.fingerprint == server.fingerprint.lower()
        assert f"#fp={server.fingerprint}" in said.lower()
    assert server.host
    assert 0 <= server.tcp_port <= 65535
    assert 0 <= server.udp_port <= 65535
    assert parse_url(str(server)) == server


# --- chat ---------------------------------------------------------------------------------------------


def notice(data: bytes) -> None:
    said = data.decode(errors="replace")
    match read_notice(said):
        case MemberJoined(name):
            assert f"{name} joined" == said
        case MemberLeft(name, reason):
            assert f"{name} left" + ("" if reason is Reason.BYE else f": {reason}") == said
        case RoomClosed(reason):
            assert f"room closed: {reason}" == said
        case Removed(reason):
            assert f"you were removed: {reason}" == said
        case Slowed(dropped):
            assert read_notice(slowed_notice(dropped)) == Slowed(dropped)
        case Announcement(announced):
            assert announced == said


VOICES: Final = {form: Voice(form, "room1", "alice", token) for form, token in TOKENS.items()}


def voice_ocm(data: bytes) -> None:
    hears = VOICES[Form.OCM].decode(data)
    values = read_datagram(data)
    assert (hears is None) == (values is None or values[0] != b"room1")
    if isinstance(hears, Said):
        assert hears.name  # who says nothing of itself is the server
        if "\ufffd" not in hears.name + hears.text:
            assert write_datagram(b"room1", hears.name.encode(), hears.text.encode()) == data


def voice_plain(data: bytes) -> None:
    hears = VOICES[Form.PLAIN].decode(data)
    line = data.decode(errors="replace")
    if isinstance(hears, Said):
        assert (hears.text if hears.name is None else f"{hears.name}: {hears.text}") == line
    else:
        assert isinstance(hears, RoomClosed)
        assert line == f"* room closed, {hears.reason}"


def voice_reference(data: bytes) -> None:
    hears = VOICES[Form.REFERENCE].decode(data)
    start = write_datagram(b"room1", classic.TOKEN_REFERENCE, b"")
    assert (hears is not None) == data.startswith(start)
    if hears is not None:
        assert hears == Said(None, data[len(start) :].decode(errors="replace"))


def door(data: bytes) -> None:
    """What comes out of a batch was in it: said by the member it names, from its host, in its order."""
    batch = list(batch_of(data))
    links = {
        token: ClassicLink(form, room="room1", user="alice", token=token, address=ADDRESSES[0])
        for form, token in TOKENS.items()
    }
    members = {id(member): token for token, member in MEMBERS.items()}
    for token, member in MEMBERS.items():
        links[token].member = member
    # One whose seat is not there yet.
    links[b"t"] = ClassicLink(Form.OCM, room="r", user="bob", token=b"t", address=ADDRESSES[0])
    entrance = ClassicDoor(links)
    intents = entrance.receive_batch(batch, now_s=1.0)
    assert len(intents) + sum(astuple(entrance.counters)) <= len(batch)
    sent = iter(batch)
    for intent in intents:
        token = members[id(intent.member)]
        link = links[token]
        assert 0 < len(intent.body.decode().encode()) <= link.text_size_max
        assert (write_datagram(b"room1", token, intent.body), link.address) in sent
    for link in links.values():
        assert host_key(link.address) == host_key(ADDRESSES[0])


ADDRESSES: Final = (
    make_address("10.0.0.1", 40000),
    make_address("10.0.0.1", 40001),
    make_address("10.0.0.2", 40000),
    make_address("::ffff:10.0.0.1", 40000),
)
ROOM: Final = Room("room1", 1, LIMITS)
MEMBERS: Final = {
    token: Member(ROOM, number, "alice", plaintext=True, now_s=0.0) for number, token in enumerate(TOKENS.values(), 1)
}


def batch_of(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Records of ``from(1) | size(1) | datagram``; the high bit of the first makes the datagram a long one."""
    start = 0
    while start + 2 <= len(data):
        where, count = data[start], data[start + 1]
        sent = data[start + 2 : start + 2 + count]
        yield sent + b"x" * DATAGRAM_SIZE_MAX if where & 0x80 else sent, ADDRESSES[where % 4]
        start += 2 + count


# --- the table ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """One function, how often it runs and on what it starts."""

    check: Callable[[bytes], None]
    inputs: int
    """How many inputs ``--full`` gives it."""
    size_max: int
    """Bytes of the largest input."""
    seeds: tuple[bytes, ...] = ()

    @property
    def name(self) -> str:
        return self.check.__name__


_EXCHANGES: Final = (*classic.SEATS.values(), *classic.REFUSALS.values(), classic.MEMBERS, classic.LEAVE)
_REQUESTS: Final = tuple(exchange.request for exchange in _EXCHANGES)
_REPLIES: Final = tuple(b"".join(exchange.replies) for exchange in _EXCHANGES)
_DATAGRAMS: Final = tuple(data for data, *_ in classic.DATAGRAMS.values())
_FRAMES: Final = tuple(
    bytes.fromhex(spelled)
    for spelled in (
        "01 0f 0a3820627974657321 0b3820627974657321 00000000",
        "02 000000000009 00fa 01 05",
        "03 00000001 0000000000000007 00 0002 6869",
        "04 00000001 0000000000000007 00 000000000000002a 0000000000000005",
        "05 00000001 000000000000002a 00000003 0000000000000007 0000000000000005 00 02 0002 6869",
        "06 00000001 000000000000002a 0100 08 00000001 0000000000000002 0000000000000003 01",
        "09 00000001 000000000000002a 0000000000000002 0d 0001 04 61776179",
        "0e 00000001 00000003 00000009 0000000000000004 0001 78",
    )
)
_CUT: Final = b"\x1f\x04\x00"
_VISIT: Final = (
    classic.OCM_CREATE_1 + classic.OCM_CREATE_2,
    classic.OCM_MEMBERS_1 + classic.OCM_MEMBERS_2,
    classic.OCM_LEAVE_1 + classic.OCM_LEAVE_2,
)
_DIALOGUE: Final = classic.OCM_CREATE + classic.OCM_MEMBERS + classic.OCM_LEAVE


def _payloads(*conversation: bytes) -> tuple[bytes, ...]:
    """The JSON of packets."""
    return tuple(data[data.index(b"{") :] for data in conversation if b"{" in data)


_EVERYTHING: Final = (
    b'{"id":1,"code":5,"client":null,"resumed":false,"secret":"%s","connection":"%s","udp_port":9,"version":2,'
    b'"suite":1,"durability":"disk","burst":2,"rate":0.5,"body_max":9,"handle":1,"first":1,"count":1}'
) % (b"00" * 32, b"00" * 8)
_SPOKEN_PAYLOADS: Final = tuple(
    bytes([number]) + data
    for number in range(len(SPOKEN))
    for data in (modern.JOIN_2[32:], modern.HELLO_0[32:], _EVERYTHING)
)
"""For every schema the payload of JOIN.2 or of HELLO.0, which have nearly all keys there are, and one with all."""
_ALL: Final = (
    # The derived codecs start from nothing, so that each branch they have counts as a new unit.
    Target(derived_read_header, 10_000_000, 48),
    Target(derived_read_datagram, 10_000_000, 600),
    Target(derived_write_header, 10_000_000, 48),
    Target(derived_write_datagram, 10_000_000, 600),
    Target(frames, 10_000_000, 300, _FRAMES),
    Target(sealed, 10_000_000, 1600, (b"\0\x0e" + bytes(31), b"\0\x0e" + bytes(1498), b"\0\x0e" + bytes(1499))),
    Target(records, 10_000_000, 300, tuple(_CUT + data for data in (modern.HELLO_0, modern.JOIN_2, bytes(64)))),
    Target(record_payload, 10_000_000, 400, _SPOKEN_PAYLOADS),
    Target(record_object, 10_000_000, 40, tuple(bytes([number]) for number in range(len(SPOKEN)))),
    Target(profile, 10_000_000, 48, (b"\x16\x03\x01\x02\x00\x01", classic.OCM_CREATE[:32])),
    Target(
        door_memo,
        10_000_000,
        64,
        (
            *(b"1\0" + bytes(32 + V4_SIZE), b"1\2" + bytes(32 + V6_SIZE), b"2" + bytes(16)),
            b"1\0" + bytes(48) + b"\xff\xff" + bytes(4) + b"r\0\0\0",  # found by fuzzing: IPv4 with a scope
        ),
    ),
    Target(certificate, 1_000_000, 600, (DER,)),
    Target(construct_header, 1_000_000, 48),
    Target(construct_datagram, 1_000_000, 600),
    Target(construct_write_header, 1_000_000, 48),
    Target(construct_write_datagram, 1_000_000, 600),
    Target(header, 2_000_000, 48, (classic.OCM_CREATE[:32], classic.PLAIN_JOIN[:32])),
    Target(datagram, 2_000_000, DATAGRAM_SIZE_MAX + 64, (*_DATAGRAMS, bytes(4096), bytes(4097))),
    Target(size, 1_000_000, 40, (b"5" + bytes(28), bytes(28) + b"\x05")),
    Target(payload_request, 1_000_000, 300, _payloads(*_REQUESTS)),
    Target(payload_status, 1_000_000, 300, _payloads(*_REPLIES)),
    Target(packets, 1_000_000, 1000, tuple(_CUT + data for data in (*_REQUESTS, *_REPLIES))),
    Target(server_control, 1_000_000, 1000, tuple(_CUT + data for data in (*_REQUESTS, _DIALOGUE))),
    Target(
        client_control,
        1_000_000,
        1000,
        tuple(bytes([number]) + _CUT + data for number in range(3) for data in _REPLIES),
    ),
    Target(
        client_dialogue,
        1_000_000,
        1000,
        (
            *(bytes([number]) + b"\xff\xff\xff" + data for number in range(3) for data in _REPLIES),
            bytes([0, *(len(replies) - 1 for replies in _VISIT)]) + b"".join(_VISIT),
        ),
    ),
    Target(sessions.client_session, 200_000, 1000, sessions.TO_CLIENT),
    Target(sessions.server_session, 1_000_000, 1000, sessions.TO_SERVER),
    Target(sessions.client_datagram, 200_000, 400, sessions.TO_PORT),
    Target(sessions.server_room, 200_000, 400, sessions.TO_ROOM),
    Target(files.journal_file, 200_000, 48, files.IN_JOURNAL),
    Target(files.state_file, 200_000, 48, files.IN_STATE),
    Target(sessions.entry_body, 10_000_000, 300, sessions.BODIES),
    Target(sessions.entry_object, 10_000_000, 40, tuple(bytes([kind]) for kind in range(8))),
    Target(names, 1_000_000, 260, (b"alice", "部屋".encode(), b"a" * 255, b"a" * 256)),
    Target(text, 1_000_000, 100, (b"a\tb\r\n\x1b[31m", "👩\u200d💻 שלום e\u0301".encode())),
    Target(
        url,
        10_000_000,
        120,
        (
            b"tcrps://[fe80::1%25eth0]:12345/%E9%83%A8%E5%B1%8B#fp=" + b"0123456789abcdef" * 4,
            b"host.example:1/r#FP=" + b"0123456789ABCDEF" * 4,
            b"tcrps://a#fp=" + b"0123456789ABCDEF" * 4,
            b"tcrp://[::1]:0/room%201?udp=9001&form=plain",
            b"localhost",
            b"localhost/\xbb",  # found by fuzzing: taken, though nothing can write it back
            b"tc\nrp://localhost",  # found by fuzzing: taken for tcrp://
            b"localhost?udp=0111111",  # found by fuzzing: taken as port 111111
        ),
    ),
    Target(notice, 1_000_000, 100, (b"bob joined", b"room closed: the host has gone", b"bob left")),
    Target(voice_ocm, 1_000_000, 600, (classic.OCM_DOWN, classic.OCM_NOTICE)),
    Target(voice_plain, 1_000_000, 600, (classic.PLAIN_DOWN,)),
    Target(voice_reference, 1_000_000, 600, (classic.REFERENCE_DOWN,)),
    Target(door, 1_000_000, 1000, tuple(b"\1" + bytes([len(data)]) + data for data in _DATAGRAMS)),
)
TARGETS: Final = {target.name: target for target in _ALL}
