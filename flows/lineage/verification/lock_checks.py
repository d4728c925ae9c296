"""Whether what `dvc.lock` records of a stage fits its outputs, the stages around it and itself."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from flows.lineage.ancestry import Lineage, Node
from flows.lineage.problem import MEND, Problem
from flows.versioning.dvc.lock_file import Entry
from flows.versioning.objects import files_below, folder_md5, md5_of
from flows.versioning.snapshot import DATA, LOCK, leaves
from lori_core.adapters import artifact_metadata
from lori_core.config.training_overrides import PHASES, override_sections

Hashes = Mapping[str, Mapping[str, str]]


def whole_md5(entry: Entry, actual: Mapping[str, str]) -> str:
    """Return what DVC would record of the files that lie where an entry is."""
    return folder_md5(actual) if entry.is_folder else actual.get("", "")


def stage_name(node: Node) -> str:
    """Return the name of the stage that made a node."""
    return node.stage.name if node.stage else ""


def readings(lineage: Lineage, path: str) -> Iterator[Entry]:
    """Yield what each stage recorded of a path it depends on."""
    for stage in lineage.snapshot.stages.values():
        if path in stage.deps:
            yield stage.deps[path]


def lock_problems(
    lineage: Lineage, node: Node, actual: Mapping[str, str] | None
) -> Iterator[Problem]:
    """Check what is recorded of a stage against its outputs, and against what they say."""
    stage = node.stage
    if stage is None:
        return
    name, _, item = stage.name.partition("@")
    expected = f"lori stage {name} {item}".strip()
    if stage.command.startswith("lori stage ") and stage.command != expected:
        yield Problem(LOCK, f"stage {stage.name}: its command is {stage.command!r}; {MEND}")
    if actual is not None and whole_md5(node.entry, actual) == node.entry.md5:
        yield from _count_problems(lineage, node, actual)
    yield from _parameter_problems(node)
    yield from _code_problems(node)


def _count_problems(lineage: Lineage, node: Node, actual: Mapping[str, str]) -> Iterator[Problem]:
    root, entry = lineage.snapshot.workspace / node.name, node.entry
    size = sum(path.stat().st_size for path in files_below(root).values())
    if entry.size is not None and size != entry.size:
        text = f"stage {stage_name(node)}: {node.name} has {size} bytes, not {entry.size}"
        yield Problem(LOCK, f"{text}; {MEND}")
    if entry.files is not None and len(actual) != entry.files:
        text = f"stage {stage_name(node)}: {node.name} has {len(actual)} files, not {entry.files}"
        yield Problem(LOCK, f"{text}; {MEND}")


def reading_problems(
    lineage: Lineage, node: Node, hashes: Hashes, found: Collection[Problem]
) -> Iterator[Problem]:
    """Find what a stage read that is not what the stage before it made, or what is pinned."""
    pin_is_wrong = any(problem.name == DATA for problem in found)
    for path, dep in node.stage.deps.items() if node.stage else ():
        if lineage.pinned.holds(path):
            yield from () if pin_is_wrong else _data_reading(lineage, node, dep)
        elif path in lineage.snapshot.makers:
            yield from _output_reading(lineage, node, dep, hashes)
        else:
            yield from _folder_reading(lineage, node, dep)


def _data_reading(lineage: Lineage, node: Node, dep: Entry) -> Iterator[Problem]:
    pinned = lineage.pinned.hash_below(dep.path)
    if pinned is None or pinned == dep.md5:
        return
    yield Problem(
        LOCK,
        f"stage {stage_name(node)}: deps: {dep.path} is recorded as {dep.md5}, but {DATA} pins "
        f"{pinned}: lori run makes {node.name} from that, or {MEND}",
        stale=True,
    )


def _output_reading(lineage: Lineage, node: Node, dep: Entry, hashes: Hashes) -> Iterator[Problem]:
    made, path = lineage.snapshot.makers[dep.path].outs[dep.path], dep.path
    before = lineage.snapshot.makers[path].name
    if made.md5 == dep.md5:
        if (made.size, made.files) != (dep.size, dep.files):
            text = (
                f"stage {stage_name(node)}: deps: {path} has another size than stage {before} made"
            )
            yield Problem(LOCK, f"{text}; {MEND}")
        return
    parent = lineage.nodes.get(path)
    if parent and path in hashes and whole_md5(parent.entry, hashes[path]) == dep.md5:
        return  # then it is the output's record that was changed, and that is said there
    others = {entry.md5 for entry in readings(lineage, path)}
    fresh = node.origin is not None and parent is not None and parent.key in node.origin.parents
    if fresh or len(others) > 1:
        text = f"stage {stage_name(node)}: deps: {path} is recorded as {dep.md5}"
        yield Problem(LOCK, f"{text}, but stage {before} made {made.md5}; {MEND}")
    else:
        text = f"was made from {path} as {dep.md5}, which stage {before} has made anew since"
        yield Problem(
            node.name, f"{text} ({made.md5}): lori run brings it up to date, or {MEND}", stale=True
        )


def _folder_reading(lineage: Lineage, node: Node, dep: Entry) -> Iterator[Problem]:
    """Check a folder in which other stages' outputs lie, like that of all metrics."""
    inside = f"{dep.path.rstrip('/')}/"
    outs = {path: lineage.snapshot.out(path) for path in lineage.snapshot.makers}
    below = {path[len(inside) :]: out for path, out in outs.items() if path.startswith(inside)}
    if not below or not dep.is_folder:
        return
    recorded = _files_of(lineage, below)
    if recorded is None or folder_md5(recorded) == dep.md5 or _is_on_disk(lineage, dep):
        return
    yield Problem(
        LOCK,
        f"stage {stage_name(node)}: deps: {dep.path} is recorded as {dep.md5}, which it is no "
        f"more: lori run makes {node.name} from what it is now, or {MEND}",
        stale=True,
    )


