"""Liger's Triton kernels for RMS norms, gated activations and rotary positions on CUDA.

They need the package `liger-kernel` (`pip install 'lori[gpu]'`). Each replaces about ten kernels of
torch by one. Their results and gradients are compared with the model's own on a trial input first;
where they differ or fail, the model keeps the kernels of `pointwise`, or its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

Forward = Callable[[Tensor], Tensor]
#: Casting mode and offset of the weight, for norms as in Llama and as in Gemma.
NORMS = (("llama", 0.0), ("gemma", 1.0))
#: Relative error up to which results and gradients are accepted, by dtype.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-2}


def usable(device: torch.device) -> bool:
    """Return whether Liger's kernels can run on a device."""
    return device.type == "cuda" and _installed()


@cache
def _installed() -> bool:
    return all(find_spec(name) is not None for name in ("triton", "liger_kernel"))


def norm_forwards(weight: Tensor, eps: float) -> list[Forward]:
    """Return the possible forward passes of an RMS norm with this weight, [features]."""
    from liger_kernel.ops.rms_norm import LigerRMSNormFunction

    def bound(casting: str, offset: float) -> Forward:
        def forward(x: Tensor) -> Tensor:
            y: Tensor = LigerRMSNormFunction.apply(x, weight, eps, offset, casting, False, None)
            return y

        return forward

    return [bound(*mode) for mode in NORMS]


def gated(gate: Tensor, value: Tensor) -> Tensor:
    """Return silu(gate) * value."""
    from liger_kernel.ops.swiglu import LigerSiLUMulFunction

    y: Tensor = LigerSiLUMulFunction.apply(gate, value)
    return y


def agrees(ours: Callable[..., Any], own: Callable[..., Any], *inputs: Tensor) -> bool:
    """Return whether two functions have the same results and gradients for random inputs.

    An error of the first one counts as a difference and is printed, except lack of memory.

    Args:
        ours: the replacement.
        own: the model's own function.
        inputs: the inputs; a function may change them in place, so each gets copies.
    """
    try:
        pairs = zip(_results(ours, inputs), _results(own, inputs), strict=True)
        limit = TOLERANCE.get(inputs[0].dtype, 0.0)
        return all(_near(a, b, limit) for a, b in pairs)
    except torch.OutOfMemoryError:  # of other work; which kernel is used must not depend on it
        raise
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        print(f"a kernel of Liger is not used: {reason[0]}", file=sys.stderr, flush=True)
        return False


def _near(found: Tensor, expected: Tensor, limit: float) -> bool:
    """Return whether the rows of two results agree, relative to the norm of each row."""
    a, b = (x.float().flatten(0, -2) for x in (found, expected))
    return bool(((a - b).norm(dim=-1) <= limit * b.norm(dim=-1) + 1e-12).all())


@torch.enable_grad()
def _results(function: Callable[..., Any], inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Return a function's results, then the gradients of their sum with fixed weights."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    out = function(*(x * 1.0 for x in leaves))  # a function may write into its inputs
    results = list(out) if isinstance(out, tuple) else [out]
    kept = [x.detach().clone() for x in results]
    slopes = [torch.linspace(-1, 1, x.numel(), device=x.device).view(x.shape) for x in kept]
    total = sum((x * s.to(x.dtype)).sum() for x, s in zip(results, slopes, strict=True))
    return [*kept, *torch.autograd.grad(total, leaves)]


@contextmanager
def rotating(model: nn.Module) -> Iterator[int]:
    """Let a model's attention rotate queries and keys by Liger's kernel inside a `with` block.

    Yields:
        The number of modeling files of transformers whose function was replaced.
    """
    replaced: list[tuple[Any, Any]] = []
    device, dtype = next((p.device, p.dtype) for p in model.parameters() if p.is_floating_point())
    if usable(device):
        files = {sys.modules[type(module).__module__] for module in model.modules()}
        for file in sorted(files, key=lambda file: file.__name__):
            own = getattr(file, "apply_rotary_pos_emb", None)
            if own is not None and _rotates_alike(own, device, dtype):
                replaced.append((file, own))
                file.apply_rotary_pos_emb = _rotation(own)  # type: ignore[attr-defined]
    try:
        yield len(replaced)
    finally:
        for file, own in replaced:
            file.apply_rotary_pos_emb = own


def _rotation(own: Any) -> Any:
    """Return a function that rotates by Liger's kernel, and by `own` what it does not support."""
    from liger_kernel.ops.rope import LigerRopeFunction

    def rotate(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *args: Any, **kwargs: Any) -> Any:
        plain = not args and not kwargs and q.dim() == 4 and cos.shape[-1] == q.shape[-1]
        if plain and usable(q.device) and q.dtype == k.dtype:
            return LigerRopeFunction.apply(q, k, cos.to(q.dtype), sin.to(q.dtype))
        return own(q, k, cos, sin, *args, **kwargs)

    return rotate


def _rotates_alike(own: Any, device: torch.device, dtype: torch.dtype) -> bool:
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, n, 5, 16, generator=generator).to(device, dtype) for n in (4, 2))
    angles = torch.randn(1, 5, 8, generator=generator).repeat(1, 1, 2)
    cos, sin = (f(angles).to(device, dtype) for f in (torch.cos, torch.sin))
    return agrees(lambda *x: _rotation(own)(*x, cos, sin), lambda *x: own(*x, cos, sin), q, k)
