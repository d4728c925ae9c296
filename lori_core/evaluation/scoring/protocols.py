"""The two protocols of prompts and scoring, `fixed` and `paper` (paper, section 3.1).

`fixed` uses one template in training and test, counts each example once and judges the output
alone. `paper` reproduces the evaluation of the paper with its quirks. Results under `fixed` also
have the score of the same outputs by the paper's scoring, where the scorer allows this.
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
    """An example with its prompt.

    Attributes:
        example: the example.
        text: the prompt as the model reads it.
        cut: whether the prompt was truncated.
        request: the prompt's token ids, and how many tokens and outputs to generate.
    """

    example: Example
    text: str
    cut: bool
    request: Request


@dataclass(frozen=True)
class Judged:
    """An example with the model's outputs and the verdict on each."""

    prepared: Prepared
    outputs: list[str]
    verdicts: list[Verdict]


@dataclass(frozen=True)
class Protocol:
    """The functions that build a test set's prompts and judge the outputs.

    Attributes:
        prepare: returns the prompts of examples, given parameters and tokenizer.
        score: returns the verdict on an output (or a program to run), given example and prompt.
        summarise: returns the score of judged examples, in the form of `scorers.summarise`.
        counted: returns the positions of the examples that count for the score.
    """

    prepare: Callable[[Sequence[Example], Params, Any], list[Prepared]]
    score: scorers.Score
    summarise: Callable[[Sequence[Judged]], dict[str, Any]]
    counted: Callable[[Sequence[Example]], Collection[int]]

    def judge(
        self, prepared: Sequence[Prepared], outputs: Sequence[list[str]], *, unsafe: bool
    ) -> list[Judged]:
        """Return all outputs with their verdicts; programs run in parallel in the sandbox."""
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
    prepared = []
    for example in examples:
        prefill = example.check.get(PREFILL, "") if example.scorer == "refusal" else ""
        prefill_ids = text_ids(prefill, tokenizer) if prefill else []
        most = section.max_prompt_length - len(prefill_ids)
        ids, cut = encode_prompt(example.prompt, params.prompt, tokenizer, most)
        text = _decoded(ids, tokenizer) if cut else render(example.prompt, params.prompt, tokenizer)
        ids, text = ids + prefill_ids, text + prefill
        limit = section.new_tokens[example.scorer]
        prepared.append(Prepared(example, text, cut, _request(example, ids, limit, section)))
    return prepared


def _prepare_paper(examples: Sequence[Example], params: Params, tokenizer: Any) -> list[Prepared]:
    section = params.evaluation
    prepared = []
    for example in examples:
        ids, cut = paper_scorers.encode_paper_prompt(example, tokenizer)
        text = _decoded(ids, tokenizer) if cut else paper_scorers.paper_prompt(example)
        limit = paper_scorers.new_tokens(example, len(ids))
        prepared.append(Prepared(example, text, cut, _request(example, ids, limit, section)))
    return prepared


def _decoded(ids: list[int], tokenizer: Any) -> str:
    """Return the text of a truncated prompt, as the model reads it."""
    text: str = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    return text


def _request(example: Example, ids: list[int], limit: int, section: EvaluationSection) -> Request:
    samples = section.samples if example.scorer == "code" else 1
    sampling = Sampling(section.temperature, section.top_p, section.seed)
    return Request(ids, limit, samples, sampling if samples > 1 else GREEDY)


def _score_fixed(example: Example, _: str, output: str) -> Verdict | Program:
    return scorers.score(example, output)


def _summarise_fixed(judged: Sequence[Judged]) -> dict[str, Any]:
    """Return the score, with the paper's scoring of the same outputs as `paper_scoring`."""
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
    paper = paper_scorers.summarise_paper(examples, [v for v in verdicts if isinstance(v, Verdict)])
    return summary | {"paper_scoring": {key: paper[key] for key in ("score", "low", "high", "n")}}


def _summarise_paper(judged: Sequence[Judged]) -> dict[str, Any]:
    pairs = [(item.prepared.example, verdict) for item in judged for verdict in item.verdicts]
    return paper_scorers.summarise_paper([e for e, _ in pairs], [v for _, v in pairs])


PROTOCOLS: dict[str, Protocol] = {
    "fixed": Protocol(_prepare_fixed, _score_fixed, _summarise_fixed, lambda e: range(len(e))),
    "paper": Protocol(
        _prepare_paper, paper_scorers.score_paper, _summarise_paper, paper_scorers.counted
    ),
}
