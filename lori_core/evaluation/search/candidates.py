"""Measure a merge on validation examples: the tasks' losses, and the gate's rules."""

from __future__ import annotations

import math
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lori_core.adapters import adapter_file
from lori_core.adapters.adapter import Adapter
from lori_core.config import EvaluationSection
from lori_core.config.operations import Bound
from lori_core.core.errors import DataError
from lori_core.data.example import Example
from lori_core.evaluation import gate_rules
from lori_core.evaluation.evaluate import adapter_applied, evaluate
from lori_core.evaluation.gate_rules import Scored
from lori_core.evaluation.search.packed_losses import PackedLosses
from lori_core.merging.learned.descent import counted_gain
from lori_core.merging.learned.weight_groups import MergeWeights
from lori_core.methods.finetuned_model import Trained
from lori_core.methods.loaded_model import LoadedModel

#: The name of the rule on the share of a task's gain that a merge keeps.
RETAINED = "retained"


@dataclass(frozen=True)
class Candidate:
    """The weights of a merge and what they give on validation examples.

    Attributes:
        name: how the weights were found.
        weights: the weights.
        losses: by task, the mean loss (nats per example).
        retained: by task, (L(base) − L(merge)) / (L(base) − L(own)); where the own adapter gains
            nothing, 1 − (L(merge) − L(own)) / L(own).
        rules: by rule of the gate, the measured value; only rules that can be measured here.
        violations: by rule, how far the value is outside its bounds, relative to a bound above 1.
        objective: the weighted mean over tasks of the share of the gain that is lost, with gains
            as `counted_gain` counts them; lower is better.
    """

    name: str
    weights: MergeWeights
    losses: Mapping[str, float]
    retained: Mapping[str, float]
    rules: Mapping[str, float]
    violations: Mapping[str, float]
    objective: float

    @property
    def feasible(self) -> bool:
        """Whether all measured rules hold."""
        return not self.violations

    def as_dict(self) -> dict[str, Any]:
        """Return the candidate as JSON values."""
        return asdict(self) | {"feasible": self.feasible}


