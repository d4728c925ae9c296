"""Rows such as a real run would write, drawn from plausible truths: nothing here was measured."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

from lori_core.evaluation.statistics import interval
from lori_core.methods.catalogue import BUILT_IN
from studies.analysis.specs import LORI, PROJECTIONS, SCOPES, STRUCTURES

SEEDS = (1, 2, 3)
N = {"nlu": 400, "math": 200, "code": 164, "safety": 150}
#: Items of each task where nothing is drawn, so that nearly nothing is left to chance.
MANY = 40_000
METRIC = {
    "nlu": "accuracy",
    "math": "exact_match",
    "code": "pass_at_1",
    "safety": "refusal_rate",
}
TRUTH = {"nlu": 0.52, "math": 0.14, "code": 0.20, "safety": 0.88}
LOSS = {"nlu": 0.9, "math": 62.0, "code": 48.0, "safety": 31.0}
SKILL = {
    "base": -0.6,
    "full": 0.06,
    "vera": -0.3,
    "ia3": -0.25,
    "lora-fa": 0.0,
    "adalora": -0.1,
    "rslora": 0.04,
    "pissa": 0.05,
    "lora-plus": 0.05,
    "dora": 0.01,
    "lora": 0.0,
    "lori-d": -0.02,
    "lori-s": -0.08,
}
PARAMETERS = {
    "full": 134515008,
    "lora": 9768960,
    "dora": 9980160,
    "vera": 221568,
    "ia3": 80640,
    "lora-fa": 4976640,
    "adalora": 9775680,
    "rslora": 9768960,
    "pissa": 9768960,
    "lora-plus": 9768960,
    "lori-d": 4976640,
    "lori-s": 497664,
}
KEPT = {
    "q_proj": 0.04,
    "k_proj": 0.03,
    "v_proj": 0.11,
    "o_proj": 0.10,
    "gate_proj": 0.09,
    "up_proj": 0.13,
    "down_proj": 0.17,
}
Row = dict[str, Any]
#: Where numbers are drawn from; None for none.
Chance = random.Random | None


def content(name: str, rows: list[Row]) -> dict[str, Any]:
    """Return an experiment's file."""
    info = {
        "model": "SmolLM2-135M-Instruct",
        "parameters": 134515008,
        "rank": 32,
        "seeds": list(SEEDS),
        "machine": "2 cores of an Intel Xeon, 24 GB, no GPU",
        "command": f"lori experiment {name} --profile evidence",
        "train_sizes": {"nlu": 2000, "math": 1500, "code": 1500, "safety": 1200},
        "test_sizes": N,
    }
    return {"experiment": name, "info": info, "rows": rows}


def with_likelihood(given: dict[str, Any]) -> dict[str, Any]:
    """Return an experiment's file with an accuracy by log-likelihood beside each accuracy."""
    choices = [row for row in given["rows"] if row["metric"] == "accuracy"]
    added = [row | {"metric": "likelihood_accuracy"} for row in choices]
    return given | {"rows": [*given["rows"], *added]}


def everything(*, exact: bool = False) -> dict[str, dict[str, Any]]:
    """Return the files of all experiments, by name; `exact`: the truths themselves, not drawn."""
    return {
        name: content(name, list(make(None if exact else random.Random(name))))
        for name, make in MAKERS.items()
    }


def noise(chance: Chance, width: float) -> float:
    """Return a normal number, or 0 where nothing is drawn."""
    return chance.gauss(0, width) if chance else 0.0


def score(
    chance: Chance, task: str, skill: float, seed: int, metric: str = "", **factors: Any
) -> Row:
    """Return the row of a score that `skill` (in logits) moves away from the task's usual one."""
    truth = TRUTH[task] if metric != "over_refusal" else 0.12
    logit = math.log(truth / (1 - truth)) + skill + noise(chance, 0.05)
    share, n = 1 / (1 + math.exp(-logit)), N[task] if chance else MANY
    right = sum(chance.random() < share for _ in range(n)) if chance else round(n * share)
    low, high = interval(right, n)
    row = {"metric": metric or METRIC[task], "value": right / n, "task": task, "seed": seed}
    return row | {"low": low, "high": high, "n": n, **factors}


def loss(chance: Chance, task: str, skill: float, seed: int, **factors: Any) -> Row:
    """Return the row of a held-out loss."""
    value = LOSS[task] * math.exp(-0.15 * skill + noise(chance, 0.004))
    row = {"metric": "loss", "value": value, "task": task, "seed": seed, "n": N[task]}
    return row | {"low": 0.97 * value, "high": 1.03 * value, **factors}


def both(
    chance: Chance, skill: float, seed: int, tasks: tuple[str, ...], **factors: Any
) -> Iterator[Row]:
    """Yield score and loss of some tasks, and over-refusal where safety is one."""
    for task in tasks:
        yield score(chance, task, skill, seed, **factors)
        yield loss(chance, task, skill, seed, **factors)
        if task == "safety":
            yield score(chance, task, -skill, seed, "over_refusal", **factors)


