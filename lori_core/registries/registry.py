"""The registry class: the entries of one kind, by the name that users write.

A decorator (`lori_core.registries`) registers an entry where it is defined. Allowed names, labels
in reports and requirements are read from the registry and are defined nowhere else.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

from lori_core.core.errors import unknown

#: The form of a name, which is used in YAML, on the command line and in files' metadata.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class TakenError(ValueError):
    """The name of a new entry is already registered."""


@dataclass(frozen=True)
class ExtensionFile:
    """The extension file that registered an entry.

    Attributes:
        path: the path in `extensions` of `params.yaml`.
        sha256: the SHA-256 of the executed content, 64 hexadecimal digits.
    """

    path: str
    sha256: str


@dataclass(frozen=True)
class Named:
    """The fields that every registry entry has.

    Attributes:
        name: the name in `params.yaml` and on the command line.
        label: the name in reports and tables.
        about: a description of one sentence.
        origin: the extension file that registered the entry; None for built-in entries.
    """

    name: str
    label: str
    about: str
    origin: ExtensionFile | None


E = TypeVar("E", bound=Named)

#: The extension file that is being executed, which becomes the origin of new entries.
_CURRENT: ContextVar[ExtensionFile | None] = ContextVar("current extension", default=None)
#: The extension files whose entries are visible; None for all loaded files.
_VISIBLE: ContextVar[frozenset[ExtensionFile] | None] = ContextVar(
    "visible extensions", default=None
)


class Registry(Mapping[str, E]):
    """The entries of one kind, in the order in which they were registered.

    Args:
        kind: the name of an entry in messages.
        home: the module that registers the built-in entries; imported when the registry is first
            read, so that declaring a registry is cheap.
        reserved_in: a module with a mapping `ENTRIES`, whose names are reserved too.
    """

    def __init__(self, kind: str, home: str, reserved_in: str = "") -> None:
        self.kind = kind
        self._home = home
        self._reserved_in = reserved_in
        self._entries: dict[str, E] = {}
        _ALL.append(self)  # type: ignore[arg-type]  # only read and removed from there

    def add(self, entry: E) -> None:
        """Register an entry.

        Raises:
            TakenError: the name is already registered or reserved.
            ValueError: the name is invalid, or the label or description is missing.
        """
        origin = entry.origin
        if origin is not None:
            importlib.import_module(self._home)  # registers the built-in names
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
        reserved: Collection[str] = ()
        if origin and self._reserved_in:
            reserved = importlib.import_module(self._reserved_in).ENTRIES
        existing = self._entries.get(entry.name)
        if existing is None and entry.name in reserved:
            raise TakenError(
                f"{self.kind} {entry.name!r} is one of LoRI itself; choose another name"
            )
        if existing is not None and self._keeps_name(existing, origin):
            by = f"by {existing.origin.path}" if existing.origin else "by LoRI itself"
            raise TakenError(
                f"the {self.kind} {entry.name!r} is registered already, {by}; choose another name"
            )
        self._entries[entry.name] = entry

    def _keeps_name(self, entry: E, newer: ExtensionFile | None) -> bool:
        """Return whether an existing entry blocks its name: built-in, or of a visible file."""
        visible = _VISIBLE.get()
        return entry.origin in (None, newer) or visible is None or entry.origin in visible

    def holds(self, entry: Named) -> bool:
        """Return whether an entry is the one registered under its name."""
        return self._entries.get(entry.name) is entry

    def of(self, origin: ExtensionFile) -> list[E]:
        """Return the entries that an extension file registered."""
        return [entry for entry in self._entries.values() if entry.origin == origin]

    def forget(self, path: str) -> None:
        """Remove the entries that any version of an extension file registered."""
        self._entries = {
            name: entry
            for name, entry in self._entries.items()
            if entry.origin is None or entry.origin.path != path
        }

    def check(self, name: str) -> str:
        """Return a name if it is registered.

        Raises:
            ValueError: the name is unknown; the message lists the allowed names.
        """
        if name not in self:
            raise ValueError(unknown(self.kind, name, self))
        return name

    def labels(self, before: Mapping[str, str] | None = None) -> Mapping[str, str]:
        """Return a live mapping from names to labels, preceded by the labels in `before`."""
        return _Labels(self, before or {})

    def __getitem__(self, name: str) -> E:
        return self._visible_entries()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._visible_entries())

    def __len__(self) -> int:
        return len(self._visible_entries())

    def _visible_entries(self) -> dict[str, E]:
        importlib.import_module(self._home)
        visible = _VISIBLE.get()
        if visible is None:
            return self._entries
        return {n: e for n, e in self._entries.items() if e.origin is None or e.origin in visible}


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


def current_extension() -> ExtensionFile | None:
    """Return the extension file that is being executed; None outside of one.

    It is also None in modules of this project that the file is the first to import: what they
    register is built in.
    """
    frame = sys._getframe(1)
    while frame.f_code.co_name != "<module>" and frame.f_back is not None:
        frame = frame.f_back
    package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    return None if package == __name__.partition(".")[0] else _CURRENT.get()


def registered(origin: ExtensionFile) -> list[tuple[Registry[Named], Named]]:
    """Return (registry, entry) for each entry that an extension file registered."""
    return [(registry, entry) for registry in _ALL for entry in registry.of(origin)]


def forget(path: str) -> None:
    """Remove the entries that any version of an extension file registered, in all registries."""
    for registry in _ALL:
        registry.forget(path)


@contextmanager
def registering(origin: ExtensionFile) -> Iterator[None]:
    """Attribute the entries registered inside to an extension; remove them if it fails."""
    token = _CURRENT.set(origin)
    try:
        yield
    except BaseException:
        forget(origin.path)
        raise
    finally:
        _CURRENT.reset(token)


@contextmanager
def restricted_to(origins: frozenset[ExtensionFile]) -> Iterator[None]:
    """Make only the built-in entries and those of some extension files visible inside."""
    token = _VISIBLE.set(origins)
    try:
        yield
    finally:
        _VISIBLE.reset(token)
