"""Let DVC read `dvc.lock` with libyaml, and write only the entry of the stage that ran.

DVC parses and writes the whole file with ruamel.yaml in Python, which takes seconds for 30 stages:
longer than many stages take. The bytes written here are those that DVC writes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from copy import deepcopy
from functools import cache
from itertools import chain
from pathlib import Path
from typing import IO, Any

from flows.versioning.dvc import dvc_files, lock_file
from flows.versioning.dvc.lock_file import HEAD, split
from flows.versioning.dvc.yaml_document import parsed

#: The only stage that DVC reads from its pipeline's `dvc.lock`; None for all stages.
_ONLY: ContextVar[str | None] = ContextVar("only stage", default=None)


@cache
def install() -> None:
    """Replace the reader and the writer of DVC's class for `dvc.lock` in this process."""
    from dvc.dvcfile import Lockfile

    Lockfile._load_yaml = _reader(Lockfile._load_yaml)
    Lockfile.dump_stages = _writer(Lockfile.dump_stages)


def _is_local(lock: Any) -> bool:
    from dvc.fs import LocalFileSystem

    return isinstance(lock.repo.fs, LocalFileSystem)


@contextmanager
def reading_only(stage: str) -> Iterator[None]:
    """Let DVC read the entry of one stage only; parsing all takes longer than many stages."""
    token = _ONLY.set(stage)
    try:
        yield
    finally:
        _ONLY.reset(token)


def _reader(real: Any) -> Any:
    def load(self: Any, **options: Any) -> Any:
        if options or not _is_local(self):  # an update of comments, or a file of Git's history
            return real(self, **options)
        content = dvc_files.read(Path(self.path)) or b""
        stage = _ONLY.get()
        if stage is None or not content.strip():
            # Stricter than DVC's schema, and so in its place.
            document = lock_file.read_document(content, str(self.path))
        else:
            document = _entries_of(content, [stage])
        return deepcopy(document), content.decode()

    return load


def _entries_of(content: bytes, stages: Collection[str]) -> dict[str, Any]:
    """Return the file's content with some stages only, without those of them that never ran."""
    blocks = _blocks(content.decode())
    if blocks is None:
        part = content
    else:
        part = (HEAD + "".join(blocks[name] for name in stages if name in blocks)).encode()
        if part == HEAD.encode():
            return {"schema": "2.0", "stages": {}}
    document = parsed(part, "dvc.lock", lock_file.MEND_LOCK)
    known = document["stages"]
    return document | {"stages": {name: known[name] for name in stages if name in known}}


def _writer(real: Any) -> Any:
    def dump_stages(self: Any, stages: Any, **options: Any) -> None:
        content = dvc_files.read(Path(self.path)) if _is_local(self) else None
        if not stages or not content:
            real(self, stages, **options)
            return
        from dvc.stage import serialize

        entries: dict[str, Any] = {}
        for stage in stages:
            entries |= serialize.to_lockfile(stage, **options)
        before = _entries_of(content, entries)["stages"]
        changed = {name: e for name, e in entries.items() if before.get(name, {}) != e}
        if not changed:
            return
        text = with_stages(content.decode(), changed)
        if text is None:
            real(self, stages, **options)
            return
        with self.repo.fs.open(self.path, "w+", encoding="utf-8") as file:
            _write(text, file)
        self.repo.scm_context.track_file(self.relpath)

    return dump_stages


def _write(text: str, file: IO[str]) -> None:
    file.write(text)


def with_stages(text: str, entries: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return the text of `dvc.lock` with some stages' entries replaced, or added at the end.

    Args:
        text: the file's text.
        entries: the new entries by the stage's name.

    Returns:
        The text; None if the file or an entry is not laid out as DVC writes it.
    """
    blocks = _blocks(text)
    if blocks is None:
        return None
    for name, entry in entries.items():
        block = _block(name, entry)
        if block is None:
            return None
        blocks[name] = block
    return HEAD + "".join(blocks.values()) + split(text)[1]


def only_stage(content: bytes, name: str) -> bytes:
    """Return `dvc.lock` with one stage's entry only, which is parsed much faster.

    The whole content is returned if it is not laid out as DVC writes it, or lacks the stage.
    """
    block = (_blocks(content.decode(errors="replace")) or {}).get(name)
    return content if block is None else (HEAD + block).encode()


def _blocks(text: str) -> dict[str, str] | None:
    """Return the lines of each stage by its name; None if the file is not laid out as DVC does."""
    blocks = split(text)[0]
    lines = [block.partition("\n")[0] for block in blocks]
    if not lines or not all(line.endswith(":") for line in lines):
        return None
    keys = "".join(f"- {line}\n" for line in lines)
    names = [*chain.from_iterable(parsed(f"keys:\n{keys}".encode(), "dvc.lock", "")["keys"])]
    return dict(zip(names, blocks, strict=True)) if len({*names}) == len(blocks) else None


def _block(name: str, entry: Mapping[str, Any]) -> str | None:
    """Return a stage's lines as DVC writes them; None if they do not parse to the entry."""
    from dvc.utils.serialize import dumps_yaml

    text: str = dumps_yaml({"schema": "2.0", "stages": {name: entry}})
    if parsed(text.encode(), "dvc.lock", lock_file.MEND_LOCK)["stages"] != {name: entry}:
        return None
    return text.removeprefix(HEAD)
