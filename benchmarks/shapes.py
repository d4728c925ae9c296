"""Adapters of real shapes with random values, for measurements without real weights."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import torch

from lori_core.adapters.adapter import Adapter, ProjectionBlock, uniform
from lori_core.adapters.masks.mask import Mask, kept_count
from lori_core.models.base_model import BaseIdentity

LAYERS, HIDDEN, INTERMEDIATE, KEYS = 32, 4096, 14336, 1024


def llama3_8b(layers: int = LAYERS) -> dict[str, tuple[int, int]]:
    """Return (d_in, d_out) of every target module of Llama-3-8B, or of its first layers."""
    own = {
        "self_attn.q_proj": (HIDDEN, HIDDEN),
        "self_attn.k_proj": (HIDDEN, KEYS),
        "self_attn.v_proj": (HIDDEN, KEYS),
        "self_attn.o_proj": (HIDDEN, HIDDEN),
        "mlp.gate_proj": (HIDDEN, INTERMEDIATE),
        "mlp.up_proj": (HIDDEN, INTERMEDIATE),
        "mlp.down_proj": (INTERMEDIATE, HIDDEN),
    }
    return {f"model.layers.{n}.{name}": size for n in range(layers) for name, size in own.items()}


def sparse_adapter(key: str, seed: int, layers: int = LAYERS, rank: int = 32) -> Adapter:
    """Return an adapter with a random mask at sparsity 0.9 and random bf16 values."""
    modules = uniform(llama3_8b(layers), rank, 2 * rank)
    shapes = {name: (module.d_out, rank) for name, module in modules.items()}
    total = sum(rows * columns for rows, columns in shapes.values())
    random = np.random.default_rng(seed)
    in_mask = np.zeros(total, dtype=bool)
    # Half more than needed, so that enough remain after duplicates are removed.
    count = kept_count(total, Decimal("0.9"))
    places = np.unique(random.integers(0, total, int(1.5 * count)))
    in_mask[random.permutation(places)[:count]] = True
    mask = Mask.from_flat(shapes, in_mask)
    generator = torch.Generator().manual_seed(seed)
    values = {
        name: (torch.randn(size, generator=generator) / 100).bfloat16()
        for name, size in mask.counts.items()
    }
    return Adapter(
        base=BaseIdentity("shapes/llama-3-8b", "", "c", "w"),
        modules=modules,
        blocks=(ProjectionBlock(42, key, rank),),
        mask=mask,
        values=values,
        dtype=torch.bfloat16,
        info={"task": key, "content_key": f"random-{seed}"},
    )
