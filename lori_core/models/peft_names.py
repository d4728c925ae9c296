"""PEFT's names of tensors, modules and files, and its matching of target modules."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from lori_core.core import name_patterns
from lori_core.core.errors import AdapterError, ConfigError, nearest
from lori_core.models.fused_experts import fused_experts, taken_for_experts
from lori_core.models.linear_layers import features, is_linear, is_transposed
from lori_core.models.text_part import beyond_text, part_of

#: The name of the one adapter that this project attaches to a model.
ADAPTER = "default"
WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"

_KEY = re.compile(r"^base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight$")


def weight_key(module: str, side: str) -> str:
    """Return the name of a module's `A` or `B` weight (`side`) in PEFT's file."""
    return f"base_model.model.{module}.lora_{side}.weight"


def parse_key(key: str) -> tuple[str, str] | None:
    """Return (module, `A` or `B`) for a tensor's name in PEFT's file; None for other tensors."""
    match = _KEY.match(key)
    return (match["module"], match["side"]) if match else None


def parse_copy(key: str) -> str | None:
    """Return the module whose base weight a tensor of PEFT's file is a copy of; None if none."""
    match = re.fullmatch(r"base_model\.model\.(.+)\.base_layer\.weight", key)
    return match[1] if match else None


def lora_layers(model: nn.Module) -> dict[str, Any]:
    """Return the LoRA layers of a PEFT model by the module's name in the base model, in order."""
    prefix = "base_model.model."
    return {
        name.removeprefix(prefix): module
        for name, module in model.named_modules()
        if hasattr(module, "lora_B") and ADAPTER in module.lora_B
    }


