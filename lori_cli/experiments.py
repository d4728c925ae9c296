"""`lori experiment` and `lori point`: run the experiments of the paper and of this project."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lori_cli import given
from lori_cli.pipeline import (
    add_changes,
    apply_changes,
    check_base,
    check_changes,
    check_machine,
    pull,
    tracked,
)

if TYPE_CHECKING:
    from studies.points import Points


def add(commands: Any) -> None:
    """Add the commands to the parser."""
    experiment = commands.add_parser(
        "experiment",
        help="run an experiment of the paper: methods, merges, ablations",
        description="Pull the data, write the experiment's points to experiments/, and run those "
        "that are not up to date, through the Prefect flow. An adapter that several experiments "
        "need is trained once. experiments/report/index.html shows the results next to the "
        "paper's.",
        epilog="examples: lori experiment --list   |   lori experiment granularity --profile smoke "
        "  |   lori experiment single-task merge-four   |   lori experiment all --plan",
    )
    experiment.add_argument("names", nargs="*", metavar="NAME", help="an experiment, or all")
    experiment.add_argument("--list", action="store_true", help="list the experiments")
    experiment.add_argument(
        "--plan",
        action="store_true",
        help="print which points would run, and their forecast time; run nothing",
    )
    experiment.add_argument(
        "--write", action="store_true", help="only write experiments/dvc.yaml and points.json"
    )
    experiment.add_argument(
        "--here",
        action="store_true",
        help="run the points one after another in this process, without the flow; faster for "
        "small models, whose points take less time than starting a process",
    )
    experiment.add_argument(
        "--time-limit",
        type=given.duration,
        metavar="TIME",
        help="run several points at a time on one GPU, without the Prefect flow; "
        "stop after TIME (90s, 10m, 2h) and write the rows of all points that have finished",
    )
    experiment.add_argument(
        "--base",
        type=given.name_or_path,
        metavar="BASE",
        help="run on another base model and keep its rows apart: pypi:PACKAGE, random:NAME, a "
        "folder, or OWNER/NAME@COMMIT",
    )
    add_power(experiment)
    add_changes(experiment)
    experiment.set_defaults(function=_experiment)
    point = commands.add_parser(
        "point", help="run one point in this process (the command of experiments/dvc.yaml)"
    )
    point.add_argument(
        "name",
        type=given.name_or_path,
        metavar="NAME",
        help="a point of experiments/points.json, or report",
    )
    point.set_defaults(function=_point)


def add_power(experiment: argparse.ArgumentParser) -> None:
    """Add the options of a power plan."""
    power = experiment.add_argument_group("power plan (runs nothing)")
    power.add_argument(
        "--plan-power",
        action="store_true",
        help="print the seeds, test items and hours that it takes to decide each claim",
    )
    power.add_argument(
        "--margin",
        type=given.positive,
        metavar="X",
        help="the true difference to tell, in points or percent of a loss (default 2)",
    )
    power.add_argument(
        "--power", type=given.probability, metavar="P", help="the power to reach (default 0.8)"
    )
    power.add_argument(
        "--budget", type=given.positive, metavar="H", help="the hours that a claim may take"
    )
    power.add_argument(
        "--record",
        type=given.path,
        metavar="FOLDER",
        help="the rows of a pilot (default metrics/experiments, else docs/evidence/metrics)",
    )
    power.add_argument(
        "--gpu",
        metavar="NAME",
        help="forecast for this device: h100, …, or cpu (default), also with --plan",
    )
    power.add_argument("--json", action="store_true", help="print the power plan as JSON")


#: The options that only a power plan has.
POWER = ("margin", "power", "budget", "record", "gpu", "json")
#: The record that the project publishes, the pilot where nothing has run.
PUBLISHED = Path("docs/evidence/metrics")


def _set_base(args: argparse.Namespace) -> None:
    """Add the changes of params.yaml that `--base` stands for to those of `--set`."""
    if args.base is None:
        return
    import json

    from lori_core.pipeline import params_file
    from studies.analysis.base_names import base_label, split_base

    params, _ = params_file.changed(params_file.PARAMS, args.profile, args.set)
    name, revision = split_base(args.base)
    changes = {
        "experiments.first_base": params.experiments.first_base
        or base_label(params.model.name_or_path, params.model.revision),
        "model.name_or_path": name,
        "model.revision": revision,
    }
    written = (f"{key}={json.dumps(value)}" for key, value in changes.items())
    args.set = [*args.set, *written]


@contextmanager
def _base_errors(base: str | None) -> Iterator[None]:
    """Let errors about the base model name the option that set it."""
    from lori_core.core.errors import InputError

    try:
        yield
    except InputError as error:
        text = str(error)
        for key in ("model.name_or_path: ", "model.revision: "):
            if base is not None and text.startswith(key):
                raise type(error)(f"--base: {text.removeprefix(key)}") from None
        raise


def _plan_power(args: argparse.Namespace) -> int:
    import json

    from lori_core import cost
    from lori_core.core.errors import InputError, unknown
    from lori_core.pipeline import params_file
    from studies import catalogue
    from studies.analysis import rows
    from studies.points import METRICS
    from studies.power import costs, plan

    for name in args.names:
        if name not in (*catalogue.EXPERIMENTS, catalogue.ALL):
            raise InputError(unknown("experiment", name, [*catalogue.EXPERIMENTS, catalogue.ALL]))
    params, _ = params_file.changed(params_file.PARAMS, args.profile, args.set)
    folder = args.record or (METRICS if any(METRICS.glob("*.json")) else PUBLISHED)
    experiments = rows.read_folder(folder)
    device = cost.device(args.gpu or "cpu")
    wanted = {key: getattr(args, key) for key in ("margin", "power", "budget")}
    settings = plan.Settings(**{key: v for key, v in wanted.items() if v is not None})
    forecasts = costs.Costs(params, cost.count_splits(params, Path("data")), device)
    names = [] if catalogue.ALL in args.names else args.names
    planned = plan.plan(experiments, settings, forecasts, names)
    if args.json:
        print(json.dumps(plan.as_json(planned, settings, str(folder), device.name), indent=2))
    else:
        print("\n".join(plan.show(planned, settings, str(folder), device.name)))
    return 0


def _experiment(args: argparse.Namespace) -> int:
    with _base_errors(args.base):
        _set_base(args)
        return _chosen(args)


def _chosen(args: argparse.Namespace) -> int:
    if args.plan_power:
        return _plan_power(args)
    given_here = ("gpu",) if args.plan else ()
    extra = [
        key for key in POWER if key not in given_here and getattr(args, key) not in (None, False)
    ]
    if extra:
        from lori_core.core.errors import InputError

        other = "--plan or " if extra[0] == "gpu" else ""
        raise InputError(f"--{extra[0]}: only a plan has it; add {other}--plan-power")
    if args.list or not args.names:
        return _list()
    if args.gpu is not None:
        from lori_core import cost

        cost.device(args.gpu)  # refuses an unknown device before anything is written
    from lori_core.pipeline import params_file
    from studies import catalogue

    params, _ = params_file.changed(params_file.PARAMS, args.profile, args.set)
    catalogue.build(params, args.names)  # refuses unknown names before anything is written
    if args.time_limit is not None:
        return _timed(args)
    if args.write:
        _change(args)
        _write(args)
        return 0
    from flows.lock import pipeline_lock
    from flows.run import nothing_to_do, plan, run_in_process
    from flows.versioning import graph
    from lori_core.core.files.atomic import put_back
    from studies import stages
    from studies.in_process import run_points
    from studies.points import POINTS

    workspace = Path.cwd()
    if not args.plan:
        check_machine(args, server=not args.here)
        check_base(args)
    with pipeline_lock(workspace, print):
        if args.plan:
            with put_back((params_file.PARAMS, stages.DVC, POINTS)):
                _change(args)
                _write(args)
                return _plan(workspace, args.gpu)
        check_changes(args)
        _change(args)
        pull()
        _write(args)
        planned = plan(workspace, graph.EXPERIMENTS)
        unchanged = nothing_to_do(planned)
        code = 0
        if unchanged:
            print(unchanged)
        elif args.here:
            run_points(workspace, print)
        else:
            code = run_in_process(workspace, args.names, prepared=planned)
    if code == 0:
        stages.show(print)
    return code


def _timed(args: argparse.Namespace) -> int:
    """Run the experiments until the time limit, with or without DVC."""
    import time
    from functools import partial

    from flows import machine
    from flows.lock import pipeline_lock
    from lori_core.core.errors import InputError
    from lori_core.pipeline import params_file
    from studies import stages
    from studies.timed.history import has_dvc
    from studies.timed.run import TimedRun

    deadline = time.monotonic() + args.time_limit
    for option in ("plan", "write", "here"):
        if getattr(args, option):
            raise InputError(f"--{option}: cannot be combined with --time-limit; leave one out")
    workspace, say = Path.cwd(), partial(print, flush=True)
    versioned = has_dvc(workspace)
    if versioned:
        check_machine(args, server=False)
    else:
        params, _ = params_file.changed(params_file.PARAMS, args.profile, args.set)
        machine.check_without_dvc(workspace, params.model_dump())
    check_base(args)
    with pipeline_lock(workspace, say):
        _change(args)
        pull(pinned=versioned)  # before the experiments' stages are there, which DVC would parse
        points, extensions = _write(args)
        code = TimedRun(params_file.load(), points, extensions, say).run(deadline)
    if (stages.REPORT / "summary.json").is_file():
        stages.show(say)
    return code


def _change(args: argparse.Namespace) -> None:
    """Change params.yaml as the options ask for, unless another pipeline would be replaced."""
    from studies import stages

    stages.check()
    apply_changes(args)


def _write(args: argparse.Namespace) -> tuple[Points, dict[str, set[str]]]:
    """Write the experiments' stages; return the points and the extensions."""
    from flows.versioning.dvc import definition
    from lori_core.pipeline import params_file
    from studies import catalogue, stages

    params = params_file.load()
    points = catalogue.build(params, args.names)
    kinds = definition.deciding_files(Path(), params)
    stages.write(points, kinds)
    print(f"{stages.DVC}: {stages.describe(points)}")
    return points, kinds


