"""Hostile text never reaches a screen, honest text reaches it unchanged."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocm.errors import LocalProtocolError
from ocm.protocol.text import MARKS_MAX, REPLACEMENT, isolate, safe_text, shorten

DANGEROUS = {"Cc", "Cs", "Co", "Zl", "Zp"}
JOINERS = "\u200c\u200d"
SELECTORS = "\ufe0e\ufe0f\U000e0100\u180b"
EXPLICIT_DIRECTION = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}

# Characters judged by their neighbours, so that random text meets every combination of them.
tricky = st.text(
    st.sampled_from("a1 \t\r\n\u0301\u0338\u20e3\u034f\u3000\u094d\u0915\U0001f469\ufffd\u202e" + JOINERS + SELECTORS),
    max_size=40,
)
texts = st.one_of(st.text(st.characters()), tricky)

ESCAPED = {
    "colour by CSI": ("\x1b[31mred\x1b[0m", "\ufffd[31mred\ufffd[0m"),
    "title by OSC": ("\x1b]0;owned\x07", "\ufffd]0;owned\ufffd"),
    "clipboard by OSC 52": ("\x1b]52;c;cm0=\x1b\\", "\ufffd]52;c;cm0=\ufffd\\"),
    "query by DCS": ("\x1bP$q\x1b\\", "\ufffdP$q\ufffd\\"),
    "CSI of 8 bits": ("\x9b2J", "\ufffd2J"),
    "OSC of 8 bits": ("\x9d0;owned\x9c", "\ufffd0;owned\ufffd"),
    "NUL": ("a\0b", "a\ufffdb"),
    "bell and DEL": ("\x07\x7f", "\ufffd\ufffd"),
    "overprinting by backspace": ("no\b\byes", "no\ufffd\ufffdyes"),
    "overprinting by carriage return": ("<eve> hi\r<bob>", "<eve> hi\ufffd<bob>"),
    "a forged line": ("hi\n<bob> yes", "hi\ufffd<bob> yes"),
    "every other line separator": ("\v\f\x1c\x1d\x1e\x85\u2028\u2029", "\ufffd" * 8),
    "right-to-left override": ("txt.\u202eexe", "txt.\ufffdexe"),
    "embeddings": ("\u202a\u202b\u202c\u202d", "\ufffd" * 4),
    "isolates that were not closed": ("\u2066\u2067\u2068\u2069", "\ufffd" * 4),
    "direction marks": ("\u200e\u200f\u061c", "\ufffd" * 3),
    "byte order mark": ("\ufeffbob", "\ufffdbob"),
    "soft hyphen, zero width space, word joiner": ("a\u00ad\u200b\u2060b", "a\ufffd\ufffd\ufffdb"),
    "text hidden in tags": ("hi\U000e0041\U000e007f", "hi\ufffd\ufffd"),
    "interlinear annotation": ("\ufff9a\ufffab\ufffb", "\ufffda\ufffdb\ufffd"),
    "Hangul fillers": ("\u115f\u1160\u3164\uffa0", "\ufffd" * 4),
    "blank marks": ("a\u034f\u17b4\u17b5", "a\ufffd\ufffd\ufffd"),
    "lone surrogates": ("\ud800\udfff", "\ufffd\ufffd"),
    "private use": ("\ue000\uf8ff\U0010fffd", "\ufffd" * 3),
    "noncharacters": ("\uffff\ufdd0\U0001fffe", "\ufffd" * 3),
    "unassigned": ("\u0378\U000e0fff", "\ufffd\ufffd"),
    "zalgo": ("h" + "\u0300" * 99 + "i", "h" + "\u0300" * MARKS_MAX + "i"),
    "zalgo around joiners": (
        "é" + "\u0300\u200d" * 9,
        "é" + "\u0300\u200d" * 7 + "\u0300\ufffd\ufffd",
    ),
    "a mark over what we printed": ("\u0338\u0338bob", "\ufffd\u0338bob"),
    "joiner at an end": ("\u200d\u0645\u200c", "\ufffd\u0645\ufffd"),
    "joiner next to a space": ("\u0645\u200c \u200c\u0645", "\u0645\ufffd \ufffd\u0645"),
    "joiners in a row": ("\u0645\u200c\u200c\u0645", "\u0645\ufffd\ufffd\u0645"),
    "joiner between ASCII letters": ("pass\u200dword", "pass\ufffdword"),
    "bytes hidden in selectors": ("\u263a\ufe00\ufe01\U000e01ef", "\u263a\ufe00\ufffd\ufffd"),
    "selector after nothing, a space, a letter": ("\ufe0f \ufe0fa\ufe0f", "\ufffd \ufffda\ufffd"),
    "selector after a joiner": ("\u2764\u200d\ufe0f", "\u2764\ufffd\ufffd"),
    "tab": ("a\tb", "a b"),
}

HONEST = {
    "ASCII": "Hello, world! ~",
    "Japanese": "こんにちは、山田　太郎です。がぎぐ パピプ",
    "decomposed kana": "か\u3099は\u309a",
    "ideographic variation": "葛\U000e0100城市",
    "a rare ideograph, perhaps newer than our tables": "\U00020bb7\U000323af\U0002ebf0",
    "Vietnamese, decomposed": unicodedata.normalize("NFD", "Nguyễn Thị Ngọc"),
    "Thai": "สวัสดีครับ ที่นี่",
    "Hindi with a joiner": "क्\u200dष नमस्ते",
    "Bengali with a joiner": "র\u200d্যাব",
    "Persian with non-joiners": "می\u200cخواهم",
    "Arabic with vowel points": "مُحَمَّدٌ",
    "Hebrew": "שָׁלוֹם",
    "Korean": "안녕하세요 \u1112\u1161\u11ab",
    "Tibetan": "བསྒྲུབས་",
    "Greek and Russian": "Καλημέρα Привет, ёжик",
    "family": "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466",
    "astronaut with a skin tone": "\U0001f469\U0001f3fd\u200d\U0001f680",
    "heart on fire, two sequences in one": "\u2764\ufe0f\u200d\U0001f525",
    "flags": "\U0001f1ef\U0001f1f5\U0001f1e9\U0001f1ea",
    "keycap": "1\ufe0f\u20e3#\ufe0f\u20e3",
    "emoji and text presentation": "\u2602\ufe0f\u2602\ufe0e\u203c\ufe0f",
    "an emoji newer than Python 3.11": "\U0001fae8",
    "mathematics": "∀x∈ℝ: ⌈x⌉ ≠ −x",
}


@given(texts, st.booleans())
def test_no_character_that_acts_on_a_screen_comes_out(text: str, newlines: bool) -> None:
    for char in safe_text(text, newlines=newlines):
        if char == "\n":
            assert newlines
        else:
            assert unicodedata.category(char) not in DANGEROUS
            assert unicodedata.category(char) != "Cf" or char in JOINERS
            assert unicodedata.bidirectional(char) not in EXPLICIT_DIRECTION


@given(texts, st.booleans())
def test_safe_text_is_left_as_it_is(text: str, newlines: bool) -> None:
    safe = safe_text(text, newlines=newlines)
    assert safe_text(safe, newlines=newlines) == safe


@given(texts, st.booleans())
def test_safe_text_is_never_longer_and_can_be_encoded(text: str, newlines: bool) -> None:
    safe = safe_text(text, newlines=newlines)
    assert len(safe) <= len(text)
    assert safe.encode().decode() == safe


@given(texts)
def test_without_newlines_there_is_one_line(text: str) -> None:
    assert len(safe_text(text).splitlines()) <= 1


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)))
def test_printable_ascii_is_not_touched(text: str) -> None:
    assert isolate(safe_text(text)) == text


@given(texts)
def test_marks_in_a_row_are_limited(text: str) -> None:
    run = 0
    for char in safe_text(text):
        is_mark = unicodedata.category(char).startswith("M") and char not in SELECTORS
        run = run + 1 if is_mark else 0
        assert run <= MARKS_MAX


@given(texts)
def test_isolates_are_balanced_on_every_line(text: str) -> None:
    for line in isolate(safe_text(text, newlines=True)).split("\n"):
        wrapped = line.startswith("\u2068") and line.endswith("\u2069")
        assert line.count("\u2068") == line.count("\u2069") == int(wrapped)


@given(texts, st.integers(min_value=1, max_value=50))
def test_a_shortened_text_is_safe_and_within_its_limit(text: str, limit: int) -> None:
    short = shorten(text, limit=limit)
    assert len(short) <= limit
    assert safe_text(short) == short


@pytest.mark.parametrize(("text", "shown"), ESCAPED.values(), ids=ESCAPED.keys())
def test_hostile_text_is_shown_and_not_obeyed(text: str, shown: str) -> None:
    assert safe_text(text) == shown


@pytest.mark.parametrize("text", HONEST.values(), ids=HONEST.keys())
def test_honest_text_is_not_touched(text: str) -> None:
    assert safe_text(text) == text


def test_every_code_point_alone_is_harmless() -> None:
    for code_point in (*range(0x40000), *range(0xE0000, 0xF0000), 0xF0000, 0x10FFFF):
        safe = safe_text(chr(code_point))
        assert len(safe) == 1
        assert unicodedata.category(safe) not in DANGEROUS | {"Cf"}
        assert safe == REPLACEMENT or not unicodedata.category(safe).startswith("M")


def test_message_bodies_keep_newlines_and_nothing_else_that_breaks_lines() -> None:
    assert safe_text("a\nb\r\nc\rd\x85e\u2028f", newlines=True) == "a\nb\nc\ufffdd\ufffde\ufffdf"
    assert safe_text("a\n\u0338b", newlines=True) == "a\n\ufffdb"


@pytest.mark.parametrize(
    "worst",
    ["\u0300", "\u200d", "\ufe0f", "\u0645\u200c", "\x1b[", "\ud800", "\u202e", "\r\r\n", "\ufdfa"],
)
def test_a_long_text_of_the_worst_characters_is_one_pass(worst: str) -> None:
    text = worst * 100_000
    assert len(safe_text(text, newlines=True)) <= len(text)


@pytest.mark.parametrize("text", ["", "plain", "こんにちは", "Привет 123", "\U0001f469\u200d\U0001f680"])
def test_left_to_right_text_gets_no_invisible_characters(text: str) -> None:
    assert isolate(text) == text


@pytest.mark.parametrize("text", ["שלום", "مرحبا!", "bob (שלום)", "\u0661\u0662"])
def test_right_to_left_text_is_isolated(text: str) -> None:
    assert isolate(text) == f"\u2068{text}\u2069"


def test_each_line_is_isolated_for_itself() -> None:
    assert isolate("hi\nשלום\nשלום") == "hi\n\u2068שלום\u2069\n\u2068שלום\u2069"


def test_a_short_text_is_not_shortened() -> None:
    assert shorten("12345", limit=5) == "12345"
    assert shorten("123456", limit=5) == "1234\u2026"
    assert shorten("ab", limit=1) == "\u2026"


def test_a_cut_leaves_no_joiner_behind() -> None:
    assert shorten("\U0001f468\u200d\U0001f469\u200d\U0001f467", limit=3) == "\U0001f468\u2026"


def test_a_limit_without_room_is_our_own_mistake() -> None:
    with pytest.raises(LocalProtocolError):
        shorten("", limit=0)
