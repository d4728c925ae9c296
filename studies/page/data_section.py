"""The section of `evidence.md` about data: the sets with their licences, and the profile."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lori_core.config import Params
from lori_core.data.sources.catalogue import ENTRIES
from lori_core.pipeline import params_file
from studies.analysis.rows import Experiment
from studies.analysis.specs import TASKS, in_order

#: The profile whose data sets the section lists.
PROFILE = "evidence"


def section(experiments: Mapping[str, Experiment], profiles: Path) -> str:
    """Return the section in Markdown; empty in a workspace without the profile.

    Args:
        experiments: those that have run.
        profiles: the folder of the profiles.
    """
    path = profiles / f"{PROFILE}.yaml"
    if not path.is_file():
        return ""
    sets = _sets(params_file.load(path, profiles.parent))
    lines = [
        "",
        "## Data and licences",
        "",
        "| set | what it is | licence |",
        "| --- | --- | --- |",
    ]
    lines += [f"| `{name}` | {what} | {licence} |" for name, what, licence in sets]
    lines += ["", "None of these sets is part of this project."]
    lines += _other_sizes(experiments, profiles)
    return "\n".join(lines) + "\n"


def _sets(params: Params) -> Iterator[tuple[str, str, str]]:
    """Yield the name, purpose and licence of each ready-made set that a run uses."""
    for task in params.tasks.values():
        for name in task.source if isinstance(task.source, (list, tuple)) else [task.source]:
            if isinstance(name, str):
                entry = ENTRIES[name]
                yield name, entry.purpose, str(entry.source.license)


def _other_sizes(experiments: Mapping[str, Experiment], profiles: Path) -> list[str]:
    """Return a line where results were made with sizes that their command's profile lacks today."""
    sizes = {path.stem: _train_sizes(path, profiles) for path in sorted(profiles.glob("*.yaml"))}
    lines: dict[str, None] = {}
    for experiment in experiments.values():
        own, found = experiment.info.get("train_sizes"), _profile(experiment.info)
        if not isinstance(own, Mapping) or found not in sizes or own == _of(sizes[found], own):
            continue
        fits = [name for name, others in sizes.items() if own == _of(others, own)]
        today = " or ".join(f"`{name}`" for name in fits) or "no profile"
        text = ", ".join(f"{task} {own[task]}" for task in in_order(own, TASKS))
        lines[
            f"Results with the command `--profile {found}` and {text} training examples were made "
            f"before that profile had its present sizes; those sizes are now in {today}."
        ] = None
    return ["", *lines] if lines else []


def _train_sizes(path: Path, profiles: Path) -> dict[str, int | None]:
    tasks = params_file.load(path, profiles.parent).tasks
    return {name: task.sizes.train for name, task in tasks.items()}


def _of(sizes: Mapping[str, int | None], tasks: Mapping[str, Any]) -> dict[str, int | None]:
    return {task: sizes[task] for task in tasks if task in sizes}


def _profile(info: Mapping[str, Any]) -> str | None:
    match = re.search(r"--profile (\S+)", str(info.get("command", "")))
    return match.group(1) if match else None
