"""Check what people read: ``make check`` calls it, and it takes a few seconds.

- drawn parts are what the code says now (``tools/draw_docs.py`` renews them);
- ``python`` blocks run as they stand, each in a folder of its own, and print what their ``# prints:`` comments say
  (those with a title are files of a tutorial, which ``tests/test_tutorial.py`` follows);
- ``python`` blocks, files too, pass ``mypy --strict``;
- ``console`` blocks name commands, options, modules, files and make targets that exist;
- what a translation shows as code is what the original shows;
- relative links lead to files, and to headings in them;
- what is named as a test, ``tests/FILE.py`` or ``tests/FILE.py::NAME``, is there: pages prove their claims by tests.
"""

from __future__ import annotations

import functools
import importlib.util
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools import draw_docs  # noqa: E402

EXAMPLE_TIMEOUT_S: Final = 15.0
TRANSLATIONS: Final = {ROOT / "docs" / "ja" / "tutorial.md": ROOT / "docs" / "tutorial.md"}
"""Pages whose code is that of another page."""
_BLOCK: Final = re.compile(r"^```(\w*)(?: title=\"([^\"\n]*)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK: Final = re.compile(r"\]\(<?([^)>\s]+)>?\)")
_HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)
_TEST: Final = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
_PRINTS: Final = re.compile(r"# prints: (.*)$", re.MULTILINE)


class Block(NamedTuple):
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    title: str
    """Of a file to be written, or of a terminal: ``tools/run_tutorial.py`` follows blocks that have one."""
    text: str

    @property
    def place(self) -> str:
        """Where the block stands, for a message."""
        return f"{shown(self.page)}:{self.line}"


def shown(page: Path) -> str:
    """Name a page, for a message."""
    return str(page.relative_to(ROOT)) if page.is_relative_to(ROOT) else page.name


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, found.start()) + 1, found[1], found[2] or "", found[3])
        for found in _BLOCK.finditer(text)
    ]


def stale_drawings(pages: Iterable[Path]) -> list[str]:
    """Name the pages whose drawn parts are not what the code says, and the pictures."""
    stale = [*draw_docs.stale_pages(pages), *draw_docs.stale_pictures()]
    return [f"{shown(path)}: stale; run tools/draw_docs.py" for path in stale]


