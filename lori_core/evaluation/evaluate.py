"""Evaluation of one model on test sets: generation, verdicts, and scores with intervals."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lori_core.adapters.adapter import Adapter, check_base
from lori_core.config import EvaluationSection, JudgeSection
from lori_core.core.errors import DataError
from lori_core.core.files.atomic import write_jsonl
from lori_core.data.answers import expected_answer
from lori_core.data.example import Example
from lori_core.evaluation.inference import likelihood
from lori_core.evaluation.inference.generation import Output, Request, generate
from lori_core.evaluation.inference.in_weights import added_to_weights
from lori_core.evaluation.scoring import paper_scorers, setups
from lori_core.evaluation.scoring.protocols import PROTOCOLS, Judged
from lori_core.methods import finetuned_model
from lori_core.methods.finetuned_model import Trained
from lori_core.methods.loaded_model import LoadedModel

#: Takes requests and the progress bar's name; returns the outputs of each request.
Generator = Callable[[Sequence[Request], str], list[list[Output]]]


@contextmanager
def adapter_applied(session: LoadedModel, adapter: Trained | None) -> Iterator[Any]:
    """Yield the base model with an adapter applied (or without, if None); remove it afterwards.

    Raises:
        AdapterError: the adapter was trained on another base model.
    """
    if adapter is None:
        yield session.model
        return
    check_base(adapter, session.base, str(adapter.info.get("stage", "adapter")))
    faster = added_to_weights if isinstance(adapter, Adapter) else nullcontext
    with finetuned_model.applied(session.model, adapter) as model, faster(model):
        yield model


def evaluate(
    session: LoadedModel,
    adapter: Trained | None,
    sets: Mapping[str, Sequence[Example]],
    row: str,
    folder: Path,
) -> dict[str, Any]:
    """Score one model on test sets.

    All prompts, outputs, parsed answers and verdicts are written to
    `folder/<row>/<task>[.<protocol>].jsonl`, those of set-ups to `<task>.setup-<name>.jsonl`.

    Args:
        session: the loaded base model.
        adapter: the adapter to apply; None for the base model alone.
        sets: the examples by task; examples without a scorer are left out.
        row: the model's name in tables.
        folder: the folder for the JSONL files.

    Returns:
        By task: metric, score, low, high (95 %), n, the same for each kind of example, the number
        of truncated prompts and of empty outputs, all under the first protocol; the scores of the
        other protocols and of the log-likelihood under their names. With `evaluation.setups`,
        safety sets also have `setups` (the same by set-up, with its `settings`) and `spread`
        (`setups.spread`).

    Raises:
        DataError: an example has no answer that its scorer can use; nothing has been written.
        InputError: the judge's URL is not allowed, or a task of the harness is unknown or cannot
            be loaded; nothing has been written.
    """
    results = {}
    scored = {task: [e for e in examples if e.scorer != "none"] for task, examples in sets.items()}
    for task, examples in scored.items():
        _check(examples, task, session.params.evaluation)
    if (url := session.params.evaluation.judge.url) is not None:
        from lori_core.evaluation.scoring.refusal_judge import check_url

        check_url(url)
    given = {task: examples for task, examples in scored.items() if examples}
    with adapter_applied(session, adapter) as model:
        # Before anything is generated, because an engine that cannot run is refused.
        writers = {task: generator(session, model, adapter) for task in given}
        # First, because the harness refuses some tasks only when it loads them.
        by_harness = _by_harness(session, model, folder / row)
        for task, examples in given.items():
            results[task] = _score(
                session, model, writers[task], examples, f"{row} {task}", folder / row / task
            )
            _say(row, task, results[task])
    for task, result in by_harness.items():
        results[task] = result
        _say(row, task, result)
    return results


def _check(examples: Sequence[Example], task: str, section: EvaluationSection) -> None:
    """Check that the scorers can use all examples, before any output is written."""
    scorers = sorted({example.scorer for example in examples})
    if len(scorers) > 1:
        raise DataError(f"{task}: expected examples of one scorer, got {', '.join(scorers)}")
    if "paper" in section.protocols and scorers and scorers[0] not in paper_scorers.SCORERS:
        raise DataError(
            f"evaluation.protocols: paper: it has no scorer {scorers[0]!r}, which {task} needs "
            f"(allowed: {', '.join(paper_scorers.SCORERS)}); remove paper from the list"
        )
    for example in examples:
        expected_answer(example, f"{task}: example {example.id}")
        if section.likelihood and example.scorer == "choice":
            likelihood.continuations_of(example)


def _score(
    session: LoadedModel,
    model: Any,
    write: Generator,
    examples: list[Example],
    what: str,
    path: Path,
) -> dict[str, Any]:
    """Score one task under each protocol, write its JSONL files, and return its results."""
    section = session.params.evaluation
    result: dict[str, Any] = {}
    for name in section.protocols:
        judged = _run_protocol(session, write, examples, name, what)
        suffix = "" if name == section.protocols[0] else f".{name}"
        write_jsonl(path.with_name(f"{path.name}{suffix}.jsonl"), _rows(judged, name))
        summary = PROTOCOLS[name].summarise(judged)
        if suffix:
            result[name] = summary
        else:
            result |= summary | _counts(judged)
            result |= _by_judge(section.judge, judged)
    choices = [example for example in examples if example.scorer == "choice"]
    if section.likelihood and choices:
        result["likelihood"] = _by_likelihood(session, model, choices, what, path)
    if section.setups and examples[0].scorer == "refusal":
        result["setups"] = _in_setups(session, write, examples, what, path)
        result["spread"] = setups.spread(result, result["setups"])
    return result


def _in_setups(
    session: LoadedModel, write: Generator, examples: list[Example], what: str, path: Path
) -> dict[str, Any]:
    """Score a safety set in each of `evaluation.setups`; write the JSONL files of each."""
    params, protocol = session.params, PROTOCOLS[setups.PROTOCOL]
    results = {}
    for name in params.evaluation.setups:
        prepared = setups.prepare(examples, params, session.tokenizer, name)
        if not prepared:
            continue
        outputs = write([item.request for item in prepared], f"{what} {name}")
        texts = [[output.text for output in samples] for samples in outputs]
        judged = protocol.judge(prepared, texts, unsafe=params.evaluation.unsafe_code)
        settings = params.setup_settings(name)
        rows = ({**row, "setup": settings} for row in _rows(judged, setups.PROTOCOL))
        write_jsonl(setups.verdicts_path(path.with_name(f"{path.name}.jsonl"), name), rows)
        results[name] = protocol.summarise(judged) | _counts(judged) | {"settings": settings}
        results[name] |= _by_judge(params.evaluation.judge, judged)
    return results


def generator(session: LoadedModel, model: Any, adapter: Trained | None) -> Generator:
    """Return the function that generates outputs: with the loaded model, or with vLLM.

    vLLM only serves low-rank adapters; all other methods generate with the loaded model.

    Raises:
        ConfigError: vLLM is requested but not installed, or there is no GPU.
    """
    from lori_core.evaluation.inference import vllm_engine

    if isinstance(adapter, Adapter | None) and vllm_engine.chosen(session.params):
        from lori_core.models import base_model

        folder = base_model.prepare(session.params.model)
        engine = vllm_engine.opened(folder, session.params.model.dtype)
        return lambda requests, what: engine.generate(session.tokenizer, requests, adapter, what)
    size = session.params.evaluation.batch_size
    return lambda requests, what: generate(model, session.tokenizer, requests, size, what)


def _by_judge(section: JudgeSection, judged: Sequence[Judged]) -> dict[str, Any]:
    """Return the scores of the judge model, if one is configured and the scorer is `refusal`."""
    if section.url is None or judged[0].prepared.example.scorer != "refusal":
        return {}
    from lori_core.evaluation.scoring import refusal_judge
    from lori_core.evaluation.scoring.judge_rubrics import NO_ANSWER, Mark

    examples = [item.prepared.example for item in judged]
    try:
        marks = refusal_judge.ask(
            [(item.prepared.example.prompt, item.outputs[0]) for item in judged],
            section.url,
            section.model,
            token=refusal_judge.token_from_environment(),
            timeout=section.timeout,
            workers=section.workers,
            rubric=section.rubric,
        )
    except refusal_judge.NoAnswerError as error:  # the classifier's verdicts remain valid
        print(f"lori: {error}", file=sys.stderr, flush=True)
        marks = [Mark(NO_ANSWER)] * len(examples)
    verdicts = [item.verdicts[0] for item in judged]
    return {"judge": refusal_judge.summarise(examples, marks, verdicts)}


def _run_protocol(
    session: LoadedModel, write: Generator, examples: list[Example], name: str, what: str
) -> list[Judged]:
    """Build the prompts, generate the outputs and judge them under one protocol."""
    protocol, section = PROTOCOLS[name], session.params.evaluation
    prepared = protocol.prepare(examples, session.params, session.tokenizer)
    outputs = write([item.request for item in prepared], what)
    texts = [[output.text for output in samples] for samples in outputs]
    return protocol.judge(prepared, texts, unsafe=section.unsafe_code)


def _rows(judged: Sequence[Judged], protocol: str) -> Iterator[dict[str, Any]]:
    counted = set(PROTOCOLS[protocol].counted([item.prepared.example for item in judged]))
    for place, item in enumerate(judged):
        example, prepared = item.prepared.example, item.prepared
        for number, (text, verdict) in enumerate(zip(item.outputs, item.verdicts, strict=True)):
            yield {
                "id": example.id,
                "sample": number,
                "kind": example.kind,
                "protocol": protocol,
                "counted": place in counted,
                "prompt": prepared.text,
                "cut": prepared.cut,
                "output": text,
                "answer": example.answer,
                **asdict(verdict),
            }


def _counts(judged: Sequence[Judged]) -> dict[str, Any]:
    return {
        "cut_prompts": sum(item.prepared.cut for item in judged),
        "empty_outputs": sum(not text.strip() for item in judged for text in item.outputs),
    }


def _by_likelihood(
    session: LoadedModel, model: Any, examples: list[Example], what: str, path: Path
) -> dict[str, Any]:
    """Score multiple choice by log-likelihood; write the choices' log-likelihoods as JSONL."""
    from lori_core.evaluation.scoring.scorers import share

    params = session.params
    chosen = likelihood.score(
        model,
        session.tokenizer,
        examples,
        params.prompt,
        params.evaluation.max_prompt_length,
        params.evaluation.batch_size,
        f"{what} likelihood",
    )
    write_jsonl(
        path.with_name(f"{path.name}.likelihood.jsonl"),
        (
            {"id": example.id, "kind": example.kind, "answer": example.answer, **asdict(choice)}
            for example, choice in zip(examples, chosen, strict=True)
        ),
    )
    kinds = sorted({example.kind for example in examples if example.kind})
    by_kind = {
        kind: share([c.correct for e, c in zip(examples, chosen, strict=True) if e.kind == kind])
        for kind in kinds
    }
    correct = share([choice.correct for choice in chosen])
    return {"metric": "accuracy", **correct, "kinds": by_kind}


