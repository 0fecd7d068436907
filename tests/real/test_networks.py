"""Two hosts in namespaces, a cable that loses and delays: nothing is lost or late, whatever becomes of the network.

Each scene holds its own figures against their bars.

Part of ``make campaign`` and ``make networks``: it takes minutes, needs root, ``ip netns`` and TUN devices, and makes
and removes namespaces of its own.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.real.networks import (
    BACK_MAX_S,
    BLOCKED_MAX_S,
    blocked_from_the_start,
    can_make_networks,
    cut_and_back,
    listen_and_roam,
    roam,
)

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.skipif(not can_make_networks(), reason="needs root, iproute2 and /dev/net/tun"),
]


async def test_an_address_that_changes_every_two_seconds_for_a_minute(tmp_path: Path) -> None:
    travels = await roam(tmp_path, seconds=60)
    assert travels.figures["moves"] == 30


async def test_who_only_listens_is_found_at_each_new_address(tmp_path: Path) -> None:
    travels = await listen_and_roam(tmp_path)
    assert travels.figures["moves"] == 5


async def test_no_datagram_gets_through_from_the_start(tmp_path: Path) -> None:
    travels = await blocked_from_the_start(tmp_path)
    assert travels.figures["first_receipt"] < BLOCKED_MAX_S


async def test_datagrams_are_cut_off_in_the_middle_and_come_back(tmp_path: Path) -> None:
    travels = await cut_and_back(tmp_path)
    assert travels.figures["udp_again"] < BACK_MAX_S
