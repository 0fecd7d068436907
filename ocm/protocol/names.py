"""User and room names: read from the wire, compared, and kept from looking like one another."""

import unicodedata
from collections.abc import Mapping
from typing import Final

from ocm.errors import RemoteProtocolError
from ocm.protocol.text import BLANK, VARIATION_SELECTORS, safe_text

USER_NAME_SIZE_MAX: Final = 255
"""Bytes of UTF-8; a name has to fit a size field of one byte."""

RESERVED: Final = ("ocm", "server", "system", "サーバー", "サーバ", "システム")
"""Names under which ocm itself would seem to speak. ``host`` is a role, and in use as a name."""

_LOOK_ALIKES: Final[Mapping[str, str]] = {  # in escapes, since nobody can review what looks alike
    "a": "\u0430\u03b1\u0251\u1d00",
    "b": "\u0432\u03b2\u0299",
    "c": "\u0441\u1d04",
    "d": "\u0501\u0111\u1d05",
    "e": "\u0435\u03b5\u1d07",
    "f": "\ua730",
    "g": "\u0261\u0262",
    "h": "\u043d\u04bb\u0570\u0127\u029c",
    "j": "\u0458\u03f3\u1d0a",
    "k": "\u043a\u03ba\u0138\u1d0b",
    "l": "1|i\u0131\u0142\u0456\u04cf\u03b9\u0269\u026a\u029f",  # aIice, alice
    "n": "\u03b7\u0578\u0274",
    "o": "0\u043e\u03bf\u0585\u00f8\u1d0f",
    "p": "\u0440\u03c1\u1d18",
    "q": "\u051b",
    "r": "\u0280",
    "rn": "m\u043c\u03bc\u1d0d",
    "s": "\u0455\ua731",
    "t": "\u0442\u03c4\u0167\u1d1b",
    "u": "\u03c5\u057d\u1d1c",
    "v": "\u03bd\u0475\u1d20",
    "vv": "w\u051d\u1d21",
    "x": "\u0445\u03c7",
    "y": "\u0443\u03b3\u04af\u028f",
    "z": "\u03b6\u1d22",
    "-": "\u2010\u2013\u2014\u2015\u2212\u30fc\u4e00",  # the long vowel, the ideograph one
    "'": "`\u2018\u2019\u02bc",
    " ": "\u2800",
    "\u30a8": "\u5de5",  # from here on: katakana, and the ideographs or hiragana drawn like it
    "\u30ab": "\u529b",
    "\u30bf": "\u5915",
    "\u30c8": "\u535c",
    "\u30cb": "\u4e8c",
    "\u30cf": "\u516b",
    "\u30d8": "\u3078",
    "\u30ed": "\u53e3",
}
_TO_SKELETON: Final = {ord(char): target for target, chars in _LOOK_ALIKES.items() for char in chars}
# Default-ignorable without being Cf: combining grapheme joiner, fillers, variation selectors.
_SHOWS_NOTHING: Final = BLANK | VARIATION_SELECTORS
_SPELLING_CLASSES: Final = frozenset((0, 7, 8, 9, *range(84, 200)))
"""Combining classes of marks that spell: Indic and Thai vowels and tones, voiced kana."""


def fold(name: str) -> str:
    """The form in which two spellings of a name are equal: NFKC, case-fold, NFKC again.

    Idempotent. Without the first step it would not be; without the last, case-folding leaves
    some text decomposed.
    """
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def skeleton(name: str) -> str:
    """What is left of a name at a glance: two names clash when their skeletons are equal.

    Shaped like UTS #39, section 4, with a small table of our own: fold, decompose, drop accents and
    what is invisible, map letters to the Latin one they look like, collapse white space. It is
    idempotent, and ``skeleton(fold(name)) == skeleton(name)``. Never shown to anybody.

    ``i``, ``l`` and ``1`` are one, as are ``0`` and ``o``, ``m`` and ``rn``. The price is that
    ``ali`` and ``all`` cannot share a room; without it ``aIice`` could stand next to ``alice``,
    since folding has made its capital an ``i``.

    Accents and vowel points go, a mark that spells stays: honest kana, Thai and Indic names differ
    by it. A Greek letter whose two cases look like two Latin letters counts as its lower-case one.
    """
    decomposed = unicodedata.normalize("NFD", fold(name))
    letters = "".join(char for char in decomposed if _counts(char))
    ordered = unicodedata.normalize("NFD", letters)  # what was dropped may have kept marks apart
    return " ".join(ordered.translate(_TO_SKELETON).split())


def user_name(raw: bytes, *, code_points_max: int) -> str:
    """Read a user name, as its owner spelled it; compare it by ``fold`` or ``skeleton``.

    Args:
        raw: UTF-8, ``USER_NAME_SIZE_MAX`` bytes at most.
        code_points_max: length of the folded name, since text may grow when folded.

    Raises:
        RemoteProtocolError: the name is not acceptable; says why, without quoting it.
    """
    name = _read(raw, what="user name", size_max=USER_NAME_SIZE_MAX)
    if len(fold(name)) > code_points_max:
        raise RemoteProtocolError(f"user name is longer than {code_points_max} characters")
    if skeleton(name) in _RESERVED_SKELETONS:
        raise RemoteProtocolError("user name is reserved")
    return name


def room_name(raw: bytes, *, size_max: int) -> str:
    """Read a room name of 1 to ``size_max`` bytes. Rooms compare as exact bytes: no folding.

    Raises:
        RemoteProtocolError: the name is not acceptable; says why, without quoting it.
    """
    return _read(raw, what="room name", size_max=size_max)


def _read(raw: bytes, *, what: str, size_max: int) -> str:
    if not raw:
        raise RemoteProtocolError(f"{what} is empty")
    if len(raw) > size_max:
        raise RemoteProtocolError(f"{what} is longer than {size_max} bytes")
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        # The repr of the cause would quote the bytes.
        raise RemoteProtocolError(f"{what} is not UTF-8") from None
    if safe_text(name) != name:
        raise RemoteProtocolError(f"{what} holds a character that cannot be shown")
    if not skeleton(name):
        raise RemoteProtocolError(f"{what} is blank")
    if name != name.strip():
        raise RemoteProtocolError(f"{what} begins or ends with white space")
    return name


def _counts(char: str) -> bool:
    category = unicodedata.category(char)
    if category == "Mn":
        return unicodedata.combining(char) in _SPELLING_CLASSES and char not in _SHOWS_NOTHING
    return category not in ("Cf", "Me") and char not in _SHOWS_NOTHING


_RESERVED_SKELETONS: Final = frozenset(map(skeleton, RESERVED))
