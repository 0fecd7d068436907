"""A server for the tests that need one, in the test's own process: that is quicker than a second one."""

from collections.abc import AsyncIterator

import pytest

import ocm
from tests.cli.program import PROFILES


@pytest.fixture
async def server() -> AsyncIterator[ocm.EmbeddedServer]:
    """A server of both profiles, on loopback."""
    async with ocm.serve("tcrps://127.0.0.1:0") as server:
        yield server


@pytest.fixture
def modern_url(server: ocm.EmbeddedServer) -> str:
    """Where clients of TCRP/2 find it, with its pin."""
    return server.url


@pytest.fixture
def classic_url(server: ocm.EmbeddedServer) -> str:
    """Where clients of the classic profile find it."""
    assert server.classic_url is not None
    return server.classic_url


@pytest.fixture(params=PROFILES)
def url(request: pytest.FixtureRequest, modern_url: str, classic_url: str) -> str:
    """Where it is, for one profile after the other."""
    return modern_url if request.param == "modern" else classic_url
