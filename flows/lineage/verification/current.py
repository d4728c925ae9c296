"""Compare the parameters and code that `dvc.lock` records with `params.yaml` and the files here."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from flows.lineage.ancestry import Lineage, Node
from flows.lineage.problem import MEND, Problem
from flows.versioning.dvc import code_files
from flows.versioning.dvc.dvc_repo import ABSENT, value_at
from flows.versioning.objects import files_below, folder_md5, md5_of
from flows.versioning.snapshot import LOCK, PARAMS
from lori_core.pipeline import params_file

#: The folders of the stages' code; extensions are elsewhere.
_CODE = ("lori_core/", "studies/", f"{code_files.FOLDER}/")
#: Left out of a folder's hash by DVC (`.dvcignore`).
_LEFT_OUT = "__pycache__"


def current_problems(
    lineage: Lineage, nodes: Mapping[str, Node], found: Collection[Problem], *, settings: bool
) -> Iterator[Problem]:
    """Find recorded parameters and code that differ from `params.yaml` and the files here.

    Either they changed since, or the record was edited. Stages that have a problem already are
    left out.

    Args:
        lineage: the lineage of the workspace.
        nodes: its nodes by name.
        found: the problems found so far.
        settings: whether to compare with `params.yaml`, too.
    """
    if not lineage.snapshot.here:
        return
    workspace = lineage.snapshot.workspace
    content = lineage.snapshot.read(PARAMS) if settings else None
    values = params_file.read_values(content, PARAMS) if content else {}
    md5 = cache(lambda path: _md5(workspace / path))
    stages = {node.stage.name: node for node in nodes.values() if node.stage}
    for name, node in stages.items():
        if any(f"stage {name}:" in problem.text for problem in found):
            continue
        for text in (*_parameters(node, values), *_code(node, md5)):
            end = f"lori run makes it again, or {MEND}"
            yield Problem(LOCK, f"stage {name}: {text}: {end}", stale=True)


def _parameters(node: Node, values: Mapping[str, Any]) -> Iterator[str]:
    for key, recorded in node.params.items():
        now = value_at(values, key)
        if now is not ABSENT and now != recorded:
            yield f"params: {key} is recorded as {recorded!r}, in {PARAMS} it is {now!r}"


def _code(node: Node, md5: Any) -> Iterator[str]:
    for path, entry in node.stage.deps.items() if node.stage else ():
        now = md5(path) if path.startswith(_CODE) or path.endswith(".py") else None
        if now is not None and now != entry.md5:
            yield f"deps: {path} is recorded as {entry.md5}, but is {now} here"


def _md5(path: Path) -> str | None:
    """Return DVC's hash of a file or folder of code; None if it does not exist."""
    if not path.exists():
        return None
    files = {name: file for name, file in files_below(path).items() if _LEFT_OUT not in name}
    hashes = {name: md5_of(file) for name, file in files.items() if file.suffix != ".pyc"}
    return hashes[""] if path.is_file() else folder_md5(hashes)
