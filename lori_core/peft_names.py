"""The only place that knows how PEFT names things."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Mapping, Sequence
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


def linear_features(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Return (d_in, d_out) of each linear module of a base model, in its order."""
    return {
        name: _features(module)
        for name, module in model.named_modules()
        if getattr(module, "weight", None) is not None
        and module.weight.dim() == 2
        and not isinstance(module, nn.Embedding)
    }


def target_shapes(model: nn.Module, targets: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return (d_in, d_out) of each linear module of a base model whose last name is a target.

    Raises:
        ConfigError: for a target that matches nothing, with the names there are.
    """
    features = linear_features(model)
    present = {name.rsplit(".", 1)[-1] for name in features}
    for target in targets:
        if target not in present:
            raise ConfigError(
                f"lori.target_modules: {target!r} matches no linear module of this model"
                f"{nearest(target, present)} (it has: {', '.join(sorted(present))})"
            )
    return {name: f for name, f in features.items() if name.rsplit(".", 1)[-1] in targets}


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


def lora_config(
    modules: Mapping[str, Any], targets: Sequence[str], dropout: float, use_rslora: bool
) -> Any:
    """Return the `LoraConfig` of modules with `rank` and `lora_alpha`, as PEFT runs it.

    What most modules have stands in `r` and `lora_alpha`, the rest in the patterns, by whole name.
    """
    from peft import LoraConfig

    rank = _most_common([module.rank for module in modules.values()])
    alphas = {name: _plain(module.lora_alpha) for name, module in modules.items()}
    alpha = _most_common(list(alphas.values()))
    return LoraConfig(
        r=rank,
        lora_alpha=alpha,
        rank_pattern={_exactly(n): m.rank for n, m in modules.items() if m.rank != rank},
        alpha_pattern={_exactly(n): own for n, own in alphas.items() if own != alpha},
        lora_dropout=dropout,
        target_modules=list(targets),
        use_rslora=use_rslora,
        bias="none",
        task_type="CAUSAL_LM",
    )


def config_dict(config: Any) -> dict[str, Any]:
    """Return a PEFT configuration as JSON can hold it; sets become sorted lists."""
    values = {k: sorted(v) if isinstance(v, set) else v for k, v in config.to_dict().items()}
    return values | {"peft_type": config.peft_type.value, "task_type": "CAUSAL_LM"}


def _plain(number: float) -> float:
    """Return a whole number as an int, as people write it into a config."""
    return int(number) if float(number).is_integer() else number


def _exactly(name: str) -> str:
    return f"^{re.escape(name)}"


def pattern_value(patterns: Mapping[str, Any], name: str, default: Any) -> Any:
    """Return what PEFT takes from a `rank_pattern` or `alpha_pattern` for a module."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            return value
    return default


def _most_common(values: Sequence[Any]) -> Any:
    return Counter(values).most_common(1)[0][0]
