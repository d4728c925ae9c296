"""The section `training` of `params.yaml`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from lori_core.config.validation import (
    Alpha,
    Count,
    Few,
    Flag,
    Number,
    PositiveFloat,
    PositiveInt,
    Share,
    Size,
    Strict,
)


class TrainingSection(Strict):
    """The settings of one training run."""

    learning_rate: Annotated[PositiveFloat, Field(le=1000)] = 5e-4
    epochs: PositiveFloat = 1
    max_steps: PositiveInt | None = None
    """The number of optimizer steps; overrides `epochs`."""
    batch_size: Size = 32
    """Examples in one forward pass."""
    gradient_accumulation_steps: Size = 1
    max_length: Size = 512
    """The most tokens of prompt and target together; longer examples are cut and counted."""
    loss: Literal["sequence_sum", "token_mean"] = "sequence_sum"
    """The target tokens' negative log-probabilities: summed per example and averaged over examples
    (`sequence_sum`), or averaged over tokens (`token_mean`)."""
    clipping: Literal["per_tensor", "global", "none"] = "per_tensor"
    max_grad_norm: PositiveFloat = 1.0
    """The largest gradient norm of each tensor (or of all together), after masking."""
    weight_decay: Annotated[Number, Field(ge=0, le=1000)] = 0.0
    lr_scheduler: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: Count = 0
    lora_alpha: Alpha | None = None
    """Overrides `lori.lora_alpha`, for one task or phase."""
    dropout: Share = 0.0
    """Dropout on the adapter's input."""
    gradient_checkpointing: Flag = False
    save_steps: PositiveInt = 50
    """Optimizer steps between checkpoints."""
    processes: Few = 1
    """Data-parallel processes, each with a GPU; the result is equal up to floating-point sums."""
    sharding: Literal["none", "full"] = "none"
    """full: shard the base's weights over the processes (FSDP), for a base too large for a GPU."""


#: The fields that decide how a training run is executed, and not its result.
EXECUTION_FIELDS = {"processes", "sharding"}
#: Values that replace fields of `training`, for one task or phase.
Override = dict[str, Any]
