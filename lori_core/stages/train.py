"""`train`: a task's adapter by its method; LoRI-S inside the mask, on the calibration's A."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lori_core.config import Params
from lori_core.stages.base import open_base
from lori_core.stages.results import METRICS, adapter_path, calibrated_path, mask_path
from lori_core.stages.saving import keep
from lori_core.tracking import RunTracker

if TYPE_CHECKING:
    from lori_core.adapter import Adapter
    from lori_core.session import Session
    from lori_core.training import TrainingResult
    from lori_core.tuned import Tuned


def train(params: Params, task: str, tracker: RunTracker) -> None:
    """Train a task's adapter by the method that its section names."""

    session = open_base(params)
    trained, result = _train(session, task, f"train@{task}", tracker)
    keep(session, trained, result, adapter_path(task), METRICS / "train", task, tracker)


def _train(
    session: Session, task: str, stage: str, tracker: RunTracker
) -> tuple[Adapter | Tuned, TrainingResult]:
    from lori_core import calibration, tuning

    params = session.params
    method, section = params.tasks[task].method_name, params.phase(task, "training")
    if method == "lori-s":
        return _train_masked(session, task, stage, tracker)
    if method == "lori-d":
        return calibration.dense(session, task, section, stage, tracker)
    options = params.tasks[task].method_options
    run = tuning.Tuning(stage, task, method, options, section, params.lori.seed)
    return tuning.tune(session, run, tracker)


def _train_masked(
    session: Session, task: str, stage: str, tracker: RunTracker
) -> tuple[Adapter, TrainingResult]:
    from lori_core import adapter_file, mask_file
    from lori_core.adapter import check_base
    from lori_core.session import Phase, run_phase

    params = session.params
    chosen, _ = mask_file.load(mask_path(task))
    calibrated = adapter_file.load(calibrated_path(task))
    check_base(calibrated, session.base, str(calibrated_path(task)))
    chosen.check_shapes(calibrated.shapes, str(mask_path(task)))
    phase = Phase(
        stage=stage,
        task=task,
        section=params.phase(task, "training"),
        blocks=calibrated.blocks,
        mask=chosen,
        start=None,
        support=chosen,
        parents=(str(calibrated.info["content_key"]),),
    )
    return run_phase(session, phase, tracker)
