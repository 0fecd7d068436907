"""kill -9: what was acknowledged is there, once, in order, whoever died. The long runs are ``make kill``."""

from __future__ import annotations

from pathlib import Path

from tests.real.kills import kill_clients, kill_servers


async def test_a_server_that_is_killed_loses_and_doubles_nothing_it_acknowledged(tmp_path: Path) -> None:
    kills = await kill_servers(tmp_path, count=2)
    assert kills.found.receipts
    assert kills.found.deliveries


async def test_a_client_that_is_killed_says_everything_it_had_stored_once(tmp_path: Path) -> None:
    assert (await kill_clients(tmp_path, count=2)).messages
