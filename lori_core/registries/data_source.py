"""Data sets that a function makes: the registry, and the decorator that adds one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lori_core.registries.registry import Named, Registry, running

if TYPE_CHECKING:
    from lori_core.data.example import Example

PREFIX = "bundled-"


Make = Callable[
    [Mapping[str, int], int],
    "Mapping[str, Sequence[Example]] | Iterator[tuple[str, Example]]",
]


@dataclass(frozen=True)
class DataSource(Named):
    """A data set that a function makes.

    Attributes:
        examples: how many examples of each split, and a seed -> the examples by split, or each with
            its split; there may be fewer, and those over are left out.
        scorer: by what the examples are judged, for the list of sources.
        splits: which splits there are.
        license: for the manifest.
        where: what it is made by, for the list of sources.
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
    """Register a function that makes the examples of a data set.

    Its arguments are the number of examples of each split that is asked for, and a seed. It returns
    the examples by split, or yields each with its split; the same arguments must give the same
    examples.

    Args:
        name: for `tasks.<task>.source` and `lori evaluate --tasks`.
        label: what tables call it.
        about: one sentence.
        scorer: by what the examples are judged.
        license: for the data's manifest, as an SPDX identifier.
        splits: which splits it has.
        where: what it is made by, for `lori sources`; the extension's path unless given.
    """

    def register(function: Make) -> Make:
        origin = running()
        place = where or (origin.path if origin else "lori_core")
        facts = (scorer, tuple(splits), license, place)
        DATA_SOURCES.add(DataSource(name, label, about, origin, function, *facts))
        return function

    return register
