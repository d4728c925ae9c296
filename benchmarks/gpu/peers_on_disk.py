"""Train by implementations that load the model from a folder, where installed: Unsloth and axolotl.

Both functions were written from the libraries' documentation and have never run. A is the
library's own, so only the loss of the first step has to agree with the others'.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.clock import Clock
from benchmarks.training_peers import ALPHA, RANK, RATE, TARGETS, Work, arguments, in_order
from lori_core.data.batching import IGNORED


def dataset(work: Work) -> Any:
    """Return the rows as a `datasets.Dataset` with `input_ids` and `completion_mask`."""
    from datasets import Dataset

    return Dataset.from_list(
        [
            {
                "input_ids": row.prompt + row.target,
                "completion_mask": [0] * len(row.prompt) + [1] * len(row.target),
            }
            for row in work.rows
        ]
    )


def tokenizer(vocabulary: int) -> Any:
    """Return a tokenizer of made-up words, for trainers that insist on one."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    special = ("<pad>", "<s>", "</s>")
    words = {word: number for number, word in enumerate(special)}
    words |= {f"w{number}": number for number in range(len(special), vocabulary)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<pad>")),  # noqa: S106
        pad_token="<pad>",  # noqa: S106
        bos_token="<s>",  # noqa: S106
        eos_token="</s>",  # noqa: S106
    )


def _saved(work: Work, folder: Path) -> Path:
    """Save the base model with a tokenizer, and free it."""
    path = folder / "base"
    work.base.save_pretrained(path)
    tokenizer(work.base.config.vocab_size).save_pretrained(path)
    work.base.to("meta")
    gc.collect()
    torch.cuda.empty_cache()
    return path


def unsloth(work: Work, clock: Clock, folder: Path) -> Any:
    """Train with Unsloth's FastLanguageModel and TRL's SFTTrainer, without checkpointing."""
    longest = max(map(len, work.rows))
    rows, path = dataset(work), _saved(work, folder)
    from unsloth import FastLanguageModel  # before trl, which it patches

    model, words = FastLanguageModel.from_pretrained(
        model_name=str(path), max_seq_length=longest, dtype=torch.bfloat16, load_in_4bit=False
    )
    model = FastLanguageModel.get_peft_model(
        model, r=RANK, lora_alpha=ALPHA, lora_dropout=0, bias="none",
        target_modules=list(TARGETS), use_gradient_checkpointing=False, random_state=0,
    )  # fmt: skip
    from trl import SFTConfig, SFTTrainer

    config = SFTConfig(
        **arguments(work, str(folder), remove_unused_columns=True),
        max_length=longest, completion_only_loss=True, gradient_checkpointing=False, bf16=True,
    )  # fmt: skip
    engine = SFTTrainer(
        model=model, args=config, train_dataset=rows, processing_class=words, callbacks=[clock]
    )
    in_order(engine)
    engine.train()
    return model


def axolotl(work: Work, clock: Clock, folder: Path) -> Any:
    """Train with axolotl and its LoRA kernels on tokenised rows, without checkpointing."""
    import yaml
    from datasets import Dataset

    lines = [
        {
            "input_ids": row.prompt + row.target,
            "attention_mask": [1] * len(row),
            "labels": [IGNORED] * len(row.prompt) + row.target,
        }
        for row in work.rows
    ]
    Dataset.from_list(lines).to_json(folder / "rows.jsonl")
    settings = {
        "base_model": str(_saved(work, folder)),
        "datasets": [{"path": str(folder / "rows.jsonl"), "ds_type": "json", "type": ""}],
        "dataset_prepared_path": str(folder / "prepared"),
        "shuffle_merged_datasets": False,
        "curriculum_sampling": True,
        "sequence_len": max(map(len, work.rows)),
        "sample_packing": False,
        "adapter": "lora",
        "lora_r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0,
        "lora_target_modules": list(TARGETS),
        "lora_mlp_kernel": True,
        "lora_qkv_kernel": True,
        "lora_o_kernel": True,
        "micro_batch_size": work.micro,
        "gradient_accumulation_steps": len(work.batches[0]) // work.micro,
        "max_steps": len(work.batches),
        "optimizer": "adamw_torch_fused",
        "lr_scheduler": "constant",
        "learning_rate": RATE,
        "weight_decay": 0.0,
        "bf16": True,
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "output_dir": str(folder / "out"),
    }
    (folder / "axolotl.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    from axolotl.cli.config import load_cfg
    from axolotl.common.datasets import load_datasets
    from axolotl.train import train

    settings = load_cfg(str(folder / "axolotl.yaml"))
    with _timed_by(clock):
        model, *_ = train(cfg=settings, dataset_meta=load_datasets(cfg=settings))
    return model


@contextmanager
def _timed_by(clock: Clock) -> Iterator[None]:
    """Give every trainer that is made inside a `with` block the clock as a callback."""
    from transformers import Trainer

    made = Trainer.__init__

    def with_clock(self: Any, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **kwargs)
        self.add_callback(clock)

    Trainer.__init__ = with_clock
    try:
        yield
    finally:
        Trainer.__init__ = made