def single_task(chance: Chance) -> Iterator[Row]:
    for method, seed in product(("base", *BUILT_IN), SEEDS):
        yield from both(chance, SKILL[method], seed, tuple(N), method=method)
    for method, count in PARAMETERS.items():
        facts = {
            "trainable_parameters": count,
            "trainable_share": count / 134515008,
            "state_bytes": 16 * count,
            "artifact_bytes": 4 * count,
        }
        for metric, value in facts.items():
            yield {"metric": metric, "value": value, "task": "", "seed": 1, "method": method}
        for task in N:
            rate = 5e-3 if method == "lori-s" else 5e-4
            yield {
                "metric": "learning_rate",
                "value": rate,
                "task": task,
                "seed": 1,
                "method": method,
            }


def merged(tasks: tuple[str, ...], weights: dict[str, float]) -> Callable[..., Iterator[Row]]:
    def make(chance: Chance) -> Iterator[Row]:
        falls = {"lora": 0.5, "lori-d": 0.12, "lori-s": 0.3}
        more = {"concat": 0, "linear": 0.1, "magnitude_prune": 0.3, "ties": 0.6, "dare_linear": 0.4}
        for method, seed in product(LORI, SEEDS):
            yield from both(chance, SKILL[method], seed, tasks, method=method, merge="single-task")
            for merge, extra in more.items():
                density = {"magnitude_prune": 0.3, "ties": 0.7, "dare_linear": 0.7}.get(merge)
                yield from both(
                    chance,
                    -falls[method] - extra,
                    seed,
                    tasks,
                    method=method,
                    merge=merge,
                    weight=weights[method],
                    density=density,
                )

    return make


def continual(chance: Chance) -> Iterator[Row]:
    falls = {"lora": 1.6, "lori-d": 0.8, "lori-s": 0.2}
    for method, seed in product(LORI, SEEDS):
        yield from both(chance, 0, seed, ("safety",), method=method, learned="")
        for learned in ("nlu", "math", "code"):
            where = {"method": method, "learned": learned}
            yield from both(chance, -falls[method], seed, ("safety",), **where)
            yield from both(chance, SKILL[method], seed, (learned,), **where)


def calibration_steps(chance: Chance) -> Iterator[Row]:
    for steps, seed in product((0, 1, 8, 32, 128), SEEDS):
        skill = 0.08 * math.log1p(steps) - 0.4
        yield from both(chance, skill, seed, ("math", "code"), calibration_steps=steps)


def sparsity_map(chance: Chance) -> Iterator[Row]:
    for task, seed, layer, name in product(N, SEEDS, range(30), PROJECTIONS):
        kept = KEPT[name] * (0.5 + layer / 29) * math.exp(noise(chance, 0.1))
        row = {"metric": "kept", "value": kept, "task": task, "seed": seed}
        yield row | {"sparsity": 0.9, "layer": layer, "projection": name}


def granularity(chance: Chance) -> Iterator[Row]:
    for (place, scope), seed in product(enumerate(SCOPES), SEEDS):
        yield from both(chance, -0.04 * place, seed, ("math",), scope=scope)


def merge_weights(chance: Chance) -> Iterator[Row]:
    for method, weight, seed in product(("lora", "lori-d", "lori-s"), (0.2, 0.3, 0.4, 0.5), SEEDS):
        where = {"method": method, "weight": weight}
        for task in N:
            sign = -6 if task == "code" else 6
            yield from both(chance, sign * (weight - 0.35) / 2, seed, (task,), **where)


def sparsity_by_rate(chance: Chance) -> Iterator[Row]:
    for sparsity, rate, seed in product((0.0, 0.5, 0.9, 0.95), (1e-4, 5e-4, 1e-3, 5e-3), SEEDS):
        best = -3.6 + 1.2 * sparsity
        skill = -((math.log10(rate) - best) ** 2)
        where = {"sparsity": sparsity, "learning_rate": rate}
        yield from both(chance, skill, seed, ("math",), **where)


def property_1(chance: Chance) -> Iterator[Row]:
    for d_in, rank, seed in product((128, 512, 2048, 8192), (8, 32, 64), SEEDS):
        mean = 0.3 / math.sqrt(d_in * rank) * math.exp(noise(chance, 0.1)) * 4
        values = {
            "mean_abs_cosine": mean,
            "max_abs_cosine": 3 * mean,
            "bound": min(1.0, rank * math.sqrt(2 * math.log(2 * rank**2 / 0.05) / d_in) / 3),
        }
        for source in ("drawn", "trained"):
            if source == "trained" and d_in not in (512, 2048):
                continue
            for metric, value in values.items():
                factor = 1.6 if source == "trained" and metric != "bound" else 1
                row = {"metric": metric, "value": factor * value, "task": "", "seed": seed}
                yield row | {"d_in": d_in, "rank": rank, "source": source}


