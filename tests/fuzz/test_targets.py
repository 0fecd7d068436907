"""Every fuzz target keeps its property over its seeds and near them, and notices a planted bug."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocm.protocol.agent.roster import Roster
from ocm.protocol.control.packets import PacketReader
from ocm.protocol.events import Announcement, Event
from ocm.protocol.link.log import RoomLog
from ocm.protocol.link.modern_session import ModernSession, SessionEvent
from ocm.protocol.link.notices import MemberJoined
from ocm.protocol.names import skeleton
from ocm.protocol.session.receiving import Receiver
from ocm.protocol.sniff import Profile, sniff
from ocm.protocol.text import safe_text
from ocm.protocol.url import ServerUrl, parse_url
from ocm.protocol.wire import frames
from ocm.protocol.wire.classic import Stage
from ocm.protocol.wire.records import (
    SCHEMAS,
    ControlRecord,
    Done,
    Op,
    Payload,
    RecordReader,
    write_frames_record,
    write_record,
)
from ocm.protocol.wire.size import Spelling, write_size
from ocm.store import client_sqlite, sqlite_read
from tests.fuzz import files, sessions, targets
from tests.fuzz.pieces import object_of, values_in_json
from tests.fuzz.targets import TARGETS, Target
from tests.protocol.agent.scripted import text
from tests.vectors.certificate import DER
from tests.vectors.classic import OCM_CREATE
from tests.vectors.modern import HELLO_0


@st.composite
def inputs_of(draw: st.DrawFn, target: Target) -> bytes:
    """Any bytes; or a seed that is cut off, followed by others or changed in one place."""
    if not target.seeds or draw(st.booleans()):
        return draw(st.binary(max_size=target.size_max))
    seed = draw(st.sampled_from(target.seeds))
    place = draw(st.integers(0, len(seed)))
    end = draw(st.sampled_from([len(seed), place, place + 1]))
    return seed[:place] + draw(st.binary(max_size=3)) + seed[end:]


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_every_seed_keeps_the_property(target: Target) -> None:
    for seed in (b"", *target.seeds):
        target.check(seed)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@given(data=st.data())
def test_any_bytes_keep_the_property(target: Target, data: st.DataObject) -> None:
    target.check(data.draw(inputs_of(target)))


@pytest.mark.parametrize("number", range(len(targets.SPOKEN)))
def test_what_objects_are_made_of_is_read(number: int) -> None:
    payload = object_of(b"", values_in_json(targets.VALID[number]))
    said = ControlRecord(*targets.SPOKEN[number], payload, payload).read()
    assert said is not None
    assert msgspec.to_builtins(said) == targets.VALID[number]


class ForgetsShortReads(PacketReader):
    def feed(self, data: bytes) -> None:
        if len(data) > 1:
            super().feed(data)


def read_header_of_any_size(data: bytes) -> tuple[int, int, int, bytes]:
    return data[0], data[1], data[2], data[3:]


def read_without_checks(data: bytes) -> tuple[bytes, bytes, bytes]:
    end = 2 + data[0]
    return data[2:end], data[end : end + data[1]], data[end + data[1] :]


def write_sizes_that_wrap(room: bytes, token: bytes, text: bytes) -> bytes:
    return bytes((len(room) % 256, len(token) % 256)) + room + token + text


def write_any_header(room_size: int, operation: int, stage: int, raw_size: bytes) -> bytes:
    return bytes((room_size, operation, stage)) + raw_size


def write_one_spelling(number: int, _: Spelling) -> bytes:
    return write_size(number, Spelling.DIGITS_ZERO)


def raise_errors_of_msgspec(data: bytes, schema: type[Any]) -> object:
    return msgspec.json.decode(data, type=schema)


def leave_text_unsafe(text: str, *, newlines: bool = False) -> str:
    return text if newlines else safe_text(text)


def shape_that_grows(name: str) -> str:
    return skeleton(name) + "."


def take_all_for_the_host(text: str) -> ServerUrl:
    return replace(parse_url(text), host=text)


def write_no_frames(several: object) -> bytes:
    return b""


def read_none(data: bytes) -> None:
    return None


class ForgetsShortPieces(RecordReader):
    def feed(self, data: bytes) -> None:
        if len(data) > 1:
            super().feed(data)


def write_nothing_said(operation: int, stage: Stage, payload: Payload) -> bytes:
    return write_record(operation, stage, Done(id=0))


def sniff_three_bytes(data: bytes) -> Profile | None:
    return sniff(data) if len(data) < 3 else Profile.TLS if data.startswith(b"\x16\x03") else Profile.CLASSIC


def take_any_memo(memo: bytes) -> bytes:
    return memo[:16]


def take_all_for_the_key(shown: bytes) -> bytes:
    return shown


BUGS: dict[str, tuple[str, str, Callable[..., object], bytes]] = {
    "a header of any size": ("derived_read_header", "read_header", read_header_of_any_size, bytes(33)),
    "no length checks": ("derived_read_datagram", "read_datagram", read_without_checks, b"\5\5room1alic"),
    "no length checks, beside construct": ("construct_datagram", "read_datagram", read_without_checks, b"\5\5room1"),
    "a frame read without its end": ("frames", "write_frames", write_no_frames, b"\x01"),
    "a sealed datagram of any size": ("sealed", "read_sealed", read_none, b"\0\x0e" + bytes(31)),
    "a field too short": ("derived_write_header", "write_header", write_any_header, b"@@@12345"),
    "a field too short, beside construct": ("construct_write_header", "write_header", write_any_header, b"@@@12345"),
    "sizes that wrap": ("derived_write_datagram", "write_datagram", write_sizes_that_wrap, b"\x80\x00"),
    "sizes that wrap, beside construct": (
        "construct_write_datagram",
        "write_datagram",
        write_sizes_that_wrap,
        b"\x80\x00",
    ),
    "another spelling": ("size", "write_size", write_one_spelling, b"\0"),
    "an error of another tree": ("payload_request", "read_object", raise_errors_of_msgspec, b"{"),
    "bytes of a record lost at a cut": ("records", "RecordReader", ForgetsShortPieces, b"\x1f\0\0" + HELLO_0),
    "a payload that says something else": (
        "record_payload",
        "write_record",
        write_nothing_said,
        bytes([[*SCHEMAS].index((Op.KICK, Stage.COMPLETE))]) + b'{"id":7}',
    ),
    "TLS by its first bytes alone": ("profile", "sniff", sniff_three_bytes, b"\x16\x03\1\0\0\3"),
    "a classic door taken for a modern one": ("door_memo", "client_of", take_any_memo, b"1\0" + bytes(38)),
    "a certificate taken for its key": ("certificate", "certified_key", take_all_for_the_key, DER),
    "an object that says something else": (
        "record_object",
        "write_record",
        write_nothing_said,
        bytes([[*SCHEMAS].index((Op.KICK, Stage.COMPLETE)), 0, 0, 3, 2]),
    ),
    "bytes lost at a cut": ("packets", "PacketReader", ForgetsShortReads, b"\x1f\0\0" + OCM_CREATE),
    "an unsafe text": ("text", "safe_text", leave_text_unsafe, b"\x1b[2J"),
    "a skeleton that is not one": ("names", "skeleton", shape_that_grows, b"alice"),
    "a notice misread": ("notice", "read_notice", MemberJoined, b"bob left"),
    "a host misread": ("url", "parse_url", take_all_for_the_host, b"localhost"),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_noticed(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, attribute, replacement, data = BUGS[bug]
    TARGETS[name].check(data)
    monkeypatch.setattr(targets, attribute, replacement)
    with pytest.raises(Exception):  # noqa: B017, PT011 - libFuzzer minds not which
        TARGETS[name].check(data)


# --- of sessions ------------------------------------------------------------------------------------------


def gives_entries_as_they_come(patch: pytest.MonkeyPatch) -> None:
    def planted(self: Receiver, message: frames.Message, *, now_s: float) -> bool:
        self._ready.append(message)
        return True

    patch.setattr(Receiver, "receive", planted)


def closes_no_room(patch: pytest.MonkeyPatch) -> None:
    def planted(self: Roster, message: frames.Message) -> Event | None:
        return Announcement(f"[kind {message.kind}]")

    patch.setattr(Roster, "event_of", planted)


def hears_one_event_of_a_piece(patch: pytest.MonkeyPatch) -> None:
    events = ModernSession.events

    def planted(self: ModernSession, data: bytes, *, now_s: float) -> Iterator[SessionEvent]:
        return iter(list(events(self, data, now_s=now_s))[:1])

    patch.setattr(ModernSession, "events", planted)


def tells_some_of_what_is_said(patch: pytest.MonkeyPatch) -> None:
    tail = RoomLog.tail

    def planted(self: RoomLog, seq: int) -> bytes | None:
        return tail(self, min(seq, 3))

    patch.setattr(RoomLog, "tail", planted)


def takes_any_row(patch: pytest.MonkeyPatch) -> None:
    def planted(shape: Callable[..., object], row: Iterable[object]) -> object:
        return shape(*row)

    patch.setattr(sqlite_read, "row_as", planted)
    patch.setattr(client_sqlite, "row_as", planted)


_TWICE = frames.write_frame(text(11))
SESSION_BUGS: list[tuple[str, Callable[[pytest.MonkeyPatch], None], bytes]] = [
    ("client_session", gives_entries_as_they_come, sessions.CUT + sessions.SEAT + 2 * write_frames_record(_TWICE)),
    ("client_datagram", gives_entries_as_they_come, 2 * sessions.TO_PORT[0]),
    ("entry_body", closes_no_room, sessions.BODIES[2]),
    ("entry_object", closes_no_room, b"\5"),
    ("server_room", tells_some_of_what_is_said, sessions.TO_ROOM[0]),
    ("journal_file", takes_any_row, files.IN_JOURNAL[2]),
    ("state_file", takes_any_row, files.IN_STATE[2]),
    ("server_session", hears_one_event_of_a_piece, sessions.TO_SERVER[1]),
]


@pytest.mark.parametrize(("name", "plant", "data"), SESSION_BUGS, ids=[name for name, _, _ in SESSION_BUGS])
def test_a_bug_planted_in_a_session_is_noticed(
    name: str, plant: Callable[[pytest.MonkeyPatch], None], data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    TARGETS[name].check(data)
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        TARGETS[name].check(data)
