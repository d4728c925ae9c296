"""Registries: what may stand in a field that chooses by name, with all that is known of each name.

An entry is registered where it is written, by a decorator (`lori_core.registries`). What a user may
write, how reports call it and what it needs is read from the registry and stands nowhere else.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

from lori_core.core.errors import unknown

#: What a name must look like: it is written in YAML, on the command line and into files' metadata.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class TakenError(ValueError):
    """A name is registered already."""


@dataclass(frozen=True)
class ExtensionFile:
    """The extension file that an entry was registered by.

    Attributes:
        path: as `extensions` names it.
        sha256: of the content that was run, 64 hexadecimal digits.
    """

    path: str
    sha256: str


@dataclass(frozen=True)
class Named:
    """What every entry has.

    Attributes:
        name: what is written in `params.yaml` and on the command line.
        label: what reports and tables call it.
        about: one sentence for people who choose.
        origin: the extension file it is from; None for the project's own.
    """

    name: str
    label: str
    about: str
    origin: ExtensionFile | None


E = TypeVar("E", bound=Named)

#: The extension file that is being run, so that what it registers is known to be its own.
_RUNNING: ContextVar[ExtensionFile | None] = ContextVar("running extension", default=None)
#: The extension files whose names are seen; None for those of every file that was loaded.
_SEEN: ContextVar[frozenset[ExtensionFile] | None] = ContextVar("seen extensions", default=None)


class Registry(Mapping[str, E]):
    """The entries of one kind, in the order in which they were registered.

    Args:
        kind: what one entry is called in messages.
        home: the module that registers the project's own entries; it is imported when the registry
            is first read, so that to declare a registry costs nothing.
        others: a module with the mapping `ENTRIES`, whose names are taken, too.
    """

    def __init__(self, kind: str, home: str, others: str = "") -> None:
        self.kind = kind
        self._home = home
        self._others = others
        self._entries: dict[str, E] = {}
        _ALL.append(self)  # type: ignore[arg-type]  # only read and removed from there

    def add(self, entry: E) -> None:
        """Register an entry.

        Raises:
            TakenError: its name is taken.
            ValueError: its name is none, or its label or description is missing.
        """
        origin = _RUNNING.get()
        if origin is not None:
            importlib.import_module(self._home)  # a name of our own is taken, used or not
        if not NAME.fullmatch(entry.name):
            raise ValueError(
                f"{entry.name!r} cannot be the name of a {self.kind}: allowed are up to 64 "
                "letters, digits, - and _, the first no - or _"
            )
        if not entry.label.strip() or not entry.about.strip():
            raise ValueError(
                f"{self.kind} {entry.name!r}: label and about are needed, a name for tables and "
                "one sentence"
            )
        others = importlib.import_module(self._others).ENTRIES if origin and self._others else ()
        there = self._entries.get(entry.name)
        if there is None and entry.name in others:
            raise TakenError(
                f"{self.kind} {entry.name!r} is one of LoRI itself; choose another name"
            )
        if there is not None and self._holds(there, origin):
            by = f"by {there.origin.path}" if there.origin else "by LoRI itself"
            raise TakenError(
                f"the {self.kind} {entry.name!r} is registered already, {by}; choose another name"
            )
        self._entries[entry.name] = entry

    def _holds(self, entry: E, newer: ExtensionFile | None) -> bool:
        """Say whether an entry keeps its name: it is ours, or of a file that is in use, too."""
        seen = _SEEN.get()
        return entry.origin in (None, newer) or seen is None or entry.origin in seen

    def holds(self, entry: Named) -> bool:
        """Say whether an entry is still the one of its name."""
        return self._entries.get(entry.name) is entry

    def of(self, origin: ExtensionFile) -> list[E]:
        """Return the entries that an extension file registered."""
        return [entry for entry in self._entries.values() if entry.origin == origin]

    def forget(self, path: str) -> None:
        """Take away the entries that an extension file registered, as it is or as it was."""
        self._entries = {
            name: entry
            for name, entry in self._entries.items()
            if entry.origin is None or entry.origin.path != path
        }

    def check(self, name: str) -> str:
        """Return a name that is registered.

        Raises:
            ValueError: it is not; the message has the names that are.
        """
        if name not in self:
            raise ValueError(unknown(self.kind, name, self))
        return name

    def labels(self, before: Mapping[str, str] | None = None) -> Mapping[str, str]:
        """Return a view of how reports call each entry, by name; `before` are others' labels."""
        return _Labels(self, before or {})

    def __getitem__(self, name: str) -> E:
        return self._visible()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._visible())

    def __len__(self) -> int:
        return len(self._visible())

    def _visible(self) -> dict[str, E]:
        importlib.import_module(self._home)
        seen = _SEEN.get()
        if seen is None:
            return self._entries
        return {n: e for n, e in self._entries.items() if e.origin is None or e.origin in seen}


class _Labels(Mapping[str, str]):
    def __init__(self, registry: Registry[E], before: Mapping[str, str]) -> None:
        self._registry, self._before = registry, before

    def __getitem__(self, name: str) -> str:
        return self._before[name] if name in self._before else self._registry[name].label

    def __iter__(self) -> Iterator[str]:
        return chain(self._before, self._registry)

    def __len__(self) -> int:
        return len(self._before) + len(self._registry)


_ALL: list[Registry[Named]] = []


def running() -> ExtensionFile | None:
    """Return the extension file that is being run; None outside of one."""
    return _RUNNING.get()


def registered(origin: ExtensionFile) -> list[tuple[Registry[Named], Named]]:
    """Return all that an extension file registered, each with its registry."""
    return [(registry, entry) for registry in _ALL for entry in registry.of(origin)]


def forget(path: str) -> None:
    """Take away all that an extension file registered, as it is or as it was."""
    for registry in _ALL:
        registry.forget(path)


@contextmanager
def registering(origin: ExtensionFile) -> Iterator[None]:
    """Take what is registered meanwhile for an extension's; nothing of it stays where it fails."""
    token = _RUNNING.set(origin)
    try:
        yield
    except BaseException:
        forget(origin.path)
        raise
    finally:
        _RUNNING.reset(token)


@contextmanager
def seeing(origins: frozenset[ExtensionFile]) -> Iterator[None]:
    """See the project's own entries and those of some extension files, and no others."""
    token = _SEEN.set(origins)
    try:
        yield
    finally:
        _SEEN.reset(token)
