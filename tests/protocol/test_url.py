"""Server addresses as people pass them around: read in many spellings, written in one."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocm.errors import LocalProtocolError
from ocm.protocol.control.packets import Form
from ocm.protocol.text import safe_text
from ocm.protocol.url import TCP_PORT, UDP_PORT, ServerUrl, parse_url

ports = st.integers(0, 65535)
hosts = st.one_of(
    st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z0-9]{1,10}){0,3}", fullmatch=True),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
)
rooms = st.none() | st.text(min_size=1)
classic_urls = st.builds(ServerUrl, host=hosts, tcp_port=ports, udp_port=ports, room=rooms, form=st.sampled_from(Form))
pins = st.none() | st.binary(min_size=32, max_size=32).map(bytes.hex)


def modern_url(host: str, port: int, room: str | None, pin: str | None) -> ServerUrl:
    return ServerUrl(host, port, UDP_PORT if port else 0, room, secure=True, fingerprint=pin)


modern_urls = st.builds(modern_url, hosts, ports, rooms, pins)
urls = classic_urls | modern_urls
PIECES = [
    "tcrp",
    "tcrps",
    "://",
    "/",
    "?",
    "#",
    "@",
    ":",
    "[",
    "]",
    "%",
    "&",
    "=",
    "udp=",
    "form=",
    "fp=",
    "ab" * 32,
    "plain",
    "9001",
]
urlish = st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=12).map("".join)


@given(urls)
def test_what_is_written_is_read_back(url: ServerUrl) -> None:
    assert parse_url(str(url)) == url


@given(st.text() | urlish | urlish.map("tcrp://h".__add__))
def test_any_text_is_refused_or_has_one_spelling(text: str) -> None:
    try:
        url = parse_url(text)
    except LocalProtocolError:
        return
    assert parse_url(str(url)) == url
    assert str(parse_url(str(url))) == str(url)


@given(urls)
def test_an_address_survives_being_pasted(url: ServerUrl) -> None:
    assert parse_url(f" \t{url}\n") == url
    assert parse_url(str(url).replace("tcrp", "TCRP", 1)) == url
    assert not url.secure or "://" in (bare := str(url).removeprefix("tcrps://")) or parse_url(bare) == url


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("localhost", ServerUrl("localhost", secure=True)),
        ("tcrp://LocalHost/", ServerUrl("localhost")),
        ("192.168.1.5:4000", ServerUrl("192.168.1.5", 4000, secure=True)),
        ("tcrps://h:1/r", ServerUrl("h", 1, room="r", secure=True)),
        ("tcrps://h#fp=" + "AB" * 32, ServerUrl("h", secure=True, fingerprint="ab" * 32)),
        ("tcrps://h:0", ServerUrl("h", 0, 0, secure=True)),
        ("tcrp://[::1]", ServerUrl("::1")),
        ("[fe80::1%2]:5000", ServerUrl("fe80::1%2", 5000, secure=True)),
        ("tcrp://h/lobby", ServerUrl("h", room="lobby")),
        ("tcrp://h/a%2Fb%20c", ServerUrl("h", room="a/b c")),
        ("tcrp://h/部屋", ServerUrl("h", room="部屋")),
        ("tcrp://h/a/b", ServerUrl("h", room="a/b")),
        ("tcrp://h?udp=5", ServerUrl("h", udp_port=5)),
        ("tcrp://h?udp=5&udp=6", ServerUrl("h", udp_port=6)),
        ("tcrp://h:1/r?form=plain&udp=2", ServerUrl("h", 1, 2, "r", Form.PLAIN)),
        ("tcrp://h?form=reference", ServerUrl("h", form=Form.REFERENCE)),
        ("tcrp://h?form=ocm", ServerUrl("h")),
    ],
)
def test_what_is_left_out_has_a_default(text: str, url: ServerUrl) -> None:
    assert parse_url(text) == url
    assert (url.tcp_port or TCP_PORT, url.udp_port or UDP_PORT) != (0, 0)


def test_a_server_on_a_free_port_takes_both_unless_told() -> None:
    assert parse_url("tcrp://[::]:0") == ServerUrl("::", 0, 0)
    assert parse_url("tcrp://[::]:0?udp=9001") == ServerUrl("::", 0, 9001)
    assert parse_url("tcrp://[::]:7?udp=0") == ServerUrl("::", 7, 0)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "names a host"),
        ("tcrp://", "names a host"),
        ("tcrp:///room", "names a host"),
        (":12345", "names a host"),
        ("http://h", "begins with tcrp"),
        ("://h", "begins with tcrp"),
        ("tcrps://h#fp=ab", "64 hex digits"),
        ("tcrps://h#fp=" + "0" * 65, "64 hex digits"),
        ("tcrps://h#pin=" + "0" * 64, "64 hex digits"),
        ("tcrps://h?udp=9001", "belongs to tcrp://"),
        ("h?udp=9001", "belongs to tcrp://"),
        ("tcrp://aiko@h", "no user"),
        ("tcrp://aiko:secret@h", "no user"),
        ("tcrp://@h", "no user"),
        ("tcrp://h#fp=ab", "nothing to pin"),
        ("tcrp://h?x=1", "knows"),
        ("tcrp://h?udp=1&udp2=2", "knows"),
        ("tcrp://h?=", "knows"),
        ("tcrp://h:65536", "not a server address"),
        ("tcrp://h:x", "not a server address"),
        ("tcrp://h:-1", "not a server address"),
        ("tcrp://h:" + "9" * 5000, "not a server address"),
        ("tcrp://[::1", "not a server address"),
        ("tcrp://a:b:c", "not a server address"),
        ("tcrp://h\u2100k", "not a server address"),
        ("tcrp://h?udp=", "a port is"),
        ("tcrp://h?udp=65536", "a port is"),
        ("tcrp://h?udp=-1", "a port is"),
        ("tcrp://h?udp=+5", "a port is"),
        ("tcrp://h?udp=000009", "a port is"),
        ("tcrp://h?udp=５", "a port is"),
        ("tcrp://h?form=", "form is one of"),
        ("tcrp://h?form=PLAIN", "form is one of"),
        ("tcrp://h/\ud800", "Unicode text"),
        ("tcrp://h/caf%e9", "UTF-8"),
        ("tc\nrp://h", "no control characters"),
        ("\0tcrp://h", "no control characters"),
        ("tcrps://h\t.example", "no control characters"),
        ("tcrps://h/\x7f", "no control characters"),
    ],
)
def test_what_is_no_address_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(LocalProtocolError) as refusal:
        parse_url(text)
    assert why in str(refusal.value)


@given(st.text(min_size=1))
def test_every_room_has_an_address(room: str) -> None:
    assert parse_url(f"tcrp://h/{quote(room, safe='')}").room == room


@pytest.mark.parametrize("text", ["tcrp://\x1bc\u202eh\u2100k", "tcrp://h:\x1bc", "\x1bc://h", "tcrp://h?form=\x1bc"])
def test_an_error_shows_nothing_that_acts_on_a_screen(text: str) -> None:
    with pytest.raises(LocalProtocolError) as refusal:
        parse_url(text)
    assert safe_text(str(refusal.value)) == str(refusal.value)


def test_an_error_repeats_no_password() -> None:
    with pytest.raises(LocalProtocolError) as refusal:
        parse_url("tcrp://aiko:s3cret@h")
    assert "s3cret" not in str(refusal.value)
