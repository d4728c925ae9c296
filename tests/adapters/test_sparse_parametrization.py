import torch
from torch import nn

from lori_core.adapters.sparse_parametrization import make_sparse, trainable_values


def linear(d_out: int, rank: int) -> nn.Linear:
    return nn.Linear(rank, d_out, bias=False)


def test_b_is_the_base_with_the_values_at_the_positions() -> None:
    layer = linear(3, 2)
    start = torch.arange(6.0).view(3, 2)
    make_sparse(layer, start, torch.tensor([1, 4]), torch.float32)
    values = trainable_values(layer)
    assert values.tolist() == [1.0, 4.0]
    with torch.no_grad():
        values.copy_(torch.tensor([10.0, 40.0]))
    assert layer.weight.tolist() == [[0.0, 10.0], [2.0, 3.0], [40.0, 5.0]]


def test_only_the_masks_entries_ever_change() -> None:
    torch.manual_seed(0)
    layer, start = linear(20, 8), torch.randn(20, 8)
    positions = torch.tensor([0, 7, 33, 159])
    make_sparse(layer, start, positions, torch.float32)
    # Weight decay, momentum and clipping all act, and none may touch the rest.
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.5)
    for _ in range(5):
        optimizer.zero_grad()
        (layer(torch.randn(4, 8)) ** 2).sum().backward()
        nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
        optimizer.step()
    after = layer.weight.detach().reshape(-1)
    outside = torch.ones(160, dtype=torch.bool)
    outside[positions] = False
    assert torch.equal(after[outside], start.reshape(-1)[outside])
    assert bool((after[positions] != start.reshape(-1)[positions]).all())
    assert trainable_values(layer).numel() == 4


def test_the_gradient_is_the_dense_gradient_inside_the_mask() -> None:
    torch.manual_seed(1)
    dense, packed = linear(5, 3), linear(5, 3)
    start, positions = torch.randn(5, 3), torch.tensor([2, 3, 14])
    dense.weight.data = start.clone()
    make_sparse(packed, start, positions, torch.float32)
    x = torch.randn(7, 3)
    (dense(x) ** 3).sum().backward()
    (packed(x) ** 3).sum().backward()
    gradient = trainable_values(packed).grad
    assert dense.weight.grad is not None
    assert gradient is not None
    assert torch.equal(gradient, dense.weight.grad.reshape(-1)[positions])


def test_values_stay_float32_under_a_bf16_computation() -> None:
    layer = linear(4, 2).to(torch.bfloat16)
    make_sparse(layer, torch.full((4, 2), 0.1), None, torch.bfloat16)
    assert trainable_values(layer).dtype == torch.float32
    assert layer.weight.dtype == torch.bfloat16
    assert trainable_values(layer).tolist() == torch.full((8,), 0.1).tolist()
