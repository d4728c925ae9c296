"""Tags and data sets of a stage's run, as MLflow's entities."""

from __future__ import annotations

import getpass
import json
import os
from typing import Any

from flows.tracking.logged_models import DIGEST_LENGTH
from flows.tracking.rows import PIPELINE, Row


def dataset_input(row: Row) -> Any:
    """Return a `dataset` row as MLflow's input of a run."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name=str(row["name"])[:500],
        digest=str(row["digest"])[:DIGEST_LENGTH],
        source_type="local",
        source=json.dumps({"uri": str(row.get("source", ""))}),
        profile=json.dumps({"num_rows": row.get("rows"), "sha256": row["digest"]}),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "input")])


def stage_tags(stage: str) -> dict[str, str]:
    """Return tags to filter runs by: `lori.step` and, for `train@math`, `lori.task`."""
    if stage == PIPELINE:
        return {"mlflow.source.name": "lori run", "mlflow.source.type": "LOCAL"}
    step, _, task = stage.partition("@")
    source = {"mlflow.source.name": f"lori stage {step} {task}".strip()}
    item = {"lori.task": task} if task else {}
    return {"lori.step": step, "dvc.stage": stage, "mlflow.source.type": "LOCAL", **source, **item}


def user_tags() -> dict[str, str]:
    """Return the tag with the user's name."""
    try:
        return {"mlflow.user": getpass.getuser()}
    except (KeyError, OSError):  # a container's user may have no name
        return {"mlflow.user": str(os.getuid())}
