"""Guessing the names of rooms gets slower, and how long an answer takes says nothing."""

from __future__ import annotations

import asyncio

import pytest

import ocm
from ocm.testing import Network


def test_after_ten_failed_joins_every_answer_takes_longer(network: Network) -> None:
    async def guess(client: ocm.Client, room: str) -> float:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        with pytest.raises(ocm.RoomRefused) as refused:
            async with client.join(room):
                pass
        assert refused.value.code == ocm.Refusal.NOT_FOUND
        return loop.time() - began_s

    async def main() -> None:
        async with (
            ocm.serve("tcrps://[::]:12345", classic="on") as server,
            ocm.connect(server.url, user="mallory") as client,
        ):
            await server.create("hidden", "host")
            times_s = [await guess(client, f"guess {number}") for number in range(12)]
            assert max(times_s[:10]) < 0.5
            assert min(times_s[10:]) > ocm.Limits().failed_join_delay_s
            before_s = asyncio.get_running_loop().time()
            async with client.join("hidden"):
                assert asyncio.get_running_loop().time() - before_s > ocm.Limits().failed_join_delay_s
            await asyncio.sleep(130)
            assert await guess(client, "later") < 0.5

    network.run(main())
