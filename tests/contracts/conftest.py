"""What the contract suites share."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator

import pytest

from tests.store.scratch import tidy


def _why_no_ipv6() -> str | None:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError as error:
        return f"this machine has no IPv6: {error}"
    return None


@pytest.fixture(scope="session")
def need_ipv6() -> Callable[[], None]:
    """Skip the test, visibly, on a machine without IPv6."""
    why = _why_no_ipv6()

    def check() -> None:
        if why is not None:
            pytest.skip(why)

    return check


class Changes:
    """Wakes a test whenever something happened, so that it can look again without sleeping."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def tell(self) -> None:
        self._event.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until a claim holds; fail after ten seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                while not holds():
                    self._event.clear()
                    await self._event.wait()
        assert holds()


@pytest.fixture
def changes() -> Changes:
    return Changes()


@pytest.fixture(autouse=True)
def _tidy() -> Iterator[None]:
    """Leave no file of a test behind, and nobody who has it open."""
    yield
    tidy()
