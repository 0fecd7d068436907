"""Names are accepted or refused with a reason, and two that look alike are found out."""

import unicodedata
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocm.errors import RemoteProtocolError
from ocm.protocol import names
from ocm.protocol.names import RESERVED, USER_NAME_SIZE_MAX, fold, room_name, skeleton, user_name
from ocm.protocol.text import safe_text

# Letters with odd case or composition, marks of many classes, and the characters the table maps.
tricky = st.text(
    st.sampled_from(
        "aIi1lmw0O \u3000\u0130\u0131\u00df\u1e9e\u0345\u0390\u03b1\u03a3\u03c2"
        "\u0300\u0323\u0338\u034f\u0430\u0419\u200c\u200d"
        "\u304b\u30cf\u3078\u3099\u309a\u30fc\uff76\uff9e\u1100\u1161\u11a8\u1160\u0e34\u0e38\u0e48\u0915\u093c\u094d\U00016ff1"
        "\u0627\u0654\u064e\u13a0\uab70\u1fb3\u212a\ufb03\ufdfa\ufe0f\u20dd\u00b4\u2800"
    ),
    max_size=20,
)
texts = st.one_of(st.text(), tricky)

HONEST = [
    "Aiko",
    "愛子",
    "山田　太郎",
    "ハナコ",
    "かがみ",
    "ﾀﾛｳ",
    "葛\U000e0100城",
    "김민준",
    "王小明",
    "Jürgen",
    "Nguyễn Thị Ngọc",
    "Zoë O'Connor-Smith",
    "Дмитрий",
    "Ελένη",
    "محمد",
    "علی\u200cرضا",
    "דוד",
    "नेहा",
    "ชูชาติ",
    "தமிழ்",
    "ანა",
    "Արամ",
    "ሰላም",
    "host",
    "serverina",
    "\U0001f469\u200d\U0001f680",
    "❤\ufe0f",
    "R2-D2_x.y",
]

REFUSED = {
    "nothing": (b"", "user name is empty"),
    "one space": (b" ", "user name is blank"),
    "ideographic spaces": ("\u3000\u3000".encode(), "user name is blank"),
    "a blank braille cell": ("\u2800".encode(), "user name is blank"),
    "a space in front": (b" bob", "user name begins or ends with white space"),
    "an ideographic space at the end": (
        "bob\u3000".encode(),
        "user name begins or ends with white space",
    ),
    "not UTF-8": (b"caf\xe9", "user name is not UTF-8"),
    "an encoded surrogate": (b"\xed\xa0\x80", "user name is not UTF-8"),
    "an overlong NUL": (b"\xc0\x80", "user name is not UTF-8"),
    "NUL": (b"bob\0", "user name holds a character that cannot be shown"),
    "newline": (b"bob\n", "user name holds a character that cannot be shown"),
    "tab": (b"bob\tby", "user name holds a character that cannot be shown"),
    "escape": (b"\x1b[2Jbob", "user name holds a character that cannot be shown"),
    "CSI of 8 bits": ("\x9b2J".encode(), "user name holds a character that cannot be shown"),
    "override": ("\u202ebob".encode(), "user name holds a character that cannot be shown"),
    "byte order mark": ("\ufeffbob".encode(), "user name holds a character that cannot be shown"),
    "line separator": ("bob\u2028".encode(), "user name holds a character that cannot be shown"),
    "zero width space": ("b\u200bob".encode(), "user name holds a character that cannot be shown"),
    "joiner in ASCII": ("b\u200dob".encode(), "user name holds a character that cannot be shown"),
    "Hangul filler": ("\u3164".encode(), "user name holds a character that cannot be shown"),
    "tags": ("bob\U000e0041".encode(), "user name holds a character that cannot be shown"),
    "private use": ("\ue000".encode(), "user name holds a character that cannot be shown"),
    "zalgo": (("b" + "\u0300" * 9).encode(), "user name holds a character that cannot be shown"),
    "a mark in front": ("\u0338bob".encode(), "user name holds a character that cannot be shown"),
    "too many bytes": (b"a" * 256, "user name is longer than 255 bytes"),
    "too many characters": (b"a" * 33, "user name is longer than 32 characters"),
    "too many once folded": ("\ufdfa\ufdfa".encode(), "user name is longer than 32 characters"),
    "reserved": (b"server", "user name is reserved"),
    "reserved in capitals": (b"SYSTEM", "user name is reserved"),
    "reserved in full width": ("Ｏｃｍ".encode(), "user name is reserved"),
    "reserved with a Cyrillic letter": ("\u0455erver".encode(), "user name is reserved"),
    "reserved with an accent": ("sérver".encode(), "user name is reserved"),
    "reserved in Japanese": ("サーバー".encode(), "user name is reserved"),
    "reserved in half-width kana": ("ｼｽﾃﾑ".encode(), "user name is reserved"),
    "reserved with an ideograph for the long vowel": ("サ一バ一".encode(), "user name is reserved"),
}

