"""Add PEFT's layers to a base model, initialise them from an adapter, and read their factors."""

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
from lori_core.methods.training_method import Provenance
from lori_core.models import peft_names

#: By module: A [rank, d_in], B [d_out, rank] (both float32), and the scaling of B @ A.
Factors = dict[str, tuple[Tensor, Tensor, float]]


def inject(
    model: nn.Module, lori: LoriSection, config: Callable[[], Any], frozen: Sequence[str]
) -> Any:
    """Add PEFT's layers to a base model in place, and set which parameters are trained.

    Args:
        model: the base; may be on the meta device (except for PiSSA, which decomposes weights).
        lori: gives the target modules.
        config: returns PEFT's configuration.
        frozen: PEFT's names of the adapter's parameters that are not trained.

    Returns:
        The PEFT model.

    Raises:
        ConfigError: the base does not have a target module.
        AdapterError: PEFT cannot adapt a target module.
    """
    modules = peft_names.target_shapes(model, lori.target_modules)
    with warnings.catch_warnings():
        # VeRA's projections are drawn again from their seed, so a file need not hold them.
        warnings.filterwarnings("ignore", message="Specified to not save vera_A")
        peft_config = config()
    wrapped = peft_names.injected(model, peft_config, modules)
    for parameter, values in wrapped.named_parameters():
        if any(part in parameter.split(".") for part in frozen):
            values.requires_grad_(False)
    return wrapped


def in_float32(model: Any) -> None:
    """Convert a model's trainable parameters to float32 in place."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _layers_of(model: Any, start: Adapter, method: str) -> dict[str, Any]:
    """Return the LoRA layers, in float32, of a model whose modules are those of an adapter.

    Raises:
        AdapterError: the modules differ.
    """
    layers = peft_names.lora_layers(model)
    if list(layers) != list(start.modules):
        raise AdapterError(f"{method}: the starting adapter has other modules than the base")
    in_float32(model)
    return layers


def initialise_from(model: Any, start: Adapter, method: str) -> None:
    """Copy A and B of a trained adapter into a PEFT LoRA model.

    Args:
        model: the PEFT model.
        start: the adapter to start from.
        method: the training method, for errors.

    Raises:
        AdapterError: modules, rank or scaling differ.
    """
    with torch.no_grad():
        for name, layer in _layers_of(model, start, method).items():
            pairs = (layer.lora_A, start.A(name)), (layer.lora_B, start.B(name))
            for side, values in pairs:
                weight = side[peft_names.ADAPTER].weight
                if weight.shape != values.shape:
                    raise AdapterError(
                        f"{method}: {name} has the shape {tuple(values.shape)} in the starting "
                        f"adapter, {tuple(weight.shape)} here; use its rank"
                    )
                weight.copy_(values)
            scaling = layer.scaling[peft_names.ADAPTER]
            if not math.isclose(scaling, start.scaling(name)):
                raise AdapterError(
                    f"{method}: {name} is scaled by {start.scaling(name):g} in the starting "
                    f"adapter, by {scaling:g} here; use its lora_alpha"
                )


def initialise_front(model: Any, start: Adapter, method: str) -> None:
    """Copy a trained adapter of rank r into the first r of 2r ranks of a PEFT LoRA model.

    The second half of A keeps its random values, that of B is zero.

    Args:
        model: the PEFT model, of rank 2r.
        start: the adapter of rank r.
        method: the training method, for errors.

    Raises:
        AdapterError: modules, rank or scaling differ.
    """
    with torch.no_grad():
        for name, layer in _layers_of(model, start, method).items():
            A, B = (s[peft_names.ADAPTER].weight for s in (layer.lora_A, layer.lora_B))
            rank, scaling = len(start.A(name)), layer.scaling[peft_names.ADAPTER]
            if 2 * rank != len(A) or not math.isclose(scaling, start.scaling(name)):
                raise AdapterError(
                    f"{method}: {name} has rank {rank} and scaling {start.scaling(name):g} in the "
                    f"starting adapter, {len(A) // 2} and {scaling:g} here; use its rank and "
                    "lora_alpha"
                )
            A[:rank] = start.A(name).to(A)
            B[:, :rank] = start.B(name).to(B)


def loraplus(ratio: float, weight_decay: float) -> Callable[[Any, float], torch.optim.Optimizer]:
    """Return a factory of AdamW optimizers whose learning rate for B is `ratio` times that for A.

    Its arguments are the model and the learning rate for A.
    """

    def create(model: Any, learning_rate: float) -> torch.optim.Optimizer:
        from peft.optimizers import create_loraplus_optimizer

        optimizer: torch.optim.Optimizer = create_loraplus_optimizer(
            model,
            torch.optim.AdamW,
            lr=learning_rate,
            loraplus_lr_ratio=ratio,
            loraplus_weight_decay=weight_decay,
        )
        return optimizer

    return create


def orthogonality(model: Any) -> Tensor:
    """Return AdaLoRA's penalty, a scalar: `orth_reg_weight · mean ‖PᵀP - I‖_F` over all A, B."""
    weight = model.peft_config[peft_names.ADAPTER].orth_reg_weight
    norms = []
    for layer in peft_names.lora_layers(model).values():
        A, B = layer.lora_A[peft_names.ADAPTER], layer.lora_B[peft_names.ADAPTER]
        unit = torch.eye(len(A), device=A.device)
        norms += [torch.linalg.matrix_norm(g - unit) for g in (A @ A.T, B.T @ B)]
    penalty: Tensor = weight * torch.stack(norms).mean()
    return penalty


