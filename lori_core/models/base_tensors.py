"""Find the tensors in a base model's weight files that hold an adapter's modules."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lori_core.core.errors import AdapterError, ModelError
from lori_core.core.files.atomic import read_json
from lori_core.core.files.tensor_file import DTYPES, TensorFile
from lori_core.models import base_model
from lori_core.models.linear_layers import is_linear, is_transposed
from lori_core.models.weight_names import Place, WeightNames, sources_by_place, tied_parameters

_MERGEABLE = ("F32", "F16", "BF16")


class Target(NamedTuple):
    """The linear layer that a stored weight belongs to.

    Attributes:
        module: the layer's name in the adapter.
        transposed: whether the weight is stored as [d_in, d_out], as in GPT-2's `Conv1D`.
    """

    module: str
    transposed: bool


def targets(
    base: Path, files: Sequence[TensorFile], modules: Mapping[str, tuple[int, int]]
) -> dict[str, Target]:
    """Return the tensor of each adapted module, checked, by the tensor's name.

    Names and orientation follow transformers' loading rules.

    Args:
        base: the base model's folder.
        files: its weight files.
        modules: (d_in, d_out) by module, named as in the adapter.

    Raises:
        AdapterError: the base lacks a module, has it in another shape, or stores it only as part
            of another tensor.
        ModelError: the weights are incomplete, damaged or quantised, or transformers does not
            support the model.
    """
    places = {name: file for file in files for name in file}
    checkpoint = _checkpoint(base, places, modules)
    result: dict[str, Target] = {}
    for module, (d_in, d_out) in modules.items():
        name, transposed = checkpoint.tensor_of(module)
        if name in result:
            raise AdapterError(
                f"{base}: modules {result[name].module} and {module} share the weight {name}"
            )
        shape = (d_in, d_out) if transposed else (d_out, d_in)
        _check_entry(places[name], name, shape)
        result[name] = Target(module, transposed)
    missing = checkpoint.missing()
    if missing:
        raise ModelError(
            f"{base}: its weights lack {missing[0]} ({len(missing)} tensors in all), which "
            "transformers would draw at random; get the whole model"
        )
    checkpoint.check_shapes(places)
    return result


def stored_weight(
    base: Path, files: Sequence[TensorFile], module: str
) -> tuple[TensorFile, str] | None:
    """Return the file and name of a module's weight, tied or not; None if it has no own tensor.

    Raises:
        ModelError: transformers does not support the model.
    """
    places = {name: file for file in files for name in file}
    checkpoint = _checkpoint(base, places, {module: (0, 0)})
    place = checkpoint.names.module(module)
    if place is None:
        return None
    tied = {place.parameter, *checkpoint.shared.get(place.parameter, ())}
    for source, names in checkpoint.sources.items():
        if source.parameter in tied and not source.operations:
            return places[names[0]], names[0]
    return None


def _checkpoint(
    base: Path, stored: Collection[str], modules: Mapping[str, tuple[int, int]]
) -> _Checkpoint:
    """Return the base as the model class with the adapter's modules, preferably none missing."""
    candidates = [_Checkpoint(base, model, stored) for model in _outlines(base)]
    fitting = [candidate for candidate in candidates if all(map(candidate.has, modules))]
    complete = (candidate for candidate in fitting if not candidate.missing())
    return next(complete, (fitting or candidates)[0])


def _outlines(base: Path) -> list[Any]:
    """Return the models that a base's weights can be loaded into, on the meta device.

    The first is the causal language model, which this project trains and evaluates. The second is
    the class in `architectures` of `config.json`, if it differs, as for vision-language models.
    """
    saved, models = _saved_class(base), []
    try:
        models.append(base_model.outline(base))
    except ModelError:
        if saved is None:
            raise
    if saved is not None and saved not in map(type, models):
        try:
            with torch.device("meta"):
                models.append(saved._from_config(saved.config_class.from_pretrained(base)))
        except Exception as error:  # a wrong setting can raise any exception
            raise ModelError(
                f"{base / 'config.json'}: cannot be read as a {saved.__name__}: {error!r:.200}; "
                "take the file anew from where the model came"
            ) from error
    return models


def _saved_class(base: Path) -> Any:
    """Return the class that a model was saved as; None if transformers has no such class."""
    import transformers

    config = read_json(base / "config.json")
    names = config.get("architectures") if isinstance(config, dict) else None
    saved = getattr(transformers, str(names[0]), None) if names else None
    model_type = getattr(getattr(saved, "config_class", None), "model_type", None)
    return saved if model_type is not None and model_type == config.get("model_type") else None


