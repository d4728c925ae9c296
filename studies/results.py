"""The results of points: their measurements, their adapters, and the parameters of their runs."""

from __future__ import annotations

from typing import Any

from lori_core.adapters.adapter import Adapter
from lori_core.config import Params, parse
from lori_core.core.errors import AdapterError
from lori_core.core.files.atomic import read_json
from lori_core.methods import finetuned_model
from studies.points import FACTS, MODEL, Score, Train, folder_of

Row = dict[str, Any]


def facts_of(name: str) -> Row:
    """Return a point's measurements."""
    facts: Row = read_json(folder_of(name) / FACTS)
    return facts


def params_of(point: Train | Score) -> Params:
    """Return the parameters with which a point's base model is loaded."""
    values: dict[str, Any] = {
        "model": point.model.model_dump(),
        "prompt": point.prompt.model_dump(),
        "lori": {"rank": 1},
        "training": {},
        "tasks": {"none": _task()},
    }
    if isinstance(point, Score):
        values["evaluation"] = point.evaluation.model_dump()
        return parse(values, "experiments/points.json", None)
    values["lori"] = point.lori.model_dump()
    values["training"] = point.training.model_dump()
    key = None if point.projection is None else point.projection.key
    values["tasks"] = {point.task: _task() | {"projection_key": key}}
    return parse(values, "experiments/points.json", None)


def _task() -> Row:
    return {"source": "bundled-math", "calibration": {}, "training": {}}


def adapter_of(name: str) -> Adapter:
    """Return the adapter that a point trained.

    Raises:
        AdapterError: the point did not train a low-rank update.
    """
    model = finetuned_model.open_model(folder_of(name) / MODEL)
    if not isinstance(model, Adapter):
        raise AdapterError(f"{name}: did not train a low-rank update B @ A")
    return model
