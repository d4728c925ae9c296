"""`lori pull`: read the tasks' sources and write `data/<task>/<split>.jsonl` and a manifest."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lori_core.config import Params, Sizes, SourceSection
from lori_core.core.errors import ConfigError, DataError, InputError, unknown
from lori_core.core.files.atomic import (
    beside,
    digest,
    sha256_file,
    write_json,
    write_lines,
)
from lori_core.data.example import SPLITS, Example
from lori_core.data.pulled import DATA
from lori_core.data.sources import catalogue, formats, made_sets, manifest, ownership, readers
from lori_core.data.sources.store import TaskExamples, scratch

#: A missing split gets this share of the training examples, but at most CARVED_MOST of them.
CARVED_SHARE, CARVED_MOST = 0.1, 500


def _carve(examples: TaskExamples, sizes: Sizes) -> None:
    """Move training examples to the validation and test splits that are empty."""
    for split in ("test", "validation"):
        train = examples.counts["train"]
        if examples.counts[split] or train < 2:
            continue
        examples.carve(split, carved_count(train, getattr(sizes, split)))


def carved_count(train: int, size: int | None) -> int:
    """Return how many of `train` training examples move to a split that is empty.

    Args:
        train: the number of training examples.
        size: `tasks.<task>.sizes` of the split.
    """
    share = min(CARVED_MOST, max(1, int(train * CARVED_SHARE)))
    return min(size or share, train // 2)


def sources_of(params: Params, task: str) -> list[tuple[str, SourceSection]]:
    """Return a task's sources, each with its key in params.yaml.

    Raises:
        ConfigError: a source, format or bundled data set does not exist.
    """
    sources = []
    for where, named in params.tasks[task].sources(f"tasks.{task}"):
        source = catalogue.resolve(named, where)
        formats.check_format(source, where)
        names = {"bundled": made_sets.bundled, readers.EXTENSION: made_sets.extensions}
        known = names[source.kind]() if source.kind in names else [source.name]
        if source.name not in known:
            raise ConfigError(
                f"{where}.name: {unknown(f'{source.kind} set', str(source.name), map(str, known))}"
            )
        sources.append((where, source))
    return sources


def extensions_of(params: Params) -> dict[str, str]:
    """Return the SHA-256 of each extension file that generates a task's source, by its path."""
    digests: dict[str, str] = {}
    for task in params.tasks:
        for _, source in sources_of(params, task):
            digests |= readers.extension_of(source)
    return digests


def check(params: Params) -> None:
    """Refuse sources that do not exist, before anything is read or written.

    Raises:
        ConfigError: as `sources_of`.
    """
    for task in params.tasks:
        sources_of(params, task)


@dataclass(frozen=True)
class _Task:
    """A task whose sources have been read.

    Attributes:
        examples: its examples.
        counts: how many examples of each split to write.
        entry: its entry in the manifest, without the splits.
    """

    examples: TaskExamples
    counts: dict[str, int]
    entry: dict[str, Any]

    def line(self) -> str:
        """Return a line with the counts, the removed examples, and warnings."""
        counts = ", ".join(f"{count} {split}" for split, count in self.counts.items())
        duplicates, leaks = (
            sum(self.entry[name].values()) for name in ("duplicates_removed", "leaks_removed")
        )
        summary = f"{counts} ({duplicates} duplicates, {leaks} leaks removed)"
        if not self.counts["train"]:
            summary += "; without train examples, so for lori evaluate only"
        notes = {
            "contradictions": "prompts to test that have more than one answer",
            "without_target": "without a target, so not trained on",
        }
        return summary + "".join(
            f"; {note}: {self.entry[name]}" for name, note in notes.items() if self.entry[name]
        )


def _read_task(
    params: Params,
    task: str,
    pinned: dict[str, str],
    database: sqlite3.Connection,
    trained: bool,
    check: readers.Check | None,
) -> _Task:
    """Read all sources of a task into splits that share no prompt.

    Args:
        params: the run.
        task: the task's name.
        pinned: the commits that an earlier pull chose, from `manifest.pins`.
        database: stores the examples.
        trained: whether the task needs training examples.
        check: refuses examples that the base model's tokenizer cannot encode.

    Raises:
        DataError: a split is empty, the test examples have several scorers, or no training example
            has a target.
    """
    sizes = params.tasks[task].sizes
    examples = TaskExamples(database, params.lori.seed)
    entries = []
    for where, source in sources_of(params, task):
        chosen = {}
        if source.kind == "hub":
            chosen = {manifest.CHOSEN: source.revision is None}
            source = manifest.pinned(source, pinned)
        pulled = readers.READERS[source.kind](source, sizes, params.lori.seed, where, check)
        shares = dict(source.split) if isinstance(source.split, dict) else {}
        gives = {"gives": examples.add(pulled.rows, source.limit, shares)}
        entries.append(
            {**source.model_dump(exclude_defaults=True), **pulled.facts, **chosen, **gives}
        )
    _carve(examples, sizes)
    leaks, duplicates = examples.drop_leaks(), examples.drop_duplicates()
    counts = _counts(examples, sizes, f"tasks.{task}.source", leaks, trained)
    scorers = examples.scorers("test")
    if len(scorers) > 1:
        raise DataError(
            f"tasks.{task}.source: the test examples have the scorers {', '.join(scorers)}, and a "
            "test set has one score; make a task for each"
        )
    untaught = examples.without_target(counts["train"])
    if counts["train"] and untaught == counts["train"]:
        raise DataError(f"tasks.{task}.source: no train example has a target to learn")
    findings = {
        "duplicates_removed": duplicates,
        "leaks_removed": leaks,
        "contradictions": examples.contradictions(),
        "without_target": untaught,
    }
    return _Task(examples, counts, {"sources": entries, **_selection(params, task), **findings})


def _selection(params: Params, task: str) -> dict[str, Any]:
    """Return the settings that select a task's examples from its sources."""
    return {"sizes": params.tasks[task].sizes.model_dump(), "seed": params.lori.seed}


def is_pulled(params: Params, task: str, folder: Path = DATA) -> bool:
    """Return whether a task's data in `folder` was pulled with the run's settings.

    The manifest decides; the data is not read.
    """
    entry = manifest.former(folder / manifest.MANIFEST)["tasks"].get(task)
    if entry is None or any(entry.get(k) != v for k, v in _selection(params, task).items()):
        return False
    return manifest.is_of(entry, [source for _, source in sources_of(params, task)])


def check_pulled(params: Params, task: str, folder: Path, where: str) -> None:
    """Refuse a task's pulled data that is not what the run asks for.

    Data without a manifest was not pulled, and is taken as it is.

    Args:
        params: the run.
        task: the task; one that the run does not define is not checked.
        folder: the data folder.
        where: what the message begins with.

    Raises:
        InputError: the data was pulled with another source, other sizes or another seed.
    """
    pulled = (folder / manifest.MANIFEST).is_file()
    if pulled and task in params.tasks and not is_pulled(params, task, folder):
        raise InputError(
            f"{where}: {task}: {folder / task} was pulled with other settings than "
            f"tasks.{task}.source, tasks.{task}.sizes and lori.seed are now; run lori pull, or "
            "restore the settings"
        )


def _counts(
    examples: TaskExamples, sizes: Sizes, where: str, leaks: Mapping[str, int], trained: bool
) -> dict[str, int]:
    """Return how many examples of each split to write.

    Raises:
        DataError: the test split is empty, or the training split of a task that is trained.
    """
    counts = {}
    for split in SPLITS:
        count = examples.counts[split]
        needed = split == "test" or (split == "train" and (trained or leaks[split] > 0))
        if needed and not count:
            leaked = f"; the prompts of all {leaks[split]} stand in another split, too"
            hint = "; a task without them is for lori pull and lori evaluate --tasks only"
            raise DataError(
                f"{where}: no {split} examples in any of its sources"
                f"{leaked if leaks[split] else hint if split == 'train' else ''}"
            )
        counts[split] = min(count, getattr(sizes, split) or count)
    return counts


