"""`config.json` and other small files of a base model, before anything is made of them.

transformers builds whatever a configuration asks for, however large. So what it says of sizes is
held against the weights that are there, which every model folder has.
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

#: Sizes that a model cannot be without, where its configuration has them: 1 or more.
_NEEDED = re.compile(
    r"(num_hidden_layers|n_layers?|num_layers|hidden_size|n_embd|d_model|vocab_size"
    r"|num_attention_heads|n_heads?|num_key_value_heads|head_dim|intermediate_size)"
)
_LAYERS = re.compile(r"(num_hidden_layers|n_layers?|num_layers)")
_WIDTHS = ("hidden_size", "n_embd", "d_model")
#: Sizes of matrices: each has as many rows as one of these, and as many columns as the model's
#: width.
_ROWS = (
    "vocab_size",
    "head_dim",
    "intermediate_size",
    "n_inner",
    "ffn_dim",
    "n_positions",
    *_WIDTHS,
)
#: No number in a configuration is larger, as a size; the longest texts have some million tokens.
_LARGEST = 1 << 40
#: A byte of weights may hold so many numbers, where they are quantised.
_NUMBERS_PER_BYTE = 8
_DTYPES = (
    *("auto", "bfloat16", "float16", "float32", "float64", "half", "float", "double"),
    *("float8_e4m3fn", "float8_e5m2"),
)
#: Sections that are not settings of a model.
_ELSE = ("quantization_config", "compression_config")
_ROPE = ("rope_scaling", "rope_parameters")
#: Files of a folder that transformers reads as JSON objects.
_OBJECTS = ("generation_config.json", "tokenizer_config.json", "special_tokens_map.json")
#: Files of a tokenizer, which its own library reads: the largest have some 40 MB.
_TOKENIZER = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt")
_TEMPLATE = "chat_template.jinja"
_LARGEST_TOKENIZER = 128 << 20


def check(folder: Path) -> None:
    """Refuse a model's folder whose settings cannot be those of its weights.

    Raises:
        ModelError: naming file, field and value.
        InputError: for a file that cannot be read.
    """
    config = folder / "config.json"
    said = _object(config)
    _check_code(config, said)
    for where, section in _sections("", said):
        _check_types(config, where, section)
    _check_weights(folder, said)
    for name in _OBJECTS:
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
        said = read_json(path)
    except InputError as error:
        raise ModelError(str(error)) from None
    if not isinstance(said, dict):
        raise ModelError(
            f"{path}: holds {shown(said)}; a JSON object is expected: take the file anew from "
            "where the model came"
        )
    return said


def _check_code(path: Path, said: Mapping[str, Any]) -> None:
    """Refuse a model whose classes are code in its folder: that is never run."""
    kind = said.get("model_type")
    if kind is not None and not isinstance(kind, str):
        raise _wrong(path, "model_type", kind, "the name of a kind of model")
    if "auto_map" not in said:
        return
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    if kind not in CONFIG_MAPPING_NAMES:
        raise ModelError(
            f"{path}: auto_map is {shown(said['auto_map'])}: model_type {shown(kind)} is code in "
            "the model's folder, which is never run here; use a model that transformers has itself"
        )


def _check_tokenizer_code(path: Path, said: Mapping[str, Any]) -> None:
    """Refuse a tokenizer whose class is code in the model's folder, of which transformers has none.

    Another class in its place may make other tokens.
    """
    code = said.get("auto_map")
    if not isinstance(code, Mapping) or "AutoTokenizer" not in code:
        return
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    name = said.get("tokenizer_class")
    if not isinstance(name, str) or tokenizer_class_from_name(name) is None:
        raise ModelError(
            f"{path}: auto_map is {shown(code)}: tokenizer_class {shown(name)} is code in the "
            "model's folder, which is never run here; use a model whose tokenizer transformers has"
        )


def _sections(where: str, said: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield a configuration and those inside it (of text, of pictures), each with its place."""
    yield where, said
    for name, value in said.items():
        if name.endswith("_config") and name not in _ELSE and isinstance(value, Mapping):
            yield from _sections(f"{where}{name}.", value)


def _check_types(path: Path, where: str, said: Mapping[str, Any]) -> None:
    for name, value in said.items():
        if value is None:
            continue
        if _NEEDED.fullmatch(name) and not (type(value) is int and 0 < value <= _LARGEST):
            # Some models give each layer its own.
            if isinstance(value, list) and all(type(v) is int and v >= 0 for v in value) and value:
                continue
            raise _wrong(path, where + name, value, "a whole number above 0")
        if type(value) is int and abs(value) > _LARGEST:
            raise _wrong(path, where + name, value, "a number that a model can have")
        if name in ("torch_dtype", "dtype") and value not in _DTYPES:
            raise _wrong(path, where + name, value, f"one of {', '.join(_DTYPES)}")
        if name in _ROPE:
            _check_rope(path, where + name, value)
        if name == "architectures" and not _are_texts(value):
            raise _wrong(path, where + name, value, "a list of names")


def _check_rope(path: Path, where: str, said: Any) -> None:
    """Refuse what cannot be settings of rotary positions."""
    if not isinstance(said, Mapping):
        raise _wrong(path, where, said, "an object")
    for name, value in said.items():
        if isinstance(value, Mapping):  # of one type of layer
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


def _check_weights(folder: Path, said: Mapping[str, Any]) -> None:
    """Hold layers and matrices of the configuration against the weights."""
    files = [base_files.opened(path) for path in base_files.weight_files(folder)]
    tensors = sum(len(file) for file in files)
    numbers = _NUMBERS_PER_BYTE * sum(file.size for file in files)
    path, text = folder / "config.json", said.get("text_config")
    # Parts for pictures or sound may be described though the weights leave them out.
    sections = {"": said, "text_config.": text if isinstance(text, Mapping) else {}}
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
