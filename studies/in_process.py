"""The experiments' points one after another in this process: no flow, no process a point.

Where points are small, most of a process's time is its start: imports, and reading the base. What
ran is committed to DVC at once, so that the flow, `dvc repro` and the next call find it done.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flows.environment import quiet_environment
from flows.versioning import graph
from flows.versioning.dvc.dvc_repo import opened


def run_points(workspace: Path, say: Callable[[str], None]) -> int:
    """Run what is stale of the experiments' stages; return how many stages ran.

    Raises:
        LoriError: as the point that failed; those before it are kept.
    """
    quiet_environment()
    from lori_core.core.tracking import stage_tracker
    from studies import stages

    plan = graph.plan(workspace, graph.EXPERIMENTS)
    waiting = [stage for stage in plan.stages if stage.name in plan.stale]
    for number, stage in enumerate(waiting, start=1):
        point = stage.name.rpartition(":")[2]
        say(f"{number}/{len(waiting)} {point}")
        stages.run(point, stage_tracker(point))
        with opened(workspace) as repo:
            repo.commit(stage.name, force=True)
    return len(waiting)
