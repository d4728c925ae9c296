"""Measure the peak memory of training, and explain which setting to lower when it runs out."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lori_core.core.errors import LoriError

#: The settings that make a pass smaller.
LOWER_TOKENS = "training.tokens_at_once (the result is the same)"
LOWER_LENGTH = "training.max_length"
LOWER_BATCH = (
    "training.batch_size and raise training.gradient_accumulation_steps by as much (the result is "
    "the same)"
)


class MemoryLackingError(LoriError):
    """A batch did not fit into memory."""


def memory_gb() -> float:
    """Return the peak memory so far in GB (1e9 bytes): of the GPU if any, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


@contextmanager
def fitting(tokens: int, step: int, lower: str) -> Iterator[None]:
    """Turn an out-of-memory error of the block into one that names the setting to lower.

    Args:
        tokens: the tokens of the pass.
        step: the number of its optimizer step.
        lower: the setting to lower, as `LOWER_BATCH`.

    Raises:
        MemoryLackingError: memory ran out, on the CPU or on CUDA.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        raise MemoryLackingError(
            f"training step {step}: a batch of {tokens} tokens does not fit into memory; lower "
            f"{lower}, or set training.gradient_checkpointing: true"
        ) from None


#: Parts of the messages, in lower case, of torch, Triton, CUDA's libraries and the C library.
_MESSAGES = (
    "out of memory",
    "alloc_failed",
    "can't allocate memory",
    "cannot allocate memory",
    "bad_alloc",
)


def lacks_memory(error: BaseException) -> bool:
    """Return whether an error says that the memory of the GPU or of the machine was full."""
    if isinstance(error, (MemoryLackingError, MemoryError, torch.OutOfMemoryError)):
        return True
    return any(words in str(error).lower() for words in _MESSAGES)
