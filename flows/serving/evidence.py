"""The verified files that the gate judges by: the candidate, its evaluation, the champion's.

No file is trusted for its name or place. The files of a model and of its evaluation are compared
with their recorded hashes first, and the evaluation must have read these exact bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from flows.lineage import measured
from flows.lineage.ancestry import Lineage, Node
from flows.lineage.named import Named
from flows.lineage.problem import refuse
from flows.lineage.verification.verify import verify
from flows.lineage.why import lineage_of, resolve
from flows.serving.comparability import check_alike
from flows.tracking import registry as reg
from flows.tracking.logged_models import PATH
from flows.tracking.registry import Registry, Version
from flows.versioning.dvc.lock_file import StageEntry
from flows.versioning.objects import Objects
from flows.versioning.snapshot import Snapshot, leaves
from lori_core.config import Params
from lori_core.core.errors import DataError, InputError, LoriError
from lori_core.evaluation.gate_rules import Scored
from lori_core.evaluation.paired_comparison import score_rows
from lori_core.evaluation.rows import row_of
from lori_core.evaluation.scoring import setups

#: Sections of `params.yaml` that a served model needs.
SERVED = ("model", "prompt")


def artifact_here(word: str, workspace: Path, do: str) -> Named:
    """Return the artifact of this workspace that a word names.

    Args:
        word: the artifact, as `lori why` takes it.
        workspace: the folder of the workspace.
        do: what is to be done with it, for the message, e.g. `be registered`.

    Raises:
        InputError: the word names a commit, another workspace, a run or a registered model.
    """
    named = resolve(word, workspace)
    here = named.snapshot.here and _same(named.snapshot.workspace, workspace)
    if named.path is None or not here:
        raise InputError(f"{word}: only an artifact of the workspace as it is now can {do}")
    return named


def _same(first: Path, second: Path) -> bool:
    return first.resolve() == second.resolve()


def verified(named: Named, do: str, also: Iterable[str] = ()) -> tuple[Lineage, Node]:
    """Return an artifact's lineage and node after comparing all files here with their hashes.

    Args:
        named: an artifact of a workspace.
        do: what is to be done with it, for the message, e.g. `be judged`.
        also: further outputs to verify, with their lineage.

    Raises:
        DataError: files differ from what was recorded, or an input changed since.
    """
    lineage = lineage_of(named, remote=False)
    node = lineage.nodes[str(named.path)]
    what = f"{node.name} cannot {do}: files differ from what was recorded"
    refuse(verify(lineage, also, settings=False), what)
    _check_here(lineage, node, do)
    return lineage, node


def _check_here(lineage: Lineage, node: Node, do: str) -> None:
    """Refuse an artifact whose files, or those of its evaluation, are not in the workspace."""
    snapshot = lineage.snapshot
    measures = measured.measuring(snapshot, node.name, node.entry.md5)
    for name in (node.name, *(out for stage in measures for out in stage.outs)):
        if not (snapshot.workspace / name).exists():
            raise DataError(
                f"{name}: is not here, so {node.name} cannot {do}; dvc checkout, git checkout -- "
                f"{name}, or lori run"
            )


def check_settings(lineage: Lineage, params: Params, do: str) -> None:
    """Refuse if the base or the prompt in `params.yaml` differs from what a model was made with.

    Raises:
        InputError: the message names the first setting that differs.
    """
    now = dict(leaves({name: getattr(params, name).model_dump() for name in SERVED}))
    for node in lineage.nodes.values():
        for name, recorded in leaves(_with_defaults(params, node.params)):
            if name in now and now[name] != recorded:
                raise InputError(
                    f"params.yaml: {name} is {now[name]!r}, but {node.name} was made with "
                    f"{recorded!r}, so another model was measured than would {do}; put it back, or "
                    "lori run"
                )


def _with_defaults(params: Params, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recorded sections of base and prompt, with defaults for missing keys."""
    sections = {}
    for name in SERVED:
        if name in recorded:
            fields = type(getattr(params, name)).model_fields
            sections[name] = {n: f.get_default() for n, f in fields.items() if not f.is_required()}
            sections[name] |= recorded[name] or {}
    return sections


def safety_evaluation(snapshot: Snapshot, params: Params) -> StageEntry | None:
    """Return the stage that evaluated the adapter trained on safety alone; None if none did."""
    return snapshot.stages.get(f"evaluate_adapters@{params.continual.safety_task}")


