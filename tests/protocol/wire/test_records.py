"""Records of TCRP/2: round trips of every schema, however the stream is cut, and what is refused."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import inspect

from ocm.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from ocm.protocol.wire.classic import Header, Stage
from ocm.protocol.wire.frames import BODY_SIZE_MAX, Message, write_frame
from ocm.protocol.wire.payload import INTEGER_MAX, KEYS_MAX
from ocm.protocol.wire.records import (
    DETACHED_FLAG,
    EARLY_PAYLOAD_SIZE_MAX,
    FRAMES_RECORD_SIZE_MAX,
    PAYLOAD_SIZE_MAX,
    SCHEMAS,
    Authenticate,
    CloseCode,
    Closing,
    ControlRecord,
    Create,
    Denied,
    Hello,
    Join,
    MemberRow,
    Op,
    Payload,
    RecordReader,
    Seated,
    write_frames_record,
    write_record,
)
from ocm.protocol.wire.size import Spelling
from tests.vectors import modern

# --- payloads from their schemas ------------------------------------------------------------------------


def values_of(kind: inspect.Type) -> st.SearchStrategy[Any]:
    """Values that a field of this type may have."""
    match kind:
        case inspect.IntType(ge=ge, lt=lt, le=le):
            least = -INTEGER_MAX if ge is None else ge
            return st.integers(least, le if le is not None else INTEGER_MAX if lt is None else lt - 1)
        case inspect.FloatType(gt=gt, le=le):
            return st.floats(gt, le, exclude_min=True) | st.integers(1, 1000).map(float)
        case inspect.StrType(pattern=str() as pattern):
            size = int(pattern.partition("{")[2].partition("}")[0])
            return st.binary(min_size=size // 2, max_size=size // 2).map(bytes.hex)
        case inspect.StrType(max_length=size_max):
            return st.text(max_size=min(size_max or 80, 80)) | st.just("x" * (size_max or 80))
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.ListType(item_type=item, max_length=size_max):
            return st.lists(values_of(item), max_size=size_max or 20)
        case inspect.UnionType(types=types):
            return st.one_of(*map(values_of, types))
        case inspect.StructType(cls=schema, fields=fields):
            return st.builds(schema, **{field.name: values_of(field.type) for field in fields})
        case _:
            raise AssertionError(f"no values of {kind}")


def payloads_of(schema: type[Payload]) -> st.SearchStrategy[Payload]:
    return values_of(inspect.type_info(schema))


Said = tuple[Op, Stage, Payload]
said_things = st.sampled_from([*SCHEMAS]).flatmap(
    lambda what: st.tuples(*map(st.just, what), payloads_of(SCHEMAS[what]))
)


def records_of(*chunks: bytes, payload_size_max: int = PAYLOAD_SIZE_MAX) -> tuple[list[ControlRecord], str]:
    """The records of a stream, and what is wrong with what follows them."""
    reader = RecordReader()
    reader.payload_size_max = payload_size_max
    records: list[ControlRecord] = []
    for chunk in chunks:
        reader.feed(chunk)
        try:
            while (record := reader.next()) is not None:
                records.append(record)
        except RemoteProtocolError as error:
            with pytest.raises(RemoteProtocolError):  # a stream does not go on after it
                reader.next()
            return records, str(error)
    return records, ""


def header_of(payload_size: int, *, room_size: int = 0, spelling: Spelling = Spelling.BIG_ENDIAN) -> bytes:
    return Header(room_size, Op.CREATE, Stage.REQUEST, payload_size, spelling).encode()


@given(said_things)
def test_what_we_write_we_read_back(said: Said) -> None:
    operation, stage, payload = said
    data = write_record(operation, stage, payload)
    ((record,), wrong) = records_of(data)
    assert not wrong
    assert (record.operation, record.stage, record.whole) == (operation, stage, data)
    assert record.read() == payload
    assert write_record(operation, stage, payload) == data


@pytest.mark.parametrize("what", SCHEMAS, ids=lambda what: f"{what[0].name}.{what[1]}")
def test_every_schema_keeps_the_rules_of_json_and_its_own_secrets(what: tuple[Op, Stage]) -> None:
    schema = SCHEMAS[what]
    assert len(schema.__struct_fields__) <= KEYS_MAX

    @given(payloads_of(schema))
    def check(payload: Payload) -> None:
        assert repr(payload) == f"{schema.__name__}(...)"

    check()


# --- what comes ------------------------------------------------------------------------------------------


def spoilt(said: list[Said], place: int, piece: bytes, end: int) -> bytes:
    whole = b"".join(write_record(*what) for what in said)
    return whole[:place] + piece + whole[place + end :]


streams = st.binary(max_size=200) | st.builds(
    spoilt, st.lists(said_things, max_size=3), st.integers(0, 400), st.binary(max_size=3), st.integers(0, 3)
)


@given(streams)
def test_any_bytes_are_refused_or_read(stream: bytes) -> None:
    records, wrong = records_of(stream)
    whole = b"".join(record.whole for record in records)
    assert stream.startswith(whole)
    assert wrong or len(stream) - len(whole) < 32 + PAYLOAD_SIZE_MAX
    for record in records:
        assert record.whole[32:] == record.payload
        try:
            said = record.read()
        except RemoteProtocolError:
            continue
        if said is None:
            assert (record.operation, record.stage) not in SCHEMAS
            continue
        ((again,), _) = records_of(write_record(record.operation, Stage(record.stage), said))
        assert again.read() == said


@given(streams, st.lists(st.integers(0, 600), max_size=12))
def test_the_same_records_come_however_the_stream_is_cut(stream: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(stream)]
    chunks = [stream[start:end] for start, end in pairwise(places)]
    assert records_of(*chunks) == records_of(stream)
    assert records_of(*(stream[place : place + 1] for place in range(len(stream)))) == records_of(stream)


@given(st.integers(0, PAYLOAD_SIZE_MAX))
def test_a_payload_of_any_size_is_read(size: int) -> None:
    data = write_frames_record(bytes(size))
    ((record,), _) = records_of(data)
    assert (record.operation, record.payload) == (Op.FRAMES, bytes(size))


def test_a_header_that_promises_too_much_is_refused_at_once() -> None:
    reader = RecordReader()
    reader.feed(header_of(EARLY_PAYLOAD_SIZE_MAX))
    assert reader.next() is None
    reader = RecordReader()
    reader.feed(header_of(EARLY_PAYLOAD_SIZE_MAX + 1)[:31])
    assert reader.next() is None
    reader.feed(header_of(EARLY_PAYLOAD_SIZE_MAX + 1)[31:])
    with pytest.raises(LimitExceeded) as refused:
        reader.next()
    assert (refused.value.asked, refused.value.limit) == (EARLY_PAYLOAD_SIZE_MAX + 1, EARLY_PAYLOAD_SIZE_MAX)


def test_who_is_known_may_send_more() -> None:
    reader = RecordReader()
    reader.payload_size_max = PAYLOAD_SIZE_MAX
    reader.feed(header_of(PAYLOAD_SIZE_MAX))
    assert reader.next() is None
    reader.feed(bytes(PAYLOAD_SIZE_MAX) + header_of(2**232 - 1))
    assert reader.next() is not None
    with pytest.raises(LimitExceeded, match="over 2"):
        reader.next()


@pytest.mark.parametrize("room_size", [1, 255])
def test_a_record_has_no_room_in_its_header(room_size: int) -> None:
    assert "no room" in records_of(header_of(2, room_size=room_size))[1]


@pytest.mark.parametrize("spelling", [spelling for spelling in Spelling if spelling is not Spelling.BIG_ENDIAN])
def test_a_size_has_one_spelling(spelling: Spelling) -> None:
    assert "big-endian" in records_of(header_of(2, spelling=spelling) + b"{}")[1]


# --- golden bytes -----------------------------------------------------------------------------------------

GOLDEN: dict[str, tuple[bytes, Op, Stage, Payload]] = {
    "HELLO.0": (
        modern.HELLO_0,
        Op.HELLO,
        Stage.REQUEST,
        Hello(versions=[2], suites=[1], secret=modern.SECRET.hex(), connection=modern.CONNECTION.hex()),
    ),
    "JOIN.2": (
        modern.JOIN_2,
        Op.JOIN,
        Stage.COMPLETE,
        Seated(
            id=7,
            member=3,
            handle=1,
            log=modern.LOG.hex(),
            head=42,
            oldest=1,
            start=40,
            mark=5,
            resumed=True,
            access="modern",
            lifetime="close",
            durable=True,
            host=1,
            members=[MemberRow(1, "bob"), MemberRow(3, "愛子", DETACHED_FLAG)],
        ),
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_records_read_and_write_golden_bytes(name: str) -> None:
    data, operation, stage, payload = GOLDEN[name]
    assert write_record(operation, stage, payload) == data
    assert records_of(data) == ([ControlRecord(operation, stage, data[32:], data)], "")
    assert ControlRecord(operation, stage, data[32:], data).read() == payload


# --- one by one -------------------------------------------------------------------------------------------


def join(**changes: object) -> ControlRecord:
    payload = msgspec.json.encode({"id": 1, "room": "r", "user": "u"} | changes)
    return ControlRecord(Op.JOIN, Stage.REQUEST, payload, payload)


def test_what_is_not_said_has_its_default_and_what_is_unknown_is_ignored() -> None:
    assert join(colour="red").read() == Join(id=1, room="r", user="u")


@pytest.mark.parametrize(
    "changes",
    [
        {"id": -1},
        {"id": 2**32},
        {"id": None},
        {"id": "1"},
        {"room": 1},
        {"last": 2**53},
        {"log": "0" * 31},
        {"log": "0" * 32 + "\n"},
        {"log": "A" * 32},
        {"password": 5},
        {str(number): number for number in range(14)},
    ],
    ids=str,
)
def test_what_does_not_fit_its_schema_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(RemoteProtocolError, match="JSON"):
        join(**changes).read()


def test_what_is_missing_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="JSON"):
        ControlRecord(Op.JOIN, Stage.REQUEST, b'{"id":1,"room":"r"}', b"").read()


@pytest.mark.parametrize(("operation", "stage"), [(0x77, 0), (Op.JOIN, 3), (Op.CLOSE, 1), (Op.FRAMES, 0)])
def test_of_an_unknown_operation_only_its_number_is_read(operation: int, stage: int) -> None:
    record = ControlRecord(operation, stage, b'{"id":9,"and":"more"}', b"")
    assert record.read() is None
    assert record.request_id() == 9
    assert ControlRecord(operation, stage, b"{}", b"").request_id() == 0
    with pytest.raises(RemoteProtocolError):
        ControlRecord(operation, stage, b"[9]", b"").request_id()


def test_an_unknown_operation_can_be_refused() -> None:
    denied = Denied(id=9, code=400)
    ((record,), _) = records_of(write_record(0x77, Stage.STATUS, denied))
    assert (record.operation, record.stage) == (0x77, 1)


def test_a_payload_over_64_kib_is_not_written() -> None:
    largest = PAYLOAD_SIZE_MAX - len(write_record(Op.CLOSE, Stage.REQUEST, Closing(code=1))) + 32
    assert len(write_record(Op.CLOSE, Stage.REQUEST, Closing(code=1, reason="x" * largest))) == 32 + PAYLOAD_SIZE_MAX
    with pytest.raises(LocalProtocolError, match="64 KiB"):
        write_record(Op.CLOSE, Stage.REQUEST, Closing(code=1, reason="x" * (largest + 1)))
    with pytest.raises(LocalProtocolError, match="64 KiB"):
        write_frames_record(bytes(PAYLOAD_SIZE_MAX + 1))


def test_a_lone_surrogate_is_our_own_fault_and_its_text_is_not_quoted() -> None:
    with pytest.raises(LocalProtocolError, match=r"^a text with lone surrogates$") as refused:
        write_record(Op.CREATE, Stage.REQUEST, Create(id=1, room="r", user="u", password="pass\ud800"))
    assert refused.value.__cause__ is None


def test_one_message_fits_a_record_whatever_its_size() -> None:
    assert FRAMES_RECORD_SIZE_MAX < PAYLOAD_SIZE_MAX
    largest = write_frame(Message(1, 1, 1, 1, 1, 0, 0, bytes(BODY_SIZE_MAX)))
    assert records_of(write_frames_record(largest))[0][0].payload == largest


def test_secrets_are_not_shown() -> None:
    said = Authenticate(client="0" * 32, secret="5" * 64)
    record = records_of(write_record(Op.AUTH, Stage.REQUEST, said))[0][0]
    assert "5555" not in f"{said!r} {said} {record!r} {[said]!r}"


def test_a_close_code_that_is_not_known_is_a_bye() -> None:
    assert [CloseCode.of(code) for code in (0, 2, 99)] == [CloseCode.BYE, CloseCode.REPLACED, CloseCode.BYE]
