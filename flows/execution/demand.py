"""The GPU memory that stages are forecast to take: `python -m flows.execution.demand CARD STAGE…`.

In a process of its own, since it imports what stages do: the flow's process stays small.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from flows.environment import child_environment
from flows.execution import sharing
from flows.execution.gpu_slots import Card
from flows.execution.sharing import Share

if TYPE_CHECKING:
    from flows.execution.stage_run import PipelineRun
    from flows.versioning.graph import Stage
    from lori_core.config import Params

#: How long a forecast may take; without one each stage has a GPU to itself.
SECONDS = 300.0


def forecast(params: Params, stages: Sequence[str], data: Path, card: Card) -> dict[str, float]:
    """Return by stage the bytes that torch will allocate on a GPU at most, as far as is known.

    Args:
        params: the run.
        stages: their names.
        data: the folder of the pulled data.
        card: what they run on.
    """
    from lori_core import cost

    # Of the device only what decides memory matters here.
    device = cost.Device("GPU", 1.0, 1.0, card.memory, bfloat16=card.bfloat16)
    model = cost.Model(params, cost.count_splits(params, data), device)
    # vLLM takes nearly all memory of a card for its cache, whatever it needs.
    greedy = find_spec("vllm") is not None and params.evaluation.engine != "transformers"
    return {
        stage: model.stage(stage).memory
        for stage in stages
        if model.knows(stage) and not (greedy and stage.startswith("evaluate"))
    }


def shares(
    run: PipelineRun, stages: Sequence[Stage], card: Card | None, most: int
) -> dict[str, Share]:
    """Return the shares that stages get of GPUs; one that is left out has whole ones.

    Args:
        run: whose settings count.
        stages: those that will run.
        card: what each GPU has; None where that is not known.
        most: stages that may run on a GPU at once.
    """
    single = [stage.name for stage in stages if stage.gpus == 1]
    if card is None or len(single) < 2 or most < 2:
        return {}
    memory = ask(run.workspace, single, card, run.warn)
    return sharing.shares(memory, card.memory, most)


def ask(
    workspace: Path, stages: Sequence[str], card: Card, warn: Callable[[str], None]
) -> dict[str, float]:
    """Return `forecast` for a workspace; empty, with a warning, where there is none."""
    words = [json.dumps([card.memory, card.bfloat16]), *stages]
    command = [
        sys.executable,
        "-m",
        "lori_core.core.processes.forked",
        "flows.execution.demand",
        *words,
    ]
    try:
        done = subprocess.run(
            command,
            cwd=workspace,
            env=dict(child_environment(CUDA_VISIBLE_DEVICES="")),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=True,
        )
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    except (OSError, ValueError, IndexError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        warn(
            "each stage has a GPU to itself: the memory that stages need cannot be forecast "
            f"({said[-1] if said else type(error).__name__})"
        )
        return {}
    return found


def main(arguments: Sequence[str]) -> None:
    """Print the forecast as JSON, the last line."""
    from lori_core.pipeline import params_file

    card, *stages = arguments
    found = forecast(params_file.load(), stages, Path("data"), Card(*json.loads(card)))
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
