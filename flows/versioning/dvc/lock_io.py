"""Let DVC read `dvc.lock` with libyaml, and write only the entry of the stage that ran.

DVC parses and writes the whole file with ruamel.yaml in Python, which takes seconds for 30 stages:
longer than many stages take. The bytes written here are those that DVC writes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cache
from itertools import chain
from pathlib import Path
from typing import IO, Any

from flows.versioning.dvc import dvc_files, lock_file
from flows.versioning.dvc.yaml_document import parsed

#: The beginning of a file that DVC wrote.
_HEAD = "schema: '2.0'\nstages:\n"


@cache
def install() -> None:
    """Replace the reader and the writer of DVC's class for `dvc.lock` in this process."""
    from dvc.dvcfile import Lockfile

    Lockfile._load_yaml = _reader(Lockfile._load_yaml)
    Lockfile.dump_stages = _writer(Lockfile.dump_stages)


def _is_local(lock: Any) -> bool:
    from dvc.fs import LocalFileSystem

    return isinstance(lock.repo.fs, LocalFileSystem)


def _reader(real: Any) -> Any:
    def load(self: Any, **options: Any) -> Any:
        if options or not _is_local(self):  # an update of comments, or a file of Git's history
            return real(self, **options)
        content = dvc_files.read(Path(self.path)) or b""
        return deepcopy(_document(content, self.path)), content.decode()

    return load


def _document(content: bytes, path: str) -> dict[str, Any]:
    """Parse the file; `read_lock` is stricter than DVC's schema, and so takes its place."""
    lock_file.read_lock(content, str(path))
    return parsed(content, str(path), lock_file.MEND_LOCK)


def _writer(real: Any) -> Any:
    def dump_stages(self: Any, stages: Any, **options: Any) -> None:
        content = dvc_files.read(Path(self.path)) if _is_local(self) else None
        if not stages or not content:
            real(self, stages, **options)
            return
        from dvc.stage import serialize

        document = _document(content, self.path)["stages"]
        entries: dict[str, Any] = {}
        for stage in stages:
            entries |= serialize.to_lockfile(stage, **options)
        changed = {n: entry for n, entry in entries.items() if document.get(n, {}) != entry}
        if not changed:
            return
        text = with_stages(content.decode(), list(document), changed)
        if text is None:
            real(self, stages, **options)
            return
        with self.repo.fs.open(self.path, "w+", encoding="utf-8") as file:
            _write(text, file)
        self.repo.scm_context.track_file(self.relpath)

    return dump_stages


def _write(text: str, file: IO[str]) -> None:
    file.write(text)


def with_stages(
    text: str, names: Sequence[str], entries: Mapping[str, Mapping[str, Any]]
) -> str | None:
    """Return the text of `dvc.lock` with some stages' entries replaced, or added at the end.

    Args:
        text: the file's text.
        names: the names of the stages in it.
        entries: the new entries by the stage's name.

    Returns:
        The text; None if the file or an entry is not laid out as DVC writes it.
    """
    blocks, tail = _split(text)
    if _keys(blocks) != list(names):
        return None
    for name, entry in entries.items():
        block = _block(name, entry)
        if block is None:
            return None
        blocks[block.partition("\n")[0]] = block
    return _HEAD + "".join(blocks.values()) + tail


def only_stage(content: bytes, name: str) -> bytes:
    """Return `dvc.lock` with one stage's entry only, which is parsed much faster.

    The whole content is returned if it is not laid out as DVC writes it, or lacks the stage.
    """
    text = content.decode(errors="replace")
    if re.search(r"[&*]id\d", text):  # values that are written once and referred to
        return content
    block = _split(text)[0].get(f"  {name}:")
    return content if block is None else (_HEAD + block).encode()


def _split(text: str) -> tuple[dict[str, str], str]:
    """Return the lines of each stage by their first line, and what follows the stages."""
    if not text.startswith(_HEAD):
        return {}, ""
    body = text.removeprefix(_HEAD)
    end = re.search(r"^\S", body, re.MULTILINE)
    tail = body[end.start() :] if end else ""
    parts = re.split(r"^(?=  \S)", body.removesuffix(tail), flags=re.MULTILINE)[1:]
    return {part.partition("\n")[0]: part for part in parts}, tail


def _keys(blocks: Mapping[str, str]) -> list[str] | None:
    """Return the names that the blocks' first lines hold; None if one is not just a name."""
    if not blocks or not all(line.endswith(":") for line in blocks):
        return None
    keys = "".join(f"- {line}\n" for line in blocks)
    return [*chain.from_iterable(parsed(f"keys:\n{keys}".encode(), "dvc.lock", "")["keys"])]


def _block(name: str, entry: Mapping[str, Any]) -> str | None:
    """Return a stage's lines as DVC writes them; None if they do not parse to the entry."""
    from dvc.utils.serialize import dumps_yaml

    text: str = dumps_yaml({"schema": "2.0", "stages": {name: entry}})
    if parsed(text.encode(), "dvc.lock", lock_file.MEND_LOCK)["stages"] != {name: entry}:
        return None
    return text.removeprefix(_HEAD)
