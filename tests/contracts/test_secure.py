"""The contract of security over any stream: TLS, and what stands for it in a simulation.

``test_stream.py`` has what secure streams promise as streams.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocm.errors import LocalProtocolError, ServerUntrusted, TransportClosed
from ocm.protocol.address import port_of
from ocm.transport.base import (
    Authorities,
    ClientSecurity,
    Pinned,
    ServerSecurity,
    Stream,
    StreamHandler,
    Trust,
    Unknown,
)
from ocm.transport.certificate import fingerprint
from ocm.transport.handshake import Handshake
from ocm.transport.memory import MemoryNetwork
from ocm.transport.secure import SecureEnd
from ocm.transport.sim_tls import SimClientSecurity, SimServerSecurity, _SimChannel
from ocm.transport.tls import TlsClient, TlsServer, _TlsChannel
from tests.security import (
    Authority,
    Below,
    Heard,
    assert_broken,
    assert_failed,
    joined,
    make_client,
    make_server,
    move,
    turns,
)

HOST = "chat.example"
KINDS = ("tls", "sim tls")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Pair:
    """A server and a client, with streams of a memory network below them."""

    def __init__(self, server: ServerSecurity, client: ClientSecurity, *, trust: Trust | None = None) -> None:
        self.server, self.client = Heard(), Heard()
        self.server_below: Stream
        self.client_below: Stream
        self._server = server
        self._client = client
        self._trust = trust or Pinned(fingerprint(server.key))
        self._network = MemoryNetwork()

    async def connect(self) -> None:
        listener = await self._network.listen(None, 0, self._accept, write_buffer_max=65_536)
        await self._network.connect("localhost", port_of(listener.local), self._begin, write_buffer_max=65_536)

    async def shake(self) -> None:
        """Connect, and let everything happen that will."""
        await self.connect()
        await turns()

    def _accept(self, stream: Stream) -> StreamHandler:
        self.server_below = stream
        return self._server.begin(stream, self.server.accept, self.server.fail)

    def _begin(self, stream: Stream) -> StreamHandler:
        self.client_below = stream
        return self._client.begin(stream, self._trust, self.client.accept, self.client.fail)

    def ends(self) -> Iterator[tuple[Heard, Stream, Heard, Stream]]:
        """Yield both ends, each with the other behind it."""
        yield self.server, self.server_below, self.client, self.client_below
        yield self.client, self.client_below, self.server, self.server_below


async def make_pair(kind: str) -> Pair:
    pair = Pair(make_server(kind), make_client(kind))
    await pair.shake()
    return pair


# --- the handshake ----------------------------------------------------------------------------------------------


async def test_both_ends_hear_once_that_the_stream_is_secure_and_know_the_servers_key(kind: str) -> None:
    pair = await make_pair(kind)
    assert pair.server.events == pair.client.events == ["secure"]
    assert pair.server.stream.server_key == pair.client.stream.server_key == make_server(kind).key


async def test_the_key_of_a_server_is_the_same_each_time(kind: str) -> None:
    assert make_server(kind).key == make_server(kind).key


async def test_data_come_after_the_stream_is_secure(kind: str) -> None:
    pair = Pair(make_server(kind), make_client(kind))
    for heard in (pair.server, pair.client):
        heard.on_secure = lambda stream: stream.write(b"welcome")
    await pair.shake()
    for heard in (pair.server, pair.client):
        assert heard.events == ["secure", "data"]
        assert heard.data == b"welcome"


async def test_a_stream_takes_one_round_trip_to_become_secure(kind: str) -> None:
    server, client = Heard(), Heard()
    ours, theirs = joined(kind, server, client)
    theirs.handler.data_received(ours.take())
    assert server.events == client.events == []
    ours.handler.data_received(theirs.take())
    assert client.events == ["secure"]
    client.stream.write(b"at once")
    theirs.handler.data_received(ours.take())
    assert server.events == ["secure", "data"]


async def test_the_first_bytes_of_a_client_are_those_of_a_client_hello(kind: str) -> None:
    ours, _ = joined(kind, Heard(), Heard())
    hello = ours.take()
    assert hello[:2] == b"\x16\x03"
    assert int.from_bytes(hello[3:5], "big") == len(hello) - 5 > 0
    assert hello[5] == 1


# --- trust ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trust", [Pinned("0" * 64), Unknown(), Authorities("localhost")], ids=repr)
async def test_a_server_that_is_not_trusted_hears_nothing_and_its_fingerprint_is_told(kind: str, trust: Trust) -> None:
    pair = Pair(make_server(kind), make_client(kind), trust=trust)
    await pair.shake()
    failure = assert_failed(pair.client)
    assert isinstance(failure, ServerUntrusted)
    assert failure.fingerprint == fingerprint(make_server(kind).key)
    assert not isinstance(assert_failed(pair.server), ServerUntrusted)


async def test_a_key_learned_from_a_refusal_can_be_pinned(kind: str) -> None:
    server = make_server(kind)
    first = Pair(server, make_client(kind), trust=Unknown())
    await first.shake()
    learned = assert_failed(first.client)
    assert isinstance(learned, ServerUntrusted)
    second = Pair(server, make_client(kind), trust=Pinned(learned.fingerprint))
    await second.shake()
    assert second.client.events == ["secure"]


def vouched_for(kind: str, folder: Path) -> tuple[ServerSecurity, ClientSecurity]:
    if kind == "sim tls":
        return SimServerSecurity(bytes(32), vouched_for=["other.example", HOST]), SimClientSecurity()
    authority = Authority()
    server = TlsServer(authority.vouch_for("other.example", HOST))
    return server, TlsClient(authorities=authority.keep(folder / "authority.crt"))


@pytest.mark.parametrize("host", [HOST, "other.example", "CHAT.example"])
async def test_a_server_is_trusted_when_an_authority_vouches_for_its_name(kind: str, host: str, tmp_path: Path) -> None:
    pair = Pair(*vouched_for(kind, tmp_path), trust=Authorities(host))
    await pair.shake()
    assert pair.server.events == pair.client.events == ["secure"]
    assert pair.server.stream.server_key == pair.client.stream.server_key


@pytest.mark.parametrize("host", ["chat.example.org", "example", "192.0.2.1", "日本.example"])
async def test_a_server_is_not_trusted_under_another_name(kind: str, host: str, tmp_path: Path) -> None:
    server, client = vouched_for(kind, tmp_path)
    pair = Pair(server, client, trust=Authorities(host))
    await pair.shake()
    failure = assert_failed(pair.client)
    assert isinstance(failure, ServerUntrusted)
    assert failure.fingerprint == fingerprint(server.key)
    assert_failed(pair.server)


async def test_a_pin_asks_no_authority(kind: str, tmp_path: Path) -> None:
    server, client = vouched_for(kind, tmp_path)
    pair = Pair(server, client, trust=Pinned(fingerprint(server.key)))
    await pair.shake()
    assert pair.client.events == ["secure"]


@pytest.mark.parametrize("text", ["", "0" * 63, "A" * 64, "0" * 64 + "\n", "g" * 64])
def test_what_cannot_be_a_fingerprint_cannot_be_pinned(text: str) -> None:
    with pytest.raises(LocalProtocolError):
        Pinned(text)


@pytest.mark.parametrize("host", ["", ".example", "a..example", "a" * 64 + ".example", "a\0b"])
def test_what_cannot_be_a_host_has_no_authority(host: str) -> None:
    with pytest.raises(LocalProtocolError):
        Authorities(host)


# --- handshakes that fail ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["abort", "close"])
@pytest.mark.parametrize("who", ["server", "client"])
@pytest.mark.parametrize("turn", range(5))
async def test_a_stream_lost_in_the_handshake_has_failed(kind: str, how: str, who: str, turn: int) -> None:
    pair = Pair(make_server(kind), make_client(kind))
    await pair.connect()
    await turns(turn)
    below = pair.server_below if who == "server" else pair.client_below
    getattr(below, how)()
    await turns()
    for heard in (pair.server, pair.client):
        if "secure" in heard.events:
            assert_broken(heard)
        else:
            assert_failed(heard)


async def test_a_caller_gives_up_by_closing_the_stream_below(kind: str) -> None:
    pair = Pair(make_server(kind), make_client(kind))
    await pair.connect()
    pair.server_below.pause_reading()
    await turns()
    assert pair.client.events == []
    pair.client_below.abort()
    assert pair.client.events == []
    await turns()
    assert_failed(pair.client)


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", bytes(100), b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"])
async def test_a_peer_that_speaks_something_else_fails_and_its_stream_is_closed(kind: str, said: bytes) -> None:
    for server_side in (True, False):
        heard, below = Heard(), Below()
        if server_side:
            handler = make_server(kind).begin(below, heard.accept, heard.fail)
        else:
            handler = make_client(kind).begin(below, Unknown(), heard.accept, heard.fail)
        handler.data_received(said)
        assert heard.events == []  # not inside the call
        handler.data_received(said)
        handler.eof_received()
        handler.connection_lost(None)
        await turns()
        assert_failed(heard)
        assert below.ended == "closed"


async def test_a_stream_that_ends_before_its_first_byte_has_failed(kind: str) -> None:
    heard, below = Heard(), Below()
    handler = make_server(kind).begin(below, heard.accept, heard.fail)
    handler.eof_received()
    await turns()
    assert_failed(heard)
    assert below.ended == "closed"
    assert below.sent == b""


async def test_before_its_first_byte_a_server_makes_nothing(kind: str) -> None:
    heard, below = Heard(), Below()
    handler = make_server(kind).begin(below, heard.accept, heard.fail)
    assert isinstance(handler, Handshake)
    assert handler._channel is None
    handler.data_received(b"\x16")
    assert handler._channel is not None


async def test_no_more_than_one_end_hears_an_accept_that_raises(kind: str) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError

    pair = Pair(make_server(kind), make_client(kind))
    pair.server.on_secure = refuse
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    await pair.shake()
    assert [type(error) for error in told] == [RuntimeError]
    assert pair.server.events == []
    assert_broken(pair.client)


# --- the end ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "write_eof"])
async def test_a_stream_that_ends_without_saying_so_is_broken_behind_what_came_before(kind: str, how: str) -> None:
    for end in range(2):
        pair = await make_pair(kind)
        heard, _, other, other_below = list(pair.ends())[end]
        other.stream.write(b"almost everything")
        getattr(other_below, how)()
        await turns()
        assert heard.data == b"almost everything"
        assert heard.events[:2] == ["secure", "data"]
        assert_broken(heard)


async def test_ending_while_much_waits_to_be_read_loses_nothing(kind: str) -> None:
    server, client = Heard(), Heard()
    ours, theirs = joined(kind, server, client)
    move(ours, theirs)
    server.on_data = server.stream.pause_reading
    words = [b"word %d" % number for number in range(10)]
    for word in words:
        client.stream.write(word)
    theirs.handler.data_received(ours.take())
    assert server.data == words[0]
    server.stream.write_eof()
    server.on_data = lambda: None
    server.stream.resume_reading()
    client.stream.write_eof()
    await turns(2)
    move(ours, theirs)
    assert server.data == b"".join(words)
    assert server.events == ["secure", "data", "eof"]
    assert client.events == ["secure", "eof"]


async def test_a_stream_cut_in_the_middle_of_a_word_is_broken(kind: str) -> None:
    server, client = Heard(), Heard()
    ours, theirs = joined(kind, server, client)
    move(ours, theirs)
    client.stream.write(b"word")
    client.stream.write_eof()
    theirs.handler.data_received(ours.take(len(ours.sent) - 1))
    theirs.handler.eof_received()
    assert theirs.ended == "aborted"
    theirs.handler.connection_lost(None)
    assert server.data == b"word"
    assert_broken(server)


async def test_a_peers_end_waits_for_the_reader_and_so_does_the_lack_of_one(kind: str) -> None:
    for says_so in (True, False):
        server, client = Heard(), Heard()
        ours, theirs = joined(kind, server, client)
        move(ours, theirs)
        server.on_data = server.stream.pause_reading
        client.stream.write(b"one")
        client.stream.write(b"two")
        if says_so:
            client.stream.write_eof()
        theirs.handler.data_received(ours.take())
        theirs.handler.eof_received()
        await turns()
        assert (server.data, server.events[1:]) == (b"one", ["data"])
        server.stream.resume_reading()
        await turns()
        assert (server.data, server.events[1:]) == (b"onetwo", ["data"])
        server.stream.resume_reading()
        await turns()
        assert server.events[1:] == (["data", "eof"] if says_so else ["data"])
        assert theirs.ended == ("" if says_so else "aborted")


async def test_what_comes_behind_the_peers_end_is_dropped(kind: str) -> None:
    pair = await make_pair(kind)
    pair.client.stream.write_eof()
    pair.client_below.write(b"and another thing")
    await turns()
    assert pair.server.events == ["secure", "eof"]
    pair.server.stream.write(b"answer")
    await turns()
    assert pair.client.data == b"answer"
    pair.server.stream.close()
    await turns()
    pair.client.stream.close()
    await turns()
    assert pair.server.events == ["secure", "eof", None]
    assert pair.client.events == ["secure", "data", "eof", None]


async def test_what_comes_behind_the_peers_end_is_not_kept(kind: str) -> None:
    server, client = Heard(), Heard()
    ours, theirs = joined(kind, server, client)
    move(ours, theirs)
    client.stream.write_eof()
    move(ours, theirs)
    for _ in range(100):
        theirs.handler.data_received(bytes(1000))
    assert server.events == ["secure", "eof"]
    assert isinstance(server.stream, SecureEnd)
    channel = server.stream._channel
    assert isinstance(channel, _TlsChannel | _SimChannel)
    assert not channel._fed


async def test_bytes_that_the_peer_did_not_write_break_the_stream(kind: str) -> None:
    for end in range(2):
        pair = await make_pair(kind)
        heard, _, other, other_below = list(pair.ends())[end]
        other.stream.write(b"fine")
        other_below.write(b"\x17\x03\x04\x00\x20" + bytes(32))
        other.stream.write(b"never heard")
        await turns()
        assert heard.data == b"fine"
        assert_broken(heard)
        assert isinstance(other.events[-1], TransportClosed)


async def test_a_stream_lost_below_is_lost_with_the_error_of_below(kind: str) -> None:
    for end in range(2):
        pair = await make_pair(kind)
        heard, _, _, other_below = list(pair.ends())[end]
        other_below.abort()
        await turns()
        assert heard.events[0] == "secure"
        assert "reset by peer" in str(heard.events[-1])
        assert_broken(heard)


async def test_closing_with_much_to_write_sends_all_of_it_and_says_so(kind: str) -> None:
    pair = await make_pair(kind)
    much = bytes(range(256)) * 1000
    pair.client.stream.write(much)
    pair.client.stream.close()
    await turns()
    assert pair.server.data == much
    assert pair.server.events == ["secure", "data", "eof"]
    assert pair.client.events == ["secure", None]


async def test_closing_while_the_peer_writes_is_no_error_to_us(kind: str) -> None:
    pair = await make_pair(kind)
    pair.server.stream.write(bytes(50_000))
    pair.client.stream.close()
    await turns()
    assert pair.client.events == ["secure", None]
    assert pair.server.events == ["secure", "eof"]


# --- back-pressure ----------------------------------------------------------------------------------------------


async def test_who_reads_nothing_takes_nothing_from_below(kind: str) -> None:
    server, client = Heard(), Heard()
    ours, theirs = joined(kind, server, client)
    move(ours, theirs)
    server.on_data = server.stream.pause_reading
    for _ in range(100):
        client.stream.write(b"x")
    theirs.handler.data_received(ours.take())
    for heard in range(1, 100):
        assert len(server.data) == heard
        assert not theirs.reading
        server.stream.resume_reading()
        assert len(server.data) == heard  # not inside the call
        assert not theirs.reading  # what is here goes first
        await turns(2)
    server.on_data = lambda: None
    server.stream.resume_reading()
    await turns(2)
    assert theirs.reading


async def test_a_line_that_is_full_since_the_handshake_is_told_in_the_next_turn(kind: str) -> None:
    server, client = Heard(), Heard()
    ours, theirs = joined(kind, server, client)
    ours.handler.pause_writing()
    move(ours, theirs)
    assert client.events == ["secure"]
    await turns()
    assert client.events == ["secure", "pause"]
    ours.handler.resume_writing()
    assert client.events == ["secure", "pause", "resume"]


async def test_a_line_that_was_full_only_in_the_handshake_is_not_told(kind: str) -> None:
    for resumed_late in (True, False):
        server, client = Heard(), Heard()
        ours, theirs = joined(kind, server, client)
        ours.handler.pause_writing()
        if resumed_late:
            move(ours, theirs)
            ours.handler.resume_writing()
        else:
            ours.handler.resume_writing()
            move(ours, theirs)
        await turns()
        assert client.events == ["secure"]


# --- any bytes --------------------------------------------------------------------------------------------------


cuts = st.lists(st.integers(1, 700), min_size=1, max_size=20)


def endless(sizes: list[int]) -> Iterator[int]:
    while True:
        yield from sizes


@pytest.mark.parametrize("kind", KINDS)
@given(cut=cuts, said=st.lists(st.binary(max_size=600), max_size=6), early_end=st.booleans())
def test_any_cut_of_the_bytes_gives_the_same_events(
    kind: str, cut: list[int], said: list[bytes], early_end: bool
) -> None:
    async def talk() -> None:
        server, client = Heard(), Heard()
        ours, theirs = joined(kind, server, client)
        sizes = endless(cut)
        move(ours, theirs, sizes)
        for data in said:
            client.stream.write(data)
            server.stream.write(data * 40)
        if early_end and theirs.sent:  # in the middle of what comes
            ours.handler.data_received(theirs.take(next(sizes)))
        client.stream.write_eof()
        move(ours, theirs, sizes)
        server.stream.close()
        move(ours, theirs, sizes)
        client.stream.close()
        for below in (ours, theirs):
            below.handler.connection_lost(None)
        await turns(1)
        told = ["data"] if b"".join(said) else []
        assert server.events == ["secure", *told, "eof", None]
        assert client.events == ["secure", *told, "eof", None]
        assert server.data == b"".join(said)
        assert client.data == b"".join(data * 40 for data in said)

    asyncio.run(talk())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["server", "client"])
@given(data=st.binary(max_size=300), begins_well=st.integers(0, 600), cut=cuts)
def test_any_bytes_fail_or_wait_and_never_raise(
    kind: str, side: str, data: bytes, begins_well: int, cut: list[int]
) -> None:
    async def hear() -> None:
        server, client = Heard(), Heard()
        ours, theirs = joined(kind, server, client)
        hello = ours.take()
        heard, below, good = server, theirs, hello
        if side == "client":
            theirs.handler.data_received(hello)
            heard, below, good = client, ours, theirs.take()
        told = good[: min(begins_well, len(good) - 1)] + data
        for size in endless(cut):
            if not told:
                break
            below.handler.data_received(told[:size])
            told = told[size:]
        below.handler.eof_received()
        below.handler.connection_lost(None)
        await turns(1)
        if heard.events[:1] == ["secure"]:  # by chance the rest of what the peer had said
            assert_broken(heard)
        else:
            assert_failed(heard)

    asyncio.run(hear())


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.binary(min_size=1, max_size=300), cut=cuts, flips=st.booleans(), at=st.integers(0, 10_000))
def test_any_bytes_after_the_handshake_break_the_stream_or_wait(
    kind: str, data: bytes, cut: list[int], flips: bool, at: int
) -> None:
    async def hear() -> None:
        server, client = Heard(), Heard()
        ours, theirs = joined(kind, server, client)
        move(ours, theirs)
        client.stream.write(b"one")
        client.stream.write(b"two")
        told = bytearray(ours.take())
        if flips and kind == "tls":
            told[at % len(told)] ^= 1 << at % 8
        told += data
        for size in endless(cut):
            if not told:
                break
            theirs.handler.data_received(bytes(told[:size]))
            del told[:size]
        theirs.handler.eof_received()
        theirs.handler.connection_lost(None)
        if "eof" in server.events:  # which only simulated TLS lets anybody say
            assert kind == "sim tls"
        else:
            assert_broken(server)
        assert kind == "sim tls" or b"onetwo".startswith(server.data)

    asyncio.run(hear())
