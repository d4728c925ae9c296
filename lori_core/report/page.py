"""`report/index.html` with its pictures, and the summary that the other views read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lori_core.config import Params
from lori_core.core.files.atomic import replaced_folder, write_json, write_text
from lori_core.core.redaction import redact, redacted
from lori_core.report import figures, origins, summary

#: Where the data say what they are, beside `metrics`.
MANIFEST = Path("data/manifest.json")


def write(params: Params, metrics: Path, evaluations: Path, folder: Path) -> dict[str, Any]:
    """Write the report's folder anew and return the summary."""
    from jinja2 import Environment, FileSystemLoader

    built = summary.build(params, metrics, evaluations)
    pages = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    with replaced_folder(folder) as work:
        drawn = figures.draw(built, work)
        html = pages.get_template("page.html").render(
            model=params.model.name_or_path,
            lori=params.lori,
            columns=built["columns"],
            table=built["table"],
            facts=summary.facts(built),
            figures=drawn,
            tables=built["tables"],
            origins=origins.trees(params, metrics, metrics.parent / MANIFEST),
        )
        write_text(work / "index.html", redact(html))
        write_text(work / "summary.md", redact(summary.markdown(built)))
        write_json(work / summary.SUMMARY, redacted(built))
    return built
