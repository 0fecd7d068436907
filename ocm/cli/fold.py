"""Long lines on a narrow screen: broken between words, as the terminal would not."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_COLUMNS_MIN: Final = 20
"""A screen narrower than this is left to itself."""
_INDENT: Final = "  "
"""Before what goes on: nobody's text can look like another line."""
_WORD: Final = re.compile(r" *[^ ]+")
_WIDE: Final = frozenset("WF")
_WITHOUT_WIDTH: Final = frozenset({"Mn", "Me", "Cf"})


def fold(line: str, columns: int) -> str:
    """Return ``line`` with line feeds and an indent for some of its spaces, so that its words fit into ``columns``.

    A word that is longer than that goes on where it is: an address stays one that can be copied. Nor is a line changed
    that begins with a space: what stands there is meant to be typed as it is.
    """
    if columns < _COLUMNS_MIN or line.startswith(" ") or width(line) <= columns:
        return line
    folded, used, room = "", 0, columns - len(_INDENT)
    for word in _WORD.findall(line):
        size = width(word)
        bare = word.lstrip(" ")
        if used and used + size > columns and width(bare) <= room:
            folded, used = f"{folded}\n{_INDENT}{bare}", len(_INDENT) + width(bare)
        else:
            folded, used = folded + word, (used + size) % columns if used + size > columns else used + size
    return folded


def width(text: str) -> int:
    """Return how many columns a text takes on a terminal: two for most characters of East Asia (UAX 11)."""
    return sum(_width_of(char) for char in text)


def _width_of(char: str) -> int:
    if unicodedata.category(char) in _WITHOUT_WIDTH:
        return 0
    return 2 if unicodedata.east_asian_width(char) in _WIDE else 1
