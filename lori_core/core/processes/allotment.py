"""Limit a stage's process to its share of a GPU's memory and of the CPU's threads.

The process that starts the stage sets the limits in environment variables. Without them the stage
may use the whole machine.
"""

from __future__ import annotations

import os

#: Bytes of GPU memory that torch may allocate in this process.
MEMORY = "LORI_GPU_MEMORY"
#: CPU threads that torch may use in this process.
THREADS = "LORI_THREADS"
#: Variables in which users set the number of threads themselves.
OWN_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def apply_limits() -> None:
    """Apply the limits in the environment to this process.

    A number of threads that the user set takes precedence. If a GPU has less memory than the limit,
    all of its memory may be used.
    """
    memory, threads = int(os.environ.get(MEMORY, 0)), int(os.environ.get(THREADS, 0))
    if not memory and not threads:
        return
    import torch

    if threads and not any(name in os.environ for name in OWN_THREADS):
        torch.set_num_threads(threads)
    if memory and torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, memory / total), 0)
