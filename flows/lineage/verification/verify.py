"""Verify the files of a workspace against their recorded hashes.

Three things are compared: the bytes, the records in `dvc.lock` and `data.dvc`, and the artifact's
own metadata. If two of them agree, the third was changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from flows.lineage.ancestry import Lineage, Node
from flows.lineage.differing import bytes_text, differing_bytes, restorable
from flows.lineage.measured import git_restorable
from flows.lineage.problem import MEND, Problem
from flows.lineage.verification.current import current_problems
from flows.lineage.verification.lock_checks import (
    lock_problems,
    reading_problems,
    readings,
    stage_name,
    whole_md5,
)
from flows.lineage.verification.undefined import definition_problems
from flows.versioning.objects import files_below, md5_of
from flows.versioning.snapshot import LOCK, of_workspace
from lori_core.adapters import artifact_metadata
from lori_core.core.errors import AdapterError, DataError
from lori_core.core.files.atomic import sha256_file

__all__ = ["Problem", "differing_bytes", "verify"]


def verify(lineage: Lineage, also: Iterable[str] = (), *, settings: bool = True) -> list[Problem]:
    """Return the problems of a lineage of the workspace; empty if everything agrees.

    It checks the lineage's nodes, their stages' other outputs, their evaluations with the lineage
    of these, and that `dvc.lock` and `data.dvc` are complete. Missing files are no problem.

    Args:
        lineage: the lineage of a snapshot whose files are here.
        also: further outputs to check, with their lineage.
        settings: whether to compare the recorded parameters with `params.yaml`, too.
    """
    whole = lineage.with_measured(also)
    nodes = whole.with_siblings()
    hashes = _hash_all(whole, nodes)
    data = [name for name, node in nodes.items() if node.kind == "data"]
    problems = dict.fromkeys(whole.pinned.problems(data))
    for node in nodes.values():
        if node.kind == "data":
            continue
        actual = hashes.get(node.name)
        problems |= dict.fromkeys(_artifact_problems(whole, node, actual))
        problems |= dict.fromkeys(lock_problems(whole, node, actual))
        if node.name in whole.nodes:  # once for each stage
            problems |= dict.fromkeys(reading_problems(whole, node, hashes, problems))
    problems |= dict.fromkeys(definition_problems(whole, nodes))
    problems |= dict.fromkeys(current_problems(whole, nodes, problems, settings=settings))
    names = {problem.name for problem in problems}
    return [*problems, *(problem for problem in lineage.problems if problem.name not in names)]


def check_output(workspace: Path, name: str) -> None:
    """Refuse one output that is not what `dvc.lock` records; accept one without a record.

    Raises:
        DataError: the output's files differ from the record.
    """
    entry = of_workspace(workspace).out(name) if (workspace / LOCK).is_file() else None
    files = files_below(workspace / name) if entry else {}
    if entry and files and whole_md5(entry, {n: md5_of(p) for n, p in files.items()}) != entry.md5:
        raise DataError(
            f"{name}: is not what {LOCK} records ({entry.md5}): lori why {name} shows the change, "
            "lori run makes it again"
        )


def _hash_all(lineage: Lineage, nodes: Mapping[str, Node]) -> dict[str, dict[str, str]]:
    """Return the MD5 of every file of the nodes here, by node and by path inside the node."""
    files = {
        (name, inside): path
        for name, node in nodes.items()
        if node.here and node.kind != "data"
        for inside, path in files_below(lineage.snapshot.workspace / name).items()
    }
    hashes: dict[str, dict[str, str]] = {
        name: {} for name, node in nodes.items() if node.here and node.kind != "data"
    }
    with ThreadPoolExecutor() as pool:
        for (name, inside), md5 in zip(files, pool.map(md5_of, files.values()), strict=True):
            hashes[name][inside] = md5
    return hashes


def _artifact_problems(
    lineage: Lineage, node: Node, actual: Mapping[str, str] | None
) -> Iterator[Problem]:
    if actual is None or whole_md5(node.entry, actual) == node.entry.md5:
        yield from _key_problems(node)
        return
    whole = whole_md5(node.entry, actual)
    read = {entry.md5 for entry in readings(lineage, node.name)}
    only_this = lineage.objects.cached(whole) and not lineage.objects.cached(node.entry.md5)
    if only_this or (read == {whole} and _is_intact(lineage, node)):
        text = (
            f"stage {stage_name(node)}: outs: {node.name} is recorded as {node.entry.md5}, but its "
            f"files are intact, and the cache or the stages that read them have {whole}"
        )
        yield Problem(LOCK, f"{text}; {MEND}")
        return
    yield from _file_problems(lineage, node, actual)


def _is_intact(lineage: Lineage, node: Node) -> bool:
    """Return whether an artifact's bytes have the checksum in its metadata; True without one."""
    path = lineage.snapshot.workspace / node.name
    if node.kind == "mask":
        return artifact_metadata.mask_fits(path.read_bytes())
    for file, (read, tensors) in artifact_metadata.FOLDERS.items():
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
            f"is not what {LOCK} records ({node.entry.md5}); which of its files changed is not "
            "known: the listing is neither in the cache nor in the remote",
        )
        return
    any_differs = False
    for inside in sorted({*expected, *actual}):
        if expected.get(inside) == actual.get(inside):
            continue
        any_differs = True
        name = f"{node.name}/{inside}" if inside else node.name
        if inside not in actual:
            yield Problem(name, f"is missing; {_restorable(lineage, node)}")
        elif inside not in expected:
            yield Problem(name, f"does not belong here: {LOCK} lists no such file in {node.name}")
        else:
            path = lineage.snapshot.workspace / name
            where = bytes_text(lineage.objects, path, expected[inside])
            yield Problem(name, f"{where}; {_restorable(lineage, node)}")
    if not any_differs:
        yield Problem(LOCK, f"{node.name} is recorded as {node.entry.md5}, but its files differ")


def _restorable(lineage: Lineage, node: Node) -> str:
    cached = lineage.objects.files(node.entry.md5) is not None and node.entry.is_folder
    if cached or lineage.objects.cached(node.entry.md5):
        return restorable(node.name)
    return git_restorable(node.entry)


def _key_problems(node: Node) -> Iterator[Problem]:
    if node.metadata is not None and not node.metadata.key_fits:
        yield Problem(
            f"{node.name}/{node.metadata.file}",
            f"its content key {node.key} is not the digest of the inputs in its metadata; "
            f"{restorable(node.name)}",
        )
