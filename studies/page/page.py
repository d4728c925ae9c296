"""One HTML page about all experiments that have run, with embedded pictures, and as Markdown."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lori_core.core.files.atomic import replaced_folder, write_json, write_text
from lori_core.core.redaction import redact, redacted
from studies.analysis import cells, claims, paper, tables, verdicts
from studies.analysis.base_names import FOLDER
from studies.analysis.rows import Experiment
from studies.analysis.specs import TASKS, in_order
from studies.page import bases, figures, gaps, markdown, plots

#: The labels of an experiment's `info`, by key.
INFO = {
    "model": "Base model",
    "parameters": "Parameters of the base",
    "rank": "Rank",
    "seeds": "Seeds",
    "train_sizes": "Training examples",
    "test_sizes": "Test items",
    "machine": "Machine",
    "command": "Command",
}


def write(folder_of_metrics: Path, out: Path) -> dict[str, Any]:
    """Write the page, the pictures and the Markdown of all experiments that have run.

    Args:
        folder_of_metrics: the folder of the files `NAME.json`, for any of the experiments, and of
            the folders `bases/BASE` with the rows of other base models.
        out: the folder to replace, with `index.html`, `evidence.md`, `summary.json`, and for each
            experiment `NAME.md`, `NAME.png`, `NAME.svg` and, for `dvc plots`, `plots/NAME.csv`.
            `bases/BASE` has the same files for each other base model.

    Returns:
        `metrics`: flat numbers for tracking; `experiments`: by name `figures` (file names),
        `tables`, `claims`, `gaps` and `info`; `claims`: all verdicts; `summary` and `holm`: lines;
        `bases`: `base`, `page` and `summary` of each other base; `by_base`: the table of verdicts
        by base, empty if there is one base only.

    Raises:
        InputError: no experiment has run.
        DataError: a file is not an experiment's.
    """
    everything = bases.read(folder_of_metrics)
    first, apart = everything[0], [base for base in everything if base.folder]
    with replaced_folder(out) as work:
        built = _build(first.experiments, work)
        contents = {first.label: built}
        for base in apart:
            folder = work / FOLDER / base.folder
            folder.mkdir(parents=True)
            contents[base.label] = content = _build(base.experiments, folder)
            _write(base.experiments, content, folder)
            page = f"{FOLDER}/{base.folder}/index.html"
            built["bases"].append({"base": base.label, "page": page, "summary": content["summary"]})
            built["metrics"] |= {f"{base.folder}/{k}": v for k, v in content["metrics"].items()}
        if len(contents) > 1:
            built["by_base"] = bases.compared(contents)
        _write(first.experiments, built, work)
    return built


def _write(experiments: Mapping[str, Experiment], built: Mapping[str, Any], folder: Path) -> None:
    """Write the texts of the page of one base model."""
    for name, part in built["experiments"].items():
        write_text(folder / f"{name}.md", redact(markdown.part(part)))
    write_text(folder / "evidence.md", redact(markdown.evidence(built)))
    for name, experiment in experiments.items():
        write_text(folder / "plots" / f"{name}.csv", plots.scores(experiment))
    write_text(folder / "index.html", redact(_html(built, folder)))
    write_json(folder / "summary.json", redacted(built))


def _build(experiments: Mapping[str, Experiment], folder: Path) -> dict[str, Any]:
    """Draw all figures; return the content of the page and the Markdown."""
    judged = [claim | {"told": _told(claim)} for claim in claims.judged(experiments)]
    counts = Counter(claim["verdict"] for claim in judged)
    beside = {
        measure: Counter(claim[measure] for claim in judged if claim[measure])
        for measure in markdown.BESIDE
    }
    metrics = {f"claims/{v.replace(' ', '_')}": float(counts[v]) for v in VERDICTS}
    for experiment in experiments.values():
        metrics |= plots.metrics(experiment)
    parts = {
        name: _part(experiment, [c for c in judged if c["experiment"] == name], folder)
        for name, experiment in experiments.items()
    }
    return {
        "summary": _summary(experiments, counts, beside),
        "holm": _holm(judged),
        "claims": judged,
        "experiments": parts,
        "metrics": metrics,
        "bases": [],
        "by_base": {},
    }


def _told(claim: Mapping[str, Any]) -> bool:
    """Return whether a claim held or did not hold by any measure."""
    return any(claim[key] not in (None, verdicts.UNCLEAR) for key, _, _ in claims.FAMILIES)


def _holm(judged: list[dict[str, Any]]) -> str:
    """Return which verdicts remain after Holm's correction for all claims by the same measure."""
    stands = [
        (claim["claim"], claim[key])
        for claim in judged
        for _, _, key in claims.FAMILIES
        if claim.get(key) is not None
    ]
    if not stands:
        return "No claim was decided, so there is no verdict to correct for the number of claims."
    standing = [f"“{name}”" for name, stand in stands if stand]
    correction = "after Holm's correction for all claims by the same measure"
    if len(standing) == len(stands):
        return f"All of these verdicts remain {correction}."
    if not standing:
        return f"None of these verdicts remains {correction}."
    return (
        f"{correction[0].upper()}{correction[1:]}, {len(standing)} of these {len(stands)} verdicts "
        f"{'remains' if len(standing) == 1 else 'remain'}: {', '.join(standing)}."
    )


