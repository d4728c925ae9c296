"""Commands that run the pipeline, or show its plan, its results and its settings."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lori_cli import given, serving
from lori_core.core.errors import InputError, LoriError

if TYPE_CHECKING:
    from lori_core.config import Params
    from lori_core.core.tracking import RunTracker


def add(commands: Any) -> None:
    """Add the commands to the parser."""
    run = commands.add_parser(
        "run",
        help="run the whole pipeline; stages that are up to date are skipped",
        description="Pull the data, then run each stage of dvc.yaml that is not up to date with "
        "the Prefect flow, in this process; no server is needed.",
        epilog="examples: lori run --profile smoke   |   lori run --set lori.rank=16 "
        "--set tasks.math.training.learning_rate=1e-3",
    )
    add_changes(run)
    run.add_argument(
        "--gate",
        action="store_true",
        help="afterwards, judge the result as lori gate does, and promote it if it passes; a "
        "refused result is reported and is not a failure of the run",
    )
    run.set_defaults(function=_run)
    pull = commands.add_parser(
        "pull",
        help="download the data and the base model; pin the data with DVC",
        description="Read the sources of all tasks and write data/. With --show, also print some "
        "examples as the model will read them in training, with the learned part in colour.",
        epilog="example: lori pull --show 3",
    )
    add_changes(pull)
    pull.add_argument(
        "--show",
        type=given.integer(1, 1000),
        metavar="N",
        help="print the first N examples of each task with the tokens that are learned",
    )
    pull.set_defaults(function=_pull)
    stage = commands.add_parser(
        "stage",
        help="run one stage in this process (the command of dvc.yaml)",
        description="Read params.yaml and the stage's inputs; write its outputs and metrics.",
    )
    stage.add_argument(
        "name", type=given.name_or_path, metavar="NAME", help="calibrate, mask, train, merge, …"
    )
    stage.add_argument("item", metavar="ITEM", nargs="?", help="a task, or the name of a merge")
    stage.set_defaults(function=_stage)
    report = commands.add_parser(
        "report", help="print the table of the last run and the paths of its report"
    )
    report.add_argument("--open", action="store_true", help="open the page in the browser")
    report.set_defaults(function=_report)
    track = commands.add_parser("track", help="send metrics that were not sent yet to MLflow")
    track.set_defaults(function=_track)


def add_changes(parser: argparse.ArgumentParser, scope: str = "") -> None:
    """Add the options that change params.yaml; `scope` begins their help."""
    parser.add_argument(
        "--profile",
        type=given.name_or_path,
        help=f"{scope}replace params.yaml by profiles/PROFILE.yaml",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"{scope}change one key of params.yaml, such as lori.rank=16; may be repeated",
    )


def _run(args: argparse.Namespace) -> int:
    from flows.lock import pipeline_lock
    from flows.run import fork_server, nothing_to_do, plan, run_in_process

    workspace = Path.cwd()
    check_machine(args, server=True)
    check_base(args)  # before the lock, so that a refused run writes nothing
    with pipeline_lock(workspace, print):
        check_changes(args)
        apply_changes(args)
        with fork_server(workspace, first_run=True):
            pull()
            planned = plan(workspace)
            unchanged = nothing_to_do(planned)
            if unchanged:
                print(unchanged)
            code = 0 if unchanged else run_in_process(workspace, prepared=planned)
    if code == 0:
        _report(args)
        if args.gate:
            print("\nGate:")
            serving.judge()
    return code


def apply_changes(args: argparse.Namespace) -> None:
    """Change params.yaml as the options ask for, and print each change."""
    from lori_core.pipeline import params_file

    for line in params_file.apply(params_file.PARAMS, args.profile, args.set):
        print(line)


def check_changes(args: argparse.Namespace) -> None:
    """Check that the base model supports the changed params.yaml, without writing the changes.

    Raises:
        InputError: as `limits.check`; or the base model or a data source is not available.
    """
    if args.profile or args.set:
        check_base(args)


def check_base(args: argparse.Namespace) -> None:
    """Download the base model and check that it supports the run; raises as `check_changes`."""
    from lori_core.pipeline import params_file

    _prepare(params_file.changed(params_file.PARAMS, args.profile, args.set)[0])


def _prepare(params: Params) -> tuple[Path, str]:
    """Download the base model and check that it supports the run.

    Returns:
        The model's folder, and the digest of the checked parameters for `limits.remember`.
    """
    from lori_core.data.sources import pulling
    from lori_core.methods import limits
    from lori_core.models import base_model

    pulling.check(params)
    folder = base_model.prepare(params.model)
    return folder, limits.check_once(params, folder)


def _pull_data(trained: bool) -> tuple[Params, Path]:
    """Download the data and the base model; return the parameters and the model's folder."""
    from lori_core.methods import limits
    from lori_core.pipeline import params_file
    from lori_core.pipeline.stages import pull as pull_stage

    params = params_file.load()
    folder, checked = _prepare(params)
    for line in pull_stage.pull(params, folder, trained=trained):
        print(line)
    limits.remember(checked)
    return params, folder


def check_machine(args: argparse.Namespace, *, server: bool) -> None:
    """Refuse parameters, a folder, a machine or a server with which a run would fail.

    Nothing is written.
    """
    from flows import machine
    from flows.server.services import running_api
    from lori_core.pipeline import params_file

    params, _ = params_file.changed(params_file.PARAMS, args.profile, args.set)
    machine.check(Path.cwd(), params.model_dump())
    if server:
        running_api(Path.cwd())


