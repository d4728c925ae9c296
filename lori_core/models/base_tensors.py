"""Which tensor of a base model's weight files is which module's."""

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
from lori_core.models.weight_names import Place, WeightNames, sharing, stored_as

_BAKEABLE = ("F32", "F16", "BF16")


class Target(NamedTuple):
    """What a stored weight belongs to.

    Attributes:
        module: the adapter's name of the linear map.
        transposed: whether the weight is kept as [d_in, d_out], as GPT-2's `Conv1D` does.
    """

    module: str
    transposed: bool


def targets(
    base: Path, files: Sequence[TensorFile], modules: Mapping[str, tuple[int, int]]
) -> dict[str, Target]:
    """Return the tensors that are to be changed, one for each module, all of them checked.

    Which tensor is a module's, and which way round, is what transformers makes of it at loading.

    Raises:
        AdapterError: for a module that the base lacks, or that has another shape there, or that is
            not a tensor of its own.
        ModelError: for weights that are incomplete, damaged or quantised, or a model that is not
            known.
    """
    places = {name: file for file in files for name in file}
    checkpoint = _checkpoint(base, places, modules)
    found: dict[str, Target] = {}
    for module, (d_in, d_out) in modules.items():
        name, transposed = checkpoint.tensor_of(module)
        if name in found:
            raise AdapterError(
                f"{base}: modules {found[name].module} and {module} share the weight {name}"
            )
        shape = (d_in, d_out) if transposed else (d_out, d_in)
        _check_entry(places[name], name, shape)
        found[name] = Target(module, transposed)
    missing = checkpoint.missing()
    if missing:
        raise ModelError(
            f"{base}: its weights lack {missing[0]} ({len(missing)} tensors in all), which "
            "transformers would draw at random; get the whole model"
        )
    checkpoint.check_shapes(places)
    return found


def _checkpoint(
    base: Path, stored: Collection[str], modules: Mapping[str, tuple[int, int]]
) -> _Checkpoint:
    """Return the base as the class of model that has the adapter's modules, a whole one if any."""
    known = [_Checkpoint(base, model, stored) for model in _outlines(base)]
    fitting = [one for one in known if all(map(one.has, modules))]
    return next((one for one in fitting if not one.missing()), (fitting or known)[0])


def _outlines(base: Path) -> list[Any]:
    """Return the models that a base's weights can be loaded into, on the meta device.

    First the causal language model, which is what is trained and evaluated here; then, where it is
    another, the class that was saved, as a model of pictures and text is.
    """
    saved, found = _saved_as(base), []
    try:
        found.append(base_model.outline(base))
    except ModelError:
        if saved is None:
            raise
    if saved is not None and saved not in map(type, found):
        try:
            with torch.device("meta"):
                found.append(saved._from_config(saved.config_class.from_pretrained(base)))
        except Exception as error:  # a wrong setting makes it raise whatever comes
            raise ModelError(
                f"{base / 'config.json'}: cannot be read as a {saved.__name__}: {error!r:.200}; "
                "take the file anew from where the model came"
            ) from error
    return found


def _saved_as(base: Path) -> Any:
    """Return the class that a model was saved as; None where transformers has none of that name."""
    import transformers

    said = read_json(base / "config.json")
    names = said.get("architectures") if isinstance(said, dict) else None
    found = getattr(transformers, str(names[0]), None) if names else None
    own = getattr(getattr(found, "config_class", None), "model_type", None)
    return found if own is not None and own == said.get("model_type") else None


