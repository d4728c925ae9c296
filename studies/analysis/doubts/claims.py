"""The claims about a frozen A, interference and sparsity, fixed before any of them was measured.

A claim that two conditions are alike is an equivalence or non-inferiority test with the margin of 2
points (2 % of a loss).
"""

from __future__ import annotations

from typing import Any

from studies.analysis.comparisons import levels
from studies.analysis.doubts.tables import LEARNED_ALONE
from studies.analysis.paired.differences import Cell, Term, loss_cells
from studies.analysis.rows import Experiment
from studies.analysis.specs import MASKS, METHODS, WAYS_OF_A
from studies.analysis.verdicts import (
    MARGIN,
    Cells,
    Claim,
    Compare,
    Condition,
    Part,
    above,
    contrasted,
)

OURS = "Not in the paper"
#: How much more or fewer values two methods may train to be called equal.
NEAR = 0.05


def _frozen(equal_values: bool) -> Compare:
    """Return the comparison of LoRA-FA and LoRI-D with LoRA.

    Args:
        equal_values: whether to compare at the rank with as many trained values as LoRA's, instead
            of at LoRA's rank.
    """

    def compare(experiment: Experiment, cells: Cells) -> list[Part]:
        parts = []
        for method in ("lora-fa", "lori-d"):
            own = _lora_rank(experiment)
            rank = _equal_rank(experiment, method, own) if equal_values else own
            at = "as many trained values" if equal_values else "the same rank"
            label = f"{METHODS[method]} against {METHODS['lora']} at {at}"
            if rank is None:
                parts.append(Part(label, None))
                continue
            first: Condition = {"method": method, "rank": rank}
            second: Condition = {"method": "lora", "rank": own}
            where = cells.of(experiment, None)
            parts.append(above(experiment, where, first, second, label, MARGIN))
        return parts

    return compare


def _lora_rank(experiment: Experiment) -> float | None:
    ranks = [row.factors["rank"] for row in experiment.rows if row.factors["method"] == "lora"]
    return next((rank for rank in ranks if isinstance(rank, (int, float))), None)


def _equal_rank(experiment: Experiment, method: str, own: float | None) -> float | None:
    """Return the rank at which a method trains about as many values as LoRA, if there is one."""
    metric = "trainable_parameters"
    wanted = experiment.estimate(metric, method="lora", rank=own)
    distances: dict[float, float] = {}
    for rank in experiment.levels("rank"):
        count = experiment.estimate(metric, method=method, rank=rank)
        if wanted is not None and count is not None:
            distances[rank] = abs(count.value - wanted.value)
    best = min(distances, key=distances.__getitem__, default=None)
    near = wanted is not None and best is not None and distances[best] <= NEAR * wanted.value
    return best if near else None


def _as_lora_fa(experiment: Experiment, cells: Cells) -> list[Part]:
    rank = _lora_rank(experiment)
    return [
        above(
            experiment,
            cells.of(experiment, None),
            {"method": "lori-d", "rank": rank},
            {"method": "lora-fa", "rank": rank},
            f"{METHODS['lori-d']} against {METHODS['lora-fa']}",
            MARGIN,
            equivalence=True,
        )
    ]


def _less_excess(first: str, second: str, **test: Any) -> Compare:
    """Return "the excess loss with A drawn the first way is below that of the second".

    The excess loss of a condition is that of the merge relative to the adapter alone at its weight:
    100·ln(merged / alone), about percent. Relative, because tasks' losses differ in size.
    """

    def compare(experiment: Experiment, cells: Cells) -> list[Part]:
        terms: list[Term] = [
            (sign * side, {"projection": way, "merge": merge})
            for sign, way in ((1, first), (-1, second))
            for side, merge in ((1, "concat"), (-1, "single-task"))
        ]
        label = f"excess loss with A {WAYS_OF_A[first]} against {WAYS_OF_A[second]}"
        where: list[Cell] = loss_cells(experiment)
        part = contrasted(experiment, where, terms, label)
        return [Part(part.label, part.difference, cells=where, terms=terms, **test)]

    return compare


def _null_space_learns(experiment: Experiment, cells: Cells) -> list[Part]:
    first, second = ({"projection": way, **LEARNED_ALONE} for way in ("null-space", "own"))
    label = f"loss alone with A {WAYS_OF_A['null-space']} against {WAYS_OF_A['own']}"
    return [above(experiment, loss_cells(experiment), first, second, label, MARGIN)]


