"""Click commands whose help speaks the reader's language."""

from __future__ import annotations

from collections.abc import Callable

import click

import ocm
from ocm.cli.words import LANGUAGES, Words


class TranslatedCommand(click.Command):
    """A command with ``--help`` and ``--lang``, translated headings and an example."""

    def __init__(
        self, words: Words, name: str, *, example: str, params: list[click.Parameter], callback: Callable[..., int]
    ) -> None:
        """Take what ``click.Command`` takes, and an example of how the command is used."""
        super().__init__(
            name,
            params=[*params, *common_options(words)],
            add_help_option=False,
            help=words(f"{name}.help"),
            callback=callback,
        )
        self._words = words
        self._example = example

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the usage line."""
        write_usage(self, ctx, formatter, self._words)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options."""
        write_options(self, ctx, formatter, self._words)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example."""
        with formatter.section(self._words("usage.example").rstrip(":")):
            for line in self._example.splitlines():
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")


class TranslatedGroup(click.Group):
    """The command that has the others below it."""

    def __init__(self, words: Words, name: str, commands: list[click.Command]) -> None:
        """Take the commands; without one of them it shows its help."""
        version = click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_version,
            help=words("option.version"),
        )
        super().__init__(
            name,
            commands=commands,
            params=[*common_options(words), version],
            add_help_option=False,
            help=words(f"{name}.help"),
            invoke_without_command=True,
            callback=_help_alone,
        )
        self._words = words

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the usage line."""
        write_usage(self, ctx, formatter, self._words)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, then the options."""
        rows = [(name, command.get_short_help_str(formatter.width)) for name, command in self.commands.items()]
        with formatter.section(self._words("usage.commands")):
            formatter.write_dl(rows)
        write_options(self, ctx, formatter, self._words)


def common_options(words: Words) -> list[click.Parameter]:
    """Return the options of every command. ``--lang`` was read before: here it is checked."""
    language = click.Option(["--lang"], type=click.Choice(LANGUAGES), expose_value=False, help=words("option.lang"))
    show_help = click.Option(
        ["-h", "--help"], is_flag=True, is_eager=True, expose_value=False, callback=_help, help=words("option.help")
    )
    return [language, show_help]


def write_usage(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter, words: Words) -> None:
    """Write ``Usage: ocm chat ...``."""
    pieces = " ".join(command.collect_usage_pieces(ctx))
    formatter.write_usage(ctx.command_path, pieces, prefix=words("usage.prefix"))


def write_options(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter, words: Words) -> None:
    """Write the options and what they do."""
    options = [param for param in command.get_params(ctx) if isinstance(param, click.Option)]
    records = [record for option in options if (record := option.get_help_record(ctx)) is not None]
    with formatter.section(words("usage.options")):
        formatter.write_dl(records)


def _help(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(ctx.get_help())
        ctx.exit()


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"ocm {ocm.__version__}")
        ctx.exit()


@click.pass_context
def _help_alone(ctx: click.Context) -> None:
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
