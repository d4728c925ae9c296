"""The pipeline's stages: parameters and paths in, paths and metrics out. `dvc.yaml` calls these.

A stage writes its metrics last, and they hold only what the inputs decide: no times, no speeds.
Those go to the tracker.
"""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lori_core import source_code
from lori_core.config import Params
from lori_core.errors import InputError, unknown
from lori_core.files import digest, sha256_file, write_json
from lori_core.phases import PHASES
from lori_core.tracking import RunTracker

if TYPE_CHECKING:
    from lori_core.adapter import Adapter
    from lori_core.session import Session
    from lori_core.training import TrainingResult
    from lori_core.tuned import Tuned

ARTIFACTS = Path("artifacts")
METRICS = Path("metrics")
REPORT = Path("report")
EVALUATIONS = ARTIFACTS / "evaluations"
#: Stands in the place of what a task's method has no use for.
UNUSED = "unused.json"
#: The row of a task's own adapter in its scores, whatever its method.
OWN = "lori-s"


def calibrated_path(task: str) -> Path:
    """Where a task's LoRI-D adapter is kept."""
    return ARTIFACTS / task / "calibrated"


def mask_path(task: str) -> Path:
    """Where a task's mask is kept."""
    return ARTIFACTS / task / "mask.safetensors"


def adapter_path(task: str) -> Path:
    """Where a task's LoRI-S adapter is kept."""
    return ARTIFACTS / task / "adapter"


def continual_path(task: str) -> Path:
    """Where a task's safety-preserving adapter is kept."""
    return ARTIFACTS / "continual" / task / "adapter"


def merged_path(name: str) -> Path:
    """Where a merged adapter is kept."""
    return ARTIFACTS / "merged" / name


def calibrate(params: Params, task: str, tracker: RunTracker) -> None:
    """Train the dense LoRI-D adapter whose B the mask is taken from."""
    from lori_core import calibration
    from lori_core.files import replaced_folder
    from lori_core.session import open_session

    if not uses_masks(params, task):
        with replaced_folder(calibrated_path(task)) as work:
            write_json(work / UNUSED, {"method": params.tasks[task].method_name})
        _write_metrics(METRICS / "calibrate", task, _unused(params, task), tracker)
        return
    session = open_session(params)
    stage = f"calibrate@{task}"
    adapter, result = calibration.calibrate(session, task, stage, tracker)
    _keep(session, adapter, result, calibrated_path(task), METRICS / "calibrate", task, tracker)


def mask(params: Params, task: str, tracker: RunTracker) -> None:
    """Take the task's mask: the top of B by importance, exactly."""
    from lori_core import adapter_file, mask_file
    from lori_core.calibration import take_mask
    from lori_core.session import open_session

    if not uses_masks(params, task):
        write_json(mask_path(task), {"method": params.tasks[task].method_name})
        _write_metrics(METRICS / "mask", task, _unused(params, task), tracker)
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
    _write_metrics(METRICS / "mask", task, {**facts, "kept": kept}, tracker)


def uses_masks(params: Params, task: str) -> bool:
    """Say whether a task's method calibrates a mask and trains inside it."""
    return params.tasks[task].method_name == "lori-s"


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
    _keep(session, trained, result, adapter_path(task), METRICS / "train", task, tracker)


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
    _keep(session, adapter, result, continual_path(task), METRICS / "continual", task, tracker)


def merge(params: Params, name: str, tracker: RunTracker) -> None:
    """Merge the tasks' adapters."""
    from lori_core import adapter_file, merging
    from lori_core.merge_methods import Options

    section = params.merge[name]
    parents = [adapter_file.load(adapter_path(task)) for task in params.merged_tasks(name)]
    options = Options(**section.model_dump(include={"density", "majority_sign", "rank", "seed"}))
    merged = merging.merge(section.method, parents, params.merge_weights(name), options)
    adapter_file.save(merged, merged_path(name))
    facts = _adapter_facts(merged, merged_path(name))
    _write_metrics(METRICS / "merge", name, facts, tracker)


