"""`lori evaluate`: any adapters, ours or PEFT's, on any test sets, side by side."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lori_cli import given
from lori_cli.adapters import add_base, add_extension, add_force, names_of
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
        description="Loads the base once, then scores it and each adapter on the same examples. "
        "Prompt and limits are those of params.yaml where there is one. The model is that of "
        "--base, else the adapters' own, loaded as params.yaml says where it has the same.",
        epilog="examples: lori evaluate artifacts/math/adapter --tasks math,nlu   |   "
        "lori evaluate a b --tasks gsm8k-files,humaneval --limit 200 --samples 20   |   "
        "lori evaluate a --harness lm-eval --tasks arc_easy --limit 100",
    )
    evaluate.add_argument("adapters", nargs="*", type=given.path, metavar="ADAPTER")
    evaluate.add_argument(
        "--tasks",
        required=True,
        type=given.words,
        help="tasks of params.yaml, or sources of `lori sources`, separated by commas",
    )
    evaluate.add_argument("--split", default="test", choices=["train", "validation", "test"])
    evaluate.add_argument(
        "--limit", type=given.whole(1, 2**31 - 1), help="so many examples of each task"
    )
    evaluate.add_argument("--no-base", action="store_true", help="leave the base model out")
    evaluate.add_argument("--protocols", help="fixed, paper, or both separated by a comma")
    evaluate.add_argument("--likelihood", action="store_true", help="score choices by that, too")
    evaluate.add_argument(
        "--samples", type=given.whole(1, 4096), help="outputs for each coding problem (pass@k)"
    )
    evaluate.add_argument("--batch-size", type=given.whole(1, 2**20))
    evaluate.add_argument(
        "--average",
        action="store_true",
        help="the adapters differ in their seed only: add a row with their mean",
    )
    evaluate.add_argument(
        "--unsafe-code", action="store_true", help="run code where it cannot be isolated"
    )
    evaluate.add_argument("--harness", choices=["lm-eval"], help="the tasks are that project's")
    evaluate.add_argument(
        "--attacks",
        type=given.words,
        help="also put harmful requests under these, separated by commas: prefill, role-play, "
        "ignore, base64; each gets a line of its own",
    )
    evaluate.add_argument(
        "--include-path", type=given.path, help="a folder with task files for the harness"
    )
    evaluate.add_argument(
        "-o", "--out", type=given.path, default=Path("evaluation"), help="default: ./evaluation"
    )
    add_extension(evaluate)
    add_base(evaluate)
    add_force(evaluate)
    evaluate.set_defaults(function=_evaluate)
    rejudge = commands.add_parser(
        "rejudge",
        help="judge kept outputs of safety sets again, without generating",
        description="Reads the outputs that lori evaluate or lori run kept, judges those of the "
        "refusal scorer as an evaluation would today, and writes verdicts, shares before and "
        "after, and the outputs whose verdict changed. What is read stays as it is.",
        epilog="examples: lori rejudge evaluation   |   "
        "lori rejudge artifacts/evaluations -o rejudged",
    )
    rejudge.add_argument("folder", type=given.path, metavar="FOLDER")
    rejudge.add_argument(
        "-o", "--out", type=given.path, default=Path("rejudged"), help="default: ./rejudged"
    )
    add_force(rejudge)
    rejudge.set_defaults(function=_rejudge)
    sources = commands.add_parser("sources", help="list the data sets that have a name")
    add_extension(sources)
    sources.set_defaults(function=_sources)


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
    print(f"{args.out}: {rejudging.RESULTS}, {rejudging.CHANGED} and every verdict as JSONL")
    return 0


def _sources(args: argparse.Namespace) -> int:
    from lori_core.data.sources.catalogue import describe
    from lori_core.registries import extensions

    extensions.load(args.extension, "--extension")

    for row in describe():
        terms = row["license"] + (", gated" if row["gated"] else "")
        print(f"{row['name']:30} {row['scorer']:8} {row['purpose']}")
        print(f"{'':30} {'':8} {', '.join(row['splits'])} from {row['where']} ({terms})")
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
        name: peft_file.open_adapter(path)
        for name, path in zip(names_of(args.adapters), args.adapters, strict=True)
    }
    if "base" in adapters:
        raise InputError("an adapter is named 'base', as the base model is; rename its folder")
    if not adapters and args.no_base:
        raise InputError("--no-base, and no adapter: there is nothing to evaluate")
    if args.average and len(adapters) < 2:
        raise InputError("--average: at least two adapters are needed, runs with other seeds")
    kind, inputs = output_folder.EVALUATION, [*args.adapters, *_data_read(args)]
    output_folder.check(args.out, kind, inputs, force=args.force)
    params, base = _params(args, adapters)
    adapters = base.of(adapters)
    if args.harness and args.attacks:
        raise InputError("--attacks: not with --harness, whose tasks have prompts of their own")
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
    _say_other_base(base)
    print(f"{args.out}: results.json, and every prompt, output and verdict as JSONL")
    if params_file.PARAMS.is_file():
        print("lori track sends the scores to MLflow")
    return 0


def _say_other_base(base: Base) -> None:
    """Say that params.yaml has another base model, once the work is done."""
    from lori_core.pipeline import params_file

    if not params_file.PARAMS.is_file():
        return
    own = params_file.load().model
    if base.section != own:
        print(
            f"lori: params.yaml has another base model ({own.name_or_path}): its dtype and "
            f"quantization are not used for {base.section.name_or_path}",
            file=sys.stderr,
        )


def _data_read(args: argparse.Namespace) -> list[Path]:
    """Return the files and folders that the tasks are read from."""
    from lori_core.data import pulled
    from lori_core.data.sources import catalogue, ownership

    found = [pulled.DATA] if pulled.DATA.is_dir() else []
    if args.include_path:
        # The tasks' files and not their folder, for the results may well lie beside them.
        found += (path for path in Path(args.include_path).rglob("*.yaml") if path.is_file())
    if args.harness:
        return found
    named = (catalogue.named().get(name) for name in args.tasks.split(","))
    return [*found, *(path for source in named if source for path in ownership.paths_of(source))]


def _score(
    args: argparse.Namespace,
    params: Params,
    adapters: dict[str, Adapter],
    sets: dict[str, list[Example]],
    tracker: RunTracker,
    folder: Path,
) -> dict[str, Any]:
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
    """Return params.yaml, or the least there must be, with the command's changes; and the base."""
    from lori_core import config
    from lori_core.adapters import base_choice
    from lori_core.pipeline import params_file

    values: dict[str, Any] = {
        "lori": {},
        "training": {"learning_rate": 1e-3},
        "tasks": {"none": {"source": "bundled-math", "calibration": {}, "training": {}}},
    }
    if params_file.PARAMS.is_file():
        values = params_file.load().model_dump()
    own = config.ModelSection.model_validate(values["model"]) if "model" in values else None
    if adapters or args.base is not None:
        base = base_choice.choose(args.base, adapters, own)
    elif own is not None:
        base = base_choice.prepare(own)
    else:
        raise InputError("no adapter and no params.yaml here: which model shall be evaluated?")
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
    """Read the examples of each task named, from pulled data or a ready-made source."""
    from lori_core.core.errors import unknown
    from lori_core.data import pulled
    from lori_core.data.sources import catalogue
    from lori_core.data.sources import pulling as sources
    from lori_core.evaluation import attacks

    if args.include_path:
        raise InputError("--include-path: only with --harness")
    attacks_wanted = args.attacks.split(",") if args.attacks else []
    attacks.check(attacks_wanted)
    if attacks_wanted and params.evaluation.protocols != ("fixed",):
        raise InputError("--attacks: only under the protocol fixed; add --protocols fixed")
    if args.limit is not None and args.limit < 1:
        raise InputError(f"--limit: {args.limit}; at least 1")
    sets = {}
    for name in args.tasks.split(","):
        if (pulled.DATA / name / f"{args.split}.jsonl").is_file():
            sets[name] = pulled.read_examples(name, args.split)[: args.limit]
        elif name in catalogue.named():
            sets[name] = sources.read_source(name, args.split, args.limit, params.lori.seed)
        else:
            known = {path.parent.name for path in pulled.DATA.glob(f"*/{args.split}.jsonl")}
            raise InputError(f"--tasks: {unknown('task', name, known | set(catalogue.named()))}")
        if all(example.scorer == "none" for example in sets[name]):
            raise InputError(f"--tasks: {name}: its {args.split} examples have no answer to judge")
    return attacks.attacked(sets, attacks_wanted)
