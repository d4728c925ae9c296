"""Causal attention over examples one after another, in one call, by FlashAttention on CUDA.

The calls are those of `torch.nn.attention.varlen.varlen_attn`. Its backward pass adds up the
gradient of the queries in an order that varies from run to run unless torch's deterministic
algorithms are on; here they are on during that call only, so that repeated runs are equal bit for
bit. The operators are called directly, without the overhead of a custom operator for each layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from lori_core.training.kernels.reference_attention import ReferenceAttention

#: Relative error, against attention computed in float32, up to which a device's result is accepted.
TOLERANCE = 5e-2


class Kernel(Protocol):
    """Attention over sequences one after another; tensors are [tokens, heads, size]."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, starts: Tensor, longest: int, scale: float, left: int
    ) -> tuple[Tensor, ...]:
        """Return the output, of q's shape, and what the backward pass needs besides.

        Args:
            q: the queries.
            k: the keys; their number of heads divides that of the queries.
            v: the values, of k's shape.
            starts: the first token of each sequence and the number of tokens, int32.
            longest: the tokens of the longest sequence.
            scale: the factor of the scores.
            left: how many tokens before itself a token attends to; -1 for all.
        """

    def backward(
        self,
        gradient: Tensor,
        saved: tuple[Tensor, ...],
        starts: Tensor,
        longest: int,
        scale: float,
        left: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of q, k and v.

        Args:
            gradient: the gradient of the output.
            saved: q, k, v and the results of `forward`.
            starts: see `forward`.
            longest: see `forward`.
            scale: see `forward`.
            left: see `forward`.
        """


class Flash:
    """FlashAttention as it is built into torch."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, starts: Tensor, longest: int, scale: float, left: int
    ) -> tuple[Tensor, ...]:
        """See `Kernel`."""
        out, lse, state, offset, _ = torch.ops.aten._flash_attention_forward(
            q, k, v, starts, starts, longest, longest, 0.0, left < 0, False,
            scale=scale, window_size_left=left, window_size_right=0,
        )  # fmt: skip
        return out, lse, state, offset

    def backward(
        self,
        gradient: Tensor,
        saved: tuple[Tensor, ...],
        starts: Tensor,
        longest: int,
        scale: float,
        left: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Kernel`."""
        q, k, v, out, lse, state, offset = saved
        with _deterministic():
            gradients: tuple[Tensor, Tensor, Tensor] = torch.ops.aten._flash_attention_backward(
                gradient, q, k, v, out, lse, starts, starts, longest, longest, 0.0, left < 0,
                state, offset, scale=scale, window_size_left=left, window_size_right=0,
            )  # fmt: skip
        return gradients


#: The kernel in use; tests replace it.
kernel: Kernel = Flash()


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, starts: Tensor, *settings: Any
    ) -> Tensor:
        out, *saved = kernel.forward(q, k, v, starts, *settings)
        ctx.save_for_backward(q, k, v, out, *saved, starts)
        ctx.settings = settings
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        *saved, starts = ctx.saved_tensors
        gradients = kernel.backward(gradient.contiguous(), tuple(saved), starts, *ctx.settings)
        return (*gradients, *[None] * 4)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    starts: Tensor,
    longest: int,
    scale: float,
    window: int | None = None,
) -> Tensor:
    """Return causal attention inside each sequence, [tokens, heads, size].

    Args:
        q: the queries, [tokens, heads, size].
        k: the keys, [tokens, key heads, size].
        v: the values, of k's shape.
        starts: the first token of each sequence and the number of tokens, int32, [sequences + 1].
        longest: the tokens of the longest sequence.
        scale: the factor of the scores.
        window: how many tokens back a token attends, itself included; None for all.
    """
    left = -1 if window is None or window >= longest else window - 1
    out: Tensor = _Attend.apply(q, k, v, starts, longest, scale, left)
    return out


def unsupported_reason(base: Any) -> str | None:
    """Return why a base model's attention cannot use `kernel`; None if it can.

    On a GPU, a trial of the forward and backward pass shows it: with the model's heads and
    precision, its results must be those of attention computed in float32.
    """
    parameter = next(p for p in base.parameters() if p.is_floating_point())
    if isinstance(kernel, Flash) and parameter.device.type != "cuda":
        return "it is for GPUs"
    if isinstance(kernel, Flash) and base.dtype not in (torch.bfloat16, torch.float16):
        return f"it does not compute in {str(base.dtype).removeprefix('torch.')}"
    config = base.config.get_text_config()
    heads = getattr(config, "num_attention_heads", None)
    if heads is None:
        return "the model's configuration does not name its heads"
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    windows = {None, 3} if getattr(config, "sliding_window", None) else {None}
    try:
        for window in windows:
            if not _agrees(heads, key_heads, size, base.dtype, parameter.device, window):
                return "its results are not those of plain attention on this device"
    except torch.OutOfMemoryError:  # of other work; which kernel is used must not depend on it
        raise
    except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError) as error:
        return f"it fails on this device ({str(error).splitlines()[0]})"
    return None


def _agrees(
    heads: int, key_heads: int, size: int, dtype: torch.dtype, device: Any, window: int | None
) -> bool:
    """Return whether a trial's output and gradients agree with those of the reference."""
    starts = torch.tensor([0, 5, 12, 13], dtype=torch.int32, device=device)
    generator = torch.Generator().manual_seed(0)
    shapes = [(13, n, size) for n in (heads, key_heads, key_heads, heads)]
    drawn = [torch.randn(shape, generator=generator) for shape in shapes]
    narrow = [x.to(device, dtype) for x in drawn]
    left = -1 if window is None else window - 1

    def results(tried: Kernel, states: list[Tensor]) -> tuple[Tensor, ...]:
        q, k, v, slope = states
        out, *saved = tried.forward(q, k, v, starts, 7, size**-0.5, left)
        every = (q, k, v, out, *saved)
        return (out, *tried.backward(slope, every, starts, 7, size**-0.5, left))

    with torch.no_grad():
        ours = results(kernel, narrow)
        expected = results(ReferenceAttention(), [x.float() for x in narrow])
    pairs = zip(ours, expected, strict=True)
    return all(float((a.float() - b).norm()) <= TOLERANCE * float(b.norm()) for a, b in pairs)


@contextmanager
def _deterministic() -> Iterator[None]:
    """Turn torch's deterministic algorithms on inside the block."""
    on, warns = torch.are_deterministic_algorithms_enabled(), _warns_only()
    settings: Any = torch.utils.deterministic
    fills = settings.fill_uninitialized_memory
    settings.fill_uninitialized_memory = False
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(on, warn_only=warns)
        settings.fill_uninitialized_memory = fills


def _warns_only() -> bool:
    return torch.is_deterministic_algorithms_warn_only_enabled()
