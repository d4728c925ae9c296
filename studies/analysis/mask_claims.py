"""The claims about masks, weights, learning rates and Property 1."""

from __future__ import annotations

from collections.abc import Sequence

from studies.analysis.paired.differences import Cell, Difference, Term
from studies.analysis.rows import Experiment
from studies.analysis.specs import ATTENTION, FEED_FORWARD, STRUCTURES
from studies.analysis.verdicts import MARGIN, Cells, Claim, Compare, Part, above, contrasted

#: The weights of the paper's Figure 4d.
WEIGHTS = (0.2, 0.3, 0.4)
BALANCED = 0.3
OURS = "Not in the paper"


def _steps(experiment: Experiment, cells: Cells) -> list[Part]:
    steps = [level for level in experiment.levels("calibration_steps") if level > 0]
    if len(steps) < 2:
        return [Part("most steps against fewest", None)]
    first, last = steps[0], steps[-1]
    most, fewest = {"calibration_steps": last}, {"calibration_steps": first}
    label = f"{last:g} steps against {first:g}"
    return [above(experiment, cells.of(experiment, None), most, fewest, label)]


def _random_mask(experiment: Experiment, cells: Cells) -> list[Part]:
    last = max(experiment.levels("calibration_steps"))
    if last == 0:
        return [Part("calibrated against random mask", None)]
    most, random = {"calibration_steps": last}, {"calibration_steps": 0}
    label = f"{last:g} steps against a random mask"
    return [above(experiment, cells.of(experiment, None), most, random, label)]


def map_sparsity(experiment: Experiment) -> float | None:
    """Return the sparsity whose masks are judged and drawn: 0.9 if it was run, else the highest."""
    levels: list[float] = experiment.levels("sparsity")
    return 0.9 if 0.9 in levels else max(levels, default=None)


def _map_cells(experiment: Experiment) -> list[Cell]:
    sparsity = map_sparsity(experiment)
    return [{"metric": "kept", "task": t, "sparsity": sparsity} for t in map_tasks(experiment)]


def map_tasks(experiment: Experiment) -> list[str]:
    """Return the tasks whose masks were measured."""
    return list(dict.fromkeys(row.task for row in experiment.rows if row.metric == "kept"))


def _feed_forward(experiment: Experiment, cells: Cells) -> list[Part]:
    layers = tuple(experiment.levels("layer"))
    first = {"projection": FEED_FORWARD, "layer": layers}
    second = {"projection": ATTENTION, "layer": layers}
    label = "kept of feed-forward matrices against those of attention"
    return [above(experiment, _map_cells(experiment), first, second, label)]


def _upper(experiment: Experiment, cells: Cells) -> list[Part]:
    layers, projections = experiment.levels("layer"), tuple(experiment.levels("projection"))
    half = len(layers) // 2
    upper = {"layer": tuple(layers[-half:]) if half else (), "projection": projections}
    lower = {"layer": tuple(layers[:half]), "projection": projections}
    label = "kept in the upper half of the layers against the lower"
    return [above(experiment, _map_cells(experiment), upper, lower, label)]


def _against(factor: str, first: str, others: Sequence[str], margin: float = 0.0) -> Compare:
    """Return a comparison of one level of a factor with others.

    Args:
        factor: the factor.
        first: the level that is claimed to be above.
        others: the levels to compare with.
        margin: how far below `first` may be.
    """

    def compare(experiment: Experiment, cells: Cells) -> list[Part]:
        names = experiment.spec.factors[factor].names
        where = cells.of(experiment, None)
        return [
            above(
                experiment,
                where,
                {factor: first},
                {factor: other},
                f"{names[first]} against {names[other]}",
                margin,
            )
            for other in others
        ]

    return compare


def _weights(experiment: Experiment) -> list[float]:
    levels: list[float] = experiment.levels("weight")
    papers = [weight for weight in levels if weight in WEIGHTS]
    return papers if len(papers) > 1 else levels


