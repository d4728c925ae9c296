"""Forecast the GPU memory of stages: `python -m flows.execution.demand CARD STAGE…`.

The forecast runs in a process of its own, because it imports the stages' libraries; the flow's
process stays small.
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
    """Return for each stage the peak bytes that torch allocates on a GPU.

    Stages whose memory cannot be forecast are left out.

    Args:
        params: the parameters of the run.
        stages: the names of the stages.
        data: the folder of the pulled data.
        card: the GPU that the stages run on.
    """
    from lori_core import cost

    # The forecast of memory does not depend on the device's speed.
    device = cost.Device("GPU", 1.0, 1.0, card.memory, bfloat16=card.bfloat16)
    model = cost.Model(params, cost.count_splits(params, data), device)
    # vLLM reserves nearly all memory of a GPU for its cache, whatever the model needs.
    greedy = find_spec("vllm") is not None and params.evaluation.engine != "transformers"
    return {
        stage: model.stage(stage).memory
        for stage in stages
        if model.knows(stage) and not (greedy and stage.startswith("evaluate"))
    }


def shares(
    run: PipelineRun, stages: Sequence[Stage], card: Card | None, most: int
) -> dict[str, Share]:
    """Return each stage's share of a GPU; a stage that is left out gets whole GPUs.

    Args:
        run: the pipeline run, whose settings are used.
        stages: the stages that will run.
        card: the memory and arithmetic of each GPU; None where they are not known.
        most: the largest number of stages that may run on a GPU at once.
    """
    single = [stage.name for stage in stages if stage.gpus == 1]
    if card is None or len(single) < 2 or most < 2:
        return {}
    memory = forecast_apart(run.workspace, single, card, run.warn)
    return sharing.shares(memory, card.memory, most)


def forecast_apart(
    workspace: Path, stages: Sequence[str], card: Card, warn: Callable[[str], None]
) -> dict[str, float]:
    """Run `forecast` in a process of its own; return an empty result and warn if it fails."""
    arguments = [json.dumps([card.memory, card.bfloat16]), *stages]
    command = [
        sys.executable,
        "-m",
        "lori_core.core.processes.forked",
        "flows.execution.demand",
        *arguments,
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
        memory: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    except (OSError, ValueError, IndexError, subprocess.SubprocessError) as error:
        output = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        warn(
            "each stage has a GPU to itself: the memory that stages need cannot be forecast "
            f"({output[-1] if output else type(error).__name__})"
        )
        return {}
    return memory


def main(arguments: Sequence[str]) -> None:
    """Print the forecast as JSON on the last line of standard output."""
    from lori_core.pipeline import params_file

    card, *stages = arguments
    memory = forecast(params_file.load(), stages, Path("data"), Card(*json.loads(card)))
    print(json.dumps(memory))


if __name__ == "__main__":
    main(sys.argv[1:])