def _list() -> int:
    from studies.catalogue import EXPERIMENTS

    for name, function in EXPERIMENTS.items():
        print(f"{name:26} {(function.__doc__ or '').splitlines()[0]}")
    return 0


def _plan(workspace: Path, gpu: str | None) -> int:
    from flows.planning import reasons
    from flows.versioning import graph

    plan = graph.plan(workspace, graph.EXPERIMENTS)
    print("\n".join(reasons.show(plan)))
    stale = [stage.name.rpartition(":")[2] for stage in plan.stages if stage.name in plan.stale]
    print("\n".join(_forecast(stale, gpu)))
    return 0


def _forecast(stale: list[str], gpu: str | None) -> list[str]:
    """Return the lines of the forecast of some stages of `experiments/dvc.yaml`."""
    from lori_core import cost
    from lori_core.core.errors import LoriError
    from lori_core.pipeline import params_file
    from studies import points
    from studies.power import forecast

    device = cost.device(gpu or "cpu")
    params = params_file.load()
    known = points.load_all()
    try:
        model = cost.Model(params, cost.count_splits(params, Path("data")), device)
        found = forecast.forecast(known, [name for name in stale if name in known], model)
    except LoriError as error:
        return [f"no forecast of the time: {error}"]
    return list(forecast.show(found, device.name))


def _point(args: argparse.Namespace) -> int:
    from flows import machine

    machine.check_for_stage(Path.cwd())
    with tracked(args.name) as tracker:
        from lori_core.pipeline import params_file
        from studies import stages

        if params_file.PARAMS.is_file():
            params_file.load()  # loads the extensions that a point may need
        stages.run(args.name, tracker)
    return 0
