"""The decisions of users that depend on the claims, the most common decision first."""

from __future__ import annotations

#: The decisions in their order, with the names of the claims that they depend on.
DECISIONS: dict[str, tuple[str, ...]] = {
    "LoRA or LoRI for one task": (
        "d_as_lora",
        "s_near_lora",
        "d_above_s",
        "fewer_parameters",
        "code",
        "beats_all",
        "small_methods",
        "frozen_a_same_rank",
        "frozen_a_equal_values",
        "lori_d_as_lora_fa",
    ),
    "one merged adapter or one adapter for each task, and which merge": (
        "merged_near_single",
        "concat_above_linear",
        "merged_code",
        "merged_best",
        "merged_s",
        "pruning_hurts_s",
        "three_concat_above_linear",
        "three_code",
        "shared_a_interferes",
        "overlap_costs_nothing",
        "null_space_interferes_less",
        "null_space_learns",
    ),
    "the method that keeps safety in continual learning": (
        "lora_forgets",
        "s_loses_least",
        "s_safest",
        "d_resists",
        "d_learns_more",
    ),
    "settings of the mask and of the merge": (
        "calibrated_above_random",
        "sparse_wants_fast",
        "weight_balanced",
        "weight_trade_off",
        "more_steps",
        "coarse_beats_fine",
        "magnitude_best",
        "structured_as_good",
        "magnitude_above_random",
        "random_as_magnitude",
        "masks_above_low_rank",
        "random_mask_costs_nothing",
    ),
    "nothing by itself: an explanation": (
        "orthogonal_with_width",
        "within_bound",
        "feed_forward_keeps_more",
        "upper_keeps_more",
    ),
}
#: The decision of each claim, in order.
DECISION_OF = {name: decision for decision, names in DECISIONS.items() for name in names}
