"""The `lori` command. Heavy imports happen inside the commands, so that help answers at once."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Sequence

from flows.environment import quiet_environment
from lori_core import __version__
from lori_core.cli import adapters, evaluation, experiments, lineage, pipeline, serving
from lori_core.errors import LoriError
from lori_core.redaction import redacted_streams

_QUIET = {
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
    for group in (pipeline, adapters, evaluation, experiments, lineage, serving):
        group.add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code."""
    quiet_environment()
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    # Libraries announce changes of libraries to whoever writes code, not to who runs this command.
    warnings.simplefilter("ignore", FutureWarning)
    # On CPUs with bf16 it says, as soon as PEFT imports it, which faster kernels it would like.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    with redacted_streams():
        return _run(_parser().parse_args(argv))


def _run(args: argparse.Namespace) -> int:
    try:
        code: int = args.function(args)
        return code
    except LoriError as error:
        if args.debug:
            raise
        print(f"lori: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # whoever read our output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("lori: interrupted; run again to continue", file=sys.stderr)
        return 130
    except Exception as error:
        if args.debug or args.command in ("stage", "point"):
            raise
        print(f"lori: {type(error).__name__}: {error} (--debug shows where)", file=sys.stderr)
        return 1
