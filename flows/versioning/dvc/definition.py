"""The text of `dvc.yaml`: `pipeline.yaml` of this folder, with the table of dependencies.

The table is `lori_core.core.stage_dependencies`; it gives the lists `deps` and `params` of each
stage. `python -m flows.versioning.dvc.definition` writes this repository's `dvc.yaml`, where stages
depend on the files of `lori_core/`. In a workspace that `lori init` made, which has no such files,
each stage depends on a file with the digests of its code instead (`code_files`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import takewhile
from pathlib import Path

from flows.versioning.dvc import code_files
from flows.versioning.dvc.pipeline_file import FILE
from lori_core.config import Params
from lori_core.core.errors import ConfigError
from lori_core.core.files.atomic import write_text
from lori_core.core.stage_dependencies import HARNESS, STAGES, Stage
from lori_core.pipeline import params_file
from lori_core.pipeline.params_file import PARAMS
from lori_core.registries import extensions

_STAGE = re.compile(r"  (\w+):$")
#: Marks the folder of task files of lm-evaluation-harness among a stage's dependencies.
_OF_HARNESS = "  # evaluation.harness.include_path"
#: A dependency on code or task files that are not this project's own.
_EXTENSION = re.compile(rf" +- (?:(?!lori_core/)[^{{}}]+\.py|.+{re.escape(_OF_HARNESS)})$")
_LIST = re.compile(r"( +)(deps|params):$")


#: The stages, without the lists that the table gives.
STAGES_FILE = Path(__file__).with_name("pipeline.yaml")


def pipeline() -> str:
    """Return the text of `pipeline.yaml`."""
    return STAGES_FILE.read_text(encoding="utf-8")


def for_workspace() -> str:
    """Return the text of the `dvc.yaml` of a workspace outside this repository."""
    comment = "# The pipeline: one stage per step and task; the tasks are those of params.yaml.\n"
    stages = pipeline()
    return comment + with_dependencies(stages[stages.index("vars:") :], code_of=code_files.path_of)


def with_dependencies(text: str, code_of: Callable[[str], str] | None = None) -> str:
    """Return the text of `dvc.yaml` with the lists `deps` and `params` of the table.

    Args:
        text: the text, with or without these lists.
        code_of: returns the file that stands for all code of a stage; None lists the files.
    """
    written: list[str] = []
    lines = iter(text.splitlines())
    stage: str | None = None
    skipped = None
    for line in lines:
        if skipped is not None and line.startswith(f"{skipped}  - "):
            continue
        skipped = None
        named, listed = _STAGE.match(line), _LIST.match(line)
        stage = named[1] if named and named[1] in STAGES else stage
        if stage is not None and listed:
            skipped = listed[1]
            if listed[2] == "deps":
                code = [code_of(stage)] if code_of else _files(STAGES[stage])
                written.extend(_lists(STAGES[stage], code, skipped))
        else:
            written.append(line)
    return "\n".join(written) + "\n"


def _files(stage: Stage) -> list[str]:
    return [f"lori_core/{name}" for name in sorted(set(stage.code))]


def _lists(stage: Stage, code: Sequence[str], indent: str) -> Iterator[str]:
    for name in ("deps", "params"):
        entries = _entries(stage, name, code)
        if entries:
            yield f"{indent}{name}:"
            yield from (f"{indent}  - {entry}" for entry in entries)


def _entries(stage: Stage, name: str, code: Sequence[str]) -> list[str]:
    """Return the entries of a stage's list `deps` or `params`."""
    entries = [*stage.inputs, *code] if name == "deps" else sorted(set(stage.params))
    return [_in_dvc(entry, stage) for entry in entries]


def _in_dvc(entry: str, stage: Stage) -> str:
    """Return an entry with DVC's templates: `${key}` of a mapping or `${item}` of a list."""
    item = "${item}" if stage.items == "continual task" else "${key}"
    entry = entry.replace("{item}", item).replace("{stage}", "${item.stage}")
    return entry.replace("{safety_task}", "${continual.safety_task}")


def with_extensions(text: str, deciding: Mapping[str, Collection[str]]) -> str:
    """Return the text of `dvc.yaml` with exactly the extension files that stages depend on.

    Args:
        text: the text of `dvc.yaml`.
        deciding: for each extension file, the kinds of extensions it registers (`deciding_files`).
    """
    written: list[str] = []
    stage: Stage | None = None
    inside: str | None = None
    for line in [*text.splitlines(), ""]:
        if inside is not None and not line.startswith(f"{inside}  - "):
            written.extend(
                f"{inside}  - {_listed(path, kinds)}"
                for path, kinds in deciding.items()
                if stage and _decides(kinds, stage)
            )
            inside = None
        named, listed = _STAGE.match(line), _LIST.match(line)
        stage = STAGES.get(named[1]) if named else stage
        if listed and listed[2] == "deps" and stage is not None:
            inside = listed[1]
        if inside is None or not _EXTENSION.match(line):
            written.append(line)
    return "\n".join(written)


