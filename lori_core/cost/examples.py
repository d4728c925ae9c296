"""How many examples a run reads, and how long they are: counted where they are here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from lori_core import models
from lori_core.config import Params
from lori_core.data import limits
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
    lengths: tuple[float, ...] = ()
    """Tokens of the examples that were looked at, the longest first."""
    shared: float = 0.0
    """Tokens with which all of them begin: a batch computes them once."""

    def largest(self, batch: int, most: int) -> float:
        """Return the tokens of the largest batch of `batch` rows, each of `most` at most.

        Batches are of like length inside each `BUCKET` of them (`data.batching`).
        """
        lengths = self.lengths or (2 * self.tokens,)
        share = max(1 / BUCKET, min(1.0, batch / self.examples))
        top = lengths[: math.ceil(len(lengths) * share)]
        return batch * (min(sum(top) / len(top), most) - self.shared) + self.shared


Splits = Mapping[str, Mapping[str, Split]]


def look_at(params: Params, folder: Path) -> dict[str, dict[str, Split]]:
    """Return the splits of every task: from the pulled data where it is, else as assumed.

    Tokens are counted on the first 200 examples, as training encodes them where the base's
    tokenizer is here, else as one for four characters.

    Raises:
        ConfigError, ModelError: where the base is here and cannot do the run (`limits.check`).
    """
    encoder = _encoder(params)
    found: dict[str, dict[str, Split]] = {}
    for task, section in params.tasks.items():
        found[task] = {}
        for split, assumed in EXAMPLES.items():
            path = folder / task / f"{split}.jsonl"
            if path.is_file():
                found[task][split] = _looked_at(path, encoder)
            else:
                size = getattr(section.sizes, split) or assumed
                found[task][split] = Split(size, TOKENS, TARGET, known=False)
    return found


#: Example -> its prompt and its target, as tokens.
Encoder = Callable[[Example], tuple[Sequence[Any], Sequence[Any]]]


def _looked_at(path: Path, encoder: Encoder, sample: int = 200) -> Split:
    examples, pairs = 0, []
    for number, row in each_jsonl(path):
        examples += 1
        if examples <= sample:
            pairs.append(encoder(Example.from_row(row, f"{path}:{number}")))
    lengths = sorted((float(len(p) + len(t)) for p, t in pairs), reverse=True)
    return Split(
        examples,
        tokens=sum(lengths) / len(pairs),
        target=sum(len(t) for _, t in pairs) / len(pairs),
        known=True,
        lengths=tuple(lengths),
        shared=_shared([list(p) for p, _ in pairs]),
    )


def _shared(prompts: list[list[Any]]) -> int:
    """Return how many tokens all prompts begin with: as many as the first and last in order do."""
    both = zip(min(prompts), max(prompts), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], both))


def _encoder(params: Params) -> Encoder:
    name, whole = params.model.name_or_path, 2**30
    if name.startswith(("pypi:", "random:")) or Path(name).expanduser().is_dir():
        folder = models.prepare(params.model)
        tokenizer = models.load_tokenizer(folder)
        limits.check(params, folder, tokenizer)

        def encoded(example: Example) -> tuple[Sequence[Any], Sequence[Any]]:
            row = encode(example, params.prompt, tokenizer, whole)
            return row.prompt, row.target

        return encoded
    return lambda example: (example.prompt[::4], example.target[::4])
