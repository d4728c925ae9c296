"""PEFT's layers on a base that is trained: put there, begun at an adapter, and read out again."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lori_core.adapters.adapter import Adapter, LayerSpec
from lori_core.config import LoriSection
from lori_core.core.errors import AdapterError
from lori_core.methods.finetuned_model import FinetunedModel
from lori_core.methods.training_method import Made
from lori_core.models import peft_names

#: A, [rank, d_in], and B, [d_out, rank], float32, and the scaling of B @ A, by module.
Factors = dict[str, tuple[Tensor, Tensor, float]]


def inject(
    model: nn.Module, lori: LoriSection, config: Callable[[], Any], frozen: Sequence[str]
) -> Any:
    """Put PEFT's layers on a base model in place, and mark what is trained.

    Args:
        model: the base, also on the meta device (but PiSSA decomposes real weights).
        lori: target modules.
        config: makes PEFT's configuration.
        frozen: parts of the adapter that are not trained, by PEFT's name.

    Raises:
        ConfigError: for a target module that the base does not have.
        AdapterError: for one that PEFT cannot adapt.
    """
    modules = peft_names.target_shapes(model, lori.target_modules)
    with warnings.catch_warnings():
        # VeRA's projections are drawn again from their seed, so a file need not hold them.
        warnings.filterwarnings("ignore", message="Specified to not save vera_A")
        chosen = config()
    wrapped = peft_names.injected(model, chosen, modules)
    for parameter, values in wrapped.named_parameters():
        if any(part in parameter.split(".") for part in frozen):
            values.requires_grad_(False)
    return wrapped


def in_float32(model: Any) -> None:
    """Put what a model trains into float32, whatever precision it is computed with in."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def begin_at(model: Any, start: Adapter, method: str) -> None:
    """Give a LoRA's A and B the values of an adapter that was trained before.

    Raises:
        AdapterError: if modules, rank or scaling differ.
    """
    layers = peft_names.lora_layers(model)
    if list(layers) != list(start.modules):
        raise AdapterError(f"{method}: the adapter to go on from has other modules than the base")
    in_float32(model)
    with torch.no_grad():
        for name, layer in layers.items():
            pairs = (layer.lora_A, start.A(name)), (layer.lora_B, start.B(name))
            for side, values in pairs:
                weight = side[peft_names.ADAPTER].weight
                if weight.shape != values.shape:
                    raise AdapterError(
                        f"{method}: {name} has rank {values.shape} in the adapter to go on from, "
                        f"{tuple(weight.shape)} here; use its rank"
                    )
                weight.copy_(values)
            scaling = layer.scaling[peft_names.ADAPTER]
            if not math.isclose(scaling, start.scaling(name)):
                raise AdapterError(
                    f"{method}: {name} is scaled by {start.scaling(name):g} in the adapter to go "
                    f"on from, by {scaling:g} here; use its lora_alpha"
                )


def loraplus(ratio: float) -> Callable[[Any, float], torch.optim.Optimizer]:
    """Return what makes an AdamW whose learning rate for B is `ratio` times A's."""

    def create(model: Any, learning_rate: float) -> torch.optim.Optimizer:
        from peft.optimizers import create_loraplus_optimizer

        optimizer: torch.optim.Optimizer = create_loraplus_optimizer(
            model, torch.optim.AdamW, lr=learning_rate, loraplus_lr_ratio=ratio, weight_decay=0.0
        )
        return optimizer

    return create


def orthogonality(model: Any) -> Tensor:
    """Return AdaLoRA's penalty, `orth_reg_weight · mean ‖PᵀP - I‖_F`, a scalar."""
    weight = model.peft_config[peft_names.ADAPTER].orth_reg_weight
    found = []
    for layer in peft_names.lora_layers(model).values():
        A, B = layer.lora_A[peft_names.ADAPTER], layer.lora_B[peft_names.ADAPTER]
        unit = torch.eye(len(A), device=A.device)
        found += [torch.linalg.matrix_norm(g - unit) for g in (A @ A.T, B.T @ B)]
    penalty: Tensor = weight * torch.stack(found).mean()
    return penalty


def factors(model: Any) -> Factors:
    """Return a copy of LoRA's A and B of each module, on the CPU, and their scaling."""
    found = {}
    for name, layer in peft_names.lora_layers(model).items():
        sides = (layer.lora_A[peft_names.ADAPTER], layer.lora_B[peft_names.ADAPTER])
        # AdaLoRA keeps the matrices themselves, the others linear modules.
        weights: list[Tensor] = [getattr(side, "weight", side) for side in sides]
        A, B = (weight.detach().float().cpu().clone() for weight in weights)
        found[name] = (A, B, float(layer.scaling[peft_names.ADAPTER]))
    return found


def svd_factors(model: Any) -> Factors:
    """Return AdaLoRA's factors: its singular values go into A."""
    layers, found = peft_names.lora_layers(model), factors(model)
    for name, (A, B, scaling) in found.items():
        values = layers[name].lora_E[peft_names.ADAPTER].detach().float().cpu()
        rank = float(layers[name].ranknum[peft_names.ADAPTER]) + 1e-5
        found[name] = (A * values, B, scaling / rank)
    return found


def without(last: Factors, first: Factors) -> Factors:
    """Return the factors of `B @ A - B₀ @ A₀`, of twice the rank."""
    return {
        name: (torch.cat([A, first[name][0]]), torch.cat([B, -first[name][1]], dim=1), scaling)
        for name, (A, B, scaling) in last.items()
    }


def adapter(found: Factors, made: Made) -> Adapter:
    """Return the low-rank adapter of some factors."""
    modules = {
        name: LayerSpec(A.shape[1], B.shape[0], len(A), scaling * len(A))
        for name, (A, B, scaling) in found.items()
    }
    return Adapter(
        base=made.base,
        modules=modules,
        blocks=(),
        mask=None,
        values={name: B.contiguous().reshape(-1) for name, (_, B, _) in found.items()},
        stored={name: A.contiguous() for name, (A, _, _) in found.items()},
        info=made.info,
        fan_in_fan_out=made.fan_in_fan_out,
        matched_by=made.matched_by,
    )


def tuned(model: Any, made: Made) -> FinetunedModel:
    """Return what PEFT saves of a trained model."""
    from peft import get_peft_model_state_dict

    with warnings.catch_warnings():
        # VeRA's projections are drawn again from their seed, so a file need not hold them.
        warnings.filterwarnings("ignore", message="Specified to not save vera_A")
        kept = get_peft_model_state_dict(model, save_embedding_layers=False)
    config = peft_names.config_dict(model.peft_config[peft_names.ADAPTER])
    config |= {"base_model_name_or_path": made.base.name, "inference_mode": True}
    tensors = {name: t.detach().cpu().contiguous() for name, t in sorted(kept.items())}
    return FinetunedModel(made.base, tensors, config, made.info)
