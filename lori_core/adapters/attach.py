"""Apply an adapter to a base model, for inference or training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lori_core.adapters.adapter import Adapter, LayerSpec, last_name
from lori_core.adapters.sparse_parametrization import make_sparse, trainable_values
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
        modules: the linear layers to adapt, by name.
        A: returns a module's A, [rank, d_in], float32.
        use_rslora: whether the scaling is lora_alpha / √rank.
        dropout: dropout probability on the adapter's input during training.

    Raises:
        AdapterError: the model lacks a module or has it in another size, PEFT cannot adapt it, or
            a value of A overflows the model's dtype.
    """
    _check_modules(model, modules)
    config = peft_names.lora_config(modules, list(modules), dropout, use_rslora)
    wrapped = peft_names.injected(model, config, modules, autocast_adapter_dtype=False)
    dtype = _compute_dtype(wrapped)
    for name, layer in peft_names.lora_layers(wrapped).items():
        down, up = layer.lora_A[peft_names.ADAPTER], layer.lora_B[peft_names.ADAPTER]
        values = _cast(A(name), down.weight, dtype, f"A of {name}")
        down.weight = nn.Parameter(values, requires_grad=False)
        up.weight = nn.Parameter(torch.zeros_like(up.weight, dtype=dtype), requires_grad=False)
    return wrapped


def _check_modules(model: Any, modules: Mapping[str, LayerSpec]) -> None:
    present = peft_names.linear_features(model)
    for name, size in modules.items():
        if present.get(name) != (size.d_in, size.d_out):
            raise AdapterError(
                f"module {name}: the adapter's is {size.d_in} to {size.d_out}, the model has "
                f"{present.get(name, 'none of that name')}; the adapter belongs to another base"
            )
    taken = taken_for_experts(model, {last_name(name) for name in modules})
    if taken:
        raise AdapterError(
            f"{', '.join(taken)}: PEFT takes modules of this name in the model "
            f"({model.config.model_type}) for its experts; merge the adapter into the base (lori "
            "export --to merged) and use the result"
        )


def _compute_dtype(model: Any) -> torch.dtype:
    dtype = model.get_base_model().dtype
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def apply_adapter(model: nn.Module, adapter: Adapter) -> Any:
    """Wrap a base model in a PEFT model with an adapter applied; `.unload()` removes it.

    Raises:
        AdapterError: as `attach`, or a value of B overflows the model's dtype.
    """
    own = check(model, adapter)
    modules = {name: adapter.modules[its] for name, its in own.items()}
    wrapped = attach(model, modules, lambda n: adapter.A(own[n]), use_rslora=adapter.use_rslora)
    for name, layer in peft_names.lora_layers(wrapped).items():
        up = layer.lora_B[peft_names.ADAPTER]
        values = adapter.B(own[name])
        up.weight.data = _cast(values, up.weight, up.weight.dtype, f"B of {name}")
    return wrapped


def check(model: Any, adapter: Adapter, where: str = "") -> dict[str, str]:
    """Check that an adapter can be applied to a base model, without changing the model.

    Args:
        model: the base model; may be on the meta device.
        adapter: the adapter to check.
        where: the adapter's name in error messages.

    Returns:
        Each module's name in the model -> its name in the adapter.

    Raises:
        AdapterError: the model lacks a module, has it in another size, or stores it as part of a
            larger parameter.
    """
    try:
        own = _model_names(model, adapter.modules)
        _check_modules(model, {name: adapter.modules[its] for name, its in own.items()})
    except AdapterError as error:
        raise AdapterError(f"{where}: {error}" if where else str(error)) from None
    return own


def _model_names(model: Any, modules: Mapping[str, LayerSpec]) -> dict[str, str]:
    """Return each module's name in the model -> its name in the adapter.

    The names differ if another release of transformers named the modules, or if the adapter was
    trained on another model class, such as the language model of a vision-language model.
    """
    present = peft_names.linear_features(model)
    if all(name in present for name in modules):
        return {name: name for name in modules}
    names, own_names = WeightNames(model), dict[str, str]()
    for name in modules:
        place = names.module(name)
        if place is not None and place.operations:
            raise AdapterError(
                f"module {name}: the model stores it in {place.parameter} together with others, "
                "where no adapter can be applied; merge the adapter into the base (lori export "
                "--to merged) and use the result"
            )
        own = name if place is None else place.parameter.removesuffix(".weight")
        if own in own_names:
            raise AdapterError(f"modules {own_names[own]} and {name} are both {own} in the model")
        own_names[own] = name
    return own_names


def _cast(values: Tensor, like: Tensor, dtype: torch.dtype, what: str) -> Tensor:
    """Return values in a dtype on another tensor's device; refuse an overflow."""
    values = values.to(like.device, dtype)
    problem = finite.fault(values)
    if problem is not None:
        raise AdapterError(
            f"{what} would hold {problem} in {str(dtype).removeprefix('torch.')}, the model's "
            "precision; use model.dtype float32"
        )
    return values


def make_trainable(
    model: Any, positions: Mapping[str, Tensor] | None, start: Mapping[str, Tensor] | None
) -> None:
    """Make B trainable at `positions` (None: everywhere), initialised to `start` (None: zeros).

    Args:
        model: a PEFT model from `attach`.
        positions: flat indices of the trained entries by module, int64, [k].
        start: initial B by module, [d_out, rank], float32.
    """
    for name, layer in peft_names.lora_layers(model).items():
        up = layer.lora_B[peft_names.ADAPTER]
        dense = torch.zeros_like(up.weight, dtype=torch.float32) if start is None else start[name]
        make_sparse(
            up, dense, None if positions is None else positions[name], _compute_dtype(model)
        )


def trained_values(model: Any) -> dict[str, nn.Parameter]:
    """Return the trainable entries of B by module, float32, [k]."""
    return {
        name: trainable_values(layer.lora_B[peft_names.ADAPTER])
        for name, layer in peft_names.lora_layers(model).items()
    }


def trained_B(  # noqa: N802 - the paper's letter
    model: Any, positions: Mapping[str, Tensor] | None, start: Mapping[str, Tensor] | None
) -> dict[str, Tensor]:
    """Return the trained B by module, dense, [d_out, rank], float32.

    Entries outside `positions` are those of `start`; the arguments are those of `make_trainable`.
    """
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
