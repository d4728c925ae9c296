"""What a judgement stands on: each file is what `dvc.lock` records, of what is judged, or nothing.

Nothing here is believed for its name or its place. A model's files and what was measured of it are
compared with their hashes first; the measurements must have read exactly these bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flows.lineage import measured
from flows.lineage.ancestry import Lineage, Node
from flows.lineage.named import Named
from flows.lineage.problem import refuse
from flows.lineage.verification.verify import verify
from flows.lineage.why import lineage_of, resolve
from flows.tracking import registry as reg
from flows.tracking.registry import Registry, Version
from flows.versioning.dvc.lock_file import StageEntry
from flows.versioning.objects import Objects
from flows.versioning.snapshot import LOCK, Snapshot, leaves
from lori_core.config import Params
from lori_core.core.errors import DataError, InputError, LoriError
from lori_core.core.files.json_input import loads
from lori_core.evaluation.gate_rules import Scored
from lori_core.evaluation.rows import row_of

#: Sections of `params.yaml` that go with a model to where it is served.
SERVED = ("model", "prompt")


def artifact_here(word: str, workspace: Path, do: str) -> Named:
    """Return what a word names, an artifact of the workspace as it stands.

    Raises:
        InputError: it names something else, which cannot `do` something: be registered, ….
    """
    named = resolve(word, workspace)
    if named.path is None or not named.state.here or not _same(named.state.workspace, workspace):
        raise InputError(f"{word}: only an artifact of the workspace as it stands can {do}")
    return named


def _same(first: Path, second: Path) -> bool:
    return first.resolve() == second.resolve()


def verified(named: Named, do: str, also: Iterable[str] = ()) -> tuple[Lineage, Node]:
    """Return an artifact with its lineage, of which every file that is here was compared.

    Args:
        named: an artifact of a workspace as it stands.
        do: what is refused otherwise: be judged, be registered, ….
        also: outputs that are compared, too, with what they were made from.

    Raises:
        DataError: something is not what was made, or was made from what changed since.
    """
    lineage = lineage_of(named, remote=False)
    node = lineage.nodes[str(named.path)]
    refuse(verify(lineage, also, settings=False), f"{node.name} cannot {do}: not what was made")
    _check_here(lineage, node, do)
    return lineage, node


def _check_here(lineage: Lineage, node: Node, do: str) -> None:
    """Refuse an artifact that is not here, or of which something measured is not."""
    state = lineage.snapshot
    measures = measured.measuring(state, node.name, node.entry.md5)
    for name in (node.name, *(out for stage in measures for out in stage.outs)):
        if not (state.workspace / name).exists():
            raise DataError(
                f"{name}: is not here, so {node.name} cannot {do}; dvc checkout, git checkout -- "
                f"{name}, or lori run"
            )


def check_settings(lineage: Lineage, params: Params, do: str) -> None:
    """Refuse settings of the base and the prompt that are not those a model was made with.

    Raises:
        InputError: naming the first.
    """
    now = dict(leaves({name: getattr(params, name).model_dump() for name in SERVED}))
    for node in lineage.nodes.values():
        for name, made in leaves(_with_defaults(params, node.params)):
            if name in now and now[name] != made:
                raise InputError(
                    f"params.yaml: {name} is {now[name]!r}, but {node.name} was made with "
                    f"{made!r}: what was measured is not what would {do}; put it back, or lori run"
                )


def _with_defaults(params: Params, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recorded sections of base and prompt, with what was left out at its default."""
    found = {}
    for name in SERVED:
        if name in recorded:
            fields = type(getattr(params, name)).model_fields
            found[name] = {n: f.get_default() for n, f in fields.items() if not f.is_required()}
            found[name] |= recorded[name] or {}
    return found


def before_of(state: Snapshot, params: Params) -> StageEntry | None:
    """Return the stage that evaluated the adapter trained on safety alone, if one did."""
    return state.stages.get(f"evaluate_adapters@{params.continual.safety_task}")


