"""Add the points that experiments need; a point that several experiments need is added once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from lori_core.config import LoriSection, Params, TrainingSection
from lori_core.config.experiments import DEFAULT
from lori_core.methods.catalogue import METHODS
from studies.points import Cell, Mixture, Points, Score, Train


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
        training: dict[str, Any] | None = None,
        calibration: dict[str, Any] | None = None,
        **lori: Any,
    ) -> str:
        """Add a training run; return its name.

        If `training` has no learning rate and several are to be tried for the method, the run uses
        the one with the least validation loss on the task.

        Args:
            method: a name of `METHODS`.
            task: the task.
            seed: the seed of A and of the order of examples.
            start: the name of the point whose adapter the training starts from.
            training: changes to the run's `training` settings.
            calibration: changes to those of the LoRI-D run that the mask comes from.
            lori: changes to the `lori` settings, e.g. `sparsity` or `mask_scope`.
        """
        changes, rates = training or {}, self._rates(method)
        tries: tuple[str, ...] = ()
        if "learning_rate" not in changes and len(rates) > 1:
            first = self.params.experiments.seeds[0]
            tries = tuple(self.train(method, task, first, training=rate(r)) for r in rates)
        elif rates:
            changes = rate(rates[0]) | changes
        mask_of = None
        calibrated_by = METHODS[method].calibrated_by
        if calibrated_by is not None and lori.get("importance") != "random":
            mask_of = self.train(calibrated_by, task, seed, training=calibration)
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
            )
        )

    def _rates(self, method: str) -> tuple[float, ...]:
        rates = self.params.experiments.learning_rates
        return rates.get(method, rates.get(DEFAULT, ()))

    def _section(self, method: str, task: str, changes: dict[str, Any]) -> TrainingSection:
        # As in the paper, methods without a mask are trained as LoRI-D is.
        masked = METHODS[method].calibrated_by is not None
        phase = self.params.phase(task, "training" if masked else "calibration")
        return phase.model_copy(update=changes)

    def score(self, what: str, models: dict[str, Mixture], tasks: Iterable[str]) -> str:
        """Add the scoring of some models on some tasks; return the point's name.

        Args:
            what: a label of the models, part of the point's name.
            models: the models by name.
            tasks: the tasks.
        """
        wanted, section = tuple(tasks), self.params.experiments
        scored = wanted if section.scored is None else section.scored
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


def rate(learning_rate: float) -> dict[str, Any]:
    """Return a change to `training` that sets the learning rate."""
    return {"learning_rate": learning_rate}