class _Checkpoint:
    """A base's weight files, and a model class that they can be loaded into."""

    def __init__(self, base: Path, model: Any, stored: Collection[str]) -> None:
        self.base = base
        self.model = model
        self.stored = stored
        self.names = WeightNames(model)
        self.sources = sources_by_place(self.names, stored)
        self.shared = tied_parameters(model)

    def has(self, module: str) -> bool:
        """Return whether the model has a parameter for a module's weight."""
        return self.names.module(module) is not None

    def missing(self) -> list[str]:
        """Return the parameters that the files lack, by transformers' rules, sorted.

        One of several tied parameters is enough, and computed buffers need not be stored.
        """
        loaded = {place.parameter for place in self.sources}
        loaded |= {tied for name in loaded for tied in self.shared.get(name, ())}
        ignored = [re.compile(rule) for rule in self.model._keys_to_ignore_on_load_missing or ()]
        return sorted(
            name
            for name in self.model.state_dict()
            if name not in loaded and not any(rule.search(name) for rule in ignored)
        )

    def check_shapes(self, places: Mapping[str, TensorFile]) -> None:
        """Check the tensors' shapes against the configuration.

        Raises:
            ModelError: naming the first tensor of another shape.
        """
        expected = self.model.state_dict()
        for place, names in self.sources.items():
            for name in names if not place.operations else ():
                entry, shape = places[name].entries[name], tuple(expected[place.parameter].shape)
                if entry.dtype in _MERGEABLE and entry.shape != shape:
                    raise ModelError(
                        f"{places[name].path}: {name} is {list(entry.shape)}, but config.json asks "
                        f"for {list(shape)}; take both from where the model came"
                    )

    def tensor_of(self, module: str) -> tuple[str, bool]:
        """Return the name of a module's weight in the files, and whether it is transposed.

        Raises:
            AdapterError: the base lacks the module, or an adapter cannot be merged into it.
        """
        place = self.names.module(module)
        if place is None:
            raise AdapterError(
                f"{self.base}: no tensor {module}.weight in the weight files, or none that a "
                f"{type(self.model).__name__} reads: the adapter is for another model"
            )
        if place.operations:
            return self._stacked_tensor(module, place), False
        owner = self.model.get_submodule(place.parameter.removesuffix(".weight"))
        if not is_linear(owner):
            raise AdapterError(
                f"{self.base}: {module} is no linear layer in the base ({type(owner).__name__})"
            )
        others = [name for name in self.shared.get(place.parameter, ()) if name != place.parameter]
        if others:
            raise AdapterError(
                f"{self.base / 'config.json'}: tie_word_embeddings: {module} shares its weight "
                f"with {others[0]}, which merging would change too; use the adapter without "
                "merging it"
            )
        return self._source(module, place), is_transposed(owner)

    def _source(self, module: str, place: Place) -> str:
        sources = self.sources.get(place, [])
        if len(sources) > 1:
            raise AdapterError(f"{self.base}: {module}.weight may be any of {', '.join(sources)}")
        if sources:
            return sources[0]
        for other, names in self.sources.items():
            if other.parameter == place.parameter:
                raise AdapterError(
                    f"{self.base}: {module}: transformers computes its weight from {names[0]} "
                    f"({', '.join(other.operations)}); an update cannot be added there: use the "
                    "adapter without merging it"
                )
        raise AdapterError(f"{self.base}: no tensor {module}.weight in the weight files")

    def _stacked_tensor(self, module: str, place: Place) -> str:
        """Return the stored tensor of a matrix that transformers stacks with others at loading."""
        name = f"{module}.weight"
        if place.stacked and name in self.stored:
            return name
        raise AdapterError(
            f"{self.base}: {module} is a part of {place.parameter} here "
            f"({', '.join(place.operations)}), and no tensor of its own; it cannot be merged"
        )


def _check_entry(file: TensorFile, name: str, shape: tuple[int, int]) -> None:
    entry = file.entries[name]
    if entry.dtype not in _MERGEABLE:
        raise ModelError(
            f"{file.path}: {name}: stored as {entry.dtype}; a weight must be one of "
            f"{', '.join(_MERGEABLE)}: use the model that is not quantised"
        )
    if entry.shape != shape:
        raise AdapterError(
            f"{file.path}: {name}: {list(entry.shape)} in the base, {list(shape)} in the adapter"
        )
    if entry.stop - entry.start != shape[0] * shape[1] * DTYPES[entry.dtype].itemsize:
        raise ModelError(f"{file.path}: damaged: {name} has another size than its shape")
