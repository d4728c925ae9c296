"""The options of the command line, and the runs that they ask for."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from benchmarks.peft_comparison.settings import METHODS, MODEL, Run, TrainConfig
from lori_core.config import LoriSection, ModelSection
from lori_core.config.validation import (
    Alpha,
    PathText,
    PositiveFloat,
    PositiveInt,
    Rank,
    Seed,
    Share,
    Some,
    Strict,
    Text,
    first_error,
)
from lori_core.core.errors import InputError

_DEFAULT = TrainConfig()
#: What `--tiny` sets: short outputs, few questions, two validations.
_TINY: dict[str, Any] = {
    "max_steps": 4,
    "eval_steps": 2,
    "batch_size": 2,
    "batch_size_eval": 4,
    "generation_kwargs": {"max_length": 800, "max_new_tokens": 8},
}


class Options(Strict):
    """The options that decide a run, with their allowed values."""

    base: PathText
    revision: Text | None
    model_id: Text | None
    learning_rate: PositiveFloat
    steps: PositiveInt | None
    calibration_steps: PositiveInt | None
    rank: Rank
    lora_alpha: Alpha
    sparsity: Share
    target_modules: Some[Text]
    seed: Seed
    dtype: Text


def parse(argv: list[str] | None, about: str | None) -> argparse.Namespace:
    """Return the options of the command line.

    Args:
        argv: the command line without the program's name; None for that of this process.
        about: the description.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peft_comparison", description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("--base", help="the base model: a folder, or a hub id with --revision")
    add("--revision", help="the commit of a hub id, which is downloaded")
    add("--model-id", help=f"the result's model_id (PEFT's: {MODEL}); default: --base")
    add("--methods", nargs="+", choices=METHODS, default=["lori-d", "lori-s"])
    add("--learning-rate", type=float, default=_DEFAULT.optimizer_kwargs["lr"])
    add("--steps", type=int, help=f"optimizer steps; default: {_DEFAULT.max_steps}")
    add("--calibration-steps", type=int, help="of LoRI-S's mask; default: as --steps")
    add("--rank", type=int, default=32)
    add("--lora-alpha", type=int, default=64)
    add("--sparsity", type=float, default=0.9, help="of LoRI-S's mask")
    add("--target-modules", nargs="+", default=["q_proj", "v_proj"])
    add("--seed", type=int, default=_DEFAULT.seed)
    add("--dtype", choices=("bfloat16", "float16", "float32"), default=_DEFAULT.dtype)
    add("--out", type=Path, default=Path(".lori/peft_comparison"), help="the folder for all files")
    add("--tiny", action="store_true", help="a tiny model and made-up data, on a CPU")
    add("--check", nargs="+", type=Path, metavar="FILE", help="only check result files")
    return parser.parse_args(argv)


def runs(given: argparse.Namespace) -> Iterator[Run]:
    """Yield the run of each method.

    Raises:
        InputError: an option is missing or has a value that is not allowed.
    """
    values = {name: value for name, value in vars(given).items() if name in Options.model_fields}
    if given.tiny:
        values |= {"base": given.base or "random:llama", "dtype": "float32"}
    elif given.base is None:
        raise InputError(
            f"--base: is missing; name a folder that holds the base model (PEFT's: {MODEL}), or "
            "use --tiny"
        )
    try:
        options = Options.model_validate(values | {"target_modules": tuple(given.target_modules)})
    except ValidationError as error:
        option, _, fault = first_error(error, Options).partition(":")
        raise InputError(f"--{option.replace('_', '-')}:{fault}") from None
    for method in dict.fromkeys(given.methods):
        yield _run(options, method, tiny=given.tiny)


def _run(options: Options, method: str, *, tiny: bool) -> Run:
    changed: dict[str, Any] = dict(_TINY) if tiny else {}
    steps = options.steps or changed.get("max_steps", _DEFAULT.max_steps)
    changed |= {"max_steps": steps, "eval_steps": min(steps, changed.get("eval_steps", 250))}
    config = TrainConfig(
        model_id=options.model_id or options.base,
        dtype=options.dtype,
        seed=options.seed,
        **changed,
        optimizer_kwargs=_DEFAULT.optimizer_kwargs | {"lr": options.learning_rate},
    )
    return Run(
        method=method,
        train=config,
        model=ModelSection.model_validate(
            {"name_or_path": options.base, "revision": options.revision, "dtype": options.dtype}
        ),
        lori=LoriSection(
            rank=options.rank,
            lora_alpha=options.lora_alpha,
            sparsity=options.sparsity,
            target_modules=options.target_modules,
            seed=options.seed,
        ),
        calibration_steps=options.calibration_steps or steps,
        validation=2 if tiny else 50,
    )
