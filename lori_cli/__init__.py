"""The `lori` command; heavy imports stay inside the commands, so `lori --help` is fast."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from lori_core import __version__
from lori_core.core.errors import InputError, LoriError, one_line
from lori_core.core.processes import stopping

#: Commands that continue from where they stopped when they run again.
_RESUMABLE = ("run", "pull", "stage", "point", "experiment", "track")
#: Commands of `dvc.yaml`, which run in a process forked from the fork server if there is one.
_FORKED = ("stage", "point")


class _Parser(argparse.ArgumentParser):
    """Argument parser that reports a wrong command line as an `InputError`."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.prog}: {message} ({self.prog} --help lists what is allowed)")


def _parser() -> argparse.ArgumentParser:
    from lori_cli import (
        adapters,
        evaluation,
        experiments,
        extraction,
        lineage,
        listings,
        pipeline,
        planning,
        serving,
        starting,
    )
    from lori_cli.preflight import interference

    parser = _Parser(
        prog="lori",
        description="Train, merge and keep safe many sparse task adapters on one language model.",
        epilog="Start with: lori run, or lori init for your own data. params.yaml configures a "
        "run; profiles/ has ready-made configurations. Exit codes: 0 done, 1 the work failed, 2 "
        "the input was wrong, 130 or 143 stopped by Ctrl-C or SIGTERM.",
    )
    parser.add_argument("--version", action="version", version=f"lori {__version__}")
    parser.add_argument("--debug", action="store_true", help="show a traceback with an error")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for group in (
        pipeline,
        planning,
        listings,
        adapters,
        interference,
        extraction,
        evaluation,
        experiments,
        lineage,
        serving,
        starting,
    ):
        group.add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code (130 or 143 if a signal stopped it).

    Args:
        argv: the command line without the program's name; `sys.argv[1:]` if None.
    """
    # Handle signals before the slow imports.
    with stopping.handled(owned=argv is None):
        args = argparse.Namespace(command="", debug=False)
        try:
            code = _run(argv, args)
        except BaseException as error:
            if stopping.stop_exit_code() is None and not isinstance(error, KeyboardInterrupt):
                raise
            if args.debug:
                sys.excepthook(type(error), error, error.__traceback__)
            code = 130
        stopped = stopping.stop_exit_code() or (130 if code == 130 else None)
        if stopped is not None:
            names = [word for word in argv or sys.argv[1:] if not word.startswith("-")]
            hint = "; run again to go on" if names[:1] and names[0] in _RESUMABLE else ""
            print(f"lori: stopped{hint}", file=sys.stderr)
        return stopped or code


def _run(argv: Sequence[str] | None, args: argparse.Namespace) -> int:
    """Run a command and return its exit code; parse its arguments into `args`."""
    _fork(list(sys.argv[1:] if argv is None else argv))
    from flows.environment import quiet_libraries
    from lori_core.core.redaction import redact_logs, redacted_streams

    quiet_libraries()
    redact_logs()  # handlers that were set up before this may write secrets

    with redacted_streams():
        return _command(argv, args)


def _fork(words: list[str]) -> None:
    """Run a stage in a process forked from the fork server, and exit with its exit code.

    Return if the command is no stage or there is no server. This process only waits for the other
    one, so it imports nothing more and leaves the check of the arguments to it.
    """
    command = [word for word in words if word != "--debug"][:1]
    if not command or command[0] not in _FORKED:
        return
    from lori_core.core.processes.child import die_with_parent
    from lori_core.core.processes.forked import run_in_fork_server

    if "DVC_STAGE" in os.environ:
        die_with_parent()
    code = run_in_fork_server("lori_cli", words)
    if code is not None:
        raise SystemExit(code)  # the other process has printed its messages already


def _command(argv: Sequence[str] | None, args: argparse.Namespace) -> int:
    """Run a command; print its error in one line and return its exit code."""
    try:
        _parser().parse_args(argv, args)
        code: int = args.function(args)
        return code
    except LoriError as error:
        return _failed(error, args)
    except BrokenPipeError:  # the reader of our output closed the pipe, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        from lori_core.core import faults

        known = faults.explained(error)
        if known is not None:
            return _failed(known, args)
        if args.debug or args.command in ("stage", "point"):
            raise
        message = one_line(f"{type(error).__name__}: {error}")
        print(f"error: {message} (--debug shows the traceback)", file=sys.stderr)
        return 1


def _failed(error: LoriError, args: argparse.Namespace) -> int:
    if (
        stopping.stop_exit_code() is not None
    ):  # the signal caused this error, which is not a failure
        return error.exit_code
    if args.debug:
        raise error
    print(f"error: {one_line(error)}", file=sys.stderr)
    return error.exit_code
