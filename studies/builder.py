"""Add the points that experiments need; a point that several experiments need is added once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from lori_core.config import LoriSection, Params, TrainingSection
from lori_core.config.experiments import DEFAULT
from lori_core.config.training_overrides import Phase
from lori_core.methods.catalogue import METHODS
from studies.points import Cell, Mixture, Points, Projection, Score, Train

#: The ways that are training methods: the ends of their names.
KEEPING = ("mix", "ewc", "orthogonal", "olora", "slao")


@dataclass
class Builder:
    """Adds the points of experiments to one collection; equal points are added once."""

    params: Params
    points: Points = field(default_factory=Points)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks to learn."""
        return self.params.experiments.tasks or tuple(self.params.tasks)

    @property
    def compared_tasks(self) -> tuple[str, ...]:
        """The tasks on which all methods are compared."""
        return self.params.experiments.compared_tasks or self.tasks

    @property
    def ablation_tasks(self) -> tuple[str, ...]:
        """The tasks of the ablations."""
        return self.params.experiments.ablation_tasks or self.tasks

    def train(
        self,
        method: str,
        task: str,
        seed: int,
        *,
        start: str | None = None,
        safety: str | None = None,
        training: dict[str, Any] | None = None,
        calibration: dict[str, Any] | None = None,
        rates: Sequence[float] = (),
        projection: Projection | None = None,
        **lori: Any,
    ) -> str:
        """Add a training run; return its name.

        If `training` has no learning rate and several are to be tried, the run uses the one with
        the least validation loss on the task. Those of the method are tried with its ordinary
        settings, those of `rates` with the settings of this run.

        Args:
            method: a name of `METHODS`.
            task: the task.
            seed: the seed of A and of the order of examples.
            start: the name of the point whose adapter the training starts from.
            safety: the task whose training examples the method may mix in.
            training: changes to the run's `training` settings.
            calibration: changes to those of the LoRI-D run that the mask comes from.
            rates: the learning rates to try for this run and for that LoRI-D run; those of the
                method if empty.
            projection: how A is drawn, if not in the ordinary way.
            lori: changes to the `lori` settings, e.g. `sparsity` or `mask_scope`.
        """
        changes, plain = training or {}, plain_method(method)
        own, rates = bool(rates), rates or self._rates(plain)
        tries: tuple[str, ...] = ()
        if "learning_rate" not in changes and len(rates) > 1:
            first = self.params.experiments.seeds[0]
            if own:
                tries = tuple(
                    self.train(
                        method,
                        task,
                        first,
                        training=changes | rate(r),
                        calibration=calibration,
                        rates=rates,
                        projection=projection,
                        **lori,
                    )
                    for r in rates
                )
            else:
                tries = tuple(self.train(plain, task, first, training=rate(r)) for r in rates)
        elif rates:
            changes = rate(rates[0]) | changes
        mask_of = None
        calibrated_by = METHODS[method].calibrated_by
        if calibrated_by is not None and lori.get("importance") != "random":
            tried = rates if own else ()
            mask_of = self.train(calibrated_by, task, seed, training=calibration, rates=tried)
        settings = {**self.params.lori.model_dump(), "seed": seed, **lori}
        if calibrated_by is None:
            settings |= {"sparsity": 0.0, "importance": "magnitude", "structure": "none"}
        return self.points.add(
            Train(
                task=task,
                method=method,
                options=self.params.experiments.options.get(method, {}),
                model=self.params.model,
                prompt=self.params.prompt,
                lori=LoriSection(**settings),
                training=self._section(method, task, changes),
                mask_of=mask_of,
                start=start,
                tries=tries,
                safety=safety,
                projection=projection,
            )
        )

    def _rates(self, method: str) -> tuple[float, ...]:
        rates = self.params.experiments.learning_rates
        return rates.get(method, rates.get(DEFAULT, ()))

    def _section(self, method: str, task: str, changes: dict[str, Any]) -> TrainingSection:
        return self.params.phase(task, phase_of(method)).model_copy(update=changes)

    def score(
        self,
        what: str,
        models: dict[str, Mixture],
        tasks: Iterable[str],
        *,
        losses_only: bool = False,
    ) -> str:
        """Add the scoring of some models on some tasks; return the point's name.

        Args:
            what: a label of the models, part of the point's name.
            models: the models by name.
            tasks: the tasks.
            losses_only: whether to measure held-out losses and to generate no outputs.
        """
        wanted, section = tuple(tasks), self.params.experiments
        scored = wanted if section.scored is None else section.scored
        scored = () if losses_only else scored
        return self.points.add(
            Score(
                what=what,
                models=models,
                scored=tuple(task for task in wanted if task in scored),
                losses=wanted,
                model=self.params.model,
                prompt=self.params.prompt,
                evaluation=self.params.evaluation.model_copy(update={"setups": {}}),
                max_lengths={t: self.params.phase(t, "calibration").max_length for t in wanted},
            )
        )

    def trained(self, name: str, tasks: Iterable[str], seed: int, **factors: Any) -> list[Cell]:
        """Add the scoring of one trained point; return two cells: its scores, and its training.

        Args:
            name: the trained point.
            tasks: the tasks to score.
            seed: the seed of the cells.
            factors: the factors of the cells.
        """
        label = name.removeprefix("train-").rpartition("-")[0]
        scores = self.score(label, {"model": Mixture(adapters=(name,))}, tasks)
        return [
            Cell(point=scores, model="model", factors=factors, seed=seed),
            Cell(point=name, factors=factors, seed=seed),
        ]


