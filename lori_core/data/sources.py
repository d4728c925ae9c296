"""`pull`: from a task's sources to `data/<task>/{train,validation,test}.jsonl` and a manifest."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lori_core.config import Params, Sizes, SourceSection
from lori_core.data import catalogue, formats, ownership, readers
from lori_core.data.example import SPLITS, Example
from lori_core.data.store import TaskExamples, position, same, scratch
from lori_core.errors import ConfigError, DataError, unknown
from lori_core.files import (
    digest,
    each_jsonl,
    read_json,
    sha256_file,
    write_json,
    write_lines,
)

DATA = Path("data")
MANIFEST = "manifest.json"
#: Without a split of its own, a task gives this share of its training examples, at most so many.
CARVED_SHARE, CARVED_MOST = 0.1, 500


def _carve(examples: TaskExamples, sizes: Sizes) -> None:
    """Give a task without validation or test examples some of its training examples."""
    for split in ("test", "validation"):
        there = examples.counts["train"]
        if examples.counts[split] or there < 2:
            continue
        share = min(CARVED_MOST, max(1, int(there * CARVED_SHARE)))
        examples.carve(split, min(getattr(sizes, split) or share, there // 2))


def _listed(params: Params, task: str) -> list[tuple[str, SourceSection]]:
    """Return a task's sources with the key each stands under.

    Raises:
        ConfigError: for a source, format or bundled set that does not exist.
    """
    section = params.tasks[task].source
    listed = section if isinstance(section, list) else [section]
    found = []
    for index, named in enumerate(listed):
        where = f"tasks.{task}.source" + (f"[{index}]" if len(listed) > 1 else "")
        source = catalogue.resolve(named, where)
        formats.check_format(source, where)
        if source.kind == "bundled" and source.name not in readers.BUNDLED:
            raise ConfigError(
                f"{where}.name: {unknown('bundled set', str(source.name), readers.BUNDLED)}"
            )
        found.append((where, source))
    return found


def check(params: Params) -> None:
    """Refuse names of sources that do not exist, before anything is read or written."""
    for task in params.tasks:
        _listed(params, task)


@dataclass(frozen=True)
class _Task:
    """A task that has been read: its examples, how many of each split to write, and its entry."""

    examples: TaskExamples
    counts: dict[str, int]
    entry: dict[str, Any]


def _read_task(
    params: Params, task: str, pinned: dict[str, str], database: sqlite3.Connection
) -> _Task:
    """Read all sources of a task into splits that share no example.

    Args:
        params: the run.
        task: the task's name.
        pinned: hub id -> commit, from an earlier pull.
        database: where the examples are kept.
    """
    sizes = params.tasks[task].sizes
    examples = TaskExamples(database, params.lori.seed)
    entries = []
    for where, source in _listed(params, task):
        if source.kind == "hub" and not source.revision and source.name in pinned:
            source = source.model_copy(update={"revision": pinned[source.name]})
        pulled = readers.READERS[source.kind](source, sizes, params.lori.seed, where)
        gives = {"gives": examples.add(pulled.rows, source.limit)}
        entries.append({**source.model_dump(exclude_defaults=True), **pulled.facts, **gives})
    _carve(examples, sizes)
    removed = examples.drop_duplicates()
    counts = {}
    for split in SPLITS:
        there = examples.counts[split]
        if not there and split != "validation":
            raise DataError(f"tasks.{task}.source: no {split} examples in any of its sources")
        counts[split] = min(there, getattr(sizes, split) or there)
    return _Task(examples, counts, {"sources": entries, "duplicates_removed": removed})


def read_source(name: str, split: str, limit: int | None, seed: int) -> list[Example]:
    """Read a split of one ready-made source, shuffled by the seed, each prompt once.

    Raises:
        ConfigError: for a source that does not exist.
        DataError: for one without that split.
    """
    source = catalogue.resolve(name, "task")
    formats.check_format(source, name)
    rows = readers.READERS[source.kind](source, Sizes(), seed, name).rows
    examples = [example for of, example in rows if of == split]
    if not examples:
        raise DataError(f"{name}: has no {split} examples; take another split or source")
    ordered = sorted(examples, key=lambda example: position(example.id, seed))
    return list({same(example.prompt): example for example in ordered}.values())[:limit]


def pull(params: Params, folder: Path = DATA) -> list[str]:
    """Bring all tasks' examples into `folder`; files that would not change are left alone.

    Everything is read, onto disk, before anything is written: memory does not grow with the rows.

    Returns:
        One line for each task that was written, saying how much, and for each that was removed.

    Raises:
        ConfigError: a source lies in the folder of a task.
        DataError: a file would be replaced that no pull wrote; or a source cannot be read.
    """
    manifest_path = folder / MANIFEST
    before = read_json(manifest_path) if manifest_path.is_file() else {"tasks": {}}
    pinned = {
        source["name"]: source["revision"]
        for task in before["tasks"].values()
        for source in task["sources"]
        if source["kind"] == "hub"
    }
    said, manifest = [], {}
    folders = [folder / name for name in {**before["tasks"], **params.tasks}]
    for name in params.tasks:
        for where, source in _listed(params, name):
            ownership.check_apart(where, source, folders)
    with scratch() as database:
        tasks = {name: _read_task(params, name, pinned, database) for name in params.tasks}
        for name, task in tasks.items():
            for split, count in task.counts.items() if name not in before["tasks"] else ():
                path = folder / name / f"{split}.jsonl"
                ownership.check_free(path, task.examples.lines(split, count))
        for name, task in tasks.items():
            manifest[name], changed = _write(task, folder / name)
            if changed:
                counts = ", ".join(f"{count} {split}" for split, count in task.counts.items())
                dropped = sum(task.entry["duplicates_removed"].values())
                said.append(f"{name}: {counts} ({dropped} duplicates removed)")
    said += ownership.remove_former(folder, before["tasks"], tasks)
    if not manifest_path.is_file() or read_json(manifest_path) != {"tasks": manifest}:
        write_json(manifest_path, {"tasks": manifest})
    return said


def _write(task: _Task, folder: Path) -> tuple[dict[str, Any], bool]:
    """Write a task's splits; return its entry in the manifest, and whether a file changed."""
    changed = False
    splits = {}
    for split, count in task.counts.items():
        path = folder / f"{split}.jsonl"
        changed |= _write_if_changed(path, task.examples.lines(split, count))
        splits[split] = {"count": count, "sha256": sha256_file(path)}
    return {**task.entry, "splits": splits, "digest": digest(splits)}, changed


def _write_if_changed(path: Path, lines: Iterable[str]) -> bool:
    """Write lines unless the file already holds them: an unchanged file keeps its time."""
    temporary = path.with_suffix(".new")
    write_lines(temporary, lines)
    if path.is_file() and sha256_file(path) == sha256_file(temporary):
        temporary.unlink()
        return False
    temporary.replace(path)
    return True


def read_held_out(task: str, folder: Path = DATA) -> list[Example]:
    """Read a task's validation examples; its test examples where it has no others."""
    path = folder / task / "validation.jsonl"
    empty = not path.is_file() or not path.stat().st_size
    return read_examples(task, "test" if empty else "validation", folder)


def read_examples(task: str, split: str, folder: Path = DATA) -> list[Example]:
    """Read one pulled split, checked row by row."""
    return list(each_example(task, split, folder))


def each_example(task: str, split: str, folder: Path = DATA) -> Iterator[Example]:
    """Yield the examples of one pulled split, one in memory at a time."""
    path = folder / task / f"{split}.jsonl"
    for number, row in each_jsonl(path):
        yield Example.from_row(row, f"{path}:{number}")
