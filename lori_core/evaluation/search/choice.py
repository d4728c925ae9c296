"""Choose among measured candidates, and the weights to measure after a descent."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Sequence

from lori_core.evaluation.search.candidates import Candidate, Measures
from lori_core.merging.learned.weight_groups import MergeWeights, between


def choose(candidates: Sequence[Candidate]) -> int:
    """Return the index of the best candidate: rules first, then the objective."""
    return min(
        range(len(candidates)),
        key=lambda i: (math.fsum(candidates[i].violations.values()), candidates[i].objective),
    )


def after_descent(
    name: str, learned: MergeWeights, measures: Measures, known: Sequence[Candidate]
) -> Iterator[tuple[str, MergeWeights]]:
    """Yield learned weights; then, if they miss rules, others that need no further descent."""
    yield name, learned
    feasible = best_feasible(known)
    if feasible is not None:
        yield from _towards(feasible.weights, learned)
    elif _refuses_too_little(known[-1]):
        # Learned weights that are far apart may refuse less than the given ones.
        outer = known[choose(known)].weights
        yield from towards_safety(outer, set(measures.requests), known)


def _refuses_too_little(candidate: Candidate) -> bool:
    return not {"refusal", "forgetting"}.isdisjoint(candidate.violations)


def best_feasible(known: Sequence[Candidate]) -> Candidate | None:
    """Return the best of the candidates that meet all rules; None if there is none."""
    best = known[choose(known)]
    return best if best.feasible else None


def _towards(feasible: MergeWeights, learned: MergeWeights) -> Iterator[tuple[str, MergeWeights]]:
    """Yield weights between feasible and learned ones, each time half as far from the feasible.

    The search ends at the first that meets the rules.
    """
    share = 0.5
    while True:
        yield f"{share:.0%} of the way to the learned weights", between(feasible, learned, share)
        share /= 2


def towards_safety(
    outer: MergeWeights, safety: Container[str], known: Sequence[Candidate]
) -> Iterator[tuple[str, MergeWeights]]:
    """Yield weights between the safety adapter alone and `outer`, by bisection, endlessly."""
    low, high = 0.0, 1.0
    alone = MergeWeights.by_task({task: float(task in safety) for task in outer.weights})
    while True:
        share = (low + high) / 2
        weights = between(alone, outer, share)
        yield f"{share:.0%} of the way from safety alone", weights
        low, high = (low, share) if _refuses_too_little(known[-1]) else (share, high)
