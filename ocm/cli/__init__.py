"""The command ``ocm``: argv in, an exit status out."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from ocm.cli.chat import chat_command
from ocm.cli.command import TranslatedGroup
from ocm.cli.demo import demo_command
from ocm.cli.faults import DONE, FAILED, MISUSED, CommandFailed
from ocm.cli.screen import STDOUT, complain, reserve_standard_files
from ocm.cli.serve import serve_command
from ocm.cli.words import Words, choose_language

__all__ = ["main"]

_JAPANESE_HELP_WIDTH = 56
"""Characters, most of which are two columns wide."""


def main() -> NoReturn:
    """Run the command line and exit: 0 done, 1 refused or failed, 2 misused."""
    reserve_standard_files()
    status = run(sys.argv[1:])
    try:
        if sys.stdout is not None:  # it was closed when we began  # pyright: ignore[reportUnnecessaryComparison]
            sys.stdout.flush()
    except OSError:  # nobody reads; Python must not try once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)
    sys.exit(status)


def run(arguments: Sequence[str]) -> int:
    """Run one command; return its exit status. What is expected to go wrong is one line on stderr."""
    words = Words(choose_language(arguments, os.environ))
    group = TranslatedGroup(words, "ocm", [serve_command(words), chat_command(words), demo_command(words)])
    group.context_settings["max_content_width"] = _JAPANESE_HELP_WIDTH if words.language == "ja" else 100
    try:
        status = group.main(list(arguments), prog_name="ocm", standalone_mode=False)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if isinstance(context, click.Context) else "ocm"
        complain(words("usage.wrong", detail=error.format_message(), command=path))
        return MISUSED
    except CommandFailed as failed:
        complain(failed.sentence)
        return failed.status
    except (click.Abort, KeyboardInterrupt):
        return FAILED
    except BrokenPipeError:
        return FAILED
    return status if isinstance(status, int) else DONE
