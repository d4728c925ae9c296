"""The settings of a run: PEFT's training parameters with their defaults, and the adapter's.

The recipe is that of `method_comparison/MetaMathQA` in PEFT's repository. The fields and defaults
of `TrainConfig` are those of its `default_training_params.json` (seen at PEFT 0.20.1.dev0, August
2026), so that a result's `train_config` says what theirs says.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from lori_core.config import LoriSection, ModelSection, TrainingSection

#: The base model of PEFT's results.
MODEL = "meta-llama/Llama-3.2-3B"
#: The methods that can be run; the first two are controls, trained with PEFT's own layers.
METHODS = ("lora", "lora-fa", "lori-d", "lori-s")
#: The number of questions of GSM8K's training set that are the validation set.
VALIDATION = 50
#: The share of the steps in which the learning rate rises.
WARMUP = 0.1
#: The task's name: in the adapter, and as the key that A is drawn from.
TASK = "metamathqa"
#: The `stage` of the adapters' `info`.
STAGE = "peft-comparison"


@dataclass(frozen=True)
class TrainConfig:
    """PEFT's training parameters, in its order; PEFT's `utils.py` explains them."""

    model_id: str = MODEL
    dtype: str = "bfloat16"
    max_seq_length: int = 768
    batch_size: int = 4
    batch_size_eval: int = 50
    max_steps: int = 5000
    eval_steps: int = 250
    compile: bool = False
    use_gc: bool = False
    query_template: str = "Question: {query} Think step by step.\nAnswer:"
    seed: int = 0
    grad_norm_clip: float = 1.0
    optimizer_type: str = "AdamW"
    optimizer_kwargs: dict[str, float] = field(
        default_factory=lambda: {"lr": 1e-4, "weight_decay": 0.1}
    )
    lr_scheduler: str = "cosine"
    use_amp: bool = False
    autocast_adapter_dtype: bool = True
    generation_kwargs: dict[str, int] = field(
        default_factory=lambda: {"max_length": 800, "max_new_tokens": 300}
    )
    attn_implementation: str | None = None
    init_kv_cache_prefix: str | None = None

    def changed(self) -> dict[str, Any]:
        """Return the parameters that differ from PEFT's defaults: its `training_params.json`."""
        defaults = asdict(TrainConfig())
        return {name: value for name, value in asdict(self).items() if value != defaults[name]}


@dataclass(frozen=True)
class Run:
    """One method's run.

    Attributes:
        method: one of `METHODS`.
        train: PEFT's training parameters.
        model: the base model.
        lori: rank, lora_alpha, target modules, sparsity and seed.
        calibration_steps: for LoRI-S, the optimizer steps of the LoRI-D adapter that the mask
            comes from; they are added to the time, samples and tokens of the result.
        validation: the number of validation questions.
    """

    method: str
    train: TrainConfig
    model: ModelSection
    lori: LoriSection
    calibration_steps: int
    validation: int = VALIDATION

    @property
    def label(self) -> str:
        """The experiment's name inside its method's folder."""
        name = Path(self.train.model_id).name or "base"
        base = name.replace(":", "-").lower().replace("-3b", "-3B")
        rank = f"{base}-rank{self.lori.rank}"
        if not self.method.startswith("lori"):
            return rank if self.method == "lora" else f"{rank}-{self.method}"
        if self.method == "lori-d":
            return f"{rank}-d"
        return f"{rank}-s-sparsity{Decimal(repr(self.lori.sparsity)):f}"

    @property
    def experiment(self) -> str:
        """PEFT's `experiment_name`, FAMILY/NAME."""
        return f"{self.method.partition('-')[0]}/{self.label}"

    @property
    def section(self) -> TrainingSection:
        """The training settings, as an adapter records them."""
        return TrainingSection(
            learning_rate=self.train.optimizer_kwargs["lr"],
            max_steps=self.train.max_steps,
            batch_size=self.train.batch_size,
            max_length=self.train.max_seq_length,
            loss="token_mean",
            clipping="global",
            max_grad_norm=self.train.grad_norm_clip,
            weight_decay=self.train.optimizer_kwargs["weight_decay"],
            lr_scheduler="cosine",
            warmup_steps=warmup(self.train.max_steps),
        )


def warmup(steps: int) -> int:
    """Return the number of warm-up steps of a run."""
    return int(WARMUP * steps)
