"""What a connection speaks, by its first bytes: never the wrong thing, and as soon as it can be said."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from ocm.protocol.limits import Limits
from ocm.protocol.sniff import DECIDED, Profile, sniff
from ocm.protocol.wire.classic import Header, Operation, Stage
from ocm.protocol.wire.size import Spelling
from tests.vectors.classic import REFUSALS, SEATS

headers = st.builds(
    Header,
    st.integers(0, 255) | st.just(0x16),
    st.sampled_from(Operation) | st.just(3),
    st.sampled_from(Stage),
    st.integers(0, Limits().payload_size_max),
    st.sampled_from(Spelling),
)


def client_hello(version: int, size: int, body: bytes) -> bytes:
    """Return a record of type handshake with a ClientHello in it (RFC 8446 sections 4 and 5.1)."""
    return b"\x16\x03" + bytes([version]) + size.to_bytes(2, "big") + b"\x01" + body


hellos = st.builds(client_hello, st.integers(0, 4), st.integers(1, 2**14), st.binary(max_size=80))


@given(headers)
@example(Header(0x16, 3, 0, 0))
@example(Header(0x16, 3, 1, 1))
def test_a_classic_header_is_never_taken_for_tls(header: Header) -> None:
    assert sniff(header.encode()) is Profile.CLASSIC


def test_what_classic_programs_say_is_classic() -> None:
    for exchange in (*SEATS.values(), *REFUSALS.values()):
        assert sniff(exchange.request) is Profile.CLASSIC


@given(hellos)
def test_a_client_hello_is_always_tls(hello: bytes) -> None:
    assert sniff(hello) is Profile.TLS


@given(hellos | st.binary(max_size=2 * DECIDED))
def test_more_bytes_never_change_what_was_said(data: bytes) -> None:
    said = [sniff(data[:end]) for end in range(len(data) + 1)]
    decided = [one for one in said if one is not None]
    assert said == [None] * (len(said) - len(decided)) + decided
    assert len(set(decided)) <= 1
    assert (said[-1] is None) <= (len(data) < DECIDED)


@given(st.integers(0, DECIDED - 1), hellos)
def test_the_beginning_of_tls_says_nothing_yet(end: int, hello: bytes) -> None:
    assert sniff(hello[:end]) is None


def test_tls_records_that_begin_no_handshake_are_not_tls() -> None:
    assert sniff(b"\x16\x03\x01\x00\x00\x01") is Profile.CLASSIC, "an empty record"
    assert sniff(b"\x16\x03\x01\x00\x05\x02") is Profile.CLASSIC, "a ServerHello"
    assert sniff(b"\x15\x03\x01\x00\x02\x01") is Profile.CLASSIC, "an alert"
    assert sniff(b"GET / HTTP/1.1") is Profile.CLASSIC
