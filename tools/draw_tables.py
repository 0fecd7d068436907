"""Tables and fenced blocks of a page, and what docstrings below attributes say."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Sequence
from types import ModuleType


def documented(module: ModuleType, class_name: str) -> dict[str, str]:
    """Return the docstring below each attribute of a class, by the attribute's name."""
    tree = ast.parse(inspect.getsource(module))
    (found,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name]
    texts: dict[str, str] = {}
    for before, after in zip(found.body, found.body[1:], strict=False):
        match before, after:
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]), ast.Expr(
                value=ast.Constant(value=str(text))
            ):
                texts[name] = " ".join(text.split())
            case _:
                pass
    return texts


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Draw a table of a page."""
    lines = [" | ".join(row) for row in (head, ["---"] * len(head), *rows)]
    return "".join(f"| {line} |\n" for line in lines)


def cell(text: str) -> str:
    """Spell a docstring for a cell of a table."""
    return text.replace("``", "`").replace("|", "\\|")


def fenced(language: str, lines: Iterable[str]) -> str:
    """Draw a fenced block."""
    return f"```{language}\n" + "".join(f"{line}\n" for line in lines) + "```\n"
