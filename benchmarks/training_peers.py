"""Train by one method in this process: `python -m benchmarks.training_peers JSON`.

All methods use the same batches in the same order and precision, and print a JSON line: seconds and
loss of each step, tokens, peak memory and state. The first step is a warm-up.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from lori_core.adapters import attach
from lori_core.adapters.adapter import ProjectionBlock, draw, uniform
from lori_core.adapters.masks.mask import Mask, top
from lori_core.config import ModelSection, PromptSection, TrainingSection
from lori_core.core.tracking import NullTracker
from lori_core.data.batching import collate
from lori_core.data.example import Example
from lori_core.data.prompts import Encoded, encode_all
from lori_core.data.sources import formats
from lori_core.data.sources.catalogue import CATALOGUE
from lori_core.models import base_model, peft_names, precision
from lori_core.training import trainer
from lori_core.training.memory import memory_gb
from lori_core.training.trainer_overrides import TrainerOverrides

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
RANK, ALPHA, RATE, MAX_LENGTH = 32, 64, 1e-3, 512
NLU = ("arc-easy", "arc-challenge", "boolq", "openbookqa")


def read(name: str, count: int) -> list[Example]:
    """Return GSM8K's first training rows, or as many of four multiple-choice sets, shuffled."""
    folder = Path(os.environ.get("LORI_DATASETS", "../shared/datasets"))
    if name == "gsm8k":
        lines = (folder / "gsm8k" / "train.jsonl").read_text(encoding="utf-8").splitlines()[:count]
        return [formats.convert(json.loads(x), CATALOGUE["gsm8k"], "train.jsonl") for x in lines]
    records = [
        record
        for part in NLU
        for record in json.loads((folder / "nlu" / part / "train.json").read_text(encoding="utf-8"))
    ]
    chosen = np.random.default_rng(0).permutation(len(records))[:count]
    return [
        Example(records[n]["instruction"], records[n]["output"], "choice", records[n]["answer"])
        for n in chosen
    ]


@dataclass
class Work:
    """The input of every method: a model, and the batches of each step in order."""

    base: Any
    batches: list[list[Encoded]]
    pad: int
    A: dict[str, Tensor]
    mask: Mask
    micro: int
    """Rows taken at once; the gradients of a larger batch are accumulated."""

    @property
    def rows(self) -> list[Encoded]:
        """All rows, in the order of the steps."""
        return [row for batch in self.batches for row in batch]


def prepare(order: dict[str, Any]) -> Work:
    """Load the model and draw batches of shuffled rows, as a data loader would."""
    section = ModelSection(name_or_path=order["model"], dtype=order["dtype"])
    folder = base_model.prepare(section)
    tokenizer, base = base_model.load_tokenizer(folder), base_model.load(section, folder)
    examples = read(order["data"], order["rows"])
    rows = encode_all(examples, PromptSection(), tokenizer, MAX_LENGTH)
    drawn = np.random.default_rng(1).permutation(len(rows))
    size = order["batch"]
    batches = [[rows[n] for n in drawn[i : i + size]] for i in range(0, len(rows) - size + 1, size)]
    # The warm-up is one small batch; the timed batches are evenly spaced among all.
    chosen = np.linspace(0, len(batches) - 1, order["steps"]).astype(int)
    shortest = sorted(rows, key=len)[:size]
    blocks = (ProjectionBlock(42, "bench", RANK),)
    shapes = peft_names.target_shapes(base, TARGETS)
    A = {name: draw(blocks, name, d_in) for name, (d_in, _) in shapes.items()}
    generator = torch.Generator().manual_seed(0)
    scores = {
        name: torch.rand(d_out, RANK, generator=generator) for name, (_, d_out) in shapes.items()
    }
    mask, _ = top(scores, Decimal("0.9"), "model")
    chosen_batches = [shortest, *(batches[n] for n in chosen)]
    micro = min(order["micro"] or size, size)
    return Work(base, chosen_batches, tokenizer.pad_token_id, A, mask, micro)


