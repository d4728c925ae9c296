"""`lori pull`: the data, and two small files that make stages depend on base model and tasks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from lori_core.data.example import Example

_TEXTS = {".json", ".jinja", ".model", ".tiktoken", ".txt"}
#: The file with the digest of the last pull's request; it stays on this machine.
ASKED = Path(".lori/pulled")
#: The file with the content digest of the base model, and the sizes and times of its files.
READ = Path(".lori/bases.json")


def pull(params: Params, base: Path, *, trained: bool = True) -> list[str]:
    """Write `data/` as `params.yaml` defines it, and the two files that stages depend on.

    `data/tasks.json` has the tasks' names in their order, to which the weights of merges refer;
    `data/base.json` identifies the content of the base model and its tokenizer, independent of
    their path. Stages depend on both, so reordered tasks or a replaced base model make them run
    again.

    Args:
        params: the parameters of the run.
        base: the base model's folder.
        trained: whether each task needs training examples.

    Returns:
        One line for each task that was written.
    """
    from lori_core.data.sources import pulling
    from lori_core.models import base_model

    lines = pulling.pull(params, trained=trained, check=_check(params, base))
    identity = base_model.identity(params.model, base)
    content = {"content": _content(base), "tokenizer": _tokenizer_digest(base)}
    _write(Path(TASKS_FILE), list(params.tasks))
    _write(Path(BASE_FILE), identity.content() | content)
    write_text(ASKED, _request_digest(params))
    return lines


def _check(params: Params, base: Path) -> Callable[[Example, str], None] | None:
    """Return the check of conversations against the chat template, if a source has any."""
    from lori_core.data.conversation_check import ConversationCheck
    from lori_core.data.sources import pulling
    from lori_core.models import base_model

    sources = [source for task in params.tasks for _, source in pulling.sources_of(params, task)]
    if not any(source.messages for source in sources):
        return None
    return ConversationCheck(params.prompt, base_model.load_tokenizer(base))


def is_pulled(params: Params) -> bool:
    """Return whether the last pull on this machine was for the same data and base model."""
    return ASKED.is_file() and ASKED.read_text(encoding="utf-8") == _request_digest(params)


def _request_digest(params: Params) -> str:
    """Return a digest of the parameters that determine the data and the base model of a pull."""
    from lori_core.data.sources import pulling

    tasks = [
        [name, task.model_dump(mode="json", include={"source", "sizes"})]
        for name, task in params.tasks.items()
    ]
    request = [tasks, params.lori.seed, params.model.model_dump(mode="json")]
    extensions = pulling.extensions_of(params)
    return digest([*request, extensions] if extensions else request)


def _content(base: Path) -> str:
    """Return the digest of all weights of the base model, read again only if a file changed.

    The identity that adapters record only samples each tensor, because every stage computes it.
    This digest covers all bytes, so DVC notices a base model of which a few bytes were changed.
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
    """Return the digest of the text files next to the weights: tokenizer, templates, stop tokens.

    The model's configuration, which the identity covers, and indices of weights are left out.
    """
    files = {path.name: path for path in base.iterdir() if path.suffix in _TEXTS and path.is_file()}
    known = {name for name in files if name.endswith(".index.json")} | {"config.json", RECORD}
    return digest({name: sha256_file(files[name]) for name in files.keys() - known})


def _write(path: Path, value: Any) -> None:
    """Write JSON, unless the file has the same content, so that its modification time stays."""
    text = json_text(value)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
