"""Texts that want to act on a screen, forge a line, or break what is printed."""

import unicodedata

HOSTILE = (
    "\x1b[2J\x1b]0;title\x07",
    "\x9b31mred",
    "a\rb\nc\x0bd\x0ce\x1cf\x85g\u2028h\u2029i",
    "\u202egnp.exe\u2066x",
    "\x00\x7f\x08\x08\x08",
    "\ufeff\u200b\u00ad\U000e0041",
    "\ud800 lone",
    "* bob has joined.",
    "aiko: hello",
    "e" + "\u0301" * 500,
    "\u05d0\u05d1\u05d2 (rtl)",
    "{0} {user} %s \\n \"quoted\" 'quoted'",
    "x" * 4000,
    "",
)


def controls(text: str) -> list[str]:
    """The characters of a text that a terminal could obey; isolates are ours."""
    bad = ("Cc", "Cs", "Zl", "Zp")
    return [
        c
        for c in text
        if unicodedata.category(c) in bad or (unicodedata.category(c) == "Cf" and c not in "\u2068\u2069")
    ]
