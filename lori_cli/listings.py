"""Commands that list what there is: `lori sources`, `profiles`, `methods`, `doctor`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from lori_cli import given
from lori_cli.printing import tables


def add(commands: Any) -> None:
    """Add the commands to the parser."""
    methods = commands.add_parser(
        "methods",
        help="list the fine-tuning methods and what each costs on this base model",
        description="For the base model and the settings of `lori` in params.yaml: the number of "
        "parameters that each method trains, their share of the base model's, the memory of their "
        "float32 values, gradients and AdamW moments, and the size of the result. No weights are "
        "read, only shapes.",
    )
    methods.set_defaults(function=_methods)
    doctor = commands.add_parser(
        "doctor",
        help="check whether this machine is ready for a run, and how to fix what is not",
        description="Check versions, GPUs, disk, servers, remotes, clocks and locks; print a line "
        "for each. Changes nothing. Exit code 1 if a line is red.",
    )
    doctor.set_defaults(function=_doctor)
    profiles = commands.add_parser("profiles", help="list the profiles")
    profiles.set_defaults(function=_profiles)
    sources = commands.add_parser("sources", help="list the data sets that can be used by name")
    given.add_extension(sources)
    sources.set_defaults(function=_sources)
    for parser in (methods, doctor, profiles, sources):
        parser.add_argument("--json", action="store_true", help="print JSON")


def _methods(args: argparse.Namespace) -> int:
    from lori_core.methods import catalogue as methods
    from lori_core.models import base_model
    from lori_core.pipeline import params_file

    params = params_file.load()
    folder = base_model.prepare(params.model)
    size = base_model.outline(folder).num_parameters()
    rows = []
    for name, method in methods.METHODS.items():
        outline = base_model.outline(folder)  # each method changes its own
        cost = methods.cost(name, outline, params.lori, methods.options(name, {}, "methods"))
        rows.append(
            {
                "method": name,
                "trained_parameters": cost.trainable,
                "share_of_base": cost.trainable / size,
                "state_bytes": cost.state_bytes,
                "result_bytes": cost.artifact_bytes,
                "about": method.about,
                "share": f"{cost.trainable / size:.3%}",
                "state": f"{cost.state_bytes / 1e6:.1f} MB",
                "result": f"{cost.artifact_bytes / 1e6:.1f} MB",
            }
        )
    if args.json:
        shown = ("share", "state", "result")
        rows = [{key: row[key] for key in row if key not in shown} for row in rows]
    else:
        print(f"{params.model.name_or_path}: {size:,} parameters, rank {params.lori.rank}")
    columns = {
        "method": "method",
        "trained_parameters": "trained",
        "share": "of base",
        "state": "state",
        "result": "result",
        "about": "about",
    }
    tables.show(rows, as_json=args.json, columns=columns)
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from flows.doctor import checks as doctor

    findings = doctor.examine(Path.cwd())
    if not args.json:
        return doctor.show(findings, colour=sys.stdout.isatty())
    rows = doctor.as_rows(findings)
    tables.show(rows, as_json=True, columns={})
    return 0 if all(row["ok"] for row in rows) else 1


def _profiles(args: argparse.Namespace) -> int:
    from lori_core.pipeline import params_file

    rows = params_file.described()
    if args.json:
        tables.show(rows, as_json=True, columns={})
        return 0
    if not sys.stdout.isatty():  # for scripts: a name on each line
        print("\n".join(row["name"] for row in rows))
        return 0
    columns = {"name": "profile", "model": "base model", "tasks": "tasks", "about": "about"}
    tables.show(rows, as_json=False, columns=columns)
    return 0


def _sources(args: argparse.Namespace) -> int:
    from lori_core.data.sources.catalogue import describe
    from lori_core.registries import extensions

    extensions.load(args.extension, "--extension")
    rows = describe()
    columns = {
        "name": "source",
        "scorer": "scorer",
        "splits": "splits",
        "where": "where",
        "license": "licence",
        "gated": "gated",
        "purpose": "purpose",
    }
    tables.show(rows, as_json=args.json, columns=columns)
    return 0