def gather(lineage: Lineage, node: Node, params: Params) -> tuple[Scored, Scored | None]:
    """Return the verdicts of a verified candidate, and of the adapter trained on safety alone.

    Raises:
        InputError: the candidate was not evaluated as it is now.
        DataError: the verdicts are not here, or the two evaluations had different settings.
    """
    workspace = lineage.snapshot.workspace
    stage = measured.evaluation(lineage.snapshot, node.name, node.entry.md5)
    folder = measured.rows_of(stage)
    if stage is None or folder is None:
        raise InputError(f"{node.name}: was not evaluated as it is now; lori run evaluates it")
    ours = Scored(
        node.name,
        files_by_task(workspace / folder, node.name),
        _size(workspace / node.name) | _excess(lineage, node, params),
    )
    if params.gate.setups:
        ours = replace(ours, setups=_setups(ours, params))
    before = safety_evaluation(lineage.snapshot, params)
    if before is None:
        return ours, None
    check_alike(stage, before)
    task = str(params.continual.safety_task)
    files = files_by_task(workspace / str(measured.rows_of(before)), f"artifacts/{task}/adapter")
    return ours, Scored(f"{task} alone", {task: files[task]})


def _setups(candidate: Scored, params: Params) -> dict[str, dict[str, Path]]:
    """Return the verdicts in each of `gate.setups` by safety task, all with current settings."""
    if not candidate.safety_files:
        raise InputError(
            f"gate.setups: {candidate.name} was not evaluated on a safety task; choose another "
            "gate.candidate, or remove the set-ups"
        )
    found: dict[str, dict[str, Path]] = {name: {} for name in params.gate.setups}
    for task, path in candidate.safety_files.items():
        # An attack leaves harmless requests out, and a task of only these writes no file.
        harmful = score_rows(path) == "refuse"
        names = [n for n in found if harmful or params.setup_settings(n)["attack"] is None]
        for name, file in setups.verified_files(path, params, names).items():
            found[name][task] = file
    return found


def files_by_task(folder: Path, path: str) -> dict[str, Path]:
    """Return the files `<task>.jsonl` of an artifact's verdicts, by task.

    Args:
        folder: the folder of an evaluation.
        path: the artifact.

    Raises:
        DataError: there are none.
    """
    rows = [item.name for item in folder.iterdir() if item.is_dir()] if folder.is_dir() else []
    verdicts = sorted((folder / row_of(path, rows)).glob("*.jsonl")) if rows else []
    # `math.paper.jsonl` is the same task by another protocol.
    files = {item.stem: item for item in verdicts if "." not in item.stem}
    if not files:
        raise DataError(f"{folder}: no verdicts here; dvc checkout, or lori run evaluates again")
    return files


def _size(root: Path) -> dict[str, float]:
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    return {"size_mb": size / 1e6}


def _excess(lineage: Lineage, node: Node, params: Params) -> dict[str, float]:
    """Return each task's excess loss and retained gain, if they were measured of these bytes."""
    stage = excess_of(lineage, node)
    if stage is None:
        return {}
    entry = measured.metrics_of(stage)
    metrics = measured.read_metrics(lineage.snapshot, stage)
    if stage.deps[node.name].md5 == node.entry.md5 and metrics is not None:
        rows: Mapping[str, Any] = metrics["excess"]
        return {
            f"{measure}.{task}": float(row[measure])
            for measure in ("excess", "retained")
            for task, row in rows.items()
            if row.get(measure) is not None
        }
    if any(rule.startswith(("excess.", "retained.")) for rule in params.gate.rules):
        path = entry.path if entry else stage.name
        raise DataError(
            f"{path}: is not here, or was measured with other bytes of {node.name}; lori run "
            "measures it again"
        )
    return {}


def excess_of(lineage: Lineage, node: Node) -> StageEntry | None:
    """Return the stage that measured a merge's interference, with these or with older bytes."""
    stages = lineage.snapshot.stages.values()
    excess = (s for s in stages if s.name.partition("@")[0] == measured.EXCESS)
    return next((stage for stage in excess if node.name in stage.deps), None)


def champion_files(
    champion: Version, registry: Registry, workspace: Path, folder: Path
) -> dict[str, Path]:
    """Restore the champion's verdicts: from DVC's cache or remote, else from its gate's run.

    Args:
        champion: the champion.
        registry: the registry, whose gate runs have copies of verdicts.
        workspace: the workspace whose cache and remote are used.
        folder: the folder to write to.

    Raises:
        LoriError: no copy has the hash that the champion was registered with.
    """
    path, _, md5 = champion.tags.get(reg.EVALUATION, "").partition("=")
    verdicts: Path | None = folder / "evaluation"
    try:
        Objects(workspace).restore(md5, folder / "evaluation", f"the verdicts of {champion}")
    except LoriError as error:
        verdicts = registry.verdicts(champion, folder, md5)
        if verdicts is None:
            raise LoriError(
                f"{champion}: its verdicts are gone ({error}); evaluate it again, or lori rollback"
            ) from None
    return files_by_task(verdicts or folder, champion.tags.get(PATH, path))
