"""Writing the bundled data sets, `lori_core/data/bundled/<set>.jsonl`, from their generators.

A file holds the training split, then validation, then test. A user gets the first examples of a
split, so any beginning of it has to be a good data set. The order of a split comes about so:

1. First stand the examples that the generator makes for the sizes of `FIRST`, in its order. They
   are the quickstart's data: what `lori pull` gave for `params.yaml` when it still generated.
2. Then come examples of a larger generation, as large as `FIRST` and `SHIPPED` together, that ask
   nothing that stands before them in any split: of a multiple-choice question its text with the
   right option, of a function its docstring, of the others the whole prompt.
3. Those are sorted by kind, each kind in the generator's order; true and false statements count as
   two kinds. At each place stands the next one of the kind that is furthest behind its share of
   the examples so far, `FIRST` included.

What keeps the generators' splits apart (wordings, subjects, compositions) keeps these apart: the
functions are dealt to splits by the seed, so both generations of them have the same seed. The other
sets are dealt without it; their second generation has another seed, or it would begin with the
questions of the first.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lori_core.core.files.atomic import write_lines
from lori_core.data.example import SPLITS, Example
from lori_core.data.sources.made_sets import FOLDER
from lori_core.data.text import comparison_key
from tools.bundled_data import code, math, nlu, safety

#: How many examples of each split there are, of every set.
SHIPPED = {"train": 1000, "validation": 200, "test": 500}
#: `lori.seed` of `params.yaml`.
SEED = 42
#: What `params.yaml` asks each set for. Of its 72 functions to test, HumanEval gives 8.
FIRST = {
    "nlu": {"train": 280, "validation": 40, "test": 200},
    "math": {"train": 220, "validation": 40, "test": 100},
    "code": {"train": 180, "validation": 40, "test": 64},
    "safety": {"train": 240, "validation": 40, "test": 100},
}
Splits = Mapping[str, list[Example]]


def _prompt(example: Example) -> str:
    return example.prompt


def _question(example: Example) -> str:
    """Return a statement, or the text of a multiple-choice question with its right option."""
    if example.kind == "boolean":
        return example.prompt
    return example.prompt.split("\n\n")[0] + example.target.removesuffix(example.answer)


def _docstring(example: Example) -> str:
    return example.check["prompt"].split("\n", 1)[1]


def _kind(example: Example) -> str:
    return example.answer if example.kind == "boolean" else example.kind


@dataclass(frozen=True)
class Generator:
    """What makes a set.

    Attributes:
        generate: sizes by split, and a seed -> the examples by split.
        shares: the percentage of each kind, by split.
        asks: what an example asks for; no two of a set ask for the same.
        seed: of the larger generation.
    """

    generate: Callable[[Mapping[str, int], int], Splits]
    shares: Mapping[str, Mapping[str, float]]
    asks: Callable[[Example], str]
    seed: int


_STATEMENTS = dict.fromkeys(("true", "false"), nlu.SHARES["boolean"] / 2)
_NLU = {"choice": nlu.SHARES["choice"], **_STATEMENTS}
GENERATORS = {
    "nlu": Generator(nlu.generate, dict.fromkeys(SPLITS, _NLU), _question, SEED + 1),
    "math": Generator(math.generate, dict.fromkeys(SPLITS, math.SHARES), _prompt, SEED + 1),
    "code": Generator(code.generate, dict.fromkeys(SPLITS, code.SHARES), _docstring, SEED),
    "safety": Generator(safety.generate, safety.SHARES, _prompt, SEED + 1),
}


def examples(name: str) -> dict[str, list[Example]]:
    """Return the examples of a set by split, in the order they are shipped in.

    Raises:
        ValueError: a generator does not make enough for `SHIPPED`.
    """
    made = GENERATORS[name]
    first = made.generate(FIRST[name], SEED)
    both = {split: SHIPPED[split] + FIRST[name][split] for split in SPLITS}
    larger = made.generate(both, made.seed)
    asked = {_seen(made.asks(example)) for rows in first.values() for example in rows}
    rows = {}
    for split in SPLITS:
        more: dict[str, list[Example]] = {kind: [] for kind in made.shares[split]}
        for example in larger[split]:
            question = _seen(made.asks(example))
            if question not in asked:
                asked.add(question)
                more[_kind(example)].append(example)
        rows[split] = _mixed(first[split], more, made.shares[split], SHIPPED[split])
    return rows


def _seen(text: str) -> str:
    """Return what `lori pull` compares prompts by: what is seen of them, without case, spacing."""
    return " ".join(comparison_key(text).split())


def _mixed(
    first: list[Example],
    more: Mapping[str, list[Example]],
    shares: Mapping[str, float],
    size: int,
) -> list[Example]:
    """Return `first`, and behind it of each kind so many that every beginning has its shares."""
    rows = list(first)
    counts = Counter(map(_kind, first))
    waiting = {kind: iter(of_kind) for kind, of_kind in more.items()}
    for place in range(len(first) + 1, size + 1):
        behind = {kind: share * place - 100 * counts[kind] for kind, share in shares.items()}
        kind = max(behind, key=behind.__getitem__)
        example = next(waiting[kind], None)
        if example is None:
            raise ValueError(f"too few of the kind {kind} for {size} examples; lower SHIPPED")
        rows.append(example)
        counts[kind] += 1
    return rows


def lines(name: str) -> Iterator[str]:
    """Yield a set's file, an example a line: its split and the fields of `Example`, sorted.

    Inside `check` the order is the generator's: it is that of the files that `lori pull` writes.
    """
    for split, rows in examples(name).items():
        for example in rows:
            row = {"split": split, **example.row()}
            del row["id"]  # it follows from the other fields
            yield (
                json.dumps(dict(sorted(row.items())), ensure_ascii=False, separators=(",", ":"))
                + "\n"
            )


def write() -> Iterator[Path]:
    """Write all sets, and yield each file once it is written."""
    for name in GENERATORS:
        path = FOLDER / f"{name}.jsonl"
        write_lines(path, lines(name))
        yield path
