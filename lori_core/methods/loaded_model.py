"""Load a base model and a task's training examples; compute a training's content key."""

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
    """A base model in memory, with its tokenizer and target modules.

    Attributes:
        params: the run it was loaded for.
        base: the identity of the base model.
        model: the base model.
        tokenizer: the base model's tokenizer.
        modules: (d_in, d_out) of each target module, by name.
        parameters: the number of parameters of the base model.
        fan_in_fan_out: whether the target modules store their weights as [d_in, d_out].
        matched_by: the names to pass to PEFT as `target_modules`; empty where the last parts of
            the module names match exactly the target modules.
        left_out: for each reason, the parts of the base whose modules match
            `lori.target_modules` but get no adapter.
    """

    params: Params
    base: BaseIdentity
    model: Any
    tokenizer: Any
    modules: dict[str, tuple[int, int]]
    parameters: int
    fan_in_fan_out: bool
    matched_by: tuple[str, ...] = ()
    left_out: Mapping[str, list[str]] = field(default_factory=dict)

    def adapter_info(self) -> dict[str, Any]:
        """Return the entries that this model adds to the `info` of each adapter trained on it."""
        return {"left_out": dict(self.left_out)} if self.left_out else {}


def load_model(params: Params, *, training: bool = True, scoring: bool = True) -> LoadedModel:
    """Load the base model of a run.

    Args:
        params: the run.
        training: whether adapters will be trained; then each target module must match.
        scoring: whether outputs will be generated; then `params.evaluation` is checked.

    Raises:
        ModelError: the model or tokenizer cannot be loaded or used (`limits.check`).
        ConfigError: the model cannot do what the run asks for (`limits.check`), or a target module
            matches nothing.
    """
    folder = base_model.prepare(params.model)
    tokenizer = base_model.load_tokenizer(folder)
    limits.check(params, folder, tokenizer, training=training, scoring=scoring)
    identity = base_model.identity(params.model, folder)
    model = base_model.load(params.model, folder)
    targets = params.lori.target_modules if training else ()
    modules = peft_names.target_shapes(model, targets)
    left_out = peft_names.left_out(model, targets)
    for reason, parts in left_out.items():
        warning = f"lori.target_modules: no adapter in {', '.join(parts)}: {reason}"
        print(warning, file=sys.stderr, flush=True)
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
    loaded: LoadedModel, facts: Mapping[str, Any], data_digest: str, code: Sequence[str]
) -> dict[str, Any]:
    """Return everything that the result of a training depends on; its digest is the content key.

    Args:
        loaded: gives base, precision, prompt, tokenizer, rank, alpha, seed and target modules.
        facts: further entries; values that JSON can hold.
        data_digest: the digest of the training examples.
        code: the files of this package that the result depends on.
    """
    return {
        "base": loaded.base.content(),
        "dtype": str(loaded.model.dtype).removeprefix("torch."),
        "quantization": loaded.params.model.quantization,
        "prompt": loaded.params.prompt.model_dump(),
        "tokenizer": tokenizer_identity(loaded.tokenizer),
        "lori": loaded.params.lori.model_dump(include={"rank", "lora_alpha", "seed"}),
        "modules": digest(sorted(loaded.modules)),
        "data": data_digest,
        "code": source_code.digests(code),
        **facts,
    }


def training_rows(
    loaded: LoadedModel,
    task: str,
    section: TrainingSection,
    mixed: Sequence[Example] = (),
) -> tuple[Sequence[Encoded], str]:
    """Return a task's tokenised training examples, and their digest.

    Args:
        loaded: gives the tokenizer and the prompt template.
        task: the task's name.
        section: gives `max_length`.
        mixed: examples of another task that are added.

    Raises:
        DataError: the task has no training example with a target, or an example has a token id
            beyond the model's embedding.
    """

    def examples() -> Iterator[Example]:
        yield from (e for e in each_example(task, "train") if e.target)
        yield from mixed

    if not any(True for _ in examples()):
        raise DataError(f"tasks.{task}: no training example has a target")
    key = digest_each(example.id for example in examples())
    prompt, tokenizer = loaded.params.prompt, loaded.tokenizer
    rows = tokenised(examples(), key, prompt, tokenizer, section.max_length)
    limits.check_ids(rows.largest(), loaded.model, f"tasks.{task}")
    return rows, key


def mixed_in(task: str, safety: str, share: float, seed: int) -> list[Example]:
    """Return safety examples for a share of all training examples, chosen by the seed.

    With n examples of the task, `round(n · share / (1 - share))` of the safety task are taken.

    Args:
        task: the task to learn.
        safety: the safety task.
        share: of the safety examples among all, in (0, 1).
        seed: decides which ones.

    Raises:
        DataError: the safety task has fewer training examples with a target.
    """
    own = sum(bool(e.target) for e in each_example(task, "train"))
    wanted = max(1, round(own * share / (1 - share)))
    known = {e.id: e for e in each_example(safety, "train") if e.target}
    if len(known) < wanted:
        raise DataError(
            f"data/{safety}/train.jsonl: has {len(known)} examples with a target, but a share of "
            f"{share:g} beside the {own} of {task} needs {wanted}; lower the method's share, or "
            f"tasks.{task}.sizes.train"
        )
    chosen = sorted(known, key=lambda id: digest([seed, id]))[:wanted]
    return [known[id] for id in sorted(chosen)]


def checkpoint_folder(stage: str, key: str) -> Path:
    """Return the checkpoint folder of a stage and content key; delete those of other keys.

    A stage whose inputs changed has another content key, so it starts from step 0.
    """
    folder = CHECKPOINTS / stage / key[:16]
    if folder.parent.is_dir():
        for other in folder.parent.iterdir():
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)
    return folder


def forget_checkpoints(stage: str) -> None:
    """Delete a finished stage's checkpoints."""
    shutil.rmtree(CHECKPOINTS / stage, ignore_errors=True)
