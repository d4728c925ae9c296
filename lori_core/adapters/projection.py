"""The frozen projections A, each determined by (seed, key, module name) alone.

Generator `philox-uniform`, version 1, reproducible in any language; docs/format.md specifies it
exactly, with test vectors:

* The first 16 bytes of SHA-256 over the UTF-8 text `lori-projection/1\\n{seed}\\n{key}\\n{module}`,
  read as two little-endian 64-bit words, are the key of Philox4x64-10; its first counter is 1.
* Each 64-bit output gives two 32-bit words, the low half first. The top 24 bits k of each word
  give u = (2k + 1) / 2^24 - 1, where 2k + 1 is rounded to float32: from -1 + 2^-24 to 1.
* A = u · bound, rounded to float32, with bound = 1/√d_in in float32 (Kaiming uniform with a = √5,
  PEFT's default); values fill `[rank, d_in]` row by row.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

GENERATOR = "philox-uniform/1"


def draw(seed: int, key: str, module: str, rank: int, d_in: int) -> Tensor:
    """Return `lora_A.weight` of one module: A_tᵀ, shape [rank, d_in], float32 (paper, section 2.1).

    Entries are i.i.d. uniform on (-1/√d_in, 1/√d_in].

    Args:
        seed: `lori.seed`.
        key: the task's projection key.
        module: the module's name in the base model.
        rank: the number of rows.
        d_in: the number of columns.
    """
    text = f"lori-projection/1\n{seed}\n{key}\n{module}"
    words = np.frombuffer(hashlib.sha256(text.encode()).digest()[:16], dtype="<u8")
    stream = np.random.Philox(key=words.astype(np.uint64))
    count = rank * d_in
    raw = stream.random_raw((count + 1) // 2).astype("<u8", copy=False).view("<u4")[:count]
    uniform = ((raw >> np.uint32(8)).astype(np.float32) * 2 + 1 - 2**24) * np.float32(2**-24)
    bound = np.float32(1 / math.sqrt(d_in))
    return torch.from_numpy((uniform * bound).reshape(rank, d_in))


def fingerprint(matrices: Iterable[tuple[str, Tensor]]) -> str:
    """Return the SHA-256 over A by module: names in order, shapes, little-endian float32."""
    sha = hashlib.sha256()
    for name, matrix in matrices:
        sha.update(f"{name}\n{tuple(matrix.shape)}\n".encode())
        values: Any = matrix.contiguous().float().numpy().astype("<f4", copy=False)
        sha.update(values)  # a view: no copy of A
    return sha.hexdigest()
