"""Train an adapter by PEFT's recipe.

LoRI-D and LoRI-S compute with this project's training kernels, the controls with PEFT's layers. All
have the same batches, loss, optimizer and schedule.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import get_cosine_schedule_with_warmup

from benchmarks.peft_comparison.data import batches, padded
from benchmarks.peft_comparison.settings import STAGE, TASK, Run, warmup
from lori_core.adapters.adapter import Adapter, ProjectionBlock
from lori_core.adapters.masks.mask import Mask
from lori_core.core.errors import DivergedError
from lori_core.core.files.atomic import digest
from lori_core.core.progress import bar
from lori_core.methods import peft_layers
from lori_core.methods.catalogue import METHODS
from lori_core.methods.training_method import Job, NoOptions, Provenance
from lori_core.models import peft_names
from lori_core.models.base_identity import BaseIdentity
from lori_core.training.computing import computing
from lori_core.training.loss import sequence_loss
from lori_core.training.trainer import trainable

#: The steps after which a GPU's cache is emptied, as PEFT does; it changes the reserved memory.
EMPTY_CACHE = 10
#: Is called with the model in evaluation mode and the number of optimizer steps.
Evaluate = Callable[[Any, int], None]


@dataclass(frozen=True)
class Loaded:
    """A base model in memory.

    Attributes:
        model: the base model.
        tokenizer: its tokenizer.
        identity: the identity of the base model.
        reserved: the bytes that the GPU had reserved before it was loaded.
    """

    model: Any
    tokenizer: Any
    identity: BaseIdentity
    reserved: int = 0


@dataclass
class Steps:
    """The measurements of all optimizer steps so far, those of a calibration run included.

    Attributes:
        losses: the loss of each step.
        seconds: the seconds of each step.
        tokens: the tokens of each step, with one end-of-sequence token for each row.
        allocated: the bytes that the GPU has allocated after each step; 0 without a GPU.
        reserved: the bytes that it has reserved.
        samples: the rows that were trained on.
    """

    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    allocated: list[int] = field(default_factory=list)
    reserved: list[int] = field(default_factory=list)
    samples: int = 0


@dataclass(frozen=True)
class Training:
    """One training of an adapter.

    Attributes:
        run: the settings.
        method: the method's name; of a calibration run not that of `run`.
        steps: the optimizer steps.
        mask: the entries of B that are trained, for LoRI-S.
        parents: the content keys of the adapters that the mask comes from.
    """

    run: Run
    method: str
    steps: int
    mask: Mask | None = None
    parents: tuple[str, ...] = ()

    def job(self) -> Job:
        """Return what the method is asked to train."""
        lori = self.run.lori
        section = self.run.section.model_copy(
            update={"max_steps": self.steps, "warmup_steps": warmup(self.steps)}
        )
        blocks = (ProjectionBlock(lori.seed, TASK, lori.rank),)
        return Job(lori, NoOptions(), section, TASK, self.steps, blocks, mask=self.mask)

    def info(self, base: BaseIdentity, data: str) -> dict[str, Any]:
        """Return the adapter's origin: `info` of its file."""
        depends = {
            "base": base.content(),
            "lori": self.run.lori.model_dump(),
            "train": asdict(self.run.train),
            "steps": self.steps,
            "data": data,
            "mask": None if self.mask is None else digest(self.mask.bits.tobytes().hex()),
        }
        return {
            "task": TASK,
            "stage": STAGE,
            "method": self.method,
            "parents": list(self.parents),
            "content_key": digest(depends | {"method": self.method}),
            "depends": depends,
        }


