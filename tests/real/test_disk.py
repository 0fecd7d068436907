"""A full disk stops what would need it, and nothing else; with room again, everything that waited gets in."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.real.disks import can_make_disks, fill_client_disks, fill_server_disks

pytestmark = pytest.mark.skipif(not can_make_disks(), reason="needs a mount namespace of its own")


async def test_a_server_whose_disk_is_full_accepts_nothing_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    fullness = await fill_server_disks(tmp_path, times=1)
    assert fullness.found.receipts


async def test_a_client_whose_disk_is_full_says_so_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    assert await fill_client_disks(tmp_path, times=2) > 40
