"""Fast codecs made from a ``Layout``: the same language as its construct, 30 times as fast.

A relay reads some 200,000 datagrams a second; construct reads one in 10 us, a derived reader in 0.3 us
(``docs/performance.md``). The source is written from the declaration when the module is imported, as
``dataclasses`` does; property tests and fuzzing hold it equal to the construct. ``construct.compile()`` is
not used: what it makes accepts truncated input.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeAlias, assert_never

from ocm.errors import LocalProtocolError
from ocm.protocol.wire.layout import Field, Fixed, Layout, Rest, Sized, SizeOf, UInt

Reader: TypeAlias = Callable[[bytes], tuple[Any, ...] | None]
"""Returns the values of the layout, or None for bytes that are not of it. Never raises."""
Scanner: TypeAlias = Callable[[bytes, int], tuple[Any, ...] | None]
"""Returns the values of the layout at an offset, and the offset behind them, or None. Never raises."""
Writer: TypeAlias = Callable[..., bytes]
"""Takes the values, returns the bytes. Raises ``LocalProtocolError`` when a value does not fit."""
_CODES: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}
"""What ``struct`` calls a big-endian integer of so many bytes."""


def derive_reader(layout: Layout) -> Reader:
    """Make the reader of ``layout``. Slices do not complain, so every length is checked before it is used."""
    lines, end, names = _reading(layout, base="")
    if end is not None:
        lines.append(f"if size != {end}: return None")
    lines.append(f"return {_tuple(map(_local, layout.names))}")
    return _function("read", "data", lines, names)


def derive_scanner(layout: Layout) -> Scanner:
    """Make the reader of a ``layout`` that others follow: it reads at an offset and says where the next one starts.

    Raises ``LocalProtocolError`` for a layout whose last field goes to the end.
    """
    lines, end, names = _reading(layout, base="at")
    if end is None:
        raise LocalProtocolError("nothing can follow a field that goes to the end")
    lines.append(f"return {_tuple([*map(_local, layout.names), end])}")
    return _function("scan", "data, at", lines, names)


def derive_writer(layout: Layout) -> Writer:
    """Make the writer of ``layout``."""
    checks: list[str] = []
    counted = {part.name: part.of for part in layout.fields if isinstance(part, SizeOf)}
    integers: dict[str, str] = {}
    for part in layout.fields:
        match part:
            case UInt(name, size):
                integers[name] = _local(name)
                checks.append(f"0 <= {_local(name)} < {256**size}")
            case SizeOf(name, of, size):
                integers[name] = f"len({_local(of)})"
                checks.append(f"{integers[name]} < {256**size}")
            case Fixed(name, size):
                checks.append(f"len({_local(name)}) == {size}")
            case Sized(name, by):
                if by not in counted:
                    checks.append(f"len({_local(name)}) == {_local(by)}")
                elif counted[by] != name:
                    checks.append(f"len({_local(name)}) == len({_local(counted[by])})")
            case Rest():
                pass
            case _:
                assert_never(part)
    pieces: list[str] = []
    names: dict[str, Any] = {"Refused": LocalProtocolError}
    for piece in _runs(layout.fields):
        match piece:
            case _Run(run, packs):
                names[f"pack_{run[0]}"] = packs.pack
                pieces.append(f"pack_{run[0]}({', '.join(integers[name] for name in run)})")
            case UInt(name, size) | SizeOf(name, _, size):
                pieces.append(f"({integers[name]}).to_bytes({size}, 'big')")
            case Fixed(name) | Sized(name) | Rest(name):
                pieces.append(_local(name))
            case _:
                assert_never(piece)
    lines = [
        f"if not ({' and '.join(checks) or 'True'}): raise Refused({_misfit(layout)!r})",
        f"return b''.join({_tuple(pieces)})",
    ]
    return _function("write", ", ".join(map(_local, layout.names)), lines, names)


def _reading(layout: Layout, *, base: str) -> tuple[list[str], str | None, dict[str, Any]]:
    """Return the lines that read the fields from ``base`` on, where these end, and the names that the lines use.

    Where they end is None for the end of the data.
    """
    lines: list[str] = ["size = len(data)"]
    names: dict[str, Any] = {}
    offset = 0  # the next field starts at base + offset

    def place(extra: int = 0) -> str:
        return f"{base} + {offset + extra}" if base else str(offset + extra)

    leading = _leading_size(layout)
    lines.append(f"if size < {place(leading)}: return None")
    checked = leading  # how many bytes past `base` are known to exist
    for part in _runs(layout.fields):
        match part:
            case _Run(integers, unpacks):
                if offset + unpacks.size > checked:
                    lines.append(f"if size < {place(unpacks.size)}: return None")
                    checked = offset + unpacks.size
                unpack = f"unpack_{integers[0]}"
                names[unpack] = unpacks.unpack_from
                lines.append(f"{_tuple(map(_local, integers))} = {unpack}(data, {place()})")
                offset += unpacks.size
            case UInt(name, size) | SizeOf(name, _, size) | Fixed(name, size):
                if offset + size > checked:
                    lines.append(f"if size < {place(size)}: return None")
                    checked = offset + size
                raw = f"data[{place()}:{place(size)}]"
                if isinstance(part, Fixed):
                    lines.append(f"{_local(name)} = {raw}")
                elif size == 1:
                    lines.append(f"{_local(name)} = data[{place()}]")
                else:
                    lines.append(f"{_local(name)} = int.from_bytes({raw}, 'big')")
                offset += size
            case Sized(name, by):
                lines.append(f"end_{name} = {place()} + {_local(by)}")
                lines.append(f"if size < end_{name}: return None")
                lines.append(f"{_local(name)} = data[{place()}:end_{name}]")
                base, offset, checked = f"end_{name}", 0, 0
            case Rest(name):
                lines.append(f"{_local(name)} = data[{place()}:]")
                return lines, None, names
            case _:
                assert_never(part)
    return lines, place(), names


class _Run(NamedTuple):
    """Integers that follow each other: ``struct`` takes them at once, five times as fast as one by one."""

    names: list[str]
    packed: struct.Struct


def _runs(fields: Sequence[Field]) -> Iterator[Field | _Run]:
    """Return the fields with those integers put together that ``struct`` knows; single bytes are not worth it."""
    at = 0
    while at < len(fields):
        integers = _common_integers(fields[at:])
        if sum(part.size for part in integers) > len(integers) > 1:
            codes = "".join(_CODES[part.size] for part in integers)
            yield _Run([part.name for part in integers], struct.Struct(f">{codes}"))
            at += len(integers)
        else:
            yield fields[at]
            at += 1


def _common_integers(fields: Sequence[Field]) -> list[UInt | SizeOf]:
    """Return the integers at the beginning of ``fields`` that ``struct`` knows."""
    integers: list[UInt | SizeOf] = []
    for part in fields:
        if not isinstance(part, UInt | SizeOf) or part.size not in _CODES:
            break
        integers.append(part)
    return integers


def _local(name: str) -> str:
    """Return the variable of a field: no name of a field may hide one of the code around it."""
    return f"value_{name}"


def _tuple(items: Iterable[str]) -> str:
    return f"({''.join(f'{item}, ' for item in items)})"


def _leading_size(layout: Layout) -> int:
    """Bytes before the first field of open length."""
    total = 0
    for part in layout.fields:
        if isinstance(part, Sized | Rest):
            break
        total += part.size
    return total


def _misfit(layout: Layout) -> str:
    return f"a field does not fit its place in a {layout.title.lower()}"


def _function(name: str, arguments: str, lines: list[str], names: dict[str, Any]) -> Callable[..., Any]:
    source = f"def {name}({arguments}):\n" + "".join(f"    {line}\n" for line in lines)
    scope = dict(names)
    exec(compile(source, f"<derived {name}>", "exec"), scope)  # noqa: S102 - our own declaration, no input
    made: Callable[..., Any] = scope[name]
    return made
