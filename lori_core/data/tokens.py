"""A tokenised data set on disk: made once for all stages that read it, and read as it is needed.

One folder holds `tokens.i32`, all token ids one after another, and `rows.i64`, [rows, 4]: where
each row's prompt begins, its target begins, and it ends, and whether it was cut. Both are mapped:
memory is what the rows in use take, however many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from lori_core.config import PromptSection
from lori_core.data.example import Example
from lori_core.data.prompts import Encoded, encode
from lori_core.files import digest, replaced_folder

STORE = Path(".lori/tokens")
_ROWS = "rows.i64"


class TokenStore(Sequence[Encoded]):
    """The rows of a folder that `write` made."""

    def __init__(self, folder: Path) -> None:
        self.tokens = np.memmap(folder / "tokens.i32", dtype="<i4", mode="r")
        self.rows = np.memmap(folder / _ROWS, dtype="<i8", mode="r").reshape(-1, 4)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Encoded: ...
    @overload
    def __getitem__(self, index: slice) -> list[Encoded]: ...
    def __getitem__(self, index: int | slice) -> Encoded | list[Encoded]:
        """Return one row, or several."""
        if isinstance(index, slice):
            return [self[n] for n in range(*index.indices(len(self)))]
        start, middle, stop, cut = self.rows[index].tolist()
        prompt, target = self.tokens[start:middle].tolist(), self.tokens[middle:stop].tolist()
        return Encoded(prompt, target, bool(cut))


@dataclass(frozen=True)
class Counts:
    """What is counted of a data set without holding it.

    Attributes:
        lengths: tokens of each row, int64, [rows].
        supervised: tokens of all targets.
        cut: how many rows were cut.
    """

    lengths: NDArray[np.int64]
    supervised: int
    cut: int


def counts(rows: Sequence[Encoded]) -> Counts:
    """Count rows; those of a store without reading their tokens."""
    if isinstance(rows, TokenStore):
        start, middle, stop, cut = rows.rows.T
        return Counts(stop - start, int(stop.sum() - middle.sum()), int(cut.sum()))
    lengths = np.array([len(row) for row in rows])
    return Counts(lengths, sum(len(row.target) for row in rows), sum(row.cut for row in rows))


def write(rows: Iterable[Encoded], folder: Path) -> None:
    """Write rows into a folder, one at a time."""
    end = 0
    with (folder / "tokens.i32").open("wb") as tokens, (folder / _ROWS).open("wb") as places:
        for row in rows:
            tokens.write(np.asarray(row.prompt + row.target, dtype="<i4").tobytes())
            middle, stop = end + len(row.prompt), end + len(row)
            places.write(np.array([end, middle, stop, row.cut], dtype="<i8").tobytes())
            end = stop


def tokenised(
    examples: Iterable[Example],
    key: str,
    section: PromptSection,
    tokenizer: Any,
    max_length: int,
    store: Path = STORE,
) -> TokenStore:
    """Return examples as tokens, from the store where they are in it.

    Args:
        examples: read once, one at a time, and only where the store lacks them.
        key: identifies the examples.
        section: the prompt's template.
        tokenizer: the model's.
        max_length: of a row.
        store: where tokenised sets are kept.

    Raises:
        ConfigError: if `max_length` leaves no room for any target.
    """
    identity = digest([key, section.model_dump(), max_length, _identity(tokenizer)])
    folder = store / identity[:24]
    store.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):  # two stages may want one set at the same time
        if not (folder / _ROWS).is_file():
            with replaced_folder(folder) as work:
                write((encode(e, section, tokenizer, max_length) for e in examples), work)
    return TokenStore(folder)


def _identity(tokenizer: Any) -> list[str]:
    backend: Callable[[], str] | None = getattr(
        getattr(tokenizer, "backend_tokenizer", None), "to_str", None
    )
    vocabulary = backend() if backend else digest(sorted(tokenizer.get_vocab().items()))
    return [
        str(tokenizer.chat_template),
        str(tokenizer.bos_token),
        str(tokenizer.eos_token),
        vocabulary,
    ]
