"""What training takes of memory, and what to say when there is not enough."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from lori_core.core.errors import LoriError


class MemoryLackingError(LoriError):
    """A batch did not fit into memory."""


def memory_gb() -> float:
    """Return the peak memory so far in GB: of the GPU where there is one, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


@contextmanager
def fitting(inputs: Mapping[str, Any], step: int) -> Iterator[None]:
    """Say which setting to lower where a batch does not fit.

    Args:
        inputs: the batch.
        step: its optimizer step.

    Raises:
        MemoryLackingError: in place of torch's own errors about memory, on the CPU and on CUDA.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _about_memory(error):
            raise
        tokens = inputs["input_ids"].numel()
        raise MemoryLackingError(
            f"training step {step}: a batch of {tokens} tokens does not fit into memory; lower "
            "training.batch_size and raise training.gradient_accumulation_steps by as much (the "
            "result is the same), or set training.gradient_checkpointing: true"
        ) from None


#: How torch's allocators, C++ and CUDA's libraries say it, where the error's type does not.
_SAID = ("can't allocate memory", "bad_alloc", "CUDA error: out of memory", "ALLOC_FAILED")


def _about_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _SAID)