def _files_of(lineage: Lineage, outs: Mapping[str, Entry | None]) -> dict[str, str] | None:
    """Return the MD5 of each file of some outputs; None where a listing of them is gone."""
    found: dict[str, str] = {}
    for place, out in outs.items():
        files = lineage.objects.files(out.md5) if out else None
        if files is None:
            return None
        found |= {f"{place}/{name}".rstrip("/"): md5 for name, md5 in files.items()}
    return found


def _is_on_disk(lineage: Lineage, dep: Entry) -> bool:
    root = lineage.snapshot.workspace / dep.path
    files = files_below(root) if lineage.snapshot.here and root.is_dir() else {}
    return folder_md5({name: md5_of(path) for name, path in files.items()}) == dep.md5


def _code_problems(node: Node) -> Iterator[Problem]:
    """Compare the code that is recorded with the code that the artifact was computed by."""
    said = node.origin.depends.get("code") if node.origin else None
    if not isinstance(said, Mapping):
        return
    for path, md5 in node.code.items():
        if said.get(path, md5) != md5:
            text = f"stage {stage_name(node)}: deps: {path} is recorded as {md5}"
            yield Problem(LOCK, f"{text}, but {node.name} was made by {said[path]}; {MEND}")


def _parameter_problems(node: Node) -> Iterator[Problem]:
    """Compare the parameters that `dvc.lock` records with those the artifact's key stands for."""
    own, recorded = node.origin, node.params
    if own is None or node.stage is None:
        return
    for name, said in leaves(_layered(node, recorded)):
        known = _by_artifact(own, name)
        if known is not _UNKNOWN and not _same(known, said):
            yield Problem(
                LOCK,
                f"stage {node.stage.name}: params: {name} is recorded as {said!r}, but "
                f"{node.name} was made with {known!r}; {MEND}",
            )


_UNKNOWN = object()


def _layered(node: Node, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recorded parameters with `training` as the stage sees it: overrides applied."""
    stage, _, item = node.stage.name.partition("@") if node.stage else ("", "", "")
    overriding: set[str] = set()
    result = dict(recorded)
    for layer in reversed(override_sections(item, PHASES[stage]) if stage in PHASES else []):
        section = result.get(layer)
        if isinstance(section, Mapping):
            result[layer] = {k: v for k, v in section.items() if k not in overriding}
            overriding |= section.keys()
    training = result.get("training")
    if isinstance(training, Mapping):
        result["training"] = {k: v for k, v in training.items() if k not in overriding}
    return result


def _by_artifact(own: artifact_metadata.ArtifactMetadata, name: str) -> Any:
    """Return the value of a recorded parameter as an artifact's own words have it."""
    section, _, last = name.rpartition(".")
    depends = own.depends
    if own.kind == "mask":
        named = {"lori.sparsity": "sparsity", "lori.mask_scope": "scope"}
        return own.facts.get(named.get(name, last), _UNKNOWN) if section == "lori" else _UNKNOWN
    if own.kind == "merged adapter":
        return (
            own.facts.get(last, _UNKNOWN) if last in ("method", "density", "weights") else _UNKNOWN
        )
    if section == "training" or section.endswith((".training", ".calibration")):
        return depends.get("section", {}).get(last, _UNKNOWN)
    if section == "model" and last == "dtype":
        # Where the device lacks the precision that was asked for, float32 is computed in.
        computed = depends.get(last, _UNKNOWN)
        return _UNKNOWN if computed == "float32" else computed
    if section == "model" and last == "quantization":
        return depends.get(last, _UNKNOWN)
    if section in ("prompt", "lori"):
        return depends.get(section, {}).get(last, _UNKNOWN)
    return _UNKNOWN


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, list) and isinstance(second, int | float):
        return all(_same(item, second) for item in first)
    try:
        return math.isclose(float(first), float(second), rel_tol=1e-12)
    except (TypeError, ValueError):
        return bool(first == second)
