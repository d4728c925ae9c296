"""The section `experiments` of `params.yaml`: the points of each experiment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from lori_core.config.validation import (
    Count,
    Density,
    Name,
    PathText,
    PositiveFloat,
    Rank,
    Seed,
    Share,
    Size,
    Some,
    Strict,
    Text,
    Unique,
)
from lori_core.core.errors import unknown
from lori_core.registries.mask import IMPORTANCES, MASK_SCOPES, STRUCTURES
from lori_core.registries.merge_method import MERGE_METHODS

#: All experiments, in the order of their page.
EXPERIMENTS = (
    "single-task", "merge-four", "merge-three", "continual", "calibration-steps", "sparsity-map",
    "granularity", "merge-weights", "sparsity-by-learning-rate", "property-1",
    "merge-weight-pareto", "importance", "structured", "safety-baselines", "frozen-a",
    "projections", "random-masks",
)  # fmt: skip

#: How `projections` draws A: from a key of each task, from one key of all, or each task's in the
#: null space of the other tasks' inputs.
WayOfA = Literal["own", "shared", "null-space"]

_Merge = Annotated[str, AfterValidator(MERGE_METHODS.check)]
#: The key of `learning_rates` for the methods without an own key.
DEFAULT = "default"


class ExperimentsSection(Strict):
    """The experiments' points; `lori experiment NAME` runs one experiment (docs/experiments.md)."""

    first_base: PathText | None = None
    """The base model before `lori experiment --base` named another: `NAME` or `NAME@REVISION`. Rows
    of other bases are written to folders of their own; null if `--base` was never used."""
    seeds: Some[Seed] = (1, 2, 3)
    """Seeds of A and of the order of examples; every point is run with each."""
    methods: Unique[Text] = ()
    """The methods that `single-task` compares: names of `lori methods`; all if empty."""
    options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Options by method."""
    learning_rates: dict[str, Unique[PositiveFloat]] = Field(default_factory=dict)
    """By method, the learning rates to try with the first seed; the one with the smallest
    validation loss is used. `default` is for the methods without an own key; without it they use
    the task's learning rate."""
    tasks: tuple[Name, ...] = ()
    """The tasks to train on; all if empty."""
    compared_tasks: tuple[Name, ...] = ()
    """The tasks of `single-task`, which trains every method; those of `tasks` if empty."""
    ablation_tasks: tuple[Name, ...] = ()
    """The tasks of the ablations; those of `tasks` if empty."""
    three: tuple[Name, ...] = ()
    """The tasks of `merge-three`; all but the safety task if empty."""
    scored: tuple[Name, ...] | None = None
    """The tasks whose test outputs are generated and scored; null for all. Losses are measured on
    every task."""
    merged_methods: Some[Text] = ("lora", "lori-d", "lori-s")
    """The methods whose adapters are merged, and used in `continual`."""
    merges: Some[_Merge] = (
        "concat",
        "linear",
        "magnitude_prune",
        "ties",
        "dare_linear",
    )
    densities: dict[_Merge, Density] = Field(
        default_factory=lambda: {"magnitude_prune": 0.3, "ties": 0.7, "dare_linear": 0.7}
    )
    weights_of_four: dict[str, PositiveFloat] = Field(
        default_factory=lambda: {"lora": 0.4, "lori-d": 0.4, "lori-s": 0.3}
    )
    """By method, the weight of each adapter in `merge-four`."""
    weights_of_three: dict[str, PositiveFloat] = Field(
        default_factory=lambda: {"lora": 0.5, "lori-d": 0.5, "lori-s": 0.4}
    )
    merge_weights: Some[PositiveFloat] = (0.2, 0.3, 0.4)
    """The uniform weights that `merge-weights` tries."""
    safety_weights: Some[PositiveFloat] = (
        0.2,
        0.4,
        0.6,
        0.8,
        1.0,
    )
    """The safety adapter's weights that `merge-weight-pareto` tries; the other adapters have the
    weight of `lori-s` in `weights_of_four`."""
    safety_merge_weight: Annotated[PositiveFloat, Field(lt=1)] = 0.5
    """The weight of the safety adapter in the merges of `safety-baselines`; the task's adapter has
    one minus this weight."""
    calibration_steps: Some[Count] = (0, 10, 30, 100)
    """0 stands for a random mask."""
    scopes: Some[Annotated[str, AfterValidator(MASK_SCOPES.check)]] = (
        "model",
        "module",
        "projection",
        "layer",
        "matrix",
    )
    importances: Some[Annotated[str, AfterValidator(IMPORTANCES.check)]] = (
        "magnitude", "fisher", "snip", "random",
    )  # fmt: skip
    structures: Some[Annotated[str, AfterValidator(STRUCTURES.check)]] = (
        "none", "row", "block", "group",
    )  # fmt: skip
    sparsities: Some[Share] = (0.5, 0.9, 0.99)
    sweep_learning_rates: Some[PositiveFloat] = (
        5e-5,
        5e-4,
        5e-3,
    )
    """The learning rates that `sparsity-by-learning-rate` combines with `sparsities`."""
    input_dimensions: Some[Size] = (64, 256, 1024, 4096)
    """The values of d_in for which `property-1` draws A."""
    ranks: Some[Rank] = (8, 32, 64)
    candidate_rates: Some[PositiveFloat] = (1e-3, 3e-3, 1e-2)
    """The learning rates that `frozen-a`, `projections` and `random-masks` try for each of their
    conditions with the first seed; the one with the smallest validation loss is used."""
    frozen_a_ranks: Some[Annotated[int, Field(strict=True, gt=0, le=64)]] = (1, 2)
    """The multiples of `lori.rank` at which `frozen-a` trains the methods that freeze A. At twice
    its rank such a method trains about as many values as LoRA. LoRA itself has `lori.rank`."""
    projections: Some[WayOfA] = ("own", "shared", "null-space")
    """How `projections` draws A."""
    projection_weight: PositiveFloat = 0.4
    """The weight of each adapter in the merges of `projections`."""
    avoided_examples: Size = 64
    """For A in a null space, the number of training examples of each other task whose inputs are
    measured."""

    @model_validator(mode="after")
    def _same_number_of_tries(self) -> ExperimentsSection:
        counts = {name: len(rates) for name, rates in self.learning_rates.items()}
        if len(set(counts.values())) > 1:
            raise ValueError(
                f"experiments.learning_rates: {counts}; give every method the same number of tries"
            )
        if set(counts.values()) - {0, 1} and DEFAULT not in counts:
            raise ValueError(
                "experiments.learning_rates.default: needed where several rates are tried, so that "
                "the methods not named get the same number of tries"
            )
        if 0 in counts.values():
            raise ValueError("experiments.learning_rates: a list is empty; leave the method out")
        for merge in self.merges:
            if MERGE_METHODS[merge].starts:
                raise ValueError(
                    f"experiments.merges: {merge} merges continual adapters; the experiments merge "
                    "single-task adapters"
                )
            if MERGE_METHODS[merge].needs_density and merge not in self.densities:
                raise ValueError(f"experiments.densities: {merge} needs one, as in {merge}: 0.7")
        for name in self.merged_methods:
            for field in ("weights_of_four", "weights_of_three"):
                weights = getattr(self, field)
                if name not in weights:
                    raise ValueError(f"experiments.{field}: {unknown('method', name, weights)}")
        return self

    def named_methods(self) -> Iterator[tuple[str, str]]:
        """Yield the methods that the fields name, each with its field."""
        weights = ("weights_of_four", "weights_of_three")
        for field in ("options", "methods", "merged_methods", "learning_rates", *weights):
            for name in getattr(self, field):
                if name != DEFAULT:
                    keyed = isinstance(getattr(self, field), dict)
                    yield f"experiments.{field}{f'.{name}' if keyed else ''}", name
