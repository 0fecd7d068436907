"""What people read says what the code does, and the tool that checks it catches what is wrong."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tools import check_docs, check_site, draw_docs

ROOT = Path(__file__).parents[1]


UNTYPED = "page.md:3: error: Function is missing a return type annotation  [no-untyped-def]"


def page(folder: Path, text: str) -> list[Path]:
    path = folder / "page.md"
    path.write_text(text, encoding="utf-8")
    return [path]


def drawn(name: str, text: str) -> str:
    return f"<!-- drawn: {name} -->\n{text}<!-- /drawn -->\n"


def test_every_drawn_part_is_what_the_code_says_now() -> None:
    assert check_docs.stale_drawings(draw_docs.pages()) == []


def test_every_drawing_that_can_be_made_of_the_protocol_is_shown() -> None:
    pages = "".join(path.read_text(encoding="utf-8") for path in draw_docs.pages())
    shown = {name for name in draw_docs.DRAWINGS if f"<!-- drawn: {name} -->" in pages}
    assert draw_docs.DRAWINGS.keys() - shown == {"header"}  # the control packet begins with it


def test_every_relative_link_leads_somewhere() -> None:
    assert [broken for path in draw_docs.pages() for broken in check_docs.broken_links(path)] == []


def test_every_translated_page_says_what_language_it_is_in() -> None:
    for path in check_docs.TRANSLATIONS:
        lines = path.read_text(encoding="utf-8").splitlines()
        assert (lines[0], lines[-1]) == (f'<div lang="{path.parent.name}" markdown>', "</div>")


@pytest.mark.parametrize("name", sorted(draw_docs.DRAWINGS.keys() - {"header"}))
def test_a_drawing_that_was_edited_by_hand_is_stale(tmp_path: Path, name: str) -> None:
    right = drawn(name, draw_docs.DRAWINGS[name]())
    assert check_docs.problems(page(tmp_path, right)) == []
    wrong = drawn(name, f"{draw_docs.DRAWINGS[name]()}and more\n")
    assert check_docs.problems(page(tmp_path, wrong)) == ["page.md: stale; run tools/draw_docs.py"]
    assert draw_docs.redraw(wrong) == right


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[a](missing.md)", "page.md: no file missing.md"),
        ("![a](<images/missing.svg>)", "page.md: no file images/missing.svg"),
        ("# Here\n\n[a](#there)", "page.md: no heading #there"),
        ("# Here\n\n[a](page.md#hear)", "page.md: no heading page.md#hear"),
        ("```console\n$ make tea\n```\n", "page.md:1: no target tea"),
        ("\n```console\n$ ocm brew\n```\n", "page.md:2: ocm knows no command brew"),
        ("```console\n$ .venv/bin/ocm serve --milk 2\n```\n", "page.md:1: ocm serve knows no --milk"),
        ("```console\n$ python -m ocm.milk\n```\n", "page.md:1: no module ocm.milk"),
        ("```console\n$ python examples/milk.py\n```\n", "page.md:1: no file examples/milk.py"),
        ("```python\nprint(1)\n# prints: 2\n```\n", "page.md:1: printed ['1'], not ['2']"),
        ("\n```python\ndef f(x: int):\n    pass\n```\n", UNTYPED),
        ("kept by `tests/test_nothing.py`", "page.md: no file tests/test_nothing.py"),
        ("kept by `tests/test_docs.py::test_me`", "page.md: no test test_me in tests/test_docs.py"),
    ],
)
def test_an_error_on_a_page_is_found(tmp_path: Path, text: str, problem: str) -> None:
    assert check_docs.problems(page(tmp_path, text)) == [problem]


def test_a_failing_example_is_found_with_its_error(tmp_path: Path) -> None:
    (problem,) = check_docs.problems(page(tmp_path, "# A\n\n```python\nimport ocm\nocm.Limits(rooms_max=0)\n```\n"))
    assert problem.startswith("page.md:3: exit status 1\n")
    assert "LocalProtocolError" in problem


def test_a_page_without_errors_is_well(tmp_path: Path) -> None:
    text = """# What it says

[itself](#what-it-says), [a file](page.md), [elsewhere](https://example.org/nothing#here)

Kept by `tests/test_docs.py` and `tests/test_docs.py::test_a_page_without_errors_is_well`.

```python
import ocm
print(ocm.Limits().room_size_max)
# prints: 255
```

```console
$ make demo    # [not a link](nowhere.md)
$ ocm chat --join --room lobby
```
"""
    assert check_docs.problems(page(tmp_path, text)) == []


def test_files_of_a_tutorial_are_checked_together_in_each_state(tmp_path: Path) -> None:
    old, new = "def answer() -> int:\n    return 42\n", "def answer() -> str:\n    return 'no'\n"
    user = "from deep import answer\n\nprint(answer() + 1)\n"
    files = [("deep.py", old), ("user.py", user), ("deep.py", new)]
    text = "".join(f'```python title="{name}"\n{code}```\n\n' for name, code in files)
    (problem,) = check_docs.problems(page(tmp_path, text))
    assert problem.startswith("page.md:9: error: Unsupported operand types for + ")


def test_a_translation_shows_the_code_of_the_original(tmp_path: Path) -> None:
    original, translation = tmp_path / "en.md", tmp_path / "ja.md"
    original.write_text('```python title="a.py"\nx = 1\n```\n\n```text\nhello\n```\n', encoding="utf-8")
    translation.write_text('```python title="a.py"\nx = 1\n```\n\n```text title="x"\nhello\n```\n', encoding="utf-8")
    assert check_docs.mistranslated(translation, original) == []
    translation.write_text("```python\nx = 2\n```\n", encoding="utf-8")
    assert check_docs.mistranslated(translation, original) == ["ja.md: not the code of en.md: block 1"]


@pytest.mark.parametrize(
    ("html", "found"),
    [
        ('<script src="//example.org/a.js"></script>', ["//example.org/a.js"]),
        ('<link rel="stylesheet" href="https://example.org/a.css">', ["https://example.org/a.css"]),
        ("<style>@font-face { src: url('https://example.org/a.woff') }</style>", ["https://example.org/a.woff"]),
        ('<pre class="mermaid"></pre>', ["class mermaid"]),
        ('<a href="https://example.org">a</a><img src="images/a.svg"><script src="../a.js"></script>', []),
    ],
)
def test_what_a_page_of_the_site_loads_from_elsewhere_is_found(html: str, found: list[str]) -> None:
    assert check_site.loads(html) == found


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    configuration = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))
    listed = set(re.findall(r"[\w/-]+\.md", str(configuration["project"]["nav"])))
    assert listed == {path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md")}


def test_every_example_is_listed() -> None:
    listed = re.findall(
        r"^\| `(\w+\.py)` \|", (ROOT / "docs" / "examples.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert set(listed) == {path.name for path in ROOT.glob("examples/*.py") if path.name != "__init__.py"}


def test_the_pictures_need_nothing_from_the_network() -> None:
    for picture in ROOT.glob("docs/images/*.svg"):
        text = picture.read_text(encoding="utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert "http" not in text
        assert "@font-face" not in text
