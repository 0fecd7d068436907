"""Everything public is documented: what is exported, its members, the errors it raises; and the reference lists it."""

from __future__ import annotations

import ast
import enum
import functools
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import get_args

import pytest

from ocm import errors
from ocm.transport import base

ROOT = Path(__file__).parents[1]
MODULES = ("ocm", "ocm.testing", "ocm.blocking", "ocm.transport.base")
SPOKEN = {"__init__", "__post_init__", "__aenter__", "__aiter__", "__enter__", "__iter__"}
"""Methods that a program calls without saying their names."""
REFERENCE = {"ocm": "ocm", "ocm.testing": "testing", "ocm.blocking": "blocking"}


def exported(module: ModuleType) -> dict[str, object]:
    names: list[str] = getattr(module, "__all__", None) or [
        name for name in vars(module) if not name.startswith("_") and defined_in(module, name)
    ]
    return {name: getattr(module, name) for name in names if name != "__version__"}


def defined_in(module: ModuleType, name: str) -> bool:
    return getattr(vars(module)[name], "__module__", None) == module.__name__


@functools.cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(Path(inspect.getfile(importlib.import_module(module))).read_text(encoding="utf-8"))


def attribute_docs(cls: type) -> Iterator[tuple[str, bool]]:
    """Yield the public attributes that a class declares, in its body or constructor, and if each has a docstring."""
    (node,) = (
        node for node in tree_of(cls.__module__).body if isinstance(node, ast.ClassDef) and node.name == cls.__name__
    )
    yield from assignments(node.body, of_self=False)
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            yield from assignments(part.body, of_self=True)


def assignments(body: list[ast.stmt], *, of_self: bool) -> Iterator[tuple[str, bool]]:
    for part, following in zip(body, [*body[1:], None], strict=True):
        documented = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
        match part:
            case ast.AnnAssign(target=target) | ast.Assign(targets=[target]):
                pass
            case _:
                continue
        match target:
            case ast.Name(id=name) if not of_self and not name.startswith("_"):
                yield name, documented
            case ast.Attribute(value=ast.Name(id="self"), attr=name) if of_self and not name.startswith("_"):
                yield name, documented
            case _:
                pass


def has_words_for_values(cls: type) -> bool:
    """Tell whether it is an enumeration whose values say what they mean."""
    return issubclass(cls, enum.Enum) and all(isinstance(member.value, str) for member in cls)


def is_inherited(cls: type, name: str) -> bool:
    """Tell whether a base that is not ours has it, and says what it does."""
    return any(hasattr(parent, name) for parent in cls.__mro__[1:] if not parent.__module__.startswith("ocm"))


def undocumented_aliases(module: str) -> Iterator[str]:
    """Yield the exported aliases without a docstring; one that unites exported classes needs none."""
    things = exported(importlib.import_module(module))
    aliases = {
        name: thing for name, thing in things.items() if not (inspect.isroutine(thing) or inspect.isclass(thing))
    }
    shown = {name for name, thing in aliases.items() if not all(part in things.values() for part in get_args(thing))}
    for part in tree_of(module).body:
        if isinstance(part, ast.ImportFrom) and part.module and shown & {name.name for name in part.names}:
            declared = dict(assignments(tree_of(part.module).body, of_self=False))
            yield from (name.name for name in part.names if name.name in shown and not declared.get(name.name))


def undocumented(label: str, thing: object) -> Iterator[str]:
    """Yield what has no docstring."""
    if inspect.isroutine(thing):
        if not inspect.getdoc(thing):
            yield label
    elif isinstance(thing, type) and thing.__module__.startswith("ocm"):
        if not thing.__doc__ or thing.__doc__.startswith(f"{thing.__name__}("):  # a dataclass writes its own
            yield label
        for name, member in vars(thing).items():
            is_ours = not name.startswith("_") and not is_inherited(thing, name)
            if is_ours and isinstance(member, FunctionType | property | classmethod) and not member.__doc__:
                yield f"{label}.{name}"
        if not has_words_for_values(thing):
            told = f"{thing.__doc__}\n{getattr(vars(thing).get('__init__'), '__doc__', '')}"
            for name, documented in attribute_docs(thing):
                if (
                    not documented
                    and not is_inherited(thing, name)
                    and not re.search(rf"^\s+{name}: ", told, re.MULTILINE)
                ):
                    yield f"{label}.{name}"


def is_written(function: FunctionType) -> bool:
    """Tell whether somebody wrote it, and not ``dataclass`` or ``Protocol``."""
    return Path(function.__code__.co_filename).is_relative_to(ROOT / "ocm")


