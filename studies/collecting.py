"""Collect an experiment's measurements as rows, which `studies.page` reads."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator

from lori_core.config import ModelSection
from lori_core.data.pulled import read_examples
from lori_core.models import base_model
from studies.points import Cell, Collect, Point, Train, load
from studies.results import Row, facts_of

#: The facts of a trained point that become rows of an experiment.
TRAINING_FACTS = (
    "trainable_parameters",
    "trainable_share",
    "state_bytes",
    "artifact_bytes",
    "learning_rate",
)


def collect(point: Collect) -> Row:
    """Return an experiment's measurements: its name, information about the runs, and rows."""
    rows = [row for c in point.cells for row in rows_of(c, load(c.point), facts_of(c.point))]
    info = point.info | {"machine": machine()} | sizes(point)
    return {"experiment": point.experiment, "info": info, "rows": rows}


def rows_of(cell: Cell, source: Point, facts: Row) -> Iterator[Row]:
    """Yield the rows of a cell.

    Args:
        cell: the cell.
        source: its point.
        facts: the point's measurements.
    """
    if isinstance(source, Train):
        facts = facts | {"artifact_bytes": facts["adapter_bytes"]}
        for metric in TRAINING_FACTS:
            if metric in cell.factors:  # a factor of the experiment already
                continue
            row: Row = {"metric": metric, "task": source.task, "value": facts[metric]}
            if metric == "learning_rate" and facts.get("tried"):
                row["tried"] = facts["tried"]
            yield _row(cell, row)
        return
    for row in facts["rows"][cell.model]:
        if not cell.tasks or row["task"] in cell.tasks:
            yield _row(cell, row)


def _row(cell: Cell, row: Row) -> Row:
    return {**row, **cell.factors, "seed": cell.seed}


def sizes(point: Collect) -> Row:
    """Return the number of the base model's parameters, and of each task's examples."""
    section = ModelSection(name_or_path=point.info["model"], revision=point.info.get("revision"))
    count = base_model.outline(base_model.prepare(section)).num_parameters()

    def counts(split: str) -> dict[str, int]:
        return {task: len(read_examples(task, split)) for task in point.info["tasks"]}

    return {"parameters": count, "train_sizes": counts("train"), "test_sizes": counts("test")}


def machine() -> str:
    """Return a short description of this machine's GPUs or CPU."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{os.cpu_count()} CPU cores ({platform.machine()}, {capability})"
