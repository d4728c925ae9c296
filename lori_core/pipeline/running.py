"""Running a stage by its name, with its parameters and data sets reported to the tracker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lori_core.config import Params
from lori_core.config.training_overrides import PHASES
from lori_core.core import stage_dependencies
from lori_core.core.errors import InputError, unknown
from lori_core.core.files.atomic import sha256_file
from lori_core.core.tracking import RunTracker
from lori_core.methods.catalogue import METHODS
from lori_core.pipeline.stages.calibrate import calibrate
from lori_core.pipeline.stages.continual import continual
from lori_core.pipeline.stages.evaluate import (
    evaluate_base,
    evaluate_continual,
    evaluate_merged,
)
from lori_core.pipeline.stages.evaluate_adapters import evaluate_adapters
from lori_core.pipeline.stages.excess import excess
from lori_core.pipeline.stages.interference import interference
from lori_core.pipeline.stages.mask import mask
from lori_core.pipeline.stages.merge import merge
from lori_core.pipeline.stages.report import report
from lori_core.pipeline.stages.search import search
from lori_core.pipeline.stages.train import train

STAGES: dict[str, Callable[..., None]] = {
    "calibrate": calibrate,
    "mask": mask,
    "train": train,
    "continual": continual,
    "search": search,
    "merge": merge,
    "interference": interference,
    "evaluate_base": evaluate_base,
    "evaluate_adapters": evaluate_adapters,
    "evaluate_merged": evaluate_merged,
    "evaluate_continual": evaluate_continual,
    "excess": excess,
    "report": report,
}


def run(params: Params, name: str, item: str | None, tracker: RunTracker) -> None:
    """Run one stage; report its parameters, its data sets and its end to the tracker.

    Args:
        params: the parameters of the run.
        name: the stage's name, one of `STAGES`.
        item: the task or the merge; None for a stage without items.
        tracker: the stage's tracker.

    Raises:
        InputError: the stage or the item does not exist.
    """
    if name not in STAGES:
        raise InputError(unknown("stage", name, STAGES))
    function = STAGES[name]
    kind = stage_dependencies.STAGES[name].items
    takes_item = kind != "none"
    items = params.items_of(kind)
    if takes_item and item not in items:
        raise InputError(f"stage {name}: {unknown('item', str(item), items)}")
    if not takes_item and item is not None:
        raise InputError(f"stage {name} takes no item, got {item!r}")
    tracker.start(f"{name}@{item}" if item else name)
    tracker.params(_stage_params(params, name, item))
    _report_data(params, item, tracker)
    function(params, item, tracker) if takes_item else function(params, tracker)
    tracker.end()


def _stage_params(params: Params, name: str, item: str | None) -> dict[str, Any]:
    """Return the stage's parameters as they are logged to MLflow."""
    values: dict[str, Any] = {
        "model": params.model.model_dump(),
        "lori": params.lori.model_dump(),
        "task": item or "",
        "stage": name,
    }
    if name in PHASES and item:
        values["training"] = params.phase(item, PHASES[name]).model_dump()
        method = params.method(item, PHASES[name]).name
        by_stage = {"calibrate": METHODS[method].calibrated_by or method, "train": method}
        values["method"] = by_stage.get(name, f"{method}-continual")
    if name in ("search", "merge") and item:
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
