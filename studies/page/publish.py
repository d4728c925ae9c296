"""Publish the experiments that have run as a document: `evidence.md` and what it was made from.

    python -m studies.page.publish [FOLDER]   # docs, where no folder is named

Run in the workspace of the experiments. Beside the document stands a folder of the same name: its
pictures, each experiment's rows, and the `dvc.lock` that names by hash the data, the code, the
settings and the artifacts of each point.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from lori_core.adapters import output_folder
from lori_core.core.errors import InputError
from lori_core.core.files.atomic import write_text
from lori_core.core.redaction import redact
from studies.page import markdown, page

METRICS, LOCK = Path("metrics/experiments"), Path("experiments/dvc.lock")
NAME, RECORD = "evidence.md", "evidence"


def document(metrics: Path, pictures: Path) -> str:
    """Return the document of the experiments there are, and draw its pictures.

    Args:
        metrics: the folder of `NAME.json`.
        pictures: becomes a folder of PNG files.
    """
    with TemporaryDirectory() as name:
        report = Path(name) / "report"
        built = page.write(metrics, report)
        pictures.mkdir(exist_ok=True)
        for picture in sorted(report.glob("*.png")):
            shutil.copy(picture, pictures)
    return markdown.evidence(built, pictures=f"{RECORD}/")


def publish(workspace: Path, docs: Path) -> None:
    """Write a workspace's experiments as `docs/evidence.md`, the record in `docs/evidence`.

    Raises:
        InputError: something stands in either's place that this did not write.
    """
    path = docs / NAME
    if path.exists() and not path.read_text(encoding="utf-8").startswith(markdown.TITLE):
        raise InputError(f"{path}: another document than this one; move it away")
    kind = output_folder.Kind("publish", lambda folder: _written(folder, path), "move it away")
    inputs = [workspace / METRICS, workspace / LOCK]
    with output_folder.claim(docs / RECORD, kind, inputs) as work:
        text = document(workspace / METRICS, work)
        shutil.copytree(workspace / METRICS, work / "metrics")
        shutil.copy(workspace / LOCK, work)
    write_text(path, redact(text))


def _written(folder: Path, document: Path) -> set[str]:
    """Return the files of a record: the pictures that its document shows, the rows, the lock."""
    if not document.is_file():
        return set()
    text = document.read_text(encoding="utf-8")
    pictures = {path.name for path in folder.glob("*.png") if f"{RECORD}/{path.name}" in text}
    rows = {f"metrics/{path.name}" for path in folder.glob("metrics/*.json")}
    return {LOCK.name, *pictures, *rows}


if __name__ == "__main__":
    publish(Path(), Path(*sys.argv[1:2] or ["docs"]))
