"""What `dvc.yaml` says of each stage, as DVC fills it in from `params.yaml`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lori_core.core.errors import InputError

FILE = "dvc.yaml"


@dataclass(frozen=True)
class Defined:
    """A stage of `dvc.yaml`; paths and parameters as `dvc.lock` names them."""

    command: str
    deps: frozenset[str]
    params: frozenset[str]
    outs: frozenset[str]


class PipelineFile:
    """The stages of one workspace's `dvc.yaml`, each resolved when it is asked for.

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
        """Return one of the stages in `names`."""
        try:
            said = self._resolver.resolve_one(name)[name]
        except self._errors as error:
            raise InputError(f"{FILE}: {_one_line(error)}") from None
        command = said["cmd"]
        outs = [*said.get("outs", ()), *said.get("metrics", ()), *said.get("plots", ())]
        return Defined(
            command if isinstance(command, str) else "\n".join(command),
            frozenset(_paths(said.get("deps", ()))),
            frozenset(_parameters(said.get("params", ()))),
            frozenset(_paths(outs)),
        )


def _paths(said: Iterable[Any]) -> Iterable[str]:
    """Yield paths, of which each may have options below it."""
    for item in said:
        for path in item if isinstance(item, dict) else (item,):
            yield plain(path)


def plain(path: str) -> str:
    """Return a path without what changes nothing, like a slash at its end."""
    return path if "://" in path else str(PurePosixPath(path))


def _parameters(said: Iterable[Any]) -> Iterable[str]:
    """Yield the names of parameters, those that stand below another file's name too."""
    for item in said:
        if isinstance(item, dict):
            for names in item.values():
                yield from names or ()
        else:
            yield item


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
