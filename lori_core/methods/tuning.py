"""The training procedure that all methods share: attach to the base, train, collect the result."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lori_core.adapters.adapter import Adapter, OnDemand, ProjectionBlock, check_base, draw
from lori_core.adapters.masks.mask import Mask
from lori_core.config import EXECUTION_FIELDS, Params, TrainingSection
from lori_core.config.training_overrides import Phase
from lori_core.core.errors import AdapterError, ConfigError
from lori_core.core.files import finite
from lori_core.core.files.atomic import digest
from lori_core.core.stage_dependencies import TUNING
from lori_core.core.tracking import RunTracker
from lori_core.data.example import Example
from lori_core.methods import catalogue, peft_layers
from lori_core.methods.catalogue import METHODS
from lori_core.methods.finetuned_model import Trained, saved_tensors
from lori_core.methods.loaded_model import (
    LoadedModel,
    checkpoint_folder,
    depends_on,
    mixed_in,
    training_rows,
)
from lori_core.methods.lori.null_space import Avoid, avoiding, measure_inputs
from lori_core.methods.training_method import REGISTERED, Job, Provenance
from lori_core.training.trainer import TrainingResult, train

#: Is called with the trained model in evaluation mode, as it is after `collect`.
Measure = Callable[[Any], None]


@dataclass(frozen=True)
class Tuning:
    """The settings of one training run, besides base, data and `lori`.

    Attributes:
        stage: the name of the pipeline stage; checkpoints are stored under it.
        task: the task to learn.
        method: one of `METHODS`.
        section: learning rate and so on.
        options: the method's options as the user wrote them.
        start: the low-rank adapter that training starts from, if any.
        mask: the entries of B that may change, for a method that trains inside a mask.
        calibrated: the adapter that the mask was extracted from; A is drawn from its key.
        safety: the task whose training examples a method may mix in; None for no mixing.
        avoid: the tasks to whose inputs A is drawn orthogonal; None for a random A.
    """

    stage: str
    task: str
    method: str
    section: TrainingSection
    options: Mapping[str, Any] = field(default_factory=dict)
    start: Adapter | None = None
    mask: Mask | None = None
    calibrated: Adapter | None = None
    safety: str | None = None
    avoid: Avoid | None = None

    @classmethod
    def of_task(cls, params: Params, stage: str, task: str, phase: Phase, **more: Any) -> Tuning:
        """Return the settings of a task's configured method in one of its phases.

        Args:
            params: the run.
            stage: the name of the pipeline stage.
            task: the task.
            phase: calibration, training or continual.
            more: further attributes, as `mask`.
        """
        name, options, _ = params.method(task, phase)
        return cls(stage, task, name, params.phase(task, phase), options, **more)

    @property
    def parents(self) -> list[str]:
        """The content keys of the adapters that the run starts from."""
        known = [parent for parent in (self.start, self.calibrated) if parent is not None]
        return [str(parent.info.get("content_key")) for parent in known]


def tune(
    loaded: LoadedModel, tuning: Tuning, tracker: RunTracker, measure: Measure | None = None
) -> tuple[Trained, TrainingResult]:
    """Train a task's adapter by a method.

    Args:
        loaded: the base model; changed in place and not usable afterwards.
        tuning: the settings of the run.
        tracker: receives the metrics.
        measure: called with the trained model in evaluation mode.

    Returns:
        The training result, and the statistics of the run.

    Raises:
        ConfigError: the method does not have one of the options, or cannot avoid inputs.
        AdapterError: the method cannot start from `tuning.start`.
        DataError: the task has no training example with a target.
        DivergedError: a loss, a gradient or a trained value is not finite.
    """
    mixed = _mixed(loaded, tuning)
    rows, data = training_rows(loaded, tuning.task, tuning.section, mixed)
    dtype = loaded.model.dtype
    drawn = _projection(loaded, tuning)
    method = METHODS[tuning.method](_job(loaded, tuning, len(rows), drawn))
    with _seeded(loaded.params.lori.seed, tuning.task):
        model = method.attach(loaded.model)
    peft_layers.in_float32(model)
    if tuning.section.gradient_checkpointing:
        model.enable_input_require_grads()
    facts = {
        "method": tuning.method,
        "section": tuning.section.model_dump(exclude=EXECUTION_FIELDS),
        "parents": tuning.parents,
        **_extension(tuning.method),
        **method.depends(),
        **drawn.facts,
    }
    depends = depends_on(loaded, facts, data, TUNING)
    key = digest(depends)
    overrides = method.trainer_overrides(model, dtype)
    result = train(
        model,
        rows,
        tuning.section,
        pad_token_id=loaded.tokenizer.pad_token_id,
        seed=loaded.params.lori.seed,
        checkpoints=checkpoint_folder(tuning.stage, key),
        tracker=tracker,
        what=tuning.stage,
        overrides=overrides,
    )
    info = {
        "task": tuning.task,
        "stage": tuning.stage,
        "method": tuning.method,
        "content_key": key,
        "parents": tuning.parents,
        "depends": depends,
        **loaded.adapter_info(),
    }
    provenance = Provenance(loaded.base, dtype, loaded.fan_in_fan_out, loaded.matched_by, info)
    trained = method.collect(model, provenance)
    finite.check_trained(saved_tensors(trained), tuning.stage)
    if measure is not None:
        with overrides.computing(model.device):
            measure(model.eval())
    return trained, result


def _extension(method: str) -> dict[str, Any]:
    """Return a method's extension file and its SHA-256; empty for a method of this package."""
    origin = REGISTERED[method].origin
    return {} if origin is None else {"extension": {origin.path: origin.sha256}}


