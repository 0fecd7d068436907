"""``ocm`` itself: help in two languages, misuse, versions."""

from importlib import resources

import pytest

import ocm
from ocm.cli import run
from tests.cli.program import run_ocm


@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize("command", [[], ["serve"], ["chat"], ["demo"]])
def test_every_command_has_help_in_every_language(
    command: list[str], language: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*command, "--help", "--lang", language]) == 0
    out = capsys.readouterr().out
    heading, example = ("Usage: ocm", "Example:\n  ocm") if language == "en" else ("使い方: ocm", "例:\n  ocm")
    assert out.startswith(heading)
    assert example in out or not command
    assert language == "en" or "Show this" not in out


async def test_the_module_is_the_command() -> None:
    assert await run_ocm("--version") == (0, f"ocm {ocm.__version__}", "")
    status, out, _ = await run_ocm()
    assert status == 0
    assert "serve" in out


@pytest.mark.parametrize("arguments", [["nonsense"], ["--nonsense"], ["demo", "--lang", "xx"], ["chat", "a", "b"]])
def test_misuse_is_one_line(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("ocm: ")
    assert "--help" in err


def test_misuse_does_not_let_its_argument_act_on_the_screen(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["\x1b[2J"]) == 2
    assert "\x1b" not in capfd.readouterr().err


def test_catalogues_come_with_the_package() -> None:
    files = resources.files("ocm.cli").joinpath("catalogue")
    assert {file.name for file in files.iterdir()} == {"en.toml", "ja.toml"}
