"""What the modules of this project import, read from their source."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent


@cache
def modules(package: str) -> dict[str, Path]:
    """Return the files of a package by dotted name."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def known() -> dict[str, Path]:
    """Return the files of the library and of the studies by dotted name."""
    return modules("lori_core") | modules("studies")


def closure(name: str) -> set[str]:
    """Return a module and all that it imports of the library and the studies, near and far.

    Imports inside functions count, those for type checkers alone do not.
    """
    todo, found = [name], set[str]()
    while todo:
        current = todo.pop()
        if current not in found:
            found.add(current)
            todo.extend(imports(current))
    return found


def imports(name: str) -> set[str]:
    """Return the modules of the library and the studies that one of them imports by itself."""
    tree = ast.parse(known()[name].read_text(encoding="utf-8"))
    found = set()
    for dotted in names_in(tree.body):
        while dotted and dotted not in known():
            dotted = dotted.rpartition(".")[0]
        if dotted:
            found.add(dotted)
    return found


def names_in(body: Iterable[ast.AST]) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from names_in(node.orelse)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from names_in(ast.iter_child_nodes(node))


def file_of(name: str) -> str:
    """Return a module's path as the tables have it: `data/pulled.py`, or `studies/points.py`."""
    return known()[name].relative_to(ROOT).as_posix().removeprefix("lori_core/")