def interference(params: Params, tracker: RunTracker) -> None:
    """Compare each pair of the tasks' adapters, and of LoRI-D ones."""
    from lori_core import adapter_file
    from lori_core import interference as measures
    from lori_core.methods import METHODS

    low_rank = [t for t, s in params.tasks.items() if METHODS[s.method_name].result == "low-rank"]
    sparse = {task: adapter_file.load(adapter_path(task)) for task in low_rank}
    masked = [task for task in low_rank if uses_masks(params, task)]
    dense = {task: adapter_file.load(calibrated_path(task)) for task in masked}
    sides = {OWN: sparse, "lori-d": dense}
    facts = {n: measures.compare(side) if len(side) > 1 else {} for n, side in sides.items()}
    _write_metrics(METRICS, "interference", facts, tracker)


def evaluate_base(params: Params, tracker: RunTracker) -> None:
    """Score the base model on all tasks."""
    _evaluate(params, tracker, "base", "", {"base": (None, list(params.tasks))})


def evaluate_adapters(params: Params, task: str, tracker: RunTracker) -> None:
    """Score a task's adapter on the task, and the LoRI-D adapter its mask came from."""
    paths = {"lori-d": calibrated_path(task)} if uses_masks(params, task) else {}
    paths[OWN] = adapter_path(task)
    _evaluate(params, tracker, "adapters", task, {row: (p, [task]) for row, p in paths.items()})


def evaluate_merged(params: Params, name: str, tracker: RunTracker) -> None:
    """Score a merged adapter on all tasks."""
    _evaluate(params, tracker, "merged", name, {name: (merged_path(name), list(params.tasks))})


def excess(params: Params, name: str, tracker: RunTracker) -> None:
    """Measure what a merge costs each of its tasks in held-out loss (eq. 3)."""
    from lori_core import adapter_file
    from lori_core.data.sources import read_held_out
    from lori_core.evaluation.excess import excess as measure
    from lori_core.session import open_session

    session = open_session(params)
    weights = zip(params.merged_tasks(name), params.merge_weights(name), strict=True)
    parents = {task: (adapter_file.load(adapter_path(task)), weight) for task, weight in weights}
    examples = {task: read_held_out(task) for task in parents}
    for task in [task for task in parents if not any(e.target for e in examples[task])]:
        print(f"{task}: no held-out example has a target; its loss is left out", file=sys.stderr)
        del parents[task]
    found = measure(session, adapter_file.load(merged_path(name)), parents, examples, name)
    tracker.metrics({f"excess.{task}": row["excess"] for task, row in found["excess"].items()})
    write_json(METRICS / "excess" / f"{name}.json", found)


def evaluate_continual(params: Params, task: str, tracker: RunTracker) -> None:
    """Score a safety-preserving adapter on its task and on safety."""
    tasks = [task, str(params.continual.safety_task)]
    _evaluate(params, tracker, "continual", task, {"continual": (continual_path(task), tasks)})


def report(params: Params, tracker: RunTracker) -> None:
    """Draw the pictures, the page, and the table that ends a run."""
    from lori_core.report import page

    summary = page.write(params, METRICS, EVALUATIONS, REPORT)
    tracker.metrics(summary["metrics"])
    tracker.artifact(REPORT)


def _keep(
    session: Session,
    adapter: Adapter | Tuned,
    result: TrainingResult,
    path: Path,
    metrics: Path,
    task: str,
    tracker: RunTracker,
) -> None:
    """Save what was trained and its metrics, then forget the checkpoints."""
    from lori_core import tuned
    from lori_core.session import forget_checkpoints

    tuned.save_model(adapter, path)
    facts = _adapter_facts(adapter, path) | asdict(result)
    facts["trainable_share"] = result.trainable_parameters / session.parameters
    facts["method"] = adapter.info["method"]
    _write_metrics(metrics, task, facts, tracker)
    forget_checkpoints(adapter.info["stage"])
    tracker.artifact(path)


def _adapter_facts(adapter: Adapter | Tuned, path: Path) -> dict[str, Any]:
    from lori_core.tuned import facts

    recipe = adapter.info.get("recipe", adapter.info)
    kept = {"content_key": recipe["content_key"], "parents": _parent_keys(recipe)}
    return facts(adapter, path) | kept


def _parent_keys(recipe: dict[str, Any]) -> list[str]:
    """Return the content keys of what an adapter was trained on top of, or merged from."""
    parents = recipe["parents"]
    return [parent["content_key"] if isinstance(parent, dict) else parent for parent in parents]


