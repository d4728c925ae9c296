"""Run the experiments' points one after another in this process, without the flow.

For small points, most of a process's time is its start: imports, and loading the base model. Each
finished point is committed to DVC at once, so that neither the flow, nor `dvc repro`, nor the next
call runs it again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flows.environment import quiet_environment
from flows.versioning import graph
from flows.versioning.dvc.dvc_repo import committing


def run_points(workspace: Path, say: Callable[[str], None]) -> int:
    """Run the stale stages of the experiments; return how many stages ran.

    Args:
        workspace: the folder of the workspace.
        say: called with a line before each stage.

    Raises:
        LoriError: a point failed; the points before it are committed.
    """
    quiet_environment()
    from lori_core.core.tracking import stage_tracker
    from studies import stages

    plan = graph.plan(workspace, graph.EXPERIMENTS)
    waiting = [stage for stage in plan.stages if stage.name in plan.stale]
    with committing(workspace) as commits:
        for number, stage in enumerate(waiting, start=1):
            point = stage.name.rpartition(":")[2]
            say(f"{number}/{len(waiting)} {point}")
            stages.run(point, stage_tracker(point))
            commits.save(stage.name)
            commits.write()
    return len(waiting)
