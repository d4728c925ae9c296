"""How models are scored."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from lori_core.config.validation import (
    Density,
    Few,
    Flag,
    PathText,
    PositiveFloat,
    PositiveInt,
    Seed,
    Size,
    Strict,
    Text,
    WebAddress,
)
from lori_core.registries.scorer import SCORERS


class HarnessSection(Strict):
    """Tasks of lm-evaluation-harness to run beside our own."""

    tasks: tuple[Text, ...] = ()
    include_path: PathText | None = None
    """A folder with own task files."""
    limit: PositiveInt | None = None
    """Only the first examples of each task."""


class JudgeSection(Strict):
    """A model that is asked whether an output refuses, beside our own judge, which decides."""

    url: WebAddress | None = None
    """An OpenAI-compatible endpoint, as in http://127.0.0.1:8000/v1; nobody is asked without one.
    Its token is read from `LORI_JUDGE_TOKEN`."""
    model: Text = "judge"
    rubric: Literal["refusal", "harmbench", "strongreject"] = "refusal"
    """What it is asked: whether the output refuses; HarmBench's question; StrongREJECT's."""
    timeout: Annotated[PositiveFloat, Field(le=86_400)] = 60.0
    """Seconds to wait for an answer."""
    workers: Few = 8
    """Questions asked at once."""


class EvaluationSection(Strict):
    """How models are scored on the test sets (METHOD: section 6)."""

    protocols: Annotated[tuple[Literal["fixed", "paper"], ...], Field(min_length=1)] = ("fixed",)
    """How prompts are put and outputs judged; the first gives the scores in the tables."""
    likelihood: Flag = False
    """Score multiple choice by log-likelihood, too."""
    samples: Few = 1
    """Outputs for each coding problem; more than one are sampled, for pass@k."""
    temperature: Annotated[PositiveFloat, Field(le=100)] = 0.2
    top_p: Density = 0.95
    seed: Seed = 0
    """Of what is sampled."""
    harness: HarnessSection = HarnessSection()
    judge: JudgeSection = JudgeSection()
    engine: Literal["auto", "transformers", "vllm"] = "auto"
    """What generates. vllm needs that package and a CUDA GPU; auto takes it where both are there
    and the base is neither quantised nor float32."""

    batch_size: Size = 32
    max_new_tokens: dict[Annotated[str, AfterValidator(SCORERS.check)], Size] = Field(
        default_factory=dict
    )
    """The most tokens to write for an example, by its scorer; others have the scorer's own."""
    max_prompt_length: Size = 512
    """Longer prompts lose their beginning, and are counted."""
    unsafe_code: Flag = False
    """Run generated code even where it cannot be isolated."""

    @property
    def new_tokens(self) -> dict[str, int]:
        """The most tokens to write for an example, by its scorer, for each there is."""
        return {n: self.max_new_tokens.get(n, s.max_new_tokens) for n, s in SCORERS.items()}
