"""Arbitrary bytes on both sockets: the server goes on, and nobody unproved is ever sent a datagram."""

from __future__ import annotations

import asyncio
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.peers import CREATE, JOIN, LEAVE, MEMBERS, datagram, packet, request, serving
from tests.virtual import quiet, virtual

TOKEN: Final = bytes(31) + b"\x01"
HEX: Final = TOKEN.hex().encode()

rooms = st.sampled_from([b"r", b"", b"\xff", "部屋".encode(), b"r" * 255])
users = st.sampled_from([b"alice", b"bob", b"", b"\xff", b"x" * 300, b'{"user": "bob"}', b'{"user": ', b"{" * 30])
packets = st.builds(
    packet,
    st.sampled_from([CREATE, JOIN, LEAVE, MEMBERS, 0, 9, 255]),
    st.sampled_from([0, 1, 2, 255]),
    rooms,
    users | st.binary(max_size=60),
)
with_token = st.sampled_from(
    [request("ocm", operation, "r", "alice", user_token=HEX.decode()) for operation in (JOIN, LEAVE, MEMBERS)]
)
streams = st.lists(packets | with_token | st.binary(max_size=80), max_size=6).map(b"".join)
cuts = st.lists(st.integers(1, 40), max_size=30)
datagrams = st.one_of(
    st.binary(max_size=100),
    st.builds(datagram, rooms, st.sampled_from([HEX, b"", b"x" * 64, b"y" * 255]), st.binary(max_size=20)),
    st.just(b"\x01" * 5000),
)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    parts: list[bytes] = []
    for size in sizes:
        parts.append(data[:size])
        data = data[size:]
    return [part for part in (*parts, data) if part]


@given(st.lists(st.tuples(streams, cuts, st.sampled_from(["stay", "eof", "close", "abort"])), max_size=4))
@settings(max_examples=150)
@virtual
async def test_any_bytes_on_any_connection_never_stop_the_server(
    talks: list[tuple[bytes, list[int], str]],
) -> None:
    async with serving() as world:
        alice = await world.sit("ocm", CREATE, "r", "alice", host="10.0.0.1")
        assert alice.token == HEX
        unproved = await world.ear("10.0.0.66")
        for data, sizes, end in talks:
            peer = await world.dial("10.0.0.2")
            for part in cut(data, sizes):
                peer.send(part)
                await quiet()
            match end:
                case "eof":
                    peer.stream.write_eof()
                case "close":
                    peer.stream.close()
                case "abort":
                    peer.stream.abort()
                case _:
                    pass
            await asyncio.sleep(0.05)
            for _, chunk in peer.chunks:  # each write is one whole packet
                assert _spells(chunk[3:32], len(chunk) - 32 - chunk[0])
        await asyncio.sleep(20)
        assert unproved.heard == []
        await world.works()
        assert not world.server.failure.done()


@given(st.lists(datagrams, max_size=30))
@virtual
async def test_any_datagrams_get_nothing_back(junk: list[bytes]) -> None:
    async with serving() as world:
        alice = await world.sit("ocm", CREATE, "r", "alice", host="10.0.0.1")
        bob = await world.sit("ocm", JOIN, "r", "bob", host="10.0.0.2")
        alice.heard()
        stranger = await world.ear("10.0.0.66")
        for data in junk:
            stranger.send(data)
        await asyncio.sleep(2)
        assert stranger.heard == alice.heard() == bob.heard() == []
        await world.works()


def _spells(field: bytes, size: int) -> bool:
    """Whether a size field says ``size``: the peer's own way to spell it comes back, and may be ambiguous."""
    digits = field.rstrip(b"\0 ")
    return (
        int.from_bytes(field, "big") == size
        or int.from_bytes(field, "little") == size
        or (digits.isdigit() and int(digits) == size)
    )
