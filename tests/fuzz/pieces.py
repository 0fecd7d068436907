"""How a fuzz target's input says what it stands for: a stream and how it arrives, a JSON object."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle, islice
from typing import Final

CHUNKS_MAX: Final = 64
"""So many chunks are enough to bring a header and more byte by byte; what is behind them comes at once."""
ABSENT: Final = 0xE0
"""From this byte on a key of an object is left out."""


def cut(data: bytes) -> tuple[bytes, list[bytes]]:
    """Three bytes say how to cut the rest: chunks of 1 to 256 bytes, sizes in turn."""
    stream = data[3:]
    chunks: list[bytes] = []
    start = 0
    for byte in islice(cycle(data[:3] or b"\0"), CHUNKS_MAX):
        if start >= len(stream):
            return stream, chunks
        chunks.append(stream[start : start + byte + 1])
        start += byte + 1
    return stream, [*chunks, stream[start:]]


def object_of(data: bytes, valid: Mapping[str, str]) -> bytes:
    """Change an object that is as it should be: one byte says which key, one what its value is, others what is in it.

    Bytes that a mutation makes of JSON are hardly ever JSON. These always are, but for text that is no Unicode, and
    numbers and nesting beyond what is read.

    Args:
        data: the changes.
        valid: names and values, the values in JSON.
    """
    items = dict(valid)
    keys = [*valid, "stranger"]
    rest = iter(data)
    for byte in rest:
        key = keys[byte % len(keys)]
        if byte < ABSENT:
            items[key] = _value(rest)
        else:
            items.pop(key, None)
    pairs = [f'"{key}":{value}' for key, value in items.items()]
    return f"{{{','.join(pairs)}}}".encode()


def values_in_json(values: Mapping[str, object]) -> dict[str, str]:
    """Return what ``object_of`` starts from."""
    return {name: json.dumps(value) for name, value in values.items()}


def _value(rest: Iterator[int]) -> str:
    kind = next(rest, 0)
    return _VALUES[kind % len(_VALUES)](rest)


def _number(rest: Iterator[int]) -> str:
    """Numbers next to a power of two."""
    return str(2 ** (next(rest, 0) % 56) + next(rest, 0) % 3 - 1)


def _hex(rest: Iterator[int]) -> str:
    """As long as ids and secrets are, or nearly so."""
    size = (16, 32, 64, 15, 33, 0)[next(rest, 0) % 6]
    digits = "0123456789abcdefAg"
    return json.dumps("".join(digits[next(rest, 0) % len(digits)] for _ in range(2)) * (size // 2) + "0" * (size % 2))


def _text(rest: Iterator[int]) -> str:
    """Words that mean something, and text of all planes and of halves of characters."""
    which = next(rest, 0)
    if which < len(_WORDS):
        return json.dumps(_WORDS[which])
    code_points = [next(rest, 0) << 8 | next(rest, 0) for _ in range(which % 8)]
    return json.dumps("".join(map(chr, code_points)))


def _list(rest: Iterator[int]) -> str:
    """Lists of numbers as of versions, or of members of a room."""
    count = next(rest, 0) % 20
    if count < 10:
        return f"[{','.join(_number(rest) for _ in range(count))}]"
    return f"[{','.join(f'[{_number(rest)},{_text(rest)},{_value(rest)}]' for _ in range(count - 10))}]"


_WORDS: Final = (
    "",
    "modern",
    "mixed",
    "close",
    "hand over",
    "persist",
    "left",
    "removed by the server",
    "disk",
    "x" * 1025,
)
_VALUES: Final[Sequence[Callable[[Iterator[int]], str]]] = (
    *(_number, _number, _hex, _hex, _text, _text, _list),
    lambda rest: f"-{_number(rest)}",
    lambda rest: f"{_number(rest)}.{next(rest, 0)}e-{next(rest, 0)}",
    lambda _: "null",
    lambda _: "true",
    lambda _: "false",
    lambda rest: f'{{"":{_value(rest)}}}',
)
