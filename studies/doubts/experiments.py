"""Experiments that test doubts about a frozen A, about interference, and about masks.

Each condition tries the same learning rates (`experiments.candidate_rates`) with the first seed,
and all seeds use the one with the least validation loss, so that no condition is tuned better than
another.
"""

from __future__ import annotations

from itertools import product
from typing import Any

from lori_core.config.experiments import WayOfA
from lori_core.core.errors import ConfigError
from studies.builder import Builder
from studies.points import Cell, Mixture, Orthogonality, Projection

#: The methods that freeze A.
FROZEN_A = ("lora-fa", "lori-d")
#: The largest rank that `lori.rank` allows.
MOST_RANK = 2**16


def frozen_a(build: Builder) -> list[Cell]:
    """LoRA against methods that freeze A, at its rank and at as many trained values."""
    section, own = build.params.experiments, build.params.lori.rank
    ranks = {"lora": [own]}
    larger = [own * times for times in dict.fromkeys(section.frozen_a_ranks)]
    ranks |= dict.fromkeys(FROZEN_A, larger)
    if max(larger) > MOST_RANK:
        raise ConfigError(
            f"experiments.frozen_a_ranks: {max(section.frozen_a_ranks)} times lori.rank {own} is "
            f"above {MOST_RANK}, the largest rank; use a smaller multiple"
        )
    cells = []
    for seed, task in product(section.seeds, build.compared_tasks):
        for method, rank in ((m, rank) for m, each in ranks.items() for rank in each):
            changes = at_rank(build, task, rank)
            name = build.train(method, task, seed, rates=section.candidate_rates, **changes)
            cells += build.trained(name, (task,), seed, method=method, rank=rank)
    return cells


def at_rank(build: Builder, task: str, rank: int) -> dict[str, Any]:
    """Return the changes to a run without a mask for another rank, with the scaling unchanged.

    Args:
        build: gives the ordinary settings.
        task: the task.
        rank: the rank; the ordinary one needs no changes.
    """
    ordinary, phase = build.params.lori, build.params.phase(task, "calibration")
    if rank == ordinary.rank:
        return {}

    def scaled(alpha: int) -> int:
        return max(1, round(alpha * rank / ordinary.rank))

    changes: dict[str, Any] = {"rank": rank, "lora_alpha": scaled(ordinary.lora_alpha)}
    if phase.lora_alpha is not None:
        changes["training"] = {"lora_alpha": scaled(phase.lora_alpha)}
    return changes


def projections(build: Builder) -> list[Cell]:
    """Merges of adapters with an A for each task, with one A, and with A in a null space."""
    section, tasks = build.params.experiments, build.tasks
    if len(tasks) < 2:
        raise ConfigError(
            "experiments.tasks: projections merges adapters of several tasks; name two or more"
        )
    cells = []
    for seed, way in product(section.seeds, dict.fromkeys(section.projections)):
        parents = {
            task: build.train(
                "lori-d",
                task,
                seed,
                rates=section.candidate_rates,
                projection=_projection(build, way, task),
            )
            for task in tasks
        }
        cells += _merged_and_alone(build, parents, way, seed)
    return cells


def _projection(build: Builder, way: WayOfA, task: str) -> Projection | None:
    if way == "own":
        return None
    if way == "shared":
        return Projection(key="shared")
    others = tuple(other for other in build.tasks if other != task)
    return Projection(avoid=others, examples=build.params.experiments.avoided_examples)


def _merged_and_alone(
    build: Builder, parents: dict[str, str], way: WayOfA, seed: int
) -> list[Cell]:
    """Return cells with the losses of a merge and of each adapter alone at its weight (eq. 3).

    A third kind has the cosines between the adapters' updates, the overlap of their parameters.
    """
    weight, names = build.params.experiments.projection_weight, tuple(parents.values())

    def losses(what: str, adapters: tuple[str, ...], tasks: tuple[str, ...], merge: str) -> Cell:
        mixture = Mixture(
            adapters=adapters, method="concat", weights=(weight,) * len(adapters), seed=seed
        )
        point = build.score(f"{what}-s{seed}", {"model": mixture}, tasks, losses_only=True)
        factors: dict[str, Any] = {"projection": way, "merge": merge}
        return Cell(point=point, model="model", factors=factors, seed=seed)

    cells = [losses(f"{way}-a", names, tuple(parents), "concat")]
    for task, parent in parents.items():
        alone = losses(f"{way}-a-{task}", (parent,), (task,), "single-task")
        cells += [alone, Cell(point=parent, factors=alone.factors, seed=seed)]
    rank = str(build.params.lori.rank)
    overlap = Orthogonality(seed=seed, input_dimensions=(), ranks=(), trained={rank: names})
    point = build.points.add(overlap)
    return [*cells, Cell(point=point, factors={"projection": way}, seed=seed)]


def random_masks(build: Builder) -> list[Cell]:
    """Magnitude masks, random masks, and no mask at as many trained values or at full rank."""
    section, lori = build.params.experiments, build.params.lori
    few = max(1, round(lori.rank * (1 - lori.sparsity)))
    cells = []
    for seed, task in product(section.seeds, build.ablation_tasks):
        conditions: dict[str, tuple[str, dict[str, Any]]] = {
            "magnitude": ("lori-s", {"importance": "magnitude"}),
            "random": ("lori-s", {"importance": "random"}),
            "low-rank": ("lori-d", at_rank(build, task, few)),
            "none": ("lori-d", {}),
        }
        for mask, (method, changes) in conditions.items():
            name = build.train(method, task, seed, rates=section.candidate_rates, **changes)
            cells += build.trained(name, (task,), seed, mask=mask)
    return cells
