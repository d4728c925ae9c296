"""The `lori` command. Heavy imports happen inside the commands, so that help answers at once."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from lori_core import __version__
from lori_core.errors import LoriError

_QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "true",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lori",
        description="Train, merge and keep safe many sparse task adapters on one language model.",
        epilog="A first run: lori run. What a run does stands in params.yaml; whole other runs "
        "stand in profiles/. Exit codes: 0 done, 1 the work failed, 2 the input was wrong.",
    )
    parser.add_argument("--version", action="version", version=f"lori {__version__}")
    parser.add_argument("--debug", action="store_true", help="show a traceback with an error")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    run = commands.add_parser(
        "run",
        help="run the whole pipeline, redoing only what changed",
        description="Pull the data, then run every stage of dvc.yaml that is not up to date, "
        "through the Prefect flow, in this process; no server is needed.",
        epilog="examples: lori run --profile smoke   |   lori run --set lori.rank=16 "
        "--set tasks.math.training.learning_rate=1e-3",
    )
    _add_changes(run)
    plan = commands.add_parser(
        "plan", help="say which stages would run, and why", description="Runs nothing."
    )
    plan.add_argument("--json", action="store_true", help="for machines")
    commands.add_parser("pull", help="bring in data and base model, and pin the data with DVC")
    stage = commands.add_parser(
        "stage",
        help="run one stage here and now (what dvc.yaml calls)",
        description="Reads params.yaml and the stage's inputs, writes its outputs and metrics.",
    )
    stage.add_argument("name", metavar="NAME", help="calibrate, mask, train, merge, …")
    stage.add_argument("item", metavar="ITEM", nargs="?", help="a task, or a merge's name")
    commands.add_parser("report", help="print the last run's table and where to look next")
    commands.add_parser("track", help="send to MLflow what has not been sent yet")
    export = commands.add_parser("export", help="write an adapter in another form")
    export.add_argument("adapter", type=Path, metavar="ADAPTER", help="an adapter's folder")
    export.add_argument("--to", choices=["peft"], required=True, help="a stock PEFT adapter")
    export.add_argument("out", type=Path, metavar="OUT", help="the folder to write")
    inspect = commands.add_parser("inspect", help="say what an adapter or mask is")
    inspect.add_argument("path", type=Path, metavar="PATH")
    profiles = commands.add_parser("profiles", help="list the profiles there are")
    profiles.set_defaults(command="profiles")
    return parser


def _add_changes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profile", help="make params.yaml a copy of profiles/PROFILE.yaml")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one key of params.yaml, as in lori.rank=16; may be repeated",
    )


def _run(args: argparse.Namespace) -> int:
    from flows.lock import pipeline_lock
    from flows.run import nothing_to_do, run_in_process
    from lori_core import params_file

    workspace = Path.cwd()
    with pipeline_lock(workspace, print):
        for line in params_file.apply(params_file.PARAMS, args.profile, args.set):
            print(line)
        _pull(args)
        unchanged = nothing_to_do(workspace)
        if unchanged:
            print(unchanged)
        code = 0 if unchanged else run_in_process(workspace)
    if code == 0:
        _report(args)
    return code


def _pull_data() -> None:
    from lori_core import models, params_file
    from lori_core.data import sources

    params = params_file.load()
    _check_disk()
    models.prepare(params.model)
    for line in sources.pull(params):
        print(line)


def _check_disk() -> None:
    import shutil

    from lori_core.errors import InputError

    free = shutil.disk_usage(".").free
    if free < 2**30:
        raise InputError(
            f"{Path.cwd()}: {free / 2**20:.0f} MiB free; a run needs 1 GiB (free some space)"
        )


def _pull(args: argparse.Namespace) -> int:
    _pull_data()
    from flows.data import pin

    pin(Path.cwd())
    return 0


def _plan(args: argparse.Namespace) -> int:
    import json

    from flows.graph import plan
    from lori_core import params_file

    params_file.load()
    planned = plan(Path.cwd())
    if args.json:
        print(json.dumps(dict(planned.stale), indent=2))
        return 0
    for stage in planned.stages:
        why = planned.stale.get(stage.name)
        print(f"{'run ' if why else 'keep'}  {stage.name:28} {'; '.join(why or ['unchanged'])}")
    return 0


def _stage(args: argparse.Namespace) -> int:
    from lori_core.tracking import stage_tracker

    if "DVC_STAGE" in os.environ:
        from lori_core.process import die_with_parent

        die_with_parent()
    tracker = stage_tracker(f"{args.name}@{args.item}" if args.item else args.name)
    try:
        from lori_core import params_file, stages

        stages.run(params_file.load(), args.name, args.item, tracker)
    except LoriError as error:
        tracker.error(str(error), error.exit_code)
        raise
    except Exception as error:
        tracker.error(f"{type(error).__name__}: {error}", 1)
        raise
    return 0


def _report(args: argparse.Namespace) -> int:
    from lori_core.report import summary

    summary.show(Path("report"))
    return 0


def _track(args: argparse.Namespace) -> int:
    from flows.tracking import ship_all

    try:
        sent = ship_all(Path.cwd(), warn=print)
    except LoriError:
        raise
    except Exception as error:  # whatever the server's client raises, the rows stay where they are
        first = str(error).strip().splitlines()[0]
        raise LoriError(f"MLflow cannot be reached: {first}; the rows are kept in .lori") from error
    print(f"sent what {sent} rows files held")
    return 0


def _export(args: argparse.Namespace) -> int:
    from lori_core import adapter

    adapter.export_peft(adapter.load(args.adapter), args.out)
    print(f"{args.out}: a stock PEFT adapter; load it with PeftModel.from_pretrained")
    return 0


def _inspect(args: argparse.Namespace) -> int:
    from lori_core import inspection

    inspection.show(args.path)
    return 0


def _profiles(args: argparse.Namespace) -> int:
    from lori_core import params_file

    print("\n".join(params_file.profiles()))
    return 0


COMMANDS = {
    "run": _run,
    "plan": _plan,
    "pull": _pull,
    "stage": _stage,
    "report": _report,
    "track": _track,
    "export": _export,
    "inspect": _inspect,
    "profiles": _profiles,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    # Libraries announce changes of libraries to whoever writes code, not to who runs this command.
    warnings.simplefilter("ignore", FutureWarning)
    args = _parser().parse_args(argv)
    try:
        return COMMANDS[args.command](args)
    except LoriError as error:
        if args.debug:
            raise
        print(f"lori: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("lori: interrupted; run again to continue", file=sys.stderr)
        return 130
    except Exception as error:
        if args.debug or args.command == "stage":
            raise
        print(f"lori: {type(error).__name__}: {error} (--debug shows where)", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
