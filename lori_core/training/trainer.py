"""The training loop: `transformers.Trainer` with the paper's loss, clipping and batches.

It trains every parameter of the model that requires a gradient: for LoRI the masked values of B,
otherwise the parameters that the method added (paper, section 3.1).
"""

from __future__ import annotations

import gc
import logging
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer
from transformers.trainer_callback import PrinterCallback, TrainerState

from lori_core.config import TrainingSection
from lori_core.core.tracking import RunTracker
from lori_core.data import passes
from lori_core.data.batching import LengthBuckets
from lori_core.data.prompts import Encoded
from lori_core.data.tokens import counts
from lori_core.training import checkpoints as checkpoint_files
from lori_core.training import distributed, memory
from lori_core.training.arguments import training_arguments
from lori_core.training.checkpoints import last_checkpoint
from lori_core.training.computing import computing, draws_dropout, packer_of
from lori_core.training.kernels.flat_values import FlatValues
from lori_core.training.loss import counted, sequence_loss
from lori_core.training.memory import MemoryLackingError, fitting
from lori_core.training.passes import Packer, StepBatch
from lori_core.training.step_report import (
    AfterStep,
    PendingStep,
    StepReport,
    TrainingResult,
    check_finite,
    losses_of,
    reads_late,
)
from lori_core.training.trainer_overrides import TrainerOverrides

