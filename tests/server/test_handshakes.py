"""What the server does for people of TCRP/2, and against those who only pretend to be."""

from __future__ import annotations

from ocm.protocol.limits import Limits
from ocm.transport.sim_tls import SimServerSecurity
from tests.peers import serving
from tests.virtual import quiet, virtual

HELLO_BEGUN = b"\x16\x03\x01\x00\x40\x01"
"""A ClientHello without its end."""


@virtual
async def test_however_many_handshakes_begin_at_once_no_more_than_the_limit_are_under_way() -> None:
    async with serving(limits=Limits(handshakes_max=3), security=SimServerSecurity(bytes(32))) as world:
        peers = [await world.dial(f"10.0.1.{number}") for number in range(10)]
        await quiet()
        for peer in peers:
            peer.send(HELLO_BEGUN)
        await quiet()
        assert [peer.lost for peer in peers] == [True] * 7 + [False] * 3, "the oldest go"
