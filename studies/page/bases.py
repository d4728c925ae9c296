"""The rows of several base models: each base has a page of its own, and one table compares them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lori_core.core.errors import InputError
from lori_core.report.tables import NOTHING
from studies.analysis import rows
from studies.analysis.rows import Experiment
from studies.analysis.specs import SPECS
from studies.page.base_names import FOLDER, base_folder, base_label


@dataclass(frozen=True)
class Base:
    """The experiments of one base model.

    Attributes:
        label: its name, with its revision if it has one; empty if the rows do not name it.
        folder: the name of its folder in `bases`; empty if its rows are in the folder itself.
        experiments: its experiments by name, in the catalogue's order.
    """

    label: str
    folder: str
    experiments: Mapping[str, Experiment]


def read(metrics: Path) -> list[Base]:
    """Read all experiments, grouped by base model; the first base is that of the main page.

    The main page is of the base with the most experiments in the folder itself. Experiments of
    another base in that folder, which a changed `model` in params.yaml leaves there, are grouped
    with the rows of their base.

    Args:
        metrics: the folder of the files `NAME.json`, with a folder `bases` of other bases' rows.

    Raises:
        InputError: no experiment has run.
        DataError: a file is not an experiment's.
    """
    own = rows.read_folder(metrics) if any(metrics.glob("*.json")) else {}
    counts = Counter(_label(experiment) for experiment in own.values())
    first = counts.most_common(1)[0][0] if counts else None
    groups: dict[str, dict[str, Experiment]] = {} if first is None else {first: {}}
    folders = {} if first is None else {first: ""}
    for name, experiment in own.items():
        groups.setdefault(_label(experiment), {})[name] = experiment
    for folder in sorted((metrics / FOLDER).glob("*/")):
        if any(folder.glob("*.json")):
            for name, experiment in rows.read_folder(folder).items():
                label = _label(experiment)
                folders.setdefault(label, folder.name)
                groups.setdefault(label, {})[name] = experiment
    if not groups:
        raise InputError(f"{metrics}: no experiment has run; start one with `lori experiment NAME`")
    return [
        Base(label, folders.get(label, base_folder(label)), _in_order(experiments))
        for label, experiments in groups.items()
    ]


def _label(experiment: Experiment) -> str:
    model, revision = (str(experiment.info.get(key) or "") for key in ("model", "revision"))
    return base_label(model, revision)


def _in_order(experiments: Mapping[str, Experiment]) -> dict[str, Experiment]:
    return {name: experiments[name] for name in SPECS if name in experiments}


def compared(built: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the table of verdicts by base, of the claims that are told on at least one base.

    Args:
        built: by base, the content of its page.

    Returns:
        `columns`: the claim, then each base; `rows`: the texts of the cells.
    """
    claims: dict[tuple[str, str], dict[str, str]] = {}
    told = set()
    for label, content in built.items():
        for claim in content["claims"]:
            key = (claim["experiment"], claim["claim"])
            claims.setdefault(key, {})[label] = _verdict(claim)
            if claim["told"]:
                told.add(key)
    table = [
        [key[1], *(cells.get(label, "not run") for label in built)]
        for key, cells in claims.items()
        if key in told
    ]
    return {"columns": ["claim", *built], "rows": table}


def _verdict(claim: Mapping[str, Any]) -> str:
    by_loss = claim["losses"]
    losses = f"by held-out losses {by_loss}: {claim['losses_effect']}" if by_loss else ""
    verdict = f"{claim['verdict']}: {claim['effect']}" if claim["verdict"] else ""
    return "; ".join(text for text in (verdict, losses) if text) or NOTHING
