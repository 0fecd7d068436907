"""``ocm serve``: a server for everybody who is to reach it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, cast

import click

import ocm
from ocm.api import REACHES
from ocm.cli.command import TranslatedCommand
from ocm.cli.faults import DONE, MISUSED, CommandFailed, explain_serving
from ocm.cli.interruption import Interruption, run_politely
from ocm.cli.jsonl import json_line
from ocm.cli.machine import machine_addresses, own_directory, raise_file_limit, start_logging, user_certificate
from ocm.cli.screen import STDOUT, Screen, complain
from ocm.cli.trust import grouped
from ocm.cli.words import Words
from ocm.protocol.address import Address, make_address
from ocm.protocol.url import TCP_PORT, UDP_PORT, ServerUrl, parse_url

_LOOPBACKS: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_WILDCARDS: Final = {"::": "localhost", "*": "localhost", "0.0.0.0": "127.0.0.1"}
_EXAMPLE: Final = """ocm serve
ocm serve --host 127.0.0.1 --port 0 --udp-port 0 --json"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """What was asked for."""

    host: str
    port: int
    udp_port: int
    classic: Literal["off", "loopback", "lan", "on"] | None
    data_dir: Path | None
    cert: Path | None
    key: Path | None
    idle_timeout: float
    max_rooms: int
    max_members: int
    reference_names: bool
    as_json: bool
    verbose: int


def serve_command(words: Words) -> click.Command:
    """Make the command."""
    usual = ocm.Limits()
    port = click.IntRange(0, 65535)
    count = click.IntRange(min=1)
    seconds = _Seconds(min=0, min_open=True, max=10**9)
    idle_s = usual.idle_timeout_s
    params: list[click.Parameter] = [
        click.Option(["--host"], default="::", metavar="ADDR", help=words("serve.host")),
        click.Option(
            ["--port"], type=port, metavar="PORT", default=TCP_PORT, help=words("serve.port", default=TCP_PORT)
        ),
        click.Option(
            ["--udp-port"], type=port, metavar="PORT", default=UDP_PORT, help=words("serve.udp_port", default=UDP_PORT)
        ),
        click.Option(["--classic"], type=click.Choice(list(REACHES)), help=words("serve.classic")),
        click.Option(["--data-dir"], type=click.Path(path_type=Path), metavar="DIR", help=words("serve.data_dir")),
        click.Option(["--cert"], type=click.Path(path_type=Path), metavar="FILE", help=words("serve.cert")),
        click.Option(["--key"], type=click.Path(path_type=Path), metavar="FILE", help=words("serve.key")),
        click.Option(
            ["--idle-timeout"],
            type=seconds,
            metavar="S",
            default=idle_s,
            help=words("serve.idle_timeout", default=f"{idle_s:g}"),
        ),
        click.Option(
            ["--max-rooms"],
            type=count,
            metavar="N",
            default=usual.rooms_max,
            help=words("serve.max_rooms", default=usual.rooms_max),
        ),
        click.Option(
            ["--max-members"],
            type=count,
            metavar="N",
            default=usual.members_per_room_max,
            help=words("serve.max_members", default=usual.members_per_room_max),
        ),
        click.Option(["--reference-names"], is_flag=True, help=words("serve.reference_names")),
        click.Option(["--json", "as_json"], is_flag=True, help=words("serve.json")),
        click.Option(["-v", "--verbose"], count=True, help=words("serve.verbose")),
    ]

    def callback(**values: object) -> int:
        options = ServeOptions(**values)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        start_logging(options.verbose)
        return run_politely(lambda interruption: _serve(options, words, interruption))

    return TranslatedCommand(words, "serve", params=params, callback=callback, example=_EXAMPLE)


class _Seconds(click.FloatRange):
    """A number of seconds; click lets "nan" through every range."""

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number, or fail."""
        number: float = super().convert(cast("float", value), param, ctx)  # it takes text, too
        if math.isnan(number):
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return number


