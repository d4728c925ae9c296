"""Engines that run a pipeline's stages: the registry, and the decorator that adds one.

An engine is a class of the protocol `flows.execution.engine.Engine`. The project's own are imported
when they are asked for, so that a run on this machine imports nothing of Ray.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeVar

from lori_core.registries.registry import Named, Registry, running

_Class = TypeVar("_Class", bound=type[Any])


@dataclass(frozen=True)
class EngineEntry(Named):
    """An engine by name.

    Attributes:
        find: returns its class.
    """

    find: Callable[[], type[Any]]


ENGINES: Registry[EngineEntry] = Registry("engine", "lori_core.registries.engine")


def engine(name: str, label: str, about: str) -> Callable[[_Class], _Class]:
    """Register the decorated class as an engine.

    Args:
        name: for `execution.engine`.
        label: what tables call it.
        about: one sentence.
    """

    def register(made: _Class) -> _Class:
        ENGINES.add(EngineEntry(name, label, about, running(), lambda: made))
        return made

    return register


def _own(name: str, label: str, about: str, module: str, kind: str) -> None:
    def find() -> type[Any]:
        found: type[Any] = getattr(import_module(module), kind)
        return found

    ENGINES.add(EngineEntry(name, label, about, None, find))


_own(
    "local",
    "Local processes",
    "each stage is a process on this machine",
    "flows.execution.local_engine",
    "LocalEngine",
)
_own(
    "ray",
    "Ray",
    "each stage is a task on a node of a Ray cluster",
    "flows.execution.ray.ray_engine",
    "RayEngine",
)