DOUBT_CLAIMS: tuple[Claim, ...] = (
    Claim(
        "frozen_a_same_rank",
        "frozen-a",
        "A frozen A costs nothing at the same rank.",
        f"{OURS}; PEFT's comparison on GSM8K doubts it (LoRA 47.8 %, LoRA-FA 40.4 %)",
        "the mean over tasks of LoRA-FA and of LoRI-D, each at the best of the same learning "
        "rates, is above that of LoRA less 2 points (2 % of the loss)",
        _frozen(equal_values=False),
    ),
    Claim(
        "frozen_a_equal_values",
        "frozen-a",
        "A frozen A costs nothing at as many trained values, with a larger rank.",
        OURS,
        "the same at the rank whose number of trained values is nearest to LoRA's, and at most "
        f"{100 * NEAR:g} % from it",
        _frozen(equal_values=True),
    ),
    Claim(
        "lori_d_as_lora_fa",
        "frozen-a",
        "LoRI-D does as LoRA-FA: both train B beside a random, frozen A.",
        OURS,
        "the mean over tasks of LoRI-D is within 2 points (2 % of the loss) of that of LoRA-FA: an "
        "equivalence test",
        _as_lora_fa,
    ),
    Claim(
        "shared_a_interferes",
        "projections",
        "Interference follows the overlap of parameters: one A for all tasks interferes more.",
        "Section 2.2 (argued by Property 1)",
        "the excess loss of the merge (eq. 3), relative to the adapter alone, is lower with a "
        "random A for each task than with one for all",
        _less_excess("own", "shared"),
        losses=False,
    ),
    Claim(
        "overlap_costs_nothing",
        "projections",
        "The overlap of parameters does not matter: one A for all tasks interferes as much.",
        f"{OURS}; arXiv:2510.03262 doubts that orthogonal parameters are enough",
        "the excess loss with a random A for each task is within 2 % of that with one for all: an "
        "equivalence test",
        _less_excess("own", "shared", margin=MARGIN, equivalence=True),
        losses=False,
    ),
    Claim(
        "null_space_interferes_less",
        "projections",
        "Interference follows the data: A in the null space of the other tasks' inputs interferes "
        "less than a random A.",
        f"{OURS}; OSRM (arXiv:2505.22934)",
        "the excess loss is lower with A in the other tasks' null space than with a random A for "
        "each task",
        _less_excess("null-space", "own"),
        losses=False,
    ),
    Claim(
        "null_space_learns",
        "projections",
        "A in the other tasks' null space learns its own task as well as a random A.",
        OURS,
        "the held-out loss of the adapter alone, at its weight in the merge, is below that with a "
        "random A plus 2 %",
        _null_space_learns,
        losses=False,
    ),
    Claim(
        "magnitude_above_random",
        "random-masks",
        "A magnitude mask is better than a random mask of the same size.",
        f"{OURS} (Section 2.1 argues for magnitude)",
        "the mean over tasks of magnitude masks is above that of random masks, each at the best of "
        "the same learning rates",
        levels("mask", MASKS, [("magnitude", "random")]),
    ),
    Claim(
        "random_as_magnitude",
        "random-masks",
        "A random mask does as well as a magnitude mask.",
        OURS,
        "the mean over tasks of random masks is within 2 points (2 % of the loss) of that of "
        "magnitude masks: an equivalence test",
        levels("mask", MASKS, [("random", "magnitude")], MARGIN, equivalence=True),
    ),
    Claim(
        "masks_above_low_rank",
        "random-masks",
        "A mask on a large B is better than a small B with as many trained values.",
        OURS,
        "the mean over tasks of magnitude masks and of random masks is above that without a mask "
        "at the low rank",
        levels("mask", MASKS, [("magnitude", "low-rank"), ("random", "low-rank")]),
    ),
    Claim(
        "random_mask_costs_nothing",
        "random-masks",
        "Sparsity by itself costs nothing: a random mask does as well as no mask at all.",
        OURS,
        "the mean over tasks of random masks is above that without a mask at the full rank less 2 "
        "points (2 % of the loss)",
        levels("mask", MASKS, [("random", "none")], MARGIN),
    ),
)
