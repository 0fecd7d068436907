"""The tutorial does what it says: its files are written, its commands run as printed, its output seen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools import run_tutorial
from tools.check_docs import TRANSLATIONS, blocks

ROOT = Path(__file__).parents[1]


@pytest.mark.timeout(120)
def test_the_tutorial_can_be_followed_as_printed() -> None:
    command = [sys.executable, str(ROOT / "tools" / "run_tutorial.py"), "--installed"]
    done = subprocess.run(run_tutorial.alone(command), capture_output=True, text=True, timeout=100, check=False)
    if "is already in use" in done.stdout + done.stderr:
        pytest.skip("ports 12345 and 9001 are taken, and this system gives no network of one's own")
    assert done.returncode == 0, done.stdout + done.stderr


def test_blocks_with_a_title_stand_in_tutorials_only() -> None:
    """Nobody else follows them."""
    followed = {run_tutorial.TUTORIAL, *TRANSLATIONS}
    assert {page for page in ROOT.glob("docs/**/*.md") if any(block.title for block in blocks(page))} == followed


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('```console title="Terminal 1"\n$ echo tea\ncoffee\n```\n', "terminal 1 does not show: coffee"),
        ('```console title="Terminal 1"\n$ false\n```\n', "terminal 1: exit status 1"),
        ('```console title="Terminal 1"\n$ echo tea\ntea\ntea\n```\n', "terminal 1 does not show: tea"),
    ],
)
def test_a_page_that_says_what_does_not_happen_is_found(tmp_path: Path, text: str, problem: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    with pytest.raises(run_tutorial.Wrong, match=problem):
        run_tutorial.follow(page, tmp_path, installed=True)


def test_an_address_that_a_page_cuts_short_is_typed_in_full() -> None:
    address = "tcrps://localhost:12345#fp=" + "0123456789abcdef" * 4
    screens = f'To join:\n    ocm chat "{address}"\n    ocm chat "tcrps://10.0.0.1:12345#fp={"ab" * 32}"\n'
    command = 'python bot.py "tcrps://localhost:12345#fp=..."'
    assert run_tutorial.in_full(command, screens) == f'python bot.py "{address}"'
    assert run_tutorial.in_full("python bot.py", screens) == "python bot.py"
    with pytest.raises(run_tutorial.Wrong, match="no screen shows"):
        run_tutorial.in_full(command, "")


@pytest.mark.parametrize(
    ("shown", "expected", "is_it"),
    [
        ("2 passed in 0.05s", "2 passed in 7.31s", True),
        ("  1.2  ann:1   -> server:2  udp  76 B abc  lost", "1.2 ann:1 -> server:2 udp ... lost", True),
        ("2 passed", "1 passed", False),
        ("a lost b", "... lost", False),
    ],
)
def test_lines_are_compared_without_what_differs_from_run_to_run(shown: str, expected: str, is_it: bool) -> None:
    assert run_tutorial.shows(shown, expected) is is_it
