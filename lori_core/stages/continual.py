"""`continual`: learn a task on top of the safety adapter (METHOD, section 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lori_core.config import Params
from lori_core.stages.base import open_base
from lori_core.stages.results import (
    METRICS,
    adapter_path,
    continual_path,
    mask_path,
    uses_masks,
)
from lori_core.stages.saving import keep
from lori_core.tracking import RunTracker

if TYPE_CHECKING:
    from lori_core.adapter import Adapter
    from lori_core.tuned import Tuned


def continual(params: Params, task: str, tracker: RunTracker) -> None:
    """Train a task on top of the safety adapter, inside the task's mask where it has one."""
    from lori_core import adapter_file, mask_file, tuning
    from lori_core.adapter import check_base
    from lori_core.continual import continue_training
    from lori_core.methods import LORI

    session, stage = open_base(params), f"continual@{task}"
    path = adapter_path(str(params.continual.safety_task))
    safety = adapter_file.load(path)
    check_base(safety, session.base, str(path))
    method = params.tasks[task].method_name
    adapter: Adapter | Tuned
    if method in LORI:
        chosen = mask_file.load(mask_path(task))[0] if uses_masks(params, task) else None
        adapter, result = continue_training(session, safety, task, chosen, stage, tracker)
    else:
        section, options = params.phase(task, "continual"), params.tasks[task].method_options
        run = tuning.Tuning(stage, task, method, options, section, params.lori.seed, safety)
        adapter, result = tuning.tune(session, run, tracker)
    keep(session, adapter, result, continual_path(task), METRICS / "continual", task, tracker)
