"""Find mixture-of-experts parameters that stack all experts' matrices.

Such experts are not linear layers, so they cannot be adapted here. PEFT applies an adapter of a
single expert to a part of that parameter, and some target names (`gate_proj`) to the whole
parameter, even if a linear layer has the same name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from lori_core.models.weight_names import WeightNames


def fused_experts(model: nn.Module) -> dict[str, set[str]]:
    """Return the parameters that stack all experts' matrices -> the names of these matrices."""
    stacked = [
        name
        for name, parameter in model.named_parameters()
        if parameter.dim() == 3 and "expert" in name  # [experts, rows, columns]
    ]
    if not stacked:
        return {}
    names = WeightNames(model)
    return {name: {name.rsplit(".", 1)[-1]} | names.matrices_of(name) for name in stacked}


def taken_for_experts(model: Any, targets: Iterable[str]) -> list[str]:
    """Return the target names that PEFT would apply to experts' parameters instead of modules."""
    if not fused_experts(model):
        return []
    from peft import LoraConfig
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    taken = []
    for target in targets:
        config = LoraConfig(target_modules=[target])
        try:
            convert_peft_config_for_transformers(config, model, None)
        except ValueError:  # PEFT requires all the stacked matrices to be targets
            taken.append(target)
        else:
            if target not in config.target_modules:
                taken.append(target)
    return taken
