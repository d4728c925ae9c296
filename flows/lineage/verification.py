"""Whether what lies in the workspace is what was made: each file against its hash, by name.

Three witnesses are compared: the bytes, what `dvc.lock` and `data.dvc` recorded, and what an
artifact says of itself. Where two agree, the third is the one that was changed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.lineage.ancestry import Lineage, Node, read_data
from flows.versioning.objects import CHUNK, Objects, files_below, folder_md5, md5_of
from flows.versioning.snapshot import DATA, LOCK, leaves
from lori_core import origin
from lori_core.errors import AdapterError
from lori_core.files import sha256_file
from lori_core.phases import PHASES, layers

MEND = f"restore the line, as in git checkout -- {LOCK}"
RESTORE = "lori restore {name} OUT gives the recorded bytes"


@dataclass(frozen=True)
class Problem:
    """Something that is not what was made: which file, and what is wrong with it."""

    name: str
    text: str

    def __str__(self) -> str:
        """Return it as one line."""
        return f"{self.name}: {self.text}"


def verify(lineage: Lineage) -> list[Problem]:
    """Return what does not fit in a lineage of the workspace as it stands; empty if all does.

    Files that are not there are no problem: they are marked.
    """
    found: dict[Problem, None] = {}
    hashes = _hash_all(lineage)
    for node in lineage.nodes.values():
        actual = hashes.get(node.name)
        checks = _data_problems if node.kind == "data" else _artifact_problems
        for problem in checks(lineage, node, actual):
            found.setdefault(problem)
        for problem in (
            *_lock_problems(lineage, node, actual),
            *_reading_problems(lineage, node, hashes),
        ):
            found.setdefault(problem)
    return list(found)


def _hash_all(lineage: Lineage) -> dict[str, dict[str, str]]:
    """Return the MD5 of every file that is here, by node and by path inside it."""
    files = {
        (node.name, inside): path
        for node in lineage.nodes.values()
        if node.here
        for inside, path in files_below(lineage.snapshot.workspace / node.name).items()
    }
    found: dict[str, dict[str, str]] = {}
    with ThreadPoolExecutor() as pool:
        for (name, inside), md5 in zip(files, pool.map(md5_of, files.values()), strict=True):
            found.setdefault(name, {})[inside] = md5
    return found


def _whole(node: Node, actual: Mapping[str, str]) -> str:
    return folder_md5(actual) if node.entry.is_folder else actual.get("", "")


def _artifact_problems(
    lineage: Lineage, node: Node, actual: Mapping[str, str] | None
) -> Iterator[Problem]:
    if actual is None or _whole(node, actual) == node.entry.md5:
        yield from _key_problems(node)
        return
    whole = _whole(node, actual)
    seen = {entry.md5 for entry in _readings(lineage, node.name)}
    only_this = lineage.objects.cached(whole) and not lineage.objects.cached(node.entry.md5)
    if only_this or (seen == {whole} and _sealed(lineage, node)):
        text = (
            f"stage {_stage_name(node)}: outs: {node.name} is recorded as {node.entry.md5}, but "
            f"its files are intact, and the cache or the stages that read them know them as {whole}"
        )
        yield Problem(LOCK, f"{text}; {MEND}")
        return
    yield from _file_problems(lineage, node, actual)


def _readings(lineage: Lineage, path: str) -> Iterator[Any]:
    """Yield what each stage recorded of a path it depends on."""
    for stage in lineage.snapshot.stages.values():
        if path in stage.deps:
            yield stage.deps[path]


def _sealed(lineage: Lineage, node: Node) -> bool:
    """Whether an artifact that says what its bytes are is what it says; others are believed."""
    path = lineage.snapshot.workspace / node.name
    if node.kind == "mask":
        return origin.mask_fits(path.read_bytes())
    for file, (read, tensors) in origin.FOLDERS.items():
        if (path / file).is_file():
            try:
                own = read((path / file).read_bytes(), node.name)
            except AdapterError:
                return False
            stored = path / tensors
            return stored.is_file() and sha256_file(stored) == own.facts["sha256"]
    return True


def _file_problems(lineage: Lineage, node: Node, actual: Mapping[str, str]) -> Iterator[Problem]:
    expected = lineage.objects.files(node.entry.md5)
    if expected is None:
        yield Problem(
            node.name,
            f"is not what {LOCK} records ({node.entry.md5}); which of its files changed cannot be "
            "told: the listing is neither in the cache nor in the remote",
        )
        return
    known = False
    for inside in sorted({*expected, *actual}):
        if expected.get(inside) == actual.get(inside):
            continue
        known = True
        name = f"{node.name}/{inside}" if inside else node.name
        if inside not in actual:
            yield Problem(name, f"is missing; {RESTORE.format(name=node.name)}")
        elif inside not in expected:
            yield Problem(name, f"does not belong here: {LOCK} knows no such file in {node.name}")
        else:
            where = _bytes_text(
                lineage.objects, lineage.snapshot.workspace / name, expected[inside]
            )
            yield Problem(name, f"{where}; {RESTORE.format(name=node.name)}")
    if not known:
        yield Problem(LOCK, f"{node.name} is recorded as {node.entry.md5}, its files are others")


def _bytes_text(objects: Objects, path: Path, md5: str) -> str:
    """Say which bytes of a file differ from those of a hash."""
    original = objects.cached(md5)
    if original is None:
        return f"its bytes are not those recorded ({md5}; no copy in the cache to compare with)"
    first, last = differing_bytes(path, original)
    size, other = path.stat().st_size, original.stat().st_size
    length = "" if size == other else f"; {size} bytes where {other} were written"
    return f"bytes {first}-{last} differ from those recorded ({md5}){length}"


def differing_bytes(first: Path, second: Path) -> tuple[int, int]:
    """Return the first and the last byte in which two files differ; what one lacks differs."""
    low, high, position = -1, -1, 0
    with first.open("rb") as a, second.open("rb") as b:
        while True:
            left, right = a.read(CHUNK), b.read(CHUNK)
            if not left and not right:
                return low, high
            if left != right:
                longest = max(len(left), len(right))
                shared = min(len(left), len(right))
                unequal = [i for i in range(shared) if left[i] != right[i]]
                start = unequal[0] if unequal else shared
                low = position + start if low < 0 else low
                high = position + (longest - 1 if longest > shared else unequal[-1])
            position += max(len(left), len(right))


def _key_problems(node: Node) -> Iterator[Problem]:
    if node.origin is not None and not node.origin.key_fits:
        yield Problem(
            f"{node.name}/{node.origin.file}",
            f"its content key {node.key} is not the digest of what it says it depends on; "
            f"{RESTORE.format(name=node.name)}",
        )


def _data_problems(
    lineage: Lineage, node: Node, actual: Mapping[str, str] | None
) -> Iterator[Problem]:
    """Check files of data against `data.dvc`; the manifest says which of the two was changed."""
    pinned = _pinned(lineage, node.name)
    if actual is None or pinned is None:
        return
    for inside in sorted({*pinned, *actual}):
        name = f"{node.name}/{inside}" if inside else node.name
        if pinned.get(inside) == actual.get(inside):
            continue
        if inside not in actual:
            yield Problem(name, f"is missing; {RESTORE.format(name=name)}")
        elif inside not in pinned:
            yield Problem(name, f"does not belong here: {DATA} does not know it")
        elif _as_pulled(lineage, name):
            yield Problem(DATA, f"is behind {name}, which is as it was pulled; run lori pull")
        else:
            path = lineage.snapshot.workspace / name
            where = _bytes_text(lineage.objects, path, pinned[inside])
            yield Problem(name, f"{where}; lori pull or {RESTORE.format(name=name)}")


def _pinned(lineage: Lineage, name: str) -> dict[str, str] | None:
    """Return the files of a path of data as `data.dvc` pins them; None where that is not known."""
    data = lineage.snapshot.data
    listed = lineage.objects.tree(data.md5) if data else None
    if data is None or listed is None:
        return None
    if name == data.path:
        return listed
    inside = name.removeprefix(f"{data.path}/")
    if inside in listed:
        return {"": listed[inside]}
    below = f"{inside}/"
    return {path[len(below) :]: md5 for path, md5 in listed.items() if path.startswith(below)}


def _as_pulled(lineage: Lineage, name: str) -> bool:
    """Whether a split has the SHA-256 that the manifest beside it holds."""
    path = lineage.snapshot.workspace / name
    try:
        content = read_data(lineage.snapshot, lineage.objects, "manifest.json")
        task = json.loads(content or b"{}")["tasks"][path.parent.name]
        return bool(task["splits"][path.stem]["sha256"] == sha256_file(path))
    except (KeyError, ValueError, TypeError):
        return False


def _lock_problems(
    lineage: Lineage, node: Node, actual: Mapping[str, str] | None
) -> Iterator[Problem]:
    """Check what `dvc.lock` records of a stage against the outputs, and against the artifact."""
    stage = node.stage
    if stage is None:
        return
    name, _, item = stage.name.partition("@")
    expected = f"lori stage {name} {item}".strip()
    if stage.command.startswith("lori stage ") and stage.command != expected:
        yield Problem(LOCK, f"stage {stage.name}: its command is {stage.command!r}")
    if actual is not None and node.entry.size is not None:
        root = lineage.snapshot.workspace / node.name
        size = sum(path.stat().st_size for path in files_below(root).values())
        if size != node.entry.size and _whole(node, actual) == node.entry.md5:
            text = f"stage {stage.name}: {node.name} has {size} bytes, not {node.entry.size}"
            yield Problem(LOCK, f"{text}; {MEND}")
    yield from _parameter_problems(node)


def _stage_name(node: Node) -> str:
    return node.stage.name if node.stage else ""


def _reading_problems(
    lineage: Lineage, node: Node, hashes: Mapping[str, Mapping[str, str]]
) -> Iterator[Problem]:
    """Find what a stage read that is not what the stage before it made."""
    for path, dep in node.stage.deps.items() if node.stage else ():
        made = lineage.snapshot.out(path)
        if made is None or made.md5 == dep.md5:
            continue
        parent = lineage.nodes.get(path)
        if parent and path in hashes and _whole(parent, hashes[path]) == dep.md5:
            continue  # then it is the output's record that was changed, and that is said there
        before = lineage.snapshot.makers[path].name
        others = {entry.md5 for entry in _readings(lineage, path)}
        fresh = node.origin is not None and parent is not None and parent.key in node.origin.parents
        if fresh or len(others) > 1:
            text = f"stage {_stage_name(node)}: deps: {path} is recorded as {dep.md5}"
            yield Problem(LOCK, f"{text}, but stage {before} made {made.md5}; {MEND}")
        else:
            text = f"was made from {path} as {dep.md5}, which stage {before} has made anew since"
            yield Problem(node.name, f"{text} ({made.md5}); lori run brings it up to date")


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
    for layer in reversed(layers(item, PHASES[stage]) if stage in PHASES else []):
        section = result.get(layer)
        if isinstance(section, Mapping):
            result[layer] = {k: v for k, v in section.items() if k not in overriding}
            overriding |= section.keys()
    training = result.get("training")
    if isinstance(training, Mapping):
        result["training"] = {k: v for k, v in training.items() if k not in overriding}
    return result


def _by_artifact(own: origin.Origin, name: str) -> Any:
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
