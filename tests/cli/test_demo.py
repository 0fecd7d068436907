"""``ocm demo``."""

import pytest

from tests.cli.program import run_ocm


@pytest.mark.parametrize("language", ["en", "ja"])
async def test_the_demo_plays_through_and_ends(language: str) -> None:
    status, out, err = await run_ocm("demo", "--lang", language)
    assert (status, err) == (0, "")
    for part in ("aiko", "bob", "花子", "433", "こんにちは", "tcrps://", "tcrp://", "TLS ->", "TCP ->", "UDP <-"):
        assert part in out
