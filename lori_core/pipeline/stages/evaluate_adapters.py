"""The stage `evaluate_adapters`: score a task's adapter, and measure what it gains."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from lori_core.config import Params
from lori_core.core.files.atomic import write_json
from lori_core.core.tracking import RunTracker
from lori_core.evaluation.rows import ADAPTER, CALIBRATED
from lori_core.pipeline.results import (
    adapter_path,
    calibrated_path,
    is_calibrated,
    own_losses_path,
)
from lori_core.pipeline.stages.evaluate import evaluate_models

if TYPE_CHECKING:
    from lori_core.data.example import Example
    from lori_core.methods.finetuned_model import Trained
    from lori_core.methods.loaded_model import LoadedModel


def evaluate_adapters(params: Params, task: str, tracker: RunTracker) -> None:
    """Score a task's adapter, and the adapter of its calibration run, on the task.

    Also measure the held-out loss with and without the adapter, which `excess` compares merges to.
    """
    from lori_core.data.pulled import read_held_out
    from lori_core.methods.finetuned_model import open_model

    paths = {CALIBRATED: calibrated_path(task)} if is_calibrated(task) else {}
    paths[ADAPTER] = adapter_path(task)
    rows = {row: (path, [task]) for row, path in paths.items()}
    session = evaluate_models(params, tracker, "adapters", task, rows)
    adapter = open_model(adapter_path(task))
    losses = own_losses(session, adapter, task, read_held_out(task))
    tracker.metrics(losses)
    write_json(own_losses_path(task), losses)


def own_losses(
    session: LoadedModel, adapter: Trained, task: str, examples: Sequence[Example]
) -> dict[str, float]:
    """Return a task's mean held-out loss without and with its own adapter, nats per example.

    Args:
        session: the loaded base model; unchanged afterwards.
        adapter: the task's adapter.
        task: the task.
        examples: its held-out examples; those without a target are left out.

    Returns:
        `base_loss` and `adapter_loss`; empty if no example has a target.

    Raises:
        AdapterError: the adapter belongs to another base model.
        LoriError: a loss is not finite.
    """
    from lori_core.evaluation.evaluate import adapter_applied
    from lori_core.evaluation.held_out import task_losses

    known = [example for example in examples if example.target]
    if not known:
        return {}
    losses = {}
    for name, trained in (("base_loss", None), ("adapter_loss", adapter)):
        with adapter_applied(session, trained) as model:
            found, _ = task_losses(session, model, task, known, name)
        losses[name] = fmean(found)
    return losses
