"""The section `training` of `params.yaml`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

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
from lori_core.core.errors import shown

#: The largest `tokens_at_once`.
MOST_TOKENS = 2**24


def _tokens_at_once(value: Any) -> Any:
    if value == "auto" or (type(value) is int and 0 < value <= MOST_TOKENS):
        return value
    raise ValueError(f"{shown(value)}; allowed are auto and a whole number from 1 to {MOST_TOKENS}")


class TrainingSection(Strict):
    """The settings of one training run."""

    learning_rate: Annotated[PositiveFloat, Field(le=1000)] = 5e-4
    epochs: PositiveFloat = 1
    max_steps: PositiveInt | None = None
    """The number of optimizer steps; overrides `epochs`."""
    batch_size: Size = 32
    """Examples of one batch."""
    gradient_accumulation_steps: Size = 1
    """Batches of one optimizer step; their gradients are summed."""
    tokens_at_once: Annotated[Literal["auto"] | int, BeforeValidator(_tokens_at_once)] = "auto"
    """The most tokens of one forward and backward pass. An optimizer step is split into as many
    passes as needed; their gradients are summed, so the result is equal up to floating-point sums.
    `auto`: on a GPU what fits into its memory, else one pass for each batch."""
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

    @model_validator(mode="after")
    def _splits(self) -> TrainingSection:
        if self.sharding == "full" and self.tokens_at_once != "auto":
            raise ValueError(
                f"tokens_at_once: {self.tokens_at_once} cannot be used with sharding: full, where "
                "all processes must make the same passes; leave it at auto and lower batch_size"
            )
        return self


#: The fields that decide how a training run is executed, and not its result.
EXECUTION_FIELDS = {"processes", "sharding", "tokens_at_once"}
#: Values that replace fields of `training`, for one task or phase.
Override = dict[str, Any]
