"""A loaded base model, the examples it is trained on, and what a training depends on."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lori_core.adapters.adapter import last_name
from lori_core.config import Params, TrainingSection
from lori_core.core import source_code
from lori_core.core.errors import DataError
from lori_core.core.files.atomic import digest, digest_each
from lori_core.data.example import Example
from lori_core.data.prompts import Encoded
from lori_core.data.pulled import each_example
from lori_core.data.tokens import tokenised, tokenizer_identity
from lori_core.methods import limits
from lori_core.models import base_model, peft_names
from lori_core.models.base_identity import BaseIdentity

CHECKPOINTS = Path(".lori/checkpoints")


@dataclass(frozen=True)
class LoadedModel:
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


def load_model(params: Params, *, training: bool = True, scoring: bool = True) -> LoadedModel:
    """Load the base model of a run.

    Args:
        params: the run.
        training: whether adapters will be trained: then all target modules must be there.
        scoring: whether `params.evaluation` counts.

    Raises:
        ModelError, ConfigError: if it cannot be used or cannot do what is asked of it
            (`limits.check`), or a target module matches nothing.
    """
    folder = base_model.prepare(params.model)
    tokenizer = base_model.load_tokenizer(folder)
    limits.check(params, folder, tokenizer, training=training, scoring=scoring)
    identity = base_model.identity(params.model, folder)
    model = base_model.load(params.model, folder)
    targets = params.lori.target_modules if training else ()
    modules = peft_names.target_shapes(model, targets)
    left_out = peft_names.left_out(model, targets)
    for why, parts in left_out.items():
        said = f"lori.target_modules: no adapter in {', '.join(parts)}: {why}"
        print(said, file=sys.stderr, flush=True)
    matched = peft_names.targets_of(model, modules)
    return LoadedModel(
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


def depends_on(
    session: LoadedModel, facts: Mapping[str, Any], data_digest: str, code: Sequence[str]
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


def training_rows(
    session: LoadedModel, task: str, section: TrainingSection
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
