"""Set-ups of a safety score: the same requests with other decoding, system turn or attack.

A refusal rate depends on the seed of sampling, the decoding and the system turn. Each entry of
`evaluation.setups` scores the safety sets again. Its verdicts are in `<task>.setup-<name>.jsonl`;
each row holds the settings as `setup`, so that the verdicts of another set-up, or of an older
definition of the same name, are never taken for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lori_core.config import Params
from lori_core.config.evaluation import DEFAULT_SETUP
from lori_core.core.errors import DataError
from lori_core.core.files.atomic import read_jsonl
from lori_core.data.example import Example
from lori_core.evaluation import attacks
from lori_core.evaluation.inference.generation import GREEDY, Sampling
from lori_core.evaluation.scoring.protocols import PROTOCOLS, Prepared

#: The protocol of all set-ups.
PROTOCOL = "fixed"


def verdicts_path(path: Path, name: str) -> Path:
    """Return the file of a set-up's verdicts.

    Args:
        path: the file `<task>.jsonl` of the default set-up.
        name: the set-up.
    """
    return path.with_name(f"{path.stem}.setup-{name}.jsonl")


def prepare(
    examples: Sequence[Example], params: Params, tokenizer: Any, name: str
) -> list[Prepared]:
    """Return the prompts of a safety set in a set-up; empty if an attack leaves no request.

    Args:
        examples: examples of the refusal scorer.
        params: the run.
        tokenizer: the base model's tokenizer.
        name: an entry of `evaluation.setups`.
    """
    settings = params.setup_settings(name)
    prompt = params.prompt.model_copy(update={"system": settings["system"]})
    changed = params.model_copy(update={"prompt": prompt})
    if settings["attack"] is not None:
        examples = attacks.under_attack(examples, settings["attack"])
    sampling = GREEDY
    if settings["temperature"] > 0:
        sampling = Sampling(settings["temperature"], settings["top_p"], settings["seed"])
    prepared = PROTOCOLS[PROTOCOL].prepare(examples, changed, tokenizer)
    return [replace(item, request=replace(item.request, sampling=sampling)) for item in prepared]


def spread(default: Mapping[str, Any], by_setup: Mapping[str, Any]) -> dict[str, Any]:
    """Return the range of refusal and over-refusal over the default and all other set-ups.

    Args:
        default: the result of the default set-up.
        by_setup: the results of the others, by name.

    Returns:
        For `refusal_rate` and `over_refusal` the smallest and largest rate as `low` and `high`, the
        names of their set-ups as `lowest` and `highest`, and the number `n` of set-ups with a rate.
        These are no confidence limits.
    """
    results = {DEFAULT_SETUP: default, **by_setup}
    found = {}
    for metric in ("refusal_rate", "over_refusal"):
        rates = {
            name: (result if metric == "refusal_rate" else result[metric])["score"]
            for name, result in results.items()
        }
        rates = {name: rate for name, rate in rates.items() if rate is not None}
        if rates:
            lowest, highest = min(rates, key=rates.__getitem__), max(rates, key=rates.__getitem__)
            found[metric] = {
                "low": rates[lowest],
                "high": rates[highest],
                "lowest": lowest,
                "highest": highest,
                "n": len(rates),
            }
    return found


def verified_files(path: Path, params: Params, names: Sequence[str]) -> dict[str, Path]:
    """Return the files of verdicts in set-ups, after checking the settings in each row.

    Args:
        path: the file of the safety task's verdicts in the default set-up.
        params: the run, whose `evaluation.setups` defines the names.
        names: the set-ups.

    Raises:
        DataError: a file is missing, or was written in a set-up with other settings.
    """
    files = {}
    for name in names:
        file = verdicts_path(path, name)
        if not file.is_file():
            raise DataError(
                f"{file}: is not here, so nothing was measured in the set-up {name} of "
                "gate.setups; lori run evaluates again"
            )
        expected = params.setup_settings(name)
        for number, row in enumerate(read_jsonl(file), start=1):
            recorded = row.get("setup") if isinstance(row, dict) else None
            if recorded != expected:
                raise DataError(
                    f"{file}: row {number} was measured with the settings {recorded!r}, but "
                    f"evaluation.setups.{name} is {expected!r}; lori run evaluates again"
                )
        files[name] = file
    return files
