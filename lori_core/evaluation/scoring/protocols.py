"""The two ways of putting prompts and judging outputs (METHOD, section 6).

`fixed` is sound: one template in training and test, every example once, the output alone is
judged. `paper` is how the paper's numbers were made, quirks and all. What `paper` would say of the
outputs written under `fixed` stands beside them, where it can be told.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from lori_core.config import EvaluationSection, Params
from lori_core.data.example import Example
from lori_core.data.prompts import encode_prompt, render, text_ids
from lori_core.evaluation.attacks import PREFILL
from lori_core.evaluation.inference.generation import GREEDY, Request, Sampling
from lori_core.evaluation.sandbox.sandbox import Program
from lori_core.evaluation.scoring import paper_scorers, scorers, verdict_shares
from lori_core.evaluation.scoring.scorers import Verdict


@dataclass(frozen=True)
class Prepared:
    """An example ready to be put to the model: the prompt's text, its tokens, what to write."""

    example: Example
    text: str
    cut: bool
    request: Request


@dataclass(frozen=True)
class Judged:
    """An example with the model's outputs, and a verdict on each."""

    prepared: Prepared
    outputs: list[str]
    verdicts: list[Verdict]


@dataclass(frozen=True)
class Protocol:
    """How a test set is put to a model and judged.

    Attributes:
        prepare: examples, parameters and tokenizer -> what to put to the model.
        score: an example, the prompt's text and an output -> a verdict, or a program to run.
        summarise: the judged examples -> the score, as `scorers.summarise` gives it.
        counted: the examples -> the positions of those that the score is about.
    """

    prepare: Callable[[Sequence[Example], Params, Any], list[Prepared]]
    score: scorers.Score
    summarise: Callable[[Sequence[Judged]], dict[str, Any]]
    counted: Callable[[Sequence[Example]], Collection[int]]

    def judge(
        self, prepared: Sequence[Prepared], outputs: Sequence[list[str]], *, unsafe: bool
    ) -> list[Judged]:
        """Judge all outputs; programs run side by side in the sandbox."""
        flat = [
            (item.example, item.text, text)
            for item, texts in zip(prepared, outputs, strict=True)
            for text in texts
        ]
        verdicts = iter(scorers.score_all(flat, self.score, unsafe=unsafe))
        return [
            Judged(item, texts, [next(verdicts) for _ in texts])
            for item, texts in zip(prepared, outputs, strict=True)
        ]


def _prepare_fixed(examples: Sequence[Example], params: Params, tokenizer: Any) -> list[Prepared]:
    section = params.evaluation
    found = []
    for example in examples:
        begun = example.check.get(PREFILL, "") if example.scorer == "refusal" else ""
        begun_ids = text_ids(begun, tokenizer) if begun else []
        most = section.max_prompt_length - len(begun_ids)
        ids, cut = encode_prompt(example.prompt, params.prompt, tokenizer, most)
        text = _read(ids, tokenizer) if cut else render(example.prompt, params.prompt, tokenizer)
        ids, text = ids + begun_ids, text + begun
        limit = section.new_tokens[example.scorer]
        found.append(Prepared(example, text, cut, _request(example, ids, limit, section)))
    return found


def _prepare_paper(examples: Sequence[Example], params: Params, tokenizer: Any) -> list[Prepared]:
    found = []
    for example in examples:
        ids, cut = paper_scorers.encode_paper_prompt(example, tokenizer)
        text = _read(ids, tokenizer) if cut else paper_scorers.paper_prompt(example)
        limit = paper_scorers.new_tokens(example, len(ids))
        found.append(Prepared(example, text, cut, _request(example, ids, limit, params.evaluation)))
    return found


def _read(ids: list[int], tokenizer: Any) -> str:
    """Return the text of a cut prompt, as the model reads it."""
    text: str = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    return text


def _request(example: Example, ids: list[int], limit: int, section: EvaluationSection) -> Request:
    samples = section.samples if example.scorer == "code" else 1
    sampling = Sampling(section.temperature, section.top_p, section.seed)
    return Request(ids, limit, samples, sampling if samples > 1 else GREEDY)


def _score_fixed(example: Example, _: str, output: str) -> Verdict | Program:
    return scorers.score(example, output)


def _summarise_fixed(judged: Sequence[Judged]) -> dict[str, Any]:
    """Summarise, and say beside it what the paper's scoring makes of the same outputs."""
    examples = [item.prepared.example for item in judged]
    if any(len(item.verdicts) > 1 for item in judged):
        return scorers.summarise_samples(examples, [item.verdicts for item in judged])
    firsts = [item.verdicts[0] for item in judged]
    summary = scorers.summarise(examples, firsts)
    if examples[0].scorer == "refusal":
        summary |= verdict_shares.summarise(examples, firsts)
    if examples[0].scorer not in paper_scorers.SHARES_GENERATIONS:
        return summary
    verdicts = [
        paper_scorers.score_paper(example, paper_scorers.paper_prompt(example), item.outputs[0])
        for example, item in zip(examples, judged, strict=True)
    ]
    judged_so = paper_scorers.summarise_paper(
        examples, [v for v in verdicts if isinstance(v, Verdict)]
    )
    kept = {key: judged_so[key] for key in ("score", "low", "high", "n")}
    return summary | {"paper_scoring": kept}


def _summarise_paper(judged: Sequence[Judged]) -> dict[str, Any]:
    pairs = [(item.prepared.example, verdict) for item in judged for verdict in item.verdicts]
    return paper_scorers.summarise_paper([e for e, _ in pairs], [v for _, v in pairs])


PROTOCOLS: dict[str, Protocol] = {
    "fixed": Protocol(_prepare_fixed, _score_fixed, _summarise_fixed, lambda e: range(len(e))),
    "paper": Protocol(
        _prepare_paper, paper_scorers.score_paper, _summarise_paper, paper_scorers.counted
    ),
}