CLASHING = [
    ("alice", "ALICE"),
    ("alice", "aIice"),
    ("alice", "\u0430lice"),
    ("alice", "a1ice"),
    ("alice", "alíce"),
    ("alice", "ａｌｉｃｅ"),
    ("alice", "ᴀʟɪᴄᴇ"),
    ("Bob", "\u0412\u043eb"),
    ("bob1", "bobl"),
    ("Tom", "\u03a4\u03bfm"),
    ("Arno", "Amo"),
    ("root", "r00t"),
    ("will", "vvill"),
    ("Paul", "\u0420\u0430ul"),
    ("strasse", "Straße"),
    ("bob smith", "bob \u3000  smith"),
    ("علی\u200cرضا", "علیرضا"),
    ("محمد", "مُحَمَّد"),
    ("ヘルパー", "へルパー"),
    ("ロボット", "口ボット"),
    ("ハナコ", "ﾊﾅｺ"),
    ("が", "か\u3099"),
    ("葛城", "葛\U000e0100城"),
    ("x", "x\u20dd"),
    ("x", "x\u034f"),
]

DISTINCT = [
    ("はな", "ばな", "ぱな"),
    ("ハナ", "バナ", "パナ"),
    ("かき", "がき", "かぎ"),
    ("びょういん", "びよういん"),
    ("ひろし", "ヒロシ"),
    ("bob", "bob2", "bob3", "bobby"),
    ("Ann", "Anna", "Anne"),
    ("jan", "jon", "jun"),
    ("Андрей", "Сергей", "Мария"),
    ("Νίκος", "Μαρία", "Ελένη"),
    ("नेहा", "निहा", "नहा"),
    ("นิด", "นุด", "นาด"),
    ("김", "감", "강"),
]


@given(texts)
def test_folding_twice_is_folding_once(name: str) -> None:
    assert fold(fold(name)) == fold(name)


@given(texts)
def test_the_skeleton_of_a_skeleton_is_itself(name: str) -> None:
    assert skeleton(skeleton(name)) == skeleton(name)


@given(texts)
def test_names_equal_once_folded_have_one_skeleton(name: str) -> None:
    assert skeleton(fold(name)) == skeleton(name)


def test_a_dropped_mark_does_not_keep_two_spellings_apart() -> None:
    assert skeleton("\u0e01\u0e48\u20dd\u093c") == skeleton("\u0e01\u093c\u0e48")


def test_these_laws_hold_for_every_character() -> None:
    for char in map(chr, range(0x110000)):
        if unicodedata.category(char) in {"Cn", "Co", "Cs"}:
            continue
        assert fold(fold(char)) == fold(char)
        assert skeleton(fold(char)) == skeleton(skeleton(char)) == skeleton(char)


@given(st.text(min_size=1), texts)
def test_nothing_invisible_makes_a_name_another_one(visible: str, name: str) -> None:
    assert skeleton(name + "\u200d\ufe0f\u00ad\u034f") == skeleton(name)
    assert skeleton("\u200b" + visible) == skeleton(visible)