def merged_how(experiment: Experiment) -> dict[str, str]:
    """Return the merge whose weights are compared: concat if it was run; empty without merges."""
    levels = experiment.levels("merge")
    return {"merge": "concat" if "concat" in levels else levels[0]} if levels else {}


def _trade_off(experiment: Experiment, cells: Cells) -> list[Part]:
    weights, parts = _weights(experiment), []
    adapters = {"method": "lori-s", **merged_how(experiment)}
    high, low = adapters | {"weight": weights[-1]}, adapters | {"weight": weights[0]}
    for task, first, second in (("nlu", high, low), ("code", low, high)):
        label = f"weight {first['weight']:g} against {second['weight']:g}"
        parts.append(above(experiment, cells.of(experiment, [task]), first, second, label))
    return parts


def _balanced(experiment: Experiment, cells: Cells) -> list[Part]:
    adapters = {"method": "lori-s", **merged_how(experiment)}
    where = cells.of(experiment, None)
    return [
        above(
            experiment,
            where,
            {**adapters, "weight": BALANCED},
            {**adapters, "weight": weight},
            f"weight {BALANCED} against {weight:g}",
            MARGIN,
        )
        for weight in _weights(experiment)
        if weight != BALANCED
    ]


def _learning_rate(experiment: Experiment, cells: Cells) -> list[Part]:
    """Compare what the highest learning rate gains at the highest and at the lowest sparsity."""
    sparsities, rates = experiment.levels("sparsity"), experiment.levels("learning_rate")
    label = (
        f"what learning rate {rates[-1]:g} gains over {rates[0]:g} at sparsity {sparsities[-1]:g}, "
        f"against the same at {sparsities[0]:g}"
    )
    if len(sparsities) < 2 or len(rates) < 2:
        return [Part(label, None)]
    terms: list[Term] = [
        (
            (1 if sparse else -1) * (1 if fast else -1),
            {
                "sparsity": sparsities[-1 if sparse else 0],
                "learning_rate": rates[-1 if fast else 0],
            },
        )
        for sparse in (True, False)
        for fast in (True, False)
    ]
    return [contrasted(experiment, cells.of(experiment, None), terms, label)]


def _wider(experiment: Experiment, cells: Cells) -> list[Part]:
    parts = []
    for source in experiment.levels("source"):
        rows = experiment.select("mean_abs_cosine", source=source)
        widths = sorted({row.factors["d_in"] for row in rows})  # type: ignore[type-var]
        if len(widths) < 2:
            continue
        ranks = sorted({row.factors["rank"] for row in rows})  # type: ignore[type-var]
        where: list[Cell] = [
            {"metric": "mean_abs_cosine", "source": source, "rank": rank} for rank in ranks
        ]
        label = f"{source} B: mean |cos| at d_in {widths[-1]:g} against {widths[0]:g}"
        wide, narrow = {"d_in": widths[-1]}, {"d_in": widths[0]}
        parts.append(above(experiment, where, wide, narrow, label))
    return parts


def _within(experiment: Experiment, cells: Cells) -> list[Part]:
    bounds = {
        (row.task, row.seed, *row.factors.values()): row.value for row in experiment.select("bound")
    }
    pairs = [
        (row.value, bounds[key])
        for row in experiment.select("max_abs_cosine")
        if (key := (row.task, row.seed, *row.factors.values())) in bounds
    ]
    label = "largest |cos| within its bound"
    if not pairs:
        return [Part(label, None)]
    inside = sum(float(value or 0) <= float(bound or 0) for value, bound in pairs)
    telling = sum(float(bound or 0) < 1 for _, bound in pairs)
    note = f"{inside} of {len(pairs)} measurements, {telling} of them under a bound below 1"
    if not telling:  # a bound of 1 or more excludes no cosine
        return [Part(label, None, note=note)]
    sign = 1.0 if inside == len(pairs) else -1.0
    result = Difference(sign, sign, sign, len(experiment.seeds()), "", ())
    return [Part(label, result, note=note)]


