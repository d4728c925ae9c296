"""Compare the record of a stage in `dvc.lock` with its outputs and with other stages' records."""

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
from lori_core.registries.merge_method import MERGE_METHODS

Hashes = Mapping[str, Mapping[str, str]]


def whole_md5(entry: Entry, actual: Mapping[str, str]) -> str:
    """Return DVC's hash of the files that are now at an entry's path.

    Args:
        entry: the recorded entry.
        actual: the MD5 of each file, by its path inside the entry's folder ('' for a file).
    """
    return folder_md5(actual) if entry.is_folder else actual.get("", "")


def stage_name(node: Node) -> str:
    """Return the name of a node's stage; empty for data."""
    return node.stage.name if node.stage else ""


def readings(lineage: Lineage, path: str) -> Iterator[Entry]:
    """Yield each stage's record of a path that it depends on."""
    for stage in lineage.snapshot.stages.values():
        if path in stage.deps:
            yield stage.deps[path]


def lock_problems(
    lineage: Lineage, node: Node, actual: Mapping[str, str] | None
) -> Iterator[Problem]:
    """Compare a stage's record with its output's files and with the output's own metadata."""
    stage = node.stage
    if stage is None:
        return
    name, _, item = stage.name.partition("@")
    expected = f"lori stage {name} {item}".strip()
    if stage.command.startswith("lori stage ") and stage.command != expected:
        yield Problem(LOCK, f"stage {stage.name}: its command is {stage.command!r}; {MEND}")
    if actual is not None and whole_md5(node.entry, actual) == node.entry.md5:
        yield from _count_problems(lineage, node, actual)
    yield from parameter_problems(node)
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
    """Find inputs of a stage that differ from the output of their stage or from the pinned data."""
    pin_is_wrong = any(problem.name == DATA for problem in found)
    for path, dep in node.stage.deps.items() if node.stage else ():
        if lineage.pinned.holds(path):
            yield from () if pin_is_wrong else _data_reading(lineage, node, dep)
        elif path in lineage.snapshot.producers:
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
    output, path = lineage.snapshot.producers[dep.path].outs[dep.path], dep.path
    before = lineage.snapshot.producers[path].name
    if output.md5 == dep.md5:
        if (output.size, output.files) != (dep.size, dep.files):
            text = (
                f"stage {stage_name(node)}: deps: {path} has another size than stage {before} made"
            )
            yield Problem(LOCK, f"{text}; {MEND}")
        return
    parent = lineage.nodes.get(path)
    if parent and path in hashes and whole_md5(parent.entry, hashes[path]) == dep.md5:
        return  # the output's record was changed, which is a problem of the output
    others = {entry.md5 for entry in readings(lineage, path)}
    own = node.metadata
    fresh = own is not None and parent is not None and parent.key in own.parents
    if fresh or len(others) > 1:
        text = f"stage {stage_name(node)}: deps: {path} is recorded as {dep.md5}"
        yield Problem(LOCK, f"{text}, but stage {before} made {output.md5}; {MEND}")
    else:
        text = f"was made from {path} as {dep.md5}, which stage {before} has made anew since"
        yield Problem(
            node.name,
            f"{text} ({output.md5}): lori run brings it up to date, or {MEND}",
            stale=True,
        )


def _folder_reading(lineage: Lineage, node: Node, dep: Entry) -> Iterator[Problem]:
    """Check a folder that holds outputs of other stages, such as the folder of all metrics."""
    inside = f"{dep.path.rstrip('/')}/"
    outs = {path: lineage.snapshot.out(path) for path in lineage.snapshot.producers}
    below = {path[len(inside) :]: out for path, out in outs.items() if path.startswith(inside)}
    if not below or not dep.is_folder:
        return
    recorded = _files_of(lineage, below)
    if recorded is None or folder_md5(recorded) == dep.md5 or _is_on_disk(lineage, dep):
        return
    yield Problem(
        LOCK,
        f"stage {stage_name(node)}: deps: {dep.path} is recorded as {dep.md5}, but it has changed "
        f"since: lori run makes {node.name} from its new content, or {MEND}",
        stale=True,
    )


