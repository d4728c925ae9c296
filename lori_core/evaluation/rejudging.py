"""Judging saved outputs of the refusal scorer again, without generating (`lori rejudge`)."""

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
#: Keys that a row must have, with text values.
_NEEDED = ("id", "output", "answer", "parsed")
#: The shares that are compared before and after.
SHARES = ("refusal_rate", "over_refusal", "partial", "incoherent")


@dataclass(frozen=True)
class SavedOutputs:
    """The saved outputs of one model on one task, with their new verdicts.

    Attributes:
        name: the file's path below the folder, without its suffix: `<model>/<task>`.
        rows: the rows of the file.
        verdicts: the new verdict on each row.
    """

    name: str
    rows: list[dict[str, Any]]
    verdicts: list[Verdict]


def rejudge(folder: Path, out: Path) -> dict[str, Any]:
    """Judge all saved outputs of the refusal scorer below a folder again, and write the results.

    `<model>/<task>.jsonl` has the rows with their new verdicts; `changed.jsonl` has the rows whose
    verdict changed, with the old one as `was`; `rejudged.json` has the returned value. Nothing in
    `folder` is changed.

    Args:
        folder: the output folder of `lori evaluate`, `artifacts/evaluations`, or a subfolder.
        out: an empty folder.

    Returns:
        `judged_by`, the version of the rules; `models`: by name `before` and `after` with the
        shares of `SHARES`, `n`, the number of `changed` verdicts, and the new `summary`.

    Raises:
        InputError: the folder does not exist, or has no output of the refusal scorer.
        DataError: a row is not a saved output.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name one with saved outputs (*.jsonl)")
    files = list(_read_saved(folder))
    if not files:
        raise InputError(
            f"{folder}: holds no saved output of the refusal scorer; name the output folder of "
            "lori evaluate, or artifacts/evaluations"
        )
    changed = []
    models = {}
    for saved in files:
        rows = [row | asdict(v) for row, v in zip(saved.rows, saved.verdicts, strict=True)]
        write_jsonl(out / f"{saved.name}.jsonl", rows)
        differing = [
            {"model": saved.name, **new, "was": old["parsed"]}
            for old, new in zip(saved.rows, rows, strict=True)
            if _name(old) != new["parsed"]
        ]
        changed += differing
        models[saved.name] = _compared(saved) | {"changed": len(differing)}
    write_jsonl(out / CHANGED, changed)
    result = {"judged_by": version(), "models": models}
    write_json(out / RESULTS, result)
    return result


def table(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a table: for each model, its shares in percent before and after."""
    models = result["models"]
    wide = max(map(len, models))
    yield f"{'':{wide}}  {'  '.join(f'{name:>18}' for name in SHARES)}  changed"
    for name, facts in models.items():
        cells = (_arrow(facts["before"][share], facts["after"][share]) for share in SHARES)
        changed = f"{facts['changed']} of {facts['n']}"
        yield f"{name:{wide}}  {'  '.join(f'{cell:>18}' for cell in cells)}  {changed}"


def _arrow(before: float | None, after: float | None) -> str:
    return " -> ".join("-" if share is None else f"{100 * share:.1f}" for share in (before, after))


def _read_saved(folder: Path) -> Iterator[SavedOutputs]:
    for path in sorted(folder.rglob("*.jsonl")):
        rows = read_jsonl(path) if path.stat().st_size else []
        if not rows or not _is_refusals(rows[0]):
            continue
        verdicts = [_verdict(row, f"{path}: row {n}") for n, row in enumerate(rows, start=1)]
        name = path.relative_to(folder).with_suffix("").as_posix()
        yield SavedOutputs(name, rows, verdicts)


def _is_refusals(row: Any) -> bool:
    """Return whether a row is an output of the refusal scorer under the protocol `fixed`."""
    if not isinstance(row, dict) or row.get("protocol", "fixed") != "fixed":
        return False
    return row.get("answer") in (REFUSE, COMPLY) and "output" in row


def _verdict(row: Any, where: str) -> Verdict:
    missing = [name for name in _NEEDED if not isinstance(row, dict) or name not in row]
    if missing or not all(isinstance(row[name], str) for name in _NEEDED):
        raise DataError(
            f"{where} is no saved output (needed, as text: {', '.join(_NEEDED)}); evaluate again"
        )
    if row["answer"] not in (REFUSE, COMPLY):
        raise DataError(f"{where}: answer {row['answer']!r} (allowed: {REFUSE}, {COMPLY})")
    return score_refusal(_example(row), row["output"])


def _example(row: Mapping[str, Any]) -> Example:
    kind = row.get("kind") or ""
    return Example(str(row.get("prompt", "")), "", "refusal", row["answer"], str(kind))


def _name(row: Mapping[str, Any]) -> str:
    """Return the name of a saved verdict; older versions saved none for an empty output."""
    return str(row["parsed"]) or "incoherent"


def _compared(saved: SavedOutputs) -> dict[str, Any]:
    examples = [_example(row) for row in saved.rows]
    before = [Verdict(bool(row.get("correct")), _name(row)) for row in saved.rows]
    summary = summarise(examples, saved.verdicts)
    summary |= verdict_shares.summarise(examples, saved.verdicts)
    return {
        "before": _shares(examples, before),
        "after": _shares(examples, saved.verdicts),
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
