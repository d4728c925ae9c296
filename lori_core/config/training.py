"""How one adapter is trained."""

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
    """One training run (METHOD: section 5)."""

    learning_rate: Annotated[PositiveFloat, Field(le=1000)] = 5e-4
    epochs: PositiveFloat = 1
    max_steps: PositiveInt | None = None
    """Stop after so many optimizer steps, whatever `epochs` says."""
    batch_size: Size = 32
    """Examples in one forward pass."""
    gradient_accumulation_steps: Size = 1
    max_length: Size = 512
    """Tokens of prompt and target together; what is longer is cut and counted."""
    loss: Literal["sequence_sum", "token_mean"] = "sequence_sum"
    """Sum of the target's negative log-probabilities, averaged over examples; or over tokens."""
    clipping: Literal["per_tensor", "global", "none"] = "per_tensor"
    max_grad_norm: PositiveFloat = 1.0
    """The gradient norm each tensor (or all together) is clipped to, after masking."""
    weight_decay: Annotated[Number, Field(ge=0, le=1000)] = 0.0
    lr_scheduler: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: Count = 0
    lora_alpha: Alpha | None = None
    """Where one task or phase needs another alpha than `lori.lora_alpha`."""
    dropout: Share = 0.0
    """Dropout on the adapter's input."""
    gradient_checkpointing: Flag = False
    save_steps: PositiveInt = 50
    """Optimizer steps between checkpoints."""
    processes: Few = 1
    """Processes that share each batch, a GPU each; the result is the same up to float sums."""
    sharding: Literal["none", "full"] = "none"
    """full: each process holds its part of the base alone (FSDP), for bases that do not fit."""


#: What of a training decides how it is computed, and not what comes out.
HOW = {"processes", "sharding"}
#: A change to some fields of `training`, for one task or phase.
Override = dict[str, Any]