def phase_of(method: str) -> Phase:
    """Return the phase whose settings a method trains with; without a mask, as LoRI-D does."""
    return "training" if METHODS[method].calibrated_by is not None else "calibration"


def plain_method(method: str) -> str:
    """Return the method that a baseline which keeps safety extends; other methods as they are."""
    if not METHODS[method].keeps_safety:
        return method
    return max((n for n in ("lora", "lori-d", "lori-s") if method.startswith(n)), key=len)


def rate(learning_rate: float) -> dict[str, Any]:
    """Return a change to `training` that sets the learning rate."""
    return {"learning_rate": learning_rate}


def keeping_cells(build: Builder, safety: str) -> list[Cell]:
    """Return a cell for each seed, learned task, method and way, and for the base model.

    Args:
        build: adds the points.
        safety: the safety task.
    """
    section, found = build.params.experiments, []
    learned = [task for task in build.ablation_tasks if task != safety]
    for seed, task in product(section.seeds, learned):
        both = (task, safety)
        scored = {"base": ("base", {"base": Mixture()})}
        for method in section.merged_methods:
            ways = _ways_to_keep(build, method, task, safety, seed)
            scored[method] = (f"keeping-{method}-{task}-s{seed}", ways)
        for method, (what, models) in scored.items():
            point = build.score(what, models, both)
            for keeping in models:
                factors: dict[str, str | float | int | None] = {
                    "method": method,
                    "keeping": keeping,
                    "learned": task,
                }
                found.append(Cell(point=point, model=keeping, factors=factors, seed=seed))
    return found


def _ways_to_keep(
    build: Builder, method: str, task: str, safety: str, seed: int
) -> dict[str, Mixture]:
    """Return the model of each way to learn a task beside safety with one method."""
    before, alone = build.train(method, safety, seed), build.train(method, task, seed)
    weight = build.params.experiments.safety_merge_weight
    parents, weights = (alone, before), (1 - weight, weight)

    def own(name: str) -> Mixture:
        return Mixture(adapters=(name,))

    models = {
        "task-alone": own(alone),
        "safety-alone": own(before),
        "merge": Mixture(adapters=parents, method="concat", weights=weights, seed=seed),
        "safemerge": Mixture(adapters=parents, method="safemerge", weights=weights, seed=seed),
        "continual": own(build.train(method, task, seed, start=before)),
    }
    for keeping in KEEPING:
        name = f"{method}-{keeping}"
        if name in METHODS and keeping == "mix":
            models[keeping] = own(build.train(name, task, seed, safety=safety))
        elif name in METHODS:
            models[keeping] = own(build.train(name, task, seed, start=before))
    return models
