"""`python -m flows.versioning.definition`: bring `dvc.yaml` to what the table of dependencies says.

Only the lists `deps` and `params` of each stage are written; all else stays as it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from flows.versioning.pipeline_file import FILE
from lori_core.files import write_text
from lori_core.stage_dependencies import STAGES, Stage

_STAGE = re.compile(r"  (\w+):$")
_LIST = re.compile(r"( +)(deps|params):$")


def brought_up(text: str) -> str:
    """Return the text of `dvc.yaml` with the lists that the table says."""
    kept: list[str] = []
    lines = iter(text.splitlines())
    stage: Stage | None = None
    skipped = None
    for line in lines:
        if skipped is not None and line.startswith(f"{skipped}  - "):
            continue
        skipped = None
        named, listed = _STAGE.match(line), _LIST.match(line)
        stage = STAGES.get(named[1], stage) if named else stage
        if stage is not None and listed:
            skipped = listed[1]
            if listed[2] == "deps":
                kept.extend(_lists(stage, skipped))
        else:
            kept.append(line)
    return "\n".join(kept) + "\n"


def _lists(stage: Stage, indent: str) -> Iterator[str]:
    code = [f"lori_core/{name}" for name in sorted(set(stage.code))]
    for name, entries in (("deps", [*stage.inputs, *code]), ("params", sorted(set(stage.params)))):
        if entries:
            yield f"{indent}{name}:"
            yield from (f"{indent}  - {_in_dvc(entry, stage)}" for entry in entries)


def _in_dvc(entry: str, stage: Stage) -> str:
    """Return an entry as DVC names the item: a mapping's key, or a list's item."""
    item = "${item}" if stage.items == "continual task" else "${key}"
    return entry.replace("{item}", item).replace("{safety_task}", "${continual.safety_task}")


if __name__ == "__main__":
    path = Path(FILE)
    write_text(path, brought_up(path.read_text(encoding="utf-8")))
