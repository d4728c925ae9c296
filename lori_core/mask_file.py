"""A mask on disk: packed bits in safetensors, with what it was taken from as metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lori_core.errors import AdapterError
from lori_core.files import replaced_file
from lori_core.mask import Mask

FORMAT = "lori-mask/1"


def save(mask: Mask, facts: dict[str, Any], path: Path) -> None:
    """Write a mask atomically; `facts` say sparsity, scope, score, threshold, count, origin."""
    shapes = [[name, *shape] for name, shape in mask.shapes.items()]
    metadata = {"format": FORMAT, "shapes": json.dumps(shapes), "facts": json.dumps(facts)}
    with replaced_file(path) as work:
        save_file({"mask": torch.from_numpy(mask.bits)}, work, metadata=metadata)
        work.chmod(0o644)


def load(path: Path) -> tuple[Mask, dict[str, Any]]:
    """Read a mask and its facts, and check that its count is what it says.

    Raises:
        AdapterError: for a file that is missing, damaged, or no mask.
    """
    if not path.is_file():
        raise AdapterError(f"{path}: no such mask")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            bits = file.get_tensor("mask").clone().numpy()  # not a view of the file
    except SafetensorError as error:
        raise AdapterError(f"{path}: not a safetensors file, or damaged ({error})") from None
    if metadata.get("format") != FORMAT:
        raise AdapterError(f"{path}: format {metadata.get('format')!r} is not {FORMAT}")
    shapes = {name: (rows, columns) for name, rows, columns in json.loads(metadata["shapes"])}
    mask, facts = Mask(shapes, bits), json.loads(metadata["facts"])
    if bits.size != (mask.total + 7) // 8 or mask.count != facts["count"]:
        raise AdapterError(f"{path}: damaged: {mask.count} entries kept, {facts['count']} expected")
    return mask, facts
