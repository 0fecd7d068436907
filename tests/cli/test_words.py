"""The catalogues: the same sentences in every language, and every sentence that is asked for."""

import re
import string
from pathlib import Path

import pytest

import ocm
from ocm.cli.words import LANGUAGES, Words, choose_language, read_catalogue

SOURCES = "\n".join(path.read_text() for path in Path(ocm.__file__).parent.glob("cli/*.py"))


def placeholders(sentence: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(sentence) if name is not None}


def test_languages_have_the_same_sentences_with_the_same_placeholders() -> None:
    english, japanese = ({key: placeholders(text) for key, text in read_catalogue(one).items()} for one in LANGUAGES)
    assert english == japanese


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_sentence_that_is_asked_for_exists(language: str) -> None:
    words = Words(language)
    asked = re.findall(r'"((?:usage|option|serve|chat|path|not_sent|fault|demo|refusal|trust)\.[a-z_]+)"', SOURCES)
    assert len(asked) > 70
    assert [key for key in asked if key not in words] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_reason_and_refusal_has_a_sentence(language: str) -> None:
    words = Words(language)
    for reason in ocm.Reason:
        assert words(f"reason.{reason.name.lower()}")
    for refusal in ocm.Refusal:
        assert words(f"refusal.{refusal.value}")


def test_japanese_is_japanese() -> None:
    plain = [key for key, text in read_catalogue("ja").items() if text.isascii()]
    assert plain == ["fault.other"]


@pytest.mark.parametrize(
    ("arguments", "environment", "language"),
    [
        ([], {}, "en"),
        ([], {"LANG": "ja_JP.UTF-8"}, "ja"),
        ([], {"LANG": "ja_JP.UTF-8", "LC_ALL": "C"}, "en"),
        ([], {"LANG": "C", "LC_MESSAGES": "ja_JP.eucJP"}, "ja"),
        ([], {"LC_ALL": "", "LANG": "ja"}, "ja"),
        (["--lang", "ja", "chat"], {}, "ja"),
        (["chat", "--lang=en"], {"LANG": "ja_JP.UTF-8"}, "en"),
        (["chat", "--lang"], {"LANG": "ja_JP.UTF-8"}, "ja"),
        (["chat", "--lang", "xx"], {}, "en"),
        (["chat", "--", "--lang", "ja"], {}, "en"),
    ],
)
def test_lang_overrides_the_locale(arguments: list[str], environment: dict[str, str], language: str) -> None:
    assert choose_language(arguments, environment) == language
