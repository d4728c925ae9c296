"""The points of `safety-baselines`: ways to learn a task and keep what a safety adapter learned."""

from __future__ import annotations

from itertools import product

from lori_core.methods.catalogue import METHODS
from studies.builder import Builder
from studies.points import Cell, Mixture

#: The ways that are training methods: the ends of their names.
TRAINED = ("mix", "ewc", "orthogonal", "olora", "slao")


def cells(build: Builder, safety: str) -> list[Cell]:
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
            ways = _ways(build, method, task, safety, seed)
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


def _ways(build: Builder, method: str, task: str, safety: str, seed: int) -> dict[str, Mixture]:
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
    for keeping in TRAINED:
        name = f"{method}-{keeping}"
        if name in METHODS and keeping == "mix":
            models[keeping] = own(build.train(name, task, seed, safety=safety))
        elif name in METHODS:
            models[keeping] = own(build.train(name, task, seed, start=before))
    return models
