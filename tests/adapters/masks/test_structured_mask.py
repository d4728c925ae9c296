from decimal import Decimal

import numpy as np
import pytest
import torch

from lori_core.adapters.masks.mask import magnitude, top
from lori_core.adapters.masks.structured_mask import top_structures
from lori_core.core.errors import InputError
from lori_core.registries.mask import STRUCTURES

NAMES = ("model.layers.0.mlp.up_proj", "model.layers.1.self_attn.q_proj")


def scores(rows: int = 32, rank: int = 16) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return magnitude({name: torch.randn(rows, rank, generator=generator) for name in NAMES})


@pytest.mark.parametrize("structure", [name for name in STRUCTURES if name != "none"])
@pytest.mark.parametrize("scope", ["model", "layer", "matrix"])
def test_whole_structures_of_the_same_budget_are_kept(structure: str, scope: str) -> None:
    found, _ = top_structures(scores(), Decimal("0.75"), scope, structure)
    assert found.count == 2 * 32 * 16 // 4  # every size here divides the budget
    height, width = STRUCTURES[structure].size(16)
    for name in NAMES:
        bits = found.of(name).reshape(32 // height, height, 16 // width, width)
        whole = bits.mean(axis=(1, 3))
        assert set(np.unique(whole)) <= {0.0, 1.0}


@pytest.mark.parametrize("scope", ["layer", "matrix", "projection"])
@pytest.mark.parametrize(("sparsity", "rows"), [("0.95", 1), ("0.9", 3), ("0.99", 0)])
def test_no_group_keeps_more_than_its_budget(scope: str, sparsity: str, rows: int) -> None:
    """Of 32 rows of 16 entries: 26, 52 and 6 entries of a group may be kept."""
    if not rows:
        with pytest.raises(InputError, match=f"keeps no whole row of the {scope} "):
            top_structures(scores(), Decimal(sparsity), scope, "row")
        return
    found, threshold = top_structures(scores(), Decimal(sparsity), scope, "row")
    means = {name: matrix.mean(dim=1) for name, matrix in scores().items()}
    for name in NAMES:
        kept = np.flatnonzero(found.of(name).reshape(32, 16).all(axis=1))
        assert kept.tolist() == sorted(means[name].topk(rows).indices.tolist())
        assert found.counts[name] == rows * 16
    assert threshold == pytest.approx(min(float(m.topk(rows).values[-1]) for m in means.values()))


def test_the_most_important_rows_win() -> None:
    found, threshold = top_structures(scores(), Decimal("0.9"), "model", "row")
    means = torch.cat([matrix.mean(dim=1) for matrix in scores().values()])
    best = means.topk(int(1024 * 0.1 + 1) // 16)
    kept = np.concatenate([found.of(name).reshape(32, 16).any(axis=1) for name in NAMES])
    assert sorted(np.flatnonzero(kept)) == sorted(best.indices.tolist())
    assert threshold == pytest.approx(float(best.values.min()))


def test_single_entries_are_the_ordinary_mask() -> None:
    ours, _ = top_structures(scores(), Decimal("0.9"), "model", "none")
    assert ours.bits.tobytes() == top(scores(), Decimal("0.9"), "model")[0].bits.tobytes()


@pytest.mark.parametrize(
    ("structure", "rank", "sparsity", "said"),
    [
        ("block", 12, "0.9", "block is 8 x 8, B of model.layers.0.mlp.up_proj is 32 x 12"),
        ("row", 16, "0.999", "sparsity 0.999 keeps no whole row of this model"),
        ("column", 16, "0.9", "structure 'column' is unknown"),
    ],
)
def test_what_does_not_fit_is_refused(structure: str, rank: int, sparsity: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        top_structures(scores(rank=rank), Decimal(sparsity), "model", structure)