def _listed(path: str, kinds: Collection[str]) -> str:
    return f"{json.dumps(path)}{_OF_HARNESS}" if HARNESS in kinds else path


def _decides(kinds: Collection[str], stage: Stage) -> bool:
    return not set(kinds).isdisjoint(stage.extensions)


def deciding_files(workspace: Path, params: Params) -> dict[str, set[str]]:
    """Return the paths of the user's own files that decide results, with what they hold.

    Returns:
        For each extension file, the kinds of extensions it registers; for the folder of
        `evaluation.harness.include_path`, if it exists and the harness has tasks to run, the kind
        `HARNESS`.

    Raises:
        ConfigError: the folder contains the workspace, so that results would depend on themselves.
    """
    deciding = extensions.registered_kinds(params.extensions, workspace)
    harness = params.evaluation.harness
    if not harness.tasks or harness.include_path is None:
        return deciding
    folder = workspace / harness.include_path
    if workspace.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(
            f"evaluation.harness.include_path: {harness.include_path}: this folder contains the "
            "workspace, and every result would depend on it; put the task files and their data "
            "into a folder of their own"
        )
    if folder.is_dir():
        deciding[harness.include_path] = {HARNESS}
    return deciding


def follow(workspace: Path, params: Params) -> list[str]:
    """Bring `dvc.yaml` up to date; return a line for each kind of change.

    Stages depend on the extensions and the harness's task files of `params.yaml` and, in a
    workspace that an earlier version of lori made, also on what the installed version's stages
    depend on besides.
    """
    text, messages = _followed(workspace, params)
    if messages:
        write_text(workspace / FILE, text)
    return messages


def outdated(workspace: Path, params: Params) -> list[str]:
    """Return the lines that `follow` would return, and write nothing."""
    return _followed(workspace, params)[1]


def _followed(workspace: Path, params: Params) -> tuple[str, list[str]]:
    path = workspace / FILE
    if not path.is_file():
        return "", []
    before = path.read_text(encoding="utf-8")
    complete, messages = with_lacking(before), list[str]()
    if complete != before:
        messages.append(f"{FILE}: stages now depend on all that the installed version's depend on")
    text = with_extensions(complete, deciding_files(workspace, params))
    if text != complete:
        messages.append(
            f"{FILE}: stages now depend on the extensions and the harness's task files that "
            f"{PARAMS} names"
        )
    return text, messages


def with_lacking(text: str) -> str:
    """Return the text of a workspace's `dvc.yaml` with the entries of the table that it lacks.

    This repository's own, which lists the code's files, is returned as it is.
    """
    lines = text.splitlines()
    for place, _, entries in reversed(list(_lacking(lines))):
        lines[place:place] = entries
    return "\n".join(lines) + "\n" * text.endswith("\n")


def _lacking(lines: Sequence[str]) -> Iterator[tuple[int, str, list[str]]]:
    """Yield the end of each list that lacks entries of the table, its stage, and their lines."""
    stage = ""
    for number, line in enumerate(lines):
        named, listed = _STAGE.match(line), _LIST.match(line)
        stage = named[1] if named else stage
        if stage not in STAGES or not listed:
            continue
        beginning = f"{listed[1]}  - "
        known = list(takewhile(partial(_begins, beginning), lines[number + 1 :]))
        code = code_files.path_of(stage)
        if listed[2] == "deps" and f"{beginning}{code}" not in known:
            stage = ""  # it depends on the code's files
            continue
        wanted = _entries(STAGES[stage], listed[2], [code])
        rows = [f"{beginning}{entry}" for entry in wanted]
        entries = [row for row in rows if row not in known]
        if entries:
            yield number + 1 + len(known), stage, entries


def _begins(beginning: str, line: str) -> bool:
    return line.startswith(beginning)


def lacking(workspace: Path, name: str) -> list[str]:
    """Return what decides a stage's result but is missing in the workspace's `dvc.yaml`."""
    path = workspace / FILE
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [
        entry.strip().removeprefix("- ")
        for _, stage, entries in _lacking(lines)
        for entry in entries
        if stage == name
    ]


def missing(workspace: Path, params: Params, name: str) -> list[str]:
    """Return the user's files that decide a stage's result but are missing in `dvc.yaml`."""
    path = workspace / FILE
    deciding = deciding_files(workspace, params)
    if not path.is_file() or not deciding:
        return []
    text = path.read_text(encoding="utf-8")
    if with_extensions(text, deciding) == text:
        return []
    return [file for file, kinds in deciding.items() if _decides(kinds, STAGES[name])]


if __name__ == "__main__":
    path = Path(FILE)
    write_text(path, with_dependencies(pipeline()))
    follow(Path(), params_file.load())