def pull(*, trained: bool = True, pinned: bool = True) -> tuple[Params, Path]:
    """Download the data and the base model, and pin the data with DVC.

    Args:
        trained: whether each task needs training examples.
        pinned: whether to pin the data; False where there is no DVC.

    Returns:
        The parameters of the run, and the base model's folder.
    """
    from lori_core.pipeline import params_file

    for line in params_file.apply(params_file.PARAMS, None, []):
        print(line)
    if not pinned:
        return _pull_data(trained)
    from flows.versioning.data import pin
    from flows.versioning.dvc import code_files, definition

    for line in definition.follow(Path.cwd(), params_file.load()):
        print(line)
    for line in code_files.write(Path.cwd()):
        print(line)

    pulled = _pull_data(trained)
    pin(Path.cwd())
    return pulled


def _pull(args: argparse.Namespace) -> int:
    from flows import machine
    from lori_core.pipeline import params_file

    params, _ = params_file.changed(params_file.PARAMS, args.profile, args.set)
    machine.check(Path.cwd(), params.model_dump())
    check_changes(args)
    apply_changes(args)
    params, base = pull(trained=False)
    if args.show:
        from lori_cli.printing.shown_rows import show

        show(params, base, args.show)
    return 0


def _stage(args: argparse.Namespace) -> int:
    from flows import machine

    machine.check_for_stage(Path.cwd())
    words = ["stage", args.name, *([args.item] if args.item else [])]
    stage = f"{args.name}@{args.item}" if args.item else args.name
    with tracked(stage) as tracker:
        from lori_core.config import training_overrides
        from lori_core.core.processes import allotment
        from lori_core.models import base_model
        from lori_core.pipeline import params_file, running
        from lori_core.training import distributed

        allotment.apply_limits()
        params = params_file.load()
        _check_followed(params, args.name)
        base_model.leave_out_unused(params.model)
        count = training_overrides.processes(params.model_dump(), stage)
        with distributed.processes(count, ["lori_cli", *words]):
            running.run(params, args.name, args.item, tracker)
    return 0


def _check_followed(params: Params, stage: str) -> None:
    """Check that DVC would notice changes of the stage's code, extensions and harness tasks.

    Raises:
        InputError: `code/<stage>.json` or `dvc.yaml` is of another version, or `dvc.yaml` does not
            list an extension or the folder of the harness's task files.
    """
    from flows.versioning.dvc import code_files, definition
    from lori_core.core.stage_dependencies import STAGES

    code_files.check(Path.cwd(), stage)
    for entry in definition.lacking(Path.cwd(), stage):
        raise InputError(
            f"dvc.yaml: stage {stage} does not depend on {entry}, so DVC would not notice a change "
            "of it; run lori run"
        )
    if stage in STAGES:
        for path in definition.missing(Path.cwd(), params, stage):
            raise InputError(
                f"dvc.yaml: stage {stage} does not depend on {path}, so DVC would not notice a "
                "change of it; run lori run, or python -m flows.versioning.dvc.definition"
            )


@contextmanager
def tracked(stage: str) -> Iterator[RunTracker]:
    """Yield a stage's tracker; if the stage fails, report the error to the tracker."""
    from lori_core.core import faults
    from lori_core.core.processes import stopping
    from lori_core.core.tracking import ROWS_VARIABLE, NullTracker, stage_tracker
    from lori_core.training import distributed

    # In distributed training, only rank 0 reports.
    silent = os.environ.get(distributed.RANK, "0") != "0"
    tracker: RunTracker = NullTracker() if silent else stage_tracker(stage)
    try:
        yield tracker
    except InputError as error:
        if os.environ.get(ROWS_VARIABLE):
            _report_error(tracker, str(error), error.exit_code)
        else:
            tracker.forget()
        raise
    except LoriError as error:
        _report_error(tracker, str(error), error.exit_code)
        raise
    except Exception as error:
        known = faults.explained(error)
        if known is None:
            _report_error(tracker, f"{type(error).__name__}: {error}", 1)
            raise
        _report_error(tracker, str(known), known.exit_code)
        raise known from error
    except stopping.Stopped:
        _report_error(tracker, "stopped", stopping.stop_exit_code() or 130)
        raise


def _report_error(tracker: RunTracker, message: str, exit_code: int) -> None:
    """Report a stage's error to its tracker, unless the disk is full."""
    with suppress(OSError):
        tracker.error(message, exit_code)


def _report(args: argparse.Namespace) -> int:
    from flows.lineage.verification.verify import check_output
    from lori_core.report import summary

    check_output(Path(), "report")
    summary.show(Path("report"))
    if getattr(args, "open", False):
        _open(Path("report") / "index.html")
    return 0


def _open(page: Path) -> None:
    """Open a page in the user's browser.

    Raises:
        LoriError: this machine has no browser.
    """
    import webbrowser

    if not webbrowser.open(page.resolve().as_uri()):
        raise LoriError(f"{page}: no browser was found (set BROWSER); copy the page's address")


def _track(args: argparse.Namespace) -> int:
    from flows.serving.adapter_models import publisher
    from flows.tracking.sending import ship_all
    from flows.versioning.dvc.damage import check_files
    from lori_core.core import faults

    check_files(Path(), definition=False)
    try:
        sent = ship_all(Path.cwd(), print, publisher(Path.cwd(), print))
    except LoriError:
        raise
    except Exception as error:  # the client may raise anything; the rows remain in .lori
        known = faults.explained(error)
        if known is not None:
            raise known from error
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise LoriError(f"MLflow cannot be reached: {first}; the rows are kept in .lori") from error
    print(f"sent the metrics of {sent} files to MLflow")
    return 0
