"""The files of a base model's folder: those of its weights, and the others."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from lori_core.core.errors import AdapterError, ModelError
from lori_core.core.files.atomic import read_json

if TYPE_CHECKING:
    from lori_core.core.files.tensor_file import TensorFile

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
#: A key of `config.json` that names the file to begin with in the place of these two.
_NAMED = "transformers_weights"

#: Weights in other forms, which would be the base's and not the baked ones, and pickles.
_NOT_COPIED = {
    *(".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".ot", ".gguf", ".onnx"),
    *(".onnx_data", ".npz", ".npy", ".pkl", ".pickle", ".joblib"),
}
#: Says what a baked model was made of, and which files were written.
EXPORTED = "lori_export.json"
#: What the files of a cached or a baked model were; the copy's are others.
_RECORDS = ("lori_model.json", EXPORTED)


def weight_files(base: Path) -> list[Path]:
    """Return the files that transformers would load: the one, or those in the index.

    Links count as the files they lead to, as in the hub's cache.

    Raises:
        ModelError: for a folder without weights, with an index that is damaged, or without a file
            that it names.
    """
    first = _first_file(base)
    if first.suffix != ".json":
        return [first]
    index = read_json(first)
    try:
        names = sorted({str(name) for name in index["weight_map"].values()})
    except (KeyError, TypeError, AttributeError):
        raise ModelError(f"{first}: damaged: it has no weight_map") from None
    for name in names:
        if Path(name).name != name:
            raise ModelError(f"{first}: {name!r} is not the name of a file beside it")
        if not (base / name).is_file():
            raise ModelError(f"{base / name}: cannot be read (no such file; {first.name} names it)")
    if not names or not isinstance(index.get("metadata"), dict):
        missing = "metadata" if names else "files"
        raise ModelError(f"{first}: damaged: it has no {missing}, so transformers cannot load it")
    return [base / name for name in names]


def _first_file(base: Path) -> Path:
    """Return the weights or the index that transformers would open first."""
    config = base / "config.json"
    settings = read_json(config) if config.is_file() else None
    named = settings.get(_NAMED) if isinstance(settings, dict) else None
    if named is not None:
        if not isinstance(named, str) or Path(named).name != named:
            raise ModelError(f"{config}: {_NAMED}: {named!r} is not the name of a file beside it")
        if not named.endswith((".safetensors", ".safetensors.index.json")):
            raise ModelError(f"{config}: {_NAMED}: {named!r}; only safetensors are read")
        if not (base / named).is_file():
            raise ModelError(f"{base / named}: no such file ({_NAMED} in config.json names it)")
        return base / named
    for name in (_WEIGHTS, _INDEX):
        if (base / name).is_file():
            return base / name
    raise ModelError(f"{base}: no weights here (neither {_WEIGHTS} nor {_INDEX})")


def opened(path: Path) -> TensorFile:
    """Open a weight file; a damaged one is a `ModelError`."""
    from lori_core.core.files.tensor_file import TensorFile

    try:
        return TensorFile(path)
    except AdapterError as error:
        raise ModelError(str(error)) from None


def other_files(base: Path) -> list[Path]:
    """Return the files that are not weights; a link to a file counts as the file."""
    found = []
    for folder, folders, names in os.walk(base):
        folders[:] = sorted(name for name in folders if name[0] != "." and name != "__pycache__")
        paths = (Path(folder, name) for name in sorted(names) if name[0] != ".")
        found += [path for path in paths if _is_copied(base, path)]
    return found


def _is_copied(base: Path, path: Path) -> bool:
    if path.suffix in _NOT_COPIED or path.name in _RECORDS:
        return False
    if path.name.endswith(".index.json"):  # of weights: only the one that is used
        return path == _first_file(base)
    if path.is_symlink() and not path.exists():
        raise ModelError(f"{path}: a link to a file that is missing")
    return path.is_file()
