"""`lori pull`: the data, and two small files by which stages depend on base and tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lori_core.config import Params
from lori_core.files import digest, json_text, sha256_file, write_text
from lori_core.models import RECORD
from lori_core.stage_dependencies import BASE_FILE, TASKS_FILE

_TEXTS = {".json", ".jinja", ".model", ".tiktoken", ".txt"}


def pull(params: Params, base: Path) -> list[str]:
    """Bring `data/` to what `params.yaml` says, and say what stages depend on besides.

    `data/tasks.json` holds the tasks' names in their order, which decides how merges are weighted;
    `data/base.json` identifies the content of the base model and its tokenizer, wherever they lie.
    Stages depend on both, so that a reordered task or a replaced base makes them run again.

    Args:
        params: the run.
        base: the base model's folder.

    Returns:
        One line for each task that was written.
    """
    from lori_core import models
    from lori_core.data import sources

    said = sources.pull(params)
    identity = models.identity(params.model, base)
    _write(Path(TASKS_FILE), list(params.tasks))
    _write(Path(BASE_FILE), identity.content() | {"tokenizer": _tokenizer_digest(base)})
    return said


def _tokenizer_digest(base: Path) -> str:
    """Return the digest of the text files beside the weights: tokenizer, templates, stop tokens.

    The model's configuration is left out, which its identity covers, and indices of weights.
    """
    files = {path.name: path for path in base.iterdir() if path.suffix in _TEXTS and path.is_file()}
    known = {name for name in files if name.endswith(".index.json")} | {"config.json", RECORD}
    return digest({name: sha256_file(files[name]) for name in files.keys() - known})


def _write(path: Path, value: Any) -> None:
    """Write JSON unless the file holds it already: an unchanged file keeps its time."""
    text = json_text(value)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
