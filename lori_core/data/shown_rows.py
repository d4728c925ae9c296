"""The text of a tokenised row in parts, to show which of it is learned."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from lori_core.data.tokenised_row import Encoded


def parts(row: Encoded, tokenizer: Any) -> Iterator[tuple[str, bool]]:
    """Yield the text of a row in parts, each with whether the loss counts its tokens.

    The parts together are the decoded row, with its special tokens. Characters that a terminal
    would not print are escaped.

    Args:
        row: the tokenised example.
        tokenizer: the model's tokenizer.
    """
    ids = row.prompt + row.target
    before = ""
    for learned, places in groupby(range(len(ids)), row.learned):
        *_, last = places
        text = tokenizer.decode(ids[: last + 1], clean_up_tokenization_spaces=False)
        yield _printable(text[len(before) :]), learned
        before = text


def _printable(text: str) -> str:
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text
    )
