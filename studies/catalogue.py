"""The experiments by name, and the points of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product
from typing import Any

from lori_core.config import Params
from lori_core.config.experiments import DEFAULT
from lori_core.core.errors import ConfigError, unknown
from lori_core.methods.catalogue import METHODS, options
from lori_core.pipeline import params_file
from studies.analysis.base_names import base_folder, base_label, split_base
from studies.builder import Builder, keeping_cells, rate
from studies.doubts.experiments import frozen_a, projections, random_masks
from studies.points import Cell, Collect, Mixture, Orthogonality, Points, SparsityMap

Factors = dict[str, str | float | int | None]


def single_task(build: Builder) -> list[Cell]:
    """Each method on each task alone (Tables 1, 2, 11 to 14)."""
    cells = []
    for seed, task in product(build.params.experiments.seeds, build.compared_tasks):
        cells.append(_base(build, (task,), seed, {"method": "base"}))
        alone = [name for name, method in METHODS.items() if not method.keeps_safety]
        for method in build.params.experiments.methods or alone:
            name = build.train(method, task, seed)
            cells += build.trained(name, (task,), seed, method=method)
    return cells


def _base(build: Builder, tasks: tuple[str, ...], seed: int, factors: Factors) -> Cell:
    return Cell(
        point=build.score("base", {"base": Mixture()}, tasks),
        model="base",
        factors=factors,
        seed=seed,
    )


def merge_four(build: Builder) -> list[Cell]:
    """All tasks' adapters merged by each method (Tables 3, 15 to 17, 20, 21)."""
    return _merges(build, build.tasks, build.params.experiments.weights_of_four)


def merge_three(build: Builder) -> list[Cell]:
    """The adapters of all tasks but safety, merged by each method (Tables 18, 19, 22)."""
    section = build.params.experiments
    others = [t for t in build.tasks if t != build.params.continual.safety_task]
    return _merges(build, section.three or tuple(others), section.weights_of_three)


def _merges(build: Builder, tasks: tuple[str, ...], weights: dict[str, float]) -> list[Cell]:
    section, cells = build.params.experiments, []
    _check_low_rank(section.merged_methods)
    for seed, method in product(section.seeds, section.merged_methods):
        parents = [build.train(method, task, seed) for task in tasks]
        for task, parent in zip(tasks, parents, strict=True):
            alone = {"method": method, "merge": "single-task"}
            cells += build.trained(parent, (task,), seed, **alone)[:1]
        for merge in section.merges:
            mixture = Mixture(
                adapters=tuple(parents),
                method=merge,
                weights=(weights[method],) * len(parents),
                density=section.densities.get(merge),
                seed=seed,
            )
            cells.append(
                Cell(
                    point=build.score(f"{merge}-{method}-s{seed}", {"merge": mixture}, tasks),
                    model="merge",
                    seed=seed,
                    factors={
                        "method": method,
                        "merge": merge,
                        "weight": weights[method],
                        "density": mixture.density,
                    },
                )
            )
    return cells


def _check_low_rank(methods: Iterable[str]) -> None:
    for method in methods:
        if method not in METHODS:
            raise ConfigError(f"experiments.merged_methods: {unknown('method', method, METHODS)}")
        if METHODS[method].result != "low-rank":
            raise ConfigError(
                f"experiments.merged_methods: {method} does not train a low-rank update, so its "
                "results cannot be merged; name methods that do"
            )


def continual(build: Builder) -> list[Cell]:
    """Learning safety first, then each task: forgetting and gain (Fig. 3)."""
    section, safety = build.params.experiments, build.params.continual.safety_task
    if safety is None or safety not in build.tasks:
        raise ConfigError("continual.safety_task: the experiment needs one of its tasks here")
    cells = []
    others = [task for task in build.tasks if task != safety]
    for seed, method in product(section.seeds, section.merged_methods):
        if not METHODS[method].continues:
            raise ConfigError(
                f"experiments.merged_methods: {method} cannot start from another adapter"
            )
        before = build.train(method, safety, seed)
        cells += build.trained(before, (safety,), seed, method=method, learned="")[:1]
        for task in others:
            after = build.train(method, task, seed, start=before)
            factors: Factors = {"method": method, "learned": task}
            cells += build.trained(after, (task, safety), seed, **factors)[:1]
    return cells


