"""The pytest plugin of ocm: the fixture ``network``, and what a failure on it shows.

It lies beside the package so that pytest, which loads every plugin there is, does not import ocm for tests that
have nothing to do with it.
"""

from __future__ import annotations

import hashlib
import secrets
import shlex
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ocm.testing import Network

_SEED = pytest.StashKey[int]()
_NETWORK = pytest.StashKey["Network"]()
_LINES = 40
"""Lines of the timeline shown with a failure."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Know ``--ocm-seed``."""
    group = parser.getgroup("ocm", "simulated networks")
    group.addoption(
        "--ocm-seed",
        type=int,
        metavar="N",
        help="seed of the fixture `network`: a failed test prints the one that repeats it (a random one by default)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Draw the seed of this run."""
    given: int | None = config.getoption("--ocm-seed")
    config.stash[_SEED] = secrets.randbelow(1_000_000) if given is None else given


@pytest.fixture
def network(request: pytest.FixtureRequest) -> Network:
    """A simulated network (``ocm.testing.Network``) with a seed of this run and test.

    Another ``--ocm-seed`` is another run; a test that fails prints the command that repeats it.
    """
    from ocm.testing import Network  # noqa: PLC0415

    item: pytest.Item = request.node
    of_run = request.config.stash[_SEED]
    made = Network(seed=_seed_of_test(of_run, item.nodeid))
    item.stash[_NETWORK] = made
    return made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a failure how to repeat it, and what happened on the network."""
    report = yield
    used = item.stash.get(_NETWORK, None)
    if used is not None and report.failed:
        text = f"replay: {_command(item)}\n{used.report(_LINES)}"
        report.sections.append(("simulated network", text))
    return report


def _seed_of_test(of_run: int, name: str) -> int:
    """Return a seed of a test's own, so that the order and choice of tests change nothing."""
    digest = hashlib.blake2b(f"{of_run} {name}".encode("utf-8", "backslashreplace"), digest_size=4)
    return int.from_bytes(digest.digest(), "big")


def _command(item: pytest.Item) -> str:
    """Return the line that runs this test again with the same seed, from where pytest was started."""
    config = item.config
    file, colons, name = item.nodeid.partition("::")
    path = config.rootpath / file
    here = config.invocation_params.dir
    shown = path.relative_to(here) if path.is_relative_to(here) else Path(path)
    return f"pytest {shlex.quote(f'{shown.as_posix()}{colons}{name}')} --ocm-seed {config.stash[_SEED]}"
