"""Draw the parts of docs/ that repeat what the code says: packets, states, tables, bytes of a real server.

A page marks such a part by ``<!-- drawn: NAME -->`` and ``<!-- /drawn -->``; what stands between them is made
here, from the declarations, and never edited by hand. ``python tools/draw_docs.py`` renews every page,
``tools/check_docs.py`` fails when one is stale.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ocm import errors  # noqa: E402
from ocm.protocol import entry, limits  # noqa: E402
from ocm.protocol.control.client import CLIENT_STEPS, ClientState  # noqa: E402
from ocm.protocol.control.server import SERVER_STEPS, ServerState  # noqa: E402
from ocm.protocol.link.modern_session import SESSION_STEPS, SessionState  # noqa: E402
from ocm.protocol.session.path import STEPS as PATH_STEPS  # noqa: E402
from ocm.protocol.session.path import PathState  # noqa: E402
from ocm.protocol.wire.classic import DATAGRAM, HEADER  # noqa: E402
from ocm.protocol.wire.layout import Field, Fixed, Rest, Sized, SizeOf, UInt  # noqa: E402
from ocm.protocol.wire.sealed import SEALED  # noqa: E402
from ocm.protocol.wire.size import read_size  # noqa: E402
from tools import conversations, draw_states, draw_tcrp2  # noqa: E402
from tools.draw_tables import cell, documented, fenced, table  # noqa: E402

_MARK: Final = re.compile(r"(<!-- drawn: ([a-z0-9-]+) -->\n)(.*?)(<!-- /drawn -->)", re.DOTALL)

# --- packets ----------------------------------------------------------------------------------------------------

_ROW: Final = 4
"""Bytes of one row of a packet diagram, as in RFCs."""
_RULER: Final = [
    " 0                   1                   2                   3",
    " 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1",
]
_LINE: Final = "+" + "-+" * (8 * _ROW)


def packet(*fields: Field) -> str:
    """Draw fields as RFCs do: 32 bits to a row; a field of open length has a row of its own between slashes."""
    lines = list(_RULER)
    fixed: list[tuple[str, str]] = []  # the name and the label of the field each byte belongs to
    for part in fields:
        match part:
            case UInt(name, size) | SizeOf(name, _, size) | Fixed(name, size):
                fixed += [(name, name if size == 1 else f"{name} ({size} bytes)")] * size
            case Sized(name, by):
                lines += _fixed_rows(fixed, lines)
                fixed = []
                lines += _open_row(f"{name} ({by} bytes)")
            case Rest(name):
                lines += _fixed_rows(fixed, lines)
                fixed = []
                lines += _open_row(f"{name} (to the end)")
    lines += _fixed_rows(fixed, lines)
    return fenced("text", [line.rstrip() for line in lines])


def _open_row(label: str) -> list[str]:
    return [f"/{label:^{len(_LINE) - 2}}/", _LINE]


def _fixed_rows(owners: Sequence[tuple[str, str]], above: Sequence[str]) -> list[str]:
    if not owners:
        return [] if above[-1] == _LINE else [_LINE]
    rows = [owners[start : start + _ROW] for start in range(0, len(owners), _ROW)]
    labelled: dict[str, int] = {}
    for name in dict.fromkeys(name for name, _ in owners):
        counts = [sum(owner == name for owner, _ in row) for row in rows]
        widest = [index for index, count in enumerate(counts) if count == max(counts)]
        labelled[name] = widest[(len(widest) - 1) // 2]
    lines = [_LINE]
    for index, row in enumerate(rows):
        line = "|"
        for name in dict.fromkeys(name for name, _ in row):
            cells = [label for owner, label in row if owner == name]
            width = 16 * len(cells) - 1
            line += f"{cells[0] if labelled[name] == index else '':^{width}}|"
        lines.append(line)
        lines.append(_between(row, rows[index + 1] if index + 1 < len(rows) else []))
    return lines


def _between(above: Sequence[tuple[str, str]], below: Sequence[tuple[str, str]]) -> str:
    line = "+"
    for column in range(_ROW):
        same = column < len(above) and column < len(below) and above[column] == below[column]
        following = column + 1 < min(len(above), len(below)) and above[column + 1] == below[column + 1]
        line += " " * 15 + (" " if following else "+") if same else "-+" * 8
    return line


# --- states -----------------------------------------------------------------------------------------------------


def states(steps: draw_states.Steps) -> str:
    """Draw a transition table (its items) as a table."""
    rows = [(f"`{before.name}`", step.value, f"`{after.name}`") for (before, step), after in steps]
    return table(("in", "what happens", "then"), rows)


PICTURES: Final[Mapping[str, Callable[[], str]]] = {
    "server-states": lambda: draw_states.picture(SERVER_STEPS.items(), ServerState.IDLE, ServerState.FAILED),
    "client-states": lambda: draw_states.picture(CLIENT_STEPS.items(), ClientState.IDLE, ClientState.FAILED),
    "session-states": lambda: draw_states.picture(SESSION_STEPS.items(), SessionState.HELLO),
    "path-states": lambda: draw_states.picture(PATH_STEPS.items(), PathState.NONE),
}
"""Files of ``docs/images`` that are drawn from the code."""


def stale_pictures() -> dict[Path, str]:
    """Return the pictures that are not what the code says now, with what they should be."""
    drawn = {ROOT / "docs" / "images" / f"{name}.svg": draw() for name, draw in PICTURES.items()}
    return {path: text for path, text in drawn.items() if not path.exists() or path.read_text(encoding="utf-8") != text}


# --- tables -----------------------------------------------------------------------------------------------------


def limits_table() -> str:
    """Draw every limit with its value and its docstring."""
    values = limits.Limits()
    texts = documented(limits, "Limits")
    rows = [(f"`{name}`", f"{getattr(values, name):,}", cell(texts[name])) for name in texts]
    return table(("limit", "default", "meaning"), rows)


def refusals_table() -> str:
    """Draw every status code that says no."""
    texts = documented(entry, "Refusal")
    rows = [(str(int(code)), f"`{code.name}`", cell(texts[code.name])) for code in entry.Refusal]
    return table(("`status_code`", "`ocm.Refusal`", "meaning"), rows)


def errors_tree() -> str:
    """Draw the errors as their module does."""
    return fenced("text", inspect.cleandoc(errors.__doc__ or "").split("\n\n", 1)[1].splitlines())


# --- spellings --------------------------------------------------------------------------------------------------

_SPELLED: Final = {
    "28 x `00`, `05`": bytes(28) + b"\x05",
    '`35`, 28 x `00` (`"5"`, NUL behind)': b"5" + bytes(28),
    '`"17"`, 27 spaces': b"17".ljust(29),
    '27 spaces, `"17"`': b"17".rjust(29),
    '27 x `"0"`, `"17"`': b"17".rjust(29, b"0"),
    "`05`, 28 x `00`": b"\x05" + bytes(28),
    "`00 02`, 27 x `00`": b"\x00\x02" + bytes(27),
    "29 x `00`": bytes(29),
    '25 x `00`, `"5"`, 3 spaces': bytes(25) + b"5   ",
    '`"05"`, 27 x `00`': b"05" + bytes(27),
    '`"+5"`, 27 x `00`': b"+5" + bytes(27),
    '29 x `"0"`': b"0" * 29,
    '14 spaces, `"5"`, 14 spaces': b"5".center(29),
    "29 x `ff`": b"\xff" * 29,
}


def spellings_table() -> str:
    """Draw examples of size fields, read by the code."""
    rows: list[tuple[str, str, str]] = []
    for shown, raw in _SPELLED.items():
        size, spelling = read_size(raw)
        number = (
            f"{size:,}" if size < 2**40 else "2^232 - 1" if size == 2**232 - 1 else f"over 2^{size.bit_length() - 1}"
        )
        rows.append((shown, number, spelling.value))
    return table(("29 bytes", "number", "spelling"), rows)


# --- pages ------------------------------------------------------------------------------------------------------


@functools.cache
def _recorded() -> Mapping[str, str]:
    return asyncio.run(conversations.record())


def _recording(name: str) -> str:
    return fenced("text", _recorded()[name].splitlines())


DRAWINGS: Final[Mapping[str, Callable[[], str]]] = {
    "header": lambda: packet(*HEADER.fields),
    "control-packet": lambda: packet(
        *HEADER.fields, Sized("room", by="room_size"), Sized("payload", by="payload_size")
    ),
    "datagram": lambda: packet(*DATAGRAM.fields),
    "record": lambda: packet(*HEADER.fields, Sized("payload", by="payload_size")),
    "sealed-datagram": lambda: packet(*SEALED.fields),
    "server-states": lambda: states(SERVER_STEPS.items()),
    "client-states": lambda: states(CLIENT_STEPS.items()),
    "session-states": lambda: states(SESSION_STEPS.items()),
    "path-states": lambda: states(PATH_STEPS.items()),
    "limits": limits_table,
    "refusals": refusals_table,
    "errors": errors_tree,
    "spellings": spellings_table,
    **{f"bytes-{name}": functools.partial(_recording, name) for name in conversations.NAMES},
    **draw_tcrp2.DRAWINGS,
}


def pages() -> list[Path]:
    """Return every page that people read."""
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def redraw(text: str) -> str:
    """Return a page with every drawn part renewed. Raises ``KeyError`` for a name nobody draws."""
    return _MARK.sub(lambda found: found[1] + DRAWINGS[found[2]]() + found[4], text)


def stale_pages(among: Iterable[Path]) -> list[Path]:
    """Return the pages whose drawn parts are not what the code says now."""
    return [page for page in among if redraw(text := page.read_text(encoding="utf-8")) != text]


def main() -> None:
    """Renew every page and picture."""
    for picture, text in stale_pictures().items():
        picture.write_text(text, encoding="utf-8")
        print(f"redrew {picture.relative_to(ROOT)}")
    for page in stale_pages(pages()):
        page.write_text(redraw(page.read_text(encoding="utf-8")), encoding="utf-8")
        print(f"redrew {page.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
