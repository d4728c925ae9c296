"""The stages of `dvc.yaml`, with DVC's templates filled in from `params.yaml`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lori_core.core.errors import InputError

FILE = "dvc.yaml"


@dataclass(frozen=True)
class Defined:
    """A stage as `dvc.yaml` defines it; paths and parameters as `dvc.lock` names them."""

    command: str
    deps: frozenset[str]
    params: frozenset[str]
    outs: frozenset[str]


class PipelineFile:
    """The stages of one workspace's `dvc.yaml`, each resolved on demand.

    Raises:
        InputError: `dvc.yaml` or `params.yaml` cannot be read.
    """

    def __init__(self, repo: Any, workspace: Path) -> None:
        from dvc.exceptions import DvcException
        from dvc.parsing import DataResolver
        from dvc.utils.serialize import load_yaml

        folder = workspace.resolve()
        self._errors = DvcException
        try:
            self._resolver = DataResolver(repo, str(folder), load_yaml(str(folder / FILE)))
            self.names = frozenset(self._resolver.get_keys())
        except DvcException as error:
            raise InputError(f"{FILE}: {_one_line(error)}") from None

    def stage(self, name: str) -> Defined:
        """Return the stage of a name in `names`.

        Raises:
            InputError: DVC cannot resolve the stage.
        """
        try:
            section = self._resolver.resolve_one(name)[name]
        except self._errors as error:
            raise InputError(f"{FILE}: {_one_line(error)}") from None
        command = section["cmd"]
        outs = [*section.get("outs", ()), *section.get("metrics", ()), *section.get("plots", ())]
        return Defined(
            command if isinstance(command, str) else "\n".join(command),
            frozenset(_paths(section.get("deps", ()))),
            frozenset(_parameters(section.get("params", ()))),
            frozenset(_paths(outs)),
        )


def _paths(items: Iterable[Any]) -> Iterable[str]:
    """Yield the paths of a list, whose items are paths or mappings from path to options."""
    for item in items:
        for path in item if isinstance(item, dict) else (item,):
            yield plain(path)


def plain(path: str) -> str:
    """Return a path in normal form, e.g. without a slash at its end; URLs stay as they are."""
    return path if "://" in path else str(PurePosixPath(path))


def _parameters(items: Iterable[Any]) -> Iterable[str]:
    """Yield the names of parameters, also those of other parameter files."""
    for item in items:
        if isinstance(item, dict):
            for names in item.values():
                yield from names or ()
        else:
            yield item


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
