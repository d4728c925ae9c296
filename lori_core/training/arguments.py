"""The arguments of `transformers.Trainer`."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import TrainingArguments

from lori_core.config import TrainingSection


def training_arguments(
    section: TrainingSection, folder: Path, seed: int, *, whole_steps: bool, saves: bool = True
) -> TrainingArguments:
    """Return transformers' arguments.

    Args:
        section: the settings of the run.
        folder: the folder for checkpoints.
        seed: seeds the order of batches and dropout.
        whole_steps: whether the data loader returns all examples of an optimizer step at once.
        saves: whether checkpoints are written.
    """
    accumulated = section.gradient_accumulation_steps
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=section.batch_size * (accumulated if whole_steps else 1),
        gradient_accumulation_steps=1 if whole_steps else accumulated,
        learning_rate=section.learning_rate,
        num_train_epochs=section.epochs,
        max_steps=section.max_steps or -1,
        lr_scheduler_type=section.lr_scheduler,
        warmup_steps=section.warmup_steps,
        weight_decay=section.weight_decay,
        max_grad_norm=1.0,  # any value above 0 makes Trainer call `_clip_grad_norm`
        activation_checkpointing=section.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        optim="adamw_torch_fused" if torch.cuda.is_available() else "adamw_torch",
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
        dataloader_pin_memory=False,
        average_tokens_across_devices=False,
    )
    # One process uses one GPU; Trainer would replicate the model on all that are visible.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments
