"""Reading one source: what is bundled, files of this machine, a data set of the hub."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lori_core.config import Sizes, SourceSection
from lori_core.core.errors import ConfigError, DataError, InputError, shown, unknown
from lori_core.data.answers import expected_answer
from lori_core.data.example import SPLITS, Example
from lori_core.data.sources import formats, made_sets
from lori_core.data.sources.files import csv_records, record_files, record_filter, split_files
from lori_core.registries.data_source import PREFIX

#: Examples of a bundled set when neither the task nor the source says how many.
DEFAULT_SIZES = {"train": 400, "validation": 50, "test": 100}
#: Refuses an example that the base model's tokenizer cannot encode; its arguments are the example
#: and its file and line.
Check = Callable[[Example, str], None]
#: Such a source is made by an extension; in a manifest, the digest of its file.
EXTENSION = "extension"


@dataclass
class Pulled:
    """What one source gives.

    Attributes:
        rows: each example with its split, read as they are asked for, once; a record that cannot
            be read or converted is a `DataError` when its turn comes.
        facts: what the manifest says about the source.
    """

    rows: Iterator[tuple[str, Example]]
    facts: dict[str, Any] = field(default_factory=dict)


def _bundled(
    source: SourceSection, sizes: Sizes, seed: int, where: str, check: Check | None = None
) -> Pulled:
    """Return the examples of a set that is part of this project or of a package."""
    full = f"{PREFIX}{source.name}"
    made = made_sets.SOURCES[full if full in made_sets.SOURCES else str(source.name)]
    try:
        rows = _rows(made.examples(_wanted(source, sizes), seed))
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    return Pulled(rows, {"license": made.license})


def _extension(
    source: SourceSection, sizes: Sizes, seed: int, where: str, check: Check | None = None
) -> Pulled:
    """Make the examples of a set that an extension adds, each checked as a record of a file is."""
    made = made_sets.SOURCES[str(source.name)]
    facts = {"license": made.license, EXTENSION: extension_of(source)}
    rows = made.examples(_wanted(source, sizes), seed)
    return Pulled(_checked(rows, f"{where}: {made.where}: {made.name}"), facts)


def extension_of(source: SourceSection) -> dict[str, str]:
    """Return the SHA-256 of the extension file that makes a source, by its path; else nothing."""
    origin = made_sets.SOURCES[str(source.name)].origin if source.kind == EXTENSION else None
    return {} if origin is None else {origin.path: origin.sha256}


def _wanted(source: SourceSection, sizes: Sizes) -> dict[str, int]:
    """Return how many examples of each split to make: those of the source's limit, 0 included."""
    asked: dict[str, int | None] = sizes.model_dump() | dict(source.limit)
    given = {split: size for split, size in asked.items() if size is not None}
    return DEFAULT_SIZES | given


def _rows(
    made: Mapping[str, Sequence[Example]] | Iterator[tuple[str, Example]],
) -> Iterator[tuple[str, Example]]:
    if not isinstance(made, Mapping):
        return iter(made)
    return ((split, example) for split, examples in made.items() for example in examples)


def _checked(made: Any, where: str) -> Iterator[tuple[str, Example]]:
    for number, pair in enumerate(_rows(made), start=1):
        place = f"{where}: example {number}"
        if not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[1], Example):
            raise DataError(f"{place}: expected a split and an Example, got {shown(pair)}")
        split, example = pair
        if split not in SPLITS:
            raise DataError(f"{place}: {unknown('split', str(split), SPLITS)}")
        if not example.prompt.strip():
            raise DataError(f"{place}: the prompt is empty")
        example = Example.from_row(example.row(), place)
        expected_answer(example, place)
        yield split, example