def factors(model: Any) -> Factors:
    """Return copies of A and B (float32, on the CPU) and the scaling of each LoRA module."""
    copies = {}
    for name, layer in peft_names.lora_layers(model).items():
        sides = (layer.lora_A[peft_names.ADAPTER], layer.lora_B[peft_names.ADAPTER])
        # AdaLoRA stores parameters here, the other methods store linear layers.
        weights: list[Tensor] = [getattr(side, "weight", side) for side in sides]
        A, B = (weight.detach().float().cpu().clone() for weight in weights)
        copies[name] = (A, B, float(layer.scaling[peft_names.ADAPTER]))
    return copies


def svd_factors(model: Any) -> Factors:
    """Return AdaLoRA's factors, with the singular values multiplied into A."""
    layers, result = peft_names.lora_layers(model), factors(model)
    for name, (A, B, scaling) in result.items():
        values = layers[name].lora_E[peft_names.ADAPTER].detach().float().cpu()
        rank = float(layers[name].ranknum[peft_names.ADAPTER]) + 1e-5
        result[name] = (A * values, B, scaling / rank)
    return result


def subtract_initial(trained: Factors, initial: Factors) -> Factors:
    """Return factors of `B @ A - B₀ @ A₀`, of twice the rank.

    Args:
        trained: A and B after training.
        initial: A₀ and B₀, with the same scaling.
    """
    return {
        name: (torch.cat([A, initial[name][0]]), torch.cat([B, -initial[name][1]], dim=1), scaling)
        for name, (A, B, scaling) in trained.items()
    }


def adapter(parts: Factors, provenance: Provenance, dtype: torch.dtype) -> Adapter:
    """Return the low-rank adapter with these factors.

    Args:
        parts: A, B and scaling by module.
        dtype: the dtype that A and B are saved in.
        provenance: gives base, `info` and layout.
    """
    modules = {
        name: LayerSpec(A.shape[1], B.shape[0], len(A), scaling * len(A))
        for name, (A, B, scaling) in parts.items()
    }
    return Adapter(
        base=provenance.base,
        modules=modules,
        blocks=(),
        mask=None,
        values={name: B.to(dtype).contiguous().reshape(-1) for name, (_, B, _) in parts.items()},
        stored={name: A.to(dtype).contiguous() for name, (A, _, _) in parts.items()},
        dtype=dtype,
        info=provenance.info,
        fan_in_fan_out=provenance.fan_in_fan_out,
        matched_by=provenance.matched_by,
    )


def tuned(model: Any, provenance: Provenance) -> FinetunedModel:
    """Return the tensors and the configuration that PEFT saves of a trained model."""
    from peft import get_peft_model_state_dict

    with warnings.catch_warnings():
        # VeRA's projections are drawn again from their seed, so a file need not hold them.
        warnings.filterwarnings("ignore", message="Specified to not save vera_A")
        saved = get_peft_model_state_dict(model, save_embedding_layers=False)
    config = peft_names.config_dict(model.peft_config[peft_names.ADAPTER])
    config |= {"base_model_name_or_path": provenance.base.name, "inference_mode": True}
    tensors = {name: t.detach().cpu().contiguous() for name, t in sorted(saved.items())}
    return FinetunedModel(provenance.base, tensors, config, provenance.info)
