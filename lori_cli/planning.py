"""The command that shows the plan of a run: which stages would run, why, and at what cost."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lori_cli import given
from lori_cli.pipeline import add_changes
from lori_cli.printing import tables

if TYPE_CHECKING:
    from lori_core.config import Params


def add(commands: Any) -> None:
    """Add the command to the parser."""
    plan = commands.add_parser(
        "plan",
        help="show which stages would run, why, and what they would cost",
        description="Runs nothing and changes no file, even with --profile and --set. "
        "docs/cluster.md describes the cost model; no GPU is needed.",
        epilog="example: lori plan --profile llama3-8b-r32 --gpu h100 --gpus 8",
    )
    add_changes(plan)
    plan.add_argument(
        "--gpu", metavar="NAME", help="h100, a100-80gb, …, or cpu for this machine without GPUs"
    )
    plan.add_argument(
        "--gpus", type=given.integer(1, 2**20), metavar="N", help="the number of GPUs"
    )
    output = plan.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print JSON")
    output.add_argument(
        "--why", metavar="STAGE", help="print all reasons for which this stage would run"
    )
    plan.set_defaults(function=_plan)


def _plan(args: argparse.Namespace) -> int:
    show_plan(args)
    return 0


def show_plan(args: argparse.Namespace) -> None:
    """Print the plan of a run with the options of `lori plan`."""
    from lori_core.pipeline import params_file

    params, text = params_file.changed(params_file.PARAMS, args.profile, args.set)
    plan = "\n".join(_planned(args, params, text))  # before the notice: an error is one line
    for line in notices(params):
        print(line, file=sys.stderr)
    print(plan)


def notices(params: Params) -> Iterator[str]:
    """Yield what `lori run` would do first, after which it may run more stages than the plan has.

    Args:
        params: the parameters of the run in this folder.
    """
    from flows.versioning.dvc import code_files, definition
    from flows.versioning.dvc.pipeline_file import FILE
    from lori_core.pipeline.stages.pull import is_pulled

    if not is_pulled(params):
        yield (
            "data/ was not pulled for these tasks, sizes, seed and base model: lori run pulls it "
            "first, and then also runs the stages whose data changed"
        )
    if not Path("dvc.lock").is_file():
        return  # nothing has run, so all stages are in the plan
    changed = code_files.outdated(Path.cwd())
    if changed:
        yield (
            f"{code_files.FOLDER}/ is of another version of lori: lori run writes it first, and "
            f"then also runs the stages whose code changed: {', '.join(changed)}"
        )
    for line in definition.outdated(Path.cwd(), params):
        what = line.removeprefix(f"{FILE}: ")
        yield (
            f"{FILE} is not up to date: lori run writes it first ({what}), and then also runs the "
            "stages that this changes"
        )


def _planned(args: argparse.Namespace, params: Params, text: str) -> Iterable[str]:
    """Return the lines of a plan."""
    from flows.execution import gpu_slots, sharing
    from flows.planning import forecast, reasons
    from flows.versioning import graph

    if args.gpu:  # refuse an unknown name before DVC creates its locks
        from lori_core import cost

        cost.device(args.gpu)
    planned = graph.plan(Path.cwd(), params=text)
    if args.why is not None:
        return reasons.of_stage(planned, args.why)
    if not planned.stale and not args.json:
        return reasons.show(planned)
    from lori_core import cost

    local_gpus = gpu_slots.allowed_gpus(params.execution.gpus)
    device = cost.device(args.gpu or (forecast.name_here() if local_gpus else "cpu"))
    gpus, setting = args.gpus or max(1, len(local_gpus)), params.execution.share_gpus
    # The number of cores of another machine is unknown; without GPUs it does not matter.
    elsewhere = bool(args.gpu or args.gpus) or device.kind == "cpu"
    usual = setting if isinstance(setting, int) else sharing.USUAL
    most = usual if elsewhere else sharing.this_host().stages_per_gpu(setting, gpus)
    result = forecast.forecast(Path.cwd(), params, device, gpus, text=text, most=most)
    if args.json:
        return [forecast.as_json(result)]
    if not sys.stdout.isatty():
        return forecast.show(result)
    columns = {key: key for key in ("state", "stage", "time", "memory", "why")}
    table = tables.lines(forecast.rows(result), columns)
    return [*table, "", *(forecast.summary(result) if result.running else ())]
