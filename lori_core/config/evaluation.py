"""How models are scored."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lori_core.validation import PositiveInt, Strict


class NewTokens(Strict):
    """The most tokens to write for an example, by its scorer."""

    choice: PositiveInt = 12
    number: PositiveInt = 256
    code: PositiveInt = 512
    refusal: PositiveInt = 64


class HarnessSection(Strict):
    """Tasks of lm-evaluation-harness to run beside our own."""

    tasks: tuple[str, ...] = ()
    include_path: str | None = None
    """A folder with own task files."""
    limit: PositiveInt | None = None
    """Only the first examples of each task."""


class JudgeSection(Strict):
    """A model that is asked whether an output refuses, beside the rule that decides."""

    url: str | None = None
    """An OpenAI-compatible endpoint, as in http://127.0.0.1:8000/v1; nobody is asked without one.
    Its token is read from `LORI_JUDGE_TOKEN`."""
    model: str = "judge"
    timeout: Annotated[float, Field(gt=0)] = 60.0
    """Seconds to wait for an answer."""
    workers: PositiveInt = 8
    """Questions asked at once."""


class EvaluationSection(Strict):
    """How models are scored on the test sets (METHOD: section 6)."""

    protocols: Annotated[tuple[Literal["fixed", "paper"], ...], Field(min_length=1)] = ("fixed",)
    """How prompts are put and outputs judged; the first gives the scores in the tables."""
    likelihood: bool = False
    """Score multiple choice by log-likelihood, too."""
    samples: PositiveInt = 1
    """Outputs for each coding problem; more than one are sampled, for pass@k."""
    temperature: Annotated[float, Field(gt=0)] = 0.2
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    seed: Annotated[int, Field(ge=0)] = 0
    """Of what is sampled."""
    harness: HarnessSection = HarnessSection()
    judge: JudgeSection = JudgeSection()
    engine: Literal["auto", "transformers", "vllm"] = "auto"
    """What generates. vllm needs that package and a CUDA GPU; auto takes it where both are there
    and the base is neither quantised nor float32."""

    batch_size: PositiveInt = 32
    max_new_tokens: NewTokens = NewTokens()
    max_prompt_length: PositiveInt = 512
    """Longer prompts lose their beginning, and are counted."""
    unsafe_code: bool = False
    """Run generated code even where it cannot be isolated."""
