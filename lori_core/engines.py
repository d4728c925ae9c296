"""The engines that can run a pipeline's stages, by the name that `execution.engine` has for them.

An engine is one class, of the protocol `flows.execution.engine.Engine`, under a decorator:

    @engine("mine")
    class Mine: ...

Those of this project are imported when they are asked for, so that a run on this machine needs
nothing that only a cluster does. `examples/extensions/engine.py` is one from outside.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

from lori_core.errors import ConfigError, unknown

#: The modules of this project's own engines.
BUILT_IN = {"local": "flows.execution.local_engine", "ray": "flows.execution.ray_engine"}
_ENGINES: dict[str, type[Any]] = {}
_Class = TypeVar("_Class", bound=type[Any])


def engine(name: str) -> Callable[[_Class], _Class]:
    """Register the decorated class as the engine of a name.

    Raises:
        ConfigError: another class has the name.
    """

    def register(made: _Class) -> _Class:
        taken = _ENGINES.get(name)
        module = taken.__module__ if taken else BUILT_IN.get(name, made.__module__)
        if module != made.__module__:
            raise ConfigError(
                f"execution.engine: {name!r} is the engine of {module}; "
                f"give that of {made.__module__} another name"
            )
        _ENGINES[name] = made
        return made

    return register


def names() -> list[str]:
    """Return what `execution.engine` may be."""
    return sorted({*BUILT_IN, *_ENGINES})


def known(name: str) -> str:
    """Return the name of an engine as it is.

    Raises:
        ValueError: there is no such engine; with those there are.
    """
    if name not in names():
        raise ValueError(unknown("engine", name, names()))
    return name


def find(name: str) -> Any:
    """Return the class of an engine.

    Raises:
        ConfigError: there is no such engine.
    """
    if name in BUILT_IN and name not in _ENGINES:
        import_module(BUILT_IN[name])
    if name not in _ENGINES:
        raise ConfigError(f"execution.engine: {unknown('engine', name, names())}")
    return _ENGINES[name]
