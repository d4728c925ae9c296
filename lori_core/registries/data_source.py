"""The registry of generated data sets, and the decorator that adds one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lori_core.registries.registry import Named, Registry, current_extension

if TYPE_CHECKING:
    from lori_core.data.example import Example

PREFIX = "bundled-"

#: (sizes by split, seed) -> the examples by split, or (split, example) pairs.
Make = Callable[
    [Mapping[str, int], int],
    "Mapping[str, Sequence[Example]] | Iterator[tuple[str, Example]]",
]


@dataclass(frozen=True)
class DataSource(Named):
    """A data set that a function generates.

    Attributes:
        examples: generates the examples from the requested number of each split and a seed; it may
            return fewer examples, and surplus ones are dropped.
        scorer: the name of the scorer, for the list of sources.
        splits: the names of its splits.
        license: the SPDX identifier for the data's manifest.
        where: the package or extension file that generates it, for the list of sources.
    """

    examples: Make
    scorer: str
    splits: tuple[str, ...]
    license: str
    where: str


DATA_SOURCES: Registry[DataSource] = Registry(
    "source", "lori_core.data.sources.made_sets", "lori_core.data.sources.catalogue"
)


def data_source(
    name: str,
    label: str,
    about: str,
    *,
    scorer: str,
    license: str,
    splits: Sequence[str] = ("train", "validation", "test"),
    where: str = "",
) -> Callable[[Make], Make]:
    """Register a function that generates the examples of a data set.

    Its arguments are the requested number of examples by split, and a seed. It returns the
    examples by split, or yields (split, example); equal arguments must give equal examples.

    Args:
        name: the name in `tasks.<task>.source` and `lori evaluate --tasks`.
        label: the name in tables.
        about: a description of one sentence.
        scorer: the name of the scorer.
        license: the SPDX identifier for the data's manifest.
        splits: the names of its splits.
        where: the package that generates it, for `lori sources`; by default the extension's path.
    """

    def register(function: Make) -> Make:
        origin = current_extension()
        place = where or (origin.path if origin else "lori_core")
        facts = (scorer, tuple(splits), license, place)
        DATA_SOURCES.add(DataSource(name, label, about, origin, function, *facts))
        return function

    return register
