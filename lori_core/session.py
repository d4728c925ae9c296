"""A loaded base model, and the one way in which a phase trains an adapter on it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lori_core import attaching, finite, models, peft_names, source_code
from lori_core.adapter import Adapter, ProjectionBlock, draw, last_name, pack, uniform
from lori_core.base_identity import BaseIdentity
from lori_core.config import HOW, Params, TrainingSection
from lori_core.data import limits
from lori_core.data.example import Example
from lori_core.data.prompts import Encoded
from lori_core.data.pulled import each_example
from lori_core.data.tokens import tokenised, tokenizer_identity
from lori_core.errors import DataError
from lori_core.files import digest, digest_each
from lori_core.mask import Mask
from lori_core.stage_dependencies import SESSION
from lori_core.tracking import RunTracker
from lori_core.training import TrainingResult, train

CHECKPOINTS = Path(".lori/checkpoints")


@dataclass(frozen=True)
class Session:
    """A base model in memory with what belongs to it."""

    params: Params
    base: BaseIdentity
    model: Any
    tokenizer: Any
    modules: dict[str, tuple[int, int]]
    parameters: int
    """How many parameters the base model has."""
    fan_in_fan_out: bool
    """Whether the base keeps its weights as [d_in, d_out]."""
    matched_by: tuple[str, ...] = ()
    """The names by which PEFT finds the modules, where the last parts mean others, too."""
    left_out: Mapping[str, list[str]] = field(default_factory=dict)
    """Parts of the base that have modules of the targets' names but get no adapter, by the reason.
    """

    def said(self) -> dict[str, Any]:
        """Return what an adapter remembers of the session besides its base and modules."""
        return {"left_out": dict(self.left_out)} if self.left_out else {}


def open_session(params: Params, *, training: bool = True, scoring: bool = True) -> Session:
    """Load the base model of a run.

    Args:
        params: the run.
        training: whether adapters will be trained: then all target modules must be there.
        scoring: whether `params.evaluation` counts.

    Raises:
        ModelError, ConfigError: if it cannot be used or cannot do what is asked of it
            (`limits.check`), or a target module matches nothing.
    """
    folder = models.prepare(params.model)
    tokenizer = models.load_tokenizer(folder)
    limits.check(params, folder, tokenizer, training=training, scoring=scoring)
    identity = models.identity(params.model, folder)
    model = models.load(params.model, folder)
    targets = params.lori.target_modules if training else ()
    modules = peft_names.target_shapes(model, targets)
    left_out = peft_names.left_out(model, targets)
    for why, parts in left_out.items():
        said = f"lori.target_modules: no adapter in {', '.join(parts)}: {why}"
        print(said, file=sys.stderr, flush=True)
    matched = peft_names.targets_of(model, modules)
    return Session(
        params,
        identity,
        model,
        tokenizer,
        modules,
        model.num_parameters(),
        peft_names.fan_in_fan_out(model, modules),
        matched_by=() if set(matched) == set(map(last_name, modules)) else tuple(matched),
        left_out=left_out,
    )


@dataclass(frozen=True)
class Phase:
    """What one training run is: everything its result depends on besides base and data.

    Attributes:
        stage: the pipeline stage's name; checkpoints are kept under it.
        task: whose examples are learned.
        section: learning rate and the like.
        blocks: the key A is drawn from.
        mask: the entries of B that may change; None for all.
        start: B to start from, dense float32; None for zeros.
        support: the entries of B that may be other than zero afterwards; None for all.
        parents: content keys of what the phase starts from.
    """

    stage: str
    task: str
    section: TrainingSection
    blocks: tuple[ProjectionBlock, ...]
    mask: Mask | None
    start: Mapping[str, Tensor] | None
    support: Mask | None
    parents: tuple[str, ...] = ()
    lora_alpha: float | None = None
    """Given by what the phase starts from; else by the section, else by `lori.lora_alpha`."""
    code: tuple[str, ...] = SESSION
    """The files of this package that decide the result."""


def depends_on(
    session: Session, facts: Mapping[str, Any], data_digest: str, code: Sequence[str]
) -> dict[str, Any]:
    """Return everything that a training's result depends on; its digest is the content key.

    Args:
        session: base, precision, prompt, tokenizer, rank, alpha, seed and target modules.
        facts: what else, as JSON can hold it.
        data_digest: of the training examples.
        code: the files of this package that decide it.
    """
    return {
        "base": session.base.content(),
        "dtype": str(session.model.dtype).removeprefix("torch."),
        "quantization": session.params.model.quantization,
        "prompt": session.params.prompt.model_dump(),
        "tokenizer": tokenizer_identity(session.tokenizer),
        "lori": session.params.lori.model_dump(include={"rank", "lora_alpha", "seed"}),
        "modules": digest(sorted(session.modules)),
        "data": data_digest,
        "code": source_code.digests(code),
        **facts,
    }


def _facts(phase: Phase) -> dict[str, Any]:
    return {
        "section": phase.section.model_dump(exclude=HOW),
        "blocks": [{"seed": b.seed, "key": b.key, "rank": b.rank} for b in phase.blocks],
        "mask": None if phase.mask is None else digest(phase.mask.bits.tobytes().hex()),
        "parents": list(phase.parents),
    }


def training_rows(
    session: Session, task: str, section: TrainingSection
) -> tuple[Sequence[Encoded], str]:
    """Return a task's tokenised training examples, and their digest.

    Raises:
        DataError: if the task has no training examples with a target, or one with a token that the
            model does not embed.
    """

    def examples() -> Iterator[Example]:
        return (e for e in each_example(task, "train") if e.target)

    if not any(True for _ in examples()):
        raise DataError(f"tasks.{task}: no training example has a target")
    key = digest_each(example.id for example in examples())
    prompt, tokenizer = session.params.prompt, session.tokenizer
    rows = tokenised(examples(), key, prompt, tokenizer, section.max_length)
    limits.check_ids(int(rows.tokens.max()), session.model, f"tasks.{task}")
    return rows, key


#: Is shown a trained model while it is whole, in evaluation mode.
Measure = Callable[[Any], None]


def run_phase(
    session: Session, phase: Phase, tracker: RunTracker, measure: Measure | None = None
) -> tuple[Adapter, TrainingResult]:
    """Train one adapter and return it, with what the run did; the base wears it afterwards.

    Raises:
        DataError: if the task has no training examples with a target.
        DivergedError: at a loss or gradient that is not finite, or values that end so.
    """
    rows, data = training_rows(session, phase.task, phase.section)
    depends = depends_on(session, _facts(phase), data, phase.code)
    key = digest(depends)
    lori = session.params.lori
    alpha = phase.lora_alpha or phase.section.lora_alpha or lori.lora_alpha
    modules = uniform(session.modules, lori.rank, alpha)
    model = attaching.attach(
        session.model,
        modules,
        lambda name: draw(phase.blocks, name, modules[name].d_in),
        dropout=phase.section.dropout,
    )
    positions = None if phase.mask is None else phase.mask.positions()
    attaching.make_trainable(model, positions, phase.start)
    if phase.section.gradient_checkpointing:
        model.enable_input_require_grads()
    result = train(
        model,
        rows,
        phase.section,
        pad_token_id=session.tokenizer.pad_token_id,
        seed=lori.seed,
        checkpoints=checkpoint_folder(phase.stage, key),
        tracker=tracker,
        what=phase.stage,
    )
    if measure is not None:
        measure(model.eval())
    B = attaching.trained_B(model, positions, phase.start)
    dtype = getattr(torch, lori.values_dtype)
    finite.check_trained(((f"B of {name}", b.to(dtype)) for name, b in B.items()), phase.stage)
    adapter = Adapter(
        base=session.base,
        modules=modules,
        blocks=phase.blocks,
        mask=phase.support,
        values=pack(modules, B, phase.support, dtype),
        dtype=dtype,
        info={
            "task": phase.task,
            "stage": phase.stage,
            "method": "lori-d" if phase.mask is None else "lori-s",
            "content_key": key,
            "parents": list(phase.parents),
            "depends": depends,
            **session.said(),
        },
        fan_in_fan_out=session.fan_in_fan_out,
        matched_by=session.matched_by,
    )
    return adapter, result


def checkpoint_folder(stage: str, key: str) -> Path:
    """Return where a stage with these inputs keeps checkpoints: a changed stage starts afresh."""
    folder = CHECKPOINTS / stage / key[:16]
    if folder.parent.is_dir():
        for other in folder.parent.iterdir():
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)
    return folder


def forget_checkpoints(stage: str) -> None:
    """Delete a finished stage's checkpoints."""
    shutil.rmtree(CHECKPOINTS / stage, ignore_errors=True)