def _ablation(
    build: Builder, factor: str, levels: Iterable[Any], change: Callable[[Any], dict[str, Any]]
) -> list[Cell]:
    """Train LoRI-S at each level of one factor, at the learning rate of the ordinary LoRI-S."""
    cells = []
    seeds = build.params.experiments.seeds
    for seed, task, level in product(seeds, build.ablation_tasks, levels):
        name = build.train("lori-s", task, seed, **change(level))
        cells += build.trained(name, (task,), seed, **{factor: level})
    return cells


def calibration_steps(build: Builder) -> list[Cell]:
    """Different calibration lengths (Fig. 4a); 0 steps are a random mask."""

    def change(steps: int) -> dict[str, Any]:
        if steps == 0:
            return {"importance": "random"}
        return {"calibration": {"max_steps": steps}}

    return _ablation(build, "calibration_steps", build.params.experiments.calibration_steps, change)


def granularity(build: Builder) -> list[Cell]:
    """Different mask scopes (Fig. 4c)."""
    scopes = build.params.experiments.scopes
    return _ablation(build, "scope", scopes, lambda scope: {"mask_scope": scope})


def importance(build: Builder) -> list[Cell]:
    """Different importance scores."""
    kinds = build.params.experiments.importances
    return _ablation(build, "importance", kinds, lambda kind: {"importance": kind})


def structured(build: Builder) -> list[Cell]:
    """Structured masks with equal budgets (the paper's future work)."""
    kinds = build.params.experiments.structures
    return _ablation(build, "structure", kinds, lambda kind: {"structure": kind})


def sparsity_by_learning_rate(build: Builder) -> list[Cell]:
    """Each sparsity with each learning rate (Fig. 5)."""
    section, cells = build.params.experiments, []
    grid = product(
        section.seeds, build.ablation_tasks, section.sparsities, section.sweep_learning_rates
    )
    for seed, task, sparsity, step in grid:
        name = build.train("lori-s", task, seed, training=rate(step), sparsity=sparsity)
        cells += build.trained(name, (task,), seed, sparsity=sparsity, learning_rate=step)[:1]
    return cells


def sparsity_map(build: Builder) -> list[Cell]:
    """The masks' density by layer and projection (Fig. 4b, 6)."""
    section, cells = build.params.experiments, []
    for seed, task in product(section.seeds, build.tasks):
        point = SparsityMap(
            task=task,
            calibrated=build.train("lori-d", task, seed),
            lori=build.params.lori.model_copy(update={"seed": seed}),
            sparsities=section.sparsities,
        )
        cells.append(Cell(point=build.points.add(point), seed=seed))
    return cells


def merge_weights(build: Builder) -> list[Cell]:
    """Concatenated merges with different uniform weights (Fig. 4d, 7)."""
    section, cells = build.params.experiments, []
    _check_low_rank(section.merged_methods)
    for seed, method in product(section.seeds, section.merged_methods):
        parents = tuple(build.train(method, task, seed) for task in build.tasks)
        for weight in section.merge_weights:
            mixture = Mixture(
                adapters=parents, method="concat", weights=(weight,) * len(parents), seed=seed
            )
            what = f"concat-{method}-s{seed}"
            cells.append(
                Cell(
                    point=build.score(what, {"merge": mixture}, build.tasks),
                    model="merge",
                    factors={"method": method, "weight": weight},
                    seed=seed,
                )
            )
    return cells


def merge_weight_pareto(build: Builder) -> list[Cell]:
    """Merges with different weights of the safety adapter."""
    section, safety = build.params.experiments, build.params.continual.safety_task
    if safety is None or safety not in build.tasks:
        raise ConfigError("continual.safety_task: the experiment needs one of its tasks here")
    weight, cells = section.weights_of_four["lori-s"], []
    for seed in section.seeds:
        parents = tuple(build.train("lori-s", task, seed) for task in build.tasks)
        models = {
            f"{own:g}": Mixture(
                adapters=parents,
                method="concat",
                weights=tuple(own if task == safety else weight for task in build.tasks),
                seed=seed,
            )
            for own in section.safety_weights
        }
        point = build.score(f"pareto-s{seed}", models, build.tasks)
        cells += [
            Cell(
                point=point,
                model=f"{own:g}",
                factors={"safety_weight": own, "task_weight": weight},
                seed=seed,
            )
            for own in section.safety_weights
        ]
    return cells


