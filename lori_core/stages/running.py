"""Runs a stage by its name; tells the tracker what it stands on."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from lori_core.config import Params
from lori_core.errors import InputError, unknown
from lori_core.files import sha256_file
from lori_core.phases import PHASES
from lori_core.stages import adapters, scoring
from lori_core.tracking import RunTracker

STAGES: dict[str, Callable[..., None]] = {
    "calibrate": adapters.calibrate,
    "mask": adapters.mask,
    "train": adapters.train,
    "continual": adapters.continual,
    "merge": adapters.merge,
    "interference": scoring.interference,
    "evaluate_base": scoring.evaluate_base,
    "evaluate_adapters": scoring.evaluate_adapters,
    "evaluate_merged": scoring.evaluate_merged,
    "evaluate_continual": scoring.evaluate_continual,
    "excess": scoring.excess,
    "report": scoring.report,
}

#: Their items are merges, those of others tasks.
_OF_MERGES = ("merge", "evaluate_merged", "excess")


def run(params: Params, name: str, item: str | None, tracker: RunTracker) -> None:
    """Run one stage, reporting its parameters, data and end to the tracker.

    Raises:
        InputError: for a stage or item that does not exist.
    """
    if name not in STAGES:
        raise InputError(unknown("stage", name, STAGES))
    function = STAGES[name]
    items = _items(params, name)
    takes_item = len(inspect.signature(function).parameters) == 3  # params, item, tracker
    if takes_item and item not in items:
        raise InputError(f"stage {name}: {unknown('item', str(item), items)}")
    if not takes_item and item is not None:
        raise InputError(f"stage {name} takes no item, got {item!r}")
    tracker.start(f"{name}@{item}" if item else name)
    tracker.params(_stage_params(params, name, item))
    _report_data(params, item, tracker)
    function(params, item, tracker) if takes_item else function(params, tracker)
    tracker.end()


def _items(params: Params, name: str) -> list[str]:
    if name in _OF_MERGES:
        return list(params.merge)
    if name in ("continual", "evaluate_continual"):
        return list(params.continual.tasks)
    return list(params.tasks)


def _stage_params(params: Params, name: str, item: str | None) -> dict[str, Any]:
    """Return the parameters a stage depends on, as MLflow shall show them."""
    values: dict[str, Any] = {
        "model": params.model.model_dump(),
        "lori": params.lori.model_dump(),
        "task": item or "",
        "stage": name,
    }
    if name in PHASES and item:
        values["training"] = params.phase(item, PHASES[name]).model_dump()
        method = params.tasks[item].method_name
        values["method"] = {"calibrate": "lori-d", "train": method}.get(name, f"{method}-continual")
    if name == "merge" and item:
        values["merge"] = params.merge[item].model_dump()
    return values


def _report_data(params: Params, item: str | None, tracker: RunTracker) -> None:
    from lori_core.data.pulled import DATA

    for task in [item] if item in params.tasks else []:
        for split in ("train", "test"):
            path = DATA / str(task) / f"{split}.jsonl"
            if path.is_file():
                with path.open("rb") as lines:
                    rows = sum(line.endswith(b"\n") for line in lines)
                tracker.dataset(f"{task}/{split}", sha256_file(path), str(path), rows)