@given(st.one_of(st.binary(max_size=300), texts.map(lambda text: text.encode(errors="surrogatepass"))))
def test_any_bytes_are_a_name_or_refused(raw: bytes) -> None:
    try:
        name = user_name(raw, code_points_max=32)
    except RemoteProtocolError:
        return
    assert name.encode() == raw
    assert safe_text(name) == name == name.strip()
    assert 1 <= len(fold(name)) <= 32
    assert skeleton(name) not in map(skeleton, RESERVED)


@given(st.one_of(st.binary(max_size=70), texts.map(lambda text: text.encode(errors="surrogatepass"))))
def test_any_bytes_are_a_room_or_refused(raw: bytes) -> None:
    try:
        room = room_name(raw, size_max=64)
    except RemoteProtocolError:
        return
    assert room.encode() == raw
    assert 1 <= len(raw) <= 64
    assert safe_text(room) == room == room.strip()


@given(st.binary(min_size=4, max_size=300))
def test_a_refusal_does_not_quote_the_name(raw: bytes) -> None:
    canary = b"\x00canary" + raw
    with pytest.raises(RemoteProtocolError) as refusal:
        user_name(canary, code_points_max=32)
    assert "canary" not in repr(refusal.value)
    assert refusal.value.__context__ is None or refusal.value.__suppress_context__


@pytest.mark.parametrize("name", HONEST)
def test_honest_names_are_kept_as_they_are_spelled(name: str) -> None:
    assert user_name(name.encode(), code_points_max=32) == name
    assert room_name(name.encode(), size_max=255) == name


@pytest.mark.parametrize(("raw", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_a_refusal_says_why(raw: bytes, reason: str) -> None:
    with pytest.raises(RemoteProtocolError) as refusal:
        user_name(raw, code_points_max=32)
    assert str(refusal.value) == reason


def test_the_largest_names_are_accepted() -> None:
    assert user_name(b"a" * USER_NAME_SIZE_MAX, code_points_max=255) == "a" * 255
    assert user_name("\u0430".encode() * 32, code_points_max=32) == "\u0430" * 32
    assert room_name(b"r" * 64, size_max=64) == "r" * 64


@pytest.mark.parametrize("word", RESERVED)
def test_reserved_words_are_free_for_rooms(word: str) -> None:
    assert room_name(word.encode(), size_max=64) == word


def test_rooms_are_not_folded() -> None:
    assert room_name("Ｌｏｂｂｙ".encode(), size_max=64) == "Ｌｏｂｂｙ"


def test_a_room_refusal_says_what_was_refused() -> None:
    with pytest.raises(RemoteProtocolError, match=r"^room name is longer than 64 bytes$"):
        room_name(b"r" * 65, size_max=64)
    with pytest.raises(RemoteProtocolError, match=r"^room name is empty$"):
        room_name(b"", size_max=64)


@pytest.mark.parametrize(("one", "other"), CLASHING)
def test_names_that_look_alike_clash(one: str, other: str) -> None:
    assert skeleton(one) == skeleton(other)


@pytest.mark.parametrize("group", DISTINCT)
def test_honest_names_do_not_clash(group: tuple[str, ...]) -> None:
    for one, other in combinations(group, 2):
        assert skeleton(one) != skeleton(other)


def test_kana_that_differ_by_a_voicing_mark_do_not_clash() -> None:
    kana = map(chr, range(0x3041, 0x30FF))
    voiced = [char for char in kana if len(unicodedata.normalize("NFD", char)) > 1]
    assert len(voiced) > 50
    for char in voiced:
        plain = unicodedata.normalize("NFD", char)[0]
        assert skeleton(char) != skeleton(plain)


def test_no_line_of_the_look_alike_table_is_dead_or_doubled() -> None:
    listed = "".join(names._LOOK_ALIKES.values())
    assert len(set(listed)) == len(listed)
    for target, chars in names._LOOK_ALIKES.items():
        assert {skeleton(f"x{char}y") for char in chars} == {skeleton(f"x{target}y")}
        assert all(unicodedata.normalize("NFD", fold(char)) == char for char in chars)
