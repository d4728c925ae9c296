"""Read and write mask files: packed bits in safetensors, with the mask's origin as metadata.

The metadata of version 2 are `format`, `sha256`, `shapes` (a list of [module, d_out, rank]) and
`facts`, the last two as JSON. `sha256` is the digest of the whole file with these 64 digits set to
zero, so any change is detected. Version 1 has no digest; it can still be read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lori_core.adapters.masks.mask import Mask
from lori_core.core.errors import AdapterError
from lori_core.core.files.atomic import ZERO_DIGEST, dumps, is_sealed, replaced_file, seal
from lori_core.core.files.json_input import loads
from lori_core.core.files.tensor_file import Spec, TensorFile, write

FORMAT = "lori-mask/2"
_VERSION_1 = "lori-mask/1"


def save(mask: Mask, facts: dict[str, Any], path: Path) -> None:
    """Write a mask file atomically.

    Args:
        mask: the mask to write.
        facts: sparsity, scope, importance, threshold, count and content keys, as JSON values.
        path: the file to write; an existing one is replaced.
    """
    metadata = {
        "format": FORMAT,
        "sha256": ZERO_DIGEST,
        "shapes": dumps([[name, *shape] for name, shape in mask.shapes.items()]),
        "facts": dumps(facts),
    }
    bits = torch.from_numpy(mask.bits)
    with replaced_file(path) as work:
        write(work, {"mask": Spec(bits.dtype, tuple(bits.shape))}, [bits], metadata)
        # Only `format` precedes `sha256`, so the first zeros in the file are its place.
        seal(work)


def load(path: Path) -> tuple[Mask, dict[str, Any]]:
    """Read a mask and its facts, and verify the file's SHA-256 and the number of entries.

    Raises:
        AdapterError: the file is missing, damaged, or not a mask.
    """
    if not path.is_file():
        raise AdapterError(f"{path}: no such mask")
    file = TensorFile(path)
    try:
        return _read(file)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AdapterError(
            f"{path}: damaged: its metadata is not readable ({error!r:.200}); restore the file, or "
            "take the mask anew"
        ) from None


def _read(file: TensorFile) -> tuple[Mask, dict[str, Any]]:
    metadata = file.metadata
    if metadata.get("format") not in (_VERSION_1, FORMAT):
        known = f"{_VERSION_1}, {FORMAT}"
        raise AdapterError(f"{file.path}: format {metadata.get('format')!r} is no mask's ({known})")
    if metadata["format"] != _VERSION_1 or "sha256" in metadata:
        _check_sha256(file.path, metadata["sha256"])
    modules = loads(metadata["shapes"])
    shapes = {name: (rows, columns) for name, rows, columns in modules}
    sizes = [size for shape in shapes.values() for size in shape]
    if len(shapes) < len(modules) or not all(type(size) is int and size > 0 for size in sizes):
        raise ValueError("module names must be unique, and sizes above 0")
    if not all(isinstance(name, str) for name in shapes):
        raise TypeError("module names must be strings")
    facts: dict[str, Any] = loads(metadata["facts"])
    size = -(-sum(rows * columns for rows, columns in shapes.values()) // 8)
    if file.spec("mask") != Spec(torch.uint8, (size,)):
        raise AdapterError(f"{file.path}: damaged: the mask is not of {size} bytes")
    mask = Mask(shapes, file["mask"].numpy())
    if mask.count != facts["count"]:
        raise AdapterError(
            f"{file.path}: damaged: {mask.count} entries kept, {facts['count']} expected"
        )
    return mask, facts


def _check_sha256(path: Path, digits: str) -> None:
    if not is_sealed(path, digits):
        raise AdapterError(
            f"{path}: damaged or edited (its SHA-256 does not fit); restore it, or take it anew"
        )
