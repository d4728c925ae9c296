"""`lori compare`: artifacts of any snapshots side by side, by the verdicts of their evaluations."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.lineage.ancestry import Lineage
from flows.lineage.named import Named
from flows.lineage.problem import refuse
from flows.lineage.verification.verify import verify
from flows.lineage.why import lineage_of, resolve
from flows.serving.comparability import difference, evaluation_tags
from flows.serving.evidence import files_by_task
from flows.serving.packaging import tags_of
from flows.tracking import registry as reg
from flows.tracking import rows as rows_files
from flows.tracking.rows import Shipment, new_rows_file
from flows.versioning.objects import Objects
from flows.versioning.snapshot import LOCK, of_workspace
from lori_core.adapters import output_folder
from lori_core.core.errors import DataError, InputError
from lori_core.core.tracking import where
from lori_core.report import side_by_side

FOLDER = Path("compare")


def compare(
    words: Sequence[str], workspace: Path, out: Path, *, force: bool = False
) -> dict[str, Any]:
    """Compare models; write a page, a table and the numbers, also as rows for MLflow.

    Args:
        words: artifacts as `lori why` takes them, or folders of verdicts (`<task>.jsonl`) of
            `lori evaluate`; the others are compared with the first.
        workspace: the folder that paths are relative to.
        out: the output folder; see `output_folder.claim`.
        force: whether to replace whatever is in it.

    Raises:
        InputError: there are fewer than two models, or one was not evaluated.
        DataError: two models share no item of a task, had other settings or scoring code, or files
            differ from what was recorded.
    """
    if len(words) < 2:
        raise InputError("compare: name two models or more; the others are compared with the first")
    if len(set(words)) < len(words):
        raise InputError("compare: a model is named twice; name different models")
    inputs = [workspace / word for word in words if (workspace / word).exists()]
    output_folder.check(out, output_folder.COMPARISON, inputs, force=force)
    with reg.scratch() as folder:
        models, about, evaluations = {}, [], []
        for number, word in enumerate(words):
            files, line, tags = _verdicts(word, workspace, folder / str(number))
            models[word.removeprefix("artifacts/")] = files
            about.append(line)
            evaluations.append(tags)
        _check_alike(words, evaluations)
        built = side_by_side.build(models)
        with output_folder.claim(out, output_folder.COMPARISON, inputs, force=force) as work:
            side_by_side.write(built, work, about)
    _record(built, workspace, out)
    return built


def _check_alike(words: Sequence[str], evaluations: Sequence[Mapping[str, str]]) -> None:
    """Refuse models that were evaluated with other settings or scoring code than the first."""
    for word, tags in zip(words[1:], evaluations[1:], strict=True):
        found = difference(words[0], evaluations[0], word, tags)
        if found is not None:
            raise DataError(
                f"{found}: they cannot be compared; evaluate both alike with lori run, or compare "
                "the folders in which lori rejudge judges both models' safety sets again"
            )


def _verdicts(
    word: str, workspace: Path, scratch: Path
) -> tuple[dict[str, Path], str, Mapping[str, str]]:
    """Return the verdicts by task, a line about the model, and the tags of its evaluation."""
    folder = workspace / word
    if folder.is_dir() and any(folder.glob("*.jsonl")):
        tags = _check_folder(folder, workspace)
        files = {path.stem: path for path in folder.glob("*.jsonl") if "." not in path.stem}
        return files, f"{word}: verdicts of lori evaluate", tags
    named = resolve(word, workspace)
    if named.path is None:
        raise InputError(f"{word}: names a whole snapshot; name one model of it")
    lineage = lineage_of(named, remote=False)
    if named.snapshot.here:
        _refuse_damaged(lineage)
    node = lineage.nodes[named.path]
    line = f"{word}: {node.kind}, content key {node.key[:12]}, {named.snapshot.label}"
    tags = tags_of(node, lineage)
    return _restored(named, tags, scratch), line, tags


def _check_folder(folder: Path, workspace: Path) -> dict[str, str]:
    """Compare a stage's verdicts with what was recorded; return the tags of its evaluation.

    Other verdicts have no record, and no tags.
    """
    if not (workspace / LOCK).is_file() or not folder.resolve().is_relative_to(workspace.resolve()):
        return {}
    snapshot = of_workspace(workspace)
    inside = folder.resolve().relative_to(workspace.resolve())
    outs = [str(path) for path in (inside, *inside.parents) if str(path) in snapshot.producers]
    if not outs:
        return {}
    _refuse_damaged(Lineage(snapshot, Objects(workspace, remote=False), outs))
    return evaluation_tags(snapshot.producers[outs[0]], snapshot)


def _refuse_damaged(lineage: Lineage) -> None:
    damaged = [problem for problem in verify(lineage) if not problem.stale]
    what = "cannot be compared: files differ from what was recorded"
    refuse(damaged, f"{lineage.targets[0]} {what}")


def _restored(named: Named, tags: Mapping[str, str], scratch: Path) -> dict[str, Path]:
    """Return the verdicts of an artifact: those here, else from the cache or the remote."""
    path, snapshot = str(named.path), named.snapshot
    evaluation = tags.get(reg.EVALUATION)
    if evaluation is None:
        raise InputError(f"{path}: was not evaluated as it is in {snapshot.label}; lori run")
    folder, _, md5 = evaluation.partition("=")
    if snapshot.here and (snapshot.workspace / folder).is_dir():
        return files_by_task(snapshot.workspace / folder, path)
    Objects(snapshot.workspace).restore(md5, scratch / "evaluation", f"the verdicts of {path}")
    return files_by_task(scratch / "evaluation", path)


def _record(built: dict[str, Any], workspace: Path, out: Path) -> None:
    """Write rows with the scores and the page, which are sent to MLflow like a stage's."""
    rows = new_rows_file(workspace, "compare")
    name = f"compare {time.strftime('%Y-%m-%d %H:%M:%S')}"
    Shipment(Shipment.of(rows).path, tags={"mlflow.runName": name}).save()
    rows_files.append(rows, "start", stage="compare", pid=os.getpid(), where=where())
    rows_files.append(rows, "params", values={"models": built["models"]})
    scores = {
        f"score.{task.replace(', ', '.')}.{number}": score["score"]
        for task, by_model in built["scores"].items()
        for number, score in enumerate(by_model.values())
    }
    rows_files.append(rows, "metrics", values=scores, step=None)
    place = out.resolve()
    inside = place.is_relative_to(workspace.resolve())
    path = place.relative_to(workspace.resolve()) if inside else place
    rows_files.append(rows, "artifact", path=str(path), name="compare")
    rows_files.append(rows, "end")
