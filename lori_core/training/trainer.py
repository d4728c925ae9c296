"""The training loop: `transformers.Trainer` with the paper's loss, clipping and batches.

It trains every parameter of the model that requires a gradient: for LoRI the masked values of B,
otherwise the parameters that the method added (paper, section 3.1).
"""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from lori_core.config import TrainingSection
from lori_core.core.errors import DivergedError, InputError
from lori_core.core.files.atomic import read_object
from lori_core.core.tracking import RunTracker
from lori_core.data.batching import LengthBuckets, collate
from lori_core.data.packing import pack_batch
from lori_core.data.prompts import Encoded
from lori_core.data.tokens import counts
from lori_core.training import distributed
from lori_core.training.kernels import lora_linear, packed_attention, pointwise
from lori_core.training.loss import changes_logits, counted, sequence_loss
from lori_core.training.memory import fitting
from lori_core.training.step_report import StepReport
from lori_core.training.trainer_overrides import TrainerOverrides

_VALUES_FILE = "values.safetensors"
#: Marks a dummy batch that keeps ranks in step; its loss is zeroed.
DUMMY = "dummy"


@dataclass(frozen=True)
class TrainingResult:
    """The statistics of a training run.

    Attributes:
        trainable_parameters: the number of trained parameters.
        steps: optimizer steps.
        examples: examples of the data set.
        tokens: tokens of the data set, prompts included.
        supervised_tokens: target tokens of the data set.
        cut_examples: examples that were truncated to `training.max_length`.
        first_loss: the mean loss of the first tenth of the steps.
        last_loss: the mean loss of the last tenth of the steps.
    """

    trainable_parameters: int
    steps: int
    examples: int
    tokens: int
    supervised_tokens: int
    cut_examples: int
    first_loss: float
    last_loss: float


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
    optimizer: Any
    group: distributed.Group | None = None
    loss_is_scaled_for_ga = True

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the batch's share of the loss of its step of `num_items_in_batch` items."""
        dummy = inputs.pop(DUMMY, False)
        with self.overrides.computing(inputs["input_ids"].device):
            loss = sequence_loss(model, inputs) / num_items_in_batch
        if dummy:
            loss = loss * 0
        if self.overrides.penalty is None:
            return loss
        # The gradients of all processes and accumulated batches of a step are summed.
        parts = self.args.gradient_accumulation_steps
        parts *= 1 if self.group is None else self.group.size
        return loss + self.overrides.penalty() / parts

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Return AdamW as the section configures it, or the optimizer of the method's overrides."""
        if self.optimizer is None and self.overrides.optimizer is not None:
            self.optimizer = self.overrides.optimizer(self.model, self.section.learning_rate)
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        return optimizer

    def training_step(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Run one forward and backward pass; raise DivergedError if the loss is not finite."""
        with fitting(inputs, self.state.global_step + 1):
            loss: Tensor = super().training_step(model, inputs, *args, **kwargs)
        if self.group is not None:
            loss = self.group.sum(loss)
        if not torch.isfinite(loss):
            raise DivergedError(
                f"training step {self.state.global_step + 1}: the loss is {loss.item()}; lower "
                "training.learning_rate (the last good checkpoint is kept)"
            )
        return loss

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: Any) -> int:
        own = sum(counted(b, self.section.loss) for b in batch_samples if not b.get(DUMMY))
        if self.group is None:
            return own
        return int(self.group.sum(torch.tensor(own, device=self.args.device)))

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthBuckets:
        lengths = counts(self.train_dataset).lengths
        return LengthBuckets(lengths, self.args.train_batch_size, self.args.seed)

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        parameters = list(trainable(model).values())
        if self.group is not None:
            self.group.sum_gradients(parameters)
        return clip_gradients(parameters, self.section)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        values = {n: v.detach().contiguous() for n, v in trainable(self.model).items()}
        save_file(values, folder / _VALUES_FILE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        saved = load_file(Path(resume_from_checkpoint) / _VALUES_FILE)
        with torch.no_grad():
            for name, values in trainable(self.model).items():
                values.copy_(saved[name])


class _AfterStep(TrainerCallback):
    """Calls the overrides' `after_step` after each optimizer step."""

    def __init__(self, call: Callable[[int], None]) -> None:
        self.call = call

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.call(state.global_step + 1)


def _arguments(
    section: TrainingSection, folder: Path, seed: int, *, saves: bool = True
) -> TrainingArguments:
    """Return transformers' arguments; without `saves`, no checkpoints are written."""
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=section.batch_size,
        gradient_accumulation_steps=section.gradient_accumulation_steps,
        learning_rate=section.learning_rate,
        num_train_epochs=section.epochs,
        max_steps=section.max_steps or -1,
        lr_scheduler_type=section.lr_scheduler,
        warmup_steps=section.warmup_steps,
        weight_decay=section.weight_decay,
        max_grad_norm=1.0,  # any value above 0 makes Trainer call `_clip_grad_norm`
        activation_checkpointing=section.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        optim="adamw_torch",
        adam_beta1=0.9,
        adam_beta2=0.999,
        adam_epsilon=1e-8,
        seed=seed,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps" if saves else "no",
        save_steps=section.save_steps,
        save_total_limit=1,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        average_tokens_across_devices=False,
    )


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint of a folder; delete incomplete ones."""
    complete: dict[int, Path] = {}
    for path in folder.glob("checkpoint-*"):
        # Trainer writes its state last: a checkpoint without it is incomplete.
        with suppress(InputError):
            step: Any = read_object(path / "trainer_state.json", 1 << 30).get("global_step")
            complete |= {step: path} if path.name == f"checkpoint-{step!r}" else {}
        if path not in complete.values():
            shutil.rmtree(path, ignore_errors=True)
    return complete[max(complete)] if complete else None


def _collator(model: Any, base: Any, pad_token_id: int) -> partial[dict[str, Tensor]]:
    """Return the collator: of packed batches if the model supports them, else of padded ones."""
    if changes_logits(base):
        reason: str | None = "it changes its logits after the output layer"
    else:
        reason = packed_attention.unsupported_reason(base)
    if reason is None:
        return partial(pack_batch, share=not draws_dropout(model))
    print(f"training on padded batches, not packed ones: {reason}", file=sys.stderr, flush=True)
    return partial(collate, pad_token_id=pad_token_id)


def _part(collator: Any, group: distributed.Group, rows: Sequence[Encoded]) -> dict[str, Any]:
    """Return this process's part of a batch, collated."""
    part, dummy = group.share(rows)
    return {**collator(part), **({DUMMY: True} if dummy else {})}