def _files_of(lineage: Lineage, outs: Mapping[str, Entry | None]) -> dict[str, str] | None:
    """Return the MD5 of each file of some outputs; None if a listing of them is gone."""
    hashes: dict[str, str] = {}
    for place, out in outs.items():
        files = lineage.objects.files(out.md5) if out else None
        if files is None:
            return None
        hashes |= {f"{place}/{name}".rstrip("/"): md5 for name, md5 in files.items()}
    return hashes


def _is_on_disk(lineage: Lineage, dep: Entry) -> bool:
    root = lineage.snapshot.workspace / dep.path
    files = files_below(root) if lineage.snapshot.here and root.is_dir() else {}
    return folder_md5({name: md5_of(path) for name, path in files.items()}) == dep.md5


def _code_problems(node: Node) -> Iterator[Problem]:
    """Compare the recorded code with the code in the artifact's metadata."""
    code = node.metadata.depends.get("code") if node.metadata else None
    if not isinstance(code, Mapping):
        return
    for path, md5 in node.code.items():
        if code.get(path, md5) != md5:
            text = f"stage {stage_name(node)}: deps: {path} is recorded as {md5}"
            yield Problem(LOCK, f"{text}, but {node.name} was made by {code[path]}; {MEND}")


def parameter_problems(node: Node) -> Iterator[Problem]:
    """Compare the recorded parameters with those in the artifact's metadata."""
    own, recorded = node.metadata, node.params
    if own is None or node.stage is None:
        return
    for name, value in leaves(_layered(node, recorded)):
        merged = own.kind == "merged adapter"
        known = _by_merge(own, name, recorded) if merged else _by_artifact(own, name)
        if known is not _UNKNOWN and not _same(known, value):
            yield Problem(
                LOCK,
                f"stage {node.stage.name}: params: {name} is recorded as {value!r}, but "
                f"{node.name} was made with {known!r}; {MEND}",
            )


_UNKNOWN = object()


def _layered(node: Node, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recorded parameters without the entries of `training` that are overridden."""
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
    """Return a parameter's value in an artifact's metadata; `_UNKNOWN` if it is not there."""
    section, _, last = name.rpartition(".")
    depends = own.depends
    if own.kind == "mask":
        named = {"lori.sparsity": "sparsity", "lori.mask_scope": "scope"}
        return own.facts.get(named.get(name, last), _UNKNOWN) if section == "lori" else _UNKNOWN
    if section == "training" or section.endswith((".training", ".calibration")):
        return depends.get("section", {}).get(last, _UNKNOWN)
    if section == "model" and last == "dtype":
        # On a device without the requested precision, the stage computed in float32.
        computed = depends.get(last, _UNKNOWN)
        return _UNKNOWN if computed == "float32" else computed
    if section == "model" and last == "quantization":
        return depends.get(last, _UNKNOWN)
    if section in ("prompt", "lori"):
        return depends.get(section, {}).get(last, _UNKNOWN)
    return _UNKNOWN


def _by_merge(
    own: artifact_metadata.ArtifactMetadata, name: str, recorded: Mapping[str, Any]
) -> Any:
    """Return a parameter's value in a merged adapter's metadata; `_UNKNOWN` if it is not there.

    Searched weights are not in the parameters: the stage depends on the file that holds them.
    """
    section, _, last = name.rpartition(".")
    named = last in ("method", "density", "weights")
    value: Any = own.facts.get(last, _UNKNOWN) if named else _UNKNOWN
    settings = recorded.get(section)
    # `search: {}` searches with the default settings.
    searched = isinstance(settings, Mapping) and settings.get("search") is not None
    if searched and last != "method":
        return _UNKNOWN
    method = str(own.facts.get("method"))
    if last == "weights" and method in MERGE_METHODS and MERGE_METHODS[method].starts:
        return value[1:]  # the first is that of the adapter which the others were trained from
    return value


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, list) and isinstance(second, int | float):
        return all(_same(item, second) for item in first)
    try:
        return math.isclose(float(first), float(second), rel_tol=1e-12)
    except (TypeError, ValueError):
        return bool(first == second)
