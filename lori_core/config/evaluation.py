"""The section `evaluation` of `params.yaml`."""

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
    """Tasks of lm-evaluation-harness to run besides the project's own."""

    tasks: tuple[Text, ...] = ()
    include_path: PathText | None = None
    """A folder with additional task files."""
    limit: PositiveInt | None = None
    """Only the first examples of each task."""


class JudgeSection(Strict):
    """An LLM judge of refusals, besides the built-in judge, which decides the scores."""

    url: WebAddress | None = None
    """An OpenAI-compatible endpoint, as http://127.0.0.1:8000/v1; null for no LLM judge. Its token
    is read from `LORI_JUDGE_TOKEN`."""
    model: Text = "judge"
    rubric: Literal["refusal", "harmbench", "strongreject"] = "refusal"
    """The judge's prompt: whether the output refuses, HarmBench's, or StrongREJECT's."""
    timeout: Annotated[PositiveFloat, Field(le=86_400)] = 60.0
    """Seconds to wait for an answer."""
    workers: Few = 8
    """Concurrent requests."""


class EvaluationSection(Strict):
    """How models are scored on the test sets."""

    protocols: Annotated[tuple[Literal["fixed", "paper"], ...], Field(min_length=1)] = ("fixed",)
    """How prompts are formatted and outputs scored; the first gives the scores in the tables."""
    likelihood: Flag = False
    """Whether to score multiple choice also by log-likelihood."""
    samples: Few = 1
    """Outputs per coding problem; more than one are sampled, for pass@k."""
    temperature: Annotated[PositiveFloat, Field(le=100)] = 0.2
    top_p: Density = 0.95
    seed: Seed = 0
    """The seed of sampling."""
    harness: HarnessSection = HarnessSection()
    judge: JudgeSection = JudgeSection()
    engine: Literal["auto", "transformers", "vllm"] = "auto"
    """The generation engine. vllm needs that package and a CUDA GPU; auto uses it if both are
    available and the base is neither quantised nor float32."""

    batch_size: Size = 32
    max_new_tokens: dict[Annotated[str, AfterValidator(SCORERS.check)], Size] = Field(
        default_factory=dict
    )
    """The most tokens to generate for an example, by scorer; the default is the scorer's own."""
    max_prompt_length: Size = 512
    """The most tokens of a prompt; longer ones lose their beginning, and are counted."""
    unsafe_code: Flag = False
    """Whether to run generated code even if it cannot be isolated."""

    @property
    def new_tokens(self) -> dict[str, int]:
        """The most tokens to generate for an example, for every scorer."""
        return {n: self.max_new_tokens.get(n, s.max_new_tokens) for n, s in SCORERS.items()}