def linear_features(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Return (d_in, d_out) of each linear layer of a base model, in the model's order."""
    return {name: features(m) for name, m in model.named_modules() if is_linear(m)}


def matches(name: str, target: str) -> bool:
    """Return whether a target matches a module by PEFT's rule: a suffix of whole name parts."""
    return f".{name}".endswith(f".{target}")


def target_shapes(model: nn.Module, targets: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return (d_in, d_out) of each linear layer that a target matches.

    Only layers that process text; those of vision or audio towers are in `left_out`.

    Args:
        model: a base model; may be on the meta device.
        targets: the last parts of modules' names, as `q_proj` or `self_attn.q_proj`.

    Raises:
        ConfigError: a target matches no such layer (the message lists the allowed names), or
            matches modules that PEFT cannot adapt individually.
    """
    beyond = beyond_text(model)
    every = linear_features(model)
    reachable = {name: sizes for name, sizes in every.items() if part_of(name, beyond) is None}
    for target in targets:
        if not any(matches(name, target) for name in reachable):
            present = {name.rsplit(".", 1)[-1] for name in reachable}
            raise ConfigError(
                f"lori.target_modules: {target!r} {_mismatch_reason(model, target, beyond)}"
                f"{nearest(target, present)} (it has: {', '.join(sorted(present))})"
            )
    _check_not_shared(model, targets)
    return {n: sizes for n, sizes in reachable.items() if any(matches(n, t) for t in targets)}


def _mismatch_reason(model: nn.Module, target: str, beyond: Sequence[str]) -> str:
    """Return why a target matches no linear layer that processes text."""
    for name, module in model.named_modules():
        if matches(name, target):
            part = part_of(name, beyond)
            if part is not None:
                return f"matches modules of {part} only, which text never reaches"
            return f"matches no linear module of this model: {name} is a {type(module).__name__}"
    for parameter, matrices in fused_experts(model).items():
        if target in matrices:
            return (
                "matches no linear module of this model: its experts' matrices are kept in one "
                f"tensor, {parameter}, and cannot be adapted"
            )
    return "matches no linear module of this model"


def _check_not_shared(model: Any, targets: Sequence[str]) -> None:
    names: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if any(matches(name, target) for target in targets):
            names.setdefault(id(module), []).append(name)
    for shared in names.values():
        if len(shared) > 1:
            raise ConfigError(
                f"lori.target_modules: {shared[0]} and {shared[1]} are the same module, and PEFT "
                "would adapt only one of them; leave it out"
            )
    taken = taken_for_experts(model, targets)
    if taken:
        raise ConfigError(
            f"lori.target_modules: {', '.join(taken)}: PEFT takes such a name in this model "
            f"({model.config.model_type}) for its experts, whose matrices are kept in one tensor "
            "and cannot be adapted here; leave it out"
        )


def left_out(model: nn.Module, targets: Sequence[str]) -> dict[str, list[str]]:
    """Return the parts of a model that targets match but that get no adapter.

    Returns:
        The reason -> the names of the parts.
    """
    beyond = beyond_text(model)
    matched = [name for name in linear_features(model) if any(matches(name, t) for t in targets)]
    last = {target.rsplit(".", 1)[-1] for target in targets}
    experts = [
        _without_layer_number(name) for name, parts in fused_experts(model).items() if parts & last
    ]
    parts_by_reason: dict[str, list[str | None]] = {
        "text never reaches it": [part_of(name, beyond) for name in matched],
        "experts' matrices are kept in one tensor": [*experts],
    }
    unique = {why: sorted({p for p in parts if p}) for why, parts in parts_by_reason.items()}
    return {why: parts for why, parts in unique.items() if parts}


def _without_layer_number(name: str) -> str:
    return re.sub(r"\.\d+(?=\.)", ".*", name)


def targets_of(model: nn.Module, modules: Iterable[str]) -> list[str]:
    """Return sorted targets that PEFT matches with exactly these modules of a base.

    They are the last parts of the names, or the full names if the last parts match other modules.
    """
    names = set(modules)
    last = {name.rsplit(".", 1)[-1] for name in names}
    matched = {name for name, _ in model.named_modules() if name.rsplit(".", 1)[-1] in last}
    return sorted(last if matched == names else names)


def fan_in_fan_out(model: nn.Module, modules: Container[str]) -> bool:
    """Return whether a module stores its weight as [d_in, d_out], as GPT-2's `Conv1D` does."""
    return any(is_transposed(m) and name in modules for name, m in model.named_modules())


def injected(model: Any, config: Any, modules: Collection[str], **options: Any) -> Any:
    """Wrap a base in a PEFT model, and check that PEFT adapted exactly these modules.

    Args:
        model: the base model, changed in place.
        config: a PEFT configuration; its `target_modules` and `fan_in_fan_out` are set here.
        modules: the names of the modules to adapt.
        options: passed to `get_peft_model`.

    Raises:
        AdapterError: PEFT refuses a module, or adapted others.
    """
    from peft import get_peft_model
    from peft.tuners.tuners_utils import BaseTunerLayer

    config.target_modules = set(targets_of(model, modules))
    if hasattr(config, "fan_in_fan_out"):
        config.fan_in_fan_out = fan_in_fan_out(model, modules)
    try:
        with warnings.catch_warnings():
            # It is one setting for all modules; PEFT corrects it for single modules and warns.
            warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
            wrapped = get_peft_model(model, config, **options)
    except ValueError as error:
        text = " ".join(str(error).split())
        raise AdapterError(f"PEFT cannot adapt these modules: {text}") from None
    named = wrapped.base_model.model.named_modules()
    adapted = {name for name, module in named if isinstance(module, BaseTunerLayer)}
    if adapted != set(modules):
        odd = sorted(adapted ^ set(modules))[0]
        raise AdapterError(
            f"module {odd}: PEFT has adapted {len(adapted)} modules instead of {len(modules)}, and "
            f"{'not ' if odd in set(modules) else ''}this one"
        )
    return wrapped


def lora_config(
    modules: Mapping[str, Any], targets: Sequence[str], dropout: float, use_rslora: bool
) -> Any:
    """Return the `LoraConfig` of modules that have a `rank` and a `lora_alpha`.

    `r` and `lora_alpha` hold the most common values, `rank_pattern` and `alpha_pattern` the other
    modules' values by full name.
    """
    from peft import LoraConfig

    rank = _most_common([module.rank for module in modules.values()])
    alphas = {name: _plain(module.lora_alpha) for name, module in modules.items()}
    alpha = _most_common(list(alphas.values()))
    return LoraConfig(
        r=rank,
        lora_alpha=alpha,
        rank_pattern={_exact_pattern(n): m.rank for n, m in modules.items() if m.rank != rank},
        alpha_pattern={_exact_pattern(n): own for n, own in alphas.items() if own != alpha},
        lora_dropout=dropout,
        target_modules=list(targets),
        use_rslora=use_rslora,
        bias="none",
        task_type="CAUSAL_LM",
    )


def config_dict(config: Any) -> dict[str, Any]:
    """Return a PEFT configuration as a JSON object; sets become sorted lists."""
    values = {k: sorted(v) if isinstance(v, set) else v for k, v in config.to_dict().items()}
    return values | {"peft_type": config.peft_type.value, "task_type": "CAUSAL_LM"}


def _plain(number: float) -> float:
    """Return a whole number as an int, as it is usually written in a config."""
    return int(number) if float(number).is_integer() else number


def _exact_pattern(name: str) -> str:
    return f"^{re.escape(name)}"


def pattern_values(
    patterns: Mapping[str, Any], names: Sequence[str], default: Any
) -> dict[str, Any]:
    """Return each module's value by a `rank_pattern` or `alpha_pattern`, as PEFT applies it.

    Raises:
        PatternError: a pattern is invalid or takes too long to match.
    """
    matched = name_patterns.matching(patterns, names, "last parts")
    values = dict.fromkeys(names, default)
    for pattern in reversed(list(patterns)):  # the first matching pattern decides
        values |= dict.fromkeys(matched[pattern], patterns[pattern])
    return values


def named_by(wanted: str | Sequence[str], names: Sequence[str]) -> set[str]:
    """Return the modules that PEFT matches with an option such as `target_modules`.

    Args:
        wanted: a list of suffixes or full names; or one pattern for full names, or `all-linear`.
        names: the names of linear layers.

    Raises:
        PatternError: a pattern is invalid or takes too long to match.
    """
    if wanted == "all-linear":
        return set(names)
    if isinstance(wanted, str):
        return name_patterns.matching([wanted], names, "whole")[wanted]
    last = set(wanted)
    return {name for name in names if any(part in last for part in _endings(name))}


def _endings(name: str) -> list[str]:
    """Return all suffixes of a name in whole parts."""
    parts = name.split(".")
    return [".".join(parts[at:]) for at in range(len(parts))]


def _most_common(values: Sequence[Any]) -> Any:
    return Counter(values).most_common(1)[0][0]
