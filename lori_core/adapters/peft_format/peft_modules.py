"""Read the modules of a PEFT LoRA folder: their tensors, shapes, ranks and alphas."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lori_core.adapters.adapter import LayerSpec
from lori_core.adapters.peft_format.peft_config import MERGE_FIRST
from lori_core.core.errors import AdapterError, shown
from lori_core.core.files.tensor_file import TensorFile
from lori_core.core.name_patterns import PatternError
from lori_core.models import peft_names


class Keys(NamedTuple):
    """The names of a module's lora_A and lora_B weights in the file."""

    A: str
    B: str


#: Parts of tensors' names that no linear layer's LoRA has, and what they are.
_OTHERS = {
    ".lora_embedding_": "the LoRA of an embedding, which is a table and no linear layer",
    ".lora_magnitude_vector": "a DoRA magnitude",
    ".base_layer.lora_": "the LoRA of a parameter that stacks experts' matrices",
    ".token_adapter.": "trained rows of an embedding",
    ".lora_bias": "a bias",
}


def copies_in(file: TensorFile) -> dict[str, str]:
    """Return the names of a file's copies of base weights by module (see `base_copies`)."""
    modules = {key: peft_names.parse_copy(key) for key in file}
    return {module: key for key, module in modules.items() if module is not None}


def keys_in(file: TensorFile) -> dict[str, Keys]:
    """Return the names of each module's two tensors in a file.

    Raises:
        AdapterError: a tensor is neither lora_A, lora_B nor a copy of an adapted layer's weight, or
            a module lacks one of lora_A and lora_B.
    """
    keys: dict[str, dict[str, str]] = {}
    copies = copies_in(file)
    for key in file:
        parsed = peft_names.parse_key(key)
        if parsed is not None and ".base_layer." not in key:
            keys.setdefault(parsed[0], {})[parsed[1]] = key
        elif key not in copies.values():
            raise AdapterError(f"{file.path}: holds {key}, {_what(key)}; {MERGE_FIRST}")
    alone = sorted(copies.keys() - keys.keys())
    if alone:
        raise AdapterError(f"{file.path}: holds {copies[alone[0]]}, a whole weight; {MERGE_FIRST}")
    for name, pair in keys.items():
        if len(pair) < 2:
            raise AdapterError(f"{file.path}: {name} has only one of lora_A and lora_B")
    if not keys:
        raise AdapterError(f"{file.path}: holds no tensors")
    return {name: Keys(**pair) for name, pair in keys.items()}


def _what(key: str) -> str:
    known = next((what for part, what in _OTHERS.items() if part in key), None)
    return known or (
        "which is no lora_A or lora_B of a linear layer (a saved embedding, a whole weight?)"
    )


def modules_of(
    folder: Path, config: Mapping[str, Any], file: TensorFile, keys: Mapping[str, Keys]
) -> dict[str, LayerSpec]:
    """Return the modules of a file with their ranks and alphas from the configuration.

    Raises:
        AdapterError: a pattern is invalid, the configuration does not name a module, or a tensor's
            shape does not fit the rank.
    """
    names, path = list(keys), folder / peft_names.CONFIG_FILE
    ranks = _pattern_values(path, config, "rank_pattern", names, config["r"])
    alphas = _pattern_values(path, config, "alpha_pattern", names, config["lora_alpha"])
    _matching(path, config, "layers_pattern", names)
    unnamed = set(names) - _matching(path, config, "target_modules", names)
    excluded = _matching(path, config, "exclude_modules", names)
    for option, modules, verb in (
        ("target_modules", unnamed, "does not name"),
        ("exclude_modules", excluded, "leaves out"),
    ):
        if modules:
            raise AdapterError(
                f"{path}: {option} is {shown(config[option])}, which {verb} {min(modules)} of "
                f"{file.path.name}; take both files from where the adapter came"
            )
    return {name: _module(file, name, keys[name], ranks[name], alphas[name]) for name in names}


def _pattern_values(
    path: Path, config: Mapping[str, Any], option: str, names: list[str], default: Any
) -> dict[str, Any]:
    try:
        return peft_names.pattern_values(config.get(option) or {}, names, default)
    except PatternError as error:
        raise AdapterError(f"{path}: {option}: {error}") from None


def _matching(path: Path, config: Mapping[str, Any], option: str, names: list[str]) -> set[str]:
    try:
        return peft_names.named_by(config.get(option) or [], names)
    except PatternError as error:
        raise AdapterError(f"{path}: {option}: {error}") from None


def _module(file: TensorFile, name: str, keys: Keys, rank: int, alpha: float) -> LayerSpec:
    down, up = _matrix(file, keys.A), _matrix(file, keys.B)
    if not down[0] == up[1] == rank:
        raise AdapterError(
            f"{file.path}: {name}: lora_A is {down}, lora_B is {up}, but the configured rank is "
            f"{rank}"
        )
    return LayerSpec(down[1], up[0], int(rank), float(alpha))


def _matrix(file: TensorFile, key: str) -> tuple[int, ...]:
    """Return the shape of a tensor, which must be a floating-point matrix."""
    spec = file.spec(key)
    if spec is None or not spec.dtype.is_floating_point or len(spec.shape) != 2:
        entry = file.entries[key]
        raise AdapterError(
            f"{file.path}: {shown(key)} is {shown(entry.dtype)} {shown(list(entry.shape))}; lora_A "
            "and lora_B must be matrices of F64, F32, F16 or BF16: save the adapter so"
        )
    return spec.shape
