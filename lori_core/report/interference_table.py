"""The output of `lori interference`: a table, a figure and a JSON file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

from lori_core.adapters.adapter import Adapter
from lori_core.core.files.atomic import write_json
from lori_core.merging import advice, interference
from lori_core.report import forecast_table

_COLUMNS = {
    "mean_abs_cosine": ("mean |cos|", "{:.5f}"),
    "max_abs_cosine": ("max |cos|", "{:.5f}"),
    "within_bound": ("in bound", "{:.1%}"),
    "mask_overlap": ("overlap", "{:.3%}"),
    "expected_overlap": ("expected", "{:.3%}"),
    "sign_collisions": ("opposite", "{:.1%}"),
}


def measure(adapters: Mapping[str, Adapter]) -> dict[str, Any]:
    """Compare each pair of adapters.

    Returns:
        `pairs`: `interference.summarise` by `first+second`; `shared`: by pair, what their
        projections A have in common (pairs without are left out); `modules`: the measurements by
        pair and module; `advice`: the recommended merge method, and why.
    """
    measured = interference.measure(adapters)
    shared = {
        f"{a}+{b}": interference.shared_projection(adapters[a], adapters[b])
        for a, b in combinations(adapters, 2)
    }
    return {
        "pairs": {pair: interference.summarise(list(m.values())) for pair, m in measured.items()},
        "advice": asdict(advice.advise(adapters, measured)),
        "shared": {pair: what for pair, what in shared.items() if what},
        "modules": {
            pair: {name: asdict(m) | {"expected": m.expected} for name, m in modules.items()}
            for pair, modules in measured.items()
        },
    }


def text(result: Mapping[str, Any], *, every_module: bool = False) -> str:
    """Return the table of all pairs, with a warning if two adapters share a projection A.

    Args:
        result: the return value of `measure`; with `forecast`, a forecast of the excess loss.
        every_module: whether to add a table of all modules for each pair.
    """
    lines = _table("pair", result["pairs"], _COLUMNS)
    lines.append(
        "|cos| over modules; in bound: share of modules within the bound of Property 1; overlap "
        "and expected: mask overlap; opposite: share of common entries with opposite signs"
    )
    if every_module:
        columns = {"cosine": ("cos", "{:.5f}"), "inner": ("inner", "{:.3e}")}
        columns |= {"bound": ("bound", "{:.3e}"), "both": ("both", "{:,}")}
        columns |= {"expected": ("expected", "{:,.1f}"), "collisions": ("opposite", "{:,}")}
        for pair, modules in result["modules"].items():
            lines += ["", *_table(pair, modules, columns)]
    found = result["advice"]
    lines += ["", f"Recommended method: {found['method']}: {found['reason']}.", found["trust"]]
    for pair, what in result["shared"].items() if found["method"] != "on_safety" else ():
        first, second = pair.split("+", 1)
        lines += [
            "",
            f"WARNING: {first} and {second} SHARE {what}. Their updates are not independent, "
            "Property 1 does not hold for them, and a merge of them interferes. "
            "Train one of them again with another projection_key.",
        ]
    if "forecast" in result:
        lines += ["", forecast_table.text(result["forecast"])]
    return "\n".join(lines)


def _table(
    title: str, rows: Mapping[str, Mapping[str, Any]], columns: Mapping[str, tuple[str, str]]
) -> list[str]:
    present = [key for key in columns if any(row.get(key) is not None for row in rows.values())]
    width = max(len(name) for name in [title, *rows])
    lines = [f"{title:{width}}" + "".join(f"{columns[key][0]:>12}" for key in present)]
    for name, row in rows.items():
        cells = [_cell(columns[key][1], row.get(key)) for key in present]
        lines.append(f"{name:{width}}" + "".join(f"{cell:>12}" for cell in cells))
    return lines


def _cell(form: str, value: Any) -> str:
    return "-" if value is None else form.format(value)


def write(result: Mapping[str, Any], names: Sequence[str], folder: Path) -> None:
    """Write `interference.json`, and the matrices as `interference.png`, into a folder."""
    import matplotlib.pyplot as plt

    from lori_core.report import figures

    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "interference.json", result)
    figure = figures.pair_matrices(result["pairs"], list(names))
    figure.savefig(folder / "interference.png", dpi=130, metadata={"Software": None})
    plt.close(figure)
