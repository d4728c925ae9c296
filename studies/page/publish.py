"""Publish the experiments that have run as a document: `evidence.md`, with its record.

    python -m studies.page.publish [FOLDER]   # by default docs

Run it in the workspace of the experiments. The record is the folder `evidence` beside the document:
the pictures, each experiment's rows, and the `dvc.lock` with the hashes of the data, the code, the
settings and the artifacts of each point.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Collection
from pathlib import Path
from tempfile import TemporaryDirectory

from lori_core.adapters import output_folder
from lori_core.core.errors import InputError
from lori_core.core.files.atomic import write_text
from lori_core.core.redaction import redact
from lori_core.pipeline import params_file
from studies.analysis import rows
from studies.analysis.specs import SPECS
from studies.page import data_section, markdown, page

METRICS, LOCK = Path("metrics/experiments"), Path("experiments/dvc.lock")
NAME, RECORD = "evidence.md", "evidence"


def document(metrics: Path, pictures: Path, profiles: Path = params_file.PROFILES) -> str:
    """Return the document of the experiments that have run, and draw its pictures.

    Args:
        metrics: the folder of the files `NAME.json`.
        pictures: the folder for the PNG files.
        profiles: the folder of the profiles.
    """
    with TemporaryDirectory() as name:
        report = Path(name) / "report"
        built = page.write(metrics, report)
        pictures.mkdir(exist_ok=True)
        for picture in sorted(report.glob("*.png")):
            shutil.copy(picture, pictures)
    text = markdown.evidence(built, pictures=f"{RECORD}/")
    text += data_section.section(rows.read_folder(metrics), profiles)
    return text + _not_run(built["experiments"])


def _not_run(experiments: Collection[str]) -> str:
    """Return a section about the experiments without results; empty if all have run."""
    missing = [name for name in SPECS if name not in experiments]
    if not missing:
        return ""
    lines = ["", "## Not run yet", ""]
    lines += ["These experiments have no results here:", ""]
    lines += [
        f"- {SPECS[name].title}: `lori experiment {name} --profile evidence`" for name in missing
    ]
    return "\n".join(lines) + "\n"


def publish(workspace: Path, docs: Path) -> None:
    """Write a workspace's experiments to `docs/evidence.md` and the record to `docs/evidence`.

    Raises:
        InputError: the document or the folder exists and was not written by this function.
    """
    path = docs / NAME
    if path.exists() and not path.read_text(encoding="utf-8").startswith(markdown.TITLE):
        raise InputError(f"{path}: is a document that this command did not write; move it away")
    kind = output_folder.Kind("publish", lambda folder: _written(folder, path), "move it away")
    inputs = [workspace / METRICS, workspace / LOCK]
    with output_folder.claim(docs / RECORD, kind, inputs) as work:
        text = document(workspace / METRICS, work, workspace / params_file.PROFILES)
        shutil.copytree(workspace / METRICS, work / "metrics")
        shutil.copy(workspace / LOCK, work)
    write_text(path, redact(text))


def _written(folder: Path, document: Path) -> set[str]:
    """Return the files of a record: the document's pictures, the rows, the lock file."""
    if not document.is_file():
        return set()
    text = document.read_text(encoding="utf-8")
    pictures = {path.name for path in folder.glob("*.png") if f"{RECORD}/{path.name}" in text}
    metrics = [*folder.glob("metrics/*.json"), *folder.glob("metrics/bases/*/*.json")]
    rows = {str(path.relative_to(folder)) for path in metrics}
    locks = {path.name for path in folder.glob("*.lock")}  # of runs of other versions, too
    return {*locks, *pictures, *rows}


if __name__ == "__main__":
    publish(Path(), Path(*sys.argv[1:2] or ["docs"]))
