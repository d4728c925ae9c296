"""`lori pull`: the data, and two small files by which stages depend on base and tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lori_core.config import Params
from lori_core.core.files.atomic import (
    digest,
    json_text,
    read_object,
    sha256_file,
    write_json,
    write_text,
)
from lori_core.core.stage_dependencies import BASE_FILE, TASKS_FILE
from lori_core.models import base_files, base_identity
from lori_core.models.base_model import RECORD

_TEXTS = {".json", ".jinja", ".model", ".tiktoken", ".txt"}
#: What the last pull was asked for: a digest, of this machine alone.
ASKED = Path(".lori/pulled")
#: The content of base models that were read whole, by their files' sizes and times.
READ = Path(".lori/bases.json")


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
    from lori_core.data.sources import pulling
    from lori_core.models import base_model

    said = pulling.pull(params)
    identity = base_model.identity(params.model, base)
    content = {"content": _content(base), "tokenizer": _tokenizer_digest(base)}
    _write(Path(TASKS_FILE), list(params.tasks))
    _write(Path(BASE_FILE), identity.content() | content)
    write_text(ASKED, _asked(params))
    return said


def is_pulled(params: Params) -> bool:
    """Say whether the data here is what these parameters ask for, as far as the last pull knows."""
    return ASKED.is_file() and ASKED.read_text(encoding="utf-8") == _asked(params)


def _asked(params: Params) -> str:
    """Return a digest of what decides which data and base model a pull brings."""
    from lori_core.data.sources import pulling

    tasks = [
        [name, task.model_dump(mode="json", include={"source", "sizes"})]
        for name, task in params.tasks.items()
    ]
    said = [tasks, params.lori.seed, params.model.model_dump(mode="json")]
    made_by = pulling.extensions_of(params)
    return digest([*said, made_by] if made_by else said)


def _content(base: Path) -> str:
    """Return the digest of all the base model's weights, read again only where a file changed.

    The identity that adapters record samples each tensor, since every stage takes it. Here nothing
    is left out, so that a base changed in place by a few bytes is another one for DVC.
    """
    files = {path.name: path.stat() for path in base_files.weight_files(base)}
    stamps = [[n, s.st_size, s.st_mtime_ns, s.st_ino, s.st_dev] for n, s in sorted(files.items())]
    key = digest([str(base.resolve()), stamps])
    known = read_object(READ) if READ.is_file() else {}
    if known.get("key") != key:
        known = {"key": key, "content": base_identity.whole_content(base)}
        write_json(READ, known)
    return str(known["content"])


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
