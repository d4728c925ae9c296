"""The `lori` command. Heavy imports happen inside the commands, so that help answers at once."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from lori_core import __version__
from lori_core.core.errors import InputError, LoriError, one_line
from lori_core.core.processes import stopping

#: Commands that go on where they stopped, or with what is left, when they run again.
_GO_ON = ("run", "pull", "stage", "point", "experiment", "track")


class _Parser(argparse.ArgumentParser):
    """Refuses a wrong command line in one line, as any other input."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.prog}: {message} ({self.prog} --help says what there is)")


def _parser() -> argparse.ArgumentParser:
    from lori_cli import adapters, evaluation, experiments, lineage, pipeline, serving

    parser = _Parser(
        prog="lori",
        description="Train, merge and keep safe many sparse task adapters on one language model.",
        epilog="A first run: lori run. What a run does stands in params.yaml; whole other runs "
        "stand in profiles/. Exit codes: 0 done, 1 the work failed, 2 the input was wrong, 130 or "
        "143 stopped by Ctrl-C or SIGTERM.",
    )
    parser.add_argument("--version", action="version", version=f"lori {__version__}")
    parser.add_argument("--debug", action="store_true", help="show a traceback with an error")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for group in (pipeline, adapters, evaluation, experiments, lineage, serving):
        group.add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code, 130 or 143 where a signal stopped it."""
    # Before anything is imported that takes time.
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
            given = [word for word in argv or sys.argv[1:] if not word.startswith("-")]
            again = "; run again to go on" if given[:1] and given[0] in _GO_ON else ""
            print(f"lori: stopped{again}", file=sys.stderr)
        return stopped or code


def _run(argv: Sequence[str] | None, args: argparse.Namespace) -> int:
    """Run a command and say in one line how it failed; `args` is filled."""
    from flows.environment import quiet_libraries
    from lori_core.core.redaction import redact_logs, redacted_streams

    quiet_libraries()
    redact_logs()  # a handler may have been given a stream, or a file, before

    with redacted_streams():
        return _command(argv, args)


def _command(argv: Sequence[str] | None, args: argparse.Namespace) -> int:
    try:
        _parser().parse_args(argv, args)
        code: int = args.function(args)
        return code
    except LoriError as error:
        return _failed(error, args)
    except BrokenPipeError:  # whoever read our output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        from lori_core.core import faults

        known = faults.explained(error)
        if known is not None:
            return _failed(known, args)
        if args.debug or args.command in ("stage", "point"):
            raise
        said = one_line(f"{type(error).__name__}: {error}")
        print(f"error: {said} (--debug shows where)", file=sys.stderr)
        return 1


def _failed(error: LoriError, args: argparse.Namespace) -> int:
    if stopping.stop_exit_code() is not None:  # what it broke off is no failure
        return error.exit_code
    if args.debug:
        raise error
    print(f"error: {one_line(error)}", file=sys.stderr)
    return error.exit_code
