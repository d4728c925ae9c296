"""Copies of the base's weights in a PEFT folder: compared with the base before they are left out.

PEFT saves the weight of `lm_head` or of an embedding with an adapter of that layer
(`….base_layer.weight`). LoRA does not train the weight, but the file may hold another one, of a
model whose vocabulary was extended, for example. So the copy is compared with the base.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from lori_core.adapters.adapter import Adapter
from lori_core.core.errors import AdapterError
from lori_core.core.files.tensor_file import TensorFile

#: The entry of an adapter's `info`: module -> dtype and SHA-256 of the copy.
COPIES = "base_copies"
WAY_OUT = (
    "name the base with --base (in Python: base=) to compare them, or save the adapter without it "
    "(PEFT: save_pretrained(..., save_embedding_layers=False))"
)


def facts(file: TensorFile, copies: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return dtype and SHA-256 of the copies in a file.

    Args:
        file: the adapter's weights.
        copies: the name of the copy by module.
    """
    return {module: fact_of(file[key]) for module, key in copies.items()}


def fact_of(weight: Tensor) -> dict[str, str]:
    """Return a weight's dtype and the SHA-256 of its bytes."""
    raw = weight.contiguous().flatten().view(torch.uint8).numpy()
    dtype = str(weight.dtype).removeprefix("torch.")
    return {"dtype": dtype, "sha256": hashlib.sha256(raw.data).hexdigest()}


def refuse(adapter: Adapter, where: str) -> None:
    """Refuse an adapter whose copies were not compared with its base.

    Raises:
        AdapterError: the message names the copied weight and what to do.
    """
    copies = adapter.info.get(COPIES)
    if copies:
        raise AdapterError(
            f"{where}: holds a copy of the base's {min(copies)}, which may differ from the base; "
            f"{WAY_OUT}"
        )
