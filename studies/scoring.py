"""Score trained points and their merges on the same test sets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from lori_core.core.files.atomic import each_jsonl
from lori_core.core.tracking import RunTracker
from lori_core.data.pulled import read_examples, read_held_out
from lori_core.evaluation.evaluate import adapter_applied, evaluate
from lori_core.evaluation.held_out import held_out_losses
from lori_core.evaluation.paired_comparison import Rows, counts, positive, read_verdicts
from lori_core.evaluation.statistics import mean_interval
from lori_core.merging import merge
from lori_core.merging.merge_methods import Options
from lori_core.methods import finetuned_model
from lori_core.methods.finetuned_model import Trained
from lori_core.methods.loaded_model import LoadedModel, load_model
from studies import results
from studies.analysis import items
from studies.points import MODEL, Mixture, Score, folder_of
from studies.results import Row

#: The rows of verdicts that a metric counts; all for other metrics.
ITEMS_OF: dict[str, Rows] = {"refusal_rate": "refuse", "over_refusal": "comply"}


def score(point: Score, work: Path, tracker: RunTracker) -> Row:
    """Score each model on each task: judge its outputs, and measure the loss on test targets."""
    session = load_model(results.params_of(point), training=False)
    rows: dict[str, list[Row]] = {}
    for model_name, mixture in point.models.items():
        model = mixed(mixture)
        sets = {task: read_examples(task, "test") for task in point.scored}
        scored = evaluate(session, model, sets, model_name, work)
        rows[model_name] = [
            row
            for task, r in scored.items()
            for row in _score_rows(task, r, work / model_name / f"{task}.jsonl")
        ]
        rows[model_name] += _loss_rows(session, model, point)
        tracker.metrics(
            {
                f"{model_name}.{r['task']}.{r['metric']}": r["value"]
                for r in rows[model_name]
                if r["value"] is not None
            }
        )
    return {"rows": rows}


def mixed(mixture: Mixture) -> Trained | None:
    """Return the model that a mixture describes; None for the base model."""
    if not mixture.adapters:
        return None
    if mixture.method is None:
        return finetuned_model.open_model(folder_of(mixture.adapters[0]) / MODEL)
    parents = [results.adapter_of(name) for name in mixture.adapters]
    options = Options(density=mixture.density, seed=mixture.seed)
    return merge.merge(mixture.method, parents, list(mixture.weights), options)


def _score_rows(task: str, result: Mapping[str, Any], verdicts: Path) -> Iterator[Row]:
    """Yield a task's scores with the outcome of each item.

    With `evaluation.likelihood`, a multiple-choice task also has its accuracy by log-likelihood, on
    the same items.

    Args:
        task: the task.
        result: its result by `evaluate`.
        verdicts: the file of the verdicts.
    """
    named = {result["metric"]: result, "over_refusal": result.get("over_refusal")}
    for metric, score in named.items():
        if score and score["n"]:
            own = item_outcomes(verdicts, ITEMS_OF.get(metric, "all"))
            yield _score_row(metric, task, score, own)
    if score := result.get("likelihood"):
        choices = verdicts.with_name(f"{task}.likelihood.jsonl")
        yield _score_row(items.LIKELIHOOD, task, score, choice_outcomes(choices))


def _score_row(
    metric: str, task: str, score: Mapping[str, Any], own: tuple[list[str], list[float]]
) -> Row:
    facts = {key: score[key] for key in ("low", "high", "n")}
    fields = items.fields(*own)
    return {"metric": metric, "task": task, "value": score["score"], **facts, **fields}


def choice_outcomes(choices: Path) -> tuple[list[str], list[float]]:
    """Return the ids of the items of a multiple-choice set and whether each choice is right.

    Args:
        choices: the JSON lines of an evaluation by log-likelihood.
    """
    rows = [row for _, row in each_jsonl(choices)]
    return [row["id"] for row in rows], [float(row["correct"]) for row in rows]


def item_outcomes(verdicts: Path, rows: Rows) -> tuple[list[str], list[float]]:
    """Return the ids of the items that count and the share of positive outcomes of each.

    Equal examples in a test set have one id; each counts, as in the score.

    Args:
        verdicts: the JSON lines of an evaluation, the samples of an item one after another.
        rows: the verdicts that count.
    """
    ids: list[str] = []
    flags: list[list[bool]] = []
    for row in read_verdicts(verdicts):
        if counts(row, rows):
            if row["sample"] == 0:
                ids.append(row["id"])
                flags.append([])
            flags[-1].append(positive(row, rows))
    return ids, [fmean(own) for own in flags]


def _loss_rows(session: LoadedModel, model: Trained | None, point: Score) -> list[Row]:
    rows = []
    with adapter_applied(session, model) as adapted:
        for task in point.losses:
            examples = [e for e in read_examples(task, "test") if e.target]
            if not examples:  # a benchmark without target texts, such as HumanEval
                examples = [e for e in read_held_out(task) if e.target]
            if not examples:
                continue
            losses, _ = held_out_losses(
                adapted,
                session.tokenizer,
                examples,
                session.params.prompt,
                point.max_lengths[task],
                session.params.evaluation.batch_size,
                f"loss on {task}",
            )
            low, high = mean_interval(losses) if len(losses) > 1 else (None, None)
            own = items.fields([example.id for example in examples], losses)
            measured: Row = {"value": fmean(losses), "low": low, "high": high, "n": len(losses)}
            rows.append({"metric": "loss", "task": task, **measured, **own})
    return rows
