"""JSON payloads of control packets: strict, typed, bounded (threat model, rule 6)."""

from __future__ import annotations

import json
import re
from typing import Any, Final, NoReturn, TypeVar

import msgspec

from ocm.errors import RemoteProtocolError

DEPTH_MAX: Final = 4
"""How deep objects and lists may nest."""
KEYS_MAX: Final = 16
"""Keys of one object."""
INTEGER_MAX: Final = 2**53
"""Integers reach no further: beyond it many readers round."""

_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
"""A JSON string, or what there is of one."""
_BRACKET: Final = re.compile(r"[\[\]{}]")
_T = TypeVar("_T")


class _Payload(msgspec.Struct, frozen=True):
    """May hold a password or a token, so it shows nothing of itself."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"


class RequestPayload(_Payload, frozen=True):
    """What a request of our own form says. Every field but ``user`` may be absent; unknown keys are ignored."""

    user: str
    password: str | None = None
    user_token: str | None = None


class StatusPayload(_Payload, frozen=True):
    """What a reply says, in our own form and in the reference form's second packet."""

    status_code: int
    message: str | None = None
    user_token: str | None = None
    members: list[str] | None = None
    count: int | None = None


def read_object(data: bytes, schema: type[_T]) -> _T:
    """Read one JSON object as ``schema``; the caller has bounded the size of ``data``.

    Raises ``RemoteProtocolError`` for anything but one UTF-8 JSON object that keeps every rule above, has no
    NaN, infinity, duplicate key or lone surrogate, and fits the schema.
    """
    try:
        text = data.decode()
        if _depth(text) > DEPTH_MAX:
            raise RemoteProtocolError("JSON nests too deep")
        loose: object = _DECODER.decode(text)
        text_again = _ENCODER.encode(loose)
        text_again.encode()  # finds the lone surrogates that escapes can make
        return msgspec.convert(loose, schema)
    except (ValueError, msgspec.ValidationError):
        raise RemoteProtocolError("payload is not the JSON object it should be") from None


def write_object(**items: object) -> bytes:
    """Write one JSON object as the assignment's programs do: ASCII, a space after comma and colon."""
    return json.dumps(items).encode()


def _depth(text: str) -> int:
    """Deepest nesting of brackets outside strings: one pass, before anything recursive sees the text."""
    depth = deepest = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        if bracket in "[{":
            depth += 1
            deepest = max(deepest, depth)
        else:
            depth -= 1
    return deepest


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    items = dict(pairs)
    if len(items) != len(pairs):
        raise RemoteProtocolError("JSON object repeats a key")
    if len(items) > KEYS_MAX:
        raise RemoteProtocolError("JSON object has too many keys")
    return items


def _integer(digits: str) -> int:
    if len(digits) > 17 or abs(number := int(digits)) > INTEGER_MAX:
        raise RemoteProtocolError("JSON integer is out of range")
    return number


def _float(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise RemoteProtocolError("JSON number is out of range")
    return number


def _refuse_constant(_: str) -> NoReturn:
    raise RemoteProtocolError("JSON has no NaN and no infinity")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_refuse_constant
)
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False)
