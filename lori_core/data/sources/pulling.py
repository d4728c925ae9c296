"""`pull`: from a task's sources to `data/<task>/{train,validation,test}.jsonl` and a manifest."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lori_core.config import Params, Sizes, SourceSection
from lori_core.core.errors import ConfigError, DataError, unknown
from lori_core.core.files.atomic import (
    beside,
    digest,
    read_object,
    sha256_file,
    write_json,
    write_lines,
)
from lori_core.data.example import SPLITS, Example
from lori_core.data.pulled import DATA
from lori_core.data.sources import catalogue, formats, made_sets, ownership, readers
from lori_core.data.sources.store import TaskExamples, scratch

MANIFEST = "manifest.json"
#: What a source is asked for by; a manifest notes more of it.
_KEYS = SourceSection.model_fields.keys()
#: Without a split of its own, a task gives this share of its training examples, at most so many.
CARVED_SHARE, CARVED_MOST = 0.1, 500


def _carve(examples: TaskExamples, sizes: Sizes) -> None:
    """Give a task without validation or test examples some of its training examples."""
    for split in ("test", "validation"):
        there = examples.counts["train"]
        if examples.counts[split] or there < 2:
            continue
        examples.carve(split, carved(there, getattr(sizes, split)))


def carved(there: int, size: int | None) -> int:
    """Return how many of `there` training examples become those of a split that has none."""
    share = min(CARVED_MOST, max(1, int(there * CARVED_SHARE)))
    return min(size or share, there // 2)


def listed(params: Params, task: str) -> list[tuple[str, SourceSection]]:
    """Return a task's sources with the key each stands under.

    Raises:
        ConfigError: for a source, format or bundled set that does not exist.
    """
    found = []
    for where, named in params.tasks[task].sources(f"tasks.{task}"):
        source = catalogue.resolve(named, where)
        formats.check_format(source, where)
        made = {"bundled": made_sets.bundled, readers.EXTENSION: made_sets.extensions}
        known = made[source.kind]() if source.kind in made else [source.name]
        if source.name not in known:
            raise ConfigError(
                f"{where}.name: {unknown(f'{source.kind} set', str(source.name), map(str, known))}"
            )
        found.append((where, source))
    return found


def extensions_of(params: Params) -> dict[str, str]:
    """Return the SHA-256 of each extension file that makes a source of a task, by its path."""
    found: dict[str, str] = {}
    for task in params.tasks:
        for _, source in listed(params, task):
            found |= readers.extension_of(source)
    return found


def check(params: Params) -> None:
    """Refuse names of sources that do not exist, before anything is read or written."""
    for task in params.tasks:
        listed(params, task)


@dataclass(frozen=True)
class _Task:
    """A task that has been read: its examples, how many of each split to write, and its entry."""

    examples: TaskExamples
    counts: dict[str, int]
    entry: dict[str, Any]

    def line(self) -> str:
        """Say how much there is, what was removed, and what a reader should know."""
        counts = ", ".join(f"{count} {split}" for split, count in self.counts.items())
        duplicates, leaks = (
            sum(self.entry[name].values()) for name in ("duplicates_removed", "leaks_removed")
        )
        said = f"{counts} ({duplicates} duplicates, {leaks} leaks removed)"
        notes = {
            "contradictions": "prompts to test that have more than one answer",
            "without_target": "without a target, so not trained on",
        }
        return said + "".join(
            f"; {note}: {self.entry[name]}" for name, note in notes.items() if self.entry[name]
        )


def _former(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what the last pull wrote down, and the revision of each data set of the hub in it."""
    if not path.is_file():
        return {"tasks": {}}, {}
    before = read_object(path)
    try:
        sources = [source for task in before["tasks"].values() for source in task["sources"]]
        names = [name for task in before["tasks"].values() for name in task["splits"]]
        hub = [source for source in sources if source["kind"] == "hub"]
        if not all(isinstance(name, str) for name in names):
            raise TypeError("splits have names")
        return before, {source["name"]: source["revision"] for source in hub}
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: damaged: it does not say what was pulled ({error!r:.100}); restore it (dvc "
            "checkout), or move its folder away and pull again"
        ) from None


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
    for where, source in listed(params, task):
        if source.kind == "hub" and not source.revision and source.name in pinned:
            source = source.model_copy(update={"revision": pinned[source.name]})
        pulled = readers.READERS[source.kind](source, sizes, params.lori.seed, where)
        gives = {"gives": examples.add(pulled.rows, source.limit)}
        entries.append({**source.model_dump(exclude_defaults=True), **pulled.facts, **gives})
    _carve(examples, sizes)
    leaks, duplicates = examples.drop_leaks(), examples.drop_duplicates()
    counts = _counts(examples, sizes, f"tasks.{task}.source", leaks)
    scorers = examples.scorers("test")
    if len(scorers) > 1:
        raise DataError(
            f"tasks.{task}.source: the test examples have the scorers {', '.join(scorers)}, and a "
            "test set has one score; make a task for each"
        )
    untaught = examples.without_target(counts["train"])
    if untaught == counts["train"]:
        raise DataError(f"tasks.{task}.source: no train example has a target to learn")
    found = {
        "duplicates_removed": duplicates,
        "leaks_removed": leaks,
        "contradictions": examples.contradictions(),
        "without_target": untaught,
    }
    return _Task(examples, counts, {"sources": entries, **_chosen_by(params, task), **found})


