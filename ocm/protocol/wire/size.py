"""The 29-byte size field in every spelling found in the wild, read and written back as the peer spelled it.

The assignment says 29 bytes and no more, so programs disagree. A field means one number in one spelling, by
the first rule that fits; these are the ambiguous ones and what we chose (``docs/protocol.md`` has examples):

* 25 zero bytes in front make it big-endian, the common spelling (so all zeros are);
* ASCII digits win over little-endian: ``"5"`` and 28 NUL is 5, not 53. A little-endian peer that sends
  48..57 bytes is misread, and its packet is refused or waits for its deadline;
* digits must be canonical (no sign, no leading zero unless the field is digits throughout);
* 25 zero bytes behind make it little-endian, which covers the programs that put the size into the first
  byte; anything else is a big-endian number of 2**32 or more, which no limit allows.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, assert_never

from ocm.errors import LocalProtocolError

SIZE_FIELD: Final = 29
"""Width of the field, in bytes."""
_BARE: Final = 25
"""So many zero bytes leave four for a number no limit of ours reaches."""


class Spelling(Enum):
    """How a program writes a number into 29 bytes."""

    BIG_ENDIAN = "big-endian integer"
    DIGITS_NUL = "ASCII digits, NUL behind"
    DIGITS_SPACE = "ASCII digits, spaces behind"
    DIGITS_ZERO = "29 ASCII digits, zeros in front"
    DIGITS_RIGHT = "ASCII digits, spaces in front"
    LITTLE_ENDIAN = "little-endian integer, or the first byte"


def read_size(raw: bytes) -> tuple[int, Spelling]:
    """Return the number in ``raw`` (29 bytes) and how it is spelled.

    Any bytes are refused or have one spelling: ``write_size(*read_size(raw)) == raw``. The number may be as
    large as 2**232 - 1: compare it with a limit before anything else. What fits no other rule is big-endian,
    and huge.
    """
    if not any(raw[:_BARE]):
        return int.from_bytes(raw, "big"), Spelling.BIG_ENDIAN
    spelling = _digits_spelling(raw)
    if spelling is not None:
        return int(raw.strip(b"\0 ")), spelling
    if not any(raw[-_BARE:]):
        return int.from_bytes(raw, "little"), Spelling.LITTLE_ENDIAN
    return int.from_bytes(raw, "big"), Spelling.BIG_ENDIAN


def write_size(size: int, spelling: Spelling = Spelling.BIG_ENDIAN) -> bytes:
    """Write ``size`` into 29 bytes. Raises ``LocalProtocolError`` when it does not fit the spelling."""
    if not 0 <= size < 256**SIZE_FIELD:
        raise LocalProtocolError("size does not fit 29 bytes")
    digits = b"%d" % size
    match spelling:
        case Spelling.BIG_ENDIAN:
            return size.to_bytes(SIZE_FIELD, "big")
        case Spelling.LITTLE_ENDIAN:
            if size >> 32:
                raise LocalProtocolError("size does not fit 4 little-endian bytes")
            return size.to_bytes(SIZE_FIELD, "little")
        case Spelling.DIGITS_NUL:
            raw = digits.ljust(SIZE_FIELD, b"\0")
        case Spelling.DIGITS_SPACE:
            raw = digits.ljust(SIZE_FIELD, b" ")
        case Spelling.DIGITS_ZERO:
            raw = digits.rjust(SIZE_FIELD, b"0")
        case Spelling.DIGITS_RIGHT:
            raw = digits.rjust(SIZE_FIELD, b" ")
        case _:
            assert_never(spelling)
    if len(raw) != SIZE_FIELD:
        raise LocalProtocolError("size does not fit 29 digits")
    return raw


def _digits_spelling(raw: bytes) -> Spelling | None:
    """Return which of the digit spellings ``raw`` is, if it is one, canonically."""
    digits = raw.strip(b"\0 ")
    if not digits.isdigit():
        return None
    number = int(digits)
    if len(digits) == SIZE_FIELD:
        return Spelling.DIGITS_ZERO
    for spelling in (Spelling.DIGITS_NUL, Spelling.DIGITS_SPACE, Spelling.DIGITS_RIGHT):
        if write_size(number, spelling) == raw:
            return spelling
    return None
