"""A payload is one small, strict JSON object of the right shape, or refused."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocm.errors import RemoteProtocolError
from ocm.protocol.wire.payload import (
    DEPTH_MAX,
    INTEGER_MAX,
    KEYS_MAX,
    RequestPayload,
    StatusPayload,
    read_object,
    write_object,
)

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
requests = st.builds(RequestPayload, words, st.none() | words, st.none() | words)
statuses = st.builds(
    StatusPayload,
    st.integers(-INTEGER_MAX, INTEGER_MAX),
    st.none() | words,
    st.none() | words,
    st.none() | st.lists(words, max_size=5),
    st.none() | st.integers(-INTEGER_MAX, INTEGER_MAX),
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
json_ish = st.text(st.sampled_from('{}[]",:\\u0089 dDEe+-.tfn\ufeffユ'), max_size=60)


@given(requests)
def test_a_request_that_we_write_we_read_back(said: RequestPayload) -> None:
    data = write_object(user=said.user, password=said.password, user_token=said.user_token)
    assert read_object(data, RequestPayload) == said


@given(statuses)
def test_a_status_that_we_write_we_read_back(said: StatusPayload) -> None:
    data = write_object(
        status_code=said.status_code,
        message=said.message,
        user_token=said.user_token,
        members=said.members,
        count=said.count,
    )
    assert read_object(data, StatusPayload) == said


@given(data=st.one_of(st.binary(max_size=60), json_ish.map(str.encode), json_values.map(json.dumps).map(str.encode)))
def test_any_bytes_are_a_payload_or_refused(data: bytes) -> None:
    for schema in (RequestPayload, StatusPayload):
        try:
            said = read_object(data, schema)
        except RemoteProtocolError:
            continue
        assert isinstance(said, schema)


@given(st.one_of(json_ish, st.text('[]{}"\\\n', max_size=60)))
def test_brackets_in_strings_do_not_nest(text: str) -> None:
    said = "JSON nests too deep" in refusal(text.encode())
    assert said == (depth_of(text) > DEPTH_MAX)


def refusal(data: bytes) -> str:
    try:
        read_object(data, RequestPayload)
    except RemoteProtocolError as error:
        return str(error)
    return ""


def depth_of(text: str) -> int:
    """Character by character."""
    depth = deepest = 0
    inside = skip = False
    for character in text:
        if skip:
            skip = False
        elif inside:
            skip = character == "\\"
            inside = character != '"'
        elif character == '"':
            inside = True
        else:
            depth += (character in "[{") - (character in "]}")
            deepest = max(deepest, depth)
    return deepest


@given(json_values)
def test_a_stranger_among_the_keys_is_passed_over_or_refused(value: object) -> None:
    data = json.dumps({"user": "alice", "stranger": value}).encode()
    with suppress(RemoteProtocolError):
        assert read_object(data, RequestPayload) == RequestPayload("alice")


def request_with(value: str) -> bytes:
    return b'{"user": "alice", "x": %s}' % value.encode()


def nested(depth: int, opening: str = "[", closing: str = "]") -> str:
    return opening * depth + closing * depth


def with_keys(count: int) -> bytes:
    return json.dumps({"user": "alice"} | {f"key{number}": 0 for number in range(count - 1)}).encode()


@pytest.mark.parametrize(
    "data",
    [
        request_with(nested(DEPTH_MAX - 1)),
        request_with('"' + nested(DEPTH_MAX + 1) + '"'),
        request_with('"\\"' + nested(DEPTH_MAX + 1) + '"'),
        request_with("[[]], " + ", ".join(f'"k{number}": [[]]' for number in range(9))),
        with_keys(KEYS_MAX),
        request_with(str(INTEGER_MAX)),
        request_with(str(-INTEGER_MAX)),
        request_with("1e308"),
        request_with("1e-999"),
        request_with("-0.0"),
        request_with('"\\ud83d\\ude00"'),
        b' \t\r\n{"user": "alice"} ',
        '{"user": "alice", "鍵": "値"}'.encode(),
        b'{"user": "alice", "password": null}',
        b'{"u\\u0073er": "alice"}',
    ],
)
def test_what_is_just_within_the_rules_is_read(data: bytes) -> None:
    assert read_object(data, RequestPayload) == RequestPayload("alice")


REFUSED = {
    "nothing": b"",
    "white space": b" ",
    "deep lists": request_with(nested(DEPTH_MAX)),
    "deep objects": b'{"user": "alice", "x":' * 5 + b"0" + b"}" * 5,
    "4096 brackets": b"[" * 4096,
    "4096 braces": b"{" * 4096,
    "brackets that pretend to be closed": b"]" * 2048 + b"[" * 2048,
    "many objects": b'{"":' * 1024,
    "too many keys": with_keys(KEYS_MAX + 1),
    "too many keys inside": request_with(json.dumps({str(number): 0 for number in range(KEYS_MAX + 1)})),
    "a key twice": b'{"user": "alice", "user": "bob"}',
    "a key twice, in escapes": b'{"user": "alice", "u\\u0073er": "bob"}',
    "a key twice inside": request_with('{"a": 1, "a": 1}'),
    "NaN": request_with("NaN"),
    "infinity": request_with("Infinity"),
    "minus infinity": request_with("-Infinity"),
    "integer over 2**53": request_with(str(INTEGER_MAX + 1)),
    "integer under -2**53": request_with(str(-INTEGER_MAX - 1)),
    "4000 digits": request_with("9" * 4000),
    "5000 digits": request_with("9" * 5000),
    "minus 4000 digits": request_with("-" + "9" * 4000),
    "1e999": request_with("1e999"),
    "-1e999": request_with("-1e999"),
    "half a surrogate pair": request_with('"\\ud800"'),
    "the other half": request_with('"\\udc00x"'),
    "half a surrogate pair as a key": b'{"user": "alice", "\\ud800": 0}',
    "half a surrogate pair as the user": b'{"user": "\\ud800"}',
    "surrogates in UTF-8": b'{"user": "\xed\xa0\x80"}',
    "not UTF-8": b'{"user": "\xff"}',
    "UTF-16": '{"user": "alice"}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"user": "alice"}',
    "something behind": b'{"user": "alice"}!',
    "NUL behind": b'{"user": "alice"}\0',
    "two objects": b'{"user": "alice"}{"user": "alice"}',
    "cut off": b'{"user": "alice"',
    "cut off in a string": b'{"user": "ali',
    "cut off in an escape": b'{"user": "ali\\',
    "control character": b'{"user": "ali\nce"}',
    "single quotes": b"{'user': 'alice'}",
    "trailing comma": b'{"user": "alice",}',
    "comment": b'{"user": "alice"} // hello',
    "leading zero": request_with("01"),
    "list": b'["alice"]',
    "string": b'"alice"',
    "number": b"200",
    "null": b"null",
    "true": b"true",
    "no user": b"{}",
    "user is null": b'{"user": null}',
    "user is a number": b'{"user": 1}',
    "user is a list": b'{"user": ["alice"]}',
    "user is an object": b'{"user": {"user": "alice"}}',
    "password is a number": b'{"user": "alice", "password": 1}',
    "token is true": b'{"user": "alice", "user_token": true}',
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_breaks_a_rule_is_refused(name: str) -> None:
    with pytest.raises(RemoteProtocolError):
        read_object(REFUSED[name], RequestPayload)


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b'{"status_code": null}',
        b'{"status_code": "200"}',
        b'{"status_code": 200.0}',
        b'{"status_code": true}',
        b'{"status_code": 200, "message": 1}',
        b'{"status_code": 200, "user_token": 1}',
        b'{"status_code": 200, "members": "alice"}',
        b'{"status_code": 200, "members": [1]}',
        b'{"status_code": 200, "members": {"alice": 1}}',
        b'{"status_code": 200, "count": "2"}',
        b'{"status_code": 200, "count": 2.5}',
    ],
)
def test_a_status_of_the_wrong_shape_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read_object(data, StatusPayload)


def test_objects_are_written_as_the_programs_of_the_assignment_write_them() -> None:
    assert write_object(status_code=404, user_token=None) == b'{"status_code": 404, "user_token": null}'
    assert write_object(user="部屋") == b'{"user": "\\u90e8\\u5c4b"}'


def test_a_payload_shows_no_password_and_no_token() -> None:
    request = RequestPayload("aiko", password="s3cret", user_token="s3cret")
    status = StatusPayload(200, user_token="s3cret")
    assert "s3cret" not in f"{request} {request!r} {status} {status!r}"