def _chosen_by(params: Params, task: str) -> dict[str, Any]:
    """Return what decides which examples of its sources a task gets."""
    return {"sizes": params.tasks[task].sizes.model_dump(), "seed": params.lori.seed}


def is_pulled(params: Params, task: str, folder: Path = DATA) -> bool:
    """Say whether a task's data in `folder` is what a run asks for, by the manifest."""
    entry = _former(folder / MANIFEST)[0]["tasks"].get(task)
    if entry is None or any(entry.get(k) != v for k, v in _chosen_by(params, task).items()):
        return False
    sources = [source for _, source in listed(params, task)]
    asked = [source.model_dump(mode="json", exclude_defaults=True) for source in sources]
    made_by = [readers.extension_of(source) for source in sources]
    if made_by != [made.get(readers.EXTENSION, {}) for made in entry["sources"]]:
        return False
    return len(asked) == len(entry["sources"]) and all(
        {key: made.get(key) for key in _KEYS & made.keys() if key != "revision" or key in source}
        == source
        for source, made in zip(asked, entry["sources"], strict=True)
    )


def _counts(
    examples: TaskExamples, sizes: Sizes, where: str, leaks: Mapping[str, int]
) -> dict[str, int]:
    """Return how many examples of each split to write."""
    counts = {}
    for split in SPLITS:
        there = examples.counts[split]
        if not there and split != "validation":
            gone = f"; the prompts of all {leaks[split]} stand in another split, too"
            raise DataError(
                f"{where}: no {split} examples in any of its sources{gone if leaks[split] else ''}"
            )
        counts[split] = min(there, getattr(sizes, split) or there)
    return counts


def read_source(name: str, split: str, limit: int | None, seed: int) -> list[Example]:
    """Read a split of one ready-made source, shuffled by the seed, without duplicates.

    Only the files of that split need to be there, and of a hub set only that split is read.

    Raises:
        ConfigError: for a source that does not exist.
        DataError: for one without that split.
    """
    source = catalogue.resolve(name, "task")
    formats.check_format(source, name)
    if source.files:
        if split not in source.files:
            raise _without(name, split, source.files)
        source = source.model_copy(update={"files": {split: source.files[split]}})
    rows = readers.READERS[source.kind](source, Sizes(), seed, name).rows
    with scratch() as database:
        examples = TaskExamples(database, seed)
        examples.add(((of, example) for of, example in rows if of == split), {})
        if not examples.counts[split]:
            raise _without(name, split, [])
        examples.drop_duplicates()
        most = examples.counts[split] if limit is None else limit
        return [Example.from_row(json.loads(line), name) for line in examples.lines(split, most)]


def _without(name: str, split: str, others: Iterable[str]) -> DataError:
    there = f" (it has: {', '.join(others)})" if others else ""
    return DataError(f"{name}: has no {split} examples{there}; take another split or source")


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
    before, pinned = _former(manifest_path)
    said, manifest = [], {}
    folders = [folder / name for name in {**before["tasks"], **params.tasks}]
    for name in params.tasks:
        for where, source in listed(params, name):
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
                said.append(f"{name}: {task.line()}")
    said += ownership.remove_former(folder, before["tasks"], tasks)
    if before != {"tasks": manifest}:
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
    temporary, _ = beside(path)
    write_lines(temporary, lines)
    if path.is_file() and sha256_file(path) == sha256_file(temporary):
        temporary.unlink()
        return False
    temporary.replace(path)
    return True
