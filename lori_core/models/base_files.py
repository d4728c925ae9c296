"""Find the weight files and the other files in a base model's folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from lori_core.core.errors import AdapterError, ModelError
from lori_core.core.files.atomic import read_json
from lori_core.core.files.safetensors_file import SafetensorsFile

if TYPE_CHECKING:
    from lori_core.core.files.tensor_file import TensorFile

F = TypeVar("F", bound=SafetensorsFile)

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
#: A key of `config.json` that names another weight file or index than these two.
_WEIGHTS_KEY = "transformers_weights"

#: Suffixes of weights in any format and of pickles: a merged model must not contain the base's.
_NOT_COPIED = {
    *(".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".ot", ".gguf", ".onnx"),
    *(".onnx_data", ".npz", ".npy", ".pkl", ".pickle", ".joblib"),
}
#: Holds a merged model's origin and the list of its files.
EXPORTED = "lori_export.json"
#: Records of a cached or merged model's files, which do not apply to a copy of the model.
_RECORDS = ("lori_model.json", EXPORTED)


def weight_files(base: Path) -> list[Path]:
    """Return the weight files that transformers would load: a single file, or those of the index.

    Symbolic links are followed, as the hub's cache consists of links.

    Raises:
        ModelError: the folder has no weights, its index is damaged, or a file of the index is
            missing.
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
    """Return the weight file or the index that transformers would open first."""
    config = base / "config.json"
    settings = read_json(config) if config.is_file() else None
    file_name = settings.get(_WEIGHTS_KEY) if isinstance(settings, dict) else None
    if file_name is not None:
        if not isinstance(file_name, str) or Path(file_name).name != file_name:
            raise ModelError(
                f"{config}: {_WEIGHTS_KEY}: {file_name!r} is not the name of a file beside it"
            )
        if not file_name.endswith((".safetensors", ".safetensors.index.json")):
            raise ModelError(f"{config}: {_WEIGHTS_KEY}: {file_name!r}; only safetensors are read")
        if not (base / file_name).is_file():
            raise ModelError(
                f"{base / file_name}: no such file ({_WEIGHTS_KEY} in config.json names it)"
            )
        return base / file_name
    for name in (_WEIGHTS, _INDEX):
        if (base / name).is_file():
            return base / name
    raise ModelError(f"{base}: no weights here (neither {_WEIGHTS} nor {_INDEX})")


def header(path: Path) -> SafetensorsFile:
    """Open a weight file for its header and bytes, without importing PyTorch.

    Raises:
        ModelError: the file is missing or damaged.
    """
    return _opened(SafetensorsFile, path)


def opened(path: Path) -> TensorFile:
    """Open a weight file.

    Raises:
        ModelError: the file is missing or damaged.
    """
    from lori_core.core.files.tensor_file import TensorFile

    return _opened(TensorFile, path)


def _opened(kind: type[F], path: Path) -> F:
    try:
        return kind(path)
    except AdapterError as error:
        raise ModelError(str(error)) from None


def other_files(base: Path) -> list[Path]:
    """Return the files to copy besides the weights: config, tokenizer and the like.

    Raises:
        ModelError: a symbolic link leads to no file.
    """
    files = []
    for folder, folders, names in os.walk(base):
        folders[:] = sorted(name for name in folders if name[0] != "." and name != "__pycache__")
        paths = (Path(folder, name) for name in sorted(names) if name[0] != ".")
        files += [path for path in paths if _is_copied(base, path)]
    return files


def _is_copied(base: Path, path: Path) -> bool:
    if path.suffix in _NOT_COPIED or path.name in _RECORDS:
        return False
    if path.name.endswith(".index.json"):  # of the indexes of weights, only the one in use
        return path == _first_file(base)
    if path.is_symlink() and not path.exists():
        raise ModelError(f"{path}: a link to a file that is missing")
    return path.is_file()
