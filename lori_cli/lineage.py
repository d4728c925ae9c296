"""Lineage of artifacts: `lori why`, `lori diff`, `lori compare` and `lori restore`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lori_cli import given
from lori_core.core.errors import LoriError

#: The forms in which the commands accept an artifact; part of their help texts.
NAMES = (
    "X is a path, a stage, or either at a commit (artifacts/merged/concat@HEAD~1); an MLflow run; "
    "or a registered model (models:/NAME/3, models:/NAME@champion). diff also accepts a commit or "
    "the folder of another workspace."
)


def add(commands: Any) -> None:
    """Add the commands to the parser."""
    why = commands.add_parser(
        "why",
        help="show what an artifact was made from, down to its data, and verify its files",
        description="Print the tree from an artifact to its adapters, masks, calibrations and "
        "data, with parameters, scores, user and machine. Each node is marked as here, in the "
        "cache, in the remote, or gone. The files that are here are checked against their hashes, "
        f"the scores against their evaluations, and dvc.lock against dvc.yaml. {NAMES}",
        epilog="Exit code 1 if a file or a score differs from its record. Without X, all "
        "artifacts are shown.",
    )
    why.add_argument("name", nargs="?", metavar="X", type=given.name_or_path)
    why.add_argument("--json", action="store_true", help="print JSON")
    why.add_argument("--no-remote", action="store_true", help="do not query the DVC remote")
    why.add_argument(
        "--no-verify",
        action="store_true",
        help="do not hash the artifacts' files; scores are still checked",
    )
    why.set_defaults(function=_why)
    diff = commands.add_parser(
        "diff",
        help="list the inputs in which two artifacts differ",
        description="Compare parameters, rows of data, data sources, code and base model; print "
        f"each difference once. {NAMES}",
    )
    diff.add_argument("first", metavar="X", type=given.name_or_path)
    diff.add_argument("second", metavar="Y", type=given.name_or_path)
    diff.add_argument("--json", action="store_true", help="print JSON")
    diff.set_defaults(function=_diff)
    compare = commands.add_parser(
        "compare",
        help="compare models task by task, with confidence intervals and paired tests",
        description="Compare the verdicts that the models' evaluations saved, on the items that "
        f"both have. The first model is the reference for the others. {NAMES}",
        epilog="example: lori compare artifacts/merged/linear artifacts/merged/concat",
    )
    compare.add_argument(
        "names",
        nargs="+",
        metavar="X",
        type=given.name_or_path,
        help="a model, or a folder with <task>.jsonl",
    )
    compare.add_argument(
        "-o", "--out", type=given.path, default=Path("compare"), help="default: compare"
    )
    given.add_force(compare)
    compare.set_defaults(function=_compare)
    restore = commands.add_parser(
        "restore",
        help="restore an artifact byte for byte from the cache or the remote",
        description=f"The MD5 of each file is checked. {NAMES}",
    )
    restore.add_argument("name", metavar="X", type=given.name_or_path)
    restore.add_argument(
        "out", type=given.path, metavar="OUT", help="a path that does not exist yet"
    )
    given.add_force(restore)
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
    hash_files = named.snapshot.here and not args.no_verify
    problems = verify(lineage) if hash_files else lineage.problems
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
    differences = lineage_diff.diff(
        why.resolve(args.first, Path()), why.resolve(args.second, Path())
    )
    if args.json:
        print(json.dumps([difference.as_dict() for difference in differences], indent=2))
    else:
        print("\n".join(str(difference) for difference in differences) or "no input differs")
    return 0


def _compare(args: argparse.Namespace) -> int:
    from flows.serving.compare import compare
    from lori_core.report import side_by_side

    print("\n".join(side_by_side.text(compare(args.names, Path(), args.out, force=args.force))))
    print(f"{args.out}: index.html, compare.md, compare.json; lori track sends these to MLflow")
    return 0


def _restore(args: argparse.Namespace) -> int:
    from flows.lineage import why
    from flows.versioning.dvc.damage import check_files

    check_files(Path(), definition=False)
    name, size = why.restore(args.name, args.out, Path(), force=args.force)
    print(f"{args.out}: {name}, {size:,} bytes, each file's MD5 checked")
    return 0
