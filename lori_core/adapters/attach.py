"""Putting an adapter onto a base model, to use it or to train it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lori_core.adapters.adapter import Adapter, LayerSpec, last_name
from lori_core.adapters.sparse_parametrization import make_sparse, packed_values
from lori_core.core.errors import AdapterError
from lori_core.core.files import finite
from lori_core.models import peft_names
from lori_core.models.fused_experts import taken_for_experts
from lori_core.models.weight_names import WeightNames


def attach(
    model: nn.Module,
    modules: Mapping[str, LayerSpec],
    A: Callable[[str], Tensor],
    *,
    use_rslora: bool = False,
    dropout: float = 0.0,
) -> Any:
    """Wrap a base model in a PEFT model with frozen A and B = 0, in the base's dtype.

    Args:
        model: the base model; PEFT replaces its target modules in place.
        modules: what to adapt.
        A: gives [rank, d_in], float32, of a module.
        use_rslora: whether the scaling is lora_alpha / √rank.
        dropout: on the adapter's input, while training.

    Raises:
        AdapterError: if the model lacks a module, or has it in another size, if PEFT cannot adapt
            it, or if a value of A is too large for the model's precision.
    """
    _check_there(model, modules)
    config = peft_names.lora_config(modules, list(modules), dropout, use_rslora)
    wrapped = peft_names.injected(model, config, modules, autocast_adapter_dtype=False)
    dtype = _compute_dtype(wrapped)
    for name, layer in peft_names.lora_layers(wrapped).items():
        down, up = layer.lora_A[peft_names.ADAPTER], layer.lora_B[peft_names.ADAPTER]
        values = _rounded(A(name), down.weight, dtype, f"A of {name}")
        down.weight = nn.Parameter(values, requires_grad=False)
        up.weight = nn.Parameter(torch.zeros_like(up.weight, dtype=dtype), requires_grad=False)
    return wrapped


def _check_there(model: Any, modules: Mapping[str, LayerSpec]) -> None:
    there = peft_names.linear_features(model)
    for name, size in modules.items():
        if there.get(name) != (size.d_in, size.d_out):
            raise AdapterError(
                f"module {name}: the adapter's is {size.d_in} to {size.d_out}, the model has "
                f"{there.get(name, 'none of that name')}; it was made for another base"
            )
    taken = taken_for_experts(model, {last_name(name) for name in modules})
    if taken:
        raise AdapterError(
            f"{', '.join(taken)}: PEFT takes modules of this name in the model "
            f"({model.config.model_type}) for its experts; bake the adapter (lori export --to "
            "merged) and use the result"
        )


def _compute_dtype(model: Any) -> torch.dtype:
    dtype = model.get_base_model().dtype
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def apply_adapter(model: nn.Module, adapter: Adapter) -> Any:
    """Wrap a base model in a PEFT model that wears an adapter; `.unload()` takes it off again.

    Raises:
        AdapterError: as `attach`, or if a value is too large for the model's precision.
    """
    own = check(model, adapter)
    modules = {name: adapter.modules[its] for name, its in own.items()}
    wrapped = attach(model, modules, lambda n: adapter.A(own[n]), use_rslora=adapter.use_rslora)
    for name, layer in peft_names.lora_layers(wrapped).items():
        up = layer.lora_B[peft_names.ADAPTER]
        values = adapter.B(own[name])
        up.weight.data = _rounded(values, up.weight, up.weight.dtype, f"B of {name}")
    return wrapped


def check(model: Any, adapter: Adapter, where: str = "") -> dict[str, str]:
    """See that a base model can wear an adapter, and change nothing.

    Args:
        model: the base model; its shapes are enough.
        adapter: what it would wear.
        where: what the adapter is called in the error.

    Returns:
        The adapter's names of its modules, by the model's own.

    Raises:
        AdapterError: if the model lacks a module, or has it in another size, or not by itself.
    """
    try:
        own = _own_names(model, adapter.modules)
        _check_there(model, {name: adapter.modules[its] for name, its in own.items()})
    except AdapterError as error:
        raise AdapterError(f"{where}: {error}" if where else str(error)) from None
    return own


def _own_names(model: Any, modules: Mapping[str, LayerSpec]) -> dict[str, str]:
    """Return an adapter's names of modules by the model's own.

    They differ where another release of transformers named the modules, or another class of model
    was adapted, as the language model of a model of pictures and text.
    """
    there = peft_names.linear_features(model)
    if all(name in there for name in modules):
        return {name: name for name in modules}
    names, found = WeightNames(model), dict[str, str]()
    for name in modules:
        place = names.module(name)
        if place is not None and place.operations:
            raise AdapterError(
                f"module {name}: the model keeps it in {place.parameter} together with others, "
                "where it cannot be put on; bake the adapter (lori export --to merged) and use "
                "the result"
            )
        own = name if place is None else place.parameter.removesuffix(".weight")
        if own in found:
            raise AdapterError(f"modules {found[own]} and {name} are both {own} in the model")
        found[own] = name
    return found


def _rounded(values: Tensor, like: Tensor, dtype: torch.dtype, what: str) -> Tensor:
    """Return values in a dtype, where another tensor is; refuse those too large for it."""
    values = values.to(like.device, dtype)
    found = finite.fault(values)
    if found is not None:
        raise AdapterError(
            f"{what} would hold {found} in {str(dtype).removeprefix('torch.')}, the model's "
            "precision; use model.dtype float32"
        )
    return values


def make_trainable(
    model: Any, positions: Mapping[str, Tensor] | None, start: Mapping[str, Tensor] | None
) -> None:
    """Make B trainable: packed at `positions` (None: all of it), beginning at `start` (None: 0)."""
    for name, layer in peft_names.lora_layers(model).items():
        up = layer.lora_B[peft_names.ADAPTER]
        dense = torch.zeros_like(up.weight, dtype=torch.float32) if start is None else start[name]
        make_sparse(
            up, dense, None if positions is None else positions[name], _compute_dtype(model)
        )


def trained_values(model: Any) -> dict[str, nn.Parameter]:
    """Return the packed trainable vectors by module, float32."""
    return {
        name: packed_values(layer.lora_B[peft_names.ADAPTER])
        for name, layer in peft_names.lora_layers(model).items()
    }


def trained_B(  # noqa: N802 - the paper's letter
    model: Any, positions: Mapping[str, Tensor] | None, start: Mapping[str, Tensor] | None
) -> dict[str, Tensor]:
    """Return B after training, dense float32: `start` with the trained values put in."""
    result = {}
    layers = peft_names.lora_layers(model)
    for name, values in trained_values(model).items():
        shape = layers[name].lora_B[peft_names.ADAPTER].weight.shape
        dense = torch.zeros(shape) if start is None else start[name].clone()
        if positions is None:
            dense = values.detach().cpu().view(shape).clone()
        else:
            dense.view(-1)[positions[name]] = values.detach().cpu()
        result[name] = dense
    return result