__all__ = [
    "LoriTrainer",
    "TrainingResult",
    "clip_gradients",
    "computing",
    "draws_dropout",
    "last_checkpoint",
    "train",
    "trainable",
]


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that require a gradient, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def clip_gradients(parameters: Sequence[nn.Parameter], section: TrainingSection) -> Tensor:
    """Clip gradients in place as `section.clipping` says; return their norm before clipping."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = torch._foreach_norm(gradients)
    total: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    limit = section.max_grad_norm
    if section.clipping == "per_tensor":
        factors = (limit / (torch.stack(norms) + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(gradients, list(factors.unbind()))
    elif section.clipping == "global":
        torch._foreach_mul_(gradients, (limit / (total + 1e-6)).clamp(max=1.0))
    return total


class LoriTrainer(Trainer):
    """Trainer with our loss, clipping and batch order; checkpoints hold trained parameters only."""

    section: TrainingSection
    overrides: TrainerOverrides
    packer: Packer
    flat: FlatValues | None = None
    step_batches: int
    pending: PendingStep | None = None
    _globalstep_last_logged: int
    optimizer: Any
    group: distributed.Group | None = None
    loss_is_scaled_for_ga = True

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Return AdamW as the section configures it, or the optimizer of the method's overrides."""
        if self.optimizer is None and self.overrides.optimizer is not None:
            self.optimizer = self.overrides.optimizer(self.model, self.section.learning_rate)
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        return optimizer

    def training_step(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Compute the gradients of a batch or step; raise DivergedError if the loss is not finite.

        Args:
            model: the model; Trainer's own copy is used.
            inputs: a `StepBatch`.
            args: the number that divides the summed loss.
            kwargs: not used.
        """
        self.model.train()
        loss = self._passes(inputs, *args)
        while loss is None:
            self._forget_gradients()
            loss = self._passes(inputs, *args)
        if self.group is not None:
            loss = self.group.sum(loss)
        if not reads_late(self.args.device):
            check_finite(loss.item(), self.state.global_step + 1)
        return loss

    def _maybe_log_save_evaluate(
        self, tr_loss: Tensor, grad_norm: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Report a step; on a GPU, report the step before while the device computes this one.

        A step is reported before its checkpoint is written.

        Raises:
            DivergedError: the loss or the gradient of the reported step is not finite.
        """
        state = self.state
        if reads_late(self.args.device) and state.global_step > self._globalstep_last_logged:
            before, self.pending = (
                self.pending,
                PendingStep.of(
                    state.global_step, state.epoch, tr_loss, grad_norm, kwargs.get("learning_rate")
                ),
            )
            tr_loss.zero_()
            self._globalstep_last_logged = state.global_step
            self._report(before)
            if self.control.should_save or state.global_step >= state.max_steps:
                self._report(self.pending)
                self.pending = None
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, *args, **kwargs)

    def _report(self, pending: PendingStep | None) -> None:
        """Log the metrics of a step under its own number."""
        if pending is None:
            return
        row = pending.row()
        check_finite(row["loss"], pending.step)
        self._total_loss_scalar += row["loss"]
        now = self.state.global_step, self.state.epoch
        self.state.global_step, self.state.epoch = pending.step, pending.epoch
        try:
            self.log(row)
        finally:
            self.state.global_step, self.state.epoch = now

    def _passes(self, batch: StepBatch, items: int) -> Tensor | None:
        """Return the loss of a batch after all its passes; None if the token budget was lowered."""
        parts, losses, budget = batch.parts(), [], self.packer.budget
        for part in parts:
            tokens, single = passes.size(part), passes.examples(part) == 1
            try:
                with fitting(tokens, self.state.global_step + 1, self._lower(single)):
                    losses.append(self._pass(part, batch, items, len(parts)))
            except MemoryLackingError:
                if not budget.adjustable or single:
                    raise
                budget.lower(tokens)
                return None
        return torch.stack(losses).sum() if len(losses) > 1 else losses[0]

    def _lower(self, single: bool) -> str:
        """Return the setting that makes passes smaller; `single`: a pass of one example."""
        if self.packer.budget.tokens is None:
            return memory.LOWER_BATCH
        return memory.LOWER_LENGTH if single else memory.LOWER_TOKENS

    def _pass(self, part: dict[str, Any], batch: StepBatch, items: int, parts: int) -> Tensor:
        """Run one forward and backward pass; return its share of the loss."""
        inputs = {
            name: x.to(self.args.device, non_blocking=True) if isinstance(x, Tensor) else x
            for name, x in part.items()
        }
        if self.flat is not None:
            self.flat.begin_pass()
        with self.overrides.computing(self.args.device):
            loss = sequence_loss(self.model, inputs) / items
        if batch.dummy:
            loss = loss * 0
        if self.overrides.penalty is not None:
            # The gradients of all passes, batches and processes of a step are summed.
            share = batch.batches / self.step_batches / parts
            size = 1 if self.group is None else self.group.size
            loss = loss + self.overrides.penalty() * (share / size)
        loss.backward()
        return loss.detach()

    def _forget_gradients(self) -> None:
        """Delete all gradients, and free the memory of the passes that computed them."""
        for parameter in self.model.parameters():
            parameter.grad = None
        if self.flat is not None:
            self.flat.forget()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def floating_point_ops(self, inputs: Any) -> int:
        """Return 0: nothing reads this count, and Trainer would count all parameters each time."""
        return 0

    def _get_num_items_in_batch(self, batch_samples: list[StepBatch], device: Any) -> int:
        # An epoch's last step may have fewer than `gradient_accumulation_steps`.
        self.step_batches = sum(batch.batches for batch in batch_samples)
        own_batches = [batch for batch in batch_samples if not batch.dummy]
        tokens = sum(len(row) for batch in own_batches for row in batch.rows)
        with fitting(tokens, self.state.global_step + 1, memory.LOWER_BATCH):
            parts = [part for batch in own_batches for part in batch.parts()]
        own = sum(counted(part, self.section.loss) for part in parts)
        if self.group is None:
            return own
        return int(self.group.sum(torch.tensor(own, device=self.args.device)))

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthBuckets:
        lengths = counts(self.train_dataset).lengths
        return LengthBuckets(lengths, self.section.batch_size, self.args.seed)

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        parameters = list(trainable(model).values())
        if self.flat is not None:
            self.flat.end_step()
        if self.group is not None:
            self.group.sum_gradients(parameters)
        return clip_gradients(parameters, self.section)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        checkpoint_files.save_values(
            trainable(self.model), Path(output_dir or self.args.output_dir)
        )

    def restored(self, checkpoint: Path | None, report: StepReport) -> bool:
        """Load a checkpoint of the last step; return whether it was one.

        Trainer would train one more step where `max_steps` ends the run within an epoch.
        """
        if checkpoint is None:
            return False
        state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        if state.global_step < (
            self.args.max_steps if self.args.max_steps > 0 else state.max_steps
        ):
            return False
        self._load_from_checkpoint(str(checkpoint))
        self.state = state
        report.losses = losses_of(state)
        return True

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        checkpoint_files.load_values(trainable(self.model), Path(resume_from_checkpoint))


