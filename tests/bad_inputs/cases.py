"""What a case of bad input is, and how a test runs it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bad_inputs.commands import Commands

#: What stands under a name: bytes, text, or a function that makes it at a path.
Content = bytes | str | Callable[[Path], None]


@dataclass(frozen=True)
class Case:
    """A command that must be refused."""

    id: str
    argv: Sequence[str]
    #: Files of the project's folder that are made, or take the place of those there.
    files: Mapping[str, Content] = field(default_factory=dict)
    #: What the line must say, each anywhere in it: the file or field, the value, what is allowed.
    says: Sequence[str] = ()

    def check(self, lori: Commands, project: Path) -> None:
        """Run the command in a project and assert that it is refused as it must be."""
        for name, content in self.files.items():
            put(project / name, content)
        line = lori.run(self.argv, project, watched=project.parent).refusal()
        for words in self.says:
            assert words in line, line


def put(path: Path, content: Content) -> None:
    """Write a file, in the place of what is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() or path.is_file():
        path.unlink()
    if callable(content):
        content(path)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def fifo(path: Path) -> None:
    """Make a FIFO, which blocks whoever opens it."""
    os.mkfifo(path)


def folder(path: Path) -> None:
    """Make an empty folder."""
    path.mkdir()


def link(target: str) -> Content:
    """Return what makes a symbolic link."""
    return lambda path: path.symlink_to(target)


def sparse(size: int) -> Content:
    """Return what makes a file of so many bytes, all zero, that takes no room on the disk."""

    def make(path: Path) -> None:
        with path.open("wb") as file:
            file.truncate(size)

    return make


def each(cases: Sequence[Case]) -> pytest.MarkDecorator:
    """Return what runs a test with each case, by its id."""
    ids = [case.id for case in cases]
    assert len(set(ids)) == len(ids), sorted(name for name in ids if ids.count(name) > 1)
    return pytest.mark.parametrize("case", cases, ids=ids)
