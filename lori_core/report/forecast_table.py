"""The text of a forecast of the excess loss, as `lori interference --examples` prints it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def text(forecast: Mapping[str, Any]) -> str:
    """Return the tables of the terms and of the methods, the recommendation, and its trust.

    Args:
        forecast: the return value of `api.merge_preflight.forecast`.
    """
    tasks, shares = forecast["tasks"], forecast["shares"]
    weights = ", ".join(f"{task} {weight:g}" for task, weight in forecast["weights"].items())
    counts = "/".join(dict.fromkeys(str(row["examples"]) for row in tasks.values()))
    lines = [
        f"Forecast of the excess loss, nats per example ({counts} validation examples per task; "
        f"weights {weights})",
    ]
    terms = {
        name: ["-" if other == name else f"{row['terms'][other]:+.3f}" for other in tasks]
        for name, row in tasks.items()
    }
    lines += _table([f"from {name}" for name in tasks], terms, 16)
    methods = {
        name: [
            *(_with_interval(row["methods"][method]) for method in shares),
            f"{row['measured']:+.3f}",
        ]
        for name, row in tasks.items()
    }
    lines += ["", *_table([*shares, "concat, measured"], methods, 26)]
    best = forecast["recommended"]
    others = ", ".join(f"{m} {s:.0%}" for m, s in shares.items() if m != best)
    return "\n".join([
        *lines, "",
        f"Recommended method by the forecast: {best}: it is forecast to lose {shares[best]:.0%} of "
        f"the tasks' gains in loss on average ({others}).",
        trust(forecast),
    ])  # fmt: skip


def _table(columns: Sequence[str], rows: Mapping[str, Sequence[str]], least: int) -> Iterator[str]:
    """Yield a table's lines; columns have at least `least` characters, and two before each cell."""
    first = max(len(name) for name in ["task", *rows])
    width = max(least, 2 + max(len(cell) for cells in (columns, *rows.values()) for cell in cells))
    for name, cells in [("task", columns), *rows.items()]:
        yield f"{name:{first}}" + "".join(f"{cell:>{width}}" for cell in cells)


def trust(forecast: Mapping[str, Any]) -> str:
    """Return how far a forecast can be trusted, by the measured excess of the exact sum."""
    rows = forecast["tasks"].values()
    expected = math.fsum(row["methods"]["concat"]["excess"] for row in rows)
    measured = math.fsum(row["measured"] for row in rows)
    return (
        "The forecast is of first order: it leaves out the loss's curvature, so it holds for small "
        f"weights only. Over the tasks, concat has {measured:+.3f} nats measured and "
        f"{expected:+.3f} forecast on these examples; where the two are far apart, measure the "
        "merge (lori stage excess) or search the weights (lori merge --search)."
    )


def _with_interval(row: Mapping[str, Any]) -> str:
    ends = "" if row["low"] is None else f" [{row['low']:.2f}, {row['high']:.2f}]"
    return f"{row['excess']:+.3f}{ends}"
