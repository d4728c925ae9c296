"""The only place that knows how PEFT names things."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from typing import Any

from torch import nn

from lori_core.errors import ConfigError, nearest

#: The name of the one adapter that this project attaches to a model.
ADAPTER = "default"
WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"

_KEY = re.compile(r"^base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight$")


def weight_key(module: str, side: str) -> str:
    """Return the name of a tensor in PEFT's file: `side` is `A` or `B`."""
    return f"base_model.model.{module}.lora_{side}.weight"


def parse_key(key: str) -> tuple[str, str] | None:
    """Return (module, `A` or `B`) for a tensor's name in PEFT's file, None for other tensors."""
    match = _KEY.match(key)
    return (match["module"], match["side"]) if match else None


def lora_layers(model: nn.Module) -> dict[str, Any]:
    """Return the LoRA layers of a PEFT model by the module's name in the base model, in order."""
    prefix = "base_model.model."
    return {
        name.removeprefix(prefix): module
        for name, module in model.named_modules()
        if hasattr(module, "lora_B") and ADAPTER in module.lora_B
    }


def target_shapes(model: nn.Module, targets: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return (d_in, d_out) of each linear module of a base model whose last name is a target.

    Raises:
        ConfigError: for a target that matches nothing, with the names there are.
    """
    found: dict[str, tuple[int, int]] = {}
    present: set[str] = set()
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if weight is None or weight.dim() != 2 or isinstance(module, nn.Embedding):
            continue
        last = name.rsplit(".", 1)[-1]
        present.add(last)
        if last in targets:
            found[name] = _features(module)
    for target in targets:
        if target not in present:
            raise ConfigError(
                f"lori.target_modules: {target!r} matches no linear module of this model"
                f"{nearest(target, present)} (it has: {', '.join(sorted(present))})"
            )
    return found


def _features(module: Any) -> tuple[int, int]:
    if hasattr(module, "in_features"):
        return int(module.in_features), int(module.out_features)
    rows, columns = module.weight.shape  # transformers' Conv1D keeps [in, out]
    return int(rows), int(columns)


def fan_in_fan_out(model: nn.Module, modules: Container[str]) -> bool:
    """Say whether the targets keep their weights as [d_in, d_out], as GPT-2's `Conv1D` does."""
    return any(
        type(module).__name__ == "Conv1D" and name in modules
        for name, module in model.named_modules()
    )


def lora_config(rank: int, lora_alpha: float, targets: Sequence[str], dropout: float = 0.0) -> Any:
    """Return the `LoraConfig` of an adapter as PEFT runs it."""
    from peft import LoraConfig

    return LoraConfig(
        r=rank,
        lora_alpha=lora_alpha,
        lora_dropout=dropout,
        target_modules=list(targets),
        bias="none",
        task_type="CAUSAL_LM",
    )
