"""Draw the parts of docs/tcrp2.md that repeat what the code says: frames, records, schemas, codes, numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import IntEnum
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import msgspec
from msgspec import inspect

from ocm.protocol import entry, limits
from ocm.protocol.link import modern_session
from ocm.protocol.session import (
    acks,
    addresses,
    channel,
    keys,
    lane,
    path,
    publishing,
    pulse,
    receiving,
    recovery,
    seal,
    window,
)
from ocm.protocol.wire import frames, payload, records, sealed
from ocm.protocol.wire.classic import Stage
from ocm.protocol.wire.layout import Field, Fixed, Rest, Sized, SizeOf, UInt
from tools.draw_tables import cell, documented, fenced, table

VECTORS: Final = Path(__file__).resolve().parent.parent / "tests" / "vectors" / "sealed.json"

# --- frames -----------------------------------------------------------------------------------------------------

_BOTH: Final = "both"
_CLIENT: Final = "client"
_SERVER: Final = "server"
_SENT_BY: Final[Mapping[type[Any], tuple[str, str]]] = {
    frames.Ping: (_BOTH, "UDP, TLS"),
    frames.Ack: (_BOTH, "UDP"),
    frames.Publish: (_CLIENT, "UDP, TLS"),
    frames.Published: (_SERVER, "UDP, TLS"),
    frames.Message: (_SERVER, "UDP, TLS"),
    frames.Received: (_CLIENT, "UDP, TLS"),
    frames.Gap: (_SERVER, "UDP, TLS"),
    frames.Head: (_SERVER, "UDP, TLS"),
    frames.Challenge: (_BOTH, "UDP"),
    frames.Response: (_BOTH, "UDP"),
    frames.Close: (_BOTH, "UDP, TLS"),
    frames.Signal: (_CLIENT, "UDP, TLS"),
    frames.Pong: (_BOTH, "TLS"),
}
"""Who sends a frame, and which way it may go: what a machine takes, and no layout says."""


def frames_table() -> str:
    """Draw every frame with the bytes behind its type byte."""
    rows: list[tuple[str, ...]] = [
        (f"`{frames.PADDING:02x}`", "PADDING", "`00` to the end of the datagram", _BOTH, "UDP")
    ]
    for kind in frames.FRAME_TYPES:
        layout = ", ".join(map(_field, kind.layout.fields)) or "nothing"
        rows.append((f"`{kind.code:02x}`", kind.layout.title, layout, *_SENT_BY[kind.view]))
    return table(("type", "frame", "fields behind the type byte, each with its size in bytes", "sent by", "over"), rows)


def _field(part: Field) -> str:
    match part:
        case UInt(name, size) | SizeOf(name, _, size) | Fixed(name, size):
            return f"`{name}` {size}"
        case Sized(name, by):
            return f"`{name}` as `{by}` says"
        case Rest(name):
            return f"`{name}` to the end"


# --- records ----------------------------------------------------------------------------------------------------


def operations_table() -> str:
    """Draw every operation with what it says at each stage."""
    rows: list[tuple[str, ...]] = []
    for operation in records.Op:
        said = {stage: schema.__name__ for (one, stage), schema in records.SCHEMAS.items() if one is operation}
        if operation is records.Op.FRAMES:
            rows.append((f"`{operation.value:02x}`", operation.name, "frames", "", ""))
            continue
        stages = (f"`{said[stage]}`" if stage in said else "" for stage in Stage)
        rows.append((f"`{operation.value:02x}`", operation.name, *stages))
    return table(("operation", "name", "stage 0", "stage 1", "stage 2"), rows)


def schema_table(schema: type[msgspec.Struct]) -> str:
    """Draw the keys of one JSON object, or the places of one that is a list."""
    known = inspect.type_info(schema)
    assert isinstance(known, inspect.StructType)
    texts = documented(records, schema.__name__)
    if not known.fields:
        return f"`{schema.__name__}` has no keys: `{{}}`.\n"
    rows: list[tuple[str, str, str, str]] = []
    for number, field in enumerate(known.fields):
        default = "required" if field.required else f"`{json.dumps(field.default)}`"
        name = f"{number}: {field.encode_name}" if known.array_like else f"`{field.encode_name}`"
        rows.append((name, _values(field.type), default, cell(texts[field.name])))
    place = "place" if known.array_like else "key"
    return table((f"{place} in `{schema.__name__}`", "value", "if absent", "meaning"), rows)


_POWERS: Final = {2**32: "2^32 - 1", 2**53: "2^53 - 1"}


def _values(kind: inspect.Type) -> str:
    match kind:
        case inspect.UnionType(types=types):
            return " or ".join("null" if isinstance(one, inspect.NoneType) else _values(one) for one in types)
        case inspect.StrType(pattern=str(pattern)):
            return f"{pattern.partition('{')[2].partition('}')[0]} hex digits"
        case inspect.StrType(max_length=length):
            return "string" if length is None else f"string of up to {length:,} characters"
        case inspect.IntType(ge=least, lt=above, le=most):
            return "integer" + _range(least, above, most)
        case inspect.FloatType(le=most):
            return f"number above 0, up to {most:,}"
        case inspect.BoolType():
            return "true or false"
        case inspect.ListType(item_type=inspect.StructType(cls=cls)):
            return f"list of `{cls.__name__}`"
        case inspect.ListType(max_length=length):
            return f"list of up to {length} integers"
        case _:
            raise TypeError(f"no words for {kind}")


def _range(least: float | None, above: float | None, most: float | None) -> str:
    if least is None:
        return ""
    if above is not None:
        return f", from {least} to {_POWERS.get(int(above), f'{above - 1:,}')}"
    return f", from {least} to {most:,}"


_SCHEMAS: Final[Sequence[type[msgspec.Struct]]] = (records.MemberRow, *dict.fromkeys(records.SCHEMAS.values()))

# --- codes ------------------------------------------------------------------------------------------------------

_CLOSE_MEANINGS: Final[Mapping[records.CloseCode, tuple[str, str]]] = {
    records.CloseCode.BYE: ("The sender has no more use for the session.", "MAY"),
    records.CloseCode.GOING_AWAY: ("The server stops, or cannot write its journal just now.", "SHOULD"),
    records.CloseCode.REPLACED: ("The same client has begun another session.", "MUST NOT"),
    records.CloseCode.KICKED: ("The operator has put the client out.", "SHOULD NOT"),
    records.CloseCode.PROTOCOL: ("The other side broke a rule of this page; the reason says which.", "MAY, later"),
    records.CloseCode.FLOOD: ("Far more was published than is granted, for long.", "MAY, later"),
    records.CloseCode.IDLE: ("Nothing moved for too long.", "SHOULD"),
}


def close_codes_table() -> str:
    """Draw why sessions end."""
    rows = [(str(int(code)), code.name, *_CLOSE_MEANINGS[code]) for code in records.CloseCode]
    return table(("code", "name", "meaning", "dial again"), rows)


def codes_table(values: type[IntEnum], class_name: str, head: str, source: ModuleType) -> str:
    """Draw an enumeration with the docstrings of its values."""
    texts = documented(source, class_name)
    return table((head, "name", "meaning"), [(str(int(one)), one.name, cell(texts[one.name])) for one in values])


def words_table(values: type[entry.Access | entry.Lifetime | entry.Reason]) -> str:
    """Draw the words of an enumeration of strings."""
    texts = documented(entry, values.__name__)
    return table(("word", "meaning"), [(f"`{one.value}`", cell(texts[one.name])) for one in values])


# --- numbers ----------------------------------------------------------------------------------------------------


def _seconds(*values: float) -> str:
    return ", ".join(f"{value:,g}" for value in values) + " s"


def _bytes(value: int) -> str:
    return f"{value:,} bytes"


_LIMITS: Final = limits.Limits()
_NUMBERS: Final[Mapping[str, Mapping[str, str]]] = {
    "tls": {
        "TLS handshake, from its first byte": _seconds(_LIMITS.tls_timeout_s),
        "HELLO and AUTH, from the end of the handshake": _seconds(_LIMITS.hello_timeout_s),
        "silence of the server after which the client sends a PING": _seconds(pulse.SILENCE_S),
        "the same once the client has sent something": _seconds(pulse.UNANSWERED_S),
        "wait for anything after a PING, then dial another connection": _seconds(pulse.LATE_S),
        "the same, then give this one up": _seconds(pulse.PONG_S),
    },
    "records": {
        "payload of a record before AUTH.2": _bytes(records.EARLY_PAYLOAD_SIZE_MAX),
        "payload of a record after AUTH.2": _bytes(records.PAYLOAD_SIZE_MAX),
        "frames of one FRAMES record, unless they are one frame": _bytes(records.FRAMES_RECORD_SIZE_MAX),
        "frames of one FRAMES record, in number": f"{channel.RECORD_FRAMES_MAX:,}",
        "nesting of JSON": f"{payload.DEPTH_MAX}",
        "keys of one JSON object": f"{payload.KEYS_MAX}",
        "requests that wait for an answer": f"{_LIMITS.requests_max}",
        "rooms of one session": f"{_LIMITS.rooms_per_session_max}",
    },
    "datagram": {
        "largest datagram that is sent": _bytes(sealed.SEALED_SIZE_MAX),
        "largest datagram that is read": _bytes(sealed.SEALED_ACCEPTED_MAX),
        "frames of one datagram, in number": f"{frames.FRAMES_MAX}",
        "bytes of frames of one datagram": f"1 to {sealed.FRAMES_SIZE_MAX:,}",
        "replay window": f"{window.WINDOW:,} packet numbers",
        "packets of one epoch": f"2^{keys.EPOCH_BITS}",
        "packets between two skipped numbers": f"{seal.SKIP_MIN} to {seal.SKIP_MAX}",
        "largest packet number": "2^48 - 1",
    },
    "recovery": {
        "packets that elicit an ACK, until one is sent at once": f"{acks.ELICITING_MAX}",
        "the same on a calm path": f"{acks.CALM_ELICITING_MAX}",
        "packets in order after which a path is calm": f"{acks.CALM_AFTER}",
        "else an ACK is sent within": f"{recovery.ACK_DELAY_MAX_S * 1000:g} ms",
        "... and held back for": f"{acks.HOLD_S * 1000:g} ms",
        "packet threshold: lost once so many later ones were acknowledged": f"{recovery.PACKETS_LATER}",
        "time threshold: ... or one later one, and so many round trips have passed": f"{recovery.TIME_THRESHOLD:g}",
        "granularity": f"{recovery.GRANULARITY_S * 1000:g} ms",
        "probe timeout before anything was measured": _seconds(recovery.FIRST_TIMEOUT_S),
        "longest probe timeout": _seconds(recovery.TIMEOUT_MAX_S),
        "datagrams of one probe timeout": f"{recovery.PROBES}",
        "window at first": _bytes(recovery.FIRST_WINDOW),
        "least window": _bytes(recovery.LEAST_WINDOW),
        "pacing gain": f"{recovery.PACING_GAIN:g}",
        "burst": _bytes(recovery.BURST_SIZE),
    },
    "path": {
        "probes of a round, from its beginning": _seconds(*path.PROBES_S),
        "wait for an answer after the last probe": _seconds(path.PROBE_ANSWER_S),
        "between two rounds of a client whose path is DOWN": _seconds(path.PROBE_AGAIN_S),
        "probe timeouts in a row after which UP is SUSPECT": f"{lane.TIMEOUTS_MAX}",
        "between two probes of a path that is SUSPECT": _seconds(path.SUSPECT_PROBE_S),
        "longest time SUSPECT": _seconds(path.SUSPECT_MAX_S),
        "keepalive: a path that is UP is used at least every": _seconds(channel.KEEPALIVE_S),
        "addresses whose challenges wait for a RESPONSE": f"{channel.RESPONSES_MAX}",
        "candidate addresses at a time": f"{addresses.CANDIDATES_MAX}",
        "challenges of one candidate": f"{addresses.CHALLENGES_MAX}",
        "between two challenges of one candidate": _seconds(addresses.CHALLENGE_AFTER_S),
        "bytes to a candidate for each byte from it": f"{addresses.AMPLIFICATION}",
        "datagrams to a candidate": f"{addresses.UNPROVED_PACKETS_MAX}",
        "least time between two changes of address": _seconds(addresses.CHANGE_AFTER_S),
    },
    "delivery": {
        "body of one message": _bytes(frames.BODY_SIZE_MAX),
        "largest message id": "2^53 - 1",
        "messages of one member and room that are not settled": f"{publishing.UNSETTLED_MAX}",
        "bodies that a server holds to put them into order, per member and room": _bytes(publishing.HELD_BYTES_MAX),
        "answers that a server remembers, per member and room": f"{publishing.ANSWERS_KEPT}",
        "longest wait that a client grants one answer": _seconds(limits.ANSWER_WAIT_MAX_S),
        "silence after which a PUBLISH goes again": _seconds(publishing.SILENCE_S),
        "entries under way to a member, and credit at first": f"{receiving.ENTRIES_MAX}",
        "bodies under way to a member": _bytes(receiving.BYTES_MAX),
        "entries after which RECEIVED is sent at once": f"{receiving.TELL_AFTER}",
        "else RECEIVED is sent within": f"{receiving.TELL_AFTER_S * 1000:g} ms",
        "HEAD is sent, after the last entry": _seconds(modern_session.HEAD_AFTER_S),
        "messages at once; per second for long": f"{_LIMITS.burst_max}; {_LIMITS.rate_per_s:g}",
        "body bytes per second for long": f"{_LIMITS.bytes_per_s:,}",
    },
    "time": {
        "a member without a session stays in the room for": _seconds(_LIMITS.detached_timeout_s),
        "a host without a session stays the host for": _seconds(_LIMITS.host_grace_s),
        "a client without a session is known for": _seconds(_LIMITS.identity_timeout_s),
        "clients that are known": f"{_LIMITS.identities_max:,}",
        "entries of one HISTORY": "256",
        "members of one room": f"{_LIMITS.members_per_room_max:,}",
        "rooms of one server": f"{_LIMITS.rooms_max:,}",
    },
}


def numbers_table(name: str) -> str:
    """Draw numbers that the code defines, in words."""
    return table(("what", "how much"), _NUMBERS[name].items())


# --- vectors ----------------------------------------------------------------------------------------------------


def vectors_example() -> str:
    """Draw what ``sealed.json`` holds of one packet, and what leads to it."""
    vectors = json.loads(VECTORS.read_text(encoding="utf-8"))
    session, direction = vectors["session"], vectors["directions"]["c2s"]
    epoch, packet = direction["epochs"][0], direction["packets"][1]
    shown = {
        "HELLO.0": session["hello"],
        "HELLO.1": session["answer"],
        "server_key": session["server_key"],
        "th": session["th"],
        "prk": session["prk"],
        "s[c2s][0]": epoch["secret"],
        "key[0]": epoch["key"],
        "iv[0]": epoch["iv"],
        "number": packet["number"],
        "nonce": packet["nonce"],
        "header": packet["header"],
        "frames": packet["frames"],
        "datagram": packet["datagram"],
    }
    return fenced("text", _wrapped(shown))


def _wrapped(shown: Mapping[str, str]) -> Iterable[str]:
    for name, text in shown.items():
        for at in range(0, len(text), 64):
            yield f"{'' if at else name:<12}{text[at : at + 64]}"


# --- all --------------------------------------------------------------------------------------------------------


def _schema_name(schema: type[msgspec.Struct]) -> str:
    return f"schema-{schema.__name__.lower()}"


_SOURCES: Final[Sequence[tuple[str, type[IntEnum], str, ModuleType]]] = (
    ("publish-status", publishing.Status, "`status`", publishing),
    ("kinds", entry.Kind, "`kind`", entry),
)
DRAWINGS: Final[Mapping[str, Callable[[], str]]] = {
    "frames": frames_table,
    "operations": operations_table,
    **{_schema_name(schema): partial(schema_table, schema) for schema in _SCHEMAS},
    "close-codes": close_codes_table,
    **{name: partial(codes_table, values, values.__name__, head, source) for name, values, head, source in _SOURCES},
    "access": partial(words_table, entry.Access),
    "lifetime": partial(words_table, entry.Lifetime),
    "reasons": partial(words_table, entry.Reason),
    **{f"numbers-{name}": partial(numbers_table, name) for name in _NUMBERS},
    "vector": vectors_example,
}
