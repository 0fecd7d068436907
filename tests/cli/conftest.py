"""A server for the tests that need one."""

from collections.abc import AsyncIterator

import pytest

from tests.cli.program import serving


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """Where ``ocm serve`` runs."""
    async with serving() as (_, ready):
        yield ready["url"]
