"""Compare `dvc.lock` with `dvc.yaml`: a truncated lock file can still be valid YAML."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from flows.lineage.ancestry import Lineage, Node
from flows.lineage.problem import Problem
from flows.versioning.dvc.lock_file import MEND_LOCK, StageEntry
from flows.versioning.dvc.pipeline_file import FILE, Defined, PipelineFile, plain
from flows.versioning.snapshot import LOCK
from lori_core.core.errors import InputError

#: The folder of metrics; the experiments' metrics are recorded in their own lock file.
METRICS, EXPERIMENTS = "metrics", "metrics/experiments"
#: Beginnings of the paths of inputs that are no code.
ARTIFACTS = ("data", "artifacts/", "metrics")
#: The most items that a message lists.
LISTED = 4


def definition_problems(lineage: Lineage, nodes: Mapping[str, Node]) -> Iterator[Problem]:
    """Find records that lack parts, and stages without a record whose outputs are all here.

    A stage outside the lineage may be older than a change of `dvc.yaml`, so its record is checked
    only for parts that DVC always writes.

    Args:
        lineage: the lineage of the workspace.
        nodes: its nodes by name.
    """
    if not lineage.snapshot.here:
        return
    if not (lineage.snapshot.workspace / FILE).is_file():
        yield from _unrecorded_metrics(lineage)
        return
    try:
        file = PipelineFile(lineage.objects.repo, lineage.snapshot.workspace)
        own = {node.stage.name for node in nodes.values() if node.stage}
        for name, stage in lineage.snapshot.stages.items():
            if name in file.names:
                yield from _lacking(stage, file.stage(name), all_of_it=name in own)
        for name in sorted(file.names - lineage.snapshot.stages.keys()):
            yield from _unrecorded(lineage, name, file.stage(name))
    except InputError as error:
        name, _, text = str(error).partition(": ")
        yield Problem(name, f"{text}; so {LOCK} cannot be compared with it")


def _lacking(stage: StageEntry, defined: Defined, *, all_of_it: bool) -> Iterator[Problem]:
    outs = defined.outs - set(map(plain, stage.outs))
    params = defined.params - stage.params.keys() if all_of_it or not stage.params else set()
    deps = defined.deps - set(map(plain, stage.deps)) if all_of_it or not stage.deps else set()
    missing = sorted(outs) + sorted(params) + sorted(deps)
    if missing:
        yield Problem(
            LOCK,
            f"stage {stage.name}: nothing is recorded of {_listed(missing)}, which {FILE} names: "
            f"lori run records it, or {MEND_LOCK}",
            # A later version of this project may name more code.
            stale=not outs and not params and not any(dep.startswith(ARTIFACTS) for dep in deps),
        )


def _unrecorded(lineage: Lineage, name: str, defined: Defined) -> Iterator[Problem]:
    workspace = lineage.snapshot.workspace
    if defined.outs and all((workspace / out).exists() for out in defined.outs):
        outs = _listed(sorted(defined.outs))
        text = f"stage {name}: is not recorded, although its outputs are here ({outs})"
        yield Problem(LOCK, f"{text}: lori run records it, or {MEND_LOCK}")


def _unrecorded_metrics(lineage: Lineage) -> Iterator[Problem]:
    """Find files of metrics without a recorded stage, if there is no `dvc.yaml`."""
    workspace = lineage.snapshot.workspace
    files = (path.relative_to(workspace) for path in (workspace / METRICS).rglob("*.json"))
    recorded = lineage.snapshot.producers
    unknown = sorted(
        path.as_posix()
        for path in files
        if path.as_posix() not in recorded and not path.is_relative_to(EXPERIMENTS)
    )
    if unknown:
        text = f"no stage is recorded that made {_listed(unknown)}"
        yield Problem(LOCK, f"{text}: lori run records it, or {MEND_LOCK}")


def _listed(items: Iterable[str]) -> str:
    names = list(items)
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