def routines(label: str, thing: object) -> Iterator[tuple[str, str, str]]:
    """Yield the name, docstrings and source of every function, and of every method of a class."""
    if inspect.isfunction(thing):
        yield label, inspect.getdoc(thing) or "", inspect.getsource(inspect.unwrap(thing))
    elif isinstance(thing, type) and thing.__module__.startswith("ocm"):
        for name, member in vars(thing).items():
            if inspect.isfunction(member) and is_written(member) and (not name.startswith("_") or name in SPOKEN):
                yield f"{label}.{name}", f"{member.__doc__}{thing.__doc__}{of_seam(member)}", inspect.getsource(member)


def of_seam(method: FunctionType) -> str:
    """Return the docstring that a method refers to: ``see ``Network.listen`` ``."""
    found = re.search(r"\(see ``Network\.(\w+)``\)", method.__doc__ or "")
    return inspect.getdoc(getattr(base.Network, found[1])) or "" if found else ""


def names_in_signatures(thing: object) -> set[str]:
    """Return the names of ocm that a function, or what is public of a class, is annotated with."""
    if not inspect.isfunction(thing) and not (isinstance(thing, type) and thing.__module__.startswith("ocm")):
        return set()
    whole = inspect.unwrap(thing) if inspect.isfunction(thing) else thing
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(whole))).body
    parts = node.body if isinstance(node, ast.ClassDef) else [node]
    written = [name for part in parts for hint in hints(part) for name in ast.walk(hint) if isinstance(name, ast.Name)]
    return {name.id for name in written} & set(names_of_ocm(whole.__module__))


def hints(part: ast.stmt) -> Iterator[ast.expr]:
    match part:
        case (
            ast.FunctionDef(name=name, args=args, returns=returns)
            | ast.AsyncFunctionDef(name=name, args=args, returns=returns)
        ) if not name.startswith("_"):
            arguments = (node for node in ast.walk(args) if isinstance(node, ast.arg))
            yield from filter(None, [*(argument.annotation for argument in arguments), returns])
        case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation) if not name.startswith("_"):
            yield annotation
        case _:
            pass


def names_of_ocm(module: str) -> Iterator[str]:
    """Yield the names that a module gets from other modules of ocm, and its own classes and aliases."""
    for part in tree_of(module).body:
        match part:
            case ast.ImportFrom(module=source, names=names) if source and source.startswith("ocm"):
                yield from (name.asname or name.name for name in names)
            case ast.ClassDef(name=name):
                yield name
            case ast.AnnAssign(target=ast.Name(id=name), annotation=ast.Name(id="TypeAlias")):
                yield name
            case _:
                pass


@pytest.mark.parametrize("name", MODULES)
def test_everything_public_has_a_docstring(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    missing = [gap for label, thing in exported(module).items() for gap in undocumented(label, thing)]
    assert [*missing, *undocumented_aliases(name)] == []


@pytest.mark.parametrize("name", MODULES)
def test_every_error_that_a_public_function_raises_itself_is_named_in_its_docstring(name: str) -> None:
    untold: list[str] = []
    for label, thing in exported(importlib.import_module(name)).items():
        if hasattr(errors, label):
            continue
        for place, doc, source in routines(label, thing):
            for node in ast.walk(ast.parse(textwrap.dedent(source))):
                match node:
                    case ast.Raise(exc=ast.Call(func=ast.Name(id=error))) if (
                        hasattr(errors, error) and error not in doc
                    ):
                        untold.append(f"{place}: {error}")
                    case _:
                        pass
    assert untold == []


@pytest.mark.parametrize(("name", "page"), REFERENCE.items())
def test_the_reference_lists_every_public_name(name: str, page: str) -> None:
    text = (ROOT / "docs" / "reference" / f"{page}.md").read_text(encoding="utf-8")
    listed = set(re.findall(rf"^::: {re.escape(name)}\.(\w+)$", text, re.MULTILINE))
    assert listed == set(exported(importlib.import_module(name)))


@pytest.mark.parametrize("name", MODULES)
def test_the_reference_lists_every_name_that_public_signatures_are_written_with(name: str) -> None:
    known = {path.rpartition(".")[2] for path in listed_paths()}
    unknown = {
        (label, hint)
        for label, thing in exported(importlib.import_module(name)).items()
        for hint in names_in_signatures(thing) - known
    }
    assert unknown == set()


def test_what_the_reference_lists_exists() -> None:
    for path in listed_paths():
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name), path


def listed_paths() -> Iterator[str]:
    for page in (ROOT / "docs" / "reference").glob("*.md"):
        yield from re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
