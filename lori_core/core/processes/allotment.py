"""What a stage's process may use of a machine that it shares with other stages.

Whoever starts the process says it in variables of the environment. Nothing is said, and all is
there for it, where stages do not share.
"""

from __future__ import annotations

import os

#: Bytes of GPU memory that torch may allocate in this process.
MEMORY = "LORI_GPU_MEMORY"
#: Threads for work on the processor.
THREADS = "LORI_THREADS"
#: Where users say it themselves.
OWN_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def keep_to() -> None:
    """Take no more than what this process was allotted, from here on.

    A user's own number of threads counts more. On a GPU that has less memory than was allotted, all
    of it is used.
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
