"""Check `config.json` and other small files of a base model before transformers reads them.

transformers builds a model of any size that a configuration asks for. So the sizes in it are
compared with the size of the weight files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lori_core.core.errors import InputError, ModelError, shown
from lori_core.core.files import input_files
from lori_core.core.files.atomic import read_json
from lori_core.models import base_files

#: Sizes that must be 1 or more if the configuration has them.
_REQUIRED_SIZES = re.compile(
    r"(num_hidden_layers|n_layers?|num_layers|hidden_size|n_embd|d_model|vocab_size"
    r"|num_attention_heads|n_heads?|num_key_value_heads|head_dim|intermediate_size)"
)
_LAYERS = re.compile(r"(num_hidden_layers|n_layers?|num_layers)")
_WIDTHS = ("hidden_size", "n_embd", "d_model")
#: Numbers of rows of matrices whose number of columns is the model's width.
_ROWS = (
    "vocab_size",
    "head_dim",
    "intermediate_size",
    "n_inner",
    "ffn_dim",
    "n_positions",
    *_WIDTHS,
)
#: The largest size accepted in a configuration; the longest contexts have some million tokens.
_MAX_SIZE = 1 << 40
#: The most numbers per byte of weights (quantised to 1 bit).
_NUMBERS_PER_BYTE = 8
_DTYPES = (
    *("auto", "bfloat16", "float16", "float32", "float64", "half", "float", "double"),
    *("float8_e4m3fn", "float8_e5m2"),
)
#: Sections of `config.json` that do not describe a model.
_NOT_MODEL_SECTIONS = ("quantization_config", "compression_config")
_ROPE = ("rope_scaling", "rope_parameters")
#: Other files of the folder that transformers reads as JSON objects.
_JSON_FILES = ("generation_config.json", "tokenizer_config.json", "special_tokens_map.json")
#: A tokenizer's files, which the tokenizers library reads; the largest have some 40 MB.
_TOKENIZER = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt")
_TEMPLATE = "chat_template.jinja"
_LARGEST_TOKENIZER = 128 << 20


def check(folder: Path) -> None:
    """Check that a model folder's settings are valid and fit its weights.

    Raises:
        ModelError: naming file, field and value.
        InputError: a file cannot be read.
    """
    config = folder / "config.json"
    settings = _object(config)
    _check_code(config, settings)
    for where, section in _sections("", settings):
        _check_types(config, where, section)
    _check_weights(folder, settings)
    for name in _JSON_FILES:
        if (folder / name).exists() or (folder / name).is_symlink():
            _check_tokenizer_code(folder / name, _object(folder / name))
    for name in (*_TOKENIZER, _TEMPLATE):
        path = folder / name
        if not path.exists() and not path.is_symlink():
            continue
        with input_files.reading(path, ModelError) as file:
            size = file.seek(0, 2)
        if size > _LARGEST_TOKENIZER:
            raise ModelError(
                f"{path}: has {size:,} bytes, more than a tokenizer's file has "
                f"({_LARGEST_TOKENIZER:,}); take it anew from where the model came"
            )


def _object(path: Path) -> dict[str, Any]:
    try:
        settings = read_json(path)
    except InputError as error:
        raise ModelError(str(error)) from None
    if not isinstance(settings, dict):
        raise ModelError(
            f"{path}: holds {shown(settings)}; a JSON object is expected: take the file anew from "
            "where the model came"
        )
    return settings


def _check_code(path: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a model whose class is code in its folder, which is never run."""
    kind = settings.get("model_type")
    if kind is not None and not isinstance(kind, str):
        raise _wrong(path, "model_type", kind, "the name of a model type")
    if "auto_map" not in settings:
        return
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    if kind not in CONFIG_MAPPING_NAMES:
        raise ModelError(
            f"{path}: auto_map is {shown(settings['auto_map'])}: model_type {shown(kind)} is code "
            "in the model's folder, which is never run here; use a model that transformers has "
            "itself"
        )


