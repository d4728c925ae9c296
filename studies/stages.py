"""`experiments/dvc.yaml`: a stage for each point, and a stage for the page about all of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from lori_core.core.errors import InputError
from lori_core.core.files.atomic import read_json, write_text
from lori_core.core.stage_dependencies import BASE_FILE
from lori_core.core.tracking import RunTracker
from studies import code
from studies.page import plots
from studies.points import FOLDER, METRICS, POINTS, Collect, Point, Points, Score, Train, folder_of

DVC = FOLDER / "dvc.yaml"
REPORT = FOLDER / "report"
REPORT_STAGE = "report"
HEADER = """\
# Written by `lori experiment` from params.yaml: one stage a point, its settings in points.json.
# Points that several experiments need stand here once; a finished one is never run again.
"""


def check() -> None:
    """Refuse to replace another pipeline.

    Raises:
        InputError: `experiments/dvc.yaml` exists and was not written by `write`.
    """
    title, _, _ = HEADER.partition("\n")
    if DVC.is_file() and not DVC.read_text(encoding="utf-8").startswith(title):
        raise InputError(f"{DVC}: lori experiment did not write it and would replace it: move it")


def write(points: Points, extensions: Mapping[str, Collection[str]] | None = None) -> None:
    """Write the points and the stages that run them.

    Args:
        points: the points to run.
        extensions: for each extension file, the kinds of extensions it registers.

    Raises:
        InputError: as `check`.
    """
    check()
    points.save()
    stages = {name: _stage(name, point) for name, point in points.by_name.items()}
    kinds: dict[str, str] = {name: point.kind for name, point in points.by_name.items()}
    collected = [p for p in points.by_name.values() if isinstance(p, Collect)]
    stages[REPORT_STAGE] = {
        "wdir": "..",
        "desc": "Draw the experiments' figures, tables and page beside the paper's",
        "cmd": "lori point report",
        "deps": [*(str(point.path) for point in collected), *code_of(REPORT_STAGE)],
        "outs": [str(REPORT)],
        "meta": {"gpus": 0},
    }
    kinds[REPORT_STAGE] = REPORT_STAGE
    for name, stage in stages.items():
        stage["deps"] += extensions_of(kinds[name], extensions or {})
    pages = {p.experiment: f"bases/{p.base}" if p.base else "" for p in collected}
    plots_section = plots.section({n: str(Path(REPORT.name, page)) for n, page in pages.items()})
    write_text(DVC, HEADER + _yaml({"stages": stages, "plots": plots_section}))


def describe(points: Points) -> str:
    """Return the numbers of points as a short text."""
    kinds = [point.kind for point in points.by_name.values()]
    return f"{kinds.count('train')} trainings, {kinds.count('score')} scorings"


def run(name: str, tracker: RunTracker) -> None:
    """Run one stage of `experiments/dvc.yaml`: a point, or the report.

    Raises:
        InputError: there is no point of that name.
    """
    if name == REPORT_STAGE:
        report(tracker)
        return
    from studies import running

    running.run(name, tracker)


def report(tracker: RunTracker) -> None:
    """Write the page about all experiments with metrics in `metrics/experiments`."""
    from studies.page import page

    tracker.start(REPORT_STAGE)
    summary = page.write(METRICS, REPORT)
    tracker.metrics(summary["metrics"])
    tracker.artifact(REPORT)
    tracker.end()


def show(say: Callable[[str], None]) -> None:
    """Report the verdicts of all claims and the path of the page.

    Args:
        say: called with each line.
    """
    summary = read_json(REPORT / "summary.json")
    say(summary["summary"])
    for claim in summary["claims"]:
        say(f"  {claim['verdict']:32} {claim['claim']}")
    for base in summary["bases"]:
        say(f"{base['base']}: {base['summary']}")
    say(f"The tables and figures beside the paper's: {REPORT / 'index.html'}")


def _yaml(values: Any) -> str:
    import io

    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 1000
    buffer = io.StringIO()
    yaml.dump(values, buffer)
    return buffer.getvalue()


def _stage(name: str, point: Point) -> dict[str, Any]:
    stage: dict[str, Any] = {
        "wdir": "..",
        "cmd": f"lori point {name}",
        "deps": [
            *data_of(point),
            *(str(folder_of(n)) for n in point.parents),
            *code_of(point.kind),
        ],
        "params": [{str(POINTS): [name]}],
        "meta": {"gpus": int(isinstance(point, Train | Score))},
    }
    if isinstance(point, Collect):
        stage["metrics"] = [{str(point.path): {"cache": False}}]
    else:
        stage["outs"] = [str(folder_of(name))]
    return stage


def extensions_of(kind: str, extensions: Mapping[str, Collection[str]]) -> list[str]:
    """Return the extension files that decide the results of a kind of point.

    Args:
        kind: the kind of point.
        extensions: for each extension file, the kinds of extensions it registers.
    """
    wanted = code.EXTENSIONS.get(kind, frozenset())
    return [path for path, registered in extensions.items() if not wanted.isdisjoint(registered)]


def code_of(kind: str) -> list[str]:
    """Return the files and folders of code that a kind of point depends on."""
    names = set(code.POINTS[kind])
    return sorted(n if n.startswith("studies/") else f"lori_core/{n}" for n in names)


def data_of(point: Point) -> list[str]:
    """Return the files that a point reads: examples, and the base model's identity."""
    if isinstance(point, Train):
        mixed = [] if point.safety is None else _splits([point.safety], "train")
        avoided = [] if point.projection is None else _splits(point.projection.avoid, "train")
        own = _splits([point.task], "train", "validation", "test")
        return [BASE_FILE, *own, *mixed, *avoided]
    if isinstance(point, Score):
        return [
            BASE_FILE,
            *_splits(dict.fromkeys([*point.scored, *point.losses]), "test"),
            *_splits(point.losses, "validation"),
        ]
    return ["data"] if isinstance(point, Collect) else []


def _splits(tasks: Iterable[str], *splits: str) -> list[str]:
    return [f"data/{task}/{split}.jsonl" for task in tasks for split in splits]