class Clock(NullTracker, TrainerCallback):
    """Records the time and loss of each step.

    On a GPU, this project's engine reports a step's loss when the next step has been launched, so
    the times are taken at the ends of the steps and not with the losses.
    """

    def __init__(self) -> None:
        self.times = [time.perf_counter()]
        self.cpu = [time.process_time()]
        self.losses: list[float] = []

    def stepped(self, step: int) -> None:
        """Note the end of an optimizer step."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())
        self.cpu.append(time.process_time())

    def metrics(self, values: Any, step: int | None = None) -> None:
        """Record a loss from our tracker."""
        self.losses.append(values["loss"])

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note the end of a step of `transformers.Trainer`."""
        self.stepped(state.global_step + 1)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Record a loss from the callback of `transformers.Trainer`."""
        if "loss" in (logs or {}):
            self.losses.append(logs["loss"])


def peft_model(work: Work, frozen: bool) -> Any:
    """Return PEFT's LoRA as in its documentation; `frozen` uses our A and trains only B."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=TARGETS, task_type="CAUSAL_LM")
    model = get_peft_model(work.base, config)
    if frozen:
        for name, layer in peft_names.lora_layers(model).items():
            weight = layer.lora_A["default"].weight
            weight.data.copy_(work.A[name])
            weight.requires_grad_(False)
    return model


def arguments(work: Work, folder: str, **more: Any) -> dict[str, Any]:
    """Return the trainer's arguments: batches in order, AdamW with a constant learning rate."""
    return {
        "output_dir": folder,
        "per_device_train_batch_size": work.micro,
        "gradient_accumulation_steps": len(work.batches[0]) // work.micro,
        "learning_rate": RATE,
        "lr_scheduler_type": "constant",
        "max_steps": len(work.batches),
        "weight_decay": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "use_cpu": not torch.cuda.is_available(),
        **more,
    }


def in_order(engine: Any) -> None:
    """Let a trainer draw rows in their order."""
    from torch.utils.data import SequentialSampler

    engine._get_train_sampler = lambda *_: SequentialSampler(engine.train_dataset)


def summed(outputs: Any, labels: Tensor, examples: int) -> Tensor:
    """Return the paper's loss from all logits: summed over the target, averaged over examples."""
    logits = outputs.logits[:, :-1].float().flatten(0, 1)
    total = nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), reduction="sum")
    return total / examples


def stock(work: Work, clock: Clock, folder: str, frozen: bool = False) -> Any:
    """Train with PEFT and `transformers.Trainer` as documented."""
    engine = Trainer(
        model=peft_model(work, frozen),
        args=TrainingArguments(**arguments(work, folder)),
        train_dataset=work.rows,
        data_collator=lambda batch: collate(batch, work.pad),
        callbacks=[clock],
        compute_loss_func=lambda outputs, labels, **_: summed(
            outputs, labels, len(work.batches[0])
        ),
    )
    in_order(engine)
    engine.train()
    return engine.optimizer


def trl(work: Work, clock: Clock, folder: str) -> Any:
    """Train with TRL: completion-only loss, logits only at targets.

    TRL's packing needs FlashAttention's kernels; without them, attention would cross examples.
    """
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    data = Dataset.from_list(
        [
            {
                "input_ids": row.prompt + row.target,
                "completion_mask": [0] * len(row.prompt) + [1] * len(row.target),
            }
            for row in work.rows
        ]
    )
    config = SFTConfig(
        **arguments(work, folder, remove_unused_columns=True),
        max_length=None if torch.cuda.is_available() else MAX_LENGTH,
        completion_only_loss=True,
        gradient_checkpointing=False,
        bf16=False,
        padding_free=torch.cuda.is_available(),
    )
    engine = SFTTrainer(
        model=peft_model(work, False), args=config, train_dataset=data, callbacks=[clock]
    )
    in_order(engine)
    engine.train()
    return engine.optimizer


def authors(work: Work, clock: Clock, _: str) -> Any:
    """Train like the authors' code, reimplemented.

    B is dense. As soon as a tensor's gradient is computed, it is masked and clipped, an AdamW of
    its own steps, and the gradient is freed. So gradients cannot be accumulated: each micro-batch
    is a step.
    """
    model = peft_model(work, True).train()
    positions = work.mask.positions()
    optimizers = {}
    for name, layer in peft_names.lora_layers(model).items():
        weight = layer.lora_B["default"].weight
        inside = torch.zeros(weight.numel(), dtype=weight.dtype)
        inside[positions[name]] = 1
        own = torch.optim.AdamW([weight], lr=RATE, weight_decay=0.0)
        optimizers[name] = own
        weight.register_post_accumulate_grad_hook(
            _step(own, inside.view_as(weight).to(weight.device))
        )
    for number, batch in enumerate(work.batches, start=1):
        total = 0.0
        for start in range(0, len(batch), work.micro):
            part = collate(batch[start : start + work.micro], work.pad)
            inputs = {name: x.to(model.device) for name, x in part.items()}
            labels = inputs.pop("labels")
            loss = summed(model(**inputs, use_cache=False), labels, len(batch))
            loss.backward()
            total += loss.item()
        clock.stepped(number)
        clock.losses.append(total)
    return list(optimizers.values())


