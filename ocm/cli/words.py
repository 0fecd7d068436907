"""What the commands say, in the reader's language: one catalogue file for each."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, Final, cast

LANGUAGES: Final = ("en", "ja")
_LOCALE_VARIABLES: Final = ("LC_ALL", "LC_MESSAGES", "LANG")


class Words:
    """The sentences of one language: ``words("serve.stopped")``, with the values their placeholders want."""

    def __init__(self, language: str) -> None:
        """Read the catalogue of ``language``, one of ``LANGUAGES``."""
        self.language = language
        self._table = read_catalogue(language)

    def __call__(self, key: str, /, **values: object) -> str:
        """Return the sentence ``key``. What peers wrote is escaped by the caller (``ocm.cli.show``)."""
        return self._table[key].format(**values)

    def __contains__(self, key: object) -> bool:
        """Tell whether there is a sentence of that name."""
        return key in self._table


def read_catalogue(language: str) -> Mapping[str, str]:
    """Return every sentence of a language by its dotted name."""
    source = resources.files("ocm.cli").joinpath("catalogue", f"{language}.toml")
    return dict(_flatten("", tomllib.loads(source.read_text(encoding="utf-8"))))


def choose_language(arguments: Sequence[str], environment: Mapping[str, str]) -> str:
    """Return the language to speak: what ``--lang`` says, wherever it stands, else what the locale says."""
    chosen = next((environment[name] for name in _LOCALE_VARIABLES if environment.get(name)), "")
    language = "ja" if chosen.lower().startswith("ja") else "en"
    for place, argument in enumerate(arguments):
        if argument == "--":
            break
        option, equals, value = argument.partition("=")
        if option == "--lang":
            wanted = value if equals else next(iter(arguments[place + 1 : place + 2]), "")
            language = wanted if wanted in LANGUAGES else language  # click says what is wrong with it
    return language


def _flatten(prefix: str, table: Mapping[str, Any]) -> list[tuple[str, str]]:
    sentences: list[tuple[str, str]] = []
    for key, value in table.items():
        if isinstance(value, dict):
            sentences += _flatten(f"{prefix}{key}.", cast(Mapping[str, Any], value))
        else:
            sentences.append((prefix + key, str(value)))
    return sentences
