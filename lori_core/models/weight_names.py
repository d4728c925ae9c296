"""Find the parameter that a stored weight is loaded into, by transformers' loading rules.

A checkpoint's names are not always the model's: parts are renamed, prefixes added or dropped, and
experts' matrices stacked into one parameter. This module applies transformers' own table of these
rules to the tensors of a base model and to the modules of an adapter.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import nn

#: Operations that stack or concatenate whole matrices, each of which is a block of the parameter.
_STACKING = {"MergeModulelist", "Concatenate"}


class Place(NamedTuple):
    """The parameter that a stored tensor is loaded into.

    Attributes:
        parameter: the parameter's name in the model.
        operations: transformers' names of the operations applied to the tensor; empty if it is
            loaded unchanged.
    """

    parameter: str
    operations: tuple[str, ...] = ()

    @property
    def stacked(self) -> bool:
        """Whether the tensor is one whole block of a larger parameter."""
        return bool(self.operations) and set(self.operations) <= _STACKING


class WeightNames:
    """transformers' loading rules for one model.

    Args:
        model: a transformers model without an adapter; may be on the meta device.
    """

    def __init__(self, model: Any) -> None:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming

        rules = get_model_conversion_mapping(model)
        self._renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
        self._converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
        self._operations = {
            pattern: tuple(type(operation).__name__ for operation in rule.operations)
            for rule in self._converters
            for pattern in rule.source_patterns
        }
        self._prefix = model.base_model_prefix
        self._parameters = model.state_dict(keep_vars=True)
        self._text = _text_model(model)

    def place(self, stored: str) -> Place | None:
        """Return the parameter that a stored tensor is loaded into; None if there is none."""
        from transformers.core_model_loading import rename_source_key

        name, pattern = rename_source_key(
            stored, self._renamings, self._converters, self._prefix, self._parameters
        )
        if name not in self._parameters and stored in self._parameters:
            return Place(stored)
        if name not in self._parameters:
            return None
        return Place(name, () if pattern is None else self._operations[pattern])

    def module(self, name: str) -> Place | None:
        """Return the parameter of an adapter's module, by its current or a former name.

        The names of a text-only model are also resolved inside a multimodal model.
        """
        weight = f"{name}.weight"
        place = Place(weight) if weight in self._parameters else self.place(weight)
        if place is None and self._text:
            inside = f"{self._text}.{weight.removeprefix(f'{self._prefix}.')}"
            place = Place(inside) if inside in self._parameters else None
        return place

    def matrices_of(self, parameter: str) -> set[str]:
        """Return the last name parts of the stored matrices that are stacked in a parameter."""
        return {
            pattern.replace("\\", "").split(".")[-2]
            for rule in self._converters
            for pattern in rule.source_patterns
            if pattern.count(".") and any(_ends(parameter, t) for t in rule.target_patterns)
        }


def _ends(parameter: str, pattern: str) -> bool:
    return parameter.endswith(pattern.replace("\\", "").lstrip("."))


def _text_model(model: Any) -> str:
    """Return the name of the decoder inside a multimodal model, else an empty string."""
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    names = [name for name, module in model.named_modules() if module is decoder]
    return names[0] if names else ""


def tied_parameters(model: nn.Module) -> dict[str, list[str]]:
    """Return each name of a parameter with several names -> all its names."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {name: tied for tied in names.values() if len(tied) > 1 for name in tied}


def sources_by_place(names: WeightNames, stored: Iterable[str]) -> dict[Place, list[str]]:
    """Return each parameter's place -> the stored tensors that are loaded into it."""
    sources: dict[Place, list[str]] = {}
    for name in stored:
        place = names.place(name)
        if place is not None:
            sources.setdefault(place, []).append(name)
    return sources
