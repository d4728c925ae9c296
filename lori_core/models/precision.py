"""Choose the compute dtype: the configured one, or float32 if the device lacks instructions for it.

Emulated half precision is slow and not more accurate: on a CPU without bfloat16 instructions a
matrix product in bfloat16 takes nine times as long as in float32. Intel's AVX512-BF16 without AMX
(many virtual machines hide AMX) is slower as well: it takes 1.1 to 1.9 times float32's time. Every
half precision number is a float32 number, so the weights keep their exact values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Keys of `torch.cpu.get_capabilities` on x86, of which one is needed for a dtype's products.
_X86 = {"bfloat16": ("avx512_bf16", "amx_bf16"), "float16": ("avx512_fp16", "amx_fp16")}
_INTEL = _X86 | {"bfloat16": ("amx_bf16",)}


def compute_dtype(wanted: str, device: str) -> Any:
    """Return the `torch.dtype` to compute in.

    Args:
        wanted: `float32`, `bfloat16` or `float16`.
        device: `cpu` or `cuda`.
    """
    import torch

    return getattr(torch, wanted) if _is_fast(wanted, device) else torch.float32


def notice(wanted: str, device: str) -> str | None:
    """Return a line that says why another dtype than the wanted one is used; None if it is used.

    Args:
        wanted: `float32`, `bfloat16` or `float16`.
        device: `cpu` or `cuda`.
    """
    if _is_fast(wanted, device):
        return None
    return (
        f"model.dtype: {wanted} has no fast arithmetic on this {_NAMES[device]}; "
        "computing in float32 (the weights are the same numbers, in twice the memory)"
    )


_NAMES = {"cpu": "CPU", "cuda": "GPU"}


def _is_fast(wanted: str, device: str) -> bool:
    import torch

    if wanted == "float32":
        return True
    if device == "cuda":
        return wanted == "float16" or torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    if capabilities.get("architecture") == "x86_64":
        return x86_has(wanted, capabilities)
    half: Any = torch.ops.mkldnn
    check = {"bfloat16": "_is_mkldnn_bf16_supported", "float16": "_is_mkldnn_fp16_supported"}
    return bool(getattr(half, check[wanted])())


def x86_has(wanted: str, capabilities: Mapping[str, Any]) -> bool:
    """Return whether an x86 CPU multiplies matrices of a half precision dtype fast.

    Args:
        wanted: `bfloat16` or `float16`.
        capabilities: what `torch.cpu.get_capabilities` returns.
    """
    intel = "Intel" in str(capabilities.get("cpu_name", ""))
    return any(capabilities.get(name) for name in (_INTEL if intel else _X86)[wanted])
