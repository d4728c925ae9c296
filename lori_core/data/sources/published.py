"""The published numbers of examples of the ready-made sources, for cost forecasts."""

from __future__ import annotations

from lori_core.config import SourceSection
from lori_core.data.example import Split
from lori_core.data.sources.catalogue import CATALOGUE

#: The number of examples of each source, by split.
PUBLISHED: dict[str, dict[str, int]] = {
    "commonsense-170k": {"train": 170_420},
    "codealpaca-20k": {"train": 20_022},
    "boolq": {"train": 9_427, "test": 3_270},
    "piqa": {"train": 16_113, "test": 1_838},
    "social-i-qa": {"train": 33_410, "test": 1_954},
    "arc-challenge": {"train": 1_119, "validation": 299, "test": 1_172},
    "arc-easy": {"train": 2_251, "validation": 570, "test": 2_376},
    "openbookqa": {"train": 4_957, "validation": 500, "test": 500},
    "hellaswag": {"train": 39_905, "test": 10_042},
    "winogrande": {"train": 40_398, "test": 1_267},
    "gsm8k": {"train": 7_473, "test": 1_319},
    "gsm8k-files": {"train": 7_473, "test": 1_319},
    "humaneval": {"test": 164},
    "openai-humaneval": {"test": 164},
    "mbpp-sanitized": {"train": 120, "validation": 43, "test": 257},
    "codealpaca-files": {"train": 2_017},
    "saferpaca-safety-files": {"train": 2_483},
    "malicious-instructions-files": {"test": 100},
    "harmless-instructions-files": {"test": 50},
    "xstest-files": {"test": 450},
    "harmbench-files": {"validation": 80, "test": 320},
    "hex-phi": {"test": 330},
    "hex-phi-files": {"test": 330},
    "advbench": {"test": 520},
    "harmbench": {"test": 200},
    "malicious-instruct": {"test": 100},
    "jbb-harmful": {"test": 100},
    "jbb-benign": {"test": 100},
    "or-bench-toxic": {"test": 655},
    "or-bench-hard": {"test": 1_319},
    "xstest": {"test": 450},
}


def published(source: SourceSection, split: Split) -> int | None:
    """Return the number of examples of a source's split within its `limit`; None if unknown."""
    plain = source.model_copy(update={"revision": None, "limit": {}})
    name = next((n for n in PUBLISHED if CATALOGUE[n] == plain), None)
    if name is None:
        known = source.files and source.split is None
        return 0 if known and split not in source.files else None
    count = PUBLISHED[name].get(split, 0)
    return min(count, source.limit.get(split, count))
