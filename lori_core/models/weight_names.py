"""Which parameter in memory a stored weight becomes, by the rules that transformers loads with.

A checkpoint's names are not always the model's: parts are renamed, prefixes added or dropped, and
the matrices of experts put together in one parameter. transformers' own table of these rules is
asked here, for tensors of a base model and for the modules of an adapter alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import nn

#: Operations that put whole matrices side by side: each of them stays a block of the parameter.
_STACKING = {"MergeModulelist", "Concatenate"}


class Place(NamedTuple):
    """Where a stored tensor goes.

    Attributes:
        parameter: the parameter's name in memory.
        operations: what is done to the tensor on its way, by transformers' names; empty where it
            is the parameter as it stands.
    """

    parameter: str
    operations: tuple[str, ...] = ()

    @property
    def stacked(self) -> bool:
        """Whether the tensor is one whole block of a larger parameter."""
        return bool(self.operations) and set(self.operations) <= _STACKING


class WeightNames:
    """The rules for one model.

    Args:
        model: a transformers model, also on the meta device, without an adapter.
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
        """Return where a stored tensor goes; None where the model has no place for it."""
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
        """Return where the weight of an adapter's module is, whatever release named it.

        A name of the text model alone is found inside a model of several parts.
        """
        weight = f"{name}.weight"
        found = Place(weight) if weight in self._parameters else self.place(weight)
        if found is None and self._text:
            inside = f"{self._text}.{weight.removeprefix(f'{self._prefix}.')}"
            found = Place(inside) if inside in self._parameters else None
        return found

    def matrices_of(self, parameter: str) -> set[str]:
        """Return the last names of the stored matrices that are put together in a parameter."""
        return {
            pattern.replace("\\", "").split(".")[-2]
            for rule in self._converters
            for pattern in rule.source_patterns
            if pattern.count(".") and any(_ends(parameter, t) for t in rule.target_patterns)
        }


def _ends(parameter: str, pattern: str) -> bool:
    return parameter.endswith(pattern.replace("\\", "").lstrip("."))


def _text_model(model: Any) -> str:
    """Return the name of the text model inside a model of several parts, else an empty string."""
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    names = [name for name, module in model.named_modules() if module is decoder]
    return names[0] if names else ""


def sharing(model: nn.Module) -> dict[str, list[str]]:
    """Return the names of each parameter that has several, by each of them."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {name: found for found in names.values() if len(found) > 1 for name in found}


def stored_as(names: WeightNames, stored: Iterable[str]) -> dict[Place, list[str]]:
    """Return the stored tensors by the place they go to."""
    found: dict[Place, list[str]] = {}
    for name in stored:
        place = names.place(name)
        if place is not None:
            found.setdefault(place, []).append(name)
    return found
