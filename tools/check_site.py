"""Check the built site: every page of ``docs`` is in it, and nothing in it is loaded from elsewhere when it is read."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
LOADING: Final = {
    "script": ("src",),
    "img": ("src", "srcset"),
    "iframe": ("src",),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
    "object": ("data",),
    "embed": ("src",),
    "link": ("href",),
}
"""Attributes by which a browser loads something without being asked."""
FETCHING: Final = frozenset({"mermaid", "glightbox", "pyodide", "arithmatex"})
"""Classes for which the theme fetches a script from elsewhere."""
_STYLE_URL: Final = re.compile(r"""(?:@import\s+|url\()["']?((?:https?:)?//[^"')]+)""")


class _Loads(HTMLParser):
    """Collects what a page loads from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.found += [
            value
            for name in LOADING.get(tag, ())
            if re.match(r"(?:https?:)?//", value := given.get(name) or "") and given.get("rel") != "canonical"
        ]
        self.found += [f"class {name}" for name in FETCHING.intersection((given.get("class") or "").split())]


def loads(page: str) -> list[str]:
    """Return what a page of HTML loads from elsewhere."""
    parser = _Loads()
    parser.feed(page)
    return parser.found + _STYLE_URL.findall("".join(re.findall(r"<style.*?</style>", page, re.DOTALL)))


def problems(site: Path) -> list[str]:
    """Say what is wrong with a site."""
    wrong = [
        f"{page.relative_to(site)}: loads {what}"
        for page in sorted(site.rglob("*.html"))
        for what in loads(page.read_text(encoding="utf-8"))
    ]
    wrong += [
        f"{sheet.relative_to(site)}: loads {what}"
        for sheet in sorted([*site.rglob("*.css"), *site.rglob("*.svg")])
        for what in _STYLE_URL.findall(sheet.read_text(encoding="utf-8"))
    ]
    pages = [page.relative_to(ROOT / "docs").with_suffix(".html") for page in ROOT.glob("docs/**/*.md")]
    wrong += [f"{page}: not built" for page in pages if not (site / page).exists()]
    if not (site / "search.js").exists():
        wrong.append("search.js: not built; without it there is no search in the file system")
    return wrong


def main() -> None:
    """Print what is wrong and exit with 1, or say that all is well."""
    found = problems(Path(sys.argv[1]))
    for problem in found:
        print(problem, file=sys.stderr)
    if found:
        sys.exit(1)
    print(f"docs: {sys.argv[1]}/index.html reads without a network")


if __name__ == "__main__":
    main()
