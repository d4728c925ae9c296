"""Leading singular triplets against the whole decomposition in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lori_core.adapters.low_rank import leading_svd


def decaying(rows: int, columns: int) -> Tensor:
    """Return a matrix with the singular values 1, 0.9, 0.81, …, float32."""
    generator = torch.Generator().manual_seed(1)
    count = min(rows, columns)
    u, v = (
        torch.linalg.qr(torch.randn(n, count, generator=generator, dtype=torch.float64))[0]
        for n in (rows, columns)
    )
    return ((u * 0.9 ** torch.arange(count)) @ v.T).float()


@pytest.mark.parametrize("shape", [(600, 500), (500, 600), (60, 80)])
def test_it_is_the_whole_decompositions_beginning(shape: tuple[int, int]) -> None:
    matrix = decaying(*shape)
    u, s, vh = leading_svd(matrix, 12)
    assert torch.allclose(s.double(), 0.9 ** torch.arange(12.0, dtype=torch.float64), atol=1e-6)
    found = (u * s).double() @ vh.double()
    lost = (matrix.double() - found).square().sum()
    least = (0.81 ** torch.arange(12, min(shape), dtype=torch.float64)).sum()
    assert float(lost) == pytest.approx(float(least), rel=1e-5)
    assert all(map(torch.equal, (u, s, vh), leading_svd(matrix, 12)))


def test_a_matrix_of_a_lower_rank_comes_back() -> None:
    generator = torch.Generator().manual_seed(2)
    left, right = torch.randn(900, 8, generator=generator), torch.randn(8, 700, generator=generator)
    u, s, vh = leading_svd(left @ right, 32)
    assert s.shape == (32,)
    assert float(s[8:].max()) < 1e-5 * float(s[0])
    error = (u * s) @ vh - left @ right
    assert float(error.norm()) < 1e-5 * float((left @ right).norm())


def test_the_rank_is_at_most_the_smaller_side() -> None:
    u, s, vh = leading_svd(torch.randn(3, 7, generator=torch.Generator().manual_seed(3)), 32)
    assert (u.shape, s.shape, vh.shape) == ((3, 3), (3,), (3, 7))
