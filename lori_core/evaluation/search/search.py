"""Search a merge's weights on validation examples, under the gate's rules.

The search improves the weights (`merging.learned.descent`, or Nelder-Mead), measures a few
candidates by the gate's rules, and chooses among them: the best objective of those that meet all
measured rules, else the smallest violation. By gradient, if other weights already meet the rules
and the learned ones do not, the next candidates lie between the two. If none meet them, weights
that refuse too little are moved towards the safety adapter alone; otherwise a candidate continues
from the one before it, with more weight on the tasks whose rules failed. Weights that were measured
are not measured again. Test examples are never read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from lori_core.adapters.adapter import Adapter
from lori_core.config import SearchSection
from lori_core.core.errors import InputError
from lori_core.data.prompts import encode_all
from lori_core.evaluation.held_out import training_length
from lori_core.evaluation.search.candidates import Candidate, Measures, Say
from lori_core.evaluation.search.choice import after_descent, best_feasible, choose
from lori_core.merging.learned import branches as parallel
from lori_core.merging.learned.descent import Descent, descend
from lori_core.merging.learned.weight_groups import MergeWeights
from lori_core.registries.gate_rule import GATE_RULES
from lori_core.registries.merge_method import MERGE_METHODS

#: The factor on the weight of the tasks whose rules failed.
HARDER = 4.0
#: The bounds of a weight for the methods without gradients, unless it starts outside of them.
LOW, HIGH = -1.0, 3.0


class Merging(Protocol):
    """A merge whose weights are searched."""

    @property
    def method(self) -> str:
        """The merge method."""

    @property
    def adapters(self) -> Mapping[str, Adapter]:
        """The adapters by task, in order."""

    @property
    def start(self) -> Adapter | None:
        """The safety adapter, for a method that merges onto it."""

    @property
    def density(self) -> float | None:
        """The density of the method; None if it has none."""

    def with_weights(self, weights: MergeWeights) -> Adapter:
        """Return the merge with some weights."""


@dataclass(frozen=True)
class SearchResult:
    """The result of a search.

    Attributes:
        chosen: the index of the chosen candidate.
        candidates: the measured candidates, the merge's own weights first.
        unmeasured: the gate's rules that cannot be measured on validation examples.
        sentence: the choice in one sentence.
    """

    chosen: int
    candidates: list[Candidate]
    unmeasured: list[str]
    sentence: str

    @property
    def weights(self) -> MergeWeights:
        """The chosen weights."""
        return self.candidates[self.chosen].weights

    def as_dict(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {
            "chosen": self.chosen,
            "sentence": self.sentence,
            "unmeasured": self.unmeasured,
            "candidates": [candidate.as_dict() for candidate in self.candidates],
        }


def search(
    merging: Merging,
    first: Mapping[str, float],
    settings: SearchSection,
    measures: Measures,
    tell: Callable[[int, Candidate], None],
    say: Say,
) -> SearchResult:
    """Search the weights of a merge.

    Args:
        merging: the merge.
        first: by task, the weight to start from: the merge's own.
        settings: the settings of the search.
        measures: measures losses and rules on validation examples.
        tell: called with the number of each measured candidate and the candidate.
        say: prints a line.

    Raises:
        InputError: a loss is not a finite number.
        AdapterError: an adapter belongs to another base model.
    """
    candidates: list[Candidate] = []
    for name, weights in _proposals(merging, first, settings, measures, candidates):
        rounded = weights.rounded()
        if any(rounded == known.weights for known in candidates):
            break  # these weights were measured before
        found = measures.candidate(name, rounded, merging.with_weights(rounded))
        tell(len(candidates), found)
        candidates.append(found)
        say(_line(len(candidates), found))
        if len(candidates) >= settings.candidates or (len(candidates) > 1 and found.feasible):
            break
    chosen = choose(candidates)
    unmeasured = [rule for rule in measures.bounds if rule not in candidates[0].rules]
    return SearchResult(chosen, candidates, unmeasured, _sentence(candidates, chosen, measures))


def uses_gradient(method: str, settings: SearchSection) -> bool:
    """Return whether the weights of a method are searched by gradient."""
    if settings.optimizer == "auto":
        return MERGE_METHODS[method].sums
    return settings.optimizer == "gradient"


def _proposals(
    merging: Merging,
    first: Mapping[str, float],
    settings: SearchSection,
    measures: Measures,
    known: Sequence[Candidate],
) -> Iterator[tuple[str, MergeWeights]]:
    """Yield weights to measure, each with a name; `known` holds those measured so far."""
    yield "given weights", MergeWeights.by_task(first, merging.density)
    if uses_gradient(merging.method, settings):
        yield from _by_gradient(merging, first, settings, measures, known)
    else:
        yield from _by_trial(merging, first, settings, measures, known)


def _by_gradient(
    merging: Merging,
    first: Mapping[str, float],
    settings: SearchSection,
    measures: Measures,
    known: Sequence[Candidate],
) -> Iterator[tuple[str, MergeWeights]]:
    session, start = measures.session, merging.start
    rows = {
        task: encode_all(
            some, session.params.prompt, session.tokenizer, training_length(session.params, task)
        )
        for task, some in measures.examples.items()
        if measures.shares[task] > 0
    }
    shares = {task: measures.shares[task] for task in rows}
    values, steps, name = None, settings.steps, "learned weights"
    while True:
        with parallel.applied(
            session.model, merging.adapters, start, settings.by, first
        ) as branches:
            if values is not None:
                branches.weights.data.copy_(values)
            total = math.fsum(shares.values())
            factors = {t: share / total / measures.gain(t) for t, share in shares.items()}
            descent = Descent(steps, settings.batch, settings.learning_rate, settings.uniformity)
            descend(
                session.model, branches, rows, factors, descent,
                session.tokenizer.pad_token_id or 0, lambda step, loss: None,
            )  # fmt: skip
            values, found = branches.weights.detach().clone(), branches.values()
        yield from after_descent(name, MergeWeights(settings.by, found), measures, known)
        failed = _failed_tasks(known[-1], measures)
        shares = {t: share * (HARDER if t in failed else 1) for t, share in shares.items()}
        steps = max(1, settings.steps // 2)
        name = f"more weight on {', '.join(failed)}" if failed else "more steps"


def _failed_tasks(candidate: Candidate, measures: Measures) -> list[str]:
    """Return the tasks that the rules which a candidate breaks are about."""
    failed = []
    for rule in candidate.violations:
        kind, _, task = rule.partition(".")
        safety = list(measures.requests) if "refusals" in GATE_RULES[kind].needs else []
        failed += [task] if task else safety
    return [task for task in measures.shares if task in failed]


def _by_trial(
    merging: Merging,
    first: Mapping[str, float],
    settings: SearchSection,
    measures: Measures,
    known: Sequence[Candidate],
) -> Iterator[tuple[str, MergeWeights]]:
    """Minimise the objective by Nelder-Mead, and yield the points tried, the best first.

    Points that `known` has, and those with no smaller objective than weights that meet the rules,
    are left out.
    """
    import numpy as np
    from scipy.optimize import minimize

    tasks, tried = list(first), []

    def weights_at(point: Any) -> MergeWeights:
        values = [float(value) for value in point]
        density = values[len(tasks)] if merging.density is not None else None
        return MergeWeights.by_task(dict(zip(tasks, values, strict=False)), density)

    def objective(point: Any) -> float:
        weights = weights_at(point)
        try:
            losses = measures.losses(merging.with_weights(weights), list(measures.own), "trial")
        except InputError:  # a point without finite losses is only a bad point
            return math.inf
        inside = np.array([point[: len(tasks)]])
        penalty = settings.uniformity * float(((inside - inside.mean()) ** 2).mean())
        lost = measures.objective(losses)
        tried.append((lost + penalty, lost, weights))
        return lost + penalty

    start = list(first.values())
    bounds = [(min(LOW, weight), max(HIGH, weight)) for weight in start]
    if merging.density is not None:
        start, bounds = [*start, merging.density], [*bounds, (min(0.01, merging.density), 1.0)]
    simplex = [start]
    for place, (low, high) in enumerate(bounds):
        # Density is tried lower first, weights higher: uniform weights are often too small.
        step = 0.3 if place < len(tasks) else -0.2
        moved = min(max(start[place] + step, low), high)
        if moved == start[place]:  # at its bound
            moved -= step
        simplex.append([*start[:place], moved, *start[place + 1 :]])
    options = {"maxfev": settings.steps, "initial_simplex": simplex, "xatol": 0.01, "fatol": 0.003}
    minimize(objective, start, method="Nelder-Mead", bounds=bounds, options=options)
    for _, lost, weights in sorted(tried, key=lambda point: point[0]):
        feasible = best_feasible(known)
        measured = any(weights.rounded() == candidate.weights for candidate in known)
        if not measured and (feasible is None or lost < feasible.objective):
            yield "best of the points tried", weights


def _line(number: int, candidate: Candidate) -> str:
    retained = ", ".join(f"{task} {100 * r:.0f}" for task, r in candidate.retained.items())
    rules = ", ".join(
        f"{rule} {value:.2f}"
        for rule, value in candidate.rules.items()
        if not rule.startswith("retained.")
    )
    weights = ", ".join(
        f"{task} {candidate.weights.mean(task):.2f}" for task in candidate.weights.weights
    )
    return f"candidate {number} ({candidate.name}): weights {weights}; retained, %: {retained}" + (
        f"; {rules}" if rules else ""
    )


def _sentence(candidates: Sequence[Candidate], chosen: int, measures: Measures) -> str:
    """Return the choice in one sentence."""
    best, count = candidates[chosen], len(candidates)
    least = min(best.retained, key=lambda task: best.retained[task])
    mean = math.fsum(best.retained.values()) / len(best.retained)
    kept = (
        f"keeps {100 * mean:.0f} % of the tasks' gains in validation loss on average and "
        f"{100 * best.retained[least]:.0f} % of {least}'s, the least"
    )
    which = f"candidate {chosen + 1} of {count} ({best.name})"
    if best.violations:
        broken = ", ".join(
            f"{rule} is {best.rules[rule]:.2f}, {bound_text(measures.bounds[rule])}"
            for rule in best.violations
        )
        which = f"No candidate meets all rules of the gate; {which} misses them least ({broken})"
    elif best.rules:
        which += f" meets the {len(best.rules)} rules of the gate that were measured"
    else:
        which += " has the smallest loss"
    return f"{which[0].upper()}{which[1:]} and {kept}."


def bound_text(bound: Any) -> str:
    """Return `at least 0.6`, `at most 0.4`, or both."""
    ends = (("at least", bound.at_least), ("at most", bound.at_most))
    return " and ".join(f"{word} {value:g}" for word, value in ends if value is not None)