def draws_dropout(model: Any) -> bool:
    """Return whether training draws dropout; then examples cannot share a common prefix."""
    rates = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    config = model.config.get_text_config()
    return any(rates) or bool(getattr(config, "attention_dropout", 0))


@contextmanager
def computing(
    model: Any, base: Any, *, packs: bool = True, sharded: bool = False
) -> Iterator[None]:
    """Install the training kernels on a PEFT model and its base inside a `with` block.

    With `packs`, batches are packed; with `sharded` (FSDP), only attention is replaced.
    """
    with ExitStack() as kernels:
        if packs:
            kernels.enter_context(packed_attention.attending(base))
        if not sharded:
            kernels.enter_context(lora_linear.installed(model))
            kernels.enter_context(pointwise.installed(model))
        yield


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
    collator = _collator(model, base, pad_token_id)
    group = distributed.current()
    is_rank_0 = group is None or group.rank == 0
    after = [_AfterStep(overrides.after_step)] if overrides.after_step else []
    trainer = LoriTrainer(
        model=model,
        args=_arguments(section, checkpoints, seed, saves=is_rank_0),
        train_dataset=rows,
        data_collator=collator if group is None else partial(_part, collator, group),
        callbacks=[*([report] if is_rank_0 else []), *after],
    )
    trainer.section, trainer.overrides, trainer.group = section, overrides, group
    trainer.remove_callback(PrinterCallback)
    trainer.model_accepts_loss_kwargs = True
    resume = last_checkpoint(checkpoints)
    if resume is not None:
        tracker.tags({"lori.resumed_from": resume.name})
        print(f"resuming from {resume.name}", file=sys.stderr, flush=True)
    sharded = group is not None and section.sharding == "full"
    if sharded:
        distributed.shard(model, base)
    with computing(model, base, packs=collator.func is pack_batch, sharded=sharded):
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
