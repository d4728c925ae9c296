"""`pull`: from a task's sources to `data/<task>/{train,validation,test}.jsonl` and a manifest."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lori_core.config import Params, Sizes, SourceSection
from lori_core.data import catalogue, formats, readers
from lori_core.data.example import SPLITS, Example
from lori_core.errors import ConfigError, DataError, unknown
from lori_core.files import (
    digest,
    each_jsonl,
    read_json,
    sha256_file,
    write_json,
    write_jsonl,
)

DATA = Path("data")
MANIFEST = "manifest.json"
#: Without a split of its own, a task gives this share of its training examples, at most so many.
CARVED_SHARE, CARVED_MOST = 0.1, 500


def _order(example: Example, seed: int) -> str:
    """Return a key that shuffles examples the same way wherever they come from."""
    return hashlib.sha256(f"{seed}\n{example.id}".encode()).hexdigest()


def _same(example: Example) -> str:
    """Return what makes two examples duplicates: the prompt without case and spacing."""
    return " ".join(example.prompt.casefold().split())


def _carve(splits: dict[str, list[Example]], sizes: Sizes, seed: int) -> None:
    """Give a task without validation or test examples some of its training examples."""
    for split in ("test", "validation"):
        rows = sorted(splits["train"], key=lambda example: _order(example, seed))
        if splits[split] or len(rows) < 2:
            continue
        share = min(CARVED_MOST, max(1, int(len(rows) * CARVED_SHARE)))
        count = min(getattr(sizes, split) or share, len(rows) // 2)
        splits[split], splits["train"] = rows[:count], rows[count:]


def _without_duplicates(splits: dict[str, list[Example]]) -> dict[str, int]:
    """Drop repeated prompts in place; a test example wins over a training one. Counts by split."""
    seen: set[str] = set()
    removed = {}
    for split in ("test", "validation", "train"):
        kept = []
        for example in splits[split]:
            if _same(example) not in seen:
                seen.add(_same(example))
                kept.append(example)
        removed[split] = len(splits[split]) - len(kept)
        splits[split] = kept
    return removed


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


def read_task(params: Params, task: str, pinned: dict[str, str]) -> tuple[dict[str, Any], Any]:
    """Read all sources of a task into splits that share no example.

    Args:
        params: the run.
        task: the task's name.
        pinned: hub id -> commit, from an earlier pull.

    Returns:
        The examples by split, and the manifest's entry.
    """
    section = params.tasks[task]
    splits: dict[str, list[Example]] = {split: [] for split in SPLITS}
    entries = []
    for where, source in _listed(params, task):
        if source.kind == "hub" and not source.revision and source.name in pinned:
            source = source.model_copy(update={"revision": pinned[source.name]})
        pulled = readers.READERS[source.kind](source, section.sizes, params.lori.seed, where)
        for split, rows in pulled.splits.items():
            limit = source.limit.get(split)  # type: ignore[call-overload]
            if limit is not None and len(rows) > limit:
                rows = sorted(rows, key=lambda e: _order(e, params.lori.seed))[:limit]
            splits[split] += rows
        gives = {"gives": sorted(split for split, rows in pulled.splits.items() if rows)}
        entries.append({**source.model_dump(exclude_defaults=True), **pulled.facts, **gives})
    _carve(splits, section.sizes, params.lori.seed)
    removed = _without_duplicates(splits)
    for split in SPLITS:
        rows = sorted(splits[split], key=lambda example: _order(example, params.lori.seed))
        splits[split] = rows[: getattr(section.sizes, split) or len(rows)]
        if not splits[split] and split != "validation":
            raise DataError(f"tasks.{task}.source: no {split} examples in any of its sources")
    return splits, {"sources": entries, "duplicates_removed": removed}


def read_source(name: str, split: str, limit: int | None, seed: int) -> list[Example]:
    """Read a split of one ready-made source, shuffled by the seed, each prompt once.

    Raises:
        ConfigError: for a source that does not exist.
        DataError: for one without that split.
    """
    source = catalogue.resolve(name, "task")
    formats.check_format(source, name)
    examples = readers.READERS[source.kind](source, Sizes(), seed, name).splits.get(split, [])
    if not examples:
        raise DataError(f"{name}: has no {split} examples; take another split or source")
    ordered = sorted(examples, key=lambda example: _order(example, seed))
    return list({_same(example): example for example in ordered}.values())[:limit]


def pull(params: Params, folder: Path = DATA) -> list[str]:
    """Bring all tasks' examples into `folder`; files that would not change are left alone.

    Everything is read before anything is written.

    Returns:
        One line for each task that was written, saying how much.
    """
    manifest_path = folder / MANIFEST
    before = read_json(manifest_path) if manifest_path.is_file() else {"tasks": {}}
    pinned = {
        source["name"]: source["revision"]
        for task in before["tasks"].values()
        for source in task["sources"]
        if source["kind"] == "hub"
    }
    tasks = {task: read_task(params, task, pinned) for task in params.tasks}
    said, manifest = [], {}
    for task, (splits, entry) in tasks.items():
        changed = False
        entry["splits"] = {}
        for split, examples in splits.items():
            path = folder / task / f"{split}.jsonl"
            changed |= _write_if_changed(path, [example.row() for example in examples])
            entry["splits"][split] = {"count": len(examples), "sha256": sha256_file(path)}
        entry["digest"] = digest(entry["splits"])
        manifest[task] = entry
        if changed:
            counts = ", ".join(f"{len(rows)} {split}" for split, rows in splits.items())
            dropped = sum(entry["duplicates_removed"].values())
            said.append(f"{task}: {counts} ({dropped} duplicates removed)")
    for stale in sorted(path for path in folder.iterdir() if path.is_dir()):
        if stale.name not in tasks:
            shutil.rmtree(stale)
            said.append(f"{stale.name}: removed, no longer a task")
    if not manifest_path.is_file() or read_json(manifest_path) != {"tasks": manifest}:
        write_json(manifest_path, {"tasks": manifest})
    return said


def _write_if_changed(path: Path, rows: list[Any]) -> bool:
    """Write rows unless the file already holds them: an unchanged file keeps its time."""
    temporary = path.with_suffix(".new")
    write_jsonl(temporary, rows)
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
