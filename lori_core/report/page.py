"""Writing the report's folder: `index.html`, the figures, `summary.md` and `summary.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lori_core.config import Params
from lori_core.core.files.atomic import replaced_folder, write_json, write_text
from lori_core.core.redaction import redact, redacted
from lori_core.report import figures, origins, summary

#: The manifest of the data, relative to the parent of the metrics' folder.
MANIFEST = Path("data/manifest.json")


def write(params: Params, metrics: Path, evaluations: Path, folder: Path) -> dict[str, Any]:
    """Replace the report's folder and return the summary.

    Args:
        params: the parameters of the run.
        metrics: the folder of the stages' metrics.
        evaluations: the folder of the verdicts.
        folder: the report's folder.

    Raises:
        InputError, DataError: as `summary.build`.
    """
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
