"""The stages that make adapters: calibrate, mask, train, continual, merge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lori_core import source_code
from lori_core.config import Params
from lori_core.files import digest, write_json
from lori_core.stages.results import (
    METRICS,
    adapter_facts,
    adapter_path,
    calibrated_path,
    continual_path,
    keep,
    mask_path,
    merged_path,
    uses_masks,
    write_metrics,
)
from lori_core.tracking import RunTracker

if TYPE_CHECKING:
    from lori_core.adapter import Adapter
    from lori_core.session import Session
    from lori_core.training import TrainingResult
    from lori_core.tuned import Tuned

#: Stands in the place of what a task's method has no use for.
UNUSED = "unused.json"


def calibrate(params: Params, task: str, tracker: RunTracker) -> None:
    """Train the dense LoRI-D adapter whose B the mask is taken from."""
    from lori_core import calibration
    from lori_core.files import replaced_folder
    from lori_core.session import open_session

    if not uses_masks(params, task):
        with replaced_folder(calibrated_path(task)) as work:
            write_json(work / UNUSED, {"method": params.tasks[task].method_name})
        write_metrics(METRICS / "calibrate", task, _unused(params, task), tracker)
        return
    session = open_session(params)
    stage = f"calibrate@{task}"
    adapter, result = calibration.calibrate(session, task, stage, tracker)
    keep(session, adapter, result, calibrated_path(task), METRICS / "calibrate", task, tracker)


def mask(params: Params, task: str, tracker: RunTracker) -> None:
    """Take the task's mask: the top of B by importance, exactly."""
    from lori_core import adapter_file, mask_file
    from lori_core.calibration import take_mask
    from lori_core.session import open_session

    if not uses_masks(params, task):
        write_json(mask_path(task), {"method": params.tasks[task].method_name})
        write_metrics(METRICS / "mask", task, _unused(params, task), tracker)
        return
    calibrated = adapter_file.load(calibrated_path(task))
    chosen, threshold = take_mask(lambda: open_session(params), calibrated, params.lori, task)
    facts = {
        "sparsity": str(params.lori.exact_sparsity()),
        "scope": params.lori.mask_scope,
        "importance": params.lori.importance,
        "structure": params.lori.structure,
        "threshold": threshold,
        "count": chosen.count,
        "total": chosen.total,
        "calibration": str(calibrated.info["content_key"]),
    }
    facts["content_key"] = _mask_key(facts)
    mask_file.save(chosen, facts, mask_path(task))
    kept = {group: chosen.kept_by(group) for group in ("projection", "layer")}
    write_metrics(METRICS / "mask", task, {**facts, "kept": kept}, tracker)


def _unused(params: Params, task: str) -> dict[str, Any]:
    return {"method": params.tasks[task].method_name, "unused": True}


#: What decides a mask, besides the calibrated adapter's values.
_MASK_FACTS = ("calibration", "sparsity", "scope", "importance", "structure")


def _mask_key(facts: dict[str, Any]) -> str:
    """Return the digest of what a mask depends on: its calibration, how it was taken, by what."""
    chosen = {name: facts[name] for name in _MASK_FACTS}
    return digest(chosen | {"code": source_code.digests(source_code.MASK)})


def train(params: Params, task: str, tracker: RunTracker) -> None:
    """Train the task's adapter by its method: LoRI-S inside the mask, on the calibration's A."""
    from lori_core.session import open_session

    session = open_session(params)
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


def continual(params: Params, task: str, tracker: RunTracker) -> None:
    """Train a task on top of the safety adapter, inside the task's mask where it has one."""
    from lori_core import adapter_file, mask_file, tuning
    from lori_core.adapter import check_base
    from lori_core.continual import continue_training
    from lori_core.methods import LORI
    from lori_core.session import open_session

    session, stage = open_session(params), f"continual@{task}"
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


def merge(params: Params, name: str, tracker: RunTracker) -> None:
    """Merge the tasks' adapters."""
    from lori_core import adapter_file, merging
    from lori_core.merge_methods import Options

    section = params.merge[name]
    parents = [adapter_file.load(adapter_path(task)) for task in params.merged_tasks(name)]
    options = Options(**section.model_dump(include={"density", "majority_sign", "rank", "seed"}))
    merged = merging.merge(section.method, parents, params.merge_weights(name), options)
    adapter_file.save(merged, merged_path(name))
    facts = adapter_facts(merged, merged_path(name))
    write_metrics(METRICS / "merge", name, facts, tracker)
