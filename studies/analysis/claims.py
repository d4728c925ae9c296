"""The paper's claims, each with the rule that decides from the rows whether it held.

A comparison is a difference paired by seed and item with its 95 % interval
(`differences.contrast`). "More" holds if the whole interval is above 0; "as good as" is a
non-inferiority test and "within" an equivalence test, with a margin of 2 points (for a loss, 2 %).
A claim with several comparisons holds if all hold, which needs no correction for their number (an
intersection-union test); it did not hold if one did not with Bonferroni's correction, and could not
be told otherwise. Across claims, Holm's procedure says which verdicts stand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lori_core.evaluation.statistics import holm
from lori_core.methods.catalogue import BUILT_IN
from studies.analysis.comparisons import (
    fewer_parameters,
    forgets,
    learns,
    loses_least,
    merges,
    methods,
    safest,
)
from studies.analysis.doubts.claims import DOUBT_CLAIMS
from studies.analysis.mask_claims import MASK_CLAIMS
from studies.analysis.rows import Experiment
from studies.analysis.verdicts import MARGIN, UNCLEAR, Claim, judge

#: The mean loss in points from single-task to concatenated LoRI-D over the paper's Table 3.
PAPERS_FALL = 5.1
PRUNING = ("magnitude_prune", "ties", "dare_linear")
OTHERS = tuple(name for name in BUILT_IN if name not in ("lori-d", "lori-s"))


#: The keys of a verdict, of its p-value, and of whether it stands, for each family of verdicts.
FAMILIES = (
    ("verdict", "p", "stands"),
    ("likelihood", "likelihood_p", "likelihood_stands"),
    ("losses", "losses_p", "losses_stand"),
)


def judged(experiments: Mapping[str, Experiment]) -> list[dict[str, Any]]:
    """Return `verdicts.judge` of each claim whose experiment has run, in the claims' order.

    `stands`, `likelihood_stands` and `losses_stand` say whether a told verdict remains after Holm's
    correction for all claims that were judged by scores or measurements, by log-likelihood, and by
    losses; None if it was not told.
    """
    results = [
        judge(claim, experiments[claim.experiment])
        for claim in CLAIMS
        if claim.experiment in experiments
    ]
    for verdict, p, stands in FAMILIES:
        family = [result for result in results if result[verdict] is not None]
        for result, rejected in zip(family, holm([r[p] for r in family]), strict=True):
            result[stands] = rejected if result[verdict] != UNCLEAR else None
        for result in results:
            result.setdefault(stands, None)
    return results


_ALL_LORA = [("lora", merge) for merge in ("concat", "linear", *PRUNING)]
CLAIMS: tuple[Claim, ...] = (
    Claim(
        "fewer_parameters",
        "single-task",
        "LoRI uses up to 95 % fewer trainable parameters than LoRA.",
        "Abstract",
        "LoRI-S trains at least 94.5 % fewer values than LoRA (95 % when rounded)",
        fewer_parameters,
        losses=False,
    ),
    Claim(
        "beats_all",
        "single-task",
        "LoRI outperforms full fine-tuning and the existing PEFT methods.",
        "Abstract; Tables 11, 12",
        "the mean over tasks of LoRI-D is above that of every other method",
        methods([("lori-d", other) for other in OTHERS]),
    ),
    Claim(
        "d_as_lora",
        "single-task",
        "LoRI-D does as well as LoRA on single tasks, with half the parameters.",
        "Section 3.2; Tables 1, 2",
        "the mean over tasks of LoRI-D is above that of LoRA less 2 points (2 % of the loss)",
        methods([("lori-d", "lora")], MARGIN),
    ),
    Claim(
        "s_near_lora",
        "single-task",
        "LoRI-S stays within a point or two of LoRA at 5 % of its parameters.",
        "Section 3.2; Tables 1, 2",
        "the mean over tasks of LoRI-S is within 2 points (2 % of the loss) of that of LoRA, above "
        "or below: an equivalence test",
        methods([("lori-s", "lora")], MARGIN, equivalence=True),
    ),
    Claim(
        "code",
        "single-task",
        "On code, LoRI-D and LoRI-S outperform FFT, LoRA and DoRA.",
        "Section 3.2; Table 2",
        "on code each of the two is above each of the three",
        methods(
            [(ours, other) for ours in ("lori-d", "lori-s") for other in ("full", "lora", "dora")],
            tasks=["code"],
        ),
    ),
    Claim(
        "d_above_s",
        "single-task",
        "LoRI-D generally scores slightly above LoRI-S.",
        "Section 3.2; Tables 1, 2",
        "the mean over tasks of LoRI-D is above that of LoRI-S",
        methods([("lori-d", "lori-s")]),
    ),
    Claim(
        "small_methods",
        "single-task",
        "VeRA and IA3 train fewer values still, and score well below LoRI-S.",
        "Section E.1; Tables 11, 12",
        "the mean over tasks of LoRI-S is above that of each of the two",
        methods([("lori-s", "vera"), ("lori-s", "ia3")]),
    ),
    Claim(
        "merged_code",
        "merge-four",
        "Concatenated LoRI-D keeps its code after merging, where LoRA loses it (40.5 to 13.0).",
        "Section 3.3; Table 3",
        "on code, Concat LoRI-D is above Concat LoRA",
        merges([("lori-d", "concat")], [("lora", "concat")], tasks=["code"]),
    ),
    Claim(
        "merged_best",
        "merge-four",
        "Concatenated merging of LoRI-D is best overall.",
        "Section 3.3; Table 3",
        "the mean over tasks of Concat LoRI-D is above that of every merge of LoRA",
        merges([("lori-d", "concat")], _ALL_LORA),
    ),
    Claim(
        "merged_near_single",
        "merge-four",
        "Concatenated LoRI-D closely matches the single-task adapters.",
        "Section 3.3; Table 3",
        f"the mean over tasks falls by less than {PAPERS_FALL} points, the paper's own fall (a "
        f"loss rises by less than {PAPERS_FALL} %)",
        merges([("lori-d", "concat")], [("lori-d", "single-task")], margin=PAPERS_FALL),
    ),
    Claim(
        "concat_above_linear",
        "merge-four",
        "Concatenated merging of LoRI is ahead of linear merging, which has cross terms.",
        "Sections 2.2, 3.3; Table 3",
        "the mean over tasks of Concat is above that of Linear, for LoRI-D and for LoRI-S",
        merges([("lori-d", "concat"), ("lori-s", "concat")], None),
    ),
    Claim(
        "merged_s",
        "merge-four",
        "On code and on safety, concatenated LoRI-S outperforms all merges of LoRA.",
        "Section 3.3; Table 3",
        "on each of the two tasks, Concat LoRI-S is above every merge of LoRA",
        merges([("lori-s", "concat")], _ALL_LORA, tasks=["code", "safety"], apart=True),
    ),
    Claim(
        "pruning_hurts_s",
        "merge-four",
        "Pruning merges do LoRI-S harm: they prune its dense A against its sparse B.",
        "Section E.5; Table 20",
        "the mean over tasks of Concat LoRI-S is above that of each pruning merge of LoRI-S",
        merges([("lori-s", "concat")], [("lori-s", merge) for merge in PRUNING]),
    ),
    Claim(
        "three_code",
        "merge-three",
        "With three adapters too, Concat LoRI-D keeps its code where LoRA loses it (41.5 to 13.0).",
        "Section E.4; Table 18",
        "on code, Concat LoRI-D is above Concat LoRA",
        merges([("lori-d", "concat")], [("lora", "concat")], tasks=["code"]),
    ),
    Claim(
        "three_concat_above_linear",
        "merge-three",
        "With three adapters too, concatenated merging of LoRI is ahead of linear merging.",
        "Section E.4; Table 18",
        "the mean over tasks of Concat is above that of Linear, for LoRI-D and for LoRI-S",
        merges([("lori-d", "concat"), ("lori-s", "concat")], None),
    ),
    Claim(
        "lora_forgets",
        "continual",
        "LoRA forgets safety when it goes on to learn a task.",
        "Section 3.4; Figure 3",
        "the refusal rate of LoRA is higher before than after, mean over the tasks learned",
        forgets,
    ),
    Claim(
        "s_safest",
        "continual",
        "LoRI-S ends with the most safety.",
        "Section 3.4; Figure 3",
        "after learning, the refusal rate of LoRI-S is above that of LoRA and of LoRI-D, mean over "
        "the tasks learned",
        safest("lori-s", ("lora", "lori-d")),
    ),
    Claim(
        "s_loses_least",
        "continual",
        "LoRI-S loses the least safety.",
        "Section 3.4; Figure 3",
        "the refusal rate of LoRI-S changes by more (falls by less) than that of LoRA and of "
        "LoRI-D, mean over the tasks learned",
        loses_least,
    ),
    Claim(
        "d_resists",
        "continual",
        "LoRI-D too forgets less than LoRA.",
        "Section 3.4; Figure 3",
        "after learning, the refusal rate of LoRI-D is above that of LoRA, mean over the tasks "
        "learned",
        safest("lori-d", ("lora",)),
    ),
    Claim(
        "d_learns_more",
        "continual",
        "On the learned task, LoRI-D generally scores above LoRI-S.",
        "Section 3.4; Figure 3",
        "the mean over the tasks learned of LoRI-D is above that of LoRI-S",
        learns,
    ),
    *MASK_CLAIMS,
    *DOUBT_CLAIMS,
)
