"""Attention by plain products: what the fused one gives, forward and backward."""

import pytest
import torch
from torch import Tensor, nn

from lori_core.training.kernels import plain_attention

Made = tuple[Tensor, ...]


def inputs(heads: int, key_heads: int, length: int) -> Made:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, n, length, 16) for n in (heads, key_heads, key_heads, heads)]
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


def made(given: Made, dtype: torch.dtype, *, plain: bool) -> Made:
    """Return the output and the gradients of q, k and v, in float64."""
    q, k, v, slope = (x.to(dtype) for x in given)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    if plain:
        out = plain_attention.attend(*leaves, 0.3)
    else:
        out = nn.functional.scaled_dot_product_attention(
            *leaves, is_causal=True, scale=0.3, enable_gqa=True
        )
    out.backward(slope)
    return tuple(
        x.double() for x in (out.detach(), *(x.grad for x in leaves if x.grad is not None))
    )


@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (6, 2), (3, 1)])
@pytest.mark.parametrize("length", [1, 2, 37, 64, 65, 150])
def test_it_gives_what_the_fused_attention_gives(heads: int, key_heads: int, length: int) -> None:
    given = inputs(heads, key_heads, length)
    own = made(given, torch.float64, plain=True)
    fused = made(given, torch.float64, plain=False)
    assert len(own) == 4
    for one, other in zip(own, fused, strict=True):
        torch.testing.assert_close(one, other)


def test_in_half_precision_it_errs_little_more_than_the_fused_one() -> None:
    given = inputs(6, 2, 100)
    exact = made(given, torch.float64, plain=False)

    def error(plain: bool) -> list[float]:
        found = made(given, torch.bfloat16, plain=plain)
        return [float((x - y).norm() / y.norm()) for x, y in zip(found, exact, strict=True)]

    for own, fused in zip(error(True), error(False), strict=True):
        assert own < 2.5 * fused


def test_it_is_for_half_precision_on_the_cpu_and_rows_long_enough() -> None:
    def suits(dtype: torch.dtype, length: int) -> bool:
        return plain_attention.suits(torch.empty(8, 9, length, 64, dtype=dtype))

    assert suits(torch.bfloat16, 32)
    assert not suits(torch.float32, 300)
    assert not suits(torch.bfloat16, 31)