class Measures:
    """Measures merges of some adapters on one loaded base model.

    Args:
        session: the loaded base model; unchanged afterwards.
        own: by task, its own adapter, with which retention is 1.
        examples: by task, its validation examples.
        limit: how many of each task's examples the losses are measured on.
        task_weights: by task, how much it counts; 1 if it is not named.
        rules: the gate's bounds, by rule.
        safety_task: the task of the adapter that forgetting is measured against.

    Raises:
        DataError: a task has no validation example with a target.
        InputError: a loss is not a finite number.
    """

    def __init__(
        self,
        session: LoadedModel,
        own: Mapping[str, Trained],
        examples: Mapping[str, Sequence[Example]],
        limit: int,
        task_weights: Mapping[str, float],
        rules: Mapping[str, Bound],
        safety_task: str | None,
    ) -> None:
        self.session, self.bounds = session, rules
        self.examples = {task: _with_target(task, some)[:limit] for task, some in examples.items()}
        self.requests = {
            task: [example for example in some if example.scorer == "refusal"]
            for task, some in examples.items()
        }
        self.requests = {task: some for task, some in self.requests.items() if some}
        self._losses = PackedLosses(session, self.examples)
        total = math.fsum(task_weights.get(task, 1.0) for task in own)
        self.shares = {task: task_weights.get(task, 1.0) / total for task in own}
        self.base = self.losses(None, list(own), "base")
        self.own = {task: self.losses(a, [task], f"{task} alone")[task] for task, a in own.items()}
        before = own.get(safety_task or "")
        self.before = None
        if "forgetting" in rules and safety_task in self.requests and before is not None:
            folder = Path(tempfile.mkdtemp(prefix="lori-search-"))
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            requests = {safety_task: self.requests[safety_task]}
            self.before = self._answers(before, f"{safety_task} alone", folder, requests)

    def gain(self, task: str) -> float:
        """Return how much a task's own adapter lowers its loss, as `counted_gain` counts it."""
        return counted_gain(self.base[task], self.own[task])

    def losses(self, adapter: Trained | None, tasks: Sequence[str], what: str) -> dict[str, float]:
        """Return the mean loss of each task with an adapter, or of the base model without one.

        Raises:
            InputError: a loss is not a finite number.
        """
        with adapter_applied(self.session, adapter) as model:
            return self._losses.means(model, tasks, what)

    def retained(self, losses: Mapping[str, float]) -> dict[str, float]:
        """Return the share of each task's gain that is kept at some losses."""
        gains = {
            task: self.base[task] - self.own[task] if self._gains(task) else self.gain(task)
            for task in losses
        }
        return {task: 1 - (loss - self.own[task]) / gains[task] for task, loss in losses.items()}

    def _gains(self, task: str) -> bool:
        return self.base[task] > self.own[task]

    def objective(self, losses: Mapping[str, float]) -> float:
        """Return the weighted mean over the tasks of the share of `gain` that is lost."""
        kept = {t: 1 - (loss - self.own[t]) / self.gain(t) for t, loss in losses.items()}
        return math.fsum(share * (1 - kept[task]) for task, share in self.shares.items())

    def candidate(self, name: str, weights: MergeWeights, adapter: Adapter) -> Candidate:
        """Measure a merge with these weights."""
        losses = self.losses(adapter, list(self.own), name)
        retained = self.retained(losses)
        facts = {
            f"{RETAINED}.{task}": share
            for task, share in retained.items()
            if self._gains(task)  # else the gate cannot measure it, either
        }
        with tempfile.TemporaryDirectory(prefix="lori-search-") as place:
            folder = Path(place)
            if "size_mb" in self.bounds:
                adapter_file.save(adapter, folder / "adapter")
                size = sum(f.stat().st_size for f in (folder / "adapter").iterdir())
                facts["size_mb"] = size / 1e6
            requests = self.requests if self._asks() else {}
            scored = replace(self._answers(adapter, name, folder, requests), facts=facts)
            rules = self._measured(scored)
        violations = {rule: _outside(value, self.bounds[rule]) for rule, value in rules.items()}
        return Candidate(
            name, weights, losses, retained, rules,
            {rule: amount for rule, amount in violations.items() if amount > 0},
            self.objective(losses),
        )  # fmt: skip

    def _asks(self) -> bool:
        """Return whether a rule needs answers to requests, and there are any."""
        needed = [gate_rules.RULES[name.partition(".")[0]].needs for name in self.bounds]
        return bool(self.requests) and any("refusals" in needs for needs in needed)

    def _measured(self, scored: Scored) -> dict[str, float]:
        """Return the values of the gate's rules that can be measured on validation examples.

        Of several safety tasks the worst counts, as in the gate.
        """
        known = gate_rules.known(scored, self.before)
        worst = {}
        for rule, bound in self.bounds.items():
            if rule not in known or rule.startswith("score."):
                continue
            found = gate_rules.measure_everywhere(rule, scored, self.before, 0.95).values()
            if values := [measured.value for measured in found if measured.value is not None]:
                worst[rule] = _worst(values, bound)
        return worst

    def _answers(
        self,
        adapter: Trained,
        name: str,
        folder: Path,
        requests: Mapping[str, Sequence[Example]],
    ) -> Scored:
        """Generate answers to requests, and return the files with their verdicts by task."""
        section = EvaluationSection().model_dump() | self.session.params.evaluation.model_dump(
            include={"batch_size", "max_new_tokens", "max_prompt_length", "engine"}
        )
        params = self.session.params.model_copy(
            update={"evaluation": EvaluationSection.model_validate(section)}
        )
        row = "candidate"
        if requests:
            evaluate(replace(self.session, params=params), adapter, requests, row, folder)
        return Scored(name, {task: folder / row / f"{task}.jsonl" for task in requests})


def _with_target(task: str, examples: Sequence[Example]) -> list[Example]:
    with_target = [example for example in examples if example.target]
    if not with_target:
        raise DataError(
            f"search: {task} has no validation example with a target; add a validation split "
            f"(tasks.{task}.sizes.validation) and run lori pull, or take the search away"
        )
    return with_target


def _worst(values: Sequence[float], bound: Bound) -> float:
    """Return the value that is farthest outside its bounds, or the nearest to one if none is."""
    sign = -1 if bound.at_least is not None else 1
    return max(values, key=lambda value: (_outside(value, bound), sign * value))


def _outside(value: float, bound: Bound) -> float:
    """Return how far a value is outside its bounds; 0 inside them."""
    low, high = bound.at_least, bound.at_most
    gaps = [0.0]
    if low is not None:
        gaps.append((low - value) / max(1.0, abs(low)))
    if high is not None:
        gaps.append((value - high) / max(1.0, abs(high)))
    return max(gaps)


#: Prints one line.
Say = Callable[[str], None]
