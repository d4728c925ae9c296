"""Scoring models on the test sets: generations, verdicts, and numbers with intervals."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lori_core import adapter as adapters
from lori_core.adapter import Adapter
from lori_core.data.sources import read_examples
from lori_core.evaluation import scorers
from lori_core.evaluation.generation import generate
from lori_core.files import write_jsonl
from lori_core.session import Session


@contextmanager
def wearing(session: Session, adapter: Adapter | None) -> Iterator[Any]:
    """Yield the base model with an adapter on it (or none), and take it off afterwards."""
    if adapter is None:
        yield session.model
        return
    adapters.check_base(adapter, session.base, str(adapter.info.get("stage", "adapter")))
    model = adapters.attach(
        session.model, adapter.modules, adapter.A, adapter.rank, adapter.lora_alpha
    )
    adapters.load_weights(model, adapter)
    try:
        yield model.eval()
    finally:
        model.unload()


def evaluate(
    session: Session, adapter: Adapter | None, tasks: Iterable[str], row: str, folder: Path
) -> dict[str, Any]:
    """Score one model on the test sets of some tasks.

    Every prompt, generation, parsed answer and verdict is kept in `folder/<row>/<task>.jsonl`.

    Args:
        session: the loaded base.
        adapter: what the base wears; None for the base itself.
        tasks: whose test sets.
        row: the model's name in tables.
        folder: where the generations go.

    Returns:
        By task: metric, score, low, high (95 %), n, the same for each kind of example, and how
        many prompts were cut.
    """
    results = {}
    section = session.params.evaluation
    with wearing(session, adapter) as model:
        for task in tasks:
            examples = [e for e in read_examples(task, "test") if e.scorer != "none"]
            if not examples:
                continue
            written = generate(
                model, session.tokenizer, examples, session.params.prompt, section, f"{row} {task}"
            )
            texts = [generation.text for generation in written]
            verdicts = scorers.score_batch(examples, texts, unsafe=section.unsafe_code)
            write_jsonl(
                folder / row / f"{task}.jsonl",
                (
                    {
                        "id": example.id,
                        "kind": example.kind,
                        "prompt": example.prompt,
                        "output": generation.text,
                        "answer": example.answer,
                        **asdict(verdict),
                    }
                    for example, generation, verdict in zip(
                        examples, written, verdicts, strict=True
                    )
                ),
            )
            summary = scorers.summarise(examples, verdicts)
            results[task] = {**summary, "cut_prompts": sum(g.cut for g in written)}
            print(
                f"{row} on {task}: {summary['metric']} {summary['score']:.3f} "
                f"[{summary['low']:.3f}, {summary['high']:.3f}] of {summary['n']}",
                file=sys.stderr,
                flush=True,
            )
    return results
