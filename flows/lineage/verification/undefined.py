"""Whether `dvc.lock` records what `dvc.yaml` says there is: a part cut off leaves valid YAML."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from flows.lineage.ancestry import Lineage, Node
from flows.lineage.problem import Problem
from flows.versioning.dvc.lock_file import MEND_LOCK, StageEntry
from flows.versioning.dvc.pipeline_file import FILE, Defined, PipelineFile, plain
from flows.versioning.snapshot import LOCK
from lori_core.core.errors import InputError

#: What `dvc metrics` shows; that of experiments is recorded in their own lock file.
METRICS, EXPERIMENTS = "metrics", "metrics/experiments"
#: Where inputs lie that are no code.
MADE = ("data", "artifacts/", "metrics")
#: Things that a message names one by one.
NAMED = 4


def definition_problems(lineage: Lineage, nodes: Mapping[str, Node]) -> Iterator[Problem]:
    """Find stages that are not recorded though all they make is here, and records that lack parts.

    A stage that is not of the lineage may be behind a change of `dvc.yaml`: only what DVC never
    leaves out is asked of it.

    Args:
        lineage: of the workspace as it stands.
        nodes: those of it.
    """
    if not lineage.snapshot.here:
        return
    if not (lineage.snapshot.workspace / FILE).is_file():
        yield from _metrics_of_nobody(lineage)
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
            f"stage {stage.name}: nothing is recorded of {_named(missing)}, which {FILE} names: "
            f"lori run records it, or {MEND_LOCK}",
            # A later version of this project may name more code.
            stale=not outs and not params and not any(dep.startswith(MADE) for dep in deps),
        )


def _unrecorded(lineage: Lineage, name: str, defined: Defined) -> Iterator[Problem]:
    workspace = lineage.snapshot.workspace
    if defined.outs and all((workspace / out).exists() for out in defined.outs):
        made = _named(sorted(defined.outs))
        text = f"stage {name}: is not recorded, though what it makes is here ({made})"
        yield Problem(LOCK, f"{text}: lori run records it, or {MEND_LOCK}")


def _metrics_of_nobody(lineage: Lineage) -> Iterator[Problem]:
    """Without `dvc.yaml`: each stage but the report leaves a file of metrics."""
    workspace = lineage.snapshot.workspace
    found = (path.relative_to(workspace) for path in (workspace / METRICS).rglob("*.json"))
    unknown = sorted(
        path.as_posix()
        for path in found
        if path.as_posix() not in lineage.snapshot.makers and not path.is_relative_to(EXPERIMENTS)
    )
    if unknown:
        text = f"no stage is recorded that made {_named(unknown)}"
        yield Problem(LOCK, f"{text}: lori run records it, or {MEND_LOCK}")


def _named(things: Iterable[str]) -> str:
    names = list(things)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
