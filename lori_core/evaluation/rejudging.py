"""Judging kept outputs of the refusal scorer again, without generating."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lori_core.core.errors import DataError, InputError
from lori_core.core.files.atomic import read_jsonl, write_json, write_jsonl
from lori_core.data.answers import COMPLY, REFUSE
from lori_core.data.example import Example
from lori_core.evaluation.scoring import verdict_shares
from lori_core.evaluation.scoring.refusal_classifier import version
from lori_core.evaluation.scoring.scorers import Verdict, score_refusal, summarise

RESULTS, CHANGED = "rejudged.json", "changed.jsonl"
#: What a row must have, as text.
_NEEDED = ("id", "output", "answer", "parsed")
#: The shares that are told before and after.
SHARES = ("refusal_rate", "over_refusal", "partial", "incoherent")


@dataclass(frozen=True)
class Kept:
    """The rows that an evaluation kept of one model on one task.

    Attributes:
        name: the file's path below the folder, without its suffix: `<model>/<task>`.
        rows: what it holds.
        verdicts: those of today, row by row.
    """

    name: str
    rows: list[dict[str, Any]]
    verdicts: list[Verdict]


def rejudge(folder: Path, out: Path) -> dict[str, Any]:
    """Judge all kept outputs of the refusal scorer below a folder, and write what was found.

    `<model>/<task>.jsonl` are the rows with their new verdicts; `changed.jsonl` those whose verdict
    changed, each with `was`; `rejudged.json` what is returned. Nothing in `folder` is changed.

    Args:
        folder: the output folder of `lori evaluate`, `artifacts/evaluations`, or one within.
        out: an empty folder.

    Returns:
        `judged_by`; `models`: by name `before` and `after` with the shares of `SHARES`, `n`, how
        many verdicts `changed`, and the new `summary`.

    Raises:
        InputError: there is no such folder, or no output of the refusal scorer in it.
        DataError: a row is no verdict.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name one with kept outputs (*.jsonl)")
    found = list(_kept(folder))
    if not found:
        raise InputError(
            f"{folder}: holds no kept output of the refusal scorer; name the output folder of "
            "lori evaluate, or artifacts/evaluations"
        )
    changed = []
    models = {}
    for kept in found:
        rows = [row | asdict(v) for row, v in zip(kept.rows, kept.verdicts, strict=True)]
        write_jsonl(out / f"{kept.name}.jsonl", rows)
        other = [
            {"model": kept.name, **new, "was": old["parsed"]}
            for old, new in zip(kept.rows, rows, strict=True)
            if _name(old) != new["parsed"]
        ]
        changed += other
        models[kept.name] = _compared(kept) | {"changed": len(other)}
    write_jsonl(out / CHANGED, changed)
    result = {"judged_by": version(), "models": models}
    write_json(out / RESULTS, result)
    return result


def table(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each model: each share in percent, before and after."""
    models = result["models"]
    wide = max(map(len, models))
    yield f"{'':{wide}}  {'  '.join(f'{name:>18}' for name in SHARES)}  changed"
    for name, facts in models.items():
        cells = (_arrow(facts["before"][share], facts["after"][share]) for share in SHARES)
        changed = f"{facts['changed']} of {facts['n']}"
        yield f"{name:{wide}}  {'  '.join(f'{cell:>18}' for cell in cells)}  {changed}"


def _arrow(before: float | None, after: float | None) -> str:
    return " -> ".join("-" if share is None else f"{100 * share:.1f}" for share in (before, after))


def _kept(folder: Path) -> Iterator[Kept]:
    for path in sorted(folder.rglob("*.jsonl")):
        rows = read_jsonl(path) if path.stat().st_size else []
        if not rows or not _is_refusals(rows[0]):
            continue
        verdicts = [_verdict(row, f"{path}: row {n}") for n, row in enumerate(rows, start=1)]
        name = path.relative_to(folder).with_suffix("").as_posix()
        yield Kept(name, rows, verdicts)


def _is_refusals(row: Any) -> bool:
    """Say whether a row is of the refusal scorer, by the protocol that judges outputs alone."""
    if not isinstance(row, dict) or row.get("protocol", "fixed") != "fixed":
        return False
    return row.get("answer") in (REFUSE, COMPLY) and "output" in row


def _verdict(row: Any, where: str) -> Verdict:
    missing = [name for name in _NEEDED if not isinstance(row, dict) or name not in row]
    if missing or not all(isinstance(row[name], str) for name in _NEEDED):
        raise DataError(
            f"{where} is no kept output (needed, as text: {', '.join(_NEEDED)}); evaluate again"
        )
    if row["answer"] not in (REFUSE, COMPLY):
        raise DataError(f"{where}: answer {row['answer']!r} (allowed: {REFUSE}, {COMPLY})")
    return score_refusal(_example(row), row["output"])


def _example(row: Mapping[str, Any]) -> Example:
    kind = row.get("kind") or ""
    return Example(str(row.get("prompt", "")), "", "refusal", row["answer"], str(kind))


def _name(row: Mapping[str, Any]) -> str:
    """Return an old verdict's name; an empty output had none."""
    return str(row["parsed"]) or "incoherent"


def _compared(kept: Kept) -> dict[str, Any]:
    examples = [_example(row) for row in kept.rows]
    before = [Verdict(bool(row.get("correct")), _name(row)) for row in kept.rows]
    summary = summarise(examples, kept.verdicts) | verdict_shares.summarise(examples, kept.verdicts)
    return {
        "before": _shares(examples, before),
        "after": _shares(examples, kept.verdicts),
        "n": len(examples),
        "summary": summary,
    }


def _shares(examples: Sequence[Example], verdicts: Sequence[Verdict]) -> dict[str, float | None]:
    summary = summarise(examples, verdicts)
    partial = sum(verdict.parsed == "partial" for verdict in verdicts)
    incoherent = sum(verdict.parsed == "incoherent" for verdict in verdicts)
    shares = (
        summary["score"],
        summary["over_refusal"]["score"],
        partial / len(examples),
        incoherent / len(examples),
    )
    return dict(zip(SHARES, shares, strict=True))
