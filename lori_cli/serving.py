"""The gate, the model registry and model hubs: `lori gate`, `rollback`, `register`, `push` …"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lori_cli import given
from lori_core.core.errors import LoriError

if TYPE_CHECKING:
    from flows.serving.gate import Outcome


def add(commands: Any) -> None:
    """Add the commands to the parser."""
    gate = commands.add_parser(
        "gate",
        help="check a candidate by the rules of params.yaml; make it champion if it passes",
        description="Compare the candidate with the champion on the same items, task by task, and "
        "apply the rules of `gate` in params.yaml. A candidate that passes is registered in MLflow "
        "and gets the alias champion; the champion before it gets the alias previous.",
        epilog="Exit code 1 if the candidate is refused; gate/verdict.md gives the reasons, with "
        "examples.",
    )
    gate.add_argument(
        "name",
        nargs="?",
        metavar="X",
        type=given.name_or_path,
        help="the candidate (default: gate.candidate of params.yaml, otherwise a merge)",
    )
    gate.set_defaults(function=_gate)
    rollback = commands.add_parser("rollback", help="make the previous champion the champion again")
    rollback.add_argument(
        "model", nargs="?", type=given.name_or_path, help="default: gate.model of params.yaml"
    )
    rollback.set_defaults(function=_rollback)
    register = commands.add_parser(
        "register",
        help="register an adapter in MLflow's model registry, without making it champion",
        description="The registered model contains the adapter as a PEFT folder, the code that "
        "serves it and its model card; it does not contain the base model's weights.",
    )
    register.add_argument(
        "name",
        metavar="X",
        type=given.name_or_path,
        help="an adapter, in a form that lori why accepts",
    )
    register.add_argument(
        "--as",
        dest="model",
        type=given.name_or_path,
        metavar="MODEL",
        help="the name of the registered model (default: from gate.model and the path)",
    )
    register.set_defaults(function=_register)
    card = commands.add_parser("card", help="print the model card of an adapter")
    card.add_argument(
        "name",
        metavar="X",
        type=given.name_or_path,
        help="an adapter, in a form that lori why accepts",
    )
    card.add_argument(
        "--people", action="store_true", help="name the user and the machine of each stage"
    )
    card.set_defaults(function=_card)
    _add_serve_dir(commands)
    _add_push(commands)


def _add_serve_dir(commands: Any) -> None:
    serve_dir = commands.add_parser(
        "serve-dir",
        help="keep a folder of PEFT adapters by name and alias, for vLLM and SGLang",
        description="Write the adapters of all tasks and merges, and the versions with the aliases "
        "champion and previous, as PEFT folders below OUT. lori gate and lori rollback update OUT "
        "from then on; each name changes in one step.",
    )
    serve_dir.add_argument("out", type=given.path, metavar="OUT", help="the folder to write")
    serve_dir.add_argument(
        "--base",
        type=given.name_or_path,
        metavar="NAME",
        help="the base model as the server was started with (default: as the adapters name it)",
    )
    serve_dir.set_defaults(function=_serve_dir)


def _serve_dir(args: argparse.Namespace) -> int:
    from flows.serving.serve_dir import serve_dir
    from lori_core.pipeline import params_file

    lines = serve_dir(Path(), params_file.load(), args.out, args.base)
    print("\n".join(lines or [f"{args.out}: is up to date"]))
    return 0


def _add_push(commands: Any) -> None:
    push = commands.add_parser(
        "push",
        help="upload an adapter with its model card to a model hub",
        description="Upload a stock PEFT folder and its model card, and nothing else. The token "
        "is read from HF_TOKEN or from hf auth login.",
    )
    push.add_argument(
        "name", metavar="X", type=given.name_or_path, help="an adapter of this workspace"
    )
    push.add_argument("repository", type=given.repository, metavar="OWNER/NAME")
    push.add_argument(
        "--public", action="store_true", help="make the repository public (default: private)"
    )
    push.add_argument(
        "--dry-run", type=given.path, metavar="OUT", help="write the folder to OUT; upload nothing"
    )
    given.add_force(push)
    push.set_defaults(function=_push)


def _push(args: argparse.Namespace) -> int:
    from flows.serving import hub
    from lori_core.pipeline import params_file

    params = params_file.load()
    if args.dry_run:
        hub.prepare(args.name, Path(), params, args.dry_run, force=args.force)
        print(f"{args.dry_run}: the folder that would be sent to {args.repository}; nothing was")
        return 0
    print(hub.push(args.name, args.repository, Path(), params, private=not args.public))
    return 0


def judge(candidate: str | None = None) -> Outcome:
    """Run the gate in the current folder and print its result; return it.

    Args:
        candidate: the artifact; by default that of `gate.candidate`.
    """
    from flows.serving.gate import run_gate
    from lori_core.pipeline import params_file

    outcome = run_gate(Path(), params_file.load(), candidate)
    print("\n".join(outcome.lines()))
    return outcome


def _gate(args: argparse.Namespace) -> int:
    outcome = judge(args.name)
    if not outcome.passed:
        rules = ", ".join(finding.rule for finding in outcome.verdict.failed)
        raise LoriError(f"{outcome.verdict.candidate} is refused by {rules} (gate/verdict.md)")
    return 0


def _rollback(args: argparse.Namespace) -> int:
    from flows.serving.serve_dir import update_all
    from flows.tracking.registry import Registry
    from lori_core.pipeline import params_file

    name = args.model or params_file.load().gate.model
    old, new = Registry(Path(), make=False).roll_back(name)
    lines = [f"{new} is champion again; {old} is no longer served", *update_all(Path(), name)]
    print("\n".join(lines))
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