async def _serve(options: ServeOptions, words: Words, interruption: Interruption) -> int:
    url = str(ServerUrl(options.host.strip("[]"), options.port, secure=True))
    try:
        if parse_url(url).room is not None:
            raise ocm.LocalProtocolError("a path")
    except ocm.LocalProtocolError:
        raise CommandFailed(words("serve.bad_host", host=options.host), status=MISUSED) from None
    if (options.cert is None) != (options.key is None):
        raise CommandFailed(words("serve.cert_and_key"), status=MISUSED)
    limits = ocm.Limits(
        idle_timeout_s=options.idle_timeout, rooms_max=options.max_rooms, members_per_room_max=options.max_members
    )
    trouble = raise_file_limit(words)
    if trouble is not None:
        complain(trouble)
    interruption.is_watched = True
    try:
        with own_directory(options.data_dir, words):
            async with ocm.serve(
                url,
                udp_port=options.udp_port,
                data_dir=options.data_dir,
                certificate=_certificate(options, words),
                classic=_classic(options),
                limits=limits,
                names_in_reference=options.reference_names,
            ) as server:
                _announce(server, options, words)
                await interruption.event.wait()
    except ocm.OcmError as error:
        raise CommandFailed(explain_serving(error, options.host, words)) from None
    if not options.as_json:
        Screen(STDOUT).tell(words("serve.stopped" if options.data_dir is None else "serve.stopped_kept"))
    return DONE


def _certificate(options: ServeOptions, words: Words) -> ocm.Certificate | None:
    """Return the operator's own certificate, or the one of this user's servers; None: the data directory has one."""
    if options.cert is not None and options.key is not None:
        return ocm.load_certificate(options.cert, options.key)
    return None if options.data_dir is not None else user_certificate(words)


def _classic(options: ServeOptions) -> Literal["off", "loopback", "lan", "on"]:
    """Return from where classic programs may connect, where nothing was said (TCRP/2 section 7)."""
    if options.classic is not None:
        return options.classic
    if options.cert is not None:
        return "off"
    return "loopback" if options.host.strip("[]") in _LOOPBACKS else "lan"


def _announce(server: ocm.EmbeddedServer, options: ServeOptions, words: Words) -> None:
    """Say how to join."""
    here = ServerUrl(
        _WILDCARDS.get(options.host, options.host.strip("[]")),
        server.tcp_port,
        server.udp_port,
        secure=True,
        fingerprint=server.fingerprint,
    )
    addresses = machine_addresses() if options.host in _WILDCARDS else ()
    there = [str(replace(here, host=host)) for host in addresses if _is_served(host, options)]
    classic = _classic_addresses(server, options, here.host, addresses)
    if options.as_json:
        ready: dict[str, object] = {
            "url": str(here),
            "host": here.host,
            "tcp_port": server.tcp_port,
            "udp_port": server.udp_port,
            "fingerprint": server.fingerprint,
            "classic": _classic(options),
            "join": [str(here), *there],
            "join_classic": classic,
        }
        Screen(STDOUT, encoding="utf-8").line(json_line(ready))
        return
    lines = [words("serve.ready", tcp_port=server.tcp_port, udp_port=server.udp_port)]
    lines += [words("serve.fingerprint"), *(f"    {line}" for line in grouped(server.fingerprint or "").split("\n"))]
    lines += [words("serve.join_here"), f'    ocm chat "{here}"']
    if there:
        lines += [words("serve.join_there"), *(f'    ocm chat "{url}"' for url in there)]
    if classic:
        lines += [words("serve.join_classic"), *(f'    ocm chat "{url}"' for url in classic)]
        lines.append(words(f"serve.classic_{_classic(options)}"))
    lines.append(words("serve.kept", path=options.data_dir) if options.data_dir else words("serve.not_kept"))
    lines.append(words("serve.how_to_stop"))
    Screen(STDOUT).tell(*lines)


def _classic_addresses(
    server: ocm.EmbeddedServer, options: ServeOptions, here: str, addresses: Sequence[str]
) -> list[str]:
    """Return where classic programs may connect, this machine first."""
    if server.classic_url is None:
        return []
    admits = REACHES[_classic(options)]
    hosts = [host for host in addresses if _is_served(host, options) and (admits is None or admits(_address(host)))]
    return [str(ServerUrl(host, server.tcp_port, server.udp_port)) for host in (here, *hosts)]


def _is_served(host: str, options: ServeOptions) -> bool:
    """Tell whether the server listens at an address of this machine."""
    return options.host != "0.0.0.0" or len(_address(host)) == 6


def _address(host: str) -> Address:
    return make_address(host, 0)
