"""Read the examples that `lori pull` wrote: `data/<task>/{train,validation,test}.jsonl`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lori_core.core.files.atomic import each_jsonl
from lori_core.data.example import Example

DATA = Path("data")


def read_held_out(task: str, folder: Path = DATA) -> list[Example]:
    """Read a task's validation examples, or its test examples if it has no validation split."""
    path = folder / task / "validation.jsonl"
    empty = not path.is_file() or not path.stat().st_size
    return read_examples(task, "test" if empty else "validation", folder)


def read_examples(task: str, split: str, folder: Path = DATA) -> list[Example]:
    """Read and check the examples of one pulled split.

    Raises:
        DataError: a row is not an example.
    """
    return list(each_example(task, split, folder))


def each_example(task: str, split: str, folder: Path = DATA) -> Iterator[Example]:
    """Yield the examples of one pulled split; memory holds one at a time.

    Raises:
        DataError: a row is not an example.
    """
    path = folder / task / f"{split}.jsonl"
    for number, row in each_jsonl(path):
        yield Example.from_row(row, f"{path}:{number}")
