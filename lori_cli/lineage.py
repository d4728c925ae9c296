"""From an artifact back to its data: `lori why`, `lori diff`, `lori restore`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lori_cli import given
from lori_cli.adapters import add_force
from lori_core.core.errors import LoriError

NAMES = (
    "X is a path, a stage, or either at a commit (artifacts/merged/concat@HEAD~1); an MLflow run; "
    "a registered model (models:/NAME/3, models:/NAME@champion); for diff also a commit, or "
    "another workspace's folder."
)


def add(commands: Any) -> None:
    """Add the commands to the parser."""
    why = commands.add_parser(
        "why",
        help="say what an artifact was made from, down to its data, and whether it still is that",
        description="The tree from an artifact to adapters, masks, calibrations and data, with "
        "parameters, scores, and who made it where; each node marked: here, in the cache, in the "
        f"remote, or gone. Every file of it that is here is checked against its hash, and what was "
        f"measured of it; dvc.lock against dvc.yaml. {NAMES}",
        epilog="exit code 1 where something is not what was made. Without X: everything",
    )
    why.add_argument("name", nargs="?", metavar="X", type=given.word)
    why.add_argument("--json", action="store_true", help="for machines")
    why.add_argument("--no-remote", action="store_true", help="do not ask the remote")
    why.add_argument(
        "--no-verify",
        action="store_true",
        help="do not read the artifacts' bytes; scores are checked all the same",
    )
    why.set_defaults(function=_why)
    diff = commands.add_parser(
        "diff",
        help="name the smallest set of inputs in which two artifacts differ",
        description="Parameters, rows of data, sources, code, base model: only what differs, each "
        f"once. {NAMES}",
    )
    diff.add_argument("first", metavar="X", type=given.word)
    diff.add_argument("second", metavar="Y", type=given.word)
    diff.add_argument("--json", action="store_true", help="for machines")
    diff.set_defaults(function=_diff)
    compare = commands.add_parser(
        "compare",
        help="put models side by side: tasks by models, with intervals and paired tests",
        description="From the verdicts that their evaluations kept, on the items that both were "
        f"asked; the first is what the others are held to. {NAMES}",
        epilog="example: lori compare artifacts/merged/linear artifacts/merged/concat",
    )
    compare.add_argument(
        "names", nargs="+", metavar="X", type=given.word, help="or a folder with <task>.jsonl"
    )
    compare.add_argument(
        "-o", "--out", type=given.path, default=Path("compare"), help="default: compare"
    )
    add_force(compare)
    compare.set_defaults(function=_compare)
    restore = commands.add_parser(
        "restore",
        help="write an artifact's exact bytes, from the cache or the remote",
        description=f"Every file's MD5 is checked. {NAMES}",
    )
    restore.add_argument("name", metavar="X", type=given.word)
    restore.add_argument("out", type=given.path, metavar="OUT", help="a path that is not there yet")
    add_force(restore)
    restore.set_defaults(function=_restore)


def _why(args: argparse.Namespace) -> int:
    import json

    from flows.lineage import text as lineage_text
    from flows.lineage import why
    from flows.lineage.verification.verify import verify
    from flows.versioning.dvc.damage import check_files

    check_files(Path(), definition=False)
    named = why.resolve(args.name or ".", Path())
    lineage = why.lineage_of(named, remote=not args.no_remote)
    whole = named.snapshot.here and not args.no_verify
    problems = verify(lineage) if whole else lineage.problems
    if args.json:
        print(json.dumps(lineage_text.as_json(lineage, problems), indent=2))
    else:
        print("\n".join(lineage_text.as_text(lineage, problems)))
    if problems:
        files = ", ".join(dict.fromkeys(problem.name for problem in problems))
        raise LoriError(f"not what was made: {files}")
    return 0


def _diff(args: argparse.Namespace) -> int:
    import json

    from flows.lineage import difference as lineage_diff
    from flows.lineage import why
    from flows.versioning.dvc.damage import check_files

    check_files(Path(), definition=False)
    found = lineage_diff.diff(why.resolve(args.first, Path()), why.resolve(args.second, Path()))
    if args.json:
        print(json.dumps([difference.as_dict() for difference in found], indent=2))
    else:
        print("\n".join(str(difference) for difference in found) or "no input differs")
    return 0


def _compare(args: argparse.Namespace) -> int:
    from flows.serving.compare import compare
    from lori_core.report import side_by_side

    print("\n".join(side_by_side.text(compare(args.names, Path(), args.out, force=args.force))))
    print(f"{args.out}: index.html, compare.md, compare.json; lori track sends them to MLflow")
    return 0


def _restore(args: argparse.Namespace) -> int:
    from flows.lineage import why
    from flows.versioning.dvc.damage import check_files

    check_files(Path(), definition=False)
    name, size = why.restore(args.name, args.out, Path(), force=args.force)
    print(f"{args.out}: {name}, {size:,} bytes, each file's MD5 checked")
    return 0
