"""What a peer wrote, made safe for a screen and for a log.

Every user interface and the logger show text of a peer through ``safe_text``; around it they put
``isolate``, so that right-to-left text cannot reorder the line it stands in. Both take linear time.
"""

import unicodedata
from typing import Final

from ocm.errors import LocalProtocolError

REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
MARKS_MAX: Final = 8
"""Combining marks in a row. Scripts need about five; the 30 of UAX #15 would cover other lines."""

BLANK: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
"""Letters and marks that show nothing: default-ignorable, though Unicode calls none of them Cf."""
VARIATION_SELECTORS: Final = frozenset(
    map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0), 0x180B, 0x180C, 0x180D, 0x180F))
)
"""Characters that choose the shape of the one before them."""

_ELLIPSIS: Final = "\N{HORIZONTAL ELLIPSIS}"
_JOINERS: Final = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
_KEYCAPS: Final = frozenset("0123456789#*")  # the ASCII that is the start of an emoji
_HOSTILE: Final = frozenset(("Cc", "Cf", "Cs", "Co", "Zl", "Zp"))
_NOT_YET_ASSIGNED: Final = ((0x1F300, 0x1FAFF), (0x20000, 0x2FFFD), (0x30000, 0x3FFFD))
_RIGHT_TO_LEFT: Final = frozenset(("R", "AL", "AN"))
_FSI: Final = "\N{FIRST STRONG ISOLATE}"
_PDI: Final = "\N{POP DIRECTIONAL ISOLATE}"


def safe_text(text: str, *, newlines: bool = False) -> str:
    r"""Replace, by U+FFFD, what could act on a screen instead of being read on it. Idempotent.

    - Controls (C0, DEL, C1), format characters (direction, tags, soft hyphen, BOM, ...),
      surrogates, line and paragraph separators, and letters that show nothing (Hangul fillers).
    - Also private-use characters, whose meaning is up to the terminal, and unassigned ones, except
      in the blocks kept for emoji and ideographs: a peer's Unicode may be newer than ours.
    - Joiners stay between two visible characters that are not ASCII (emoji, Persian, Indic), and
      one variation selector stays after a visible character. Anywhere else they hide something.
    - A tab becomes a space. Of the marks in a row ``MARKS_MAX`` stay and the rest is dropped. A
      mark that begins a line is replaced: it would be drawn over what we printed before it.

    Args:
        text: anything, lone surrogates included.
        newlines: keep ``\n``, and read ``\r\n`` as one; for message bodies.
    """
    if text.isascii() and text.isprintable():  # beyond ASCII isprintable() is not enough
        return text
    if newlines:
        text = text.replace("\r\n", "\n")
    return _judge_joiners(_judge_alone(text, newlines=newlines))


def isolate(text: str) -> str:
    """Wrap each line of a safe text that holds right-to-left characters in FSI ... PDI (UAX #9).

    Other text is returned as it is, so that pipes and ``grep`` meet no invisible bytes. Each line
    is wrapped for itself because an isolate ends with its paragraph. Call it on what ``safe_text``
    returned, never before it.
    """
    if text.isascii():
        return text
    return "\n".join(_isolate_line(line) for line in text.split("\n"))


def shorten(text: str, *, limit: int) -> str:
    """Make ``text`` safe and cut it, with an ellipsis, to ``limit`` code points; for logs.

    Raises:
        LocalProtocolError: ``limit`` leaves no room for the ellipsis.
    """
    if limit < 1:
        raise LocalProtocolError(f"cannot shorten to {limit} code points")
    safe = safe_text(text)
    if len(safe) <= limit:
        return safe
    return safe[: limit - 1].rstrip(_JOINERS) + _ELLIPSIS


def _judge_alone(text: str, *, newlines: bool) -> list[str]:
    kept: list[str] = []
    marks = 0
    for char in text:
        if char in _JOINERS or char in VARIATION_SELECTORS:
            kept.append(char)  # its neighbours decide; it does not start a new run of marks
        elif _is_mark(char):
            marks += 1
            if not kept or kept[-1] == "\n":
                kept.append(REPLACEMENT)
            elif marks <= MARKS_MAX:
                kept.append(char)
        else:
            marks = 0
            kept.append(char if newlines and char == "\n" else _visible(char))
    return kept


def _judge_joiners(kept: list[str]) -> str:
    for index, char in enumerate(kept):  # in place: ``before`` is as it will be shown
        before = kept[index - 1] if index else ""
        if char in _JOINERS:
            after = kept[index + 1] if index + 1 < len(kept) else ""
            if not (_can_join(before) and _can_join(after) and after not in VARIATION_SELECTORS):
                kept[index] = REPLACEMENT
        elif char in VARIATION_SELECTORS and not _can_vary(before):
            kept[index] = REPLACEMENT
    return "".join(kept)


def _visible(char: str) -> str:
    if char == "\t":
        return " "
    category = unicodedata.category(char)
    if category == "Cn":
        hostile = not any(first <= ord(char) <= last for first, last in _NOT_YET_ASSIGNED)
    else:
        hostile = category in _HOSTILE or char in BLANK
    return REPLACEMENT if hostile else char


def _is_mark(char: str) -> bool:
    return unicodedata.category(char).startswith("M") and char not in BLANK


def _can_join(char: str) -> bool:
    return not (char.isascii() or char.isspace() or char == REPLACEMENT or char in _JOINERS)


def _can_vary(char: str) -> bool:
    return char in _KEYCAPS or (_can_join(char) and not _is_mark(char))


def _isolate_line(line: str) -> str:
    if any(unicodedata.bidirectional(char) in _RIGHT_TO_LEFT for char in line):
        return f"{_FSI}{line}{_PDI}"
    return line
