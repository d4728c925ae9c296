"""Score trained points and their merges on the same test sets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from lori_core.core.tracking import RunTracker
from lori_core.data.pulled import read_examples, read_held_out
from lori_core.evaluation.evaluate import adapter_applied, evaluate
from lori_core.evaluation.held_out import held_out_losses
from lori_core.evaluation.statistics import mean_interval
from lori_core.merging import merge
from lori_core.merging.merge_methods import Options
from lori_core.methods import finetuned_model
from lori_core.methods.finetuned_model import Trained
from lori_core.methods.loaded_model import LoadedModel, load_model
from studies import results
from studies.points import MODEL, Mixture, Score, folder_of
from studies.results import Row


def score(point: Score, work: Path, tracker: RunTracker) -> Row:
    """Score each model on each task: judge its outputs, and measure the loss on test targets."""
    session = load_model(results.params_of(point), training=False)
    rows: dict[str, list[Row]] = {}
    for model_name, mixture in point.models.items():
        model = mixed(mixture)
        sets = {task: read_examples(task, "test") for task in point.scored}
        scored = evaluate(session, model, sets, model_name, work)
        rows[model_name] = [row for task, r in scored.items() for row in _score_rows(task, r)]
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


def _score_rows(task: str, result: Mapping[str, Any]) -> Iterator[Row]:
    named = {result["metric"]: result, "over_refusal": result.get("over_refusal")}
    for metric, score in named.items():
        if score and score["n"]:
            facts = {key: score[key] for key in ("low", "high", "n")}
            yield {"metric": metric, "task": task, "value": score["score"], **facts}


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
            measured = {"value": fmean(losses), "low": low, "high": high, "n": len(losses)}
            rows.append({"metric": "loss", "task": task, **measured})
    return rows
