"""A mask on disk: packed bits in safetensors, with what it was taken from as metadata.

The metadata of version 2 are `format`, `sha256`, `shapes` (a list of [module, d_out, rank]) and
`facts`, the last two as JSON. `sha256` is that of the whole file with these 64 digits as zeros, so
that no bit of it can change unseen. Version 1 had none; it is read for ever.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lori_core.adapters.masks.mask import Mask
from lori_core.core.errors import AdapterError
from lori_core.core.files.atomic import NO_DIGITS, dumps, is_sealed, replaced_file, seal
from lori_core.core.files.json_input import loads
from lori_core.core.files.tensor_file import Spec, TensorFile, write

FORMAT = "lori-mask/2"
_FIRST = "lori-mask/1"


def save(mask: Mask, facts: dict[str, Any], path: Path) -> None:
    """Write a mask atomically; `facts` say sparsity, scope, score, threshold, count, origin."""
    metadata = {
        "format": FORMAT,
        "sha256": NO_DIGITS,
        "shapes": dumps([[name, *shape] for name, shape in mask.shapes.items()]),
        "facts": dumps(facts),
    }
    bits = torch.from_numpy(mask.bits)
    with replaced_file(path) as work:
        write(work, {"mask": Spec(bits.dtype, tuple(bits.shape))}, [bits], metadata)
        # Of the metadata only the format's name stands before it: the first zeros are the place.
        seal(work)


def load(path: Path) -> tuple[Mask, dict[str, Any]]:
    """Read a mask and its facts, and check that it is what was written.

    Raises:
        AdapterError: for a file that is missing, damaged, or no mask.
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
    said = file.metadata
    if said.get("format") not in (_FIRST, FORMAT):
        known = f"{_FIRST}, {FORMAT}"
        raise AdapterError(f"{file.path}: format {said.get('format')!r} is no mask's ({known})")
    if said["format"] != _FIRST or "sha256" in said:
        _check_digits(file.path, said["sha256"])
    modules = loads(said["shapes"])
    shapes = {name: (rows, columns) for name, rows, columns in modules}
    sizes = [size for shape in shapes.values() for size in shape]
    if len(shapes) < len(modules) or not all(type(size) is int and size > 0 for size in sizes):
        raise ValueError("a module has a name of its own, and sizes above 0")
    if not all(isinstance(name, str) for name in shapes):
        raise TypeError("modules have names")
    facts: dict[str, Any] = loads(said["facts"])
    size = -(-sum(rows * columns for rows, columns in shapes.values()) // 8)
    if file.spec("mask") != Spec(torch.uint8, (size,)):
        raise AdapterError(f"{file.path}: damaged: the mask is not of {size} bytes")
    mask = Mask(shapes, file["mask"].numpy())
    if mask.count != facts["count"]:
        raise AdapterError(
            f"{file.path}: damaged: {mask.count} entries kept, {facts['count']} expected"
        )
    return mask, facts


def _check_digits(path: Path, digits: str) -> None:
    if not is_sealed(path, digits):
        raise AdapterError(
            f"{path}: damaged or edited (its SHA-256 does not fit); restore it, or take it anew"
        )