VERDICTS = (verdicts.HELD, verdicts.FAILED, verdicts.UNCLEAR)


def _part(experiment: Experiment, judged: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    drawn = figures.draw(experiment, folder) if gaps.known(experiment) else []
    return {
        "title": experiment.spec.title,
        "about": experiment.spec.about,
        "reading": experiment.spec.reading if drawn else "",
        "info": _info(experiment),
        "claims": judged,
        "figures": [
            figure | {"png": f"{figure['stem']}.png", "svg": f"{figure['stem']}.svg"}
            for figure in drawn
        ],
        "tables": tables.build(experiment),
        "gaps": gaps.of(experiment),
        "paper": {
            "tables": list(experiment.spec.tables),
            "figures": list(experiment.spec.figures),
        },
    }


def _info(experiment: Experiment) -> list[list[str]]:
    """Return how an experiment was run, as pairs [label, text]; known labels first."""
    known = [key for key in INFO if key in experiment.info]
    others = sorted(key for key in experiment.info if key not in INFO)
    pairs = [
        [INFO.get(key, key.replace("_", " ").capitalize()), _text(experiment.info[key])]
        for key in [*known, *others]
    ]
    if "seeds" not in experiment.info:
        pairs.append([INFO["seeds"], _text(experiment.seeds())])
    pairs.append(["Items of each seed's scores", _items(experiment)])
    return [[label, text] for label, text in pairs if text]


def _items(experiment: Experiment) -> str:
    """Return the number of items of each score of a seed, as text; the most if rows differ."""
    counts: dict[tuple[str, str], int] = {}
    for row in experiment.rows:
        if row.n:
            key = (row.task, row.metric)
            counts[key] = max(counts.get(key, 0), row.n)
    measures = [pair for pair in experiment.measures() if pair in counts]
    return "; ".join(f"{cells.heading(*pair, unit=False)} {counts[pair]:,}" for pair in measures)


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        keys = in_order(map(str, value), TASKS)
        return ", ".join(f"{key} {_text(value[key])}" for key in keys)
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(inner) for inner in value)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "" if value is None else str(value)


def _summary(
    experiments: Mapping[str, Experiment],
    counts: Mapping[str, int],
    beside: Mapping[str, Mapping[str, int]],
) -> str:
    bases = {
        f"{e.info['model']}" + (f" ({e.info['parameters'] / 1e6:,.0f}M parameters)")
        if isinstance(e.info.get("parameters"), (int, float))
        else str(e.info["model"])
        for e in experiments.values()
        if e.info.get("model")
    }
    on = f" on {', '.join(sorted(bases))}" if bases else ""
    results = ", ".join(f"{counts.get(verdict, 0)} {verdict}" for verdict in VERDICTS)
    others = "".join(
        f" By {markdown.BESIDE[measure]}, "
        + ", ".join(f"{told.get(verdict, 0)} {verdict}" for verdict in VERDICTS)
        + "."
        for measure, told in beside.items()
        if told
    )
    others += _sizes(experiments)
    count, judged = len(experiments), sum(counts.values())
    return (
        f"{count} experiment{'s' if count > 1 else ''}{on}. "
        f"By scores or measurements, of {judged} claim{'' if judged == 1 else 's'} {results}."
        + others
    )


def _sizes(experiments: Mapping[str, Experiment]) -> str:
    """Return how much data and how many seeds the experiments had; empty if it is not recorded."""
    counts: dict[str, set[int]] = {"train_sizes": set(), "test_sizes": set()}
    for experiment in experiments.values():
        for key, known in counts.items():
            sizes = experiment.info.get(key)
            values = sizes.values() if isinstance(sizes, Mapping) else ()
            known |= {value for value in values if type(value) is int}
    if not all(counts.values()):
        return ""
    train, test = (_range(known) for known in counts.values())
    seeds = _range({len(experiment.seeds()) for experiment in experiments.values()})
    plural = "" if seeds == "1" else "s"
    return (
        f" Each task had {train} training examples and {test} test items, with {seeds} "
        f"seed{plural}."
    )


def _range(counts: set[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _html(built: Mapping[str, Any], folder: Path) -> str:
    from jinja2 import ChoiceLoader, Environment, PackageLoader

    loader = ChoiceLoader([PackageLoader("studies", "page"), PackageLoader("lori_core", "report")])
    pages = Environment(loader=loader, autoescape=True)
    return pages.get_template("experiments.html").render(
        **built,
        intro=markdown.INTRO,
        reading=markdown.READING,
        how=markdown.how(built["claims"]),
        beside=markdown.beside(built["claims"]),
        untold=markdown.UNTOLD,
        images={
            figure["stem"]: _embedded(folder / figure["svg"])
            for part in built["experiments"].values()
            for figure in part["figures"]
        },
        paper_tables=paper.tables(),
        paper_figures=paper.figures(),
    )


def _embedded(svg: Path) -> str:
    """Return a picture as a data URL, so that the page is one file."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.read_bytes()).decode()
