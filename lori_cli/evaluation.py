"""`lori evaluate`, `lori rejudge` and `lori sources`: score adapters (compact or PEFT)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lori_cli import given
from lori_cli.pipeline import add_changes
from lori_core.core.errors import InputError

if TYPE_CHECKING:
    from lori_core.adapters.adapter import Adapter
    from lori_core.adapters.base_choice import Base
    from lori_core.config import Params
    from lori_core.core.tracking import RunTracker
    from lori_core.data.example import Example


def add(commands: Any) -> None:
    """Add the commands to the parser."""
    evaluate = commands.add_parser(
        "evaluate",
        help="score adapters and their base model on test sets",
        description="Load the base model once, then score it and each adapter on the same "
        "examples. The prompt template and the limits come from params.yaml if there is one. The "
        "base model is that of --base, otherwise the one that the adapters record; dtype and "
        "quantization come from params.yaml if it has the same base model.",
        epilog="examples: lori evaluate artifacts/math/adapter --tasks math,nlu   |   "
        "lori evaluate a b --tasks gsm8k-files,humaneval --limit 200 --samples 20   |   "
        "lori evaluate a --harness lm-eval --tasks arc_easy --limit 100",
    )
    evaluate.add_argument("adapters", nargs="*", type=given.path, metavar="ADAPTER")
    evaluate.add_argument(
        "--tasks",
        required=True,
        type=given.name_list,
        help="tasks of params.yaml, or data sets of `lori sources`, separated by commas",
    )
    evaluate.add_argument("--split", default="test", choices=["train", "validation", "test"])
    evaluate.add_argument(
        "--limit", type=given.integer(1, 2**31 - 1), help="the number of examples of each task"
    )
    evaluate.add_argument(
        "--no-base", action="store_true", help="do not score the base model itself"
    )
    evaluate.add_argument("--protocols", help="fixed, paper, or both separated by a comma")
    evaluate.add_argument(
        "--likelihood",
        action="store_true",
        help="also score multiple-choice items by the likelihood of their choices",
    )
    evaluate.add_argument(
        "--samples",
        type=given.integer(1, 4096),
        help="the number of outputs for each coding problem (pass@k)",
    )
    evaluate.add_argument("--batch-size", type=given.integer(1, 2**20))
    evaluate.add_argument(
        "--average",
        action="store_true",
        help="add a row with the adapters' mean, for adapters that differ only in their seed",
    )
    evaluate.add_argument(
        "--unsafe-code",
        action="store_true",
        help="run generated code even where the sandbox cannot isolate it",
    )
    evaluate.add_argument(
        "--harness", choices=["lm-eval"], help="--tasks names tasks of this evaluation harness"
    )
    evaluate.add_argument(
        "--attacks",
        type=given.name_list,
        help="also score harmful requests under these attacks, separated by commas: prefill, "
        "role-play, ignore, base64; each attack gets a row of its own",
    )
    evaluate.add_argument(
        "--include-path", type=given.path, help="a folder with further task files for --harness"
    )
    evaluate.add_argument(
        "-o", "--out", type=given.path, default=Path("evaluation"), help="default: ./evaluation"
    )
    add_changes(evaluate, "for this evaluation alone: ")
    given.add_extension(evaluate)
    given.add_base(evaluate)
    given.add_force(evaluate)
    evaluate.set_defaults(function=_evaluate)
    rejudge = commands.add_parser(
        "rejudge",
        help="judge saved outputs of safety sets again, without generating",
        description="Read the outputs that lori evaluate or lori run saved, judge those of the "
        "refusal scorer with the current rules, and write the verdicts, the shares before and "
        "after, and the outputs whose verdict changed. The input files are not changed.",
        epilog="examples: lori rejudge evaluation   |   "
        "lori rejudge artifacts/evaluations -o rejudged",
    )
    rejudge.add_argument("folder", type=given.path, metavar="FOLDER")
    rejudge.add_argument(
        "-o", "--out", type=given.path, default=Path("rejudged"), help="default: ./rejudged"
    )
    given.add_force(rejudge)
    rejudge.set_defaults(function=_rejudge)


def _rejudge(args: argparse.Namespace) -> int:
    from lori_core.adapters import output_folder
    from lori_core.evaluation import rejudging
    from lori_core.evaluation.scoring import incoherence

    kind = output_folder.REJUDGED
    with output_folder.claim(args.out, kind, [args.folder], force=args.force) as folder:
        result = rejudging.rejudge(args.folder, folder)
    for line in rejudging.table(result):
        print(line)
    for name, rule in incoherence.RULES.items():
        print(f"incoherent, {name}: {rule}")
    print(f"{args.out}: {rejudging.RESULTS}, {rejudging.CHANGED} and all verdicts as JSONL")
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    from lori_core.adapters import output_folder
    from lori_core.adapters.peft_format import peft_file
    from lori_core.core.tracking import NullTracker, stage_tracker
    from lori_core.evaluation.comparison import flat
    from lori_core.pipeline import params_file
    from lori_core.registries import extensions

    extensions.load(args.extension, "--extension")
    adapters = {
        name: peft_file.open_adapter(path, copies=True)
        for name, path in zip(given.names_of(args.adapters), args.adapters, strict=True)
    }
    if "base" in adapters:
        raise InputError(
            "an adapter is named 'base', which is the name of the base model's row; rename its "
            "folder"
        )
    if not adapters and args.no_base:
        raise InputError("--no-base, and no adapter: there is nothing to evaluate")
    if args.average and len(adapters) < 2:
        raise InputError("--average: give at least two adapters, trained with different seeds")
    kind, inputs = output_folder.EVALUATION, [*args.adapters, *_data_read(args)]
    output_folder.check(args.out, kind, inputs, force=args.force)
    params, base = _params(args, adapters)
    adapters = base.of(adapters)
    if args.harness and args.attacks:
        raise InputError("--attacks: not with --harness, whose tasks define their own prompts")
    sets = {} if args.harness else _sets(args, params)
    tracker = stage_tracker("evaluate") if params_file.PARAMS.is_file() else NullTracker()
    try:
        inputs.append(base.folder)
        with output_folder.claim(args.out, kind, inputs, force=args.force) as folder:
            results = _score(args, params, adapters, sets, tracker, folder)
    except InputError:
        tracker.forget()
        raise
    tracker.metrics(flat(results))
    tracker.artifact(args.out / "results.json")
    tracker.end()
    _warn_of_other_base(args, base)
    print(f"{args.out}: results.json, and all prompts, outputs and verdicts as JSONL")
    if params_file.PARAMS.is_file():
        print("lori track sends the scores to MLflow")
    return 0


def _warn_of_other_base(args: argparse.Namespace, base: Base) -> None:
    """Warn on standard error if params.yaml has another base model than the evaluation."""
    from lori_core.pipeline import params_file

    if not params_file.PARAMS.is_file():
        return
    own = params_file.changed(params_file.PARAMS, args.profile, args.set)[0].model
    if base.section != own:
        print(
            f"lori: params.yaml has another base model ({own.name_or_path}): its dtype and "
            f"quantization are not used for {base.section.name_or_path}",
            file=sys.stderr,
        )


def _data_read(args: argparse.Namespace) -> list[Path]:
    """Return the files and folders that the tasks are read from."""
    from lori_core.data import pulled
    from lori_core.data.sources import catalogue
    from lori_core.data.sources.files import split_files

    paths = [pulled.DATA] if pulled.DATA.is_dir() else []
    if args.include_path:
        # The task files rather than their folder: the output may be written beside them.
        paths += (path for path in Path(args.include_path).rglob("*.yaml") if path.is_file())
    if args.harness:
        return paths
    named = (catalogue.named().get(name) for name in args.tasks.split(","))
    return [*paths, *(path for source in named if source for path in split_files.paths_of(source))]


def _score(
    args: argparse.Namespace,
    params: Params,
    adapters: dict[str, Adapter],
    sets: dict[str, list[Example]],
    tracker: RunTracker,
    folder: Path,
) -> dict[str, Any]:
    """Score the base model and the adapters; write the items to `folder`, return the results."""
    from lori_core.adapters.attach import check
    from lori_core.evaluation.comparison import evaluate_all
    from lori_core.methods.loaded_model import load_model

    session = load_model(params, training=False)
    for name, adapter in adapters.items():
        check(session.model, adapter, name)
    rows: dict[str, Adapter | None] = {} if args.no_base else {"base": None}
    tracker.start("evaluate")
    tracker.params({"evaluation": params.evaluation.model_dump(), "adapters": list(adapters)})
    return evaluate_all(session, rows | adapters, sets, folder, print, average=args.average)


def _params(args: argparse.Namespace, adapters: dict[str, Adapter]) -> tuple[Params, Base]:
    """Return the parameters of the evaluation and the base model.

    The parameters are those of params.yaml (or the required fields alone, without the file) with
    the command's options; --profile and --set change them for this evaluation alone.
    """
    from lori_core import config
    from lori_core.adapters import base_choice
    from lori_core.api.evaluation import PLACEHOLDERS
    from lori_core.pipeline import params_file

    values = dict(PLACEHOLDERS)
    if args.profile or args.set or params_file.PARAMS.is_file():
        changed, _ = params_file.changed(params_file.PARAMS, args.profile, args.set)
        values = changed.model_dump()
    own = config.ModelSection.model_validate(values["model"]) if "model" in values else None
    if adapters or args.base is not None:
        base = base_choice.choose(args.base, adapters, own)
    elif own is not None:
        base = base_choice.prepare(own)
    else:
        raise InputError("no adapter and no params.yaml here: name the model with --base")
    values["model"] = base.section.model_dump()
    changes = {
        "protocols": args.protocols.split(",") if args.protocols else None,
        "likelihood": args.likelihood or None,
        "samples": args.samples,
        "batch_size": args.batch_size,
        "unsafe_code": args.unsafe_code or None,
        "harness": _harness(args) if args.harness else None,
    }
    section = values.setdefault("evaluation", {})
    section.update({key: value for key, value in changes.items() if value is not None})
    return config.parse(values, "lori evaluate"), base


def _harness(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "tasks": args.tasks.split(","),
        "include_path": str(args.include_path) if args.include_path else None,
        "limit": args.limit,
    }


def _sets(args: argparse.Namespace, params: Params) -> dict[str, list[Example]]:
    """Return the examples of each task in `--tasks`, from pulled data or a named data set."""
    from lori_core.api.evaluation import examples_of
    from lori_core.data import pulled
    from lori_core.evaluation import attacks

    if args.include_path:
        raise InputError("--include-path: only with --harness")
    attacks_wanted = args.attacks.split(",") if args.attacks else []
    attacks.check(attacks_wanted)
    if attacks_wanted and params.evaluation.protocols != ("fixed",):
        raise InputError("--attacks: only under the protocol fixed; add --protocols fixed")
    attacked = [name for name, s in params.evaluation.setups.items() if s.attack]
    if attacks_wanted and attacked:
        raise InputError(
            f"--attacks: not together with evaluation.setups.{attacked[0]}.attack, which would "
            "attack the attacked requests again; leave one of the two out"
        )
    if args.limit is not None and args.limit < 1:
        raise InputError(f"--limit: {args.limit}; at least 1")
    sets = {}
    for name in args.tasks.split(","):
        sets[name] = examples_of(name, args.split, args.limit, params, pulled.DATA, "--tasks")
        if all(example.scorer == "none" for example in sets[name]):
            raise InputError(
                f"--tasks: {name}: its {args.split} examples have no answer to score; choose "
                "another --split or task"
            )
    return attacks.attacked(sets, attacks_wanted)
