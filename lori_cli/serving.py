"""What is served, and what is sent: `lori gate`, `rollback`, `register`, `card`, `push`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lori_cli import given
from lori_cli.adapters import add_force
from lori_core.core.errors import LoriError


def add(commands: Any) -> None:
    """Add the commands to the parser."""
    gate = commands.add_parser(
        "gate",
        help="judge a model by the rules of params.yaml; one that passes becomes champion",
        description="Compares it with the champion on the same items, task by task, and applies "
        "the rules of `gate` in params.yaml. One that passes is registered in MLflow and gets the "
        "alias champion; the champion until then is kept as previous.",
        epilog="exit code 1 where it is refused; gate/verdict.md says why, with examples",
    )
    gate.add_argument(
        "name", nargs="?", metavar="X", type=given.word, help="default: gate.candidate, or a merge"
    )
    gate.set_defaults(function=_gate)
    rollback = commands.add_parser(
        "rollback", help="make the model before the champion champion again"
    )
    rollback.add_argument(
        "model", nargs="?", type=given.word, help="default: gate.model of params.yaml"
    )
    rollback.set_defaults(function=_rollback)
    register = commands.add_parser(
        "register",
        help="put an adapter into MLflow's registry, without making it champion",
        description="Only the adapter's own bytes move: a PEFT folder, how to serve it, its card.",
    )
    register.add_argument(
        "name", metavar="X", type=given.word, help="an adapter, as lori why takes it"
    )
    register.add_argument(
        "--as", dest="model", type=given.word, metavar="MODEL", help="default: from its path"
    )
    register.set_defaults(function=_register)
    card = commands.add_parser("card", help="print an adapter's model card")
    card.add_argument("name", metavar="X", type=given.word, help="an adapter, as lori why takes it")
    card.add_argument(
        "--people", action="store_true", help="name who made each part, on which machine"
    )
    card.set_defaults(function=_card)
    _add_push(commands)


def _add_push(commands: Any) -> None:
    push = commands.add_parser(
        "push",
        help="send an adapter with its model card to a model hub",
        description="Nothing is sent but what is asked for here: a stock PEFT folder and its card. "
        "The token is yours, from HF_TOKEN or hf auth login.",
    )
    push.add_argument("name", metavar="X", type=given.word, help="an adapter of this workspace")
    push.add_argument("repository", type=given.repository, metavar="OWNER/NAME")
    push.add_argument("--public", action="store_true", help="for all to see; private without it")
    push.add_argument(
        "--dry-run", type=given.path, metavar="OUT", help="write the folder, send nothing"
    )
    add_force(push)
    push.set_defaults(function=_push)


def _push(args: argparse.Namespace) -> int:
    from flows.serving import hub
    from lori_core.pipeline import params_file

    params = params_file.load()
    if args.dry_run:
        hub.prepare(args.name, Path(), params, args.dry_run, force=args.force)
        print(f"{args.dry_run}: what would be sent to {args.repository}; nothing was")
        return 0
    print(hub.push(args.name, args.repository, Path(), params, private=not args.public))
    return 0


def _gate(args: argparse.Namespace) -> int:
    from flows.serving.gate import run_gate
    from lori_core.pipeline import params_file

    outcome = run_gate(Path(), params_file.load(), args.name)
    print("\n".join(outcome.lines()))
    if not outcome.passed:
        rules = ", ".join(finding.rule for finding in outcome.verdict.refusals)
        raise LoriError(f"{outcome.verdict.candidate} is refused by {rules} (gate/verdict.md)")
    return 0


def _rollback(args: argparse.Namespace) -> int:
    from flows.tracking.registry import Registry
    from lori_core.pipeline import params_file

    name = args.model or params_file.load().gate.model
    old, new = Registry(Path(), make=False).roll_back(name)
    print(f"{new} is champion again; {old} is no longer served")
    return 0


def _register(args: argparse.Namespace) -> int:
    from flows.serving import gate
    from flows.serving.evidence import artifact_here, check_settings, verified
    from flows.serving.packaging import check_adapter
    from flows.tracking.registry import Registry
    from lori_core.pipeline import params_file

    params = params_file.load()
    lineage, node = verified(artifact_here(args.name, Path(), "be registered"), "be registered")
    check_adapter(node, "be registered")
    check_settings(lineage, params, "be registered")
    name = args.model or f"{params.gate.model}-{node.name.removeprefix('artifacts/')}"
    version = gate.register(Path(), params, lineage, node, Registry(Path()), name.replace("/", "-"))
    print(
        f"{version}: {node.name}; serve it with mlflow models serve -m models:/{version.name}/"
        f"{version.number} --env-manager local"
    )
    return 0


def _card(args: argparse.Namespace) -> int:
    from flows.serving.card import of_word

    print(of_word(args.name, Path(), people=args.people), end="")
    return 0
