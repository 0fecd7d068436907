"""Two people at ``ocm chat`` on two hosts, while datagrams are cut off and come back: what they see.

Part of ``make campaign``, as ``test_networks.py`` is.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.cli.program import Program, ocm_command, seat
from tests.real.machines import ServerProgram
from tests.real.networks import SERVER_HOST, can_make_networks, two_hosts

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.skipif(not can_make_networks(), reason="needs root, iproute2 and /dev/net/tun"),
]


@pytest.mark.timeout(120)
async def test_people_read_which_way_their_messages_go_and_miss_none(tmp_path: Path) -> None:
    async with (
        two_hosts(tmp_path) as network,
        ServerProgram(tmp_path / "server", host=SERVER_HOST, within=network.at_server) as server,
        ocm_command(*seat(server.url, "aiko", create=True), within=network.at_server) as aiko,
    ):
        await aiko.expect("Encrypted between you and the server")
        async with ocm_command(*seat(server.url, "bob"), within=network.at_client) as bob:
            bob.type("by which way")
            assert await aiko.expect("bob: ") == "bob: by which way"
            await until_by_udp(bob)
            await network.be("udp off")
            bob.type("is this")
            assert await aiko.expect("bob: ") == "bob: is this"
            await bob.expect("* Messages travel over the TLS connection; UDP does not get through just now.")
            aiko.type("by the other one")
            await bob.expect("aiko: by the other one")
            await network.be("udp on")
            await until_by_udp(bob)
            bob.type("and back", "/leave")
            assert await aiko.expect("bob: ") == "bob: and back"
            await bob.expect("* You have left.")
            assert not [line for line in bob.seen if "connection is lost" in line or "missing" in line]


async def until_by_udp(program: Program) -> None:
    """Ask which way messages travel until it is by datagram: at first that is being tried, and tried again later."""
    async with asyncio.timeout(60):
        program.type("/status")
        while await program.expect("* Messages travel ") != "* Messages travel by UDP.":
            await asyncio.sleep(0.5)
            program.type("/status")