def _evaluate(
    params: Params,
    tracker: RunTracker,
    group: str,
    item: str,
    rows: dict[str, tuple[Path | None, list[str]]],
) -> None:
    from lori_core.data.sources import read_examples
    from lori_core.evaluation.evaluate import evaluate
    from lori_core.files import replaced_folder
    from lori_core.session import open_session
    from lori_core.tuned import open_model

    session = open_session(params)
    results: dict[str, Any] = {}
    with replaced_folder(EVALUATIONS / group / item) as work:
        for row, (path, tasks) in rows.items():
            adapter = None if path is None else open_model(path)
            started = time.monotonic()
            sets = {task: read_examples(task, "test") for task in tasks}
            results[row] = evaluate(session, adapter, sets, row, work)
            tracker.metrics({f"seconds.{row}": time.monotonic() - started})
    for row, tasks_scores in results.items():
        for task, scores in tasks_scores.items():
            prefix = f"{row}." if len(results) > 1 else ""
            known = {k: scores[k] for k in ("score", "low", "high") if scores[k] is not None}
            tracker.metrics({f"{prefix}{key}.{task}": value for key, value in known.items()})
    write_json(METRICS / "evaluate" / group / f"{item or 'base'}.json", results)


def _write_metrics(folder: Path, item: str, facts: dict[str, Any], tracker: RunTracker) -> None:
    numbers = {
        name: value
        for name, value in facts.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
    tracker.metrics(numbers)
    tracker.tags({f"lori.{n}": v for n, v in facts.items() if isinstance(v, str)})
    write_json(folder / f"{item}.json", facts)


STAGES: dict[str, Callable[..., None]] = {
    "calibrate": calibrate,
    "mask": mask,
    "train": train,
    "continual": continual,
    "merge": merge,
    "interference": interference,
    "evaluate_base": evaluate_base,
    "evaluate_adapters": evaluate_adapters,
    "evaluate_merged": evaluate_merged,
    "evaluate_continual": evaluate_continual,
    "excess": excess,
    "report": report,
}


def run(params: Params, name: str, item: str | None, tracker: RunTracker) -> None:
    """Run one stage, reporting its parameters, data and end to the tracker.

    Raises:
        InputError: for a stage or item that does not exist.
    """
    if name not in STAGES:
        raise InputError(unknown("stage", name, STAGES))
    function = STAGES[name]
    items = _items(params, name)
    takes_item = "task" in inspect.signature(function).parameters or name in (
        "merge",
        "evaluate_merged",
        "excess",
    )
    if takes_item and item not in items:
        raise InputError(f"stage {name}: {unknown('item', str(item), items)}")
    if not takes_item and item is not None:
        raise InputError(f"stage {name} takes no item, got {item!r}")
    tracker.start(f"{name}@{item}" if item else name)
    tracker.params(_stage_params(params, name, item))
    _report_data(params, item, tracker)
    function(params, item, tracker) if takes_item else function(params, tracker)
    tracker.end()


def _items(params: Params, name: str) -> list[str]:
    if name in ("merge", "evaluate_merged", "excess"):
        return list(params.merge)
    if name in ("continual", "evaluate_continual"):
        return list(params.continual.tasks)
    return list(params.tasks)


def _stage_params(params: Params, name: str, item: str | None) -> dict[str, Any]:
    """Return the parameters a stage depends on, as MLflow shall show them."""
    values: dict[str, Any] = {
        "model": params.model.model_dump(),
        "lori": params.lori.model_dump(),
        "task": item or "",
        "stage": name,
    }
    if name in PHASES and item:
        values["training"] = params.phase(item, PHASES[name]).model_dump()
        method = params.tasks[item].method_name
        values["method"] = {"calibrate": "lori-d", "train": method}.get(name, f"{method}-continual")
    if name == "merge" and item:
        values["merge"] = params.merge[item].model_dump()
    return values


def _report_data(params: Params, item: str | None, tracker: RunTracker) -> None:
    from lori_core.data.sources import DATA

    for task in [item] if item in params.tasks else []:
        for split in ("train", "test"):
            path = DATA / str(task) / f"{split}.jsonl"
            if path.is_file():
                with path.open("rb") as lines:
                    rows = sum(line.endswith(b"\n") for line in lines)
                tracker.dataset(f"{task}/{split}", sha256_file(path), str(path), rows)
