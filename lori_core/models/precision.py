"""The precision to compute in: the one asked for, or float32 where the device lacks its arithmetic.

Emulated half precision costs time and buys no accuracy: on a CPU without bfloat16 instructions a
matrix product in bfloat16 takes nine times as long as in float32. Every half precision number is a
float32 number, so the weights stay exactly those of the file.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

#: What `torch.cpu.get_capabilities` must show on x86 for the matrix products of a precision.
_X86 = {"bfloat16": ("avx512_bf16", "amx_bf16"), "float16": ("avx512_fp16", "amx_fp16")}


def computed_in(wanted: str, device: str) -> Any:
    """Return the `torch.dtype` to compute in, and say on standard error where it is another one.

    Args:
        wanted: `float32`, `bfloat16` or `float16`.
        device: `cpu` or `cuda`.
    """
    import torch

    if wanted == "float32" or _has(wanted, device):
        return getattr(torch, wanted)
    print(
        f"model.dtype: {wanted} has no fast arithmetic on this {_NAMES[device]}; "
        "computing in float32 (the weights are the same numbers, in twice the memory)",
        file=sys.stderr,
        flush=True,
    )
    return torch.float32


_NAMES = {"cpu": "CPU", "cuda": "GPU"}


def _has(wanted: str, device: str) -> bool:
    import torch

    if device == "cuda":
        return wanted == "float16" or torch.cuda.is_bf16_supported(including_emulation=False)
    found = torch.cpu.get_capabilities()
    if found.get("architecture") == "x86_64":
        return x86_has(wanted, found)
    half: Any = torch.ops.mkldnn
    check = {"bfloat16": "_is_mkldnn_bf16_supported", "float16": "_is_mkldnn_fp16_supported"}
    return bool(getattr(half, check[wanted])())


def x86_has(wanted: str, capabilities: Mapping[str, Any]) -> bool:
    """Say whether an x86 CPU multiplies matrices of a half precision by instructions for it."""
    return any(capabilities.get(name) for name in _X86[wanted])