def _local(
    source: SourceSection, sizes: Sizes, seed: int, where: str, check: Check | None = None
) -> Pulled:
    """Read files of this machine; a path may hold `$VARIABLES`."""
    files = split_files.split_files(source, where)
    located = (
        (split, place, record)
        for split, path in files
        for place, record in record_files.records(path)
    )
    facts = {"sha256": split_files.checksums(files, source, where)}
    return Pulled(_converted(located, source, where, check), facts)


def _converted(
    records: Iterable[record_filter.Located],
    source: SourceSection,
    where: str,
    check: Check | None,
) -> Iterator[tuple[str, Example]]:
    """Yield the examples of the records that `source.filter` keeps, each with its split."""
    for split, place, record in record_filter.select(records, source, where):
        example = formats.convert(record, source, place)
        if check is not None:
            check(example, place)
        yield split, example


def _hub(
    source: SourceSection, sizes: Sizes, seed: int, where: str, check: Check | None = None
) -> Pulled:
    """Load a hub data set at a commit; gated ones with the user's own token."""
    if not source.name:
        raise ConfigError(f"{where}.name: a hub source needs the data set's id")
    from huggingface_hub import HfApi

    with _hub_errors(source, where):
        revision = source.revision or HfApi().dataset_info(source.name).sha
    if source.split is not None and set(source.files) - {"train"}:
        raise ConfigError(
            f"{where}.split: files names other splits than train; remove them, or split"
        )
    records = _hub_records(source, revision, where)
    return Pulled(_converted(records, source, where, check), {"revision": revision})


def _hub_records(
    source: SourceSection, revision: str | None, where: str
) -> Iterator[record_filter.Located]:
    with _hub_errors(source, where):
        for split, names in (source.files or {"train": "train"}).items():
            for name in [names] if isinstance(names, str) else names:
                for place, row in _hub_rows(source, name, revision):
                    yield split, place, row


@contextmanager
def _hub_errors(source: SourceSection, where: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # the hub's client raises many kinds; all mean the same to a user
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{where}: {source.name}: {first} (for a gated set: accept its terms on the hub and "
            "run `hf auth login`)"
        ) from None


def _hub_rows(source: SourceSection, name: str, revision: str | None) -> Iterator[tuple[str, Any]]:
    """Yield the records of a split, or those of CSV files without a header, each with its place.

    `datasets` takes a file's first row for its header, and files of unlike headers for unlike data.
    """
    if not source.columns:
        import datasets

        rows = datasets.load_dataset(str(source.name), source.config, split=name, revision=revision)
        for number, row in enumerate(rows, start=1):
            yield f"{source.name}[{name}]:{number}", row
        return
    from huggingface_hub import snapshot_download

    folder = snapshot_download(
        str(source.name), repo_type="dataset", revision=revision, allow_patterns=name
    )
    paths = sorted(Path(folder).glob(name))
    if not paths:
        raise DataError(f"{source.name}: no file of the data set is called {name}")
    for path in paths:
        yield from _headless(path, f"{source.name}/{path.relative_to(folder)}", source.columns)


def _headless(path: Path, name: str, columns: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the records of a CSV file, each with the file's name and the line it begins at."""
    with path.open(encoding="utf-8-sig", newline="") as lines:
        csv.field_size_limit(csv_records.LONGEST_FIELD)
        rows = csv.reader(lines)
        line, number = 1, 0
        try:
            for row in rows:
                number += bool(row)
                if row and len(row) != len(columns):
                    raise DataError(
                        f"{name}: record {number} has {len(row)} columns, expected {len(columns)} "
                        f"({', '.join(columns)}); it begins at line {line}"
                    )
                if row:
                    yield f"{name}:{line}", dict(zip(columns, row, strict=True))
                line = rows.line_num + 1
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{name}:{line}: not a CSV file in UTF-8 ({error})") from None


READERS: dict[str, Callable[[SourceSection, Sizes, int, str, Check | None], Pulled]] = {
    "bundled": _bundled,
    EXTENSION: _extension,
    "local": _local,
    "hub": _hub,
}
