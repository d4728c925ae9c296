"""Train by one implementation: PEFT, PEFT with Liger's kernels, TRL, and this project's.

All take the same rows in the same order and average the loss over the target tokens, with AdamW and
one clipping of the whole gradient (LoRI-S clips each tensor). All start from the same A and B = 0,
so the losses of the first two steps have to agree; later ones differ where A is trained too.
Implementations that need their own copy of the model are in `benchmarks.gpu.peers_on_disk`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

from benchmarks.gpu import peers_on_disk
from benchmarks.gpu.clock import Clock
from benchmarks.training_peers import (
    ALPHA,
    RANK,
    RATE,
    TARGETS,
    Work,
    arguments,
    in_order,
    lori_model,
)
from lori_core.config import TrainingSection
from lori_core.data.batching import collate
from lori_core.models import peft_names
from lori_core.training import trainer
from lori_core.training.trainer_overrides import TrainerOverrides

#: Runs all steps of a clock on the work, in a scratch folder; returns the trained PEFT model.
Peer = Callable[[Work, Clock, Path], Any]


def wrapped(work: Work, *, half: bool = True) -> Any:
    """Return PEFT's LoRA with the work's A and B = 0; A and B are trained.

    Args:
        work: gives the base model and A.
        half: whether A and B are in the base's dtype; PEFT's default is float32.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=list(TARGETS), task_type="CAUSAL_LM"
    )
    model = get_peft_model(work.base, config, autocast_adapter_dtype=not half)
    for name, layer in peft_names.lora_layers(model).items():
        layer.lora_A["default"].weight.data.copy_(work.A[name])
    return model


def peft(work: Work, clock: Clock, folder: Path, *, liger: bool = False, half: bool = True) -> Any:
    """Train with PEFT and `transformers.Trainer`.

    Args:
        work: the model and the rows.
        clock: times the steps.
        folder: a scratch folder.
        liger: whether Trainer applies Liger's kernels.
        half: whether A and B are in bfloat16; otherwise in float32 under autocast (`bf16=True`).
    """
    model = wrapped(work, half=half)
    cuda = torch.cuda.is_available()
    engine = Trainer(
        model=model,
        args=TrainingArguments(
            **arguments(work, str(folder), use_liger_kernel=liger, bf16=cuda and not half)
        ),
        train_dataset=work.rows,
        data_collator=lambda batch: collate(batch, work.pad),
        callbacks=[clock],
    )
    in_order(engine)
    engine.train()
    return model


def trl(work: Work, clock: Clock, folder: Path) -> Any:
    """Train with TRL's SFTTrainer on packed batches: the rows of a pass in one, without padding.

    Attention separates the rows by FlashAttention 2 if it is installed, otherwise by a mask.
    """
    from trl import SFTConfig, SFTTrainer

    if torch.cuda.is_available() and importlib.util.find_spec("flash_attn"):
        work.base.set_attn_implementation("flash_attention_2")
    config = SFTConfig(
        **arguments(work, str(folder), remove_unused_columns=True),
        max_length=None,
        completion_only_loss=True,
        gradient_checkpointing=False,
        bf16=False,
        padding_free=True,
    )
    model = wrapped(work)
    engine = SFTTrainer(
        model=model,
        args=config,
        train_dataset=peers_on_disk.dataset(work),
        processing_class=peers_on_disk.tokenizer(work.base.config.vocab_size),
        callbacks=[clock],
    )
    in_order(engine)
    engine.train()
    return model


def ours(work: Work, clock: Clock, folder: Path, *, sparse: bool) -> Any:
    """Train as this project does: LoRI-S with the mask, LoRI-D without.

    If the work takes all rows of a step at once, the engine splits them into passes by itself
    (`training.tokens_at_once: auto`); otherwise a pass has the tokens of as many rows.
    """
    model = lori_model(work, sparse)
    section = TrainingSection(
        learning_rate=RATE,
        batch_size=len(work.batches[0]),
        tokens_at_once=_tokens_at_once(work),
        max_steps=len(work.batches),
        max_length=max(map(len, work.rows)),
        loss="token_mean",
        clipping="per_tensor" if sparse else "global",
        save_steps=10**6,
    )
    with _rows_in_order():
        trainer.train(
            model,
            work.rows,
            section,
            pad_token_id=work.pad,
            seed=0,
            checkpoints=folder,
            tracker=clock,
            what="ours",
            overrides=TrainerOverrides(after_step=clock.stepped),
        )
    return model


def _tokens_at_once(work: Work) -> Any:
    """Return `training.tokens_at_once`: auto, or the most tokens of `work.micro` rows in order."""
    if work.micro == len(work.batches[0]):
        return "auto"
    rows, micro = work.rows, work.micro
    return max(sum(map(len, rows[n : n + micro])) for n in range(0, len(rows), micro))


@contextmanager
def _rows_in_order() -> Iterator[None]:
    """Let this project's engine take the rows in their order inside a `with` block."""
    engine = trainer.LoriTrainer
    before = engine._get_train_sampler
    engine._get_train_sampler = (  # type: ignore[method-assign]
        lambda self, *_: torch.utils.data.SequentialSampler(self.train_dataset)  # type: ignore
    )
    try:
        yield
    finally:
        engine._get_train_sampler = before  # type: ignore[method-assign]


def _lori(sparse: bool) -> Peer:
    return lambda work, clock, folder: ours(work, clock, folder, sparse=sparse)


OURS: dict[str, Peer] = {"LoRI-S": _lori(True), "LoRI-D": _lori(False)}
PEERS: dict[str, Peer] = {
    **OURS,
    "PEFT": peft,
    "PEFT + Liger": lambda work, clock, folder: peft(work, clock, folder, liger=True),
    "TRL, packed": trl,
    "PEFT, float32 adapters": lambda work, clock, folder: peft(work, clock, folder, half=False),
    "Unsloth": peers_on_disk.unsloth,
    "axolotl": peers_on_disk.axolotl,
}
#: The package that an implementation needs besides this project's.
NEEDS = {
    "PEFT + Liger": "liger_kernel",
    "TRL, packed": "trl",
    "Unsloth": "unsloth",
    "axolotl": "axolotl",
}
#: The steps whose losses have to agree with LoRI-D's: two, but one with a mask or with another A.
CHECKED_STEPS = {"LoRI-S": 1, "Unsloth": 1, "axolotl": 1}


def missing(name: str) -> str | None:
    """Return the package that an implementation lacks here, or None."""
    package = NEEDS.get(name)
    return package if package and importlib.util.find_spec(package) is None else None