def _by_harness(session: LoadedModel, model: Any, folder: Path) -> dict[str, dict[str, Any]]:
    """Run the lm-evaluation-harness tasks of the parameters; return results as `lm-eval/<task>`.

    The harness's warnings are printed on standard error and are the `notes` of each result.
    """
    section = session.params.evaluation
    if not section.harness.tasks:
        return {}
    from lori_core.evaluation.lm_eval import harness

    include_path = section.harness.include_path
    harness_result = harness.run(
        model,
        session.tokenizer,
        section.harness.tasks,
        include_path=None if include_path is None else Path(include_path),
        limit=section.harness.limit,
        batch_size=section.batch_size,
        seed=section.seed,
    )
    for note in harness_result.notes:
        print(f"lori: lm-eval: {note}", file=sys.stderr, flush=True)
    results = {}
    for name, task in harness_result.tasks.items():
        write_jsonl(folder / f"lm-eval.{name.replace('/', '-')}.jsonl", task.samples)
        scores = [asdict(score) for score in task.scores]
        first = {key: scores[0][key] for key in ("metric", "low", "high", "n", "share")}
        results[f"lm-eval/{name}"] = {
            **first,
            "score": scores[0]["value"],
            "harness": harness_result.harness,
            "version": task.version,
            "shots": task.shots,
            "scores": scores,
            "notes": list(harness_result.notes),
        }
    return results


def interval_text(result: Mapping[str, Any]) -> str:
    """Return `[low, high]` with three decimals, or an empty string if there is no interval."""
    if result["low"] is None:
        return ""
    return f"[{result['low']:.3f}, {result['high']:.3f}]"


def _say(row: str, task: str, result: Mapping[str, Any]) -> None:
    text = "no example counts"
    if result["score"] is not None:
        text = f"{result['score']:.3f} {interval_text(result)} of {result['n']}"
    print(f"{row} on {task}: {result['metric']} {text}", file=sys.stderr, flush=True)
