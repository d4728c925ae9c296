"""Run a training point: train one adapter or a full model by one method."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from lori_core.adapters.adapter import Adapter, uniform
from lori_core.adapters.masks import importances
from lori_core.adapters.masks.mask import Mask
from lori_core.adapters.masks.structured_mask import top_structures
from lori_core.core.errors import InputError
from lori_core.core.tracking import RunTracker
from lori_core.data.example import Example
from lori_core.data.pulled import DATA, read_examples
from lori_core.evaluation.held_out import held_out_losses
from lori_core.methods import catalogue, finetuned_model
from lori_core.methods.loaded_model import LoadedModel, forget_checkpoints, load_model
from lori_core.methods.lori import calibration
from lori_core.methods.lori.null_space import Avoid
from lori_core.methods.tuning import Tuning, tune
from studies.points import MODEL, Projection, Train, folder_of, load
from studies.results import Row, adapter_of, facts_of, params_of


def train(point: Train, name: str, work: Path, tracker: RunTracker) -> Row:
    """Train, save the result, and return its measurements with the validation loss.

    Args:
        point: the settings.
        name: the point's name.
        work: the folder to write to.
        tracker: receives the metrics.
    """
    chosen = point
    if point.tries:
        best = best_of(point.tries)
        rate = {"learning_rate": best.training.learning_rate}
        training = point.training.model_copy(update=rate)
        chosen = point.model_copy(update={"training": training, "tries": ()})
        if chosen == best:  # the same run, down to the seed
            shutil.copytree(folder_of(_name_of_best(point.tries)) / MODEL, work / MODEL)
            return facts_of(_name_of_best(point.tries)) | _tried(point.tries)
    session = load_model(params_of(chosen), scoring=False)
    validation = _Validation(chosen, session)
    trained, result = tune(session, _tuning(session, chosen, name), tracker, validation)
    finetuned_model.save_model(trained, work / MODEL)
    forget_checkpoints(name)
    facts = asdict(result) | finetuned_model.facts(trained, work / MODEL)
    facts |= {
        "content_key": trained.info["content_key"],
        "learning_rate": chosen.training.learning_rate,
        "trainable_share": result.trainable_parameters / session.parameters,
        "state_bytes": catalogue.STATE_BYTES * result.trainable_parameters,
        "validation_loss": validation.loss,
    }
    tracker.metrics({k: v for k, v in facts.items() if isinstance(v, (int, float))})
    return facts | _tried(point.tries)


def best_of(tries: tuple[str, ...]) -> Train:
    """Return the point with the least validation loss; of equal ones the first.

    Raises:
        InputError: the points are no trainings, or have no validation loss.
    """
    best = load(_name_of_best(tries))
    if not isinstance(best, Train):
        raise InputError(f"{_name_of_best(tries)}: is no training run, so it has no learning rate")
    return best


def _name_of_best(tries: tuple[str, ...]) -> str:
    losses = {name: facts_of(name)["validation_loss"] for name in tries}
    if None in losses.values():
        raise InputError(
            f"{tries[0]}: no validation example has a target, so no learning rate can be chosen; "
            "give the task validation examples, or each method one learning rate"
        )
    return min(tries, key=losses.__getitem__)


def _tried(tries: tuple[str, ...]) -> Row:
    """Return the validation loss of each learning rate that was tried."""
    facts = [facts_of(name) for name in tries]
    return {"tried": {f"{f['learning_rate']:g}": f["validation_loss"] for f in facts}}


def _tuning(session: LoadedModel, point: Train, name: str) -> Tuning:
    """Return the training of a point, with a mask from its calibrated adapter or at random."""
    start = None if point.start is None else adapter_of(point.start)
    calibrated = None if point.mask_of is None else adapter_of(point.mask_of)
    mask = None
    if catalogue.METHODS[point.method].calibrated_by is not None:
        mask = _mask(session, point, calibrated)
    return Tuning(
        name,
        point.task,
        point.method,
        point.training,
        point.options,
        start=start,
        mask=mask,
        calibrated=calibrated if start is None else None,
        safety=point.safety,
        avoid=_avoid(point.projection),
    )


def _avoid(projection: Projection | None) -> Avoid | None:
    if projection is None or not projection.avoid:
        return None
    return Avoid(projection.avoid, projection.examples)


def _mask(session: LoadedModel, point: Train, calibrated: Adapter | None) -> Mask:
    if calibrated is not None:
        mask, _ = calibration.take_mask(lambda: session, calibrated, point.lori, point.task)
        return mask
    modules = uniform(session.modules, point.lori.rank, point.lori.lora_alpha)
    shapes = {name: (m.d_out, m.rank) for name, m in modules.items()}
    scores = importances.noise(shapes, point.lori.seed, point.task)
    lori = point.lori
    mask, _ = top_structures(scores, lori.exact_sparsity(), lori.mask_scope, lori.structure)
    return mask


def _validation_examples(task: str) -> list[Example]:
    """Return a task's validation examples with a target; never test examples in their place."""
    path = DATA / task / "validation.jsonl"
    if not path.is_file() or not path.stat().st_size:
        return []
    return [example for example in read_examples(task, "validation") if example.target]


class _Validation:
    """Measures a model's mean loss on the task's validation examples, if there are any."""

    def __init__(self, point: Train, session: LoadedModel) -> None:
        self.point = point
        self.session = session
        self.loss: float | None = None

    def __call__(self, model: Any) -> None:
        examples = _validation_examples(self.point.task)
        if not examples:
            return
        losses, _ = held_out_losses(
            model,
            self.session.tokenizer,
            examples,
            self.point.prompt,
            self.point.training.max_length,
            self.point.training.batch_size,
            f"validation {self.point.task}",
        )
        self.loss = fmean(losses)