class _Checkpoint:
    """A base's weight files, and the model they are loaded into."""

    def __init__(self, base: Path, model: Any, stored: Collection[str]) -> None:
        self.base = base
        self.model = model
        self.stored = stored
        self.names = WeightNames(model)
        self.sources = stored_as(self.names, stored)
        self.shared = sharing(model)

    def has(self, module: str) -> bool:
        """Say whether the model has a place for a module's weight."""
        return self.names.module(module) is not None

    def missing(self) -> list[str]:
        """Return what the model has and the files do not give, as transformers would see it.

        Of tied parameters one is enough, and buffers that are computed need not be stored.
        """
        given = {place.parameter for place in self.sources}
        given |= {name for one in given for name in self.shared.get(one, ())}
        ignored = [re.compile(rule) for rule in self.model._keys_to_ignore_on_load_missing or ()]
        return sorted(
            name
            for name in self.model.state_dict()
            if name not in given and not any(rule.search(name) for rule in ignored)
        )

    def check_shapes(self, places: Mapping[str, TensorFile]) -> None:
        """Refuse tensors of other shapes than the configuration asks for.

        Raises:
            ModelError: naming the first.
        """
        asked = self.model.state_dict()
        for place, names in self.sources.items():
            for name in names if not place.operations else ():
                entry, shape = places[name].entries[name], tuple(asked[place.parameter].shape)
                if entry.dtype in _BAKEABLE and entry.shape != shape:
                    raise ModelError(
                        f"{places[name].path}: {name} is {list(entry.shape)}, but config.json asks "
                        f"for {list(shape)}; take both from where the model came"
                    )

    def tensor_of(self, module: str) -> tuple[str, bool]:
        """Return the name of a module's weight in the files, and whether it is transposed."""
        place = self.names.module(module)
        if place is None:
            raise AdapterError(
                f"{self.base}: no tensor {module}.weight in the weight files, or none that a "
                f"{type(self.model).__name__} reads: the adapter is for another model"
            )
        if place.operations:
            return self._block_of(module, place), False
        owner = self.model.get_submodule(place.parameter.removesuffix(".weight"))
        if not is_linear(owner):
            raise AdapterError(
                f"{self.base}: {module} is no linear map in the base ({type(owner).__name__})"
            )
        others = [name for name in self.shared.get(place.parameter, ()) if name != place.parameter]
        if others:
            raise AdapterError(
                f"{self.base / 'config.json'}: tie_word_embeddings: {module} shares its weight "
                f"with {others[0]}, which baking would change too; use the adapter without "
                "baking it"
            )
        return self._source(module, place), is_transposed(owner)

    def _source(self, module: str, place: Place) -> str:
        found = self.sources.get(place, [])
        if len(found) > 1:
            raise AdapterError(f"{self.base}: {module}.weight may be any of {', '.join(found)}")
        if found:
            return found[0]
        for other, names in self.sources.items():
            if other.parameter == place.parameter:
                raise AdapterError(
                    f"{self.base}: {module}: transformers makes its weight of {names[0]} "
                    f"({', '.join(other.operations)}); an update cannot be added there: use the "
                    "adapter without baking it"
                )
        raise AdapterError(f"{self.base}: no tensor {module}.weight in the weight files")

    def _block_of(self, module: str, place: Place) -> str:
        """Return the tensor of a matrix that transformers puts together with others."""
        name = f"{module}.weight"
        if place.stacked and name in self.stored:
            return name
        raise AdapterError(
            f"{self.base}: {module} is a part of {place.parameter} here "
            f"({', '.join(place.operations)}), and no tensor of its own; it cannot be baked"
        )


def _check_entry(file: TensorFile, name: str, shape: tuple[int, int]) -> None:
    entry = file.entries[name]
    if entry.dtype not in _BAKEABLE:
        raise ModelError(
            f"{file.path}: {name}: stored as {entry.dtype}; a weight must be one of "
            f"{', '.join(_BAKEABLE)}: use the model that is not quantised"
        )
    if entry.shape != shape:
        raise AdapterError(
            f"{file.path}: {name}: {list(entry.shape)} in the base, {list(shape)} in the adapter"
        )
    if entry.stop - entry.start != shape[0] * shape[1] * DTYPES[entry.dtype].itemsize:
        raise ModelError(f"{file.path}: damaged: {name} has another size than its shape")