def train(
    training: Training,
    loaded: Loaded,
    rows: Sequence[list[int]],
    steps: Steps,
    evaluate: Evaluate | None = None,
) -> tuple[Adapter, int]:
    """Train an adapter; the base is unchanged afterwards.

    Args:
        training: the method and its settings.
        loaded: the base model.
        rows: the token ids of each training row.
        steps: gets the measurements of each step.
        evaluate: called after each `eval_steps` steps, and after the last one.

    Returns:
        The adapter, and the number of trained values.

    Raises:
        DivergedError: a loss is not finite.
    """
    torch.manual_seed(training.run.train.seed)
    method = METHODS[training.method](training.job())
    sizes = peft_names.target_shapes(loaded.model, training.run.lori.target_modules)
    provenance = Provenance(
        loaded.identity,
        loaded.model.dtype,
        peft_names.fan_in_fan_out(loaded.model, sizes),
        tuple(peft_names.targets_of(loaded.model, sizes)),
        training.info(loaded.identity, digest(rows)),
    )
    model = method.attach(loaded.model)
    peft_layers.in_float32(model)
    _run_steps(training, loaded, model, rows, steps, evaluate)
    adapter = method.collect(model, provenance)
    assert isinstance(adapter, Adapter)  # noqa: S101 - all methods here are low-rank
    trained = sum(p.numel() for p in trainable(model).values())
    model.unload()
    return adapter, trained


def _run_steps(
    training: Training,
    loaded: Loaded,
    model: Any,
    rows: Sequence[list[int]],
    steps: Steps,
    evaluate: Evaluate | None,
) -> None:
    """Run all optimizer steps; the training kernels are not installed during an evaluation."""
    config = training.run.train
    values = list(trainable(model).values())
    kwargs = config.optimizer_kwargs
    optimizer = torch.optim.AdamW(values, lr=kwargs["lr"], weight_decay=kwargs["weight_decay"])
    schedule = get_cosine_schedule_with_warmup(optimizer, warmup(training.steps), training.steps)
    order = batches(rows, config.batch_size)
    with bar(training.steps, training.method, "step") as progress:
        for first in range(0, training.steps, config.eval_steps):
            last = min(first + config.eval_steps, training.steps)
            model.train()
            with _kernels(training.method, model) as flat:
                for step in range(first + 1, last + 1):
                    start = time.perf_counter()
                    batch = next(order)
                    inputs, items = padded(batch, loaded.tokenizer.eos_token_id)
                    optimizer.zero_grad()
                    loss = _backward(model, inputs, items, flat)
                    if config.grad_norm_clip:
                        torch.nn.utils.clip_grad_norm_(values, config.grad_norm_clip)
                    optimizer.step()
                    schedule.step()
                    _note(steps, batch, loss, loaded.reserved, start)
                    if not math.isfinite(loss):
                        why = "lower --learning-rate"
                        raise DivergedError(f"step {step}: the loss is {loss}; {why}")
                    if step % EMPTY_CACHE == 0 and torch.cuda.is_available():
                        torch.cuda.empty_cache()
                    progress.update(1)
            if evaluate is not None:
                evaluate(model.eval(), last)


def _kernels(method: str, model: Any) -> AbstractContextManager[Any]:
    """Return the context of a method's training kernels; nothing changes for a control."""
    if METHODS[method].family != "lori":
        return nullcontext()
    return computing(model, model.get_base_model(), packs=False)


def _backward(model: Any, inputs: dict[str, Tensor], items: int, flat: Any) -> float:
    """Compute the gradients of a batch, and return its loss."""
    if flat is not None:
        flat.begin_pass()
    moved = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    loss = sequence_loss(model, moved) / items
    loss.backward()
    if flat is not None:
        flat.end_step()
    return loss.item()


def _note(
    steps: Steps, batch: Sequence[list[int]], loss: float, reserved: int, start: float
) -> None:
    """Add a step's measurements."""
    cuda = torch.cuda.is_available()
    steps.losses.append(loss)
    steps.tokens.append(sum(map(len, batch)) + len(batch))
    steps.allocated.append(torch.cuda.memory_allocated() - reserved if cuda else 0)
    steps.reserved.append(torch.cuda.memory_reserved() - reserved if cuda else 0)
    steps.samples += len(batch)
    steps.seconds.append(time.perf_counter() - start)
