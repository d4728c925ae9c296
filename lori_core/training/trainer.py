"""One training run: `transformers.Trainer` with the paper's loss, clipping and batches.

What is trained is whatever of the model requires a gradient: LoRI's packed values, or what another
method put there. METHOD, section 5.
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
#: Marks a batch that is computed only because others wait: its loss counts for nothing.
IDLE = "idle"


@dataclass(frozen=True)
class TrainingResult:
    """What a run did: counts, and the mean loss of its first and last tenth of steps."""

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
    """Clip in place as `section.clipping` says; return the gradient's norm before clipping."""
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
    """The engine, with our loss, clipping, order of batches, and checkpoints of packed values."""

    section: TrainingSection
    recipe: TrainerOverrides
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
        """Return the batch's share of the loss; `num_items_in_batch` spans the accumulation."""
        idle = inputs.pop(IDLE, False)
        with self.recipe.computing(inputs["input_ids"].device):
            loss = sequence_loss(model, inputs) / num_items_in_batch
        if idle:
            loss = loss * 0
        if self.recipe.penalty is None:
            return loss
        return loss + self.recipe.penalty() / (1 if self.group is None else self.group.size)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Return AdamW as the section sets it, or the recipe's own optimizer."""
        if self.optimizer is None and self.recipe.optimizer is not None:
            self.optimizer = self.recipe.optimizer(self.model, self.section.learning_rate)
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        return optimizer

    def training_step(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Run one forward and backward pass; stop at a loss that is not a finite number."""
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
        own = sum(counted(b, self.section.loss) for b in batch_samples if not b.get(IDLE))
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
    """Calls a recipe after each optimizer step."""

    def __init__(self, call: Callable[[int], None]) -> None:
        self.call = call

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.call(state.global_step + 1)


def _arguments(
    section: TrainingSection, folder: Path, seed: int, *, keeps: bool = True
) -> TrainingArguments:
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
        max_grad_norm=1.0,  # any number above 0: `_clip_grad_norm` does what the section says
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
        save_strategy="steps" if keeps else "no",
        save_steps=section.save_steps,
        save_total_limit=1,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        average_tokens_across_devices=False,
    )


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint that was written to its end."""
    whole: dict[int, Path] = {}
    for path in folder.glob("checkpoint-*"):
        # The engine writes its state last: a checkpoint without it was interrupted.
        with suppress(InputError):
            step: Any = read_object(path / "trainer_state.json", 1 << 30).get("global_step")
            whole |= {step: path} if path.name == f"checkpoint-{step!r}" else {}
        if path not in whole.values():
            shutil.rmtree(path, ignore_errors=True)
    return whole[max(whole)] if whole else None


def _collator(model: Any, base: Any, pad_token_id: int) -> partial[dict[str, Tensor]]:
    """Return what makes a batch of rows: packed where the model takes it, else padded."""
    if changes_logits(base):
        reason: str | None = "it changes its logits after the last linear map"
    else:
        reason = packed_attention.suits(base)
    if reason is None:
        return partial(pack_batch, share=not draws_dropout(model))
    print(f"training on padded batches, not packed ones: {reason}", file=sys.stderr, flush=True)
    return partial(collate, pad_token_id=pad_token_id)


def _part(collator: Any, group: distributed.Group, rows: Sequence[Encoded]) -> dict[str, Any]:
    """Return this process's part of a batch, collated."""
    part, idle = group.share(rows)
    return {**collator(part), **({IDLE: True} if idle else {})}


def draws_dropout(model: Any) -> bool:
    """Say whether training draws dropout: then equal beginnings of examples are not equal."""
    rates = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    config = model.config.get_text_config()
    return any(rates) or bool(getattr(config, "attention_dropout", 0))


@contextmanager
def computing(
    model: Any, base: Any, *, packs: bool = True, sharded: bool = False
) -> Iterator[None]:
    """Let a model and the base below its adapter compute as training does.

    `packs`: batches are packed. `sharded`: processes share the weights; layers stay as they are.
    """
    with ExitStack() as ways:
        if packs:
            ways.enter_context(packed_attention.attending(base))
        if not sharded:
            ways.enter_context(lora_linear.installed(model))
            ways.enter_context(pointwise.installed(model))
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
    recipe: TrainerOverrides | None = None,
) -> TrainingResult:
    """Train what of a model requires a gradient, in place, from the last checkpoint if any.

    Args:
        model: from a training method's `attach`.
        rows: the tokenised examples.
        section: learning rate, loss, clipping, ….
        pad_token_id: fills batches; never seen by the loss.
        seed: orders the batches (and draws dropout).
        checkpoints: a folder that belongs to exactly these inputs.
        tracker: receives each step.
        what: the progress bar's name.
        recipe: what the method does in a way of its own.

    Raises:
        DivergedError: at a loss or gradient that is not finite; the last good checkpoint stays.
    """
    logging.getLogger("transformers.trainer").setLevel(logging.ERROR)
    counted_rows = counts(rows)
    tokens = int(counted_rows.lengths.sum())
    if cut := counted_rows.cut:
        said = f"{cut} of {len(rows)} examples were cut to training.max_length"
        print(f"{what}: {said} ({section.max_length} tokens)", file=sys.stderr, flush=True)
    report = StepReport(tracker, what, tokens / len(rows))
    recipe = recipe or TrainerOverrides()
    if not recipe.resumable:
        shutil.rmtree(checkpoints, ignore_errors=True)
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    collator = _collator(model, base, pad_token_id)
    group = distributed.current()
    leads = group is None or group.rank == 0
    after = [_AfterStep(recipe.after_step)] if recipe.after_step else []
    trainer = LoriTrainer(
        model=model,
        args=_arguments(section, checkpoints, seed, keeps=leads),
        train_dataset=rows,
        data_collator=collator if group is None else partial(_part, collator, group),
        callbacks=[*([report] if leads else []), *after],
    )
    trainer.section, trainer.recipe, trainer.group = section, recipe, group
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
    if not leads:
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