def _job(loaded: LoadedModel, tuning: Tuning, examples: int, drawn: _Projection) -> Job:
    """Return the method's job, once mask, start and base are checked."""
    lori, kind = loaded.params.lori, METHODS[tuning.method]
    if (tuning.mask is None) != (kind.calibrated_by is None):
        raise ValueError(f"{tuning.stage}: {tuning.method} and a mask do not go together")
    if tuning.start is not None and not kind.continues:
        raise AdapterError(f"{tuning.stage}: {tuning.method} cannot start from another adapter")
    parents = {"starting adapter": tuning.start, "calibrated adapter": tuning.calibrated}
    for what, parent in parents.items():
        if parent is not None:
            check_base(parent, loaded.base, f"{tuning.stage}: the {what}")
    if tuning.section.lora_alpha is not None:
        lori = lori.model_copy(update={"lora_alpha": tuning.section.lora_alpha})
    return Job(
        lori=lori,
        options=catalogue.options(tuning.method, tuning.options, f"tasks.{tuning.task}.method"),
        section=tuning.section,
        task=tuning.task,
        steps=_steps(examples, tuning.section),
        blocks=drawn.blocks,
        stored=drawn.stored,
        mask=tuning.mask,
        start=tuning.start,
    )


def _mixed(loaded: LoadedModel, tuning: Tuning) -> list[Example]:
    """Return the safety examples that the method mixes in."""
    chosen = catalogue.options(tuning.method, tuning.options, f"tasks.{tuning.task}.method")
    share = catalogue.safety_share(tuning.method, loaded.params.lori, chosen)
    if not share or tuning.safety is None or tuning.safety == tuning.task:
        return []
    return mixed_in(tuning.task, tuning.safety, share, loaded.params.lori.seed)


@dataclass(frozen=True)
class _Projection:
    """A of a run that freezes it: the keys that it is drawn from, or its values by module.

    Attributes:
        blocks: the keys; empty with `stored`.
        stored: A [rank, d_in] by module.
        facts: what A depends on besides the keys, for the content key.
    """

    blocks: tuple[ProjectionBlock, ...]
    stored: Mapping[str, Tensor] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def _projection(loaded: LoadedModel, tuning: Tuning) -> _Projection:
    """Return A of the starting adapter, or draw the task's own.

    Raises:
        ConfigError: A is to avoid other tasks' inputs, and the method trains A or starts from an
            adapter.
    """
    before, params = tuning.start or tuning.calibrated, loaded.params
    if tuning.avoid is not None and (before is not None or METHODS[tuning.method].family != "lori"):
        raise ConfigError(
            f"tasks.{tuning.task}: A can avoid other tasks' inputs only where lori-d draws it, not "
            f"where {tuning.method} {'trains it' if before is None else 'has it from an adapter'}"
        )
    if before is not None:
        stored = None if before.stored is None else OnDemand(before.modules, before.A)
        return _Projection(before.blocks, stored)
    key = params.projection_key(tuning.task)
    blocks = (ProjectionBlock(params.lori.seed, key, params.lori.rank),)
    if tuning.avoid is None:
        return _Projection(blocks)
    inputs = measure_inputs(loaded, tuning.avoid, tuning.task, tuning.section.max_length)
    # Rounded before training as it will be saved, so that B is trained with the A of the file.
    dtype = getattr(torch, params.lori.values_dtype)
    moved = avoiding(lambda name: draw(blocks, name, loaded.modules[name][0]), inputs)
    avoid = {"tasks": list(tuning.avoid.tasks), "examples": tuning.avoid.examples}
    facts = {"avoid": avoid | {"key": key, "data": inputs.data}}
    return _Projection((), {name: A.to(dtype) for name, A in moved.items()}, facts)


def _steps(examples: int, section: TrainingSection) -> int:
    """Return the number of optimizer steps of a run."""
    if section.max_steps:
        return section.max_steps
    batch = section.batch_size * section.gradient_accumulation_steps
    return math.ceil(math.ceil(examples / batch) * section.epochs)


@contextmanager
def _seeded(seed: int, task: str) -> Iterator[None]:
    """Seed torch's generators by (seed, task) inside the block; restore their state afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(int(digest([seed, task])[:15], 16))
        yield
