"""DELLA and Model Breadcrumbs against their definitions."""

from __future__ import annotations

import torch

from lori_core.merging import pruning
from lori_core.merging.catalogue import MERGE_METHODS
from lori_core.merging.merge_methods import Factors, Options, drop_at_random, majority_mean


def test_della_keeps_an_entry_with_a_chance_that_grows_with_its_rank_in_its_row() -> None:
    row = torch.tensor([4.0, -1.0, 2.0, -3.0, 5.0])
    tensor = row.repeat(40_000, 1)
    kept = pruning.drop_by_magnitude(tensor, Options(0.6, seed=3), "x")
    shares = (kept != 0).double().mean(0)
    expected = torch.tensor([0.65, 0.5, 0.55, 0.6, 0.7], dtype=torch.float64)
    assert torch.allclose(shares, expected, atol=0.01)
    for column, chance in enumerate(expected):
        values = {float(value) for value in kept[:, column].unique()}
        assert values == {0.0, float(row[column] / chance.float())}
    assert torch.allclose(kept.double().mean(0), row.double(), atol=0.06), "the mean is kept"


def test_dellas_window_is_narrower_where_the_density_leaves_no_room() -> None:
    tensor = torch.randn(50_000, 2, generator=torch.Generator().manual_seed(1)).sort().values
    order = tensor.abs().argsort(dim=1)
    for density, chances in ((0.1, (0.05, 0.15)), (0.96, (0.94, 0.98))):
        kept = pruning.drop_by_magnitude(tensor, Options(density), "x") != 0
        shares = kept.gather(1, order).double().mean(0)
        assert torch.allclose(shares, torch.tensor(chances, dtype=torch.float64), atol=0.006)
    assert torch.equal(pruning.drop_by_magnitude(tensor, Options(1.0), "x"), tensor)


def test_della_drops_as_dare_does_where_a_row_has_one_entry() -> None:
    column = torch.randn(50, 1, generator=torch.Generator().manual_seed(1))
    options = Options(0.4, seed=7)
    found = pruning.drop_by_magnitude(column, options, "x")
    assert torch.allclose(found, drop_at_random(column, options, "x"))


def test_della_elects_signs_and_takes_the_mean() -> None:
    generator = torch.Generator().manual_seed(1)
    parents = [
        Factors(torch.randn(2, 9, generator=generator), torch.ones(7, 2), 1.0, 1.0, index)
        for index in range(3)
    ]
    options = Options(0.5, seed=1)
    A, _ = MERGE_METHODS["della"].combine(parents, options, "m")
    terms = [(pruning.drop_by_magnitude(p.A, options, p.stream("A", "m")), 1.0) for p in parents]
    assert torch.equal(A, majority_mean(terms, options))


def test_breadcrumbs_keep_what_is_neither_an_outlier_nor_small() -> None:
    values = torch.arange(1.0, 201.0)[torch.randperm(200)].view(20, 10)
    values[values % 2 == 0] *= -1
    kept = pruning.keep_between(values, Options(0.3), "")
    magnitudes = kept[kept != 0].abs().sort().values
    assert magnitudes.tolist() == [float(n) for n in range(139, 199)]
    assert torch.equal(kept[kept != 0], values[kept != 0])


def test_breadcrumbs_drop_fewer_outliers_where_the_density_leaves_less() -> None:
    values = torch.arange(1.0, 401.0).view(20, 20)
    nearly_all = pruning.keep_between(values, Options(0.995), "")
    assert nearly_all[nearly_all != 0].tolist() == [float(n) for n in range(1, 399)]
    assert torch.equal(pruning.keep_between(values, Options(1.0), ""), values)
    equal = pruning.keep_between(torch.ones(20, 10), Options(0.5), "").reshape(-1)
    assert equal.nonzero().reshape(-1).tolist() == list(range(2, 102))
