"""Experts whose matrices transformers keeps in one parameter: no linear modules to adapt.

PEFT reads an adapter's names of single experts as parts of that parameter, and takes some names of
targets (`gate_proj`) for it altogether, also where a linear module has the same name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from lori_core.models.weight_names import WeightNames


def fused_experts(model: nn.Module) -> dict[str, set[str]]:
    """Return the parameters that hold all experts' matrices, with the names of these matrices."""
    found = [
        name
        for name, parameter in model.named_parameters()
        if parameter.dim() == 3 and "expert" in name  # stacked along the experts
    ]
    if not found:
        return {}
    names = WeightNames(model)
    return {name: {name.rsplit(".", 1)[-1]} | names.matrices_of(name) for name in found}


def taken_for_experts(model: Any, targets: Iterable[str]) -> list[str]:
    """Return the targets that PEFT takes for all experts' parameters instead of modules."""
    if not fused_experts(model):
        return []
    from peft import LoraConfig
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    taken = []
    for target in targets:
        config = LoraConfig(target_modules=[target])
        try:
            convert_peft_config_for_transformers(config, model, None)
        except ValueError:  # it wants all the matrices that are kept together
            taken.append(target)
        else:
            if target not in config.target_modules:
                taken.append(target)
    return taken