def pareto(chance: Chance) -> Iterator[Row]:
    for safety, task, seed in product((0.1, 0.3, 0.5, 0.7), (0.2, 0.4, 0.6), SEEDS):
        where = {"safety_weight": safety, "task_weight": task}
        yield from both(chance, 3 * (safety - 0.6) - task, seed, ("safety",), **where)
        for name in ("nlu", "math", "code"):
            yield from both(chance, 2 * (task - 0.5) - safety / 2, seed, (name,), **where)


def importance(chance: Chance) -> Iterator[Row]:
    skills = {"magnitude": 0, "fisher": -0.1, "snip": -0.15}
    for (name, skill), seed in product(skills.items(), SEEDS):
        yield from both(chance, skill, seed, ("nlu", "math"), importance=name)


def structured(chance: Chance) -> Iterator[Row]:
    for (place, name), seed in product(enumerate(STRUCTURES), SEEDS):
        yield from both(chance, -0.1 * place, seed, ("nlu", "math"), structure=name)


def safety_baselines(chance: Chance) -> Iterator[Row]:
    for seed in SEEDS:
        where = {"method": "base", "keeping": "base", "learned": "nlu"}
        yield from both(chance, -1.0, seed, ("nlu", "safety"), **where)
    ways = ("task-alone", "safety-alone", "mix", "merge", "safemerge", "continual", "ewc")
    ways += ("orthogonal", "slao")
    for method, seed in product(("lora", "lori-d", "lori-s"), SEEDS):
        for place, keeping in enumerate((*ways, "olora") if method == "lora" else ways):
            where = {"method": method, "keeping": keeping, "learned": "nlu"}
            yield from both(chance, 0.2 * place - 0.5, seed, ("safety",), **where)
            yield from both(chance, 0.5 - 0.1 * place, seed, ("nlu",), **where)


def tried(task: str, seed: int, **factors: Any) -> Row:
    """Return the row of a learning rate that was chosen from three."""
    losses = {"0.001": 1.2, "0.003": 1.0, "0.01": 1.1}
    row = {"metric": "learning_rate", "value": 0.003, "task": task, "seed": seed}
    return row | {"tried": losses, **factors}


def frozen_a(chance: Chance) -> Iterator[Row]:
    skills = {("lora", 32): 0.0, ("lora-fa", 32): -0.3, ("lora-fa", 64): -0.02}
    skills |= {("lori-d", 32): -0.3, ("lori-d", 64): -0.02}
    for ((method, rank), skill), seed in product(skills.items(), SEEDS):
        where = {"method": method, "rank": rank}
        yield from both(chance, skill, seed, ("nlu", "math"), **where)
        yield tried("math", seed, **where)
        count = PARAMETERS[method] * rank // 32
        facts = {"metric": "trainable_parameters", "value": count, "task": "math", "seed": seed}
        yield facts | where


def projections(chance: Chance) -> Iterator[Row]:
    ways = {"own": (0, -1.0, 0.003), "shared": (0, -1.3, 0.2), "null-space": (-0.05, -0.55, 0.01)}
    for (way, (alone, merged, cosine)), seed in product(ways.items(), SEEDS):
        for task in N:
            where = {"projection": way}
            yield loss(chance, task, alone, seed, **where, merge="single-task")
            yield loss(chance, task, merged, seed, **where, merge="concat")
        for d_in in (576, 1536):
            row = {"metric": "mean_abs_cosine", "value": cosine, "task": "", "seed": seed}
            yield row | {"projection": way, "d_in": d_in}


def random_masks(chance: Chance) -> Iterator[Row]:
    skills = {"magnitude": 0, "random": -0.25, "low-rank": -0.5, "none": 0.02}
    for (mask, skill), seed in product(skills.items(), SEEDS):
        yield from both(chance, skill, seed, ("nlu", "math"), mask=mask)


MAKERS: dict[str, Callable[[random.Random], Iterator[Row]]] = {
    "single-task": single_task,
    "merge-four": merged(tuple(N), {"lora": 0.4, "lori-d": 0.4, "lori-s": 0.3}),
    "merge-three": merged(("nlu", "math", "code"), {"lora": 0.5, "lori-d": 0.5, "lori-s": 0.4}),
    "continual": continual,
    "calibration-steps": calibration_steps,
    "sparsity-map": sparsity_map,
    "granularity": granularity,
    "merge-weights": merge_weights,
    "sparsity-by-learning-rate": sparsity_by_rate,
    "property-1": property_1,
    "merge-weight-pareto": pareto,
    "importance": importance,
    "structured": structured,
    "safety-baselines": safety_baselines,
    "frozen-a": frozen_a,
    "projections": projections,
    "random-masks": random_masks,
}
