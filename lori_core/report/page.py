"""`report/index.html` with its pictures, and the summary that the other views read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lori_core.config import Params
from lori_core.files import replaced_folder, write_json, write_text
from lori_core.report import figures, summary


def write(params: Params, metrics: Path, folder: Path) -> dict[str, Any]:
    """Write the report's folder anew and return the summary."""
    from jinja2 import Environment, FileSystemLoader

    built = summary.build(params, metrics)
    pages = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    with replaced_folder(folder) as work:
        drawn = figures.draw(built, work)
        kind_rows, broken = _by_kind(built)
        html = pages.get_template("page.html").render(
            model=params.model.name_or_path,
            lori=params.lori,
            columns=built["columns"],
            table=built["table"],
            facts=summary.facts(built),
            figures=drawn,
            kind_rows=kind_rows,
            broken=broken,
        )
        write_text(work / "index.html", html)
        write_text(work / "summary.md", summary.markdown(built))
        write_json(work / summary.SUMMARY, built)
    return built


def _by_kind(built: dict[str, Any]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Return the models, and a line for each task's kinds with every model's score."""
    rows = built["rows"]
    broken = []
    for task in built["tasks"]:
        kinds = rows[0]["scores"].get(task, {}).get("kinds", {})
        for kind in kinds if len(kinds) > 1 else []:
            cells = []
            for row in rows:
                found = row["scores"].get(task, {}).get("kinds", {}).get(kind)
                cells.append("" if found is None else f"{100 * found['score']:.0f}")
            broken.append((f"{task}, {kind} ({kinds[kind]['n']})", cells))
    return [row["model"] for row in rows], broken
