"""The specification of each experiment: its factors, measures and place in the paper.

An experiment's file holds rows in long form, one measured number each; `rows` reads them and checks
them against these specifications.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from lori_core.adapters.masks import importances, mask_choices
from lori_core.evaluation.scoring.scorers import SCORERS
from lori_core.merging.catalogue import MERGE_METHODS
from lori_core.methods import catalogue
from lori_core.methods.training_method import REGISTERED
from studies.analysis.items import LIKELIHOOD

#: The labels of training methods by name, with extensions; the base model comes first.
METHODS = REGISTERED.labels({"base": "Base"})
#: The labels of merge methods by name; adapters without a merge come first.
MERGES = MERGE_METHODS.labels({"single-task": "Single-Task"})
SCOPES = mask_choices.SCOPES.labels()
IMPORTANCES = importances.KINDS.labels()
STRUCTURES = mask_choices.KINDS.labels()
SOURCES = {"drawn": "drawn", "trained": "trained"}
KEEPING = {
    "base": "base model",
    "task-alone": "task alone",
    "safety-alone": "safety alone",
    "mix": "mixed data",
    "merge": "uniform merge",
    "safemerge": "SafeMERGE",
    "continual": "two phases",
    "ewc": "EWC penalty",
    "orthogonal": "orthogonal",
    "olora": "O-LoRA",
    "slao": "SLAO",
}
WAYS_OF_A = {
    "own": "random, one for each task",
    "shared": "random, one for all tasks",
    "null-space": "in the null space of the other tasks",
}
MASKS = {
    "magnitude": "magnitude mask",
    "random": "random mask",
    "low-rank": "no mask, low rank",
    "none": "no mask, full rank",
}
TASKS = ("nlu", "math", "code", "safety")
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
FEED_FORWARD = PROJECTIONS[4:]
ATTENTION = PROJECTIONS[:4]
#: The methods that the paper merges and uses in continual learning.
LORI = ("lora", "lori-d", "lori-s")


@dataclass(frozen=True)
class Metric:
    """How a measured number is named, formatted and judged.

    Attributes:
        label: the label for people.
        kind: `share` is shown in percent, `loss` in nats, `count` and `plain` as they are.
        better: 1 if more is better, -1 if less is better, else 0.
    """

    label: str
    kind: Literal["share", "loss", "count", "plain"]
    better: int = 0


METRICS = {
    **{scorer.metric: Metric(scorer.label, "share", 1) for scorer in SCORERS.values()},
    LIKELIHOOD: Metric("accuracy by log-likelihood", "share", 1),
    "over_refusal": Metric("over-refusal", "share", -1),
    "pass_at_5": Metric("pass@5", "share", 1),
    "pass_at_10": Metric("pass@10", "share", 1),
    "loss": Metric("held-out loss", "loss", -1),
    "kept": Metric("kept share of B", "share"),
    "mean_abs_cosine": Metric("mean |cos|", "plain"),
    "max_abs_cosine": Metric("largest |cos|", "plain"),
    "bound": Metric("bound of Property 1", "plain"),
    "trainable_parameters": Metric("trainable parameters", "count"),
    "trainable_share": Metric("trainable share", "share"),
    "state_bytes": Metric("state memory", "count"),
    "artifact_bytes": Metric("artifact size", "count"),
    "learning_rate": Metric("learning rate", "plain"),
}
#: The metrics of tasks' scores, best known first; a task has one of them.
SCORES = tuple(scorer.metric for scorer in SCORERS.values())
#: The metrics that are shown for a task, in this order.
MEASURES = (*SCORES, LIKELIHOOD, "over_refusal", "loss")


@dataclass(frozen=True)
class Factor:
    """A factor that an experiment varies.

    Attributes:
        label: the label for people.
        names: its allowed levels with their labels, in order; empty for numbers.
        optional: whether it may be null or absent in a row.
        expected: the levels that should have been run; a missing one is a gap.
    """

    label: str
    names: Mapping[str, str] = field(default_factory=dict)
    optional: bool = False
    expected: tuple[str, ...] = ()


@dataclass(frozen=True)
class Spec:
    """One experiment.

    Attributes:
        title: its heading.
        about: what it varies and measures, in a sentence.
        factors: its factors by name.
        sweep: the factors of which all combinations should have been run.
        tables: the numbers of the paper's tables that it repeats.
        figures: the numbers of the paper's figures that it repeats.
        reading: how to read its figure.
        required: the metrics that its figure needs.
    """

    title: str
    about: str
    factors: Mapping[str, Factor]
    sweep: tuple[str, ...]
    tables: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()
    reading: str = ""
    required: tuple[str, ...] = ()


_DOTS = (
    "Above ours with 95 % intervals, below the paper's numbers on Llama-3-8B, each on their own "
    "axes: on another base and other test sets only the order can be compared."
)
_MERGE = {
    "method": Factor("adaptation", METHODS, expected=LORI),
    "merge": Factor("merging", MERGES),
    "weight": Factor("weight", optional=True),
    "density": Factor("density", optional=True),
}
SPECS: dict[str, Spec] = {
    "single-task": Spec(
        "Single task",
        "Each method trains one adapter for each task; each is scored on its own task's test set.",
        {"method": Factor("method", METHODS, expected=("base", *catalogue.BUILT_IN))},
        ("method",),
        ("1", "2", "11", "12", "13", "14"),
        reading=_DOTS,
    ),
    "merge-four": Spec(
        "Merging four adapters",
        "The adapters of four tasks are merged into one, which is scored on every task.",
        _MERGE,
        ("method", "merge"),
        ("3", "15", "16", "17", "20", "21"),
        reading=_DOTS,
    ),
    "merge-three": Spec(
        "Merging three adapters",
        "The adapters of NLU, math and code are merged into one, which is scored on each.",
        _MERGE,
        ("method", "merge"),
        ("18", "19", "22"),
        reading=_DOTS,
    ),
    "continual": Spec(
        "Continual learning",
        "A safety adapter goes on to learn a task: how much safety is left, and how well the task "
        "is learned.",
        {
            "method": Factor("method", METHODS, expected=LORI),
            "learned": Factor("task learned after safety"),
        },
        ("method", "learned"),
        figures=("3",),
        reading="One group of bars for each task learned after safety; 'safety alone' is the "
        "adapter before. Refusals of harmful requests should stay high, refusals of harmless "
        "look-alikes (over-refusal) low.",
    ),
    "calibration-steps": Spec(
        "Calibration steps",
        "The LoRI-S mask is taken after different numbers of calibration steps; 0 is a random "
        "mask of the same size.",
        {"calibration_steps": Factor("calibration steps")},
        ("calibration_steps",),
        figures=("4a",),
        reading="Each point is a LoRI-S adapter trained in a mask of that many calibration steps; "
        "the axis is by rank, not to scale.",
    ),
    "sparsity-map": Spec(
        "Where the masks keep B",
        "The share of each matrix that a model-wise mask keeps, by layer and projection.",
        {
            "sparsity": Factor("sparsity", optional=True),
            "layer": Factor("layer", optional=True),
            "projection": Factor("projection", optional=True),
        },
        ("layer", "projection"),
        figures=("4b", "6"),
        reading="Brighter keeps more; the paper plots sparsity, which is 100 % less this.",
        required=("kept",),
    ),
    "granularity": Spec(
        "Mask granularity",
        "The top tenth of B is taken within the whole model, or within ever smaller scopes.",
        {"scope": Factor("scope", SCOPES, expected=tuple(SCOPES))},
        ("scope",),
        figures=("4c",),
        reading="From the coarsest scope on the left to the finest on the right.",
    ),
    "merge-weights": Spec(
        "Merging weights",
        "The same adapters are merged with different uniform weights.",
        {
            "method": Factor("adaptation", METHODS),
            "weight": Factor("weight"),
            "merge": Factor("merging", MERGES, optional=True),
        },
        ("method", "weight"),
        figures=("4d", "7"),
        reading="One line for each kind of adapter, one panel for each task.",
    ),
    "sparsity-by-learning-rate": Spec(
        "Sparsity by learning rate",
        "LoRI is trained at each sparsity with each learning rate.",
        {"sparsity": Factor("sparsity"), "learning_rate": Factor("learning rate")},
        ("sparsity", "learning_rate"),
        figures=("5",),
        reading="The best learning rate of each sparsity is framed.",
    ),
    "property-1": Spec(
        "Property 1: near-orthogonal updates",
        "The cosine between the updates of two tasks, against the input width and the rank.",
        {
            "d_in": Factor("d_in"),
            "rank": Factor("rank"),
            "source": Factor("B", SOURCES),
        },
        ("d_in", "rank", "source"),
        reading="Both axes are logarithmic. The dotted line falls like one over the square root of "
        "d_in; grey lines are the bound of Property 1.",
        required=("mean_abs_cosine",),
    ),
    "merge-weight-pareto": Spec(
        "Safety against task score",
        "The weight of the safety adapter in a merge is varied; the other adapters keep theirs.",
        {
            "safety_weight": Factor("weight of safety"),
            "task_weight": Factor("weight of the tasks"),
        },
        ("safety_weight", "task_weight"),
        reading="The line joins the merges that no other one beats on both axes; labels are "
        "the weights, safety / tasks.",
    ),
    "importance": Spec(
        "Importance scores",
        "The mask keeps the top of B by magnitude, Fisher information or SNIP.",
        {"importance": Factor("importance", IMPORTANCES, expected=("magnitude", "fisher", "snip"))},
        ("importance",),
        reading="The same number of entries is kept by each score.",
    ),
    "structured": Spec(
        "Structured masks",
        "Masks of whole rows, blocks or groups, beside the unstructured one of the same budget.",
        {"structure": Factor("structure", STRUCTURES, expected=tuple(STRUCTURES))},
        ("structure",),
        reading="The same number of entries is kept by each mask.",
    ),
    "safety-baselines": Spec(
        "Ways to keep safety",
        "A task is learned beside safety in several ways: how much the task gains and how many "
        "refusals are kept.",
        {
            "method": Factor("method", METHODS, expected=LORI),
            "keeping": Factor("way to keep safety", KEEPING, expected=tuple(KEEPING)),
            "learned": Factor("task learned"),
        },
        ("method", "learned"),
        reading="Higher and further to the right is better. The line joins the ways that no other "
        "one beats on both axes; bars are 95 % intervals. 'Two phases' is the paper's: the safety "
        "adapter learns the task.",
    ),
    "frozen-a": Spec(
        "What a frozen A costs",
        "LoRA trains A and B; LoRA-FA and LoRI-D freeze A, at LoRA's rank and at as many trained "
        "values. Each uses the best of the same learning rates.",
        {
            "method": Factor("method", METHODS, expected=("lora", "lora-fa", "lori-d")),
            "rank": Factor("rank"),
        },
        ("method",),
        reading="LoRA has one rank. The axis is by rank, not to scale.",
    ),
    "projections": Spec(
        "Overlap of parameters, or of data",
        "LoRI-D adapters whose A is drawn in three ways are merged: how much each task loses to "
        "the other adapters (eq. 3).",
        {
            "projection": Factor("A", WAYS_OF_A, expected=tuple(WAYS_OF_A)),
            "merge": Factor("merging", MERGES, optional=True),
            "d_in": Factor("d_in", optional=True),
        },
        ("projection", "merge"),
        reading="The excess loss is the distance from 'alone' to 'merged' of the same A.",
        required=("loss",),
    ),
    "random-masks": Spec(
        "What sparsity does by itself",
        "B is trained in a magnitude mask, in a random mask of the same size, and without a mask: "
        "at a rank with as many trained values, and at the full rank. Each uses the best of the "
        "same learning rates.",
        {"mask": Factor("mask of B", MASKS, expected=tuple(MASKS))},
        ("mask",),
        reading="The first three conditions train about the same number of values.",
    ),
}


def in_order(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return the distinct names: first those in `known`, in its order, then the others."""
    distinct = list(dict.fromkeys(names))
    first = [name for name in dict.fromkeys(known) if name in distinct]
    return first + [name for name in distinct if name not in first]
