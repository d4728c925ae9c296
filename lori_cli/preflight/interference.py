"""`lori interference`: how much adapters disturb each other, and which merge method to choose."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from lori_cli import given
from lori_core.core.errors import InputError

if TYPE_CHECKING:
    from lori_core.adapters.adapter import Adapter


def add(commands: Any) -> None:
    """Add the command to the parser."""
    interference = commands.add_parser(
        "interference",
        help="measure the interference between adapters, and recommend a merge method",
        description="For each pair of adapters and each module, print the exact inner product and "
        "cosine of their updates with the bound of Property 1, the mask overlap with its "
        "expectation, and the share of common entries that have opposite signs. With --examples, "
        "load the base model and forecast the excess loss of each task by gradients.",
        epilog="examples: lori interference artifacts/math/adapter artifacts/code/adapter -o out"
        "   |   lori interference a b --examples 16 --weights 0.5 --tasks bundled-math,bundled-nlu",
    )
    interference.add_argument("adapters", nargs="+", type=given.path, metavar="ADAPTER")
    interference.add_argument(
        "-o", "--out", type=given.path, help="a folder for interference.json and interference.png"
    )
    interference.add_argument("--modules", action="store_true", help="also print every module")
    interference.add_argument(
        "--examples",
        type=given.integer(1, 2**20),
        metavar="N",
        help="load the base model, and forecast each task's excess loss from the gradients on its "
        "first N validation examples",
    )
    interference.add_argument(
        "--weights",
        help="with --examples: the merge weights, one for all adapters or one for each, such as "
        "0.4,0.4,0.2 (default: 1)",
    )
    interference.add_argument(
        "--tasks",
        help="with --examples: the task of each adapter; a task with pulled data or a name from "
        "lori sources (default: the tasks that the adapters record)",
    )
    given.add_base(interference)
    given.add_force(interference)
    interference.set_defaults(function=_interference)


def _interference(args: argparse.Namespace) -> int:
    from lori_core.adapters import base_choice, output_folder
    from lori_core.adapters.peft_format import peft_file
    from lori_core.report import interference_table

    for option in ("weights", "tasks"):
        if getattr(args, option) is not None and args.examples is None:
            raise InputError(f"--{option}: only with --examples")
    weights = given.weights("1" if args.weights is None else args.weights, len(args.adapters))
    names = given.names_of(args.adapters)
    adapters = {
        name: peft_file.open_adapter(path, copies=True)
        for name, path in zip(names, args.adapters, strict=True)
    }
    inputs = list(args.adapters)
    adapters, read = base_choice.of_one_base(args.base, adapters)
    inputs += read
    kind = output_folder.INTERFERENCE
    if args.out:
        output_folder.check(args.out, kind, inputs, force=args.force)
    result = interference_table.measure(adapters)
    if args.examples is not None:
        from lori_core.api.merge_preflight import forecast

        result["forecast"] = forecast(
            adapters, weights, args.examples, tasks=args.tasks, base=args.base
        )
    print(interference_table.text(result, every_module=args.modules))
    if args.out:
        with output_folder.claim(args.out, kind, inputs, force=args.force) as folder:
            interference_table.write(result, list(adapters), folder)
        print(f"{args.out}: interference.json, interference.png")
    say_unproved(adapters)
    return 0


def say_unproved(adapters: dict[str, Adapter]) -> None:
    """Warn that none of several adapters names its base model."""
    from lori_core.adapters import base_choice

    if base_choice.none_is_named(adapters):
        print(
            f"lori: {', '.join(adapters)}: no adapter names its base model, so it was not checked "
            "that all have the same; name it with --base",
            file=sys.stderr,
        )
