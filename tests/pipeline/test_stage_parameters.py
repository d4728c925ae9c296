"""Which parameters each stage really reads, recorded while it runs, against the table."""

from __future__ import annotations

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from lori_core import config
from lori_core.core import stage_dependencies as table
from lori_core.core.tracking import NullTracker
from lori_core.methods.catalogue import METHODS
from lori_core.models import base_model
from lori_core.pipeline import running
from lori_core.pipeline.stages.pull import pull
from support import smoke_params

#: What a stage may read without depending on it: data/tasks.json stands for the names of tasks,
#: the metrics of other stages for how their adapters were trained, paths for the rest.
ELSEWHERE = {
    "interference": ("tasks",),
    "merge": ("tasks", "continual.safety_task"),
    "report": ("tasks",),
    "excess": ("tasks", "continual.safety_task", "continual.tasks"),
    "continual": ("continual.safety_task", "continual.tasks"),
    "evaluate_continual": ("continual.safety_task", "continual.tasks"),
}


class Recorder:
    """Stands for a section of the parameters and notes which of its values are read."""

    def __init__(self, section: BaseModel, prefix: str, read: set[str]) -> None:
        self._section, self._prefix, self._read = section, prefix, read

    def __getattr__(self, name: str) -> Any:
        kind = type(self._section)
        if name in kind.model_fields:
            return recorded(getattr(self._section, name), f"{self._prefix}{name}", self._read)
        found = getattr(kind, name)
        if isinstance(found, property):
            return found.fget(self)  # type: ignore[misc]
        if isinstance(found, types.FunctionType) and not name.startswith("model_"):
            return types.MethodType(found, self)
        # A dump of a whole section: all of it, or the fields that are named.
        return lambda **options: self._dump(name, **options)

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        for name in type(self._section).model_fields:
            yield name, getattr(self, name)

    def _dump(self, name: str, **options: Any) -> Any:
        for field in options.get("include") or type(self._section).model_fields:
            self._read.add(f"{self._prefix}{field}")
        return getattr(self._section, name)(**options)


class Names(dict[str, Any]):
    """Tasks or merges by name, each recorded on its own."""

    def __init__(self, values: dict[str, Any], prefix: str, read: set[str]) -> None:
        super().__init__({n: recorded(v, f"{prefix}.{n}", read) for n, v in values.items()})


def recorded(value: Any, name: str, read: set[str]) -> Any:
    if isinstance(value, BaseModel):
        return Recorder(value, f"{name}.", read)
    if name in ("tasks", "merge"):
        return Names(value, name, read)
    read.add(name)
    return value


def read_by(params: config.Params, stage: str, item: str | None) -> set[str]:
    """Run a stage and return the keys that its function read."""
    read: set[str] = set()
    function = running.STAGES[stage]
    arguments = [Recorder(params, "", read), *([item] if item else []), NullTracker()]
    function(*arguments)
    return read


def unlisted(stage: str, item: str | None, read: set[str]) -> set[str]:
    """Return the keys that were read and that the table does not name."""
    listed = [*table.keys(stage, item), *ELSEWHERE.get(stage, ())]
    return {
        key for key in read if not any(key == one or key.startswith(f"{one}.") for one in listed)
    }


@pytest.fixture(autouse=True)
def _without_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks of a whole run read everything, but only refuse it: no result depends on them."""
    monkeypatch.setattr("lori_core.methods.limits.check", lambda *_, **__: None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("parameters")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        pull(params(), base_model.prepare(params().model))
        yield place


def params(**changes: Any) -> config.Params:
    """Return a small run: one task of each kind that the stages know."""
    values = smoke_params().model_dump()
    values["tasks"] = {name: values["tasks"][name] for name in ("math", "safety")}
    for name in values["tasks"]:
        values["tasks"][name] |= {"sizes": {"train": 8, "validation": 2, "test": 8}, **changes}
    values["merge"] = {"concat": values["merge"]["concat"]}
    values["continual"]["tasks"] = ["math"]
    values["training"]["batch_size"] = 2
    values["experiments"] = {}
    return config.parse(values, "params.yaml")


def test_every_stage_reads_only_what_the_table_names(folder: Path) -> None:
    run = params()
    found = {}
    for stage, entry in table.STAGES.items():
        for item in run.items_of(entry.items) or [None]:
            found[f"{stage}@{item}"] = unlisted(stage, item, read_by(run, stage, item))
    assert {stage: keys for stage, keys in found.items() if keys} == {}


@pytest.mark.parametrize("importance", ["fisher", "random"])
def test_a_mask_by_other_importances_reads_only_what_the_table_names(
    folder: Path, importance: str
) -> None:
    run = params()
    run = run.model_copy(update={"lori": run.lori.model_copy(update={"importance": importance})})
    read_by(run, "calibrate", "math")
    assert unlisted("mask", "math", read_by(run, "mask", "math")) == set()


@pytest.mark.parametrize("method", [name for name in METHODS if name != "lori-s"])
def test_training_by_each_method_reads_only_what_the_table_names(folder: Path, method: str) -> None:
    run = params()
    tasks = {n: s.model_copy(update={"method": method}) for n, s in run.tasks.items()}
    run = run.model_copy(update={"tasks": tasks})
    assert unlisted("train", "math", read_by(run, "train", "math")) == set()
