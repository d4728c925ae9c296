"""The registry of engines that run a pipeline's stages, and the decorator that adds one.

An engine is a class with the protocol `flows.execution.engine.Engine`. The built-in engines are
imported on use, so that a local run does not import Ray.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeVar

from lori_core.registries.registry import Named, Registry, current_extension

_Class = TypeVar("_Class", bound=type[Any])


@dataclass(frozen=True)
class EngineEntry(Named):
    """A registered engine.

    Attributes:
        find: imports and returns the engine's class.
    """

    find: Callable[[], type[Any]]


ENGINES: Registry[EngineEntry] = Registry("engine", "lori_core.registries.engine")


def engine(name: str, label: str, about: str) -> Callable[[_Class], _Class]:
    """Register the decorated class as an engine.

    Args:
        name: the name in `execution.engine`.
        label: the name in tables.
        about: a description of one sentence.
    """

    def register(engine_class: _Class) -> _Class:
        ENGINES.add(EngineEntry(name, label, about, current_extension(), lambda: engine_class))
        return engine_class

    return register


def _register_builtin(name: str, label: str, about: str, module: str, kind: str) -> None:
    def find() -> type[Any]:
        engine_class: type[Any] = getattr(import_module(module), kind)
        return engine_class

    ENGINES.add(EngineEntry(name, label, about, None, find))


_register_builtin(
    "local",
    "Local processes",
    "each stage is a process on this machine",
    "flows.execution.local_engine",
    "LocalEngine",
)
_register_builtin(
    "ray",
    "Ray",
    "each stage is a task on a node of a Ray cluster",
    "flows.execution.ray.ray_engine",
    "RayEngine",
)