def failing_example(block: Block) -> list[str]:
    """Run one python block; say what is wrong with it."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-W", "error", "-c", block.text],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=EXAMPLE_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return [f"{block.place}: does not end within {EXAMPLE_TIMEOUT_S:.0f} s"]
    if done.returncode:
        return [f"{block.place}: exit status {done.returncode}\n{done.stderr}"]
    expected = _PRINTS.findall(block.text)
    if expected and done.stdout.splitlines() != expected:
        return [f"{block.place}: printed {done.stdout.splitlines()}, not {expected}"]
    return []


def badly_typed(pages: Iterable[Path]) -> list[str]:
    """Run ``mypy --strict`` over the python blocks of pages; say what is wrong with them."""
    with ThreadPoolExecutor() as pool:
        return _flat(pool.map(_badly_typed, _programs(pages)))


def _programs(pages: Iterable[Path]) -> Iterator[Mapping[str, Block]]:
    """Return what is checked together, by file name: blocks of their own; each state of the files of a tutorial."""
    alone: dict[str, Block] = {}
    for page in pages:
        files: dict[str, Block] = {}
        for block in (found for found in blocks(page) if found.language == "python"):
            if not block.title:
                alone[f"block_{len(alone)}.py"] = block
                continue
            if block.title in files:
                yield dict(files)
            files[block.title] = block
        if files and page not in TRANSLATIONS:
            yield files
    if alone:
        yield alone


def _badly_typed(program: Mapping[str, Block]) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        for name, block in program.items():
            Path(folder, name).write_text(block.text, encoding="utf-8")
        options = (
            "--strict",
            "--no-pretty",
            "--python-version=3.11",
            "--cache-dir",
            str(ROOT / ".mypy_cache" / "docs"),
        )
        done = subprocess.run(
            [sys.executable, "-m", "mypy", *options, *program], cwd=folder, capture_output=True, text=True, check=False
        )
    wrong: list[str] = []
    for line in done.stdout.splitlines():
        found = re.fullmatch(r"([^:/]+):(\d+): (error: .*)", line)
        if found is not None:
            block = program[found[1]]
            wrong.append(f"{shown(block.page)}:{block.line + int(found[2])}: {found[3]}")
    return wrong if wrong or not done.returncode else [f"mypy over examples: {done.stdout}{done.stderr}"]


def mistranslated(page: Path, original: Path) -> list[str]:
    """Say where the code blocks of a translation are not those of the original."""
    theirs, ours = ([(block.language, block.text) for block in blocks(one)] for one in (original, page))
    if ours == theirs:
        return []
    different = [
        f"block {number}" for number, pair in enumerate(zip(theirs, ours, strict=False), 1) if pair[0] != pair[1]
    ]
    return [f"{shown(page)}: not the code of {shown(original)}: {', '.join(different) or 'more or fewer blocks'}"]


def wrong_commands(block: Block) -> list[str]:
    """Say which commands of a console block do not exist, or lack an option that is used."""
    wrong: list[str] = []
    for line in block.text.splitlines():
        if not line.startswith("$ "):
            continue
        words = shlex.split(line.removeprefix("$ "), comments=True)
        if words[:1] == ["make"]:
            targets = [word for word in words[1:] if "=" not in word]
            wrong += [f"{block.place}: no target {target}" for target in targets if target not in _make_targets()]
        elif words and Path(words[0]).name == "ocm":
            wrong += [f"{block.place}: {problem}" for problem in _wrong_options(words[1:])]
        elif words[:2] == ["python", "-m"] and importlib.util.find_spec(words[2]) is None:
            wrong.append(f"{block.place}: no module {words[2]}")
        elif words[:1] == ["python"] and "/" in words[1] and not (ROOT / words[1]).exists():
            wrong.append(f"{block.place}: no file {words[1]}")
    return wrong


def _wrong_options(words: Sequence[str]) -> list[str]:
    command = words[0] if words and not words[0].startswith("-") else ""
    help_text = _help(command)
    if help_text is None:
        return [f"ocm knows no command {command}"]
    options = [word.split("=")[0] for word in words if word.startswith("--")]
    return [f"ocm {command} knows no {option}" for option in options if not re.search(rf"{option}\b", help_text)]


@functools.cache
def _help(command: str) -> str | None:
    """Return what ``ocm COMMAND --help`` prints, or None when there is no such command."""
    arguments = [command] if command else []
    ocm = Path(sys.executable).with_name("ocm")
    done = subprocess.run([ocm, *arguments, "--help"], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None


@functools.cache
def _make_targets() -> frozenset[str]:
    return frozenset(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def broken_links(page: Path) -> list[str]:
    """Say which relative links of a page lead nowhere."""
    text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    broken: list[str] = []
    for link in _LINK.findall(text):
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            broken.append(f"{shown(page)}: no file {link}")
        elif anchor and anchor not in anchors(target):
            broken.append(f"{shown(page)}: no heading {link}")
    return broken


def missing_tests(page: Path) -> list[str]:
    """Say which tests a page names that do not exist."""
    missing: list[str] = []
    for file, name in _TEST.findall(_BLOCK.sub("", page.read_text(encoding="utf-8"))):
        path = ROOT / file
        if not path.exists():
            missing.append(f"{shown(page)}: no file {file}")
        elif name and not re.search(rf"^(?:async )?def {name}\(", path.read_text(encoding="utf-8"), re.MULTILINE):
            missing.append(f"{shown(page)}: no test {name} in {file}")
    return missing


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, spelled as GitHub does."""
    headings = _HEADING.findall(_BLOCK.sub("", page.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def problems(pages: Sequence[Path]) -> list[str]:
    """Check pages; examples run side by side."""
    found = stale_drawings(pages)
    every_block = [block for page in pages for block in blocks(page)]
    with ThreadPoolExecutor() as pool:
        examples = [block for block in every_block if block.language == "python" and not block.title]
        found += _flat(pool.map(failing_example, examples))
        found += _flat(pool.map(wrong_commands, [block for block in every_block if block.language == "console"]))
    found += badly_typed(pages)
    found += _flat(mistranslated(page, TRANSLATIONS[page]) for page in pages if page in TRANSLATIONS)
    found += _flat(missing_tests(page) for page in pages)
    return found + _flat(broken_links(page) for page in pages)


def _flat(lists: Iterable[list[str]]) -> list[str]:
    return [item for items in lists for item in items]


def main() -> None:
    """Print what is wrong and exit with 1, or say that all is well."""
    pages = draw_docs.pages()
    found = problems(pages)
    for problem in found:
        print(problem, file=sys.stderr)
    if found:
        sys.exit(1)
    print(f"docs: {len(pages)} pages, all well")


if __name__ == "__main__":
    main()
