"""What only simulated TLS has: the same bytes each time, and no way into a real network."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from ocm.errors import LocalProtocolError, ServerUntrusted
from ocm.protocol.address import port_of
from ocm.transport.base import Authorities, Stream, StreamHandler, Unknown
from ocm.transport.sim_tls import SEED_SIZE, SimClientSecurity, SimServerSecurity
from ocm.transport.sockets import SocketNetwork
from tests.security import Below, Heard, assert_broken, assert_failed, joined, move, turns

SEED = bytes(range(SEED_SIZE))


async def transcript() -> bytes:
    """Return all that goes over the wire in a short talk."""
    server, client = Heard(), Heard()
    ours, theirs = joined("sim tls", server, client)
    said = bytearray()
    for step in range(4):
        said += ours.sent
        theirs.handler.data_received(ours.take())
        if step == 2:
            client.stream.write(b"question")
            server.stream.write(b"answer" * 10_000)
            client.stream.close()
        said += theirs.sent
        ours.handler.data_received(theirs.take())
    assert server.data == b"question"
    return bytes(said)


async def test_the_same_talk_is_the_same_byte_for_byte() -> None:
    first = await transcript()
    assert first == await transcript()
    assert hashlib.sha256(first).hexdigest() == "a442b5b9b833f50136009f35134081f7b48c93d02c2502d5e8c2f2d22e280596"


def test_the_key_comes_from_the_seed_and_is_a_real_one() -> None:
    keys = {SimServerSecurity(seed).key for seed in (SEED, SEED, bytes(32))}
    assert len(keys) == 2
    for key in keys:
        assert isinstance(load_der_public_key(key), Ed25519PublicKey)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_seed_has_32_bytes(size: int) -> None:
    with pytest.raises(LocalProtocolError, match="32 bytes"):
        SimServerSecurity(bytes(size))


async def test_a_stream_of_a_real_socket_is_refused() -> None:
    refused: list[LocalProtocolError] = []
    heard = Heard()

    def accept(stream: Stream) -> StreamHandler:
        with pytest.raises(LocalProtocolError, match="not for real networks") as by_server:
            SimServerSecurity(SEED).begin(stream, heard.accept, heard.fail)
        with pytest.raises(LocalProtocolError, match="not for real networks") as by_client:
            SimClientSecurity().begin(stream, Unknown(), heard.accept, heard.fail)
        refused.extend((by_server.value, by_client.value))
        stream.abort()
        return heard

    network = SocketNetwork()
    listener = await network.listen("127.0.0.1", 0, accept, write_buffer_max=100)
    await network.connect("127.0.0.1", port_of(listener.local), accept, write_buffer_max=100)
    listener.close()
    await turns()
    assert len(refused) >= 2
    assert "secure" not in heard.events


@pytest.mark.parametrize("protocol", [b"", b"tcrp/1", b"tcrp/22"])
async def test_a_client_of_another_protocol_is_refused(protocol: bytes) -> None:
    heard, below = Heard(), Below()
    handler = SimServerSecurity(SEED).begin(below, heard.accept, heard.fail)
    handler.data_received(record(22, b"\x01" + protocol))
    await turns()
    assert str(assert_failed(heard)) == "the other side does not speak tcrp/2"
    assert not below.sent


@pytest.mark.parametrize("protocol", [b"", b"tcrp/1", b"tcrp/22"])
async def test_a_server_of_another_protocol_is_refused(protocol: bytes) -> None:
    heard, below = Heard(), Below()
    handler = SimClientSecurity().begin(below, Unknown(), heard.accept, heard.fail)
    below.take()
    handler.data_received(record(22, b"\x02\x00\x03key" + protocol))
    await turns()
    failure = assert_failed(heard)
    assert not isinstance(failure, ServerUntrusted)
    assert not below.sent


async def test_nobody_vouches_for_a_server_unless_told_to() -> None:
    for server, trusted in (
        (SimServerSecurity(SEED), False),
        (SimServerSecurity(SEED, vouched_for=["Chat.Example"]), True),
    ):
        ours, theirs, heard, client = Below(), Below(), Heard(), Heard()
        theirs.handler = server.begin(theirs, heard.accept, heard.fail)
        ours.handler = SimClientSecurity().begin(ours, Authorities("chat.example"), client.accept, client.fail)
        move(ours, theirs)
        await turns()
        assert ("secure" in client.events) == trusted


@pytest.mark.parametrize(
    "said",
    [
        b"\x17\x03\x01\x40\x01",  # more than a record may have, refused on the promise
        b"\x17\x03\x03\x00\x01x",
        b"\x17\x03\x01\x00\x00",
        b"\x15\x03\x01\x00\x01x",
        b"\x16\x03\x01\x00\x01\x14",
        b"\x63\x03\x01\x00\x00",
    ],
)
async def test_records_that_have_no_place_break_the_stream(said: bytes) -> None:
    server, client = Heard(), Heard()
    ours, theirs = joined("sim tls", server, client)
    move(ours, theirs)
    theirs.handler.data_received(said)
    assert theirs.ended == "aborted"
    theirs.handler.connection_lost(None)
    assert_broken(server)


def record(kind: int, content: bytes) -> bytes:
    return bytes((kind, 3, 1)) + len(content).to_bytes(2, "big") + content