def train(
    model: Any,
    rows: Sequence[Encoded],
    section: TrainingSection,
    *,
    pad_token_id: int,
    seed: int,
    checkpoints: Path,
    tracker: RunTracker,
    what: str,
    overrides: TrainerOverrides | None = None,
) -> TrainingResult:
    """Train the parameters of a model that require a gradient, in place.

    Training resumes from the last checkpoint, if there is one.

    Args:
        model: the model from a training method's `attach`.
        rows: the tokenised examples.
        section: learning rate, loss, clipping and so on.
        pad_token_id: pads batches; the loss ignores it.
        seed: seeds the order of batches and dropout.
        checkpoints: the folder for checkpoints of exactly these inputs.
        tracker: receives the metrics of each step.
        what: the progress bar's name.
        overrides: how the method's training differs from AdamW on the loss.

    Raises:
        DivergedError: a loss or gradient is not finite; the last good checkpoint is kept.
        MemoryLackingError: a batch does not fit into memory.
    """
    logging.getLogger("transformers.trainer").setLevel(logging.ERROR)
    counted_rows = counts(rows)
    tokens = int(counted_rows.lengths.sum())
    if cut := counted_rows.cut:
        warning = f"{cut} of {len(rows)} examples were cut to training.max_length"
        print(f"{what}: {warning} ({section.max_length} tokens)", file=sys.stderr, flush=True)
    report = StepReport(tracker, what, tokens / len(rows))
    overrides = overrides or TrainerOverrides()
    if not overrides.resumable:
        shutil.rmtree(checkpoints, ignore_errors=True)
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    group = distributed.current()
    packer = packer_of(model, base, pad_token_id, section, group)
    whole_steps = packer.budget.tokens is not None
    is_rank_0 = group is None or group.rank == 0
    after = [AfterStep(overrides.after_step)] if overrides.after_step else []
    trainer = LoriTrainer(
        model=model,
        args=training_arguments(
            section, checkpoints, seed, whole_steps=whole_steps, saves=is_rank_0
        ),
        train_dataset=rows,
        data_collator=packer,
        callbacks=[*([report] if is_rank_0 else []), *after],
    )
    trainer.section, trainer.overrides, trainer.group = section, overrides, group
    trainer.packer = packer
    trainer.remove_callback(PrinterCallback)
    trainer.model_accepts_loss_kwargs = True
    resume = last_checkpoint(checkpoints)
    if resume is not None:
        tracker.tags({"lori.resumed_from": resume.name})
        print(f"resuming from {resume.name}", file=sys.stderr, flush=True)
    sharded = group is not None and section.sharding == "full"
    if sharded:
        distributed.shard(model, base)
    with packer, computing(model, base, packs=packer.packed, sharded=sharded) as trainer.flat:
        if not trainer.restored(resume, report):
            trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    if not is_rank_0:
        raise SystemExit(0)  # rank 0 writes the result
    tenth = max(1, len(report.losses) // 10)
    return TrainingResult(
        trainable_parameters=sum(p.numel() for p in trainable(model).values()),
        steps=trainer.state.global_step,
        examples=len(rows),
        tokens=tokens,
        supervised_tokens=counted_rows.supervised,
        cut_examples=cut,
        first_loss=sum(report.losses[:tenth]) / tenth,
        last_loss=sum(report.losses[-tenth:]) / tenth,
    )