def gather(lineage: Lineage, node: Node, params: Params) -> tuple[Scored, Scored | None]:
    """Return a verified candidate with its verdicts, and the adapter trained on safety alone.

    Raises:
        InputError: the candidate was not evaluated as it is now.
        DataError: what was measured is not here, or was measured in another way or of other bytes.
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
    before = before_of(lineage.snapshot, params)
    if before is None:
        return ours, None
    _check_alike(stage, before)
    task = str(params.continual.safety_task)
    files = files_by_task(workspace / str(measured.rows_of(before)), f"artifacts/{task}/adapter")
    return ours, Scored(f"{task} alone", {task: files[task]})


def files_by_task(folder: Path, path: str) -> dict[str, Path]:
    """Return `<task>.jsonl` by task of an evaluation's row about an artifact.

    Raises:
        DataError: there are none.
    """
    rows = [item.name for item in folder.iterdir() if item.is_dir()] if folder.is_dir() else []
    found = sorted((folder / row_of(path, rows)).glob("*.jsonl")) if rows else []
    # `math.paper.jsonl` is the same task by another protocol.
    files = {item.stem: item for item in found if "." not in item.stem}
    if not files:
        raise DataError(f"{folder}: no verdicts here; dvc checkout, or lori run evaluates again")
    return files


def _check_alike(first: StageEntry, second: StageEntry) -> None:
    """Refuse two evaluations by other settings: their difference would not be the models'."""
    for name, ours, theirs in _settings_that_differ(*(s.params for s in (first, second))):
        raise DataError(
            f"{LOCK}: {name} was {ours!r} in stage {first.name}, {theirs!r} in {second.name}: "
            "they cannot be compared; lori run evaluates both alike"
        )


def check_champion(champion: Version, tags: Mapping[str, str]) -> None:
    """Refuse a champion whose evaluation had other settings than the candidate's.

    Args:
        champion: what the candidate is compared with.
        tags: the candidate's, as `flows.serving.packaging.tags_of` makes them.

    Raises:
        DataError: naming the first setting, and what to do.
    """
    if reg.SETTINGS not in champion.tags:
        return  # registered before settings were recorded
    sides = [{"evaluation": loads(side[reg.SETTINGS])} for side in (tags, champion.tags)]
    for setting, ours, theirs in _settings_that_differ(*sides):
        path, name = champion.tags[reg.PATH], champion.name
        raise DataError(
            f"{champion}: was evaluated with {setting} {theirs!r}, {tags[reg.PATH]} with {ours!r}: "
            "they cannot be compared; put it back, or evaluate the champion alike: in a clone, "
            f"lori restore models:/{name}/{champion.number}, lori run, lori register {path} --as "
            f"{name}"
        )


def _settings_that_differ(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    ours, theirs = (
        dict(leaves({"evaluation": s.get("evaluation") or {}})) for s in (first, second)
    )
    for name in sorted({*ours, *theirs}):
        if ours.get(name) != theirs.get(name):
            yield name, ours.get(name), theirs.get(name)


def _size(root: Path) -> dict[str, float]:
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    return {"size_mb": size / 1e6}


def _excess(lineage: Lineage, node: Node, params: Params) -> dict[str, float]:
    """Return what a merge costs each task, if that was measured of exactly these bytes."""
    stage = excess_of(lineage, node)
    if stage is None:
        return {}
    entry = measured.metrics_of(stage)
    said = measured.read_metrics(lineage.snapshot, stage)
    if stage.deps[node.name].md5 == node.entry.md5 and said is not None:
        rows: Mapping[str, Any] = said["excess"]
        return {
            f"excess.{task}": float(row["excess"])
            for task, row in rows.items()
            if row.get("excess") is not None
        }
    if any(rule.startswith("excess.") for rule in params.gate.rules):
        path = entry.path if entry else stage.name
        raise DataError(
            f"{path}: is not here, or was measured of another {node.name} than this one; lori run "
            "measures it again"
        )
    return {}


def excess_of(lineage: Lineage, node: Node) -> StageEntry | None:
    """Return the stage that measured the interference of a merge, of these bytes or of others."""
    stages = lineage.snapshot.stages.values()
    found = (s for s in stages if s.name.partition("@")[0] == measured.EXCESS)
    return next((stage for stage in found if node.name in stage.deps), None)


def champion_files(
    champion: Version, registry: Registry, workspace: Path, folder: Path
) -> dict[str, Path]:
    """Bring the champion's verdicts here: from DVC's cache or remote, else from its gate's run.

    Raises:
        LoriError: they are gone, or no copy is what the champion was registered with.
    """
    said = champion.tags.get(reg.EVALUATION, "")
    path, _, md5 = said.partition("=")
    found: Path | None = folder / "evaluation"
    try:
        Objects(workspace).restore(md5, folder / "evaluation", f"the verdicts of {champion}")
    except LoriError as error:
        found = registry.verdicts(champion, folder, md5)
        if found is None:
            raise LoriError(
                f"{champion}: its verdicts are gone ({error}); evaluate it again, or lori rollback"
            ) from None
    return files_by_task(found or folder, champion.tags.get(reg.PATH, path))
