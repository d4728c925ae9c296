"""The bundled data sets as they are shipped."""

from __future__ import annotations

from functools import cache

from lori_core.data.example import Example
from lori_core.data.sources.made_sets import SOURCES
from tools.bundled_data.write import SHIPPED


@cache
def examples(name: str) -> dict[str, list[Example]]:
    """Return all examples of a bundled set by split, as a task gets them from it."""
    made = SOURCES[f"bundled-{name}"].examples(SHIPPED, 0)
    assert isinstance(made, dict)
    return made
