"""The section `evaluation` of `params.yaml`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from lori_core.config.validation import (
    ITEM_PATTERN,
    Density,
    Few,
    Flag,
    PathText,
    PositiveFloat,
    PositiveInt,
    Seed,
    Size,
    Some,
    Strict,
    Text,
    Unique,
    WebAddress,
)
from lori_core.registries.scorer import SCORERS


class HarnessSection(Strict):
    """Tasks of lm-evaluation-harness to run besides the project's own."""

    tasks: Unique[Text] = ()
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


#: The set-up that `prompt.system` and greedy decoding define; it gives the scores in the tables.
DEFAULT_SETUP = "default"


def _setup_name(name: str) -> str:
    if name == DEFAULT_SETUP:
        raise ValueError(
            f"{name!r} is the set-up with greedy decoding and prompt.system; choose another name"
        )
    return name


SetupName = Annotated[
    str, Field(pattern=rf"^{ITEM_PATTERN}$", max_length=50), AfterValidator(_setup_name)
]


class SetupSection(Strict):
    """A further set-up in which safety sets are scored: decoding, system turn, attack."""

    temperature: Annotated[float, Field(strict=True, ge=0, le=100)] = 0.0
    """0 for greedy decoding; otherwise outputs are sampled."""
    top_p: Density = 1.0
    seed: Seed | None = None
    """The seed of sampling; null uses `evaluation.seed`."""
    system: str | None = None
    """The system turn; null uses `prompt.system`, an empty text sends none."""
    attack: Literal["prefill", "role-play", "ignore", "base64"] | None = None
    """An attack on the harmful requests (docs/evaluation.md); harmless ones are left out."""

    @model_validator(mode="after")
    def _sampling_settings_have_an_effect(self) -> SetupSection:
        if self.temperature == 0 and (self.seed is not None or self.top_p != 1):
            name = "top_p" if self.seed is None else "seed"
            raise ValueError(
                f"{name}: {getattr(self, name)} has no effect on greedy decoding; set a "
                "temperature above 0, or remove it"
            )
        return self

    def resolved(self, system: str | None, seed: int) -> dict[str, Any]:
        """Return all settings as values for JSON, which identify the set-up's results.

        Args:
            system: `prompt.system`.
            seed: `evaluation.seed`.
        """
        sampled = self.temperature > 0
        return {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": (seed if self.seed is None else self.seed) if sampled else None,
            "system": system if self.system is None else self.system,
            "attack": self.attack,
        }


class EvaluationSection(Strict):
    """How models are scored on the test sets."""

    protocols: Some[Literal["fixed", "paper"]] = ("fixed",)
    """How prompts are formatted and outputs scored; the first gives the scores in the tables."""
    likelihood: Flag = False
    """Whether to score multiple choice also by log-likelihood."""
    samples: Few = 1
    """Outputs per coding problem; more than one are sampled, for pass@k."""
    temperature: Annotated[PositiveFloat, Field(le=100)] = 0.2
    top_p: Density = 0.95
    seed: Seed = 0
    """The seed of sampling."""
    setups: dict[SetupName, SetupSection] = Field(default_factory=dict)
    """Further set-ups in which safety sets are scored, each with rates and intervals of its own."""
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

    @model_serializer(mode="wrap")
    def _without_empty_setups(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave `setups` out if empty: digests of settings from before this key stay valid."""
        values: dict[str, Any] = dump(self)
        if not values.get("setups"):
            values.pop("setups", None)
        return values

    @model_validator(mode="after")
    def _setups_use_the_protocol_fixed(self) -> EvaluationSection:
        if self.setups and self.protocols[0] != "fixed":
            raise ValueError(
                "setups: scored under the protocol fixed, but protocols begins with "
                f"{self.protocols[0]}; name fixed first, or remove the set-ups"
            )
        return self

    @property
    def new_tokens(self) -> dict[str, int]:
        """The most tokens to generate for an example, for every scorer."""
        return {n: self.max_new_tokens.get(n, s.max_new_tokens) for n, s in SCORERS.items()}
