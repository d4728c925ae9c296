"""`lori compare`: any artifacts, of any state, side by side by the verdicts that were kept."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flows.lineage.ancestry import Lineage
from flows.lineage.named import Named
from flows.lineage.problem import refuse
from flows.lineage.verification.verify import verify
from flows.lineage.why import lineage_of, resolve
from flows.serving.evidence import files_by_task
from flows.serving.packaging import tags_of
from flows.tracking import registry as reg
from flows.tracking import rows as rows_files
from flows.tracking.rows import Shipment, new_rows_file
from flows.versioning.objects import Objects
from flows.versioning.snapshot import LOCK, of_workspace
from lori_core.adapters import output_folder
from lori_core.core.errors import InputError
from lori_core.core.tracking import where
from lori_core.report import side_by_side

FOLDER = Path("compare")


def compare(
    words: Sequence[str], workspace: Path, out: Path, *, force: bool = False
) -> dict[str, Any]:
    """Compare models and write the page, the table and the numbers; MLflow gets them, too.

    Args:
        words: artifacts as `lori why` takes them, or folders of verdicts (`<task>.jsonl`) that
            `lori evaluate` left; the first is what the others are compared with.
        workspace: where paths begin.
        out: a folder; see `output_folder.claim`.
        force: whether whatever is in it is replaced.

    Raises:
        InputError: fewer than two, or one that was not evaluated.
        DataError: two share no item of a task, or one's files are not what was made.
    """
    if len(words) < 2:
        raise InputError("compare: name at least two models; the first is what others are held to")
    if len(set(words)) < len(words):
        raise InputError("compare: a model is named twice; each can only be held to others")
    inputs = [workspace / word for word in words if (workspace / word).exists()]
    output_folder.check(out, output_folder.COMPARISON, inputs, force=force)
    with reg.scratch() as folder:
        models, about = {}, []
        for number, word in enumerate(words):
            files, line = _verdicts(word, workspace, folder / str(number))
            models[word.removeprefix("artifacts/")] = files
            about.append(line)
        built = side_by_side.build(models)
        with output_folder.claim(out, output_folder.COMPARISON, inputs, force=force) as work:
            side_by_side.write(built, work, about)
    _record(built, workspace, out)
    return built


def _verdicts(word: str, workspace: Path, scratch: Path) -> tuple[dict[str, Path], str]:
    """Return the verdicts by task, and a line on where the model comes from."""
    folder = workspace / word
    if folder.is_dir() and any(folder.glob("*.jsonl")):
        _check_folder(folder, workspace)
        files = {path.stem: path for path in folder.glob("*.jsonl") if "." not in path.stem}
        return files, f"{word}: verdicts of lori evaluate"
    named = resolve(word, workspace)
    if named.path is None:
        raise InputError(f"{word}: names a whole state; name one model of it")
    lineage = lineage_of(named, remote=False)
    if named.state.here:
        _refuse_damaged(lineage)
    node = lineage.nodes[named.path]
    line = f"{word}: {node.kind}, content key {node.key[:12]}, {named.state.label}"
    return _restored(named, lineage, scratch), line


def _check_folder(folder: Path, workspace: Path) -> None:
    """Compare verdicts that a stage left with what was recorded; others have no record."""
    if not (workspace / LOCK).is_file() or not folder.resolve().is_relative_to(workspace.resolve()):
        return
    state = of_workspace(workspace)
    inside = folder.resolve().relative_to(workspace.resolve())
    outs = [str(path) for path in (inside, *inside.parents) if str(path) in state.makers]
    if outs:
        _refuse_damaged(Lineage(state, Objects(workspace, remote=False), outs))


def _refuse_damaged(lineage: Lineage) -> None:
    damaged = [problem for problem in verify(lineage) if not problem.stale]
    refuse(damaged, f"{lineage.targets[0]} cannot be compared: not what was made")


def _restored(named: Named, lineage: Lineage, scratch: Path) -> dict[str, Path]:
    """Return the verdicts of an artifact: those here, else from the cache or the remote."""
    path = str(named.path)
    said = tags_of(lineage.nodes[path], lineage).get(reg.EVALUATION)
    if said is None:
        raise InputError(f"{path}: was not evaluated as it is in {named.state.label}; lori run")
    folder, _, md5 = said.partition("=")
    if named.state.here and (named.state.workspace / folder).is_dir():
        return files_by_task(named.state.workspace / folder, path)
    Objects(named.state.workspace).restore(md5, scratch / "evaluation", f"the verdicts of {path}")
    return files_by_task(scratch / "evaluation", path)


def _record(built: dict[str, Any], workspace: Path, out: Path) -> None:
    """Leave rows from which MLflow gets the page, as it gets a stage's."""
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
