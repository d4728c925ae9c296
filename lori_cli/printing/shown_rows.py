"""`lori pull --show N`: examples as the model will read them, with the learned part in colour."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lori_core.config import Params

#: What encloses the learned parts where there are no colours.
OPEN, CLOSE = "⟦", "⟧"


def show(params: Params, base: Path, count: int) -> None:
    """Print the first examples of each task's training split, or of its test split without one.

    Args:
        params: the run.
        base: the base model's folder.
        count: the number of examples of each task.
    """
    from rich.console import Console
    from rich.text import Text

    from lori_core.data.conversations.shown_rows import parts
    from lori_core.data.prompts import encode
    from lori_core.data.pulled import DATA, each_example
    from lori_core.models import base_model

    tokenizer = base_model.load_tokenizer(base)
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    coloured = console.color_system is not None
    legend = "in green" if coloured else f"between {OPEN} and {CLOSE}"
    for task in params.tasks:
        split = "train" if (DATA / task / "train.jsonl").stat().st_size else "test"
        length = params.phase(task, "training").max_length
        for number, example in enumerate(islice(each_example(task, split), count), start=1):
            row = encode(example, params.prompt, tokenizer, length)
            cut = f", cut to training.max_length {length}" if row.cut else ""
            console.print(
                f"{task}, {split} example {number}: {len(row):,} tokens, {row.supervised:,} "
                f"learned ({legend}){cut}",
                style="bold",
                markup=False,
            )
            text = Text()
            for part, learned in parts(row, tokenizer):
                if learned and not coloured:
                    text.append(f"{OPEN}{part}{CLOSE}")
                else:
                    text.append(part, style="green" if learned else None)
            console.print(text)