MASK_CLAIMS: tuple[Claim, ...] = (
    Claim(
        "more_steps",
        "calibration-steps",
        "More calibration steps give a better mask.",
        "Section 3.5; Figure 4a",
        "the mean over tasks at the most steps is above that at the fewest (but not 0)",
        _steps,
    ),
    Claim(
        "calibrated_above_random",
        "calibration-steps",
        "A calibrated mask is better than a random one of the same size.",
        OURS,
        "the mean over tasks at the most steps is above that of a random mask",
        _random_mask,
    ),
    Claim(
        "feed_forward_keeps_more",
        "sparsity-map",
        "Feed-forward projections keep more of the mask than attention's.",
        "Sections 3.5, F; Figures 4b, 6",
        "the kept share, mean over matrices and tasks, is higher in gate, up and down than in q, "
        "k, v and o",
        _feed_forward,
        losses=False,
    ),
    Claim(
        "upper_keeps_more",
        "sparsity-map",
        "Upper layers keep more of the mask than lower ones.",
        "Sections 3.5, F; Figures 4b, 6",
        "the kept share, mean over matrices and tasks, is higher in the upper half of the layers",
        _upper,
        losses=False,
    ),
    Claim(
        "coarse_beats_fine",
        "granularity",
        "Coarse (model-wise) masks beat fine (matrix-wise) ones.",
        "Section 3.5; Figure 4c",
        "the mean over tasks of model-wise masks is above that of matrix-wise ones",
        _against("scope", "model", ["matrix"]),
    ),
    Claim(
        "weight_trade_off",
        "merge-weights",
        "A higher merging weight helps NLU and harms code.",
        "Sections 3.5, F; Figures 4d, 7",
        "for LoRI-S, NLU is higher at the highest weight than at the lowest, and code is lower "
        "(of the paper's weights 0.2, 0.3, 0.4 where they were run)",
        _trade_off,
    ),
    Claim(
        "weight_balanced",
        "merge-weights",
        "A merging weight of 0.3 balances LoRI-S.",
        "Section 3.5; Figure 4d",
        "for LoRI-S, the mean over tasks at 0.3 is above that at each other weight less 2 points",
        _balanced,
    ),
    Claim(
        "sparse_wants_fast",
        "sparsity-by-learning-rate",
        "High sparsity wants a higher learning rate.",
        "Section F; Figure 5",
        "raising the learning rate from the lowest to the highest gains more at the highest "
        "sparsity than at the lowest",
        _learning_rate,
    ),
    Claim(
        "orthogonal_with_width",
        "property-1",
        "Updates of different tasks become orthogonal as d_in grows.",
        "Property 1; Appendix C",
        "the mean |cos|, over ranks, is lower at the widest d_in than at the narrowest",
        _wider,
        losses=False,
    ),
    Claim(
        "within_bound",
        "property-1",
        "The cosines stay within the bound that the proof gives.",
        "Property 1; Appendix C",
        "no largest |cos| is above the bound on it (the mean of its pairs' bounds), and some bound "
        "is below 1: above 1 it says nothing",
        _within,
        losses=False,
    ),
    Claim(
        "magnitude_best",
        "importance",
        "Magnitude is a better importance than Fisher information and SNIP.",
        "Section 2.1 (argued, not measured)",
        "the mean over tasks by magnitude is above that by each of the two",
        _against("importance", "magnitude", ["fisher", "snip"]),
    ),
    Claim(
        "structured_as_good",
        "structured",
        "Structured masks of the same budget do as well as the unstructured one.",
        OURS + " (named as future work)",
        "the mean over tasks of each structure is above that of the unstructured mask less 2 "
        "points (2 % of the loss)",
        lambda experiment, cells: [
            part
            for structure in STRUCTURES
            if structure != "none"
            for part in _against("structure", structure, ["none"], MARGIN)(experiment, cells)
        ],
    ),
)
