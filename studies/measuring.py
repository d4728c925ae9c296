"""Measurements on adapters alone: the density of masks, and the orthogonality of updates."""

from __future__ import annotations

from statistics import fmean

import torch

from lori_core.adapters.adapter import Adapter, ProjectionBlock, last_name, uniform, values_in_mask
from lori_core.adapters.masks.mask import magnitude, scope_of
from lori_core.adapters.masks.structured_mask import top_structures
from lori_core.merging import interference
from lori_core.models.base_identity import BaseIdentity
from studies.points import Orthogonality, SparsityMap
from studies.results import Row, adapter_of


def sparsity_map(point: SparsityMap) -> Row:
    """Return the share of B's entries in masks of each sparsity, by layer and projection."""
    calibrated = adapter_of(point.calibrated)
    scores = magnitude({n: calibrated.B(n) for n in calibrated.modules})
    rows = []
    for sparsity in point.sparsities:
        lori = point.lori.model_copy(update={"sparsity": sparsity})
        mask, _ = top_structures(scores, lori.exact_sparsity(), lori.mask_scope, lori.structure)
        for module, (height, width) in mask.shapes.items():
            layer = scope_of("layer", module)
            rows.append(
                {
                    "metric": "kept",
                    "task": point.task,
                    "value": mask.counts[module] / (height * width),
                    "sparsity": sparsity,
                    "layer": int(layer) if layer.isdigit() else None,
                    "projection": last_name(module),
                }
            )
    return {"rows": {"": rows}}


def orthogonality(point: Orthogonality) -> Row:
    """Return cosines between random updates for each d_in and rank, and between trained ones."""
    rows = []
    for d_in in point.input_dimensions:
        for rank in point.ranks:
            drawn = _drawn(d_in, rank, point.seed)
            rows += _cosine_rows(drawn, {"d_in": d_in, "rank": rank, "source": "drawn"})
    for rank_text, names in point.trained.items():
        adapters = {name: adapter_of(name) for name in names}
        by_width: dict[int, list[interference.ModulePair]] = {}
        for modules in interference.measure(adapters).values():
            for module, pair in modules.items():
                width = next(iter(adapters.values())).modules[module].d_in
                by_width.setdefault(width, []).append(pair)
        for width, pairs in by_width.items():
            factors = {"d_in": width, "rank": int(rank_text), "source": "trained"}
            rows += _cosine_rows(pairs, factors)
    return {"rows": {"": rows}}


#: The number of random pairs for each d_in and rank, and d_out of their B.
DRAWN_PAIRS = 20
DRAWN_OUTPUTS = 64


def _drawn(d_in: int, rank: int, seed: int) -> list[interference.ModulePair]:
    """Return pairs of updates with A [rank, d_in] drawn from a key and normal B [d_out, rank]."""
    generator = torch.Generator().manual_seed(seed)
    names = [f"layers.{number}.drawn" for number in range(DRAWN_PAIRS)]
    modules = uniform(dict.fromkeys(names, (d_in, DRAWN_OUTPUTS)), rank, rank)
    sides = []
    for key in ("first", "second"):
        B = {n: torch.randn(DRAWN_OUTPUTS, rank, generator=generator) for n in names}
        block = ProjectionBlock(seed, key, rank)
        values = values_in_mask(modules, B, None, torch.float32)
        base = BaseIdentity("drawn", "", "", "")
        sides.append(Adapter(base, modules, (block,), None, values))
    first, second = sides
    return [interference.module_pair(first, second, name) for name in names]


def _cosine_rows(pairs: list[interference.ModulePair], factors: Row) -> list[Row]:
    cosines = [abs(pair.cosine) for pair in pairs]
    # The bound is on |inner|; divided by both norms it is a bound on |cosine|.
    bounds = [p.bound * abs(p.cosine / p.inner) for p in pairs if p.bound is not None and p.inner]
    values = {"mean_abs_cosine": fmean(cosines), "max_abs_cosine": max(cosines)}
    if bounds:
        values["bound"] = fmean(bounds)
    return [{"metric": metric, "task": "", "value": v, **factors} for metric, v in values.items()]
