"""The process that runs points one after another: `python -m studies.timed.worker`.

It reads the name of a point from each line of standard input and answers with one line of JSON:
the point's machine, versions and seconds, or its error. Importing the libraries and starting CUDA
takes longer than a small point, so a worker runs many points.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import traceback
from typing import Any

from lori_core.core.errors import LoriError, one_line
from lori_core.core.processes import stopping


def main() -> None:
    """Answer each line of standard input until it ends."""
    from flows.environment import quiet_libraries
    from lori_core.core.redaction import redact_logs

    # Libraries print to standard output; the answers go to a copy of it, and prints to the log.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    quiet_libraries()
    redact_logs()
    with stopping.handled(owned=True):
        _prepare()
        for line in sys.stdin:
            answers.write(json.dumps(_answer(line.strip())) + "\n")
            answers.flush()


def _prepare() -> None:
    """Limit this process to its share of the machine, and load the extensions of params.yaml."""
    from lori_core.core.processes import allotment
    from lori_core.pipeline import params_file

    allotment.apply_limits()
    if params_file.PARAMS.is_file():
        params_file.load()


def _answer(name: str) -> dict[str, Any]:
    """Run a point; return what the parent process records about it.

    `broken` says that this process can use its GPU no more and has to be replaced.
    """
    answer = _run(name)
    return answer | {"broken": not _free_memory()}


def _run(name: str) -> dict[str, Any]:
    from lori_core.core import faults
    from lori_core.core.tracking import stage_tracker
    from lori_core.training.memory import lacks_memory
    from studies import stages
    from studies.collecting import machine
    from studies.timed.records import versions

    start, tracker = time.monotonic(), stage_tracker(name)
    try:
        stages.run(name, tracker)
    except Exception as error:
        traceback.print_exc()
        known = faults.explained(error)
        text = str(known) if known else f"{type(error).__name__}: {error}"
        code = known.exit_code if known else LoriError.exit_code
        tracker.error(text, code)
        lacking = lacks_memory(error)
        return {"error": one_line(text), "exit_code": code, "lacks_memory": lacking}
    seconds = time.monotonic() - start
    return {"machine": machine(), "versions": versions(), "seconds": seconds}


def _free_memory() -> bool:
    """Return the memory of a finished point, which other processes on the GPU may need.

    Returns:
        Whether the GPU still works for this process: after an illegal memory access or a failed
        assertion in a kernel, every later call of CUDA fails.
    """
    import torch

    gc.collect()
    if not torch.cuda.is_initialized():
        return True
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except RuntimeError:
        traceback.print_exc()
        return False
    return True


if __name__ == "__main__":
    main()