def _check_tokenizer_code(path: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a tokenizer whose class is code in the model's folder and not in transformers.

    Another class in its place might give other tokens.
    """
    code = settings.get("auto_map")
    if not isinstance(code, Mapping) or "AutoTokenizer" not in code:
        return
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    name = settings.get("tokenizer_class")
    if not isinstance(name, str) or tokenizer_class_from_name(name) is None:
        raise ModelError(
            f"{path}: auto_map is {shown(code)}: tokenizer_class {shown(name)} is code in the "
            "model's folder, which is never run here; use a model whose tokenizer transformers has"
        )


def _sections(where: str, settings: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield a configuration and its nested model sections, each with the prefix of its keys."""
    yield where, settings
    for name, value in settings.items():
        if (
            name.endswith("_config")
            and name not in _NOT_MODEL_SECTIONS
            and isinstance(value, Mapping)
        ):
            yield from _sections(f"{where}{name}.", value)


def _check_types(path: Path, where: str, settings: Mapping[str, Any]) -> None:
    for name, value in settings.items():
        if value is None:
            continue
        if _REQUIRED_SIZES.fullmatch(name) and not (type(value) is int and 0 < value <= _MAX_SIZE):
            # Some models have a list with a value for each layer.
            if isinstance(value, list) and all(type(v) is int and v >= 0 for v in value) and value:
                continue
            raise _wrong(path, where + name, value, "a whole number above 0")
        if type(value) is int and abs(value) > _MAX_SIZE:
            raise _wrong(path, where + name, value, "a number that a model can have")
        if name in ("torch_dtype", "dtype") and value not in _DTYPES:
            raise _wrong(path, where + name, value, f"one of {', '.join(_DTYPES)}")
        if name in _ROPE:
            _check_rope(path, where + name, value)
        if name == "architectures" and not _are_texts(value):
            raise _wrong(path, where + name, value, "a list of names")


def _check_rope(path: Path, where: str, settings: Any) -> None:
    """Check the settings of rotary position embeddings."""
    if not isinstance(settings, Mapping):
        raise _wrong(path, where, settings, "an object")
    for name, value in settings.items():
        if isinstance(value, Mapping):  # settings of one layer type
            _check_rope(path, f"{where}.{name}", value)
        elif name in ("type", "rope_type"):
            if not isinstance(value, str):
                raise _wrong(path, f"{where}.{name}", value, "a name")
        elif name.endswith("factor") or name in ("rope_theta", "original_max_position_embeddings"):
            fits = value is None or (type(value) in (int, float) and value > 0)
            if not fits and not isinstance(value, list):
                raise _wrong(path, f"{where}.{name}", value, "a number above 0")


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _check_weights(folder: Path, settings: Mapping[str, Any]) -> None:
    """Compare the configuration's layers and matrix sizes with the weight files."""
    files = [base_files.header(path) for path in base_files.weight_files(folder)]
    tensors = sum(len(file.entries) for file in files)
    numbers = _NUMBERS_PER_BYTE * sum(file.size for file in files)
    path, text = folder / "config.json", settings.get("text_config")
    # Vision and audio sections are not checked: the weights may lack these parts.
    sections = {"": settings, "text_config.": text if isinstance(text, Mapping) else {}}
    for where, section in sections.items():
        width = max([v for n in _WIDTHS if type(v := section.get(n)) is int], default=1)
        for name, value in section.items():
            if type(value) is not int:
                continue
            if _LAYERS.fullmatch(name) and value > max(tensors, 1):
                raise ModelError(
                    f"{path}: {where}{name} is {value}, but the weights hold {tensors} tensors, "
                    "less than one for each layer; take both from where the model came"
                )
            if name in _ROWS and value * width > numbers:
                raise ModelError(
                    f"{path}: {where}{name} is {value}, but a matrix of {value} x {width} is more "
                    f"than the weights hold ({math.ceil(numbers / _NUMBERS_PER_BYTE):,} bytes); "
                    "take both from where the model came"
                )


def _wrong(path: Path, name: str, value: Any, allowed: str) -> ModelError:
    return ModelError(
        f"{path}: {name} is {shown(value)}, not {allowed}; take the file anew from where the model "
        "came"
    )
