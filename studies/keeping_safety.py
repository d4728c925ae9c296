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
        ways = {("base", "base"): Mixture()}
        for method in section.merged_methods:
            for keeping, model in _ways(build, method, task, safety, seed).items():
                ways[method, keeping] = model
        for (method, keeping), model in ways.items():
            what = "base" if keeping == "base" else f"{method}-{task}-{keeping}-s{seed}"
            name = "base" if keeping == "base" else "model"
            found.append(
                Cell(
                    point=build.score(what, {name: model}, both),
                    model=name,
                    factors={"method": method, "keeping": keeping, "learned": task},
                    seed=seed,
                )
            )
    return found


def _ways(build: Builder, method: str, task: str, safety: str, seed: int) -> dict[str, Mixture]:
    """Return the model of each way to learn a task beside safety with one method."""
    before, alone = build.train(method, safety, seed), build.train(method, task, seed)
    weight = build.params.experiments.safety_merge_weight
    parents, weights = (alone, before), (1 - weight, weight)

    def own(name: str) -> Mixture:
        return Mixture(adapters=(name,))

    models = {
        "none": own(alone),
        "safety": own(before),
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