def _step(optimizer: torch.optim.Optimizer, inside: Tensor) -> Callable[[Tensor], None]:
    def act(weight: Tensor) -> None:
        assert weight.grad is not None  # noqa: S101 - the hook runs because it is there
        weight.grad.mul_(inside)
        nn.utils.clip_grad_norm_([weight], 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return act


def lori_model(work: Work, sparse: bool) -> Any:
    """Return the base with an adapter as this project trains it, with or without a mask."""
    shapes = peft_names.target_shapes(work.base, TARGETS)
    model = attach.attach(work.base, uniform(shapes, RANK, ALPHA), lambda name: work.A[name])
    attach.make_trainable(model, work.mask.positions() if sparse else None, None)
    return model


def ours(work: Work, clock: Clock, folder: str, sparse: bool) -> Any:
    """Train as this project does; LoRI-D with the peers' clipping, so that losses are equal."""
    model = lori_model(work, sparse)
    section = TrainingSection(
        learning_rate=RATE,
        batch_size=work.micro,
        gradient_accumulation_steps=len(work.batches[0]) // work.micro,
        max_steps=len(work.batches),
        clipping="per_tensor" if sparse else "global",
        save_steps=10**6,
    )
    engines = []
    create = trainer.LoriTrainer.create_optimizer

    def kept(self: Any, model: Any = None) -> Any:
        engines.append(create(self, model))
        return engines[0]

    trainer.LoriTrainer.create_optimizer = kept  # type: ignore[method-assign]
    trainer.LoriTrainer._get_train_sampler = (  # type: ignore[method-assign]
        lambda self, *_: torch.utils.data.SequentialSampler(self.train_dataset)  # type: ignore
    )
    trainer.train(
        model,
        work.rows,
        section,
        pad_token_id=work.pad,
        seed=0,
        checkpoints=Path(folder),
        tracker=clock,
        what="ours",
        overrides=TrainerOverrides(after_step=clock.stepped),
    )
    return engines[0]


PEERS: dict[str, Callable[[Work, Clock, str], Any]] = {
    "PEFT": stock,
    "PEFT, A frozen": partial(stock, frozen=True),
    "TRL": trl,
    "authors' way": authors,
    "LoRI-D": partial(ours, sparse=False),
    "LoRI-S": partial(ours, sparse=True),
}


def state_tensors(optimizers: Any) -> Iterator[Tensor]:
    """Return the trained tensors, their gradients, and the optimizers' state tensors."""
    for optimizer in optimizers if isinstance(optimizers, list) else [optimizers]:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.requires_grad:
                    yield parameter
                    yield parameter
        for state in optimizer.state.values():
            yield from (x for x in state.values() if isinstance(x, Tensor))


def main() -> None:
    """Train by the given settings and print the measurements."""
    order = json.loads(sys.argv[1])
    if order["threads"]:
        torch.set_num_threads(order["threads"])
    work, clock = prepare(order), Clock()
    loaded = memory_gb()
    with tempfile.TemporaryDirectory() as folder:
        optimizer = PEERS[order["peer"]](work, clock, folder)
    trained = sum(
        p.numel()
        for o in (optimizer if isinstance(optimizer, list) else [optimizer])
        for group in o.param_groups
        for p in group["params"]
        if p.requires_grad
    )
    print(
        json.dumps(
            {
                "seconds": np.diff(clock.times).tolist()[1:],
                "cpu_seconds": np.diff(clock.cpu).tolist()[1:],
                "losses": clock.losses,
                "lengths": [[len(row) for row in batch] for batch in work.batches[1:]],
                "targets": [sum(len(row.target) for row in b) for b in work.batches[1:]],
                "micro": work.micro,
                "memory_gb": memory_gb(),
                "loaded_gb": loaded,
                "trained": trained,
                "state_bytes": sum(x.numel() * x.element_size() for x in state_tensors(optimizer)),
                "dtype": str(precision.compute_dtype(order["dtype"], base_model.device())),
            }
        )
    )


if __name__ == "__main__":
    main()