def property_1(build: Builder) -> list[Cell]:
    """Cosines between updates by d_in and rank (Property 1, eq. 4)."""
    section, cells = build.params.experiments, []
    own = build.params.lori.rank
    for seed in section.seeds:
        trained = tuple(build.train("lori-d", task, seed) for task in build.tasks)
        point = Orthogonality(
            seed=seed,
            input_dimensions=section.input_dimensions,
            ranks=section.ranks,
            trained={str(own): trained} if len(trained) > 1 else {},
        )
        cells.append(Cell(point=build.points.add(point), seed=seed))
    return cells


def safety_baselines(build: Builder) -> list[Cell]:
    """Ways to learn a task and keep safety: task score against refusals, for each method."""
    safety = build.params.continual.safety_task
    if safety is None or safety not in build.tasks:
        raise ConfigError("continual.safety_task: the experiment needs one of its tasks here")
    _check_low_rank(build.params.experiments.merged_methods)
    return keeping_cells(build, safety)


EXPERIMENTS: dict[str, Callable[[Builder], list[Cell]]] = {
    "single-task": single_task,
    "merge-four": merge_four,
    "merge-three": merge_three,
    "continual": continual,
    "calibration-steps": calibration_steps,
    "sparsity-map": sparsity_map,
    "granularity": granularity,
    "merge-weights": merge_weights,
    "sparsity-by-learning-rate": sparsity_by_learning_rate,
    "property-1": property_1,
    "merge-weight-pareto": merge_weight_pareto,
    "importance": importance,
    "structured": structured,
    "safety-baselines": safety_baselines,
    "frozen-a": frozen_a,
    "projections": projections,
    "random-masks": random_masks,
}
ALL = "all"


def build(params: Params, names: Iterable[str]) -> Points:
    """Return the points of some experiments, and a `Collect` point of each at the end.

    Raises:
        ConfigError: an experiment or method does not exist, a method does not have an option, or
            its results cannot be merged.
    """
    wanted = list(EXPERIMENTS) if ALL in names else list(dict.fromkeys(names))
    for name in wanted:
        if name not in EXPERIMENTS:
            raise ConfigError(unknown("experiment", name, [*EXPERIMENTS, ALL]))
    for method in {*params.experiments.methods, *params.experiments.options}:
        chosen = params.experiments.options.get(method, {})
        options(method, chosen, f"experiments.options.{method}")
    for method in params.experiments.learning_rates:
        if method != DEFAULT and method not in METHODS:
            raise ConfigError(f"experiments.learning_rates: {unknown('method', method, METHODS)}")
    builder = Builder(params)
    label, first = (
        base_label(params.model.name_or_path, params.model.revision),
        params.experiments.first_base,
    )
    base = base_folder(label) if first not in (None, label) else ""
    command_options = _options(params, label if base else "")
    cells = {name: EXPERIMENTS[name](builder) for name in wanted}
    for name, own in cells.items():
        info = _info(params, builder) | {"command": f"lori experiment {name}{command_options}"}
        builder.points.add(Collect(experiment=name, cells=tuple(own), info=info, base=base))
    return builder.points


def _options(params: Params, base: str) -> str:
    """Return the options of the command that runs these parameters: the profile and the base."""
    first = params.experiments.first_base
    if first is not None:
        name, revision = split_base(first)
        params = params.model_copy(
            update={
                "model": params.model.model_copy(
                    update={"name_or_path": name, "revision": revision}
                ),
                "experiments": params.experiments.model_copy(update={"first_base": None}),
            }
        )
    profile = params_file.profile_of(params)
    return (f" --profile {profile}" if profile else "") + (f" --base {base}" if base else "")


def _info(params: Params, builder: Builder) -> dict[str, Any]:
    return {
        "model": params.model.name_or_path,
        "revision": params.model.revision,
        "rank": params.lori.rank,
        "seeds": list(params.experiments.seeds),
        "tasks": list(builder.tasks),
    }
