"""The one procedure of training: a method's adapter is put on the base, trained and collected."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from lori_core.adapters.adapter import Adapter, ProjectionBlock, check_base
from lori_core.adapters.masks.mask import Mask
from lori_core.config import EXECUTION_FIELDS, Params, TrainingSection
from lori_core.config.training_overrides import Phase
from lori_core.core.errors import AdapterError
from lori_core.core.files import finite
from lori_core.core.files.atomic import digest
from lori_core.core.stage_dependencies import TUNING
from lori_core.core.tracking import RunTracker
from lori_core.methods import catalogue, peft_layers
from lori_core.methods.catalogue import METHODS
from lori_core.methods.finetuned_model import Trained, kept
from lori_core.methods.loaded_model import LoadedModel, checkpoint_folder, depends_on, training_rows
from lori_core.methods.training_method import REGISTERED, Job, Made
from lori_core.training.trainer import TrainingResult, train

#: Is shown a trained model while it is whole, in evaluation mode.
Measure = Callable[[Any], None]


@dataclass(frozen=True)
class Tuning:
    """What one training run is, besides base, data and `lori`.

    Attributes:
        stage: the pipeline stage's name; checkpoints are kept under it.
        task: whose examples are learned.
        method: one of `METHODS`.
        section: learning rate and the like.
        options: the method's, as a user wrote them.
        start: a low-rank adapter to go on from.
        mask: the entries of B that may change, for a method that trains inside a mask.
        calibrated: the adapter that the mask was taken from; A is drawn from its key.
    """

    stage: str
    task: str
    method: str
    section: TrainingSection
    options: Mapping[str, Any] = field(default_factory=dict)
    start: Adapter | None = None
    mask: Mask | None = None
    calibrated: Adapter | None = None

    @classmethod
    def of_task(cls, params: Params, stage: str, task: str, phase: Phase, **more: Any) -> Tuning:
        """Return the run of a task's own method in one of its phases."""
        section, chosen = params.phase(task, phase), params.tasks[task]
        return cls(stage, task, chosen.method_name, section, chosen.method_options, **more)

    @property
    def parents(self) -> list[str]:
        """The content keys of what the run starts from."""
        known = [parent for parent in (self.start, self.calibrated) if parent is not None]
        return [str(parent.info.get("content_key")) for parent in known]


def tune(
    session: LoadedModel, tuning: Tuning, tracker: RunTracker, measure: Measure | None = None
) -> tuple[Trained, TrainingResult]:
    """Train by a method; the session's base is changed and not to be used afterwards.

    Returns:
        What was trained, and what the run did.

    Raises:
        ConfigError: for options that the method does not have.
        AdapterError: for a start that the method cannot go on from.
        DataError: if the task has no training examples with a target.
        DivergedError: at a loss or gradient that is not finite, or values that end so.
    """
    rows, data = training_rows(session, tuning.task, tuning.section)
    dtype = session.model.dtype
    method = METHODS[tuning.method](_job(session, tuning, len(rows)))
    with _seeded(session.params.lori.seed, tuning.task):
        model = method.attach(session.model)
    peft_layers.in_float32(model)
    if tuning.section.gradient_checkpointing:
        model.enable_input_require_grads()
    facts = {
        "method": tuning.method,
        "section": tuning.section.model_dump(exclude=EXECUTION_FIELDS),
        "parents": tuning.parents,
        **_extension(tuning.method),
        **method.depends(),
    }
    depends = depends_on(session, facts, data, TUNING)
    key = digest(depends)
    recipe = method.recipe(model, dtype)
    result = train(
        model,
        rows,
        tuning.section,
        pad_token_id=session.tokenizer.pad_token_id,
        seed=session.params.lori.seed,
        checkpoints=checkpoint_folder(tuning.stage, key),
        tracker=tracker,
        what=tuning.stage,
        recipe=recipe,
    )
    if measure is not None:
        with recipe.computing(model.device):
            measure(model.eval())
    info = {
        "task": tuning.task,
        "stage": tuning.stage,
        "method": tuning.method,
        "content_key": key,
        "parents": tuning.parents,
        "depends": depends,
        **session.said(),
    }
    made = Made(session.base, dtype, session.fan_in_fan_out, session.matched_by, info)
    trained = method.collect(model, made)
    finite.check_trained(kept(trained), tuning.stage)
    return trained, result


def _extension(method: str) -> dict[str, Any]:
    """Return the extension file that a method is from and its SHA-256; empty for our own."""
    origin = REGISTERED[method].origin
    return {} if origin is None else {"extension": {origin.path: origin.sha256}}


def _job(session: LoadedModel, tuning: Tuning, examples: int) -> Job:
    lori, kind = session.params.lori, METHODS[tuning.method]
    if (tuning.mask is None) != (kind.calibrated_by is None):
        raise ValueError(f"{tuning.stage}: {tuning.method} and a mask do not go together")
    if tuning.start is not None and not kind.continues:
        raise AdapterError(f"{tuning.stage}: {tuning.method} cannot go on from another adapter")
    parents = {"adapter to go on from": tuning.start, "calibrated adapter": tuning.calibrated}
    for what, parent in parents.items():
        if parent is not None:
            check_base(parent, session.base, f"{tuning.stage}: the {what}")
    if tuning.section.lora_alpha is not None:
        lori = lori.model_copy(update={"lora_alpha": tuning.section.lora_alpha})
    return Job(
        lori=lori,
        options=catalogue.options(tuning.method, tuning.options, f"tasks.{tuning.task}.method"),
        section=tuning.section,
        task=tuning.task,
        steps=_steps(examples, tuning.section),
        blocks=_blocks(session.params, tuning),
        mask=tuning.mask,
        start=tuning.start,
    )


def _blocks(params: Params, tuning: Tuning) -> tuple[ProjectionBlock, ...]:
    """Return the key that A is drawn from: that of what the run starts from, or the task's own."""
    before = tuning.start or tuning.calibrated
    if before is not None:
        return before.blocks
    key = params.projection_key(tuning.task)
    return (ProjectionBlock(params.lori.seed, key, params.lori.rank),)


def _steps(examples: int, section: TrainingSection) -> int:
    """Return the optimizer steps of a run."""
    batch = section.batch_size * section.gradient_accumulation_steps
    steps = math.ceil(math.ceil(examples / batch) * section.epochs)
    return min(steps, section.max_steps or steps)


@contextmanager
def _seeded(seed: int, task: str) -> Iterator[None]:
    """Let what is drawn inside depend on (seed, task) alone, and leave torch's state as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(int(digest([seed, task])[:15], 16))
        yield