def read_source(name: str, split: str, limit: int | None, seed: int) -> list[Example]:
    """Return a split of one ready-made source, shuffled and without duplicates.

    Only that split is read; the files of others may be missing.

    Args:
        name: the source's name.
        split: train, validation or test.
        limit: the most examples to return; None for all, of a bundled set or an extension's for
            the number that `lori pull` writes by default (`readers.DEFAULT_SIZES`).
        seed: the seed of the shuffle.

    Raises:
        ConfigError: the source does not exist.
        DataError: the source does not have that split.
    """
    source = catalogue.resolve(name, "task")
    formats.check_format(source, name)
    if source.files:
        if split not in source.files:
            raise _without(name, split, source.files)
        source = source.model_copy(update={"files": {split: source.files[split]}})
    sizes = Sizes() if limit is None else _sizes_of(source, split, limit)
    rows = readers.READERS[source.kind](source, sizes, seed, name, None).rows
    with scratch() as database:
        examples = TaskExamples(database, seed)
        examples.add(((of, example) for of, example in rows if of == split), {})
        if not examples.counts[split]:
            raise _without(name, split, [])
        examples.drop_duplicates()
        most = examples.counts[split] if limit is None else limit
        return [Example.from_row(json.loads(line), name) for line in examples.lines(split, most)]


def _sizes_of(source: SourceSection, split: str, limit: int) -> Sizes:
    """Return how many examples a made set has to make, so that a limit can be taken from them."""
    size = max(limit, readers.DEFAULT_SIZES[split])
    most = made_sets.most_of(str(source.name), split) if source.kind == "bundled" else None
    return Sizes.model_validate({split: size if most is None else min(size, most)})


def _without(name: str, split: str, others: Iterable[str]) -> DataError:
    """Return the error for a source that does not have a split."""
    hint = f" (it has: {', '.join(others)})" if others else ""
    return DataError(f"{name}: has no {split} examples{hint}; take another split or source")


def pull(
    params: Params,
    folder: Path = DATA,
    *,
    trained: bool = True,
    check: readers.Check | None = None,
) -> list[str]:
    """Read all tasks' sources and write their examples; unchanged files are not touched.

    All sources are read into a temporary database on disk before anything is written, so memory
    does not grow with the number of examples.

    Args:
        params: the run.
        folder: the data folder.
        trained: whether each task needs training examples, as `lori run` does.
        check: refuses examples that the base model's tokenizer cannot encode.

    Returns:
        One line for each task that was written, with its counts, and for each that was removed.

    Raises:
        ConfigError: a source's files are in the folder of a task.
        DataError: a source cannot be read, or a file that no pull wrote would be replaced.
    """
    path = folder / manifest.MANIFEST
    before = manifest.former(path)
    pinned = manifest.pins(before)
    report, entries = [], {}
    folders = [folder / name for name in {**before["tasks"], **params.tasks}]
    for name in params.tasks:
        for where, source in sources_of(params, name):
            ownership.check_apart(where, source, folders)
    with scratch() as database:
        tasks = {
            name: _read_task(params, name, pinned, database, trained, check)
            for name in params.tasks
        }
        for name, task in tasks.items():
            for split, count in task.counts.items() if name not in before["tasks"] else ():
                ownership.check_free(
                    folder / name / f"{split}.jsonl", task.examples.lines(split, count)
                )
        for name, task in tasks.items():
            entries[name], changed = _write(task, folder / name)
            if changed:
                report.append(f"{name}: {task.line()}")
    report += ownership.remove_former(folder, before["tasks"], tasks)
    if before != {"tasks": entries}:
        write_json(path, {"tasks": entries})
    return report


def _write(task: _Task, folder: Path) -> tuple[dict[str, Any], bool]:
    """Write a task's splits.

    Returns:
        The task's entry in the manifest, and whether a file changed.
    """
    changed = False
    splits = {}
    for split, count in task.counts.items():
        path = folder / f"{split}.jsonl"
        changed |= _write_if_changed(path, task.examples.lines(split, count))
        splits[split] = {"count": count, "sha256": sha256_file(path)}
    return {**task.entry, "splits": splits, "digest": digest(splits)}, changed


def _write_if_changed(path: Path, lines: Iterable[str]) -> bool:
    """Write lines unless the file already has them, so that an unchanged file keeps its mtime."""
    temporary, _ = beside(path)
    write_lines(temporary, lines)
    if path.is_file() and sha256_file(path) == sha256_file(temporary):
        temporary.unlink()
        return False
    temporary.replace(path)
    return True
