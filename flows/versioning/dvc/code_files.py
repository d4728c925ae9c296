"""Files with the digests of each stage's code, for workspaces outside this repository.

DVC reruns a stage when a file that it depends on changes. Where the code is an installed package, a
stage depends on `code/<stage>.json`, which `lori run` and `lori pull` write: another version of the
package reruns the stages whose code it changes, and no others.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flows.versioning.dvc.pipeline_file import FILE
from lori_core.core import source_code
from lori_core.core.errors import InputError
from lori_core.core.files.atomic import json_text, write_text
from lori_core.core.stage_dependencies import STAGES

FOLDER = "code"


def path_of(stage: str) -> str:
    """Return the path of the file of a stage, relative to the workspace."""
    return f"{FOLDER}/{stage}.json"


def write(workspace: Path) -> list[str]:
    """Write the files that `dvc.yaml` names; return a line if that changes one.

    A workspace whose `dvc.yaml` names none, as this repository's, gets none.
    """
    changed = _changed(workspace)
    for name, text in changed.items():
        (workspace / FOLDER).mkdir(exist_ok=True)
        write_text(workspace / path_of(name), text)
    return [f"{FOLDER}/: digests of the code of {len(changed)} stages"] if changed else []


def outdated(workspace: Path) -> list[str]:
    """Return the stages whose files `write` would change."""
    return list(_changed(workspace))


def _changed(workspace: Path) -> dict[str, str]:
    texts = _texts(workspace)
    return {name: text for name, text in texts if _differs(workspace / path_of(name), text)}


def check(workspace: Path, stage: str) -> None:
    """Refuse to run a stage whose file in the workspace is of another version of the code.

    Raises:
        InputError: names the file.
    """
    for name, text in _texts(workspace, only=stage):
        if _differs(workspace / path_of(name), text):
            raise InputError(
                f"{path_of(name)}: is not of the installed version of lori, so dvc.lock would "
                "record other code than runs; run lori run, or install that version"
            )


def _texts(workspace: Path, only: str | None = None) -> Iterator[tuple[str, str]]:
    """Yield the name of each stage whose file `dvc.yaml` names, and the file's content.

    Args:
        workspace: the workspace.
        only: leave out all other stages, whose code is then not read.
    """
    path = workspace / FILE
    definition = path.read_text(encoding="utf-8") if path.is_file() else ""
    for name, stage in STAGES.items():
        if only in (None, name) and f"- {path_of(name)}\n" in definition:
            files = sorted(file for entry in stage.code for file in source_code.files_of(entry))
            yield name, json_text(source_code.digests(files))


def _differs(path: Path, text: str) -> bool:
    return not path.is_file() or path.read_text(encoding="utf-8") != text
