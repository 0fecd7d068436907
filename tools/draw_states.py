"""Draw a transition table as a picture: a column for each state, a row with an arrow for each step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Final, TypeAlias
from xml.sax.saxutils import escape

Steps: TypeAlias = Iterable[tuple[tuple[Enum, Enum], Enum]]
"""The items of a transition table: state and step, then the state after it."""

_COLUMN: Final = 128
_ROW: Final = 34
_HEAD: Final = 34
_MARGIN: Final = 14
_STYLE: Final = """
  .page { fill: #ffffff; stroke: #d0d3da } .box { fill: #eef1f6; stroke: #8a93a6 } .line { stroke: #c3c8d2 }
  .step { stroke: #2f5bd0; fill: none } .tip { fill: #2f5bd0 } text { fill: #1d2330; text-anchor: middle }
  text.what, text.aside { stroke: #ffffff; stroke-width: 5px; paint-order: stroke }
  text { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace }
  .name { font-weight: bold } .aside { font-style: italic }
  @media (prefers-color-scheme: dark) {
    .page { fill: #16181d; stroke: #3a3f4b } .box { fill: #262b36; stroke: #6c7587 } .line { stroke: #3a404d }
    .step { stroke: #8fb0ff } .tip { fill: #8fb0ff } text { fill: #e6e9ef }
    text.what, text.aside { stroke: #16181d }
  }"""


def picture(steps: Steps, first: Enum, failed: Enum | None = None) -> str:
    """Return an SVG; states stand in the order in which a conversation meets them.

    ``failed`` is where a violation leads from any state, if no step says so.
    """
    rows = [(before.name, step.value, after.name) for (before, step), after in steps]
    names = list(dict.fromkeys([first.name, *(name for before, _, after in rows for name in (before, after))]))
    if failed is not None:
        names = [*(name for name in names if name != failed.name), failed.name]
    width = len(names) * _COLUMN + 2 * _MARGIN
    height = _HEAD + (len(rows) + (failed is not None)) * _ROW + 3 * _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        f"<style>{_STYLE}\n</style>",
        f'<rect class="page" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8"/>',
    ]
    centre = {name: _MARGIN + _COLUMN * index + _COLUMN // 2 for index, name in enumerate(names)}
    for name, x in centre.items():
        parts.append(f'<line class="line" x1="{x}" y1="{_MARGIN + _HEAD}" x2="{x}" y2="{height - _MARGIN}"/>')
        left, wide = x - _COLUMN // 2 + 4, _COLUMN - 8
        parts.append(f'<rect class="box" x="{left}" y="{_MARGIN}" width="{wide}" height="{_HEAD}" rx="6"/>')
        parts.append(f'<text class="name" x="{x}" y="{_MARGIN + _HEAD // 2 + 5}">{escape(name)}</text>')
    for index, (before, step, after) in enumerate(rows):
        y = _MARGIN + _HEAD + _ROW * (index + 1)
        parts += _arrow(centre[before], centre[after], y, step)
    if failed is not None:
        y = _MARGIN + _HEAD + _ROW * (len(rows) + 1)
        parts += _arrow(centre[names[0]], centre[failed.name], y, "a violation, in any state", kind="aside")
    return "\n".join([*parts, "</svg>", ""])


def _arrow(start: int, end: int, y: int, label: str, *, kind: str = "what") -> Sequence[str]:
    if start == end:  # a loop, its label beside it
        return [
            f'<path class="step" d="M{start} {y - 8} h26 v14 h-18"/>{_tip(start + 2, y + 6, leftward=True)}',
            f'<text class="{kind}" x="{start + 32}" y="{y + 4}" style="text-anchor: start">{escape(label)}</text>',
        ]
    leftward = end < start
    stop = end + 8 if leftward else end - 8
    return [
        f'<line class="step" x1="{start}" y1="{y}" x2="{stop}" y2="{y}"/>{_tip(end, y, leftward=leftward)}',
        f'<text class="{kind}" x="{(start + end) // 2}" y="{y - 6}">{escape(label)}</text>',
    ]


def _tip(x: int, y: int, *, leftward: bool) -> str:
    back = x + 9 if leftward else x - 9
    return f'<path class="tip" d="M{x} {y} L{back} {y - 5} L{back} {y + 5} Z"/>'
